from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from pigeonholed_training.data.likeness import groups, joined, pairs
from tiny_photos import photo

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    Image = npt.NDArray[np.uint8]


def thumbnail(picture: Image) -> Image:
    return np.asarray(cv2.resize(picture, (16, 16), interpolation=cv2.INTER_AREA), np.uint8).ravel()


def thumbnails(count: int, start: int = 0) -> Image:
    return np.array([thumbnail(photo(start + number)) for number in range(count)])


def found(pictures: list[Image]) -> set[tuple[int, int]]:
    near = pairs(np.array([thumbnail(picture) for picture in pictures]))
    return set(zip(near.first.tolist(), near.second.tolist(), strict=True))


def saved_again(picture: Image) -> Image:
    done, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 20])
    assert done
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.uint8)


def watermarked(picture: Image) -> Image:
    return np.asarray(cv2.putText(picture.copy(), "(c)", (4, 92), cv2.FONT_HERSHEY_PLAIN, 0.8, 255), np.uint8)


@pytest.mark.parametrize(
    "change",
    [
        saved_again,
        lambda picture: cv2.resize(picture, (31, 47), interpolation=cv2.INTER_AREA),
        lambda picture: cv2.resize(picture, (400, 300), interpolation=cv2.INTER_LINEAR),
        lambda picture: np.ascontiguousarray(picture[:, ::-1]),
        lambda picture: picture[5:-5, 5:-5],
        lambda picture: cv2.convertScaleAbs(picture, alpha=0.6, beta=70),
        lambda picture: cv2.GaussianBlur(picture, (0, 0), 1.5),
        watermarked,
    ],
    ids=["saved again", "smaller", "larger", "mirrored", "cropped", "paler", "blurred", "watermarked"],
)
def test_what_was_edited_a_little_is_found(change: Callable[[Image], Image]) -> None:
    originals = [photo(number) for number in range(40)]
    near = found(originals + [change(picture) for picture in originals])
    assert near <= {(number, 40 + number) for number in range(40)}
    assert len(near) >= 38


def test_different_pictures_are_not_alike() -> None:
    assert not len(pairs(thumbnails(1000)).first)


def test_pictures_without_contours_are_like_nothing() -> None:
    plain = [np.full((96, 96), level, np.uint8) for level in (0, 0, 3, 128, 255, 255)]
    rng = np.random.default_rng(0)
    dark = [rng.integers(0, 6, (96, 96)).astype(np.uint8) for _ in range(20)]
    assert not found(plain + dark)


def framed(number: int) -> Image:
    inner = np.asarray(cv2.copyMakeBorder(photo(number) // 3 + 90, 9, 9, 9, 9, 0, value=[255]), np.uint8)
    return np.asarray(cv2.copyMakeBorder(inner, 2, 2, 2, 2, 0, value=[0]), np.uint8)


@pytest.mark.parametrize("others", [0, 40])
def test_the_same_frame_around_different_pictures_does_not_make_them_alike(others: int) -> None:
    pictures = [photo(100 + number) for number in range(others)]
    assert not found(pictures + [framed(number) for number in range(30)])


def test_bare_walls_are_not_alike() -> None:
    walls = [np.repeat(np.linspace(100 + level, 118 + level, 96), 96).reshape(96, 96) for level in range(4)]
    assert not found([photo(number) for number in range(20)] + [wall.astype(np.uint8) for wall in walls])


def test_what_passes_before_a_fixed_camera_is_not_one_picture() -> None:
    scene, rng = photo(0), np.random.default_rng(0)
    taken = []
    for _ in range(200):
        picture = scene.copy()
        x, y = rng.integers(0, 70, 2)
        picture[y : y + 20, x : x + 20] = rng.integers(0, 255)
        taken.append(picture)
    numbers = groups([str(number) for number in range(200)], np.array([thumbnail(picture) for picture in taken]))
    assert np.bincount(numbers).max() <= 25


def test_a_crowd_among_others_is_not_one_picture_but_copies_in_it_are() -> None:
    scene, rng = photo(0), np.random.default_rng(0)
    taken = []
    for _ in range(60):
        picture = scene.copy()
        x, y = rng.integers(0, 80, 2)
        picture[y : y + 12, x : x + 12] = rng.integers(0, 255)
        taken.append(picture)
    pictures = [photo(100 + number) for number in range(140)] + taken + [saved_again(taken[0])]
    numbers = groups([str(number) for number in range(201)], np.array([thumbnail(one) for one in pictures]))
    assert 1 < np.bincount(numbers).max() <= 25
    assert numbers[140] == numbers[200]


def test_equal_bytes_are_a_group_whatever_they_show() -> None:
    plain = np.zeros((4, 256), np.uint8)
    assert groups(["a", "b", "a", "c"], plain).tolist() == [0, 1, 0, 3]


def test_a_group_is_called_by_its_first_member() -> None:
    one, other = photo(1), photo(2)
    pictures = np.array([thumbnail(picture) for picture in (one, other, saved_again(one), one, saved_again(other))])
    assert groups(["a", "b", "c", "a", "d"], pictures).tolist() == [0, 1, 0, 0, 1]


def test_groups_do_not_depend_on_the_order() -> None:
    pictures = np.concatenate([thumbnails(30), thumbnails(30)[::-1] // 2 + 60])
    names = [str(number) for number in range(60)]
    order = np.random.default_rng(1).permutation(60)
    straight, mixed = groups(names, pictures), groups([names[place] for place in order], pictures[order])
    together = straight[:, None] == straight
    assert np.array_equal(together[np.ix_(order, order)], mixed[:, None] == mixed)
    assert together.sum() == 120


def test_the_distance_grows_with_the_difference() -> None:
    picture = photo(3)
    near = pairs(np.array([thumbnail(one) for one in (picture, picture, picture[4:-4, 4:-4])]))
    distances = dict(zip(zip(near.first.tolist(), near.second.tolist(), strict=True), near.distance, strict=True))
    assert distances[0, 1] == pytest.approx(0, abs=1e-6)
    assert 0.001 < distances[0, 2] <= 0.15


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_pictures_are_no_special_case(count: int) -> None:
    numbers = groups([str(number) for number in range(count)], thumbnails(count))
    assert numbers.tolist() == list(range(count))
    assert numbers.dtype == np.int32


def test_many_equal_pictures_take_neither_time_nor_memory() -> None:
    same = np.repeat(thumbnails(1), 5_000, axis=0)
    started = time.process_time()
    numbers = groups([hashlib.sha256(b"%d" % number).hexdigest() for number in range(5_000)], same)
    assert len(numbers) == 5_000
    assert time.process_time() - started < 20


def test_joined_follows_chains() -> None:
    assert joined(6, np.array([4, 1, 2]), np.array([2, 0, 5])).tolist() == [0, 0, 2, 3, 2, 2]
