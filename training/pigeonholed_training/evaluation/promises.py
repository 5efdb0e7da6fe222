"""Whether the pictures that judge bear out the precision that thresholds promise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pigeonholed_training.evaluation.intervals import upper_tail

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Metrics = Mapping[str, Any]

ERROR = 0.05  # probability of refuting any promise though all of them hold


def refuted(metrics: Metrics) -> list[str]:
    """The labels whose promise is refuted; all pooled ones where theirs is, as they share it.

    A promise is refuted where this many errors or more among the judging pictures above the threshold would have a
    probability below 5 %, divided by the number of promises, if it held (exact binomial test, Bonferroni).
    """
    target, thresholds = metrics.get("precision_target"), metrics.get("thresholds") or ()
    if not target:
        return []
    certified = [[one] for one in thresholds if one["method"] == "certified"]
    pooled = [one for one in thresholds if one["method"] == "pooled"]
    claims = [*certified, pooled] if pooled else certified
    error = ERROR / max(1, len(claims))
    return [str(one["label"]) for claim in claims if _is_refuted(claim, float(target), error) for one in claim]


def _is_refuted(claim: Sequence[Metrics], target: float, error: float) -> bool:
    """Whether the thresholds of one promise, taken together, let too many errors pass."""
    held = [one.get("held") or {} for one in claim]
    n = sum(int(one.get("n") or 0) for one in held)
    wrong = n - sum(int(one.get("right") or 0) for one in held)
    return upper_tail(wrong, n, 1.0 - target) < error
