"""From a batch of pixels to outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from helpers import FakeClassifier, by_colour, make_arrival, make_decoded, make_served
from pigeonholed.images import Classified, Decoded, Outcome, Reason, Rejected
from pigeonholed.serving import Policy, Served

_POLICIES = {"camera": Policy(None, 5)}


def _batch(*colours: str, inbox: str = "camera") -> list[Decoded]:
    return [make_decoded(make_arrival(f"{i}", i, inbox=inbox), colour) for i, colour in enumerate(colours)]


def _classify(served: Served, batch: Sequence[Decoded], policies: dict[str, Policy] | None = None) -> list[Classified]:
    outcomes = served.classify(batch, policies or _POLICIES)
    assert all(isinstance(outcome, Classified) for outcome in outcomes)
    return [outcome for outcome in outcomes if isinstance(outcome, Classified)]


def _fixed(rows: Sequence[Sequence[float]]) -> FakeClassifier:
    labels = tuple("abcdefgh"[: len(rows[0])])

    def answer(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        return np.array(rows[: len(pixels)], np.float32)

    return FakeClassifier(labels, answer)


def test_each_picture_gets_its_own_outcome_in_order() -> None:
    batch = _batch("red", "blue", "red")
    outcomes = _classify(make_served(), batch)
    assert [outcome.arrival.id for outcome in outcomes] == [0, 1, 2]
    assert [outcome.prediction.label for outcome in outcomes] == ["cat", "dog", "cat"]
    assert [outcome.fingerprint for outcome in outcomes] == [decoded.fingerprint for decoded in batch]
    assert (outcomes[0].width, outcomes[0].height) == (640, 480)


def test_whole_batch_goes_through_the_model_at_once() -> None:
    classifier = FakeClassifier()
    _classify(make_served(classifier), _batch("red", "blue", "grey"))
    assert classifier.seen == [3]


def test_labels_are_ranked_and_cut_to_what_the_inbox_keeps() -> None:
    served = make_served(_fixed([[0.1, 0.6, 0.3]] * 2))
    batch = [*_batch("red"), *_batch("red", inbox="other")]
    policies = {"camera": Policy(None, 2), "other": Policy(None, 5)}
    first, second = _classify(served, batch, policies)
    assert [label for label, _ in first.prediction.ranked] == ["b", "c"]
    assert [label for label, _ in second.prediction.ranked] == ["b", "c", "a"]
    assert second.prediction.ranked[0][1] == pytest.approx(0.6)


def test_model_and_version_that_answered_are_named() -> None:
    (outcome,) = _classify(make_served(name="beasts", version=7), _batch("red"))
    assert (outcome.prediction.model, outcome.prediction.version) == ("beasts", 7)


def test_threshold_is_the_one_of_the_best_label() -> None:
    served = make_served(thresholds=[0.6, 0.9])
    outcomes = _classify(served, _batch("red", "blue"))
    assert [outcome.threshold for outcome in outcomes] == [0.6, 0.9]


def test_inbox_may_set_one_threshold_for_all_labels() -> None:
    (outcome,) = _classify(make_served(), _batch("blue"), {"camera": Policy(0.0, 5)})
    assert outcome.threshold == 0.0


def test_probabilities_stay_between_zero_and_one() -> None:
    (outcome,) = _classify(make_served(_fixed([[1.0000001, -1e-7]])), _batch("red"))
    assert [value for _, value in outcome.prediction.ranked] == [1.0, 0.0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_picture_without_a_finite_answer_alone_is_rejected_and_harms_no_other(bad: float) -> None:
    def answer(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        scores = by_colour(pixels)
        scores[pixels[:, 0, 0, 1] == 200] = bad  # green breaks this network
        return scores

    outcomes = make_served(FakeClassifier(answer=answer)).classify(_batch("red", "green", "blue"), _POLICIES)
    assert [_word(outcome) for outcome in outcomes] == ["cat", "model-error", "dog"]
    (alone,) = make_served(FakeClassifier(answer=answer)).classify(_batch("green"), _POLICIES)
    assert isinstance(alone, Rejected)
    assert alone.reason is Reason.MODEL_ERROR
    assert (alone.width, alone.height) == (640, 480)


def test_picture_spoilt_by_its_neighbour_is_tried_again_alone() -> None:
    def answer(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        scores = by_colour(pixels)
        if len(pixels) > 1:
            scores[:] = np.nan
        scores.setflags(write=False)  # as some runtimes give their results out
        return scores

    classifier = FakeClassifier(answer=answer)
    outcomes = make_served(classifier).classify(_batch("red", "blue"), _POLICIES)
    assert [_word(outcome) for outcome in outcomes] == ["cat", "dog"]
    assert classifier.seen == [2, 1, 1]


@pytest.mark.parametrize("error", [RuntimeError("out of memory\nat 0x1"), MemoryError()])
def test_batch_that_is_too_large_for_the_device_is_halved_until_it_fits(error: Exception) -> None:
    def answer(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        if len(pixels) > 2:
            raise error
        return by_colour(pixels)

    classifier = FakeClassifier(answer=answer)
    colours = ("red", "blue", "blue", "red", "blue")
    told: list[Exception] = []
    served = replace(make_served(classifier), on_fault=told.append)
    outcomes = served.classify(_batch(*colours), _POLICIES)
    assert [_word(outcome) for outcome in outcomes] == ["cat", "dog", "dog", "cat", "dog"]
    assert classifier.seen == [5, 2, 3, 1, 2]
    assert told == [error, error]


def test_device_that_takes_not_even_one_picture_is_no_fault_of_the_picture() -> None:
    def answer(_pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        raise RuntimeError("the device is gone")

    with pytest.raises(RuntimeError, match="the device is gone"):
        make_served(FakeClassifier(answer=answer)).classify(_batch("red", "blue"), _POLICIES)


def _word(outcome: Outcome) -> str:
    return outcome.prediction.label if isinstance(outcome, Classified) else outcome.reason.value
