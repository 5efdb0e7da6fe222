from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from pigeonholed import imaging
from pigeonholed.imaging import PixelSpec
from pigeonholed_training.data import likeness
from pigeonholed_training.data.dataset import Dataset, load
from pigeonholed_training.data.splitting import Part, Shares
from pigeonholed_training.errors import Misconfigured, WrongUsage
from tiny_pictures import make_data_set, write_picture

SPEC = PixelSpec(8, 8)


@pytest.fixture(autouse=True)
def only_equal_bytes_are_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is nearly the same is the matter of `likeness`; 12x12 pixels of noise are nobody's pictures."""

    def groups(digests: list[str], _thumbnails: object) -> np.ndarray:
        assert digests
        return np.unique(np.array(digests, str), return_inverse=True)[1].astype(np.int32)

    monkeypatch.setattr(likeness, "groups", groups)


def _load(data: Path, **options) -> Dataset:
    return load(data, SPEC, cache=data.parent / "cache", **({"shares": Shares()} | options))


def _data_set_in_parts(root: Path, **counts: int) -> Path:
    """`train=5, test=2`: that many different pictures of each class in each part."""
    make_data_set(root / "all", sum(counts.values()))
    for part, count in counts.items():
        for label in ("blue", "green", "red"):
            (root / "data" / part / label).mkdir(parents=True)
            for path in sorted((root / "all" / label).iterdir())[:count]:
                path.rename(root / "data" / part / label / path.name)
    return root / "data"


def test_folders_become_classes_and_pictures_become_pixels(tmp_path: Path) -> None:
    loaded = _load(make_data_set(tmp_path / "data", 5))
    assert loaded.labels == ("blue", "green", "red")
    pixels = loaded.read(range(15))
    assert (pixels.shape, pixels.dtype) == ((15, 8, 8, 3), np.uint8)
    assert loaded.targets.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert pixels[:5, :, :, 2].mean() > 150, "the blue ones are blue in RGB"
    assert loaded.given.tolist() == [Part.NONE] * 15
    assert [loaded.targets.dtype, loaded.groups.dtype, loaded.given.dtype] == [np.int32, np.int32, np.int8]


def test_bad_pictures_are_named_and_passed_over(tmp_path: Path) -> None:
    data = make_data_set(tmp_path / "data", 5)
    (data / "blue/000.png").write_bytes(b"no picture at all")
    (data / "green/000.png").write_bytes((data / "green/001.png").read_bytes()[:60])
    (data / "red/notes.txt").write_bytes(b"")
    (data / "red/gone.png").symlink_to("nowhere")
    (data / "red/etc").symlink_to("/etc")
    loaded = _load(data)
    assert {bad.path: bad.reason for bad in loaded.bad} == {
        "blue/000.png": "unsupported",
        "green/000.png": "truncated",
        "red/notes.txt": "empty",
        "red/gone.png": "io-error",
        "red/etc": "io-error",
    }
    assert [picture.path for picture in loaded.pictures][:5] == [
        *(f"blue/00{n}.png" for n in range(1, 5)),
        "green/001.png",
    ]
    assert len(loaded.rows) == len(loaded.targets) == len(loaded.groups) == len(loaded.given) == 13


def test_pixels_stay_with_their_picture_when_others_fall_out(tmp_path: Path) -> None:
    data = make_data_set(tmp_path / "data", 5)
    whole = _load(data)
    (data / "blue/002.png").write_bytes(b"?")
    shutil.copy(data / "green/004.png", data / "green/000.png")
    less = _load(data)
    where = [index for index, one in enumerate(whole.pictures) if one.path not in {"blue/002.png", "green/000.png"}]
    assert np.array_equal(np.sort(less.read(range(13)), axis=None), np.sort(whole.read(where), axis=None))
    for index, picture in enumerate(less.pictures):
        assert np.array_equal(less.read([index])[0], imaging.decode((data / picture.path).read_bytes(), SPEC).pixels)


