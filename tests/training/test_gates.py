"""What a model must show before it is published, as sentences and as yes or no."""

from __future__ import annotations

from typing import Any

import pytest

from pigeonholed_training import gates
from pigeonholed_training.evaluation.comparison import Pair
from pigeonholed_training.gates import Wanted

HELD = {"part": "test", "accuracy": {"value": 0.9, "right": 180, "n": 200}, "macro_f1": 0.85}


def test_what_nobody_asked_for_is_no_gate() -> None:
    assert gates.minimums(HELD, Wanted()) == []


@pytest.mark.parametrize(("wanted", "met"), [(0.9, True), (0.91, False), (0.0, True)])
def test_the_accuracy_that_was_seen_must_reach_the_number(wanted: float, met: bool) -> None:
    (gate,) = gates.minimums(HELD, Wanted(min_accuracy=wanted))
    assert gate.met is met
    assert gate.is_open is met
    assert "accuracy is 0.9 (180 of 200 pictures of the test part right)" in gate.says


@pytest.mark.parametrize(("wanted", "met"), [(0.85, True), (0.851, False)])
def test_the_macro_f1_must_reach_the_number(wanted: float, met: bool) -> None:
    (gate,) = gates.minimums(HELD, Wanted(min_macro_f1=wanted))
    assert gate.met is met


@pytest.mark.parametrize("held", [{}, {"accuracy": None}, {"accuracy": {"value": float("nan")}}, {"accuracy": {}}])
def test_an_unknown_accuracy_opens_no_gate(held: dict[str, Any]) -> None:
    (gate,) = gates.minimums(held, Wanted(min_accuracy=0.0))
    assert not gate.is_open


def test_force_does_not_open_the_users_own_gates() -> None:
    assert not any(one.is_open for one in gates.minimums(HELD, Wanted(0.99, 0.99, force=True)))


@pytest.mark.parametrize(
    ("only_live", "only_new", "met", "words"),
    [
        (0, 0, True, "right equally often on 100 pictures"),
        (2, 9, True, "runs/x is right on 7 more of 111 pictures than tiny/3"),
        (4, 0, True, "4 fewer of 104 pictures than tiny/3, which is live; that is within what chance does (p = 0.062)"),
        (5, 0, False, "5 fewer of 105 pictures than tiny/3, which is live; chance would hardly do that (p = 0.031)"),
        (40, 20, False, "20 fewer of 160 pictures"),
    ],
)
def test_only_what_chance_does_not_explain_is_worse(only_live: int, only_new: int, met: bool, words: str) -> None:
    gate = gates.not_worse(Pair("tiny/3", "runs/x", 90, only_live, only_new, 10), force=False)
    assert gate.met is gate.is_open is met
    assert words in gate.says
    assert ("--force" in gate.says) is not met


def test_force_lets_a_worse_model_through_and_says_that_it_failed() -> None:
    gate = gates.not_worse(Pair("tiny/3", "runs/x", 90, 9, 0, 10), force=True)
    assert gate.is_open
    assert gate.as_dict()["met"] is False
    assert "by --force" in gate.says


def test_what_cannot_be_compared_holds_nobody_up() -> None:
    gate = gates.not_compared("tiny/3", "its pictures are gone")
    assert gate.is_open
    assert "Not compared with tiny/3, which is live: its pictures are gone." in gate.says


def test_one_message_has_every_gate_that_is_shut() -> None:
    shut = [*gates.minimums(HELD, Wanted(0.95, 0.8)), gates.not_worse(Pair("a/1", "b", 9, 9, 0, 0), force=False)]
    said = gates.refusal(shut)
    assert "0.95" in said
    assert "a/1" in said
    assert "macro" not in said
    assert gates.refusal(gates.minimums(HELD, Wanted(0.5, 0.5))) == ""


def test_metrics_carry_gates_as_plain_values() -> None:
    (gate,) = gates.minimums(HELD, Wanted(min_accuracy=0.5))
    assert gate.as_dict() == {
        "gate": "minimum accuracy",
        "wanted": "at least 0.5",
        "got": "0.9",
        "met": True,
        "says": gate.says,
    }
