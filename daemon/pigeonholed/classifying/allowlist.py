"""What a `.keras` file may hold: read by ourselves before Keras sees it.

`safe_mode` of Keras works by naming what is forbidden, and has been passed by again and again (CVE-2025-1550, -8747,
-9906, CVE-2026-1462). Here everything is forbidden that is not named.
"""

from __future__ import annotations

import io
import json
import stat
import struct
import zipfile
import zlib
from typing import TYPE_CHECKING, Any

from pigeonholed.bundle import BundleError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_ENTRY_BYTES = {"metadata.json": 1 << 20, "config.json": 32 << 20, "model.weights.h5": 4 << 30}
"""The entries of the archive, all of them needed, and the largest size of each once unpacked."""

MAX_RATIO = 200  # unpacked over packed; Keras itself does not compress
MAX_DEPTH = 96
_COMPRESSION = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
MAX_UNITS = 65_536


def _words(text: str) -> frozenset[str]:
    """A set written down as it reads."""
    return frozenset(text.split())


LAYERS = _words(
    """
    Activation Add Average AveragePooling1D AveragePooling2D BatchNormalization CenterCrop Concatenate Conv2D Cropping2D
    Dense DepthwiseConv2D Dropout ELU Flatten GaussianDropout GaussianNoise GlobalAveragePooling1D
    GlobalAveragePooling2D GlobalMaxPooling2D GroupNormalization InputLayer LayerNormalization LeakyReLU
    MaxPooling2D Maximum Minimum Multiply Normalization PReLU Permute RandomBrightness RandomContrast RandomCrop
    RandomFlip RandomRotation RandomTranslation RandomZoom ReLU Rescaling Reshape Resizing SeparableConv2D Softmax
    SpatialDropout2D Subtract UnitNormalization UpSampling2D ZeroPadding2D
    """
)
MODELS = frozenset({"Functional", "Sequential"})
INITIALIZERS = _words(
    """
    Constant GlorotNormal GlorotUniform HeNormal HeUniform LecunNormal LecunUniform Ones Orthogonal RandomNormal
    RandomUniform TruncatedNormal VarianceScaling Zeros
    """
)
_ALLOWED = {
    "keras.layers": LAYERS | {"Functional", "Sequential"},
    "keras": MODELS | {"DTypePolicy"},
    "keras.models": MODELS,
    "keras.src.models.functional": {"Functional"},
    "keras.src.models.sequential": {"Sequential"},
    "keras.dtype_policies": {"DTypePolicy"},
    "keras.initializers": INITIALIZERS,
    "keras.regularizers": {"L1", "L2", "L1L2"},
    # What keras.applications uses beside layers: sums and products (MobileNetV3), and two layers of ConvNeXt.
    "keras.src.ops.numpy": {"Add", "Multiply", "Subtract"},
    "keras.src.applications.convnext": {"LayerScale", "StochasticDepth"},
    "keras.constraints": {"MaxNorm", "MinMaxNorm", "NonNeg", "UnitNorm"},
}
ACTIVATIONS = _words(
    """
    elu exponential gelu hard_sigmoid hard_silu hard_swish leaky_relu linear log_softmax mish relu relu6 selu sigmoid
    silu softmax softplus softsign swish tanh
    """
)
# Numbers that decide how much memory a layer takes when it is built, before any weight is read.
_SIZES = frozenset(
    {"units", "filters", "depth_multiplier", "kernel_size", "pool_size", "size", "padding", "height", "width"}
)


def check(data: bytes, where: Path) -> None:
    """Refuses a `.keras` file that holds anything but the layers we know, wherever in it.

    Args:
        data: the whole file.
        where: the bundle, for messages.

    Raises:
        BundleError: no such archive; an entry too many, too few or too large; a class, function, operation or
            registered object that is not on our list, even where the network does not reach it.
    """
    try:
        config = json.loads(_entry(data, "config.json"))
        if not isinstance(config, dict) or config.get("class_name") not in MODELS:
            raise _Refused("its config.json describes no network")
        # Not looked at by Keras either, because it loads with compile=False: optimiser and loss.
        config["compile_config"] = None
        for node in _dicts(config, MAX_DEPTH):
            _check_node(node)
    except _Refused as fault:
        raise BundleError(f"The network in {where}/model.keras is refused: {fault}.") from fault
    except (ValueError, RuntimeError, EOFError, OSError, zipfile.BadZipFile, zlib.error, struct.error) as fault:
        raise BundleError(f"The network in {where}/model.keras is refused: it is damaged or no Keras file.") from fault


