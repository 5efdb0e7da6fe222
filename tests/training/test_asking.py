from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import pytest

from pigeonholed_training.evaluation import asking
from pigeonholed_training.evaluation.asking import affordable, answers, ask, ask_about, balanced
from tiny_classifier import Colours, coloured, judged

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from pigeonholed_training.data.dataset import Dataset


class Clock:
    """Stands for the module `time`; goes on only when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


class Slow(Colours):
    """Takes so many seconds for each picture by that clock; three times as many at its first call."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        super().__init__()
        self._clock, self._seconds, self._first = clock, seconds, True

    def predict(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        self._clock.now += len(pixels) * self._seconds * (3 if self._first else 1)
        self._first = False
        return super().predict(pixels)


class Broken(Colours):
    def predict(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        said = super().predict(pixels)
        said[0] = np.nan
        return said


@pytest.mark.parametrize("count", [0, 1, 4, 11])
def test_any_number_of_pictures_is_asked_about_in_pieces_that_the_classifier_takes(count: int) -> None:
    targets = [index % 3 for index in range(count)]
    said = ask(Colours(), coloured(targets))
    assert said.shape == (count, 3)
    assert said.argmax(axis=1).tolist() == targets


class Stored:
    """A data set whose pictures are red, green and blue in turn."""

    def chunks(self, indices: npt.NDArray[np.intp], size: int) -> Iterator[npt.NDArray[np.uint8]]:
        for start in range(0, len(indices), size):
            yield coloured([int(index) % 3 for index in indices[start : start + size]])


@pytest.mark.parametrize("count", [0, 3, 9])
def test_pictures_of_a_data_set_are_asked_about_in_the_order_of_their_indices(count: int) -> None:
    indices = np.random.default_rng(0).permutation(50)[:count]
    said = ask_about(Colours(), cast("Dataset", Stored()), indices)
    assert said.shape == (count, 3)
    assert said.argmax(axis=1).tolist() == (indices % 3).tolist()


def test_a_picture_without_an_answer_has_no_confidence_and_spoils_no_mean() -> None:
    said = answers(Broken(), judged([], []), coloured([1, 1]), np.array([1, 1], np.int32))
    assert said.confidence.tolist() == [0.0, pytest.approx(1.0, abs=1e-4)]
    assert said.passes.tolist() == [False, True]


@pytest.mark.parametrize(("seconds", "count"), [(1e-6, 256), (0.003, 128), (0.006, 64), (10, 32)])
def test_a_slower_model_is_tried_on_fewer_pictures(seconds: float, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(asking, "time", clock)
    assert affordable(Slow(clock, seconds), coloured([0, 1, 2, 0, 1]), 5.0) == count


def test_every_class_has_its_share_of_a_sample_even_a_rare_one() -> None:
    targets = np.array([0] * 500 + [1] * 30 + [2] * 3, np.int32)
    for seed in range(5):
        assert np.bincount(targets[balanced(targets, 23, seed)]).tolist() == [10, 10, 3]


def test_a_sample_is_no_more_than_there_is_and_the_same_for_the_same_seed() -> None:
    targets = np.arange(50, dtype=np.int32) % 4
    assert balanced(targets, 60, 0).tolist() == list(range(50))
    assert balanced(targets, 8, 0).tolist() == balanced(targets, 8, 0).tolist() != balanced(targets, 8, 1).tolist()
