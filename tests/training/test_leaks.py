from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from pigeonholed_training.data.decoding import thumbnail_of
from pigeonholed_training.evaluation.leaks import Seen, leaks
from tiny_photos import photo

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

    Image = npt.NDArray[np.uint8]


def saved_again(picture: Image) -> Image:
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 20])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.uint8)


def seen(pictures: Iterable[Image], prefix: str, *, thumbnails: bool = True) -> Seen:
    """Pictures that are called by their place."""
    grey = list(pictures)
    small = [thumbnail_of(np.repeat(picture[..., None], 3, axis=2)) for picture in grey]
    return Seen(
        [f"{prefix}{number}" for number in range(len(grey))],
        [f"{hash(picture.tobytes()):x}" for picture in grey],
        np.array(small, np.uint8).reshape(-1, 256) if thumbnails else None,
    )


LEARNT = range(40)


def test_pictures_that_were_learnt_are_counted_and_shown_beside_their_like() -> None:
    judged = [photo(100), photo(7), saved_again(photo(9)), photo(101), np.ascontiguousarray(photo(11)[:, ::-1])]
    found = leaks(seen(judged, "test/"), seen(map(photo, LEARNT), "train/"))
    assert found == {
        "checked": 5,
        "seen": 1,
        "alike": 2,
        "examples": [["test/1", "train/7"], ["test/2", "train/9"], ["test/4", "train/11"]],
    }


def test_different_pictures_are_no_leak() -> None:
    found = leaks(seen(map(photo, range(100, 140)), "test/"), seen(map(photo, LEARNT), "train/"))
    assert found == {"checked": 40, "seen": 0, "alike": 0, "examples": []}


def test_likeness_on_one_side_only_is_no_leak() -> None:
    judged = [photo(100), saved_again(photo(100))]
    learnt = [*map(photo, LEARNT), saved_again(photo(3))]
    assert leaks(seen(judged, "test/"), seen(learnt, "train/"))["alike"] == 0


def test_a_test_part_that_is_all_learnt_is_all_seen() -> None:
    every = seen(map(photo, LEARNT), "p/")
    found = leaks(every, every)
    assert (found["checked"], found["seen"], found["alike"]) == (40, 40, 0)
    assert found["examples"] == [[f"p/{number}"] * 2 for number in range(10)]


def test_a_test_part_that_was_all_saved_again_is_all_alike() -> None:
    judged = seen((saved_again(photo(number)) for number in LEARNT), "test/")
    assert leaks(judged, seen(map(photo, LEARNT), "train/"))["alike"] == 40


def test_a_copy_in_the_learnt_pictures_hides_nothing() -> None:
    learnt = seen([*map(photo, LEARNT), *[photo(5)] * 30], "train/")
    found = leaks(seen([saved_again(photo(5)), photo(5)], "test/"), learnt)
    assert found["examples"] == [["test/1", "train/5"], ["test/0", "train/5"]]


def test_without_thumbnails_only_the_same_bytes_are_found() -> None:
    judged = seen([photo(7), saved_again(photo(9))], "test/")
    found = leaks(judged, seen(map(photo, LEARNT), "train/", thumbnails=False))
    assert found == {"checked": 2, "seen": 1, "alike": None, "examples": [["test/0", "train/7"]]}


def test_of_several_that_are_alike_the_closest_is_shown() -> None:
    learnt = [*map(photo, LEARNT), np.asarray(cv2.GaussianBlur(photo(60), (0, 0), 2), np.uint8), photo(60)]
    found = leaks(seen([saved_again(photo(60))], "test/"), seen(learnt, "train/"))
    assert found["examples"] == [["test/0", "train/41"]]


def test_no_pictures_leak_nothing() -> None:
    nothing = seen([], "p/")
    assert leaks(nothing, nothing) == {"checked": 0, "seen": 0, "alike": 0, "examples": []}
