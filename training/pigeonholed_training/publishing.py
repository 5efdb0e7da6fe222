"""From a trained network to a bundle that is calibrated and proven through the runtime that will serve it."""

from __future__ import annotations

import contextlib
import datetime
import platform
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pigeonholed import bundle as bundles
from pigeonholed.bundle import BundleError, Calibration, Input, Manifest, Threshold
from pigeonholed.classifying import export, load_classifier, selftest
from pigeonholed.store import ModelStore
from pigeonholed_training.data.splitting import Part
from pigeonholed_training.errors import TrainingError
from pigeonholed_training.evaluation.asking import ask_about
from pigeonholed_training.evaluation.calibration import as_logits, fit_temperature, negative_log_likelihood, softmax
from pigeonholed_training.evaluation.thresholds import choose
from pigeonholed_training.fitting.judging import logits_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from pigeonholed.classifying import Classifier
    from pigeonholed_training.fitting.job import Job

CHUNK = 64
SELFTEST_PICTURES = 8
COMPARED = 512  # pictures on which the two runtimes are compared
TOLERANCE = 0.01  # the most that a served probability may differ from the Keras model's


@dataclass(frozen=True)
class Assembled:
    """A staged bundle.

    Attributes:
        manifest: what its `bundle.json` says.
        nll_before: of the calibration pictures, with a temperature of 1.
        agreement: `largest_difference`, `same_best` and `n` of what is served against the Keras model.
    """

    manifest: Manifest
    nll_before: float
    agreement: dict[str, Any]


def assemble(staging: Path, name: str, job: Job, model: Any, target: float) -> Assembled:
    """Fills `staging` with a complete bundle, but for report and metrics, whose places are held by empty ones.

    Exports, fits temperature and thresholds on the calibration pictures through OpenVINO, then loads the result as
    the daemon would and compares it with the Keras model.

    Args:
        staging: an empty folder.
        name: of the model.
        job: what was trained.
        model: keras.Model giving logits, without optimiser.
        target: the precision that thresholds shall promise.

    Raises:
        TrainingError: the exported network disagrees with the Keras model, or the bundle does not load.
        OSError: `staging` cannot be written.
    """
    dataset, targets = job.dataset, job.dataset.targets
    held = job.indices(Part.CALIBRATION)
    draft = _draft(name, job, target)
    try:
        _write_networks(staging, job, model)
        classifier = export.load_unsealed(staging, draft, "openvino", max_batch_size=CHUNK)
    except BundleError as fault:
        raise TrainingError(f"The network cannot be exported: {fault}") from fault
    logits = as_logits(ask_about(classifier, dataset, held))
    calibration = Calibration(
        method="temperature",
        temperature=fit_temperature(logits, targets[held]),
        n=len(held),
        runtime=classifier.runtime,
        precision=classifier.precision,
    )
    probabilities = bundles.calibrate(logits.astype(np.float32), "logits", calibration.temperature)
    thresholds = choose(dataset.labels, probabilities, targets[held], target)
    manifest = draft.model_copy(update={"calibration": calibration, "thresholds": thresholds})
    chosen = _selftest_rows(targets[held])
    selftest.write(staging / bundles.SELFTEST, dataset.read(held[chosen]), probabilities[chosen])
    (staging / bundles.MANIFEST).write_bytes(manifest.to_json())
    # Those of the self-test, and as many others as may be asked of the slower runtime.
    compared = np.concatenate([held[chosen], np.delete(held, chosen)])[:COMPARED]
    with serving(staging) as served:
        answers = ask_about(served, dataset, compared)
    expected = softmax(logits_of(model, dataset.chunks(compared, CHUNK)), calibration.temperature)
    return Assembled(manifest, negative_log_likelihood(logits, targets[held]), _agreement(answers, expected))


@contextlib.contextmanager
def serving(staging: Path) -> Iterator[Classifier]:
    """The classifier that the daemon would use for an unpublished bundle on a CPU; its self-test has been passed.

    Raises:
        TrainingError: the bundle does not load.
    """
    with tempfile.TemporaryDirectory(prefix="pigeonholed-") as scratch:
        try:
            bundle = ModelStore(Path(scratch)).publish("candidate", staging)
            classifier = load_classifier(bundle, kind="openvino", device="cpu")
        except BundleError as fault:
            raise TrainingError(f"The model does not load as the daemon would load it: {fault}") from fault
        yield classifier


def versions() -> dict[str, str]:
    """The libraries that made a model."""
    names = ("pigeonholed", "keras", "tensorflow", "openvino", "numpy", "opencv-python-headless")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in names}}


def _draft(name: str, job: Job, target: float) -> Manifest:
    """Without calibration, and with thresholds that accept everything."""
    recipe = job.recipe
    labels = job.dataset.labels
    return Manifest(
        name=name,
        labels=labels,
        input=Input(height=recipe.height, width=recipe.width, fit=recipe.fit),
        # Of a sigmoid unit too, its logit: beyond 17 a float32 probability is 1, and no temperature could undo that.
        output="logits",
        thresholds=tuple(Threshold(label=label, value=0.0, method="best-f1", n=0) for label in labels),
        precision_target=target,
        data_fingerprint=job.dataset.fingerprint,
        recipe=recipe.name,
        seed=job.seed,
        versions=versions(),
        created_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def _write_networks(staging: Path, job: Job, model: Any) -> None:
    """The network in both forms, and what holds the places of the rest."""
    staging.mkdir(parents=True)
    model.save(staging / bundles.KERAS_MODEL)
    export.export_openvino(staging / bundles.KERAS_MODEL, staging / bundles.OPENVINO_FOLDER)
    (staging / bundles.LABELS).write_bytes(bundles.labels_text(job.dataset.labels))
    (staging / bundles.METRICS).write_text("{}\n")
    (staging / bundles.REPORT).write_text("<!doctype html>\n")


def _selftest_rows(targets: npt.NDArray[np.int32]) -> npt.NDArray[np.intp]:
    """A calibration picture of each class, eight at most: they are small, real and never trained on."""
    return np.unique(targets, return_index=True)[1][:SELFTEST_PICTURES]


def _agreement(served: npt.NDArray[np.float32], expected: npt.NDArray[np.float64]) -> dict[str, Any]:
    """How close the two runtimes are; too far apart is an error."""
    largest = float(np.abs(served - expected).max())
    if not largest <= TOLERANCE:
        raise TrainingError(
            f"The OpenVINO export disagrees with the Keras model: probabilities differ by up to {largest:.3f}, "
            f"and {TOLERANCE} is allowed. Nothing was published."
        )
    same = float((served.argmax(axis=1) == expected.argmax(axis=1)).mean())
    return {"largest_difference": round(largest, 6), "same_best": round(same, 6), "n": len(served)}
