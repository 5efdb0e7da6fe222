from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from pigeonholed_training.evaluation.robustness import forms, robustness
from tiny_classifier import Colours, coloured, judged
from tiny_photos import photo

TARGETS = np.arange(12, dtype=np.int32) % 3
NOTHING = judged([], [])


def photos(count: int, height: int, width: int) -> npt.NDArray[np.uint8]:
    grey = np.stack([np.resize(photo(number), (height, width)) for number in range(count)])
    return np.stack([grey, grey // 2, 255 - grey], axis=-1)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 48), (1, 1)])
def test_every_form_keeps_the_shape_and_leaves_the_original_alone(height: int, width: int) -> None:
    pixels = photos(3, height, width)
    kept = pixels.copy()
    names = []
    for what, changed in forms(pixels, 0):
        names.append(what)
        assert changed.shape == pixels.shape
        assert changed.dtype == np.uint8
        assert (pixels == kept).all()
    assert len(set(names)) == 9


def test_each_form_is_what_its_name_says() -> None:
    pixels = photos(2, 40, 40)
    made = dict(forms(pixels, 0))
    assert made["as it is"] is pixels
    assert made["dark"].mean() == pytest.approx(0.4 * pixels.mean(), abs=0.5)
    assert (made["turned by 90 degrees"] == np.rot90(pixels, -1, axes=(1, 2))).all()
    assert (made["grey"] == made["grey"][..., :1]).all()
    assert np.std(made["noisy"].astype(int)[pixels == 128] - 128) == pytest.approx(20, rel=0.3)

    def detail(pictures: npt.NDArray[np.uint8]) -> float:
        return float(np.abs(np.diff(pictures.astype(int), axis=1)).mean())

    for softer in ("blurred", "half the resolution"):
        assert detail(made[softer]) < 0.9 * detail(pixels)
    assert 0 < np.abs(made["JPEG of quality 30"].astype(int) - pixels).mean() < 30
    assert made["JPEG of quality 30"].mean(axis=(0, 1, 2)) == pytest.approx(pixels.mean(axis=(0, 1, 2)), abs=3)


def test_a_turned_picture_of_another_shape_is_brought_to_the_old_one() -> None:
    pixels = np.zeros((1, 20, 60, 3), np.uint8)
    pixels[:, :10] = 200  # bright above: to the right after a quarter turn
    turned = dict(forms(pixels, 0))["turned by 90 degrees"]
    assert (turned[:, :, :29] == 0).all()
    assert (turned[:, :, 31:] == 200).all()


def test_a_model_of_colours_stands_everything_but_the_loss_of_colours() -> None:
    rows, _ = robustness(Colours(), NOTHING, coloured(TARGETS.tolist()), TARGETS)
    shares = {row["what"]: row["accuracy"]["value"] for row in rows}
    assert shares.pop("grey") == pytest.approx(1 / 3)
    assert set(shares.values()) == {1.0}


def test_wrong_answers_that_become_unsure_are_told_from_those_that_are_sorted() -> None:
    rows = {row["what"]: row for row in robustness(Colours(), NOTHING, coloured(TARGETS.tolist()), TARGETS)[0]}
    grey, clean = rows["grey"], rows["as it is"]
    assert grey["unsure_share"] == 1.0
    assert (grey["sorted"]["right"], grey["sorted"]["n"]) == (0, 0)
    assert grey["mean_confidence"] == pytest.approx(1 / 3)
    assert clean["unsure_share"] == 0.0
    assert clean["sorted"]["right"] == clean["sorted"]["n"] == 12


def test_the_unchanged_pictures_come_first_and_one_is_shown_in_every_form() -> None:
    classifier = Colours()
    targets = (TARGETS + 1) % 3  # grey ones are taken for red, and none of those is the one to be shown
    rows, examples = robustness(classifier, NOTHING, coloured(targets.tolist()), targets)
    assert rows[0]["what"] == "as it is"
    assert [example.note for example in examples] == [row["what"] for row in rows]
    assert len({example.label for example in examples}) == 1
    assert examples[0].is_right
    assert classifier.asked == 9 * len(TARGETS)


def test_the_picture_shown_is_one_that_the_model_knows_where_there_is_one() -> None:
    wrong = np.array([1, 1, 2], np.int32)
    _, examples = robustness(Colours(), NOTHING, coloured([0, 0, 2]), wrong)
    assert examples[0].label == "blue"
    _, examples = robustness(Colours(), NOTHING, coloured([0, 0]), wrong[:2])
    assert examples[0].is_right is False


def test_the_same_seed_gives_the_same_numbers() -> None:
    pixels = photos(6, 24, 24)
    one, again = (robustness(Colours(), NOTHING, pixels, TARGETS[:6], seed=5)[0] for _ in range(2))
    assert one == again
