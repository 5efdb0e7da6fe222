"""What `dataset check` finds, and how files are set aside and put back."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from pigeonholed.formats import Format
from pigeonholed_training.data import checking, setting_aside, sheet, telling
from pigeonholed_training.data.findings import Item, Kind, Report
from pigeonholed_training.data.sources import find
from pigeonholed_training.errors import Misconfigured, TrainingError, Unavailable, WrongUsage
from tiny_photos import photo, write_photo

REAL = Path(__file__).parents[2] / "../shared/data/people-dirty.tar"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Five good pictures of cats and five of dogs."""
    folder = tmp_path / "data"
    for number in range(5):
        write_photo(folder / "cat" / f"{number}.jpg", number)
        write_photo(folder / "dog" / f"{number}.png", 100 + number)
    return folder


def items(report: Report, kind: Kind) -> tuple[Item, ...]:
    return next((finding.items for finding in report.findings if finding.kind is kind), ())


def paths(report: Report, kind: Kind) -> set[str]:
    return {path for item in items(report, kind) for path in item.paths}


def kinds(report: Report) -> set[Kind]:
    return {finding.kind for finding in report.findings}


def test_a_good_data_set_has_nothing_but_few_pictures(data: Path) -> None:
    report = checking.check(data)
    assert kinds(report) == {Kind.SCARCE}
    assert report.is_trainable
    assert not report.aside
    assert len(report.files) == 10


def test_nothing_is_changed_by_looking(data: Path) -> None:
    before = {path: path.stat() for path in data.rglob("*")}
    checking.check(data)
    assert {path: path.stat().st_mtime_ns for path in data.rglob("*")} == {
        path: status.st_mtime_ns for path, status in before.items()
    }


