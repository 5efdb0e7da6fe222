from __future__ import annotations

import numpy as np

from pigeonholed_training.augmentation import Augmentation

STRONG = Augmentation(rotate_deg=20, shift=0.1, zoom=0.2, shear_deg=10, flip=True)


def gradient(count: int = 64) -> np.ndarray:
    across = np.linspace(0, 255, 16).astype(np.uint8)
    return np.tile(across[None, None, :, None], (count, 16, 1, 3))


def test_the_same_state_gives_the_same_pictures() -> None:
    first, again = (STRONG.apply(gradient(), np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(first, again)
    assert first.dtype == np.uint8
    assert not np.array_equal(first, STRONG.apply(gradient(), np.random.default_rng(4)))


def test_the_originals_are_left_alone() -> None:
    given = gradient()
    STRONG.apply(given, np.random.default_rng(0))
    assert np.array_equal(given, gradient())


def test_nothing_asked_changes_nothing() -> None:
    assert np.array_equal(Augmentation().apply(gradient(), np.random.default_rng(0)), gradient())


def test_a_flip_is_exact_and_hits_about_half() -> None:
    warped = Augmentation(flip=True).apply(gradient(200), np.random.default_rng(0))
    mirrored = [np.array_equal(one, gradient(1)[0][:, ::-1]) for one in warped]
    assert 70 <= sum(mirrored) <= 130
    assert all(was or np.array_equal(one, gradient(1)[0]) for was, one in zip(mirrored, warped, strict=True))


def test_a_rotation_turns_about_the_centre_and_keeps_within_its_limit() -> None:
    matrices = Augmentation(rotate_deg=10).matrices(500, 20, 30, np.random.default_rng(0))
    centre = np.array([14.5, 9.5, 1.0])
    assert np.allclose(matrices @ centre, centre[:2])
    angles = np.degrees(np.arctan2(matrices[:, 1, 0], matrices[:, 0, 0]))
    assert 9 < np.abs(angles).max() <= 10


def test_a_shift_is_a_fraction_of_each_side() -> None:
    matrices = Augmentation(shift=0.1).matrices(500, 20, 40, np.random.default_rng(0))
    assert np.allclose(matrices[:, :, :2], np.eye(2))
    assert 3.5 < np.abs(matrices[:, 0, 2]).max() <= 4.0
    assert 1.7 < np.abs(matrices[:, 1, 2]).max() <= 2.0
