from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

import numpy as np
import pytest

from pigeonholed_training.fitting.augmentation import Augmentation
from pigeonholed_training.fitting.feed import Feed, balanced

PICTURES = np.random.default_rng(0).integers(0, 256, (50, 6, 6, 3), np.uint8)
TARGETS = (np.arange(50) % 3).astype(np.int32)
TRAIN = np.arange(3, 40)
MOVED = Augmentation(rotate_deg=20, shift=0.2, flip=True, brightness=0.2)


def feed(read: Callable[..., np.ndarray] = PICTURES.take, size: int = 8, **others: object) -> Feed:
    return Feed(lambda rows: read(rows, axis=0), TARGETS, TRAIN, size, **others)


def drained(made: Feed, epoch: int = 1) -> list[tuple[np.ndarray, np.ndarray]]:
    return list(made.batches(epoch))


def equal(one: list[tuple[np.ndarray, np.ndarray]], other: list[tuple[np.ndarray, np.ndarray]]) -> bool:
    return all(np.array_equal(a, b) for pair in zip(one, other, strict=True) for a, b in zip(*pair, strict=True))


def feed_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("feed")]


def test_the_number_of_workers_changes_nothing() -> None:
    one, three = (drained(feed(augmentation=MOVED, workers=workers)) for workers in (1, 3))
    assert equal(one, three)


def test_an_epoch_does_not_depend_on_those_before() -> None:
    made = feed(augmentation=MOVED, seed=4)
    drained(made, 1)
    assert equal(drained(made, 2), drained(feed(augmentation=MOVED, seed=4), 2))


@pytest.mark.parametrize("other", [{"epoch": 2}, {"seed": 1}])
def test_epochs_and_seeds_differ_in_order_and_in_pictures(other: dict[str, int]) -> None:
    first = drained(feed(augmentation=MOVED))
    second = drained(feed(augmentation=MOVED, seed=other.get("seed", 0)), other.get("epoch", 1))
    assert not equal(first, second)
    assert [y.tolist() for _, y in first] != [y.tolist() for _, y in second]


def test_the_batches_of_an_epoch_are_changed_differently() -> None:
    same = np.zeros((50, 6, 6, 3), np.uint8)
    lit = Feed(same.__getitem__, TARGETS, TRAIN, 8, Augmentation(brightness=0.5))
    first, second, *_ = (rows for rows, _ in lit.batches(1))
    assert not np.array_equal(first, second)


def test_every_row_comes_once_with_its_target_and_the_last_batch_is_filled_up() -> None:
    batches = drained(feed())
    rows, targets = (np.concatenate(part) for part in zip(*batches, strict=True))
    assert [len(one) for one, _ in batches] == [8] * 5
    which = [int(np.flatnonzero((row == PICTURES).all(axis=(1, 2, 3)))[0]) for row in rows]
    assert sorted(which[:37]) == TRAIN.tolist()
    assert which[37:] == which[:3]
    assert np.array_equal(TARGETS[which], targets)
    assert targets.dtype == np.int32


def test_fewer_pictures_than_a_batch_are_one_smaller_batch() -> None:
    made = feed(size=512)
    assert (made.steps, made.batch_size, made.pictures) == (1, 37, 37)
    assert [len(rows) for rows, _ in made.batches(1)] == [37]


def test_alternating_sides_are_opposite_in_the_next_epoch_and_the_same_in_the_one_after() -> None:
    made = Feed(PICTURES.__getitem__, TARGETS, TRAIN, len(TRAIN), Augmentation(flip=True, alternate=True))
    shown = []
    for epoch in (1, 2, 3):
        [(rows, _)] = made.batches(epoch)
        plain = {index: PICTURES[index].tobytes() in {row.tobytes() for row in rows} for index in TRAIN}
        mirrored = {index: PICTURES[index][:, ::-1].tobytes() in {row.tobytes() for row in rows} for index in TRAIN}
        assert all(plain[index] != mirrored[index] for index in TRAIN)
        shown.append(plain)
    assert all(shown[0][index] != shown[1][index] for index in TRAIN)
    assert shown[0] == shown[2]
    assert 8 < sum(shown[0].values()) < 29


def test_rows_that_are_no_pictures_pass_unchanged() -> None:
    features = np.arange(100, dtype=np.float32).reshape(50, 2)
    [(rows, _)] = Feed(features.__getitem__, TARGETS, TRAIN, 64).batches(1)
    assert sorted(rows[:, 0]) == features[TRAIN, 0].tolist()


def test_what_goes_wrong_in_a_worker_reaches_whoever_trains() -> None:
    def failing(rows: np.ndarray, axis: int) -> np.ndarray:
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        drained(feed(failing))
    assert not feed_threads()


def test_leaving_an_epoch_early_ends_its_workers() -> None:
    with contextlib.closing(feed(workers=3).batches(1)) as batches:
        next(batches)
        assert feed_threads()
    assert not feed_threads()


def test_only_a_few_batches_are_made_ahead() -> None:
    made: list[int] = []

    def counting(rows: np.ndarray, axis: int) -> np.ndarray:
        made.append(1)
        return PICTURES[rows]

    with contextlib.closing(feed(counting, size=1, workers=2).batches(1)) as batches:
        for _ in range(5):
            next(batches)
    assert len(made) <= 5 + 3


def test_balanced_weights_make_all_classes_count_the_same() -> None:
    targets = np.array([0] * 6 + [1] * 2 + [3] * 4, np.int32)
    weights = np.array(balanced(targets, 4))
    assert np.allclose(weights * np.bincount(targets, minlength=4), [4, 4, 0, 4])
    assert weights[targets].mean() == pytest.approx(1.0)
