"""How fast each runtime on this machine classifies: many pictures at a time, and one alone."""

from __future__ import annotations

import time
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pigeonholed import bundle as bundles
from pigeonholed.classifying import export, find_gpu, keras, openvino
from pigeonholed.classifying.batched import BatchedClassifier, batch_sizes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pigeonholed.bundle import Manifest
    from pigeonholed.classifying import Classifier

BATCH: Final = 64
_MOST_RUNS: Final = 200
_LEAST_ALONE: Final = 5


def speed(folder: Path, manifest: Manifest, *, seconds: float = 1.0, batch: int = BATCH) -> list[dict[str, Any]]:
    """Measures every runtime that is installed, and Keras on the GPU too where there is one.

    What else the machine does can only slow a model down, so of the batches the fastest counts; of the single pictures
    the middle one does, as that is what is waited for.

    Args:
        folder: a bundle, published or still being made.
        manifest: of it.
        seconds: for measuring, a runtime; each is loaded besides, and asked for a batch and five single pictures at
            least.
        batch: pictures at a time.

    Returns:
        For each runtime `runtime`, `device`, `precision`, `batch`, `pictures_per_s`, `ms_alone` and `load_s`: from
        files to the first answer in every batch size, the library itself being imported already.

    Raises:
        BundleError: a network cannot be loaded.
    """
    found = []
    if find_spec("openvino") is not None:
        openvino.import_openvino()
        found.append(_measured(lambda: _load_openvino(folder, manifest, batch), manifest, seconds))
    if manifest.network == "keras" and find_spec("keras") is not None:
        keras.import_keras()
        device = "cpu" if find_gpu() is None else "gpu"
        found.append(_measured(lambda: _load_keras(folder, manifest, device, batch), manifest, seconds))
    return found


def _load_openvino(folder: Path, manifest: Manifest, batch: int) -> Classifier:
    return export.load_unsealed(folder, manifest, "openvino", max_batch_size=batch)


def _load_keras(folder: Path, manifest: Manifest, device: str, batch: int) -> Classifier:
    data = (folder / bundles.KERAS_MODEL).read_bytes()
    network = keras.load(data, manifest.input, folder, device=device)
    classifier = BatchedClassifier(manifest, network, batch_sizes(batch), str(folder))
    classifier.warm()
    return classifier


def _measured(load: Callable[[], Classifier], manifest: Manifest, seconds: float) -> dict[str, Any]:
    start = time.perf_counter()
    classifier = load()
    load_s = time.perf_counter() - start
    shape = (classifier.batch_sizes[-1], manifest.input.height, manifest.input.width, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    many = _times(lambda: classifier.predict(pixels), seconds / 2, least=1)
    alone = _times(lambda: classifier.predict(pixels[:1]), seconds / 2, least=_LEAST_ALONE)
    return {
        "runtime": classifier.runtime,
        "device": classifier.device,
        "precision": classifier.precision,
        "batch": len(pixels),
        "pictures_per_s": round(len(pixels) / min(many), 1),
        "ms_alone": round(1000 * float(np.median(alone)), 3),
        "load_s": round(load_s, 3),
    }


def _times(call: Callable[[], object], seconds: float, least: int) -> list[float]:
    """How long each of several calls took; `seconds` for all of them, but for the last one and the least number."""
    took: list[float] = []
    while len(took) < least or (sum(took) < seconds and len(took) < _MOST_RUNS):
        start = time.perf_counter()
        call()
        took.append(time.perf_counter() - start)
    return took