def test_chunks_are_what_read_gives_a_few_at_a_time(tmp_path: Path) -> None:
    loaded = _load(make_data_set(tmp_path / "data", 4))
    wanted = [3, 1, 11, 1, 0, 7, 5]
    chunks = list(loaded.chunks(wanted, 3))
    assert [len(chunk) for chunk in chunks] == [3, 3, 1]
    assert np.array_equal(np.concatenate(chunks), loaded.read(wanted))
    assert list(loaded.chunks([], 3)) == []


def test_sub_folders_count_and_hidden_entries_do_not(tmp_path: Path) -> None:
    data = make_data_set(tmp_path / "data", 5)
    (data / "red/deep/er").mkdir(parents=True)
    (data / "red/000.png").rename(data / "red/deep/er/x.png")
    (data / "red/001.png").rename(data / "red/.001.png")
    (data / ".cache").mkdir()
    loaded = _load(data)
    assert loaded.labels == ("blue", "green", "red")
    assert [picture.path for picture in loaded.pictures if picture.target == 2] == [
        *(f"red/00{n}.png" for n in range(2, 5)),
        "red/deep/er/x.png",
    ]


def test_a_copy_counts_once_and_a_contradiction_is_told(tmp_path: Path) -> None:
    data = make_data_set(tmp_path / "data", 5)
    shutil.copy(data / "red/000.png", data / "red/copy.png")
    shutil.copy(data / "red/001.png", data / "blue/other.png")
    loaded = _load(data)
    assert loaded.copies == ("red/copy.png",)
    assert loaded.contradictions == ("blue/other.png", "red/001.png")
    parts = loaded.parts(Shares(), 0)
    twins = [index for index, one in enumerate(loaded.pictures) if one.path in loaded.contradictions]
    assert parts[twins[0]] == parts[twins[1]]


def test_the_fingerprint_is_of_content_class_and_given_part_alone(tmp_path: Path) -> None:
    data = make_data_set(tmp_path / "data", 5)
    before = _load(data).fingerprint
    (data / "red/000.png").rename(data / "red/zzz.png")
    assert _load(data).fingerprint == before
    (tmp_path / "train").mkdir()
    data.rename(tmp_path / "train/train")
    assert _load(tmp_path / "train").fingerprint == before, "train alone gives no part"
    shutil.copytree(tmp_path / "train/train", tmp_path / "other")
    (tmp_path / "other/red/zzz.png").rename(tmp_path / "other/blue/zzz.png")
    assert _load(tmp_path / "other").fingerprint != before
    make_data_set(tmp_path / "train/test", 1)
    given = _load(tmp_path / "train").fingerprint
    (tmp_path / "train/test").rename(tmp_path / "train/val")
    assert _load(tmp_path / "train").fingerprint not in {before, given}


def test_given_parts_are_kept_and_the_missing_are_cut_from_train(tmp_path: Path) -> None:
    loaded = _load(_data_set_in_parts(tmp_path, train=6, test=2))
    parts = loaded.parts(Shares(), 0)
    held = [index for index, picture in enumerate(loaded.pictures) if picture.path.startswith("test/")]
    assert len(held) == 6
    assert set(parts[held].tolist()) == {Part.TEST}
    for target in range(3):
        others = parts[(loaded.targets == target) & (loaded.given == Part.TRAIN)]
        assert set(others.tolist()) == {Part.TRAIN, Part.VALIDATION, Part.CALIBRATION}


def test_of_a_copy_in_train_and_in_a_held_back_part_the_one_held_back_stays(tmp_path: Path) -> None:
    data = _data_set_in_parts(tmp_path, train=6, test=2, val=2)
    shutil.copy(data / "test/red/007.png", data / "train/red/copy.png")
    shutil.copy(data / "val/red/009.png", data / "train/red/copy2.png")
    shutil.copy(data / "test/blue/007.png", data / "val/blue/copy3.png")
    loaded = _load(data)
    assert sorted(loaded.copies) == ["train/red/copy.png", "train/red/copy2.png", "val/blue/copy3.png"]


