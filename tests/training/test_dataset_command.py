"""`pigeonholed-train dataset` from the outside."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import cv2
import numpy as np
import pytest

from pigeonholed_training.__main__ import main
from pigeonholed_training.data import building, dividing, sources
from pigeonholed_training.data.splitting import Part
from tiny_photos import write_photo


class Said(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["pigeonholed-train", "dataset", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        return Said(code, *capsys.readouterr())

    return call


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Thirty pictures of cats and thirty of dogs, each with a near-duplicate."""
    folder = tmp_path / "data"
    for number in range(30):
        for label, start in (("cat", 0), ("dog", 100)):
            write_photo(folder / label / f"{number}.png", start + number)
            write_photo(folder / label / "sub" / f"{number}.jpg", start + number)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_one_clear_error(said: Said, code: int, *words: str) -> None:
    assert said.code == code, said
    assert said.err.startswith("Error: ")
    assert said.err.count("\n") == 1
    for word in words:
        assert word in said.err
    assert said.out == ""


@pytest.mark.parametrize("command", [(), ("check",), ("split",), ("fetch",), ("put-back",)])
def test_every_command_has_help(run, command: tuple[str, ...]) -> None:
    said = run(*command, "--help")
    assert said.code == 0
    assert "Usage: pigeonholed-train dataset" in said.out
    assert "\\b" not in said.out


# ---- check


def test_check_begins_with_a_verdict_and_exits_0_whatever_it_finds(run, data: Path) -> None:
    (data / "cat/empty.jpg").touch()
    said = run("check", data)
    assert said.code == 0
    assert said.out.startswith(f"{data}: ready for training, better once 1 of 121 files are set aside.\n")
    assert "--move-bad DIR" in said.out
    assert said.err == ""


def test_check_exits_1_where_nothing_can_be_learned(run, data: Path) -> None:
    write_photo(data / "bird/1.png", 1000)
    said = run("check", data)
    assert said.code == 1
    assert "NOT READY" in said.out.splitlines()[0]


def test_check_in_json_is_one_object_with_everything(run, data: Path) -> None:
    (data / "cat/empty.jpg").touch()
    found = json.loads(run("check", data, "--json").out)
    assert found["trainable"] is True
    assert found["aside"] == [{"path": "cat/empty.jpg", "kind": "empty"}]
    assert {one["kind"]: one["count"] for one in found["findings"]}["near-copies"] == 60
    assert found["classes"][0]["label"] == "cat"
    assert found["moved"] == []


def test_check_moves_the_bad_and_says_where_and_put_back_undoes_it(run, data: Path, tmp_path: Path) -> None:
    (data / "cat/sub/empty.jpg").touch()
    shutil.copy(data / "cat/1.png", data / "dog/sub/stray.png")
    before = files(data)
    said = run("check", data, "--move-bad", tmp_path / "bad")
    assert said.code == 0
    wanted = {"cat/sub/empty.jpg", "cat/1.png", "dog/sub/stray.png"}
    assert before.keys() - files(data).keys() == wanted
    assert files(tmp_path / "bad").keys() == wanted | {"set-aside.csv"}
    for path in wanted:
        assert f"{data / path} -> {tmp_path / 'bad' / path}" in said.out
    assert run("check", data).out.startswith(f"{data}: ready for training; ")
    assert run("put-back", tmp_path / "bad").code == 0
    assert files(data) == before


def test_check_with_nothing_bad_makes_no_folder(run, data: Path, tmp_path: Path) -> None:
    assert run("check", data, "--move-bad", tmp_path / "bad").code == 0
    assert not (tmp_path / "bad").exists()


def test_check_refuses_a_place_in_the_data_set_before_it_looks(run, data: Path) -> None:
    (data / "cat/empty.jpg").touch()
    assert_one_clear_error(run("check", data, "--move-bad", data / "bad"), 2, "in the data set")
    assert (data / "cat/empty.jpg").exists()


def test_check_draws_a_sheet(run, data: Path, tmp_path: Path) -> None:
    assert run("check", data, "--grid", tmp_path / "sheet.png").code == 0
    assert cv2.imread(str(tmp_path / "sheet.png")) is not None
    said = run("check", data, "--grid", tmp_path / "none/sheet.png")
    assert said.code == 78
    assert "Cannot write" in said.err


def test_check_of_a_list_says_what_to_do_with_the_list(run, data: Path, tmp_path: Path) -> None:
    (data / "cat/empty.jpg").touch()
    run("split", data, tmp_path / "list.csv")
    with open(tmp_path / "list.csv", "a") as stream:
        stream.write("data/cat/empty.jpg,cat,train\n")
    said = run("check", tmp_path / "list.csv", "--move-bad", tmp_path / "bad")
    assert said.code == 0
    assert "take those lines out" in said.out
    assert (tmp_path / "bad/data/cat/empty.jpg").exists()


