"""Whether there is a GPU that TensorFlow could use, found out without importing TensorFlow."""

from __future__ import annotations

import ctypes
from importlib import metadata
from importlib.util import find_spec

_NAME_BYTES = 128


def find_gpu() -> str | None:
    """The name of the first NVIDIA GPU, or None.

    None too where TensorFlow or the CUDA libraries that it needs are not installed, because it would not use the
    GPU then. Asking the driver takes about 0.1 s where there is one and nothing elsewhere.
    """
    if find_spec("tensorflow") is None or not _has_cudnn():
        return None
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    count = ctypes.c_int(0)
    if cuda.cuInit(0) != 0 or cuda.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value < 1:
        return None
    name = ctypes.create_string_buffer(_NAME_BYTES)
    if cuda.cuDeviceGetName(name, _NAME_BYTES, 0) != 0:
        return "unnamed GPU"
    return name.value.decode("utf-8", "replace")


def _has_cudnn() -> bool:
    """Whether cuDNN is there, as a Python package or of the system; without it TensorFlow stays on the CPU."""
    for major in (12, 13):
        try:
            metadata.distribution(f"nvidia-cudnn-cu{major}")
        except metadata.PackageNotFoundError:
            continue
        return True
    try:
        ctypes.CDLL("libcudnn.so.9")
    except OSError:
        return False
    return True
