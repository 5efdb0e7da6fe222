"""Tiny real bundles, made in milliseconds without TensorFlow.

The network has no training in it: the mean of the red channel speaks for the first label, of the blue channel for
the second, of the green channel for the third; further labels never win. So a red picture is label 0, a blue one
label 1, and a grey one is split evenly between the first two (three).
"""

from __future__ import annotations

import base64
import io
import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pigeonholed import bundle as bundles
from pigeonholed.bundle import Bundle, Calibration, Input, Manifest, Threshold
from pigeonholed.classifying.openvino import import_openvino
from pigeonholed.store import ModelStore

GAIN = 0.05  # logit per step of mean brightness: a difference of 100 gives a probability of 0.993
ABSENT = -20.0  # logit of a label that no channel speaks for
_CHANNELS = (0, 2, 1)  # red, blue, green: which channel speaks for label 0, 1, 2

# An HDF5 file without content: Keras wants one, and this network has no weights in its Keras form.
_EMPTY_HDF5 = zlib.decompress(
    base64.b85decode(
        "c-rgqaB<`1lHy_j0S*oZ76t(ZWbhvf6qr%@F!=;1%?PDCp!5nRm^dR?P68?}2sIyFT}Y6tE3*0M_Kbp&4Ln>O13+{Hl+OXBPcWgXgQdd&D%lGFq@*Z_"
    )
)

Pixels = npt.NDArray[np.uint8]


def solid(red: int, green: int, blue: int, size: int = 8) -> Pixels:
    """A picture of one colour: uint8 RGB [size, size, 3]."""
    return np.full((size, size, 3), (red, green, blue), np.uint8)


def probabilities(pixels: Pixels, labels: int = 2) -> npt.NDArray[np.float32]:
    """What the tiny network must answer to uint8 [N, H, W, 3]: computed apart from every runtime."""
    weights, bias = _weights(labels)
    logits = pixels.astype(np.float32).mean(axis=(1, 2)) @ weights + bias
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: npt.NDArray[np.float32] = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    return result


def make_bundle(
    folder: Path,
    labels: tuple[str, ...] = ("cat", "dog"),
    size: int = 8,
    publish_into: Path | None = None,
    *,
    name: str = "tiny",
    threshold: float = 0.7,
    manifest: dict[str, Any] | None = None,
) -> Path:
    """Writes a complete bundle without its seal into `folder` (made if missing).

    Args:
        folder: becomes the staging folder for `ModelStore.publish`.
        labels: the classes.
        size: height and width of its pixels.
        publish_into: a store's folder; the bundle is published there as `name` too.
        name: of the model.
        threshold: of every label.
        manifest: keys that replace those of the manifest, unchecked.

    Returns:
        The folder of the published version, or `folder` where nothing was published.
    """
    (folder / "selftest").mkdir(parents=True, exist_ok=True)
    (folder / "export/openvino").mkdir(parents=True, exist_ok=True)
    _write_manifest(folder, labels, size, name, threshold, manifest or {})
    _write_selftest(folder / "selftest", labels, size)
    (folder / "labels.txt").write_bytes(bundles.labels_text(labels))
    (folder / "metrics.json").write_text("{}\n")
    (folder / "report.html").write_text("<!doctype html><title>tiny</title>\n")
    (folder / "model.keras").write_bytes(keras_archive(len(labels), size))
    _write_openvino(folder / "export/openvino/model.xml", len(labels), size)
    return folder if publish_into is None else ModelStore(publish_into).publish(name, folder).path


def publish_tiny(store: Path, name: str = "tiny", **options: Any) -> Bundle:
    """Makes a bundle beside the store and publishes it there as the next version of `name`."""
    number = len(list(store.parent.glob("staging-*")))
    staging = make_bundle(store.parent / f"staging-{name}-{number}", name=name, **options)
    return ModelStore(store).publish(name, staging)


