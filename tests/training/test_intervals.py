from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pigeonholed_training.evaluation.intervals import (
    clopper_pearson_lower,
    clopper_pearson_upper,
    upper_tail,
    upper_tails,
)


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (1, 1), (149, 149), (339, 350), (400, 400)])
def test_the_upper_bound_is_that_of_scipy(hits: int, n: int) -> None:
    exact = stats.binomtest(hits, n, alternative="less").proportion_ci(0.95, "exact").high
    assert clopper_pearson_upper(hits, n, 0.05) == pytest.approx(exact, abs=1e-9)


def test_a_claim_is_refuted_only_where_what_was_seen_would_be_rare_if_it_held() -> None:
    # 98 % claimed: 12 wrong of 350 happen in 5.5 % of cases, 13 in 2.6 %.
    assert clopper_pearson_upper(338, 350, 0.05) >= 0.98 > clopper_pearson_upper(337, 350, 0.05)
    assert stats.binom.sf(11, 350, 0.02) > 0.05 > stats.binom.sf(12, 350, 0.02)


def test_many_tails_are_those_one_by_one() -> None:
    hits, trials = np.array([-1, 0, 1, 5, 10]), np.array([10, 10, 10, 10, 10])
    expected = [upper_tail(int(k), int(n), 0.7) for k, n in zip(hits, trials, strict=True)]
    assert upper_tails(hits, trials, 0.7) == pytest.approx(expected)
    assert expected[:2] == [1.0, 1.0]
    assert expected[-1] == pytest.approx(0.7**10)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_ends_of_the_scale_are_exact(share: float) -> None:
    assert upper_tail(3, 5, share) == share


def test_nothing_right_bounds_nothing_from_below() -> None:
    assert clopper_pearson_lower(0, 10, 0.05) == 0.0
