"""From which confidence on a picture is filed: certified where the pictures suffice, never 'always unsure'.

A threshold accepts a picture when the probability of its best class is at least the threshold.

**Certified.** For one class, over the calibration pictures that were predicted as it: the lowest of a few candidate
thresholds whose precision is at least the target with 95 % confidence, by the exact binomial test (Clopper-Pearson).
Candidates are fixed shares of the pictures to accept, so they are chosen without looking at what was right. Many
candidates would mean many chances of luck; therefore the tests form fixed sequences (Angelopoulos et al. 2021, 'Learn
then Test', section 2.2): from each of three starting shares the next larger share is tested only while the ones
before passed, and each sequence has a third of the error probability. All classes together have 5 %, shared evenly.

**Pooled.** Classes without a certificate are taken together, and one threshold is certified for what is predicted as
any of them, again at 95 %. It is conservative that classes come here because they did badly.

**Best F1.** Where that fails too: the threshold with the best F1 (right and accepted) among those that accept at
least 95 % of these pictures. It promises nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from pigeonholed.bundle import Threshold
from pigeonholed_training.evaluation.intervals import upper_tail

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Floats = npt.NDArray[np.floating]
    Bools = npt.NDArray[np.bool_]

ERROR = 0.05
COVERAGES = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.925, 0.95, 0.975, 1.0)
STARTS = (0.5, 0.8, 0.95)
LEAST_COVERAGE = 0.95


def choose(
    labels: Sequence[str], probabilities: Floats, targets: npt.NDArray[np.int32], target: float
) -> tuple[Threshold, ...]:
    """A threshold for each label, from calibrated probabilities of pictures held back for this.

    Args:
        labels: the classes.
        probabilities: float [N, K], N at least 1.
        targets: true class of each picture, int [N].
        target: the precision to certify, between 0 and 1.

    Returns:
        One threshold a label, in the same order. `n` counts the calibration pictures that it accepts and that its
        precision rests on; `precision` is the target where certified or pooled, else what was seen.
    """
    predicted = probabilities.argmax(axis=1)
    scores = probabilities.max(axis=1)
    right = predicted == targets
    chosen: dict[int, Threshold] = {}
    for index, label in enumerate(labels):
        mine = predicted == index
        value = certify(scores[mine], right[mine], target, ERROR / len(labels))
        if value is not None:
            chosen[index] = _threshold(label, value, "certified", target, scores[mine])
    rest = [index for index in range(len(labels)) if index not in chosen]
    pool = np.isin(predicted, rest)
    chosen |= dict(zip(rest, _pooled([labels[i] for i in rest], scores[pool], right[pool], target), strict=True))
    return tuple(chosen[index] for index in range(len(labels)))


def certify(scores: Floats, right: Bools, target: float, error: float) -> float | None:
    """The lowest candidate threshold whose precision is at least `target`, wrong with probability `error` at most.

    Args:
        scores: confidence of each picture, float [N].
        right: whether its class was right, bool [N].
        target: precision.
        error: probability of certifying any threshold that does not deserve it.

    Returns:
        The threshold, or None where no candidate can be certified.
    """
    if not len(scores):
        return None
    order = np.argsort(-scores, kind="stable")
    descending, hits = scores[order], np.cumsum(right[order])
    best: float | None = None
    for start in STARTS:
        for coverage in (share for share in COVERAGES if share >= start):
            value = float(descending[max(1, round(coverage * len(scores))) - 1])
            accepted = int((scores >= value).sum())  # ties are accepted together
            if upper_tail(int(hits[accepted - 1]), accepted, target) > error / len(STARTS):
                break
            best = value if best is None else min(best, value)
    return best


def best_f1(scores: Floats, right: Bools) -> float:
    """The threshold of the best F1 of 'accepted' against 'right', accepting at least 95 %; the lowest of equals.

    0 without pictures.
    """
    if not len(scores):
        return 0.0
    best, best_score = 0.0, -1.0
    for value in np.unique(scores):
        accepted = scores >= value
        if accepted.mean() < LEAST_COVERAGE:
            break
        score = 2.0 * float((accepted & right).sum()) / max(1.0, float(accepted.sum() + right.sum()))
        if score > best_score:
            best, best_score = float(value), score
    return best


def _pooled(labels: Sequence[str], scores: Floats, right: Bools, target: float) -> list[Threshold]:
    """One threshold for all these labels together."""
    value = certify(scores, right, target, ERROR)
    if value is not None:
        return [_threshold(label, value, "pooled", target, scores) for label in labels]
    value = best_f1(scores, right)
    accepted = scores >= value
    seen = float(right[accepted].mean()) if accepted.any() else None
    return [_threshold(label, value, "best-f1", seen, scores) for label in labels]


def _threshold(
    label: str, value: float, method: Literal["certified", "pooled", "best-f1"], precision: float | None, scores: Floats
) -> Threshold:
    accepted = int((scores >= value).sum())
    return Threshold(label=label, value=min(1.0, value), method=method, precision=precision, n=accepted)
