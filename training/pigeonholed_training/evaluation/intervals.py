"""Exact and approximate intervals for a share that was counted: k of n."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt


def upper_tails(successes: npt.ArrayLike, trials: npt.ArrayLike, share: float) -> npt.NDArray[np.float64]:
    """P(X >= successes) for X binomial of `trials` and `share`, exact to rounding (the incomplete beta function)."""
    from scipy.special import betainc

    least = np.maximum(np.asarray(successes), 1)
    tails: npt.NDArray[np.float64] = betainc(least, np.asarray(trials) - least + 1, share)
    return np.where(np.asarray(successes) <= 0, 1.0, tails)


def upper_tail(successes: int, trials: int, share: float) -> float:
    """`upper_tails` of one count."""
    return float(upper_tails(successes, trials, share))


def clopper_pearson_lower(successes: int, trials: int, alpha: float) -> float:
    """The one-sided lower bound of confidence 1 - alpha on a share (Clopper and Pearson 1934).

    The share p for which `successes` or more of `trials` have probability `alpha`; 0 without successes.
    """
    from scipy.special import betaincinv

    return float(betaincinv(successes, trials - successes + 1, alpha)) if successes else 0.0


def clopper_pearson_upper(successes: int, trials: int, alpha: float) -> float:
    """The one-sided upper bound of confidence 1 - alpha on a share; 1 where nothing failed.

    A claim 'at least p' is refuted by what was counted where this lies below p.
    """
    return 1.0 - clopper_pearson_lower(trials - successes, trials, alpha)


def wilson(successes: int, trials: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """The two-sided interval of Wilson (1927), 95 % by default; (0, 1) without trials."""
    if trials == 0:
        return 0.0, 1.0
    share, weight = successes / trials, z * z / trials
    centre = (share + weight / 2) / (1 + weight)
    half = z * math.sqrt(share * (1 - share) / trials + weight / (4 * trials)) / (1 + weight)
    return max(0.0, centre - half), min(1.0, centre + half)
