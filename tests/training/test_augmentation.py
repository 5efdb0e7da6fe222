from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from pigeonholed_training.fitting.augmentation import Augmentation

MOVING = {"rotate_deg": 20, "shift": 0.1, "zoom": 0.2, "crop": 0.3, "stretch": 0.2, "shear_deg": 10, "flip": True}
STRONG = Augmentation(**MOVING, brightness=0.2, contrast=0.2, saturation=0.5, cutout=0.25)
PLAIN = np.zeros(500, bool)


def gradient(count: int = 64) -> np.ndarray:
    across = np.linspace(0, 255, 16).astype(np.uint8)
    return np.tile(across[None, None, :, None], (count, 16, 1, 3))


def noise(count: int, height: int = 12, width: int = 16) -> np.ndarray:
    return np.random.default_rng(9).integers(0, 256, (count, height, width, 3), np.uint8)


def test_the_same_state_gives_the_same_pictures() -> None:
    first, again = (STRONG.apply(gradient(), np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(first, again)
    assert first.dtype == np.uint8
    assert not np.array_equal(first, STRONG.apply(gradient(), np.random.default_rng(4)))


@pytest.mark.parametrize("augmentation", [STRONG, Augmentation(shift=0.2, flip=True), Augmentation(cutout=0.5)])
def test_the_originals_are_left_alone(augmentation: Augmentation) -> None:
    given = gradient()
    augmentation.apply(given, np.random.default_rng(0))
    assert np.array_equal(given, gradient())


def test_nothing_asked_changes_nothing() -> None:
    assert np.array_equal(Augmentation().apply(gradient(), np.random.default_rng(0)), gradient())


def test_a_flip_is_exact_and_hits_about_half() -> None:
    warped = Augmentation(flip=True).apply(gradient(200), np.random.default_rng(0))
    mirrored = [np.array_equal(one, gradient(1)[0][:, ::-1]) for one in warped]
    assert 70 <= sum(mirrored) <= 130
    assert all(was or np.array_equal(one, gradient(1)[0]) for was, one in zip(mirrored, warped, strict=True))


@pytest.mark.parametrize("bent", [0.0, 1e-9])
def test_whoever_calls_may_say_which_ones_are_mirrored(bent: float) -> None:
    given, mirrored = noise(6), np.array([True, False, False, True, True, False])
    done = Augmentation(flip=True, zoom=bent).apply(given, np.random.default_rng(0), mirrored)
    assert np.array_equal(done, np.where(mirrored[:, None, None, None], given[:, :, ::-1], given))


def test_a_rotation_turns_about_the_centre_and_keeps_within_its_limit() -> None:
    matrices = Augmentation(rotate_deg=10).matrices(PLAIN, 20, 30, np.random.default_rng(0))
    centre = np.array([14.5, 9.5, 1.0])
    assert np.allclose(matrices @ centre, centre[:2])
    angles = np.degrees(np.arctan2(matrices[:, 1, 0], matrices[:, 0, 0]))
    assert 9 < np.abs(angles).max() <= 10


def test_a_shift_is_a_fraction_of_each_side() -> None:
    matrices = Augmentation(shift=0.1).matrices(PLAIN, 20, 40, np.random.default_rng(0))
    assert np.allclose(matrices[:, :, :2], np.eye(2))
    assert 3.5 < np.abs(matrices[:, 0, 2]).max() <= 4.0
    assert 1.7 < np.abs(matrices[:, 1, 2]).max() <= 2.0


def test_a_shift_alone_is_by_whole_pixels_and_each_is_as_likely() -> None:
    given = gradient(1)
    shifted = Augmentation(shift=0.125).apply(np.repeat(given, 500, axis=0), np.random.default_rng(0))
    columns = given[0, 0, :, 0]
    wanted = {by: np.pad(columns, 2, mode="edge")[2 - by : 18 - by] for by in range(-2, 3)}
    counts = {by: sum(np.array_equal(one[0, :, 0], row) for one in shifted) for by, row in wanted.items()}
    assert sum(counts.values()) == 500
    assert min(counts.values()) > 70


@pytest.mark.parametrize(("border", "mode"), [("repeat", "edge"), ("reflect", "reflect")])
def test_beyond_the_rim_lies_what_was_asked_for(border: str, mode: str) -> None:
    given = np.repeat(noise(1), 40, axis=0)
    augmentation = Augmentation(shift=0.25, border=border)
    slides = augmentation._slides(40, 12, 16, np.random.default_rng(0))
    rim = np.pad(given[0], ((3, 3), (4, 4), (0, 0)), mode=mode)
    wanted = [rim[3 - down : 15 - down, 4 - right : 20 - right] for down, right in slides]
    assert np.array_equal(augmentation._slid(given, PLAIN[:40], slides), wanted)
    matrices = np.array([[[1.0, 0.0, right], [0.0, 1.0, down]] for down, right in slides])
    assert np.array_equal(augmentation._warped(given, matrices), wanted)


def test_a_crop_shows_a_window_of_the_picture_and_nothing_beyond_its_rim() -> None:
    matrices = Augmentation(crop=0.5).matrices(PLAIN, 20, 40, np.random.default_rng(0))
    assert np.all(matrices[:, 0, 0] >= 1.0)
    assert 1.9 < matrices[:, 0, 0].max() <= 2.0
    backwards = np.linalg.inv(np.concatenate([matrices, np.tile([[[0, 0, 1]]], (500, 1, 1))], axis=1))
    corners = backwards @ np.array([[-0.5, 39.5], [-0.5, 19.5], [1.0, 1.0]])
    assert corners[:, :2].min() >= -0.5 - 1e-9
    assert np.all(corners[:, :2].max(axis=2) <= np.array([39.5, 19.5]) + 1e-9)


def test_a_stretch_changes_the_ratio_of_the_sides_within_its_limit() -> None:
    matrices = Augmentation(stretch=0.25).matrices(PLAIN, 20, 20, np.random.default_rng(0))
    ratios = matrices[:, 0, 0] / matrices[:, 1, 1]
    assert 0.8 <= ratios.min() < 0.82
    assert 1.22 < ratios.max() <= 1.25


def test_moving_pixels_leaves_a_picture_of_one_colour_as_it_is() -> None:
    one_colour = np.full((32, 9, 7, 3), (10, 200, 90), np.uint8)
    assert np.array_equal(Augmentation(**MOVING).apply(one_colour, np.random.default_rng(0)), one_colour)


def test_brightness_and_contrast_keep_within_their_limits() -> None:
    grey = np.full((500, 2, 2, 3), 100, np.uint8)
    lighter = Augmentation(brightness=0.1).apply(grey, np.random.default_rng(0))[:, 0, 0, 0].astype(int)
    assert (lighter.min(), lighter.max()) == (100 - 25, 100 + 25)
    harder = Augmentation(contrast=0.4).apply(grey, np.random.default_rng(0))[:, 0, 0, 0].astype(int)
    assert (harder.min(), harder.max()) == (89, 111)  # 27.5 below mid-grey, 40 % of it either way


def test_saturation_leaves_grey_alone_and_takes_colour_away() -> None:
    grey, red = np.full((200, 1, 1, 3), 77, np.uint8), np.full((200, 1, 1, 3), (200, 50, 50), np.uint8)
    colourless = Augmentation(saturation=1.0)
    assert np.array_equal(colourless.apply(grey, np.random.default_rng(0)), grey)
    spread = np.ptp(colourless.apply(red, np.random.default_rng(0)).astype(int), axis=3)
    assert spread.min() <= 5
    assert spread.max() > 150


def test_a_cut_out_is_one_grey_square_inside_the_picture() -> None:
    cut = Augmentation(cutout=0.5).apply(np.zeros((100, 8, 12, 3), np.uint8), np.random.default_rng(0)) > 0
    assert np.all(cut.all(axis=3).sum(axis=(1, 2)) == 16)
    assert np.all(cut.any(axis=(1, 3)).sum(axis=1) == 4)
    assert cut[:, 0].any()
    assert cut[:, -1, -1].any()


def test_amounts_that_make_no_sense_are_refused() -> None:
    for wrong in ({"zoom": 1.0}, {"shift": -0.1}, {"rotate_deg": 200}, {"border": "black"}, {"spin": 1}):
        with pytest.raises(ValidationError):
            Augmentation(**wrong)
