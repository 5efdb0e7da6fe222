from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from pigeonholed.imaging import PixelSpec
from pigeonholed_training.dataset import load
from pigeonholed_training.errors import Misconfigured, WrongUsage
from pigeonholed_training.splitting import Shares
from tiny_pictures import make_data_set

SPEC = PixelSpec(8, 8)


def test_folders_become_classes_and_pictures_become_pixels(tmp_path: Path) -> None:
    loaded = load(make_data_set(tmp_path / "data", 5), SPEC, needed=3)
    assert loaded.labels == ("blue", "green", "red")
    assert loaded.pixels.shape == (15, 8, 8, 3)
    assert loaded.targets.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert loaded.pixels[:5, :, :, 2].mean() > 150, "the blue ones are blue in RGB"


def test_bad_pictures_are_named_and_passed_over(tmp_path: Path) -> None:
    data = make_data_set(tmp_path / "data", 5)
    (data / "blue/000.png").write_bytes(b"no picture at all")
    (data / "green/000.png").write_bytes((data / "green/001.png").read_bytes()[:60])
    (data / "red/notes.txt").write_bytes(b"")
    loaded = load(data, SPEC, needed=3)
    assert {bad.path: bad.reason for bad in loaded.bad} == {
        "blue/000.png": "unsupported",
        "green/000.png": "truncated",
        "red/notes.txt": "empty",
    }
    assert [picture.path for picture in loaded.pictures][:5] == [
        *(f"blue/00{n}.png" for n in range(1, 5)),
        "green/001.png",
    ]
    assert len(loaded.pixels) == len(loaded.targets) == 13


def test_pixels_stay_with_their_picture_when_others_fall_out(tmp_path: Path) -> None:
    data = make_data_set(tmp_path / "data", 5)
    whole = load(data, SPEC, needed=3)
    (data / "blue/002.png").write_bytes(b"?")
    less = load(data, SPEC, needed=3)
    where = [index for index, picture in enumerate(whole.pictures) if picture.path != "blue/002.png"]
    assert np.array_equal(less.pixels, whole.pixels[where])


def test_sub_folders_count_and_hidden_entries_do_not(tmp_path: Path) -> None:
    data = make_data_set(tmp_path / "data", 4)
    (data / "red/deep/er").mkdir(parents=True)
    (data / "red/000.png").rename(data / "red/deep/er/x.png")
    (data / "red/001.png").rename(data / "red/.001.png")
    (data / ".cache").mkdir()
    loaded = load(data, SPEC, needed=3)
    assert loaded.labels == ("blue", "green", "red")
    assert [picture.path for picture in loaded.pictures if picture.target == 2] == [
        "red/002.png",
        "red/003.png",
        "red/deep/er/x.png",
    ]


def test_a_copy_counts_once_and_a_contradiction_is_told(tmp_path: Path) -> None:
    data = make_data_set(tmp_path / "data", 5)
    shutil.copy(data / "red/000.png", data / "red/copy.png")
    shutil.copy(data / "red/001.png", data / "blue/other.png")
    loaded = load(data, SPEC, needed=3)
    assert loaded.copies == ("red/copy.png",)
    assert loaded.contradictions == ("blue/other.png", "red/001.png")
    parts = loaded.parts(Shares(), 0)
    twins = [index for index, one in enumerate(loaded.pictures) if one.path in loaded.contradictions]
    assert parts[twins[0]] == parts[twins[1]]


def test_the_fingerprint_is_of_content_and_class_alone(tmp_path: Path) -> None:
    data = make_data_set(tmp_path / "data", 4)
    before = load(data, SPEC, needed=3).fingerprint
    (data / "red/000.png").rename(data / "red/zzz.png")
    assert load(data, SPEC, needed=3).fingerprint == before
    (data / "red/zzz.png").rename(data / "blue/zzz.png")
    assert load(data, SPEC, needed=3).fingerprint != before


def _nothing(data: Path) -> None:
    shutil.rmtree(data)


def _one_class(data: Path) -> None:
    for label in ("green", "red"):
        shutil.rmtree(data / label)


def _all_broken(data: Path) -> None:
    for path in data.rglob("*.png"):
        path.write_bytes(b"x")


def _too_few(data: Path) -> None:
    (data / "green/002.png").unlink()
    shutil.copy(data / "green/000.png", data / "green/002.png")


@pytest.mark.parametrize(
    ("spoil", "kind", "said"),
    [
        (_nothing, WrongUsage, "No such file or directory"),
        (_one_class, Misconfigured, "only one, 'blue'"),
        (_all_broken, Misconfigured, "no picture that can be read; 9 could not be used, first 'blue/000.png'"),
        (_too_few, Misconfigured, "class 'green' has 2 different"),
        (lambda data: (data / "red").rename(data / "_unsure"), Misconfigured, "'_unsure' begins"),
        (lambda data: (data / "red").rename(data / "Blue"), Misconfigured, "same folder"),
    ],
)
def test_an_unusable_data_set_is_one_clear_sentence(tmp_path: Path, spoil, kind, said: str) -> None:
    data = make_data_set(tmp_path / "data", 3)
    spoil(data)
    with pytest.raises(kind) as caught:
        load(data, SPEC, needed=3)
    assert said in str(caught.value)
    assert str(data) in str(caught.value)


def test_a_file_instead_of_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"")
    with pytest.raises(WrongUsage, match="it is a file"):
        load(tmp_path / "x.zip", SPEC, needed=3)
