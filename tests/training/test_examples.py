"""Which pictures the report shows."""

from __future__ import annotations

import numpy as np
import pytest

from pigeonholed.bundle import Threshold
from pigeonholed_training.evaluation.examples import SHOWN, telling, unlabelled
from pigeonholed_training.evaluation.judged import Judged

LABELS = ("cat", "dog", "emu")
THRESHOLDS = tuple(Threshold(label=label, value=0.6, method="best-f1", n=0) for label in LABELS)


def judged(*answers: tuple[int, int, float]) -> Judged:
    """From (true class, said class, confidence); what is left is shared by the other two."""
    probabilities = np.array(
        [[p if said == one else (1 - p) / 2 for one in range(3)] for _, said, p in answers], np.float32
    )
    return Judged(LABELS, np.array([true for true, _, _ in answers], np.int32), probabilities, THRESHOLDS)


def shown(found: Judged) -> dict[str, list[int]]:
    """By kind, the positions of the pictures that are shown; each picture's first byte is its position."""

    def read(indices: np.ndarray) -> np.ndarray:
        return np.asarray(indices, np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)

    paths = [f"{index}.jpg" for index in range(len(found))]
    kinds = telling(found, read, paths, seed=0)
    for examples in kinds.values():
        assert [one.note for one in examples] == [f"{one.pixels[0, 0, 0]}.jpg" for one in examples]
    return {kind: [int(one.pixels[0, 0, 0]) for one in examples] for kind, examples in kinds.items()}


def test_the_worst_errors_are_the_surest_ones_first() -> None:
    found = shown(judged((0, 0, 0.99), (0, 1, 0.7), (1, 2, 0.9), (2, 2, 0.5), (2, 0, 0.8)))
    assert found["worst"] == [2, 4, 1]


def test_the_least_certain_come_first_whether_right_or_not() -> None:
    assert shown(judged((0, 0, 0.99), (0, 1, 0.7), (2, 2, 0.5)))["least_certain"] == [2, 1, 0]


def test_the_most_frequent_confusion_is_shown_first_and_kinds_without_pictures_are_left_out() -> None:
    found = shown(judged((1, 2, 0.95), (0, 1, 0.7), (0, 1, 0.8), (2, 2, 0.9)))
    assert found["confused"] == [2, 1, 0]
    assert set(shown(judged((0, 0, 0.9), (1, 1, 0.9)))) == {"sample", "least_certain"}


@pytest.mark.parametrize("rare", [1, 3])
def test_a_sample_has_every_class_however_rare(rare: int) -> None:
    found = judged(*[(0, 0, 0.9)] * 100, *[(1, 1, 0.9)] * 100, *[(2, 2, 0.9)] * rare)
    sample = shown(found)["sample"]
    classes = found.targets[sample].tolist()
    assert len(sample) == len(set(sample)) == SHOWN
    assert classes == sorted(classes)
    assert classes.count(2) == rare
    assert abs(classes.count(0) - classes.count(1)) <= 1


def test_an_example_says_the_best_labels_and_what_the_threshold_makes_of_it() -> None:
    pixels = np.zeros((2, 2, 3), np.uint8)
    sure = unlabelled(LABELS, np.array([0.1, 0.6, 0.3]), THRESHOLDS, pixels, "note")
    assert sure.said == (("dog", 0.6), ("emu", 0.3), ("cat", 0.1))
    assert (sure.outcome, sure.label, sure.is_right) == ("sorted", None, None)
    doubtful = unlabelled(LABELS, np.array([0.1, 0.59, 0.31]), THRESHOLDS, pixels, "note", label="emu")
    assert (doubtful.outcome, doubtful.is_right) == ("unsure", False)
