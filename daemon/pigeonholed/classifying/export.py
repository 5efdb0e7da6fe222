"""From Keras to OpenVINO when a model is published, and the proof that both say the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pigeonholed import bundle as bundles
from pigeonholed.bundle import BundleError
from pigeonholed.classifying import keras, openvino
from pigeonholed.classifying.batched import BatchedClassifier, batch_sizes

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from pigeonholed.bundle import Manifest
    from pigeonholed.classifying import Classifier


def export_openvino(keras_model: Path, folder: Path) -> None:
    """Writes `model.xml` and `model.bin` in f32 from a `.keras` file whose input is uint8 [N, H, W, 3].

    Args:
        keras_model: the file; it passes our allow-list first.
        folder: becomes `export/openvino/`; made if missing.

    Raises:
        BundleError: the network is refused, or OpenVINO knows no equivalent of one of its layers.
    """
    model = keras.load_model(keras_model.read_bytes(), keras_model.parent)
    _, height, width, _ = model.input_shape
    function = keras.compiled(model, bundles.Input(height=height, width=width))
    ov = openvino.import_openvino()
    try:
        converted = openvino.convert(function.get_concrete_function())
    except RuntimeError as fault:
        raise BundleError(f"OpenVINO cannot convert the network in {keras_model}: {fault}") from fault
    # The first output is the scores; seeds of dropout and augmentation layers would follow it.
    network = ov.Model([converted.outputs[0].get_node()], converted.get_parameters(), "network")
    network.reshape([-1, height, width, 3])
    folder.mkdir(parents=True, exist_ok=True)
    ov.save_model(network, folder / "model.xml", compress_to_fp16=False)  # f16 weights would shift probabilities


def load_unsealed(folder: Path, manifest: Manifest, kind: str, *, max_batch_size: int = 64) -> Classifier:
    """The classifier of a bundle that is still being made, on the CPU in f32; no self-test is run.

    Args:
        folder: the staging folder with `model.keras` or `export/openvino/`.
        manifest: its input, output kind, labels and temperature are used.
        kind: `keras` or `openvino`.
        max_batch_size: the most pictures in one call of `predict`.

    Raises:
        BundleError: as `load_classifier`.
    """
    if kind == "keras":
        network = keras.load((folder / bundles.KERAS_MODEL).read_bytes(), manifest.input, folder)
    else:
        xml, weights = (folder / name for name in (bundles.OPENVINO_MODEL, bundles.OPENVINO_WEIGHTS))
        network = openvino.load(xml.read_bytes(), weights.read_bytes(), manifest.input, folder)
    classifier = BatchedClassifier(manifest, network, batch_sizes(max_batch_size), str(folder))
    classifier.warm()
    return classifier


def agreement(folder: Path, manifest: Manifest, pixels: npt.NDArray[np.uint8]) -> float:
    """The largest difference of a calibrated probability between Keras and OpenVINO, both on the CPU in f32.

    Args:
        folder: a staging folder with both networks.
        manifest: as for `load_unsealed`.
        pixels: uint8 RGB [N, H, W, 3], any N from 1 on.

    Raises:
        BundleError: one of them cannot be loaded, or gives an answer that is not finite.
    """
    difference = 0.0
    classifiers = [load_unsealed(folder, manifest, kind) for kind in ("keras", "openvino")]
    for at in range(0, len(pixels), 64):
        one, other = (classifier.predict(pixels[at : at + 64]) for classifier in classifiers)
        difference = max(difference, float(np.nan_to_num(np.abs(one - other), nan=np.inf).max()))
    if not np.isfinite(difference):
        raise BundleError(f"The network in {folder} gives an answer that is not finite.")
    return difference
