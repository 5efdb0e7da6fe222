"""Exact and approximate intervals for a share that was counted: k of n."""

from __future__ import annotations

import math


def upper_tail(successes: int, trials: int, share: float) -> float:
    """P(X >= successes) for X binomial of `trials` and `share`, exact to rounding."""
    if successes <= 0:
        return 1.0
    if share <= 0.0:
        return 0.0
    if share >= 1.0:
        return 1.0
    log_p, log_q = math.log(share), math.log1p(-share)
    whole = math.lgamma(trials + 1)
    terms = (
        whole - math.lgamma(k + 1) - math.lgamma(trials - k + 1) + k * log_p + (trials - k) * log_q
        for k in range(successes, trials + 1)
    )
    return min(1.0, math.fsum(math.exp(term) for term in terms))


def clopper_pearson_lower(successes: int, trials: int, alpha: float) -> float:
    """The one-sided lower bound of confidence 1 - alpha on a share (Clopper and Pearson 1934).

    The share p for which `successes` or more of `trials` have probability `alpha`; 0 without successes.
    """
    if successes == 0:
        return 0.0
    low, high = 0.0, 1.0
    while high - low > 1e-12:
        middle = (low + high) / 2
        if upper_tail(successes, trials, middle) < alpha:
            low = middle
        else:
            high = middle
    return low


def wilson(successes: int, trials: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """The two-sided interval of Wilson (1927), 95 % by default; (0, 1) without trials."""
    if trials == 0:
        return 0.0, 1.0
    share, weight = successes / trials, z * z / trials
    centre = (share + weight / 2) / (1 + weight)
    half = z * math.sqrt(share * (1 - share) / trials + weight / (4 * trials)) / (1 + weight)
    return max(0.0, centre - half), min(1.0, centre + half)
