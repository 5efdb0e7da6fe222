from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt
import pytest

from pigeonholed_training.evaluation.judged import Judged
from pigeonholed_training.evaluation.suspects import ranked, suspects
from tiny_classifier import judged

Rows = npt.NDArray[np.float64]


def calibrated(count: int, classes: int, spread: float, seed: int = 0) -> tuple[Rows, npt.NDArray[np.int32]]:
    """Probabilities, and labels drawn from them: right just as often as they say. More spread, a worse model."""
    rng = np.random.default_rng(seed)
    rows = rng.dirichlet([spread] * classes, count)
    return rows, (rows.cumsum(axis=1) > rng.random((count, 1))).argmax(axis=1).astype(np.int32)


def answers(rows: Rows, targets: npt.NDArray[np.int32]) -> Judged:
    return judged(rows, targets.tolist(), labels=tuple(f"class {number}" for number in range(rows.shape[1])))


def read(indices: npt.NDArray[np.intp]) -> npt.NDArray[np.uint8]:
    return np.broadcast_to(indices.astype(np.uint8)[:, None, None, None], (len(indices), 4, 4, 3))


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("seed", range(3))
def test_labels_that_were_changed_are_found_and_no_more_others_than_these(classes: int, seed: int) -> None:
    rows, targets = calibrated(1000, classes, 0.01, seed)
    rng = np.random.default_rng(seed)
    flipped = rng.choice(1000, 30, replace=False)
    targets[flipped] = (targets[flipped] + rng.integers(1, classes, 30)) % classes
    found = ranked(answers(rows, targets))
    hits = np.isin(found, flipped).sum()
    assert hits >= 20
    assert len(found) - hits <= hits


@pytest.mark.parametrize("spread", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("classes", [2, 10])
def test_the_mistakes_of_a_mediocre_model_accuse_no_labels(classes: int, spread: float) -> None:
    for seed in range(3):
        rows, targets = calibrated(1000, classes, spread, seed)
        assert (rows.argmax(axis=1) != targets).sum() >= 30
        assert len(ranked(answers(rows, targets))) <= 2


def test_what_turns_up_by_chance_is_not_suspected() -> None:
    rows = np.repeat(np.array([[0.99, 0.01], [0.01, 0.99]]), 100, axis=0)
    targets = np.repeat(np.array([0, 1], np.int32), 100)
    targets[:4] = 1  # two are to be expected
    assert len(ranked(answers(rows, targets))) == 0
    targets[:8] = 1
    assert len(ranked(answers(rows, targets))) == 8


def test_the_most_suspicious_come_first() -> None:
    rows, targets = calibrated(1000, 4, 0.01)
    targets[:20] = (rows[:20].argmax(axis=1) + 1) % 4
    said = answers(rows, targets)
    found = ranked(said)
    margin = said.confidence[found] - said.probabilities[found, targets[found]]
    assert len(found) >= 10
    assert (np.diff(margin) <= 0).all()


def test_a_picture_is_suspected_only_where_the_model_is_as_sure_as_usual() -> None:
    rows = np.array([[0.9, 0.1]] * 50 + [[0.1, 0.9]] * 50 + [[0.12, 0.88]])
    targets = np.array([0] * 50 + [1] * 50 + [0], np.int32)
    assert len(ranked(answers(rows, targets))) == 0
    rows[-1] = 0.001, 0.999
    assert ranked(answers(rows, targets)).tolist() == [100]


@pytest.mark.parametrize(
    ("rows", "targets"),
    [
        (np.eye(3)[[0, 1, 2, 0]], np.array([0, 1, 2, 0], np.int32)),
        (np.eye(3)[[0] * 50 + [1]], np.zeros(51, np.int32)),  # how sure of class 1 is sure, no picture says
        (np.zeros((0, 3)), np.zeros(0, np.int32)),
    ],
    ids=["all right", "classes without pictures", "no pictures"],
)
def test_where_there_is_nothing_to_suspect_nothing_is(rows: Rows, targets: npt.NDArray[np.int32]) -> None:
    assert suspects(answers(rows, targets), ["p"] * len(rows), ["test"] * len(rows), read) == ([], ())


def test_each_is_told_with_its_place_its_label_and_what_is_said_instead() -> None:
    rows = np.repeat(np.array([[0.99999, 0.00001], [0.00001, 0.99999]]), 100, axis=0)
    targets = np.repeat(np.array([0, 1], np.int32), 100)
    targets[150] = 0
    paths = [f"{number}.jpg" for number in range(200)]
    parts = ["validation"] * 100 + ["test"] * 100
    found, examples = suspects(answers(rows, targets), paths, parts, read)
    assert found == [
        {
            "path": "150.jpg",
            "part": "test",
            "label": "class 0",
            "said": "class 1",
            "confidence": 0.99999,
            "label_probability": 0.00001,
        }
    ]
    (shown,) = examples
    assert (shown.label, shown.said[0][0], shown.note) == ("class 0", "class 1", "150.jpg")
    assert (shown.pixels == 150).all()


def test_at_most_fifty_are_told_and_only_those_shown_are_read() -> None:
    rows = np.repeat(np.array([[0.999, 0.001], [0.001, 0.999]]), 1000, axis=0)
    targets = np.repeat(np.array([0, 1], np.int32), 1000)
    targets[:80] = 1
    asked = []

    def counting(indices: npt.NDArray[np.intp]) -> npt.NDArray[np.uint8]:
        asked.append(len(indices))
        return read(indices)

    found, examples = suspects(answers(rows, targets), ["p"] * 2000, ["test"] * 2000, counting)
    assert len(found) == 50
    assert asked == [len(examples)] == [24]


def test_ten_thousand_pictures_of_a_hundred_classes_take_no_time() -> None:
    said = answers(*calibrated(10_000, 100, 0.05))
    start = time.process_time()
    ranked(said)
    assert time.process_time() - start < 1