def test_a_list_is_a_data_set_like_any_other(tmp_path: Path) -> None:
    data = make_data_set(tmp_path / "data", 4)
    lines = [f"{path},{path.parent.name}" for path in sorted(data.rglob("*.png"))]
    (tmp_path / "list.csv").write_text("path,label\n" + "\n".join([*lines, "gone.png,red"]), "utf-8")
    loaded = _load(tmp_path / "list.csv")
    assert [(bad.path, bad.reason, bad.detail) for bad in loaded.bad] == [
        ("gone.png", "io-error", "No such file or directory")
    ]
    assert loaded.fingerprint == _load(data).fingerprint
    assert np.array_equal(loaded.read(range(12)), _load(data).read(range(12)))


def test_an_unchanged_data_set_is_not_decoded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_data_set(tmp_path / "data", 4)
    (data / "red/cut.png").write_bytes((data / "red/000.png").read_bytes()[:60])
    first = _load(data)
    monkeypatch.setattr(imaging, "decode", None)
    told: list[tuple[int, int]] = []
    again = _load(data, on_picture=lambda done, total: told.append((done, total)))
    assert again.pictures == first.pictures
    assert again.bad == first.bad
    assert told == [(13, 13)]


def _nothing(data: Path) -> None:
    shutil.rmtree(data)


def _one_class(data: Path) -> None:
    for label in ("green", "red"):
        shutil.rmtree(data / label)


def _all_broken(data: Path) -> None:
    for path in data.rglob("*.png"):
        path.write_bytes(b"x")


def _empty(data: Path) -> None:
    for path in data.rglob("*.png"):
        path.unlink()


def _one_empty(data: Path) -> None:
    for path in (data / "red").iterdir():
        path.unlink()


def _too_few(data: Path) -> None:
    (data / "green/002.png").unlink()
    shutil.copy(data / "green/000.png", data / "green/002.png")


@pytest.mark.parametrize(
    ("spoil", "kind", "said"),
    [
        (_nothing, WrongUsage, "No such file or directory"),
        (_one_class, Misconfigured, "only one, 'blue'"),
        (_all_broken, Misconfigured, "no picture that can be read; 9 could not be used, first 'blue/000.png'"),
        (_empty, Misconfigured, "no picture that can be read."),
        (_one_empty, Misconfigured, "class 'red' has 0 different"),
        (_too_few, Misconfigured, "class 'green' has 2 different usable picture(s) and needs at least 3, one for each"),
        (lambda data: (data / "red").rename(data / "_unsure"), Misconfigured, "'_unsure' begins"),
        (lambda data: (data / "red").rename(data / "Blue"), Misconfigured, "same folder"),
    ],
)
def test_an_unusable_data_set_is_one_clear_sentence(tmp_path: Path, spoil, kind, said: str) -> None:
    data = make_data_set(tmp_path / "data", 3)
    spoil(data)
    with pytest.raises(kind) as caught:
        _load(data)
    assert said in str(caught.value)
    assert str(data) in str(caught.value)


def test_what_is_nearly_the_same_does_not_count_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(likeness, "groups", lambda digests, _: np.array([0, 1, 1, 2, 3, 4, 5, 6, 7], np.int32))
    with pytest.raises(
        Misconfigured, match=r"'blue' has 3 different usable picture.s., 2 of them unlike each other, a"
    ):
        _load(make_data_set(tmp_path / "data", 3))


def test_what_is_given_need_not_be_cut_from_train(tmp_path: Path) -> None:
    data = _data_set_in_parts(tmp_path, train=2, val=1)
    assert len(_load(data).pictures) == 9
    (data / "train/red/001.png").unlink()
    with pytest.raises(Misconfigured, match=r"'red' has 1 different .* held back and needs at least 2"):
        _load(data)
    write_picture(data / "train/red/001.png", "red", 50)
    shutil.rmtree(data / "val")
    with pytest.raises(Misconfigured, match=r"'blue' has 2 different usable .* needs at least 3"):
        _load(data)


def test_a_file_instead_of_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"")
    with pytest.raises(WrongUsage, match="it is a file"):
        _load(tmp_path / "x.zip")