def keras_archive(labels: int = 2, size: int = 8, config: Any = None) -> bytes:
    """A real `.keras` file of the tiny network, written by hand; `config` replaces its `config.json`."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.15.1", "date_saved": "2026-01-01@00:00:00"}))
        archive.writestr("config.json", json.dumps(keras_config(labels, size) if config is None else config))
        archive.writestr("model.weights.h5", _EMPTY_HDF5)
    return buffer.getvalue()


def keras_config(labels: int = 2, size: int = 8) -> dict[str, Any]:
    """`config.json` of the tiny network: one branch a label, each a `Rescaling` that keeps one channel."""
    layers = [_layer("InputLayer", "pixels", [], batch_shape=[None, size, size, 3], dtype="uint8", sparse=False)]
    for index in range(labels):
        scale, offset = [0.0, 0.0, 0.0], 0.0
        if index < len(_CHANNELS):
            scale[_CHANNELS[index]] = 3 * GAIN  # the mean over three channels follows
        else:
            offset = ABSENT
        shape = [None, size, size, 3]
        layers += [
            _layer("Rescaling", f"keep_{index}", [("pixels", shape)], scale=scale, offset=offset),
            _layer("GlobalAveragePooling2D", f"mean_{index}", [(f"keep_{index}", shape)], keepdims=False),
            _layer("Reshape", f"column_{index}", [(f"mean_{index}", [None, 3])], target_shape=[3, 1]),
            _layer("GlobalAveragePooling1D", f"logit_{index}", [(f"column_{index}", [None, 3, 1])], keepdims=False),
        ]
    layers.append(
        _layer("Concatenate", "logits", [[(f"logit_{index}", [None, 1]) for index in range(labels)]], axis=-1)
    )
    return {
        "module": "keras.src.models.functional",
        "class_name": "Functional",
        "config": {
            "name": "tiny",
            "trainable": True,
            "layers": layers,
            "input_layers": ["pixels", 0, 0],
            "output_layers": ["logits", 0, 0],
        },
        "registered_name": "Functional",
        "build_config": {"input_shape": None},
    }


def _layer(kind: str, name: str, inputs: list[Any], **config: Any) -> dict[str, Any]:
    """A node of a functional model as Keras 3 writes it; `inputs` holds (layer, shape) or lists of those."""

    def tensor(source: Any) -> Any:
        if isinstance(source, list):
            return [tensor(one) for one in source]
        layer, shape = source
        dtype = "uint8" if layer == "pixels" else "float32"
        return {
            "class_name": "__keras_tensor__",
            "config": {"shape": shape, "dtype": dtype, "keras_history": [layer, 0, 0]},
        }

    nodes = [{"args": [tensor(one) for one in inputs], "kwargs": {}}] if inputs else []
    return {
        "module": "keras.layers",
        "class_name": kind,
        "config": {"name": name, **config},
        "registered_name": None,
        "name": name,
        "inbound_nodes": nodes,
    }


def _weights(labels: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Matrix [3, K] and bias [1, K] of the tiny network."""
    weights = np.zeros((3, labels), np.float32)
    bias = np.full((1, labels), ABSENT, np.float32)
    for index, channel in enumerate(_CHANNELS[:labels]):
        weights[channel, index] = GAIN
        bias[0, index] = 0.0
    return weights, bias


def _write_manifest(
    folder: Path, labels: tuple[str, ...], size: int, name: str, threshold: float, replaced: dict[str, Any]
) -> None:
    thresholds = tuple(Threshold(label=label, value=threshold, method="best-f1", n=0) for label in labels)
    # Not validated: tests publish bundles that are wrong on purpose.
    manifest = Manifest.model_construct(
        name=name,
        labels=labels,
        input=Input(height=size, width=size),
        output="logits",
        calibration=Calibration(),
        thresholds=thresholds,
        recipe="by-hand",
        created_at="2026-01-01T00:00:00+00:00",
    )
    document = json.loads(manifest.to_json()) | replaced
    (folder / "bundle.json").write_text(json.dumps(document, indent=2, ensure_ascii=False), encoding="utf-8")


def _write_selftest(folder: Path, labels: tuple[str, ...], size: int) -> None:
    pictures = np.stack([solid(200, 90, 60, size), solid(40, 90, 180, size), solid(120, 120, 120, size)])
    images = []
    for index, (pixels, row) in enumerate(zip(pictures, probabilities(pictures, len(labels)), strict=True)):
        cv2.imwrite(str(folder / f"{index}.png"), pixels[:, :, ::-1])
        images.append({"file": f"{index}.png", "probabilities": [float(value) for value in row]})
    (folder / "expected.json").write_text(json.dumps({"images": images}, indent=2))


def _write_openvino(path: Path, labels: int, size: int) -> None:
    openvino = import_openvino()
    from openvino import opset13 as ops

    weights, bias = _weights(labels)
    pixels = ops.parameter([-1, size, size, 3], np.uint8, name="pixels")
    means = ops.reduce_mean(ops.convert(pixels, np.float32), ops.constant(np.array([1, 2], np.int64)), False)
    logits = ops.add(ops.matmul(means, ops.constant(weights), False, False), ops.constant(bias))
    openvino.save_model(openvino.Model([logits], [pixels], "tiny"), path, compress_to_fp16=False)