@pytest.mark.parametrize(("name", "code"), [("none", 2), ("data/cat", 78)])
def test_what_is_no_data_set_is_one_clear_error(run, data: Path, tmp_path: Path, name: str, code: int) -> None:
    for command in (("check", tmp_path / name), ("split", tmp_path / name, tmp_path / "out")):
        assert_one_clear_error(run(*command), code, name)
    assert not (tmp_path / "out").exists()


# ---- split


def test_split_writes_folders_that_are_read_back(run, data: Path, tmp_path: Path) -> None:
    before = files(data)
    said = run("split", data, tmp_path / "out", "--test", 0.3, "--validation", 0.2)
    assert said.code == 0, said
    assert files(data) == before
    found = sources.find(tmp_path / "out")
    assert found.kind == "split-folders"
    assert found.labels == ("cat", "dog")
    assert {entry.part for entry in found.entries} == {Part.TRAIN, Part.TEST, Part.VALIDATION}
    assert Counter(files(tmp_path / "out").values()) == Counter(before.values())
    counted = Counter(entry.part for entry in found.entries)
    assert f"test: {counted[Part.TEST]} (" in said.out


def test_split_writes_a_list_that_is_read_back_alike(run, data: Path, tmp_path: Path) -> None:
    run("split", data, tmp_path / "out")
    assert run("split", data, tmp_path / "lists.csv").code == 0
    listed = sources.find(tmp_path / "lists.csv")
    assert listed.kind == "csv"
    assert {entry.path for entry in listed.entries} == {f"data/{path}" for path in files(data)}
    by_folder = {path.split("/", 2)[2] + path.split("/")[1]: path.split("/")[0] for path in files(tmp_path / "out")}
    for entry in listed.entries:
        _, label, tail = entry.path.split("/", 2)
        assert entry.part is not None
        assert by_folder[tail + label] == entry.part.name.lower()


def test_split_never_tears_near_duplicates_apart(run, data: Path, tmp_path: Path) -> None:
    run("split", data, tmp_path / "out")
    for label in ("cat", "dog"):
        for part in ("train", "test"):
            folder = tmp_path / "out" / part / label
            assert {path.stem for path in folder.glob("*.png")} == {path.stem for path in folder.glob("sub/*.jpg")}


def test_split_stays_when_pictures_are_added(run, data: Path, tmp_path: Path) -> None:
    run("split", data, tmp_path / "out")
    for number in range(20):
        write_photo(data / f"cat/new{number}.png", 500 + number)
    run("split", data, tmp_path / "later")
    assert files(tmp_path / "out").items() <= files(tmp_path / "later").items()


def test_split_by_links_takes_no_room(run, data: Path, tmp_path: Path) -> None:
    assert run("split", data, tmp_path / "out", "--link").code == 0
    assert all(path.stat().st_nlink == 2 for path in (tmp_path / "out").rglob("*.png"))


def test_split_keeps_a_split_that_is_there_and_cuts_what_is_missing(run, data: Path, tmp_path: Path) -> None:
    run("split", data, tmp_path / "out")
    tested = {path for path in files(tmp_path / "out") if path.startswith("test/")}
    assert run("split", tmp_path / "out", tmp_path / "again", "--test", 0.5, "--validation", 0.2).code == 0
    again = files(tmp_path / "again")
    assert {path for path in again if path.startswith("test/")} == tested
    assert any(path.startswith("validation/") for path in again)


def test_split_says_when_the_seed_was_used_before(run, tmp_path: Path) -> None:
    for number in range(240):
        write_photo(tmp_path / f"data/{number % 2}/{number}.png", number, side=24)
    assert run("split", tmp_path / "data", tmp_path / "out").err == ""
    shutil.rmtree(tmp_path / "out/test")
    assert "another" in run("split", tmp_path / "out", tmp_path / "again").err
    assert run("split", tmp_path / "out", tmp_path / "third", "--seed", 1).err == ""


def test_split_passes_over_what_is_no_picture_and_says_so(run, data: Path, tmp_path: Path) -> None:
    (data / "cat/empty.jpg").touch()
    said = run("split", data, tmp_path / "out")
    assert "passed over: 1 that cannot be read, first cat/empty.jpg" in said.out
    assert not list((tmp_path / "out").rglob("empty.jpg"))


def test_split_of_a_list_gives_equal_names_room(run, tmp_path: Path) -> None:
    rows = ["path,label"]
    for number in range(12):
        write_photo(tmp_path / f"{number}/x.png", number)
        rows.append(f"{number}/x.png,{'ab'[number % 2]}")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    assert run("split", tmp_path / "list.csv", tmp_path / "out").code == 0
    assert len(files(tmp_path / "out")) == 12


