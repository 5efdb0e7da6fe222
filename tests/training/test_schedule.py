from __future__ import annotations

import pytest

from pigeonholed_training.fitting.schedule import Schedule


def rates(kind: str, warmup: int = 0, steps: int = 100) -> list[float]:
    schedule = Schedule(kind, 2.0, steps, warmup)
    return [schedule.rate(step) for step in range(steps)]


def test_a_cosine_is_halfway_down_in_the_middle_and_ends_near_nothing() -> None:
    falling = rates("cosine")
    assert (falling[0], falling[50]) == (2.0, pytest.approx(1.0))
    assert 0 < falling[-1] < 0.001
    assert falling == sorted(falling, reverse=True)


def test_a_triangle_goes_down_in_a_straight_line() -> None:
    falling = rates("triangle", warmup=20)
    assert falling.index(max(falling)) == 20
    assert falling[60] == pytest.approx(1.0)
    assert falling[-1] == pytest.approx(2.0 / 80)


def test_a_constant_rate_stays() -> None:
    assert set(rates("constant")) == {2.0}


@pytest.mark.parametrize("kind", ["cosine", "triangle", "constant"])
def test_the_rate_rises_to_its_peak_and_the_first_step_is_not_wasted(kind: str) -> None:
    rising = rates(kind, warmup=4)
    assert rising[:5] == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0])


def test_a_shortened_plan_keeps_the_share_that_rises() -> None:
    assert Schedule.over("cosine", 1.0, 200, 0.1).warmup == 20
    assert Schedule.over("cosine", 1.0, 20, 0.1).warmup == 2


def test_however_short_the_training_some_step_learns_at_the_peak() -> None:
    for steps in (1, 2, 5):
        schedule = Schedule.over("triangle", 1.0, steps, 1.0)
        assert max(schedule.rate(step) for step in range(steps)) == 1.0
