"""McNemar's test on the same pictures, and figures side by side."""

from __future__ import annotations

import math

import pytest

from pigeonholed_training.evaluation.comparison import Heard, Pair, compare, in_words, pair
from pigeonholed_training.evaluation.record import Prediction


def said(number: int, label: str, answer: str, *, sure: bool = True, own: float | None = 0.5) -> Prediction:
    return Prediction(f"{number:064x}", "test", label, answer, 0.9, "sorted" if sure else "unsure", own)


def heard(title: str, *answers: Prediction, labels: tuple[str, ...] = ("cat", "dog")) -> Heard:
    return Heard(title, labels, {one.sha256: one for one in answers})


@pytest.mark.parametrize(
    ("only_first", "only_other", "two_sided", "worse"),
    [
        (0, 0, 1.0, 1.0),
        (5, 5, 1.0, 638 / 1024),
        (0, 6, 2 / 64, 1.0),
        (6, 0, 2 / 64, 1 / 64),
        (1, 9, 22 / 1024, 1023 / 1024),
        (9, 1, 22 / 1024, 11 / 1024),
    ],
)
def test_the_probability_is_that_of_tossed_coins(
    only_first: int, only_other: int, two_sided: float, worse: float
) -> None:
    one = Pair("A", "B", 100, only_first, only_other, 3)
    assert math.isclose(one.p, two_sided)
    assert math.isclose(one.p_worse, worse)
    assert one.n == 103 + only_first + only_other


@pytest.mark.parametrize(
    ("only_first", "only_other", "sentence"),
    [
        (5, 17, "B is right on 12 more of 122 pictures than A; that is more than chance would give (p = 0.017)."),
        (17, 5, "A is right on 12 more of 122 pictures than B; that is more than chance would give (p = 0.017)."),
        (3, 4, "B is right on 1 more of 107 pictures than A; that is no more than chance might give (p = 1"),
        (4, 4, "A and B are right equally often on 108 pictures (4 each that the other gets wrong)."),
        (0, 0, "A and B are right equally often on 100 pictures."),
    ],
)
def test_a_difference_is_told_in_plain_words(only_first: int, only_other: int, sentence: str) -> None:
    assert Pair("A", "B", 90, only_first, only_other, 10).sentence.startswith(sentence)


@pytest.mark.parametrize(
    ("p", "words"), [(1e-9, "less than 0.001"), (0.0123, "0.012"), (0.0449, "0.045"), (0.5, "0.50")]
)
def test_a_probability_has_few_digits(p: float, words: str) -> None:
    assert in_words(p) == words


def test_a_pair_counts_who_is_right() -> None:
    first = [said(0, "cat", "cat"), said(1, "cat", "cat"), said(2, "dog", "cat"), said(3, "dog", "cat")]
    other = [said(0, "cat", "cat"), said(1, "cat", "dog"), said(2, "dog", "dog"), said(3, "dog", "cat")]
    found = pair("A", "B", first, other)
    assert (found.both, found.only_first, found.only_other, found.neither) == (1, 1, 1, 1)
    more = pair("A", "B", first[:3], other[:3])
    assert (more.both, more.only_first, more.only_other, more.neither) == (1, 1, 1, 0)


def test_only_pictures_that_all_answered_about_the_same_class_count() -> None:
    a = heard("A", said(0, "cat", "cat"), said(1, "dog", "dog"), said(2, "cat", "cat"), said(3, "cat", "cat"))
    b = heard("B", said(0, "cat", "cat"), said(1, "cat", "cat"), said(2, "cat", "dog"), said(9, "cat", "cat"))
    found = compare([a, b])
    assert found.n == 2
    assert [side.accuracy["right"] for side in found.sides] == [2, 1]
    assert [one.other for one in found.pairs] == ["B"]


def test_models_with_other_classes_are_compared_on_the_common_ones() -> None:
    a = heard("A", said(0, "cat", "cat"), said(1, "cow", "cow"), labels=("cat", "cow"))
    b = heard("B", said(0, "cat", "dog"), said(1, "cow", "cow"), labels=("cat", "dog"))
    found = compare([a, b])
    assert (found.labels, found.n) == (("cat",), 1)
    assert [side.accuracy["value"] for side in found.sides] == [1.0, 0.0]


def test_the_figures_of_a_side_are_those_of_its_answers() -> None:
    answers = [
        said(0, "cat", "cat", own=0.5),
        said(1, "cat", "dog", own=0.25),
        said(2, "dog", "dog", own=1.0),
        said(3, "dog", "dog", sure=False, own=1.0),
    ]
    side = compare([heard("A", *answers), heard("B", *answers)]).sides[0]
    assert (side.accuracy["value"], side.unsure_share) == (0.75, 0.25)
    assert (side.sorted["right"], side.sorted["n"]) == (2, 3)
    assert math.isclose(side.macro_f1, (2 / 3 + 4 / 5) / 2, abs_tol=1e-6)
    assert side.nll is not None
    assert math.isclose(side.nll, (math.log(2) + math.log(4)) / 4, abs_tol=1e-6)


def test_without_probabilities_there_is_no_log_loss() -> None:
    answers = [said(0, "cat", "cat"), said(1, "cat", "dog", own=None)]
    assert compare([heard("A", *answers), heard("B", *answers)]).sides[0].nll is None


def test_nothing_in_common_is_a_comparison_of_nothing() -> None:
    found = compare([heard("A", said(0, "cat", "cat")), heard("B", said(1, "cat", "cat"))])
    assert (found.n, found.sides[0].macro_f1, found.pairs[0].p) == (0, 0.0, 1.0)
