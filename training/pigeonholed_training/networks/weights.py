"""Where a backbone's weights come from: nowhere, ImageNet through Keras, or a file; all doubts settled at the start."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import socket
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pigeonholed.classifying.keras import import_keras
from pigeonholed_training.errors import Misconfigured, TrainingError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_KERAS_BASE = "https://storage.googleapis.com/tensorflow/keras-applications"
_SILENCE_S = 30.0  # without a byte; Keras itself would wait for ever
_MAX_BYTES = 4 << 30  # of the weights in a .keras file
_SIDES = (96, 128, 160, 192, 224)


@dataclass(frozen=True, slots=True)
class Published:
    """The official ImageNet weights of a backbone without its top.

    Attributes:
        file: name in Keras' cache and at its address; `{side}` stands for the picture size that they were trained at.
        folder: below the address of Keras' weights.
        sides: those sizes; another size takes those of 224.
        md5: as Keras checks it; empty where it has none.
        numbers: how many weights there are.
        with_top: how many there would be with it.
    """

    file: str
    folder: str
    numbers: int
    with_top: int
    md5: str = ""
    sides: tuple[int, ...] = (224,)


PUBLISHED = {
    "mobilenet-v2": Published(
        "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_{side}_no_top.h5",
        "mobilenet_v2",
        2_257_984,
        3_538_984,
        sides=_SIDES,
    ),
    "vgg16": Published(
        "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "vgg16",
        14_714_688,
        138_357_544,
        "6d6bbae143d832006294945121d1f1fc",
    ),
    "resnet50": Published(
        "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "resnet",
        23_587_712,
        25_636_712,
        "4d473c1dd8becc155b73f8504c6f6626",
    ),
    "efficientnetv2-b0": Published(
        "efficientnetv2-b0_notop.h5", "efficientnet_v2", 5_919_312, 7_200_312, "893217f2bb855e2983157299931e43ff"
    ),
    "mobilenetv3-small": Published(
        "weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5",
        "mobilenet_v3",
        939_120,
        2_554_968,
        "d3e8ec802a04aa4fc771ee12a9a9b836",
    ),
    "mobilenet-v1-025": Published("mobilenet_2_5_{side}_tf_no_top.h5", "mobilenet", 218_544, 475_544, sides=_SIDES[1:]),
}


@dataclass(frozen=True, slots=True)
class Weights:
    """Where a network starts from.

    Attributes:
        given: what the user said: `none`, `imagenet` or a file.
        path: the file; None for `none`.
        digest: SHA-256 of the file's content in hex, which is the identity of the weights; `none` without a file.
    """

    given: str = "none"
    path: Path | None = None
    digest: str = "none"


def resolve(
    given: str, backbone: str, height: int, width: int, say: Callable[[str], object] = lambda _said: None
) -> Weights:
    """The weights that the user asked for, looked through: nothing slow needs to be begun for wrong ones.

    Needs neither Keras nor TensorFlow, but for a download.

    Args:
        given: `none`; `imagenet`, from Keras' cache or fetched into it; or a file without top: `.h5`, `.weights.h5` or
            `.keras`, told apart by content.
        backbone: a key of `PUBLISHED`.
        height: pixels that the network takes; some backbones have other ImageNet weights for other sizes.
        width: pixels.
        say: told one sentence before a download.

    Raises:
        Misconfigured: there is no such file, it is damaged or no HDF5, or holds the weights of something else.
        Unavailable: ImageNet weights are not in the cache and cannot be fetched.
    """
    if given == "none":
        return Weights()
    path = _imagenet(backbone, height, width, say) if given == "imagenet" else Path(given).expanduser()
    try:
        _check(path, backbone)
        with open(path, "rb") as stream:
            return Weights(given, path, hashlib.file_digest(stream, "sha256").hexdigest())
    except FileNotFoundError as fault:
        raise Misconfigured(
            f"There is no file of weights {given!a}; --weights takes none, imagenet, or an existing file."
        ) from fault
    except OSError as fault:
        raise Misconfigured(f"Cannot read the weights in {path}: {fault.strerror or fault}.") from fault


def load(model: Any, weights: Weights, backbone: str) -> None:
    """Puts the weights into `model`, a backbone as `keras.applications` makes it without top.

    Raises:
        Misconfigured: shapes or order are not those of this network, or a number is not finite.
    """
    if weights.path is None:
        return
    kind = _kind(weights.path)
    with tempfile.TemporaryDirectory(prefix="pigeonholed-") as folder:
        # Keras goes by the name's end alone, and official files are named alike whatever they hold.
        named = Path(folder, f"backbone{kind}")
        named.symlink_to(weights.path.resolve())
        try:
            model.load_weights(named)
        # Keras answers a file of another network with whatever its layers raise; each of them means the same to us.
        except Exception as fault:
            raise _foreign(weights.path, backbone) from fault
    if not all(np.isfinite(array).all() for array in model.get_weights()):
        raise Misconfigured(f"The weights in {weights.path} are damaged: some of their numbers are not finite.")


def _check(path: Path, backbone: str) -> None:
    """Counts the numbers in a file: enough to tell networks apart, and whether the top is with them."""
    wanted, found = PUBLISHED[backbone], _count(path)
    if found == wanted.numbers:
        return
    if found == wanted.with_top:
        raise Misconfigured(
            f"The weights in {path} are those of {backbone} with its ImageNet classes; give the file without top "
            f"({_file(wanted, 224)})."
        )
    raise _foreign(path, backbone, found)


def _foreign(path: Path, backbone: str, found: int = 0) -> Misconfigured:
    """What to say of weights that are not those of `backbone`."""
    owner = next((name for name, other in PUBLISHED.items() if found in (other.numbers, other.with_top)), "")
    if owner:
        return Misconfigured(f"The weights in {path} are those of {owner}, not of {backbone}.")
    counts = f": it has {PUBLISHED[backbone].numbers:,} numbers, the file {found:,}" if found else ""
    return Misconfigured(f"The weights in {path} do not fit {backbone} without top{counts}.")


def _count(path: Path) -> int:
    """How many weights a file holds, those of an optimiser and states of random generators apart."""
    import h5py  # type: ignore[import-untyped]

    try:
        with _opened(path) as stream, h5py.File(stream, "r") as file:
            root = file.get("model_weights", file)
            return sum(
                int(np.prod(shape))
                for name, shape in _arrays(h5py, root, "")
                if not name.startswith(("/optimizer", "/metrics")) and "seed_generator" not in name
            )
    except (OSError, zipfile.BadZipFile, KeyError, RuntimeError, ValueError, EOFError) as fault:
        if isinstance(fault, OSError) and fault.errno:
            raise
        said = "it is damaged or cut short" if _kind(path) else "it is neither HDF5 nor a .keras file"
        raise Misconfigured(f"Cannot read the weights in {path}: {said}.") from fault


def _arrays(h5py: Any, group: Any, prefix: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of every array below `group`; links that lead elsewhere are passed over."""
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            continue
        child = group[name]
        if isinstance(child, h5py.Group):
            yield from _arrays(h5py, child, f"{prefix}/{name}")
        else:
            yield f"{prefix}/{name}", child.shape


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The HDF5 file at `path`, or inside the archive there."""
    if _kind(path) != ".keras":
        with open(path, "rb") as stream:
            yield stream
        return
    with zipfile.ZipFile(path) as archive:
        if archive.getinfo("model.weights.h5").file_size > _MAX_BYTES:
            raise ValueError("too large")
        yield io.BytesIO(archive.read("model.weights.h5"))


def _kind(path: Path) -> str:
    """How the content would be named: `.keras`, `.weights.h5` of Keras 3 or `.h5` of before; empty if none of them."""
    with open(path, "rb") as stream:
        head = stream.read(8)
    if head[:4] == b"PK\x03\x04":
        return ".keras"
    if head != b"\x89HDF\r\n\x1a\n":
        return ""
    import h5py

    with contextlib.suppress(OSError), h5py.File(path, "r") as file:
        return ".h5" if "layer_names" in file.attrs or "model_weights" in file else ".weights.h5"
    return ".h5"


def _file(published: Published, side: int) -> str:
    return published.file.format(side=side if side in published.sides else 224)


def _imagenet(backbone: str, height: int, width: int, say: Callable[[str], object]) -> Path:
    """The official file: of Keras' cache, or fetched into it under its name once it is complete."""
    published = PUBLISHED[backbone]
    file = _file(published, height if height == width else 224)
    address = f"{_KERAS_BASE}/{published.folder}/{file}"
    cache = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    path = cache / "models" / file
    if path.is_file() and _is_official(path, published.md5):
        return path
    say(f"Fetching the ImageNet weights of {backbone} from {address}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Keras would write to the final name, and take what a kill leaves there for the whole file.
        os.replace(_fetch(address, f"{file}.part", cache, published.md5), path)
    except TrainingError:
        raise
    except Exception as fault:  # Keras raises a plain Exception where there is no network
        raise Unavailable(
            f"Cannot fetch the ImageNet weights of {backbone} ({_reason(fault)}); fetch {address} on a machine "
            "with a network and give the file with --weights FILE."
        ) from fault
    return path


def _is_official(path: Path, md5: str) -> bool:
    if not md5:
        return True
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() == md5


def _fetch(address: str, name: str, cache: Path, md5: str) -> str:
    """Downloads by Keras, without its progress bar and without waiting for ever."""
    keras = import_keras()
    talks, timeout = keras.config.is_interactive_logging_enabled(), socket.getdefaulttimeout()
    keras.config.disable_interactive_logging()
    socket.setdefaulttimeout(_SILENCE_S)
    try:
        fetched: str = keras.utils.get_file(
            name, address, file_hash=md5 or None, cache_dir=str(cache), cache_subdir="models", force_download=True
        )
        return fetched
    finally:
        socket.setdefaulttimeout(timeout)
        if talks:
            keras.config.enable_interactive_logging()


def _reason(fault: Exception) -> str:
    """The last part of what Keras says, which follows the address."""
    return str(fault).rpartition(" -- ")[2].strip().rstrip(".") or type(fault).__name__
