from __future__ import annotations

import numpy as np
import pytest

from pigeonholed_training.evaluation.strangers import made, strangers
from tiny_classifier import Colours, coloured, judged

KNOWN = coloured([0, 1, 2] * 12)
KINDS = ["noise", "one colour", "gradients", "checkerboards", "pages of text", "shuffled pixels"]
SURE = judged([[0.98, 0.01, 0.01]] * 40, [0] * 40)
GREY = np.full((5, 12, 16, 3), 90, np.uint8)


def test_every_kind_is_made_in_the_size_of_the_pictures() -> None:
    kinds = dict(made(KNOWN, 9, 0))
    assert list(kinds) == KINDS
    for pictures in kinds.values():
        assert pictures.shape == (9, 12, 16, 3)
        assert pictures.dtype == np.uint8


@pytest.mark.parametrize("side", [1, 2, 8, 64])
def test_pictures_of_any_size_have_strangers(side: int) -> None:
    for _, pictures in made(np.zeros((1, side, side, 3), np.uint8), 4, 0):
        assert pictures.shape == (4, side, side, 3)


def test_pictures_of_a_kind_differ_and_the_same_seed_makes_the_same() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 24, 24, 3), np.uint8)
    for (what, one), (_, again) in zip(made(pixels, 8, 3), made(pixels, 8, 3), strict=True):
        assert len(np.unique(one.reshape(8, -1), axis=0)) == 8, what
        assert (one == again).all()


def test_shuffled_pixels_keep_the_colours_of_their_picture() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1, 12, 16, 3), np.uint8)
    for shuffled in dict(made(pixels, 3, 0))["shuffled pixels"]:
        assert not (shuffled == pixels[0]).all()
        assert sorted(map(tuple, shuffled.reshape(-1, 3))) == sorted(map(tuple, pixels.reshape(-1, 3)))


def test_a_gradient_goes_one_way_from_one_colour_to_another() -> None:
    for picture in dict(made(np.zeros((1, 40, 40, 3), np.uint8), 8, 0))["gradients"].astype(int):
        for axis in (0, 1):
            steps = np.diff(picture, axis=axis).reshape(-1, 3)
            assert ((steps >= 0).all(axis=0) | (steps <= 0).all(axis=0)).all()


def test_a_model_that_is_unsure_of_grey_tells_it_from_what_it_knows() -> None:
    rows, _ = strangers(Colours(), SURE, KNOWN, given={"grey": GREY})
    grey = rows[-1]
    assert grey == {"what": "grey", "n": 5, "mean_confidence": pytest.approx(1 / 3), "sorted_share": 0.0, "auroc": 1.0}


def test_a_model_that_is_surest_of_strangers_is_found_out() -> None:
    unsure = judged([[0.6, 0.2, 0.2]] * 10, [0] * 10)
    rows, _ = strangers(Colours(), unsure, KNOWN, given={"red things": coloured([0, 0])})
    assert rows[-1]["auroc"] == 0.0
    assert rows[-1]["sorted_share"] == 1.0


def test_equal_confidence_is_no_telling_apart() -> None:
    rows, _ = strangers(Colours(), judged([[1 / 3] * 3] * 10, [0] * 10), KNOWN, given={"grey": GREY})
    assert rows[-1]["auroc"] == 0.5


def test_the_surest_of_a_kind_is_shown_and_of_the_users_own_more() -> None:
    own = np.concatenate([GREY[:2], coloured([2]), GREY])
    rows, examples = strangers(Colours(), SURE, KNOWN, given={"own": own})
    assert [one.note for one in examples] == KINDS + ["own"] * 6
    surest = examples[len(KINDS)]
    assert surest.said[0][0] == "blue"
    assert surest.label is None
    assert surest.outcome == "sorted"
    assert len(rows) == len(KINDS) + 1


def test_the_work_is_bounded() -> None:
    classifier = Colours()
    own = np.broadcast_to(GREY[:1], (400, 12, 16, 3))
    rows, _ = strangers(classifier, SURE, KNOWN, given={"many": own, "none": GREY[:0]})
    assert [row["n"] for row in rows] == [9] * len(KINDS) + [256]
    assert classifier.asked == 9 * len(KINDS) + 256
