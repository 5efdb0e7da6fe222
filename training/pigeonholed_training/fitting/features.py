"""What a frozen backbone makes of each picture: computed once, kept beside the pixels, found again by content.

Two files for each backbone with its weights: the rows, float32, and the SHA-256 of the picture of each. Rows are on the
disk before the keys that name them, so that a kill costs the last seconds and nothing else; pictures that are added
later are appended.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pigeonholed import bundle as bundles
from pigeonholed.bundle import BundleError
from pigeonholed.classifying import gpu, keras, openvino
from pigeonholed.classifying.export import export_openvino
from pigeonholed_training.errors import Misconfigured, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy.typing as npt

    Pixels = npt.NDArray[np.uint8]
    Rows = npt.NDArray[np.float32]
    Read = Callable[[npt.NDArray[np.intp]], Pixels]
    Infer = Callable[[Pixels], Rows]

_CHUNK = {"cpu": 64, "gpu": 256}  # pictures that go through the network at once
_WORTH_CONVERTING = 256  # pictures; converting a network for OpenVINO takes some seconds
_COMMIT = 512  # pictures that a kill may cost
_KEY_BYTES = 32
_SPARE_BYTES = 64 << 20  # left free on the disk


@dataclass(frozen=True)
class Features:
    """Features of N pictures, on the disk until they are read.

    Attributes:
        rows: float32 [M, F], memory-mapped; of other pictures too.
        where: the row of each picture, intp [N].
    """

    rows: Rows
    where: npt.NDArray[np.intp]

    def read(self, indices: npt.NDArray[np.intp]) -> Rows:
        """A copy, float32 [n, F], of those of some pictures."""
        return np.asarray(self.rows[self.where[indices]], np.float32)


def compute(
    model: Any,
    read: Read,
    keys: Sequence[str],
    folder: Path,
    *,
    seen_as: str = "",
    on_done: Callable[[int, int], object] = lambda _done, _total: None,
    say: Callable[[str], object] = lambda _said: None,
) -> Features:
    """The features of all pictures; those that `folder` has already are not computed again.

    Args:
        model: uint8 [N, H, W, 3] -> float32 [N, F]; see `backbones.features_model`. Its weights are part of the key.
        read: gives the pixels, uint8 [n, H, W, 3], of the pictures with these indices; called in a thread.
        keys: SHA-256 of each picture's bytes, hex.
        folder: where pixels made of these pictures in this way are kept; made if missing.
        seen_as: anything else that decides pixels, such as how a picture is brought to its size.
        on_done: told (done, total) of the pictures that had to be computed.
        say: told one sentence where another training computes the same.

    Raises:
        Unavailable: the disk is full.
        Misconfigured: the folder cannot be written, or the weights give features that are not finite.
    """
    device = _device()
    size = int(model.output_shape[-1])
    store = _Store(folder / f"features-{_key(model, device, seen_as)[:16]}", size)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with store.locked(say):
            have = store.open()
            missing = list({key: index for index, key in enumerate(keys) if bytes.fromhex(key) not in have}.values())
            if missing:
                store.require_room(len(missing))
                _append(store, model, device, read, keys, missing, on_done)
                have = store.open()
    except OSError as fault:
        raise _fault(folder, fault) from fault
    return Features(store.rows(len(have)), np.array([have[bytes.fromhex(key)] for key in keys], np.intp))


class _Store:
    """The two files.

    Args:
        base: their path without the ending.
        size: numbers a row.
    """

    def __init__(self, base: Path, size: int) -> None:
        self._rows, self._keys = base.with_suffix(".f32"), base.with_suffix(".sha256")
        self._lock = base.with_suffix(".lock")
        self._size = size

    @contextlib.contextmanager
    def locked(self, say: Callable[[str], object]) -> Iterator[None]:
        """Keeps other trainings from computing the same meanwhile."""
        fd = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"Another training computes the same features in {self._lock.parent}; waiting for it.")
                fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def open(self) -> dict[bytes, int]:
        """The row of each key; what a kill left behind without its other half is cut off."""
        for path in (self._rows, self._keys):
            path.touch()
        count = min(self._keys.stat().st_size // _KEY_BYTES, self._rows.stat().st_size // (4 * self._size))
        for path, length in ((self._rows, 4 * self._size), (self._keys, _KEY_BYTES)):
            if path.stat().st_size != count * length:
                os.truncate(path, count * length)
        keys = self._keys.read_bytes()
        return {keys[row * _KEY_BYTES : (row + 1) * _KEY_BYTES]: row for row in range(count)}

    def require_room(self, count: int) -> None:
        """Raises Unavailable where `count` more rows would fill the disk."""
        needed, free = count * 4 * self._size, shutil.disk_usage(self._rows.parent).free
        if free < needed + _SPARE_BYTES:
            raise Unavailable(
                f"Cannot keep features in {self._rows.parent}: they need {needed / 1e6:.0f} MB and "
                f"{free / 1e6:.0f} MB are free; make room there."
            )

    def append(self, rows: Rows, keys: bytes) -> None:
        """Adds rows and their keys; they are on the disk when it returns."""
        for path, data in ((self._rows, np.ascontiguousarray(rows, "<f4").tobytes()), (self._keys, keys)):
            with open(path, "ab") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())

    def rows(self, count: int) -> Rows:
        """All rows, memory-mapped."""
        if not count:
            return np.empty((0, self._size), np.float32)
        return np.memmap(self._rows, "<f4", "r", shape=(count, self._size))


def _append(
    store: _Store,
    model: Any,
    device: str,
    read: Read,
    keys: Sequence[str],
    missing: list[int],
    on_done: Callable[[int, int], object],
) -> None:
    """Computes what is missing, in the order of the pictures; a thread reads ahead."""
    infer, chunk = network(model, len(missing)), _CHUNK[device]
    chunks = [np.array(missing[start : start + chunk], np.intp) for start in range(0, len(missing), chunk)]
    rows: list[Rows] = []
    done = kept = 0
    with ThreadPoolExecutor(1, "features-read") as thread:
        ahead = thread.submit(read, chunks[0])
        for number, indices in enumerate(chunks):
            pixels = ahead.result()
            if number + 1 < len(chunks):
                ahead = thread.submit(read, chunks[number + 1])
            rows.append(infer(np.ascontiguousarray(pixels)))
            if not np.isfinite(rows[-1]).all():
                raise Misconfigured("The backbone gives features that are not finite; its weights are damaged.")
            done += len(indices)
            if done - kept >= _COMMIT or done == len(missing):
                store.append(np.concatenate(rows), b"".join(bytes.fromhex(keys[i]) for i in missing[kept:done]))
                rows, kept = [], done
            on_done(done, len(missing))


def network(model: Any, count: int) -> Infer:
    """The fastest way for `count` pictures through a network of uint8 [N, H, W, 3].

    Keras on a GPU; on a CPU OpenVINO in f32, unless that would be done before the network is converted for it.

    Both differ by 2e-5 at most where features reach 6 (MobileNetV2 at 224 pixels), and on two cores OpenVINO takes
    230 pictures/s where TensorFlow takes 67. In bfloat16 it would take 500, and features would be off by 5 %.
    """
    _, height, width, _ = model.input_shape
    wanted = bundles.Input(height=height, width=width)
    if _device() == "cpu" and count >= _WORTH_CONVERTING:
        # What OpenVINO has no equivalent for goes through Keras.
        with tempfile.TemporaryDirectory(prefix="pigeonholed-") as name, contextlib.suppress(BundleError):
            folder = Path(name)
            model.save(folder / "model.keras")
            export_openvino(folder / "model.keras", folder)
            xml, weights = (folder / Path(path).name for path in (bundles.OPENVINO_MODEL, bundles.OPENVINO_WEIGHTS))
            return openvino.load(xml.read_bytes(), weights.read_bytes(), wanted, folder).infer
    function = keras.compiled(model, wanted)
    return lambda pixels: np.asarray(function(pixels), np.float32)


def _device() -> str:
    return "gpu" if gpu.find_gpu() else "cpu"


def _key(model: Any, device: str, seen_as: str) -> str:
    """What decides features besides the picture: the network, its weights, its input and what computes it."""
    digest = hashlib.sha256()
    about = [model.input_shape[1:], [type(layer).__name__ for layer in model.layers], device, seen_as]
    digest.update(json.dumps(about).encode("utf-8"))
    for variable, array in zip(model.weights, model.get_weights(), strict=True):
        digest.update(f"{variable.name} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _fault(folder: Path, fault: OSError) -> Misconfigured | Unavailable:
    said = fault.strerror or str(fault)
    if fault.errno in (errno.ENOSPC, errno.EDQUOT):
        return Unavailable(f"Cannot keep features in {folder}: {said}; make room, and the same command goes on there.")
    return Misconfigured(f"Cannot keep features in {folder}: {said}.")
