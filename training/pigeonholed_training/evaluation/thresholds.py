"""From which confidence on a picture is filed: certified where the pictures suffice, never 'always unsure'.

A threshold accepts a picture when the probability of its best class is at least the threshold.

**Certified.** For one class, over the calibration pictures that were predicted as it: the lowest of a few candidate
thresholds whose precision is at least the target with 95 % confidence, by the exact binomial test (Clopper-Pearson).
Candidates are fixed shares of the pictures to accept, so they are chosen without looking at what was right. Many
candidates would mean many chances of luck; therefore the tests form fixed sequences (Angelopoulos et al. 2021, 'Learn
then Test', section 2.2): from each of a few starting shares the next larger share is tested only while the ones
before passed, and the sequences share the error probability evenly. A start with so few pictures that it would fail
without a single error takes no part in that, so that small sets do not pay for what only large ones can use; it is
left out for its size alone, which says nothing of what was right. The low starts are for mediocre models: a promise
that is kept for a tenth of the pictures is worth more than none. All classes together have 5 %, shared evenly. A
class has a test of its own only if it has pictures enough to pass with two errors among its surest 95 %: smaller ones
pass by luck, and those that do are then missing from the pool, which fails without them.

**Pooled.** Classes without a certificate are taken together, and one threshold is certified for what is predicted as
any of them, again at 95 %. It is conservative that large classes come here because they did badly.

**Best F1.** Where that fails too: the threshold with the best F1 (right and accepted) among those that accept at
least 95 % of these pictures. It promises nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pigeonholed.bundle import Threshold
from pigeonholed_training.evaluation.figures import share
from pigeonholed_training.evaluation.intervals import upper_tail, upper_tails
from pigeonholed_training.evaluation.selective import expected_errors

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from pigeonholed_training.evaluation.judged import Judged

    Floats = npt.NDArray[np.floating]
    Bools = npt.NDArray[np.bool_]
    Counts = npt.NDArray[np.int_]

ERROR = 0.05
COVERAGES = (
    *(0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45),
    *(0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.925, 0.95, 0.975, 1.0),
)
STARTS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.8, 0.95)
SPARE_ERRORS = 2  # that a class with a test of its own must be able to afford
LEAST_COVERAGE = 0.95
MOST_NEEDED = 100_000  # calibration pictures of a class, beyond which nobody will go


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
        alone = bool(large_enough(int(mine.sum()), target, ERROR / len(labels)))
        value = certify(scores[mine], right[mine], target, ERROR / len(labels)) if alone else None
        if value is not None:
            chosen[index] = _threshold(label, value, "certified", target, scores[mine])
    rest = [index for index in range(len(labels)) if index not in chosen]
    pool = np.isin(predicted, rest)
    chosen |= dict(zip(rest, _pooled([labels[i] for i in rest], scores[pool], right[pool], target), strict=True))
    return tuple(chosen[index] for index in range(len(labels)))


def large_enough(n: npt.ArrayLike, target: float, error: float) -> Bools:
    """Whether a class with `n` pictures has a test of its own; its size decides, not what was right."""
    accepted = np.round(STARTS[-1] * np.asarray(n))
    enough: Bools = upper_tails(accepted - SPARE_ERRORS, accepted, target) <= error
    return enough


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
    candidates = _accepted(descending, COVERAGES)
    starts = _possible(_accepted(descending, STARTS), target, error)
    most = 0
    for start in starts:
        for accepted in candidates[candidates >= start]:
            if upper_tail(int(hits[accepted - 1]), int(accepted), target) > error / len(starts):
                break
            most = max(most, int(accepted))
    return float(descending[most - 1]) if most else None


def _accepted(descending: Floats, coverages: Sequence[float]) -> Counts:
    """How many pictures the thresholds at these shares accept, ascending; ties are accepted together."""
    ranks = np.maximum(1, np.round(np.array(coverages) * len(descending)).astype(int))
    return np.unique(np.searchsorted(-descending, -descending[ranks - 1], side="right"))


def _possible(starts: Counts, target: float, error: float) -> Counts:
    """The starts, ascending, that can pass with an even part of `error` each, were everything right."""
    while len(starts) and target ** starts[0] > error / len(starts):
        starts = starts[1:]
    return starts


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


def described(
    judged: Judged, thresholds: Sequence[Threshold], *, target: float = 0.98, calibrated: int | None = None
) -> list[dict[str, Any]]:
    """The thresholds with what they do to the judged pictures, as plain values for JSON.

    Args:
        judged: pictures that did not choose the thresholds, where there are such.
        thresholds: one for each label.
        target: the precision that a certificate promises.
        calibrated: how many pictures the thresholds were chosen with, of all classes; None for as many as are judged.

    Returns:
        For each its own fields and, all of the judged pictures that were said to be this class: `share_unsure`, the
        share below the threshold (None of none); `held`, the precision seen above it, as a `share`; `needed`, about
        how many more calibration pictures of the class until a certificate (`needed`), None where it has one.
    """
    predicted, confidence, right = judged.predicted, judged.confidence, judged.right
    calibrated = len(judged) if calibrated is None else calibrated
    rows = []
    for index, threshold in enumerate(thresholds):
        mine = predicted == index
        passes = mine & (confidence >= threshold.value)
        have = round(calibrated * float(mine.mean()))
        certified = threshold.method == "certified"
        more = None if certified else needed(confidence[mine], right[mine], have, target, ERROR / len(thresholds))
        unsure = round(float(1.0 - passes.sum() / mine.sum()), 6) if mine.any() else None
        held = share(int((passes & right).sum()), int(passes.sum()))
        rows.append(threshold.model_dump() | {"share_unsure": unsure, "needed": more, "held": held})
    return rows


def needed(confidence: Floats, right: Bools, have: int, target: float, error: float) -> int | None:
    """About how many more calibration pictures of a class would certify some threshold of it.

    The tests of `certify` are done in thought with ever more pictures, wrong as often as the pictures given here: of
    the surest 80 % as many as of the surest 80 % here, and so for each start, with one picture as wrong as all of them
    are on average beside, since three sure pictures that are right are no evidence of perfection. Errors are rounded
    up. With no error seen it is the number with which a class has a test of its own. It is a forecast: with that
    many, a certificate is likelier than not.

    Args:
        confidence: of pictures that were said to be of the class, float [N].
        right: whether that was true, bool [N].
        have: calibration pictures of the class so far.
        target: precision.
        error: probability that the class may spend.

    Returns:
        At least 1; None where so often wrong a class cannot be certified, or not with 100,000 pictures.
    """
    wrong, number = expected_errors(confidence, right), len(right)
    ranks = np.maximum(1, np.round(np.array(STARTS) * number).astype(int)) if number else np.zeros(len(STARTS), int)
    rates = (wrong[ranks] + wrong[-1] / max(1, number)) / (ranks + 1)
    sizes = np.unique(np.geomspace(have + 1, max(MOST_NEEDED, have + 1), 500).astype(int))
    accepted = np.round(np.outer(STARTS, sizes))
    errors = np.minimum(accepted, np.ceil(rates[:, None] * accepted - 1e-9))
    counts = range(1, len(STARTS) + 1)
    sharing = np.max([np.where(target ** accepted[-count] <= error / count, count, 0) for count in counts], axis=0)
    takes_part = np.arange(len(STARTS))[:, None] >= len(STARTS) - sharing
    certified = takes_part & (upper_tails(accepted - errors, accepted, target) <= error / np.maximum(1, sharing))
    enough = np.flatnonzero(certified.any(axis=0) & large_enough(sizes, target, error))
    return int(sizes[enough[0]]) - have if len(enough) else None
