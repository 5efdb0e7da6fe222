"""The content of `metrics.json`: what was trained on what, and how well it does."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from pigeonholed_training.data.splitting import Part

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from pigeonholed_training.fitting.job import Job
    from pigeonholed_training.fitting.plan import Epoch
    from pigeonholed_training.publishing import Assembled


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
    parts = {part: job.indices(part) for part in Part if part is not Part.NONE}
    return {
        "name": name,
        "recipe": job.recipe.name,
        "settings": job.recipe.as_dict(),
        "seed": job.seed,
        "created_at": manifest.created_at,
        "data_fingerprint": pictures.fingerprint,
        "labels": list(pictures.labels),
        "counts": counts(pictures.labels, pictures.targets, {part: some for part, some in parts.items() if len(some)}),
        "warnings": warnings_about(job),
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
        found.append(
            "1 picture is a copy of another in its class; they count once."
            if len(pictures.copies) == 1
            else f"{len(pictures.copies)} pictures are copies of others in their class and count once."
        )
    alike = len(pictures.groups) - len(np.unique(pictures.groups))
    if alike:
        found.append(
            f"{alike} {'picture looks' if alike == 1 else 'pictures look'} almost like another one; those that look "
            "alike are kept in the same part of the split, so that none is judged by a picture that was learnt."
        )
    left_out = int((job.parts == Part.NONE).sum())
    if left_out:
        found.append(
            f"{left_out} {'picture' if left_out == 1 else 'pictures'} meant for training left out, for looking almost "
            "like pictures that you set aside for judging."
        )
    if pictures.bad:
        found.append(f"{len(pictures.bad)} {'file' if len(pictures.bad) == 1 else 'files'} could not be used.")
    sizes = np.bincount(pictures.targets, minlength=len(pictures.labels))
    if sizes.max() >= 5 * sizes.min():
        small, large = pictures.labels[int(sizes.argmin())], pictures.labels[int(sizes.argmax())]
        found.append(f"The classes are uneven: {sizes.min()} of {small!a} and {sizes.max()} of {large!a}.")
    return found


def counts(
    labels: Sequence[str], targets: npt.NDArray[np.int32], parts: Mapping[Part, npt.NDArray[np.intp]]
) -> dict[str, dict[str, int]]:
    """Pictures of each class in each part.

    Args:
        labels: the classes.
        targets: of every picture, int32 [N].
        parts: indices of the pictures of each part.
    """
    return {
        label: {part.name.lower(): int((targets[indices] == index).sum()) for part, indices in parts.items()}
        for index, label in enumerate(labels)
    }
