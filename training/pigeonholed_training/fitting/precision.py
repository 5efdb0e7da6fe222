"""In which number format a network is trained."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from pigeonholed.classifying.keras import import_keras

if TYPE_CHECKING:
    from collections.abc import Iterator

FULL = "float32"
_CPUINFO = Path("/proc/cpuinfo")
_FAST = {"amx_bf16", "avx512_bf16"}  # instructions with which oneDNN multiplies bfloat16 faster than float32


def choose(wanted: bool, cpuinfo: Path = _CPUINFO) -> str:
    """The dtype policy for this machine: mixed where that was asked for and is faster, else `float32`.

    Weights stay float32 either way. A GPU takes bfloat16 from compute capability 8.0 on (A100), float16 from 7.0
    (V100); a CPU takes bfloat16 where it has instructions for it.
    """
    if not wanted or import_keras().backend.backend() != "tensorflow":
        return FULL
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        return of_gpu(tf.config.experimental.get_device_details(gpus[0]).get("compute_capability"))
    return of_cpu(cpuinfo)


def of_gpu(capability: tuple[int, int] | None) -> str:
    """The policy for an Nvidia GPU of that compute capability."""
    if capability is None or capability < (7, 0):
        return FULL
    return "mixed_bfloat16" if capability >= (8, 0) else "mixed_float16"


def of_cpu(cpuinfo: Path = _CPUINFO) -> str:
    """The policy for a CPU that describes itself so."""
    try:
        flags = set(cpuinfo.read_text(encoding="ascii", errors="replace").split())
    except OSError:
        return FULL
    return "mixed_bfloat16" if flags & _FAST else FULL


@contextlib.contextmanager
def policy(name: str) -> Iterator[None]:
    """Networks that are built meanwhile compute in that policy."""
    keras = import_keras()
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
