"""From pixels to calibrated probabilities: which runtime serves a bundle, and the one way to load it."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, Protocol, TypedDict

from pigeonholed import bundle as bundles
from pigeonholed.classifying import allowlist, selftest
from pigeonholed.classifying.batched import BatchedClassifier, batch_sizes
from pigeonholed.classifying.gpu import find_gpu

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from pigeonholed.bundle import Bundle
    from pigeonholed.classifying.batched import Network

__all__ = ["Classifier", "DeviceUnavailable", "RuntimeOptions", "find_gpu", "load_classifier"]

Kind = Literal["auto", "keras", "openvino"]
Device = Literal["auto", "gpu", "cpu"]
Precision = Literal["auto", "f32", "bf16", "f16"]


class RuntimeOptions(TypedDict):
    """The arguments of `load_classifier` beside the bundle."""

    kind: str
    device: str
    precision: str
    max_batch_size: int


class DeviceUnavailable(Exception):
    """The device, or the precision on it, that was asked for is not to be had here; the message is one sentence."""


class Classifier(Protocol):
    """A loaded, warmed and self-tested network. Exactly one thread may call it.

    Attributes:
        labels: the classes, in the order of the columns.
        runtime: `openvino` or `keras`.
        device: `cpu` or `gpu`.
        precision: what it really computes in: `f32`, `bf16` or `f16`.
        batch_sizes: the warmed batch sizes, ascending; the last is the largest batch it takes.
    """

    @property
    def labels(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def runtime(self) -> str: ...  # noqa: D102
    @property
    def device(self) -> str: ...  # noqa: D102
    @property
    def precision(self) -> str: ...  # noqa: D102
    @property
    def batch_sizes(self) -> tuple[int, ...]: ...  # noqa: D102

    def predict(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Calibrated probabilities: uint8 RGB [N, H, W, 3] -> float32 [N, K].

        A row for which the network gave no finite answer is NaN throughout; judging that is the caller's.

        Raises:
            ValueError: more pictures than the largest batch, or not pixels of the bundle's size.
            BundleError: the network answered in another shape than its bundle says.
        """
        ...


def load_classifier(
    bundle: Bundle,
    *,
    kind: Kind | str = "auto",
    device: Device | str = "auto",
    precision: Precision | str = "auto",
    max_batch_size: int = 64,
) -> Classifier:
    """Loads the network of a bundle, warms every batch size, and runs the bundle's self-test on it.

    `auto` takes the GPU through Keras where there is one (found without importing TensorFlow), else OpenVINO, else
    Keras on the CPU; OpenVINO in any case for a bundle without layers. Precision `auto` is f32: calibration and
    thresholds hold for that.

    Args:
        bundle: opened, and so verified; the network is read from it again under the same checksums.
        kind: `auto`, `keras` or `openvino`.
        device: `auto`, `gpu` or `cpu`.
        precision: `auto`, `f32`, `bf16` or `f16`; where the CPU lacks it, OpenVINO computes in f32 and says so.
        max_batch_size: the most pictures in one call of `predict`.

    Raises:
        BundleError: the network is not in our allow-list, cannot be loaded, has another shape than its manifest
            says, or fails its self-test.
        DeviceUnavailable: `gpu` where there is none, or a precision that this runtime does not offer; Keras or `gpu`
            for a bundle without layers.
    """
    # Whichever runtime serves: a version with forbidden layers is refused as a whole.
    if bundle.manifest.network == "keras":
        allowlist.check(bundle.read(bundles.KERAS_MODEL), bundle.path)
    network = _load_network(bundle, kind, device, precision)
    classifier = BatchedClassifier(bundle.manifest, network, batch_sizes(max_batch_size), str(bundle.path))
    classifier.warm()
    selftest.check(bundle, classifier)
    return classifier


def _load_network(bundle: Bundle, kind: str, device: str, precision: str) -> Network:
    """The bundle's network in the runtime that `_choose` names."""
    if bundle.manifest.network == "openvino":
        _refuse_keras(bundle, kind, device)
        kind, device = "openvino", "cpu"
    runtime, place = _choose(kind, device)
    # Imported where it is chosen: only the runtime that serves is loaded.
    if runtime == "openvino":
        from pigeonholed.classifying import openvino

        files = bundle.read(bundles.OPENVINO_MODEL), bundle.read(bundles.OPENVINO_WEIGHTS)
        return openvino.load(*files, bundle.manifest.input, bundle.path, precision=precision)
    if precision not in ("auto", "f32"):
        raise DeviceUnavailable(f"Keras serves in f32 only; set precision to auto or f32 instead of {precision}.")
    from pigeonholed.classifying import keras

    network = keras.load(bundle.read(bundles.KERAS_MODEL), bundle.manifest.input, bundle.path, device=place)
    if device == "gpu" and network.device != "gpu":
        raise DeviceUnavailable(
            "TensorFlow finds no GPU it can use; set device to auto or cpu, or mend its CUDA setup."
        )
    return network


def _refuse_keras(bundle: Bundle, kind: str, device: str) -> None:
    """A graph without layers is nothing to Keras, and so to no GPU."""
    if kind == "keras" or device == "gpu":
        raise DeviceUnavailable(
            f"The model at {bundle.path} was imported from a SavedModel, which OpenVINO alone serves, on the CPU; set "
            f"{'kind to auto or openvino' if kind == 'keras' else 'device to auto or cpu'}, or import its .keras file."
        )


def _choose(kind: str, device: str) -> tuple[str, str]:
    """(runtime, device) for what the configuration asks."""
    if kind == "openvino" and device == "gpu":
        raise DeviceUnavailable("OpenVINO serves on the CPU only; set kind to auto or keras to use a GPU.")
    gpu = device != "cpu" and kind != "openvino" and find_gpu() is not None
    if device == "gpu" and not gpu:
        raise DeviceUnavailable(
            "No GPU that TensorFlow could use was found; set device to auto or cpu, or install pigeonholed[gpu]."
        )
    if gpu:
        return "keras", "gpu"
    if kind == "keras" or (kind == "auto" and find_spec("openvino") is None):
        return "keras", "cpu"
    return "openvino", "cpu"
