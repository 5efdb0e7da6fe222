"""The last step of an import: judgement and report go into the bundle, and the bundle into the store."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from pigeonholed_training import concluding, publishing, releasing
from pigeonholed_training.data.splitting import Part
from pigeonholed_training.evaluation import record
from pigeonholed_training.evaluation.assessing import Assessment, assess
from pigeonholed_training.evaluation.reference import reference
from pigeonholed_training.evaluation.speed import speed
from pigeonholed_training.evaluation.subject import Subject

if TYPE_CHECKING:
    from pathlib import Path

    from pigeonholed.bundle import Bundle
    from pigeonholed_training.importing.making import Made
    from pigeonholed_training.importing.samples import Samples
    from pigeonholed_training.importing.session import Understood


def finish(staging: Path, understood: Understood, made: Made, pictures: Samples | None) -> Bundle:
    """Writes metrics and report, and publishes.

    Raises:
        TrainingError: it does not load; or the store cannot be written, and is as it was.
        OSError: no room.
    """
    found = Assessment({}, {}, {}) if pictures is None else assessed(staging, made, pictures)
    content = _metrics(understood, made, pictures) | found.metrics
    content["speed"] = speed(staging, made.manifest, seconds=concluding.SPEED_S)
    manifest = made.manifest.model_copy(update={"reference": reference(found.answers, Part.TEST)})
    concluding.of_bundle(staging, manifest, content, found.examples)
    if pictures is not None:
        record.save(staging, record.of(subject_of(pictures), found.answers), paths=False)
    return releasing.publish(staging, understood.order.name, understood.order.models)


def assessed(staging: Path, made: Made, pictures: Samples) -> Assessment:
    """What the samples show, through what is served."""
    with publishing.serving(staging) as classifier:
        return assess(classifier, made.manifest, subject_of(pictures), seed=made.manifest.seed)


def subject_of(pictures: Samples) -> Subject:
    """The samples that judge."""
    note = "Samples that temperature and thresholds were not fitted on; the model may have been trained on them."
    if not len(pictures.fitted):
        note = "All samples, which were too few to calibrate; the model may have been trained on them."
    return Subject(pictures.dataset, pictures.targets, {Part.TEST: pictures.judged}, Part.TEST, note)


def _metrics(understood: Understood, made: Made, pictures: Samples | None) -> dict[str, Any]:
    """Plain values for JSON, but for what samples say."""
    order, manifest = understood.order, made.manifest
    before = {} if made.nll_before is None else {"nll_before": round(made.nll_before, 6)}
    trials = understood.trials
    return {
        "name": order.name,
        "recipe": manifest.recipe,
        "seed": manifest.seed,
        "created_at": manifest.created_at,
        "data_fingerprint": manifest.data_fingerprint,
        "labels": list(manifest.labels),
        "counts": {} if pictures is None else _counts(pictures, manifest.labels),
        "warnings": [*understood.warnings, *([made.remark] if made.nll_before is None else [])],
        "bad": [] if pictures is None else [asdict(bad) for bad in pictures.dataset.bad],
        "imported": {
            "from": order.model.name,
            "kind": understood.model.kind,
            "pixels": understood.rule.name,
            "output": understood.meaning.output,
            "tried": [] if trials is None else [asdict(trial) for trial in trials.tried],
        },
        "calibration": manifest.calibration.model_dump() | before,
        "precision_target": manifest.precision_target,
        "thresholds": [threshold.model_dump() for threshold in manifest.thresholds],
        "history": [],
        "gates": [],
        "agreement": made.agreement,
        "versions": manifest.versions,
    }


def _counts(pictures: Samples, labels: tuple[str, ...]) -> dict[str, dict[str, int]]:
    """Samples of each class in each part."""
    parts = {"calibration": pictures.fitted, "test": pictures.judged}
    return {
        label: {part: int((pictures.targets[rows] == index).sum()) for part, rows in parts.items() if len(rows)}
        for index, label in enumerate(labels)
        if np.any(pictures.targets == index)
    }
