from __future__ import annotations

import pytest

from pigeonholed_training.fitting.pace import Pace, Pacer, spoken


def test_whole_epochs_and_a_last_one_cut_short_fill_a_budget() -> None:
    pace = Pace(step_s=1.0, judge_s=10.0)
    assert pace.steps_within(3 * 110 / 0.97, 100) == 300
    assert pace.steps_within((3 * 110 + 60) / 0.97 + 0.01, 100) == 350
    assert pace.seconds(350, 100) == 350 + 4 * 10


def test_a_last_epoch_of_a_few_steps_is_left_out() -> None:
    assert Pace(1.0, 10.0).steps_within((3 * 110 + 15) / 0.97, 100) == 300


def test_where_not_even_one_epoch_fits_it_is_cut_short() -> None:
    assert Pace(1.0, 10.0).steps_within(16 / 0.97, 100) == 6
    assert Pace(1.0, 10.0).steps_within(5, 100) == 0
    assert Pace(1.0, 10.0).steps_within(-5, 100) == 0


def test_one_disturbed_epoch_does_not_change_the_pace() -> None:
    pacer = Pacer()
    assert pacer.pace is None
    for step_s in (1.0, 1.1, 9.0, 1.0, 1.1):
        pacer.saw(Pace(step_s, 2.0))
    assert pacer.pace == Pace(1.1, 2.0)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "0 s"), (89, "89 s"), (95, "2 min"), (5399, "1 h 30 min"), (3 * 3600 + 290, "3 h 05 min")],
)
def test_durations_are_said_as_people_say_them(seconds: float, said: str) -> None:
    assert spoken(seconds) == said