def check_weights(data: bytes, where: Path) -> None:
    """Refuses weights that point outside their file or unpack to more than the file could hold.

    Raises:
        BundleError: a soft or external link, external or virtual storage, too many bytes.
    """
    import h5py  # type: ignore[import-untyped]

    try:
        weights = _entry(data, "model.weights.h5")
        with h5py.File(io.BytesIO(weights), "r") as file:
            total = sum(_check_datasets(h5py, file, MAX_DEPTH))
        if total > len(weights):
            raise _Refused("its weights claim more bytes than their file has")
    except _Refused as fault:
        raise BundleError(f"The network in {where}/model.keras is refused: {fault}.") from fault
    except Exception as fault:  # HDF5 answers a malformed file with an error of any kind
        raise BundleError(f"The network in {where}/model.keras is refused: its weights are damaged.") from fault


class _Refused(Exception):
    """The end of a sentence about a `.keras` file."""


def _entry(data: bytes, name: str) -> bytes:
    """One entry of the archive, once all of them are known to be harmless."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        if sorted(entry.filename for entry in entries) != sorted(MAX_ENTRY_BYTES):
            raise _Refused(f"it does not hold exactly {', '.join(sorted(MAX_ENTRY_BYTES))}")
        for entry in entries:
            if stat.S_ISLNK(entry.external_attr >> 16) or entry.compress_type not in _COMPRESSION:
                raise _Refused(f"{entry.filename} is no plain entry")
            large = entry.file_size > MAX_ENTRY_BYTES[entry.filename]
            if large or entry.file_size > MAX_RATIO * max(entry.compress_size, 1):
                raise _Refused(f"{entry.filename} unpacks to {entry.file_size} bytes")
        # `read` stops at the size declared above and checks the sum, whatever the compressed data would give.
        return archive.read(name)


def _dicts(value: Any, depth: int) -> Iterator[dict[str, Any]]:
    """Every object in a JSON document, dead branches included."""
    if depth == 0:
        raise _Refused("its config.json is nested too deeply")
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for child in value:
            if isinstance(child, dict | list):
                yield from _dicts(child, depth - 1)


def _check_node(node: dict[str, Any]) -> None:
    """Refuses one JSON object for its class, its activation or its size."""
    if "class_name" in node:
        _check_class(node)
    for key, value in node.items():
        # A dictionary here would be a function or a custom class, and a word not on the list a registered one.
        if key.endswith("activation") and not (value is None or (isinstance(value, str) and value in ACTIVATIONS)):
            raise _Refused(f"the activation {str(value)[:60]!a} is not on the list of those allowed")
        numbers = value if isinstance(value, list) else [value]
        if key in _SIZES and any(isinstance(number, int | float) and abs(number) > MAX_UNITS for number in numbers):
            raise _Refused(f"its {key} of {str(value)[:60]} is over {MAX_UNITS}")


def _check_class(node: dict[str, Any]) -> None:
    """Refuses a serialised object that is not one of ours."""
    name, module = node["class_name"], node.get("module")
    if name == "__keras_tensor__":  # where a layer's input comes from
        return
    known = isinstance(module, str) and isinstance(name, str) and name in _ALLOWED.get(module, frozenset())
    # A registered name would be looked up before module and class.
    if not known or node.get("registered_name") not in (None, name):
        shown = f"{module}.{name}" if known is False else str(node.get("registered_name"))
        raise _Refused(f"{shown[:120]!a} is not on the list of layers allowed")


def _check_datasets(h5py: Any, group: Any, depth: int) -> Iterator[int]:
    """Bytes of each data set below `group`, once it is plain."""
    if depth == 0:
        raise _Refused("its weights are nested too deeply")
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise _Refused("its weights hold a link")
        child = group[name]
        if isinstance(child, h5py.Group):
            yield from _check_datasets(h5py, child, depth - 1)
        elif not isinstance(child, h5py.Dataset) or child.external or child.is_virtual or not _is_plain(child.dtype):
            raise _Refused("its weights hold something else than plain numbers")
        else:
            yield int(child.nbytes)


def _is_plain(dtype: Any) -> bool:
    """Numbers of a fixed size; `V` of two bytes is how bfloat16 is written."""
    return dtype.kind in "biuf" or (dtype.kind == "V" and dtype.names is None and dtype.itemsize <= 2)
