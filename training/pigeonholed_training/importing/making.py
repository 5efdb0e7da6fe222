"""The bundle of an imported model: written, compared with the model that it came from, calibrated, self-tested."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pigeonholed import bundle as bundles
from pigeonholed.bundle import BundleError, Calibration, Manifest
from pigeonholed.classifying import export, selftest
from pigeonholed_training import publishing
from pigeonholed_training.errors import TrainingError
from pigeonholed_training.evaluation.asking import ask, ask_about, balanced
from pigeonholed_training.evaluation.calibration import as_logits, fit_temperature, negative_log_likelihood
from pigeonholed_training.evaluation.thresholds import choose
from pigeonholed_training.importing import samples
from pigeonholed_training.importing.original import CHUNK

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from pigeonholed.classifying import Classifier
    from pigeonholed_training.importing.samples import Samples
    from pigeonholed_training.importing.session import Understood

COMPARED = 256  # samples on which the bundle is compared with the model
SELFTEST_PICTURES = 8


@dataclass(frozen=True)
class Made:
    """A staged bundle, complete but for metrics and report.

    Attributes:
        manifest: what its `bundle.json` says.
        agreement: `largest_difference`, `same_best` and `n` of served probabilities against the user's model.
        nll_before: of the samples that were fitted on, with a temperature of 1; None without.
        remark: how temperature and thresholds came about, in plain words.
    """

    manifest: Manifest
    agreement: dict[str, Any]
    nll_before: float | None
    remark: str


def make(staging: Path, understood: Understood, pictures: Samples | None) -> Made:
    """Fills `staging`; metrics and report are held by empty ones.

    Raises:
        TrainingError: the network cannot be served, or says something else than the model it came from.
        OSError: no room.
    """
    order, draft = understood.order, understood.draft()
    shown = _shown(understood, pictures)
    expected = _expected(understood, shown)
    staging.mkdir(parents=True)
    understood.model.write(staging, understood.wanted, understood.rule, bare=understood.meaning.bare)
    try:
        classifier = export.load_unsealed(staging, draft, "openvino", max_batch_size=CHUNK)
        agreement = _agreement(order.model, ask(classifier, shown), expected)
        manifest, nll_before, remark = _calibrated(draft, classifier, pictures)
        _write_rest(staging, manifest, classifier, shown[:SELFTEST_PICTURES])
        if understood.model.network == "keras":
            _check_runtimes(staging, manifest, shown)
    except BundleError as fault:
        raise TrainingError(f"Cannot import {order.model}: {fault}") from fault
    with publishing.serving(staging):
        pass  # the proof: it loads as the daemon would load it, and passes its self-test
    return Made(manifest, agreement, nll_before, remark)


def _shown(understood: Understood, pictures: Samples | None) -> npt.NDArray[np.uint8]:
    """Pictures that model and bundle are compared on; the first of them become the self-test."""
    if pictures is None:
        return samples.made(understood.wanted.height, understood.wanted.width)
    chosen = pictures.tried[balanced(pictures.targets[pictures.tried], COMPARED, seed=1)]
    one_each = np.unique(pictures.targets[chosen], return_index=True)[1][:SELFTEST_PICTURES]
    return pictures.dataset.read(np.concatenate([chosen[one_each], np.delete(chosen, one_each)]))


def _expected(understood: Understood, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """What the user's own model says of the pictures."""
    model, rule = understood.model, understood.rule
    rows = [model.answer(rule.apply(pixels[at : at + CHUNK])) for at in range(0, len(pixels), CHUNK)]
    return understood.meaning.probabilities(np.concatenate(rows))


def _agreement(where: object, served: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> dict[str, Any]:
    """How close the bundle is to the model; too far apart is an error."""
    largest = float(np.abs(served - expected).max())
    if not largest <= publishing.TOLERANCE:  # NaN is too far
        raise TrainingError(
            f"Cannot import {where}: served by OpenVINO its probabilities differ by up to {largest:.3f} from its own, "
            f"and {publishing.TOLERANCE} is allowed; nothing was published."
        )
    same = float((served.argmax(axis=1) == expected.argmax(axis=1)).mean())
    return {"largest_difference": round(largest, 6), "same_best": round(same, 6), "n": len(served)}


def _check_runtimes(staging: Path, manifest: Manifest, pixels: npt.NDArray[np.uint8]) -> None:
    """Both runtimes must say the same once calibrated, too: a low temperature enlarges differences."""
    difference = export.agreement(staging, manifest, pixels)
    if difference > publishing.TOLERANCE:
        raise TrainingError(
            f"The OpenVINO export disagrees with the Keras model: probabilities differ by up to {difference:.3f}, "
            f"and {publishing.TOLERANCE} is allowed. Nothing was published."
        )


def _calibrated(
    draft: Manifest, classifier: Classifier, pictures: Samples | None
) -> tuple[Manifest, float | None, str]:
    """The manifest with temperature and thresholds where there are samples enough; the NLL before; what to say."""
    if pictures is None or not len(pictures.fitted):
        value = draft.thresholds[0].value
        why = "without --samples" if pictures is None else f"with fewer than {samples.ENOUGH} samples"
        remark = (
            f"Nothing is calibrated {why}: pictures are sorted from a confidence of {value} on, which promises "
            "nothing, and all others are set aside as unsure."
        )
        return draft, None, remark
    logits = as_logits(ask_about(classifier, pictures.dataset, pictures.fitted))
    targets = pictures.targets[pictures.fitted]
    calibration = Calibration(
        method="temperature",
        temperature=fit_temperature(logits, targets),
        n=len(targets),
        runtime=classifier.runtime,
        precision=classifier.precision,
    )
    probabilities = bundles.calibrate(logits.astype(np.float32), "logits", calibration.temperature)
    thresholds = choose(draft.labels, probabilities, targets, draft.precision_target)
    changed = {
        "calibration": calibration,
        "thresholds": thresholds,
        "data_fingerprint": pictures.dataset.fingerprint,
    }
    methods = ", ".join(sorted({threshold.method for threshold in thresholds}))
    remark = f"Calibrated on {len(targets)} samples: temperature {calibration.temperature:.2f}, thresholds {methods}."
    return draft.model_copy(update=changed), negative_log_likelihood(logits, targets), remark


def _write_rest(staging: Path, manifest: Manifest, classifier: Classifier, shown: npt.NDArray[np.uint8]) -> None:
    """Manifest, labels and self-test, and what holds the places of metrics and report."""
    own = as_logits(ask(classifier, shown)).astype(np.float32)
    probabilities = bundles.calibrate(own, "logits", manifest.calibration.temperature)
    selftest.write(staging / bundles.SELFTEST, shown, probabilities)
    (staging / bundles.MANIFEST).write_bytes(manifest.to_json())
    (staging / bundles.LABELS).write_bytes(bundles.labels_text(manifest.labels))
    (staging / bundles.METRICS).write_text("{}\n")
    (staging / bundles.REPORT).write_text("<!doctype html>\n")
