"""Whether a confidence of 90 % is right nine times in ten: calibration errors, and what of them is mere chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pigeonholed_training.evaluation.figures import scores
from pigeonholed_training.evaluation.intervals import wilson

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from pigeonholed_training.evaluation.judged import Judged

    Floats = npt.NDArray[np.floating[Any]]
    Bools = npt.NDArray[np.bool_]

BINS = 15
LEAST_IN_BIN = 20  # pictures in a bin of equal mass, below which there are fewer bins
DRAWS = 500
_AT_ONCE = 1_000_000  # random numbers in memory


@dataclass(frozen=True)
class Binned:
    """Pictures in bins of about equal mass by their confidence, least sure first.

    Attributes:
        confidence: of the best class, float64 [N].
        right: whether that is the true one, bool [N].
        bins: the bin of each picture, int [N], 0 to `count` - 1, none empty.
        count: of bins.
    """

    confidence: npt.NDArray[np.float64]
    right: Bools
    bins: npt.NDArray[np.int_]
    count: int

    @property
    def error(self) -> float:
        """The adaptive calibration error: how far confidence and accuracy of a bin are apart, weighed by its size."""
        gaps = np.bincount(self.bins, self.right - self.confidence, self.count)
        return float(np.abs(gaps).sum() / len(self.bins))

    @property
    def one_hot(self) -> npt.NDArray[np.float32]:
        """float32 [N, count]."""
        return np.eye(self.count, dtype=np.float32)[self.bins]


def confidence(judged: Judged) -> dict[str, Any]:
    """How far the confidences can be trusted, `before` calibration (a temperature of 1) and `after`, for JSON.

    Each has `nll` and `brier`; `ece`, the expected calibration error of the best class in 15 bins of equal width
    (Guo et al. 2017, arXiv 1706.04599); `adaptive_ece`, the same in bins of equal mass, which is less biased (Roelofs
    et al. 2022, arXiv 2012.08668), with `adaptive_ece_interval`; `noise_floor` and `noise_floor_95`, what a model
    without any miscalibration would show by chance, on average and in 95 % of cases; and the `bins` of equal mass,
    each with mean `confidence`, `accuracy` and its 95 % Wilson interval.
    """
    return {
        "before": _measures(judged.uncalibrated, judged.targets),
        "after": _measures(judged.probabilities, judged.targets),
    }


def _measures(probabilities: Floats, targets: npt.NDArray[np.int32]) -> dict[str, Any]:
    best = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == targets
    binned = equal_mass(best, right)
    floor, floor_95 = noise_floor(binned)
    return {
        **scores(probabilities, targets),
        "ece": round(equal_width_error(best, right), 6),
        "adaptive_ece": round(binned.error, 6),
        "adaptive_ece_interval": [round(bound, 6) for bound in error_interval(binned, floor_95)],
        "noise_floor": round(floor, 6),
        "noise_floor_95": round(floor_95, 6),
        "bins": list(_described(binned)),
    }


def equal_width_error(best: Floats, right: Bools, bins: int = BINS) -> float:
    """The expected calibration error in bins of equal width.

    Args:
        best: confidence, float [N], 0 to 1.
        right: bool [N].
        bins: how many.
    """
    which = np.minimum((best * bins).astype(int), bins - 1)
    return float(np.abs(np.bincount(which, right - best, bins)).sum() / len(best))


def equal_mass(best: Floats, right: Bools) -> Binned:
    """Bins of about equal mass, 15 or fewer, at least 20 pictures each on average.

    Equal confidences share a bin, the one that the middle of their ranks falls into: which of a thousand pictures at
    exactly 1 came first would decide nothing but noise. So bins may be of unequal mass, and there may be fewer.

    Args:
        best: confidence, float [N], N at least 1.
        right: bool [N].
    """
    wanted = min(BINS, max(1, len(best) // LEAST_IN_BIN))
    _, group, sizes = np.unique(best, return_inverse=True, return_counts=True)
    middle = np.cumsum(sizes) - sizes / 2
    taken, bins = np.unique((middle / len(best) * wanted).astype(int)[group], return_inverse=True)
    return Binned(best.astype(np.float64), right, bins, len(taken))


def noise_floor(binned: Binned, seed: int = 0) -> tuple[float, float]:
    """Mean and 95 % quantile of the adaptive error of a perfectly calibrated model that gives these probabilities.

    True classes are drawn from the probabilities themselves, so that every confidence is meant exactly as it is said;
    what is left is chance (consistency resampling: Bröcker and Smith 2007, 'Increasing the reliability of reliability
    diagrams'; Vaicenavicius et al. 2019, arXiv 1902.06977). Whether the best class is the one drawn has just its
    confidence as probability.
    """
    one_hot, n = binned.one_hot, len(binned.bins)
    expected = np.bincount(binned.bins, binned.confidence, binned.count)
    rng, said, errors = np.random.default_rng(seed), binned.confidence.astype(np.float32), []
    for draws in _portions(n):
        right = rng.random((draws, n), dtype=np.float32) < said
        errors.append(np.abs(right.astype(np.float32) @ one_hot - expected).sum(axis=1) / n)
    drawn = np.concatenate(errors)
    return float(drawn.mean()), float(np.quantile(drawn, 0.95))


def error_interval(binned: Binned, floor_95: float, seed: int = 0) -> tuple[float, float]:
    """A 95 % interval of the adaptive error, by the Bayesian bootstrap (Rubin 1981), bins kept.

    Resampling adds the noise of a sample a second time, and that can only enlarge a sum of distances. The interval is
    therefore the basic one, mirrored at the estimate, and widened to hold it: mostly it reaches below the estimate. It
    reaches down to 0 where chance alone explains the error.

    Args:
        binned: the pictures.
        floor_95: what chance alone stays below in 95 % of cases (`noise_floor`).
        seed: of the resamples.
    """
    one_hot, n, error = binned.one_hot, len(binned.bins), binned.error
    gaps = one_hot * (binned.right - binned.confidence).astype(np.float32)[:, None]
    rng, errors = np.random.default_rng(seed), []
    for draws in _portions(n):
        weights = rng.standard_exponential((draws, n), dtype=np.float32)
        errors.append(np.abs(weights @ gaps).sum(axis=1) / weights.sum(axis=1))
    low, high = np.quantile(np.concatenate(errors), (0.025, 0.975))
    lower = 0.0 if error <= floor_95 else max(0.0, 2 * error - float(high))
    return min(error, lower), max(error, 2 * error - float(low))


def _portions(n: int) -> Iterator[int]:
    """How many draws over n pictures to make at a time, together `DRAWS`."""
    size = max(1, _AT_ONCE // n)
    yield from (min(size, DRAWS - start) for start in range(0, DRAWS, size))


def _described(binned: Binned) -> Iterator[dict[str, Any]]:
    sizes = np.bincount(binned.bins, minlength=binned.count)
    said = np.bincount(binned.bins, binned.confidence) / sizes
    hits = np.bincount(binned.bins, binned.right)
    for n, mean, right in zip(sizes.tolist(), said.tolist(), hits.astype(int).tolist(), strict=True):
        low, high = wilson(right, n)
        yield {
            "confidence": round(mean, 6),
            "accuracy": round(right / n, 6),
            "lower": round(low, 6),
            "upper": round(high, 6),
            "n": n,
        }