def test_split_overwrites_nothing(run, data: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    (tmp_path / "out.csv").write_text("mine")
    assert_one_clear_error(run("split", data, tmp_path / "out"), 2, "there already")
    assert_one_clear_error(run("split", data, tmp_path / "out.csv"), 2, "there already")
    assert_one_clear_error(run("split", data, data / "out"), 2, "in the data set")
    assert files(tmp_path / "out") == {"mine.txt": b"mine"}
    assert (tmp_path / "out.csv").read_text() == "mine"


def test_split_leaves_nothing_half_written(run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied = []

    def fails(source: str, destination: str) -> None:
        copied.append(source)
        if len(copied) > 5:
            raise OSError(28, "No space left on device")
        Path(destination).write_bytes(b"x")

    monkeypatch.setattr(dividing.shutil, "copy2", fails)
    assert_one_clear_error(run("split", data, tmp_path / "out"), 69, "No space left")
    assert {path.name for path in tmp_path.iterdir()} == {"data"}


def test_split_finds_out_before_it_begins_that_the_disk_is_full(
    run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building.shutil, "disk_usage", lambda _path: SimpleNamespace(free=1000))
    assert_one_clear_error(run("split", data, tmp_path / "out"), 69, "MB are free")


@pytest.mark.parametrize("shares", [("--test", 0), ("--test", 0.8, "--validation", 0.2), ("--test", 1)])
def test_shares_that_leave_nothing_are_refused(run, data: Path, tmp_path: Path, shares: tuple[object, ...]) -> None:
    assert run("split", data, tmp_path / "out", *shares).code == 2
    assert not (tmp_path / "out").exists()


def test_a_name_that_no_list_can_hold_is_refused(run, data: Path, tmp_path: Path) -> None:
    os.rename(data / "cat/1.png", os.fsencode(data) + b"/cat/\xff.png")
    assert_one_clear_error(run("split", data, tmp_path / "out.csv"), 78, "cannot be kept")
    assert not (tmp_path / "out.csv").exists()


# ---- fetch


@pytest.fixture
def keras(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A Keras that has loaded 20 and 10 small pictures of each data set."""
    rng = np.random.default_rng(0)

    def load(shape: tuple[int, ...]):
        def load_data():
            print("Downloading data from somewhere")
            parts = [
                (rng.integers(0, 256, (count, *shape), np.uint8), np.arange(count).reshape(-1, 1) % 10)
                for count in (20, 10)
            ]
            pretended.given = parts
            return parts

        return load_data

    pretended = SimpleNamespace(
        datasets=SimpleNamespace(
            cifar10=SimpleNamespace(load_data=load((8, 8, 3))), mnist=SimpleNamespace(load_data=load((8, 8)))
        )
    )
    monkeypatch.setattr("pigeonholed.classifying.keras.import_keras", lambda: pretended)
    return pretended


def test_fetch_writes_class_folders_of_the_very_pixels(run, tmp_path: Path, keras: SimpleNamespace) -> None:
    said = run("fetch", "cifar10", tmp_path / "cifar")
    assert (said.code, said.out) == (0, f"{tmp_path / 'cifar'}: 20 pictures in train, 10 pictures in test.\n")
    found = sources.find(tmp_path / "cifar")
    assert found.labels == (
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
    )  # fmt: skip
    (pixels, _), _ = keras.given
    stored = cv2.imread(str(tmp_path / "cifar/train/cat/13.png"))
    assert stored is not None
    assert np.array_equal(stored[:, :, ::-1], pixels[13])


def test_fetch_writes_grey_pictures_too(run, tmp_path: Path, keras: SimpleNamespace) -> None:
    assert run("fetch", "mnist", tmp_path / "mnist").code == 0
    (pixels, _), _ = keras.given
    stored = cv2.imread(str(tmp_path / "mnist/train/3/03.png"), cv2.IMREAD_UNCHANGED)
    assert stored is not None
    assert np.array_equal(stored, pixels[3])


def test_fetch_without_a_network_is_one_clear_error(run, tmp_path: Path, keras: SimpleNamespace) -> None:
    def offline() -> None:
        raise Exception("URL fetch failure on https://example.org: None -- Name or service not known")

    keras.datasets.cifar10.load_data = offline
    before = socket.getdefaulttimeout()
    assert_one_clear_error(run("fetch", "cifar10", tmp_path / "cifar"), 69, "cifar10", "network")
    assert not list(tmp_path.iterdir())
    assert socket.getdefaulttimeout() == before


def test_fetch_overwrites_nothing_and_asks_no_network_first(run, tmp_path: Path, keras: SimpleNamespace) -> None:
    write_photo(tmp_path / "cifar/mine.png", 1)
    keras.datasets.cifar10.load_data = None
    assert_one_clear_error(run("fetch", "cifar10", tmp_path / "cifar"), 2, "there already")
    assert len(files(tmp_path / "cifar")) == 1


def test_fetch_goes_over_what_a_killed_one_left(run, tmp_path: Path, keras: SimpleNamespace) -> None:
    (tmp_path / ".cifar.partial/train").mkdir(parents=True)
    (tmp_path / ".cifar.partial/train/rubbish").touch()
    assert run("fetch", "cifar10", tmp_path / "cifar").code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"cifar"}
    assert len(files(tmp_path / "cifar")) == 30


def test_fetch_of_an_unknown_name_says_which_are_known(run, tmp_path: Path) -> None:
    assert_one_clear_error(run("fetch", "imagenet", tmp_path / "x"), 2, "cifar10", "fashion-mnist")