def test_what_cannot_be_decoded_is_told_apart(data: Path) -> None:
    whole = (data / "cat/0.jpg").read_bytes()
    (data / "cat/text.jpg").write_text("no picture, whatever it is called")
    (data / "cat/empty.jpg").touch()
    (data / "cat/cut.jpg").write_bytes(whole[: len(whole) // 2])
    (data / "cat/notes.txt").write_text("no picture either")
    os.mkfifo(data / "cat/pipe.jpg")
    report = checking.check(data)
    assert paths(report, Kind.NO_PICTURE) == {"cat/text.jpg", "cat/notes.txt"}
    assert paths(report, Kind.EMPTY) == {"cat/empty.jpg"}
    assert paths(report, Kind.UNREADABLE) == {"cat/cut.jpg"}
    assert paths(report, Kind.MISSING) == {"cat/pipe.jpg"}
    assert set(report.aside) == {"cat/text.jpg", "cat/notes.txt", "cat/empty.jpg", "cat/cut.jpg"}


def test_a_link_that_leads_out_is_told_and_left(data: Path, tmp_path: Path) -> None:
    outside = write_photo(tmp_path / "outside.jpg", 50)
    (data / "cat/link.jpg").symlink_to(outside)
    report = checking.check(data)
    assert paths(report, Kind.MISSING) == {"cat/link.jpg"}
    assert not report.aside


@pytest.mark.parametrize(
    ("name", "kind", "suffix"),
    [("a.png", "webp", ".webp"), ("a.jpg", "png", ".png"), ("a.jpg.crdownload", "jpeg", ".jpg"), ("a", "png", ".png")],
)
def test_a_picture_of_another_kind_than_its_name_says_is_told_and_stays(
    data: Path, name: str, kind: str, suffix: str
) -> None:
    write_photo(data / f"x{suffix}", 60).rename(data / "cat" / name)
    report = checking.check(data)
    assert [(item.paths, item.detail) for item in items(report, Kind.MISNAMED)] == [
        ((f"cat/{name}",), f"it is {kind.upper()}")
    ]
    assert not report.aside
    assert {file.format for file in report.files if file.is_misnamed} == {Format(kind)}


def test_tiny_is_what_is_tiny_among_the_others(data: Path, tmp_path: Path) -> None:
    write_photo(data / "cat/dot.png", 70, side=4)
    write_photo(data / "cat/icon.png", 71, side=16)
    assert paths(checking.check(data), Kind.TINY) == {"cat/dot.png", "cat/icon.png"}
    for number in range(10):
        write_photo(tmp_path / f"digits/{number % 2}/{number}.png", number, side=16)
    assert not paths(checking.check(tmp_path / "digits"), Kind.TINY)


def test_of_copies_in_a_class_all_but_the_first_are_set_aside(data: Path) -> None:
    for name in ("b.jpg", "sub/a.jpg"):
        (data / "cat/sub").mkdir(exist_ok=True)
        shutil.copy(data / "cat/1.jpg", data / "cat" / name)
    report = checking.check(data)
    (item,) = items(report, Kind.COPIES)
    assert set(item.paths) == {"cat/1.jpg", "cat/b.jpg", "cat/sub/a.jpg"}
    assert item.paths[0] == "cat/1.jpg"
    assert set(item.aside) == {"cat/b.jpg", "cat/sub/a.jpg"}


def test_of_copies_the_one_that_is_held_back_stays(tmp_path: Path) -> None:
    for number in range(4):
        write_photo(tmp_path / f"train/{number % 2}/{number}.png", number)
    for target in "01":
        (tmp_path / "test" / target).mkdir(parents=True)
        shutil.copy(tmp_path / f"train/{target}/{target}.png", tmp_path / "test" / target / "z.png")
    report = checking.check(tmp_path)
    assert set(report.aside) == {"train/0/0.png", "train/1/1.png"}


def test_a_link_never_outlives_the_copy_that_it_leads_to(data: Path) -> None:
    (data / "cat/0-link.jpg").symlink_to("1.jpg")
    assert set(checking.check(data).aside) == {"cat/0-link.jpg"}


def test_the_same_file_in_two_classes_is_set_aside_in_both(data: Path) -> None:
    shutil.copy(data / "cat/1.jpg", data / "dog/stray.jpg")
    report = checking.check(data)
    (item,) = items(report, Kind.CONTRADICTION)
    assert set(item.aside) == {"cat/1.jpg", "dog/stray.jpg"}
    assert item.detail == "cat and dog"
    assert not paths(report, Kind.NEAR_CONTRADICTION)
    write_photo(data / "dog/stray-again.jpg", 1, quality=60)
    report = checking.check(data)
    assert not paths(report, Kind.NEAR_CONTRADICTION), "once the graver fault is mended this one is gone"


def test_the_same_picture_saved_anew_in_another_class_is_set_aside_in_both(data: Path) -> None:
    write_photo(data / "dog/stray.jpg", 1, quality=60)
    report = checking.check(data)
    (item,) = items(report, Kind.NEAR_CONTRADICTION)
    assert set(item.aside) == {"cat/1.jpg", "dog/stray.jpg"}


def test_pictures_that_differ_in_a_detail_are_told_but_stay(data: Path) -> None:
    """As a part before and after it cracked: the detail makes the class."""
    cracked = photo(1)
    cv2.line(cracked, (40, 40), (46, 50), 255 if cracked[40:50, 40:46].mean() < 128 else 0, 1)
    cv2.imwrite(str(data / "dog/cracked.png"), cracked)
    report = checking.check(data)
    assert paths(report, Kind.NEAR_CONTRADICTION) == {"cat/1.jpg", "dog/cracked.png"}
    assert not report.aside


def test_near_copies_in_a_class_are_told_and_stay(data: Path) -> None:
    cv2.imwrite(str(data / "cat/small.jpg"), cv2.resize(photo(2), (50, 60), interpolation=cv2.INTER_AREA))
    report = checking.check(data)
    assert [set(item.paths) for item in items(report, Kind.NEAR_COPIES)] == [{"cat/2.jpg", "cat/small.jpg"}]
    assert not report.aside
    assert next(one for one in report.classes if one.label == "cat").different == 5


def test_leaks_between_given_parts_are_told(tmp_path: Path) -> None:
    for number in range(8):
        write_photo(tmp_path / f"train/{number % 2}/{number}.png", number)
        write_photo(tmp_path / f"test/{number % 2}/{number}.png", 100 + number)
    assert not paths(checking.check(tmp_path), Kind.LEAK)
    write_photo(tmp_path / "test/0/again.jpg", 0)
    report = checking.check(tmp_path)
    (item,) = items(report, Kind.LEAK)
    assert set(item.paths) == {"train/0/0.png", "test/0/again.jpg"}
    assert item.detail == "train and test; nearly the same picture"
    assert {one.label: dict(one.parts) for one in report.classes} == {
        "0": {"train": 4, "test": 5},
        "1": {"train": 4, "test": 4},
    }


def test_a_class_with_too_few_different_pictures_is_no_training_set(data: Path) -> None:
    for number in range(3):
        write_photo(data / f"bird/{number}.jpg", 7, quality=50 + 10 * number)
    report = checking.check(data)
    assert not report.is_trainable
    assert [item.detail.split(":")[0] for item in items(report, Kind.FEW)] == ["bird"]
    assert report.findings[0].kind is Kind.FEW


def test_what_is_held_back_too_is_nothing_to_learn_from(tmp_path: Path) -> None:
    for number in range(8):
        write_photo(tmp_path / f"train/{number % 2}/{number}.png", number)
    for number in (0, 2, 1):
        write_photo(tmp_path / f"test/{number % 2}/{number}.jpg", number)
    report = checking.check(tmp_path)
    assert [item.detail.split(":")[:2] for item in items(report, Kind.FEW)] == [
        ["0", " 2 different usable picture(s) to learn from; 3 are the least"]
    ]


def test_classes_of_very_different_size_are_told(data: Path) -> None:
    for number in range(20):
        write_photo(data / f"cat/more{number}.jpg", 200 + number)
    (item,) = items(checking.check(data), Kind.IMBALANCE)
    assert item.detail == "cat has 25 different pictures, 5 times as many as dog"


def test_a_class_that_is_grey_is_told(tmp_path: Path) -> None:
    for number in range(4):
        write_photo(tmp_path / f"night/{number}.png", number, grey=True)
        write_photo(tmp_path / f"day/{number}.png", 50 + number)
    (item,) = items(checking.check(tmp_path), Kind.GREY)
    assert item.detail == "100% of night and 0% of day are grey"


def test_one_colour_all_over_is_told(data: Path) -> None:
    cv2.imwrite(str(data / "cat/plain.png"), np.full((50, 50, 3), 90, np.uint8))
    assert paths(checking.check(data), Kind.PLAIN) == {"cat/plain.png"}


def test_classes_are_counted_and_measured(data: Path) -> None:
    cv2.imwrite(str(data / "cat/wide.png"), cv2.resize(photo(9), (200, 60)))
    cat = checking.check(data).classes[0]
    assert (cat.label, cat.files, cat.usable, cat.widths, cat.heights) == ("cat", 6, 6, (96, 96, 200), (60, 96, 96))
    assert cat.formats == {"jpeg": 5, "png": 1}


def test_the_report_is_json_and_its_words_are_safe_for_a_terminal(data: Path) -> None:
    (data / "cat/\x1b[31mred\udcff.jpg").touch()
    report = checking.check(data)
    assert json.loads(json.dumps(report.as_dict()))["files"] == 11
    text = "\n".join(telling.tell(report))
    assert "\x1b" not in text
    assert text.encode("utf-8")
    assert text.startswith(f"{data}: ready for training, better once 1 of 11 files are set aside.")


def test_every_kind_has_words() -> None:
    assert set(telling._WORDS) == set(Kind)


def test_where_there_is_no_data_set_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(WrongUsage):
        checking.check(tmp_path / "none")
    (tmp_path / "only").mkdir()
    with pytest.raises(Misconfigured):
        checking.check(tmp_path)


# ---- setting aside


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_set_aside_keeps_its_place_and_comes_back(data: Path, tmp_path: Path) -> None:
    before = contents(data)
    bad = tmp_path / "bad"
    (data / "cat/sub").mkdir()
    (data / "cat/sub/x.jpg").touch()
    before["cat/sub/x.jpg"] = b""
    moves = setting_aside.set_aside(data, {"cat/sub/x.jpg": "empty", "dog/0.png": "tiny"}, bad)
    assert contents(bad).keys() == {"cat/sub/x.jpg", "dog/0.png", "set-aside.csv"}
    with open(bad / "set-aside.csv", newline="") as stream:
        rows = list(csv.reader(stream))
    assert rows[0] == ["from", "to", "why"]
    assert rows[1:] == [[move.source, move.destination, move.why] for move in moves]
    assert contents(data).keys() == before.keys() - {"cat/sub/x.jpg", "dog/0.png"}
    assert len(setting_aside.put_back(bad)) == 2
    assert contents(data) == before
    assert setting_aside.put_back(bad) == []


def test_nothing_is_overwritten_on_either_way(data: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    write_photo(bad / "cat/0.jpg", 999)
    (bad / "cat/0-1.jpg").symlink_to("nowhere")
    kept, moved = (bad / "cat/0.jpg").read_bytes(), (data / "cat/0.jpg").read_bytes()
    (move,) = setting_aside.set_aside(data, {"cat/0.jpg": "tiny"}, bad)
    assert move.destination == str(bad / "cat/0-2.jpg")
    assert (bad / "cat/0.jpg").read_bytes() == kept
    (data / "cat/0.jpg").write_bytes(b"new")
    assert setting_aside.put_back(bad) == []
    assert (data / "cat/0.jpg").read_bytes() == b"new"
    assert (bad / "cat/0-2.jpg").read_bytes() == moved


def test_files_move_to_another_disk_too(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(*_args: object, **_kwargs: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", no_link)
    before = (data / "cat/0.jpg").read_bytes()
    stamp = (data / "cat/0.jpg").stat().st_mtime_ns
    setting_aside.set_aside(data, {"cat/0.jpg": "tiny"}, tmp_path / "bad")
    assert contents(tmp_path / "bad")["cat/0.jpg"] == before
    assert (tmp_path / "bad/cat/0.jpg").stat().st_mtime_ns == stamp
    assert not (data / "cat/0.jpg").exists()
    assert {path.name for path in (tmp_path / "bad/cat").iterdir()} == {"0.jpg"}


def test_a_full_disk_leaves_the_file_where_it_was(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object, **_kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = contents(data)
    monkeypatch.setattr(os, "link", full)
    with pytest.raises(Unavailable, match="No space left"):
        setting_aside.set_aside(data, {"cat/0.jpg": "tiny"}, tmp_path / "bad")
    assert contents(data) == before


def test_a_file_that_vanished_is_one_clear_error(data: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"gone\.jpg"):
        setting_aside.set_aside(data, {"cat/gone.jpg": "tiny"}, tmp_path / "bad")


@pytest.mark.parametrize("place", ["data", "data/bad", "data/cat", "."])
def test_a_place_in_or_around_the_data_set_is_refused(data: Path, tmp_path: Path, place: str) -> None:
    with pytest.raises(WrongUsage, match="the data set"):
        setting_aside.check_place(data, data, tmp_path / place)


def test_a_link_into_the_data_set_is_no_way_around(data: Path, tmp_path: Path) -> None:
    (tmp_path / "bad").symlink_to(data / "cat")
    with pytest.raises(WrongUsage, match="in the data set"):
        setting_aside.check_place(data, data, tmp_path / "bad")
    setting_aside.check_place(data, data, tmp_path / "data-bad")


def test_putting_back_needs_a_list(tmp_path: Path) -> None:
    with pytest.raises(WrongUsage, match=r"set-aside\.csv"):
        setting_aside.put_back(tmp_path)
    (tmp_path / "set-aside.csv").write_text("a,b\n1,2\n")
    with pytest.raises(Misconfigured, match="no list"):
        setting_aside.put_back(tmp_path)


# ---- the sheet


def test_the_sheet_shows_every_class(data: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(data / "cat/$x^_猫.png"), cv2.resize(photo(9), (300, 20)))
    (data / "bird").mkdir()
    report = checking.check(data)
    sheet.draw(report, tmp_path / "sheet.png")
    drawn = cv2.imread(str(tmp_path / "sheet.png"))
    assert drawn is not None
    assert drawn.shape[1] > 6 * 112
    assert drawn.shape[0] > 3 * 112
    with pytest.raises(Misconfigured, match="Cannot write"):
        sheet.draw(report, tmp_path / "none/sheet.png")


# ---- real pictures


@pytest.mark.slow
@pytest.mark.skipif(not REAL.exists(), reason="the real pictures of ../shared/data are not here")
def test_the_known_faults_of_real_scrapes_are_found(tmp_path: Path) -> None:
    shutil.unpack_archive(REAL, tmp_path, filter="data")
    people = checking.check(tmp_path / "person-scene/train")
    assert len(items(people, Kind.COPIES)) >= 2
    assert any("crdownload" in path for path in paths(people, Kind.MISNAMED))
    assert len(items(people, Kind.MISNAMED)) >= 10
    faces = checking.check(tmp_path / "happy-sad/train")
    assert len(items(faces, Kind.NEAR_COPIES)) >= 10
    assert find(tmp_path / "happy-sad/train").labels == ("happy", "sad")
