from __future__ import annotations

from itertools import permutations

import numpy as np
import numpy.typing as npt
import pytest

from pigeonholed_training.evaluation.blends import LADDER, SHARE, blended, blends
from tiny_classifier import LABELS, Colours, coloured, judged

TARGETS = np.arange(30, dtype=np.int32) % 3
NOTHING = judged([], [])


def test_a_model_that_is_linear_in_light_shares_its_confidence_as_the_picture_is_shared() -> None:
    rows, _ = blends(Colours(), NOTHING, coloured(TARGETS.tolist()), TARGETS)
    for row in rows:
        assert row["p_first"] == pytest.approx(row["share"], abs=1e-3)
        assert row["p_second"] == pytest.approx(1 - row["share"], abs=1e-3)
        assert row["p_rest"] == pytest.approx(0, abs=1e-3)
        assert row["mean_confidence"] == pytest.approx(max(row["share"], 1 - row["share"]), abs=1e-3)


def test_every_pair_is_tried_in_both_orders_and_one_of_them_with_other_shares() -> None:
    rows, _ = blends(Colours(), NOTHING, coloured(TARGETS.tolist()), TARGETS)
    tried = [(row["first"], row["second"]) for row in rows if row["share"] == SHARE]
    assert sorted(tried) == sorted(permutations(LABELS, 2))
    ladder = [row for row in rows if row["share"] != SHARE]
    assert [row["share"] for row in ladder] == list(LADDER)
    assert {(row["first"], row["second"]) for row in ladder} == {tried[0]}


def test_of_many_classes_the_pairs_that_are_confused_most_are_tried() -> None:
    labels = tuple("abcdefghij")
    mistakes = [(3, 7), (7, 3), (3, 7), (1, 2), (2, 1), (9, 0)]
    confused = judged(np.eye(10)[[said for _, said in mistakes]], [true for true, _ in mistakes], labels=labels)
    targets = np.arange(100, dtype=np.int32) % 10
    rows, _ = blends(Colours(labels), confused, coloured((targets % 3).tolist()), targets)
    tried = [row["first"] + row["second"] for row in rows if row["share"] == SHARE]
    assert len(tried) == 12
    assert tried[:2] == ["dh", "hd"]
    assert tried[2:4] == ["bc", "cb"]
    assert tried[4:6] == ["aj", "ja"]


@pytest.mark.parametrize(("given", "each"), [(6, 8), (70, 12), (999, 32)])
def test_there_are_as_many_blends_as_the_pictures_allow_but_never_too_few_or_many(given: int, each: int) -> None:
    classifier, targets = Colours(), np.arange(given, dtype=np.int32) % 3
    rows, examples = blends(classifier, NOTHING, coloured(targets.tolist(), 2, 2), targets)
    assert {row["n"] for row in rows} == {each}
    assert len(examples) == len(rows) == 11
    assert classifier.asked == 11 * each


def test_each_example_says_what_it_is_made_of_and_belongs_to_no_class() -> None:
    rows, examples = blends(Colours(), NOTHING, coloured(TARGETS.tolist()), TARGETS)
    first, second = rows[0]["first"], rows[0]["second"]
    assert examples[0].note == f"60 % {first} + 40 % {second}"
    assert examples[0].label is None
    assert dict(examples[0].said)[first] == pytest.approx(0.6, abs=1e-3)
    assert examples[0].pixels.max() == 120


class Stubborn(Colours):
    """Takes every picture for the one or the other."""

    def predict(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        said = super().predict(pixels)
        said[0::2], said[1::2] = np.eye(3)[0], np.eye(3)[1]
        return said


def test_a_model_that_takes_every_blend_for_the_one_or_the_other_does_not_pass_for_one_that_shares() -> None:
    rows, _ = blends(Stubborn(), NOTHING, coloured([0, 1] * 8), np.array([0, 1] * 8, np.int32))
    assert rows[0]["p_first"] == 0.5
    assert rows[0]["mean_confidence"] == 1.0


def test_classes_without_pictures_are_left_out() -> None:
    one = np.zeros(5, np.int32)
    assert blends(Colours(), NOTHING, coloured([0] * 5), one) == ([], ())
    two = np.array([0, 2], np.int32)
    rows, _ = blends(Colours(), NOTHING, coloured([0, 2]), two)
    assert {row["first"] for row in rows} == {"red", "blue"}


def test_the_same_seed_blends_the_same_pictures() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3), np.uint8)
    one, other, third = (blends(Colours(), NOTHING, pixels, TARGETS, seed=seed)[0] for seed in (1, 1, 2))
    assert one == other != third


def test_a_blend_is_the_weighted_mean_of_each_pixel() -> None:
    first, second = np.random.default_rng(0).integers(0, 256, (2, 3, 5, 7, 3), np.uint8)
    expected = 0.6 * first + 0.4 * second
    assert np.abs(blended(first, second, 0.6) - expected).max() <= 0.5 + 1e-6
