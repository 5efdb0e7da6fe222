"""What the service compares its pictures with later on: a summary of what the model said when it was judged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pigeonholed.reference import LEVELS, Reference

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pigeonholed_training.data.splitting import Part
    from pigeonholed_training.evaluation.judged import Judged


def reference(answers: Mapping[Part, Judged], part: Part) -> Reference | None:
    """The summary of one part; None where the model was asked about none of its pictures.

    Args:
        answers: what was said of each part, by what serves.
        part: the one that judges: pictures that the model has not learnt from.
    """
    judged = answers.get(part)
    if judged is None or not len(judged):
        return None
    counts = np.bincount(judged.predicted, minlength=len(judged.labels))
    # As the service sees them: float32 widened, then compared.
    confidence = judged.confidence.astype(np.float64)
    return Reference(
        n=len(judged),
        part=part.name.lower(),
        labels=tuple(counts.tolist()),
        levels=LEVELS,
        below=tuple(int((confidence < level).sum()) for level in LEVELS),
        unsure=int((~judged.passes).sum()),
    )
