"""The content of `metrics.json`: what was trained on what, and how well it does."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from pigeonholed_training.data.splitting import Part

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pigeonholed_training.evaluation.subject import Subject
    from pigeonholed_training.fitting.job import Job
    from pigeonholed_training.fitting.plan import Epoch
    from pigeonholed_training.publishing import Assembled

_GAP = 0.03  # between training pictures and the upper bound of the others, from which on it is worth a warning


def collect(
    name: str,
    precision: float,
    job: Job,
    made: Assembled,
    history: Sequence[Epoch],
    found: Mapping[str, Any],
) -> dict[str, Any]:
    """Plain values for JSON.

    Args:
        name: of the model.
        precision: that thresholds shall promise.
        job: what was trained.
        made: the bundle.
        history: every epoch.
        found: the sections of its assessment.
    """
    pictures, manifest = job.dataset, made.manifest
    return {
        "name": name,
        "recipe": job.recipe.name,
        "settings": job.recipe.as_dict(),
        "seed": job.seed,
        "created_at": manifest.created_at,
        "data_fingerprint": pictures.fingerprint,
        "labels": list(pictures.labels),
        "counts": _counts(job),
        "warnings": [
            *warnings_about(job),
            *_learnt_by_heart(found["other_parts"]["train"]["value"], found["held_out"]),
        ],
        "bad": [asdict(bad) for bad in pictures.bad],
        "history": [asdict(epoch) for epoch in history],
        "calibration": manifest.calibration.model_dump() | {"nll_before": round(made.nll_before, 6)},
        "precision_target": precision,
        "agreement": made.agreement,
        "versions": manifest.versions,
        "gates": [],
        **found,
    }


def warnings_about(job: Job) -> list[str]:
    """What a reader of the numbers should know about the pictures, in plain words."""
    pictures, found = job.dataset, []
    if pictures.contradictions:
        found.append(
            f"{len(pictures.contradictions)} pictures are in more than one class, byte for byte; "
            f"no model can get those right (first: {pictures.contradictions[0]!a})."
        )
    if pictures.copies:
        found.append(f"{len(pictures.copies)} pictures are copies of others in their class and count once.")
    alike = len(pictures.groups) - len(np.unique(pictures.groups))
    if alike:
        found.append(
            f"{alike} pictures look almost like another one; those that look alike are kept in the same part of the "
            "split, so that none is judged by a picture that was learnt."
        )
    left_out = int((job.parts == Part.NONE).sum())
    if left_out:
        found.append(
            f"{left_out} pictures meant for training are left out: they look almost like pictures that you set aside "
            "for judging."
        )
    if pictures.bad:
        found.append(f"{len(pictures.bad)} files could not be used.")
    sizes = np.bincount(pictures.targets, minlength=len(pictures.labels))
    if sizes.max() >= 5 * sizes.min():
        small, large = pictures.labels[int(sizes.argmin())], pictures.labels[int(sizes.argmax())]
        found.append(f"The classes are uneven: {sizes.min()} of {small!a} and {sizes.max()} of {large!a}.")
    return found


def _learnt_by_heart(known: float, held: Mapping[str, Any]) -> list[str]:
    """What to say where training pictures are known far better than those that judge."""
    accuracy = held["accuracy"]
    if accuracy["upper"] > known - _GAP:
        return []
    return [
        f"The pictures that were learnt from are known far better ({100 * known:.1f} % right) than others "
        f"({100 * accuracy['value']:.1f} %): part of what was learnt is those very pictures. More pictures, or more "
        "augmentation, would help; so would a recipe that starts from weights."
    ]


def counts(subject: Subject, labels: Sequence[str]) -> dict[str, dict[str, int]]:
    """Pictures of each class in each part, of those that judge a model."""
    return {
        label: {
            part.name.lower(): int((subject.targets[indices] == index).sum()) for part, indices in subject.parts.items()
        }
        for index, label in enumerate(labels)
    }


def _counts(job: Job) -> dict[str, dict[str, int]]:
    """Pictures of each class in each part."""
    targets = job.dataset.targets
    parts = [part for part in Part if part is not Part.NONE and (job.parts == part).any()]
    return {
        label: {part.name.lower(): int((targets[job.indices(part)] == index).sum()) for part in parts}
        for index, label in enumerate(job.dataset.labels)
    }
