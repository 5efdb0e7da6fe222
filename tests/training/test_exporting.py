"""`dataset export`: labels out of a database that the real service made, as training data."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from helpers import files_of
from pigeonholed.locking import Lock
from pigeonholed_training.__main__ import main
from pigeonholed_training.data import exporting, reviews, sources
from pigeonholed_training.data.classing import names_for
from running import Workspace, picture

RED, BLUE, GREY = (220, 60, 40), (40, 60, 220), (120, 120, 120)
DROPPED = {
    "a/x.png": RED,  # 1: a cat
    "b/x.png": RED,  # 2: a cat of the same name
    "y.png": BLUE,  # 3: a dog
    "z.png": BLUE,  # 4: a dog
    "grey.png": GREY,  # 5: neither
    "odd \udcff.png": RED,  # 6: its name is no UTF-8
}
BROKEN = b"GIF89a, and no picture"


class Said(NamedTuple):
    code: int
    out: str
    err: str


class Service(NamedTuple):
    """A copy of what the service left, and what to do to it."""

    workspace: Workspace
    run: Callable[..., Said]

    @property
    def root(self) -> Path:
        return self.workspace.root

    def sql(self, statement: str, *values: object) -> list[tuple[object, ...]]:
        connection = sqlite3.connect(self.workspace.database)
        with connection:
            rows = connection.execute(statement, values).fetchall()
        connection.close()
        return rows

    def image(self, dropped: str) -> int:
        text = dropped.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        ((image,),) = self.sql("SELECT id FROM images WHERE source_path = ?", text)
        assert isinstance(image, int)
        return image

    def review(self, dropped: str, label: str, when: str = "2026-11-21 08:00:00.000000") -> int:
        image = self.image(dropped)
        self.sql("INSERT INTO reviews (image_id, label, reviewed_at) VALUES (?, ?, ?)", image, label, when)
        return image

    def filed_at(self, dropped: str) -> Path:
        ((destination,),) = self.sql("SELECT destination FROM images WHERE id = ?", self.image(dropped))
        assert isinstance(destination, str)
        return self.workspace.output / os.fsdecode(destination.encode().replace(b"\\xff", b"\xff"))

    def dropped(self, path: str) -> bytes:
        return self.filed_at(path).read_bytes()


@pytest.fixture(scope="module")
def sorted_once(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A folder in which `pigeonholed run --once` has sorted a few pictures."""
    workspace = Workspace.make(tmp_path_factory.mktemp("service") / "work")
    for seed, (path, colour) in enumerate(DROPPED.items()):
        assert workspace.drop(path, picture(*colour, seed))
    assert workspace.drop("broken.png", BROKEN)
    done = workspace.run("run", "--once")
    assert done.returncode == 0, done.stderr
    assert workspace.filed() == len(DROPPED) + 1
    return workspace


@pytest.fixture
def service(
    sorted_once: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Service:
    root = shutil.copytree(sorted_once.root, tmp_path / "work")
    monkeypatch.chdir(root)
    monkeypatch.delenv("PIGEONHOLED_CONFIG", raising=False)

    def run(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["pigeonholed-train", "dataset", "export", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        return Said(code, *capsys.readouterr())

    return Service(Workspace(root), run)


@pytest.fixture
def reviewed(service: Service) -> Service:
    """Four reviews: two confirmed, two corrected."""
    for path, label in {"a/x.png": "cat", "b/x.png": "cat", "y.png": "cat", "grey.png": "dog"}.items():
        service.review(path, label)
    return service


def assert_refused(said: Said, code: int, *words: str) -> None:
    assert said.code == code, said
    assert said.out == ""
    assert said.err.startswith("Error: ")
    assert said.err.count("\n") == 1
    for word in words:
        assert word in said.err


# ---- into folders


def test_reviewed_pictures_become_class_folders_and_the_sorted_ones_stay(reviewed: Service) -> None:
    before = files_of(reviewed.workspace.output)
    said = reviewed.run("out")
    assert (said.code, said.err) == (0, "")
    assert said.out == "4 pictures in out (2 confirmed, 2 corrected).\ncat 3, dog 1.\n"
    second = reviewed.sql("SELECT substr(sha256, 1, 12) FROM images WHERE id = ?", reviewed.image("b/x.png"))[0][0]
    first = reviewed.sql("SELECT substr(sha256, 1, 12) FROM images WHERE id = ?", reviewed.image("a/x.png"))[0][0]
    found = files_of(reviewed.root / "out")
    of_one_name = {name for name in found if name.startswith("cat/x")}
    assert of_one_name in ({"cat/x.png", f"cat/x-{second}.png"}, {"cat/x.png", f"cat/x-{first}.png"})
    assert set(found) == of_one_name | {"cat/y.png", "dog/grey.png"}
    assert sorted(found.values()) == sorted(map(reviewed.dropped, ("a/x.png", "b/x.png", "y.png", "grey.png")))
    assert found["dog/grey.png"] == reviewed.dropped("grey.png")
    assert files_of(reviewed.workspace.output) == before
    assert sources.find(reviewed.root / "out").labels == ("cat", "dog")


def test_the_latest_review_counts(service: Service) -> None:
    for label in ("dog", "cat", "dog"):
        service.review("a/x.png", label)
    service.run("out")
    assert set(files_of(service.root / "out")) == {"dog/x.png"}


def test_what_the_model_said_decides_whether_it_was_corrected_even_where_the_row_followed(service: Service) -> None:
    image = service.review("a/x.png", "dog")
    service.sql("UPDATE images SET label = 'dog' WHERE id = ?", image)
    assert json.loads(service.run("out", "--json").out)["sources"] == {"corrected": 1}


def test_what_was_put_back_is_passed_over(reviewed: Service) -> None:
    reviewed.sql("UPDATE images SET status = 'returned' WHERE id = ?", reviewed.image("grey.png"))
    said = reviewed.run("out")
    assert said.code == 0
    assert "cat 3.\n" in said.out
    assert "at least two classes" in said.err


def test_a_refused_file_can_be_given_a_label_too(service: Service) -> None:
    service.review("broken.png", "cat")
    assert service.run("out").code == 0
    assert files_of(service.root / "out") == {"cat/broken.png": BROKEN}


def test_missing_changed_and_replaced_files_are_named_and_left_out(reviewed: Service) -> None:
    reviewed.filed_at("a/x.png").unlink()
    reviewed.filed_at("b/x.png").write_bytes(b"something else")
    place = reviewed.filed_at("y.png")
    place.rename(reviewed.root / "elsewhere.png")
    place.symlink_to(reviewed.root / "elsewhere.png")
    said = reviewed.run("out")
    assert said.code == 1
    assert set(files_of(reviewed.root / "out")) == {"dog/grey.png"}
    lines = sorted(said.err.splitlines())
    images = [reviewed.image(path) for path in ("a/x.png", "b/x.png", "y.png")]
    assert f"left out: image {images[0]}, cat/a/x.png: it is not there any more" in lines
    assert f"left out: image {images[1]}, cat/b/x.png: its content is not what was filed" in lines
    assert any(line.startswith(f"left out: image {images[2]}, dog/y.png: it cannot be read") for line in lines)
    assert "1 picture in out" in said.out


def test_json_says_what_came_of_it(reviewed: Service) -> None:
    reviewed.filed_at("y.png").unlink()
    said = reviewed.run("out", "--json")
    assert said.code == 1
    image = reviewed.image("y.png")
    assert json.loads(said.out) == {
        "out": "out",
        "pictures": 3,
        "copied": 3,
        "linked": 0,
        "kept": 0,
        "left_out": 1,
        "labels": {"cat": 2, "dog": 1},
        "sources": {"confirmed": 2, "corrected": 1},
        "left": [{"image": image, "path": "dog/y.png", "why": "it is not there any more"}],
    }


def test_many_left_out_are_counted_and_few_are_named(reviewed: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "_NAMED", 3)
    monkeypatch.setattr("pigeonholed_training.commands.export._SHOWN", 1)
    for folder in ("cat", "dog", "_unsure"):
        shutil.rmtree(reviewed.workspace.output / folder)
    said = reviewed.run("out")
    assert said.code == 1
    assert len(said.err.splitlines()) == 2
    assert "left out: 3 more" in said.err
    assert said.out == "0 pictures in out.\n"
    assert not (reviewed.root / "out").exists()


# ---- again, and after an interruption


def test_a_second_export_keeps_what_is_there(reviewed: Service) -> None:
    reviewed.run("out")
    before = {path: path.stat().st_mtime_ns for path in (reviewed.root / "out").rglob("*.png")}
    said = json.loads(reviewed.run("out", "--json").out)
    assert (said["copied"], said["kept"]) == (0, 4)
    assert {path: path.stat().st_mtime_ns for path in (reviewed.root / "out").rglob("*.png")} == before


def test_an_interrupted_export_leaves_whole_files_and_goes_on(
    reviewed: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = exporting.Tally.take

    def interrupted(tally: exporting.Tally, found: reviews.Labelled) -> None:
        if tally.pictures == 2:
            raise KeyboardInterrupt
        take(tally, found)

    monkeypatch.setattr(exporting.Tally, "take", interrupted)
    assert "takes it up again" in reviewed.run("out").err
    monkeypatch.undo()
    monkeypatch.chdir(reviewed.root)
    (reviewed.root / "out/.export.partial").write_bytes(b"half")  # as a kill leaves it
    monkeypatch.setattr(sys, "argv", [])
    said = json.loads(reviewed.run("out", "--json").out)
    assert (said["copied"], said["kept"]) == (1, 3)
    assert len(files_of(reviewed.root / "out")) == 4


def test_a_taken_name_is_never_overwritten(reviewed: Service) -> None:
    (reviewed.root / "out/dog").mkdir(parents=True)
    mine = reviewed.root / "out/dog/grey.png"
    mine.write_bytes(b"mine")
    assert reviewed.run("out").code == 0
    assert mine.read_bytes() == b"mine"
    other = next((reviewed.root / "out/dog").glob("grey-*.png"))
    assert other.read_bytes() == reviewed.dropped("grey.png")
    other.write_bytes(b"changed")
    said = reviewed.run("out")
    assert said.code == 1
    assert "its name is taken in the folder of dog" in said.err
    assert other.read_bytes() == b"changed"


def test_a_picture_whose_label_changed_since_is_not_put_into_a_second_class(reviewed: Service) -> None:
    reviewed.run("out")
    reviewed.review("grey.png", "cat")
    said = reviewed.run("out")
    assert said.code == 1
    assert "it is of class cat, and is already there as dog/grey.png; remove that" in said.err
    (reviewed.root / "out/dog/grey.png").unlink()
    assert reviewed.run("out").code == 0
    assert "cat/grey.png" in files_of(reviewed.root / "out")


def test_two_exports_into_one_folder_wait_for_each_other(reviewed: Service) -> None:
    (reviewed.root / "out").mkdir()
    fd = os.open(reviewed.root / "out", os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        assert_refused(reviewed.run("out"), 69, "another export is writing into it")
    finally:
        os.close(fd)


def test_a_full_disk_is_told_and_leaves_no_half_file(reviewed: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    for out in ("out", "out.csv"):
        assert_refused(reviewed.run(out), 69, f"Cannot export into {out}", "make room")
    assert not [path for path in reviewed.root.rglob("*") if "out" in path.name and path.is_file()]
    assert not (reviewed.root / "out").exists()


# ---- links


def test_links_are_the_very_files(reviewed: Service) -> None:
    said = json.loads(reviewed.run("out", "--link", "--json").out)
    assert (said["linked"], said["copied"]) == (4, 0)
    assert (reviewed.root / "out/dog/grey.png").samefile(reviewed.filed_at("grey.png"))
    reviewed.run("copies")
    assert not (reviewed.root / "copies/dog/grey.png").samefile(reviewed.filed_at("grey.png"))


def test_what_changed_is_not_linked(reviewed: Service) -> None:
    reviewed.filed_at("grey.png").write_bytes(b"something else")
    assert reviewed.run("out", "--link").code == 1
    assert not (reviewed.root / "out/dog").exists()


def test_a_file_replaced_while_it_was_read_is_not_linked(reviewed: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def late(source: str, target: str, **options: bool) -> None:
        os.unlink(source)
        Path(source).write_bytes(b"another")
        link(source, target, **options)

    monkeypatch.setattr(os, "link", late)
    said = reviewed.run("out", "--link")
    assert said.code == 1
    assert said.err.count("it was replaced while it was read") == 4
    assert files_of(reviewed.root / "out") == {}


def test_a_disk_without_links_gets_copies(reviewed: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(source: str, target: str, **options: bool) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", none)
    said = json.loads(reviewed.run("out", "--link", "--json").out)
    assert (said["linked"], said["copied"]) == (0, 4)
    assert len(files_of(reviewed.root / "out")) == 4


# ---- names and labels


@pytest.mark.parametrize(
    ("label", "why"),
    [
        ("../../cat", "holds one of"),
        ("_unsure", "begins with _"),
        ("", "is empty"),
        ("CAT", "would be the same folder"),
        ("a\nb", "holds a control"),
    ],
)
def test_a_label_that_no_model_can_have_is_left_out(reviewed: Service, label: str, why: str) -> None:
    reviewed.review("z.png", label)
    before = {path.name for path in reviewed.root.glob("[!p]*")}
    for out in ("out", "out.csv"):
        said = reviewed.run(out)
        assert said.code == 1
        assert f"image {reviewed.image('z.png')}, " in said.err
        assert why in said.err
        assert said.err.count("\n") == 1, "of two twins the commoner one is taken"
    assert {path.name for path in reviewed.root.glob("[!p]*")} == before | {"out", "out.csv"}
    assert len(files_of(reviewed.root / "out")) == 4


def test_a_label_is_measured_against_the_classes_that_are_there(service: Service) -> None:
    (service.root / "out/Cat").mkdir(parents=True)
    service.review("a/x.png", "cat")
    assert "would be the same folder" in service.run("out").err


def test_a_name_that_is_no_utf_8_becomes_one_in_a_folder_and_is_left_out_of_a_list(service: Service) -> None:
    path = "odd \udcff.png"
    image = service.review(path, "cat")
    assert service.run("out").code == 0
    (name,) = files_of(service.root / "out")
    assert name.startswith("cat/odd _-")
    assert files_of(service.root / "out")[name] == service.dropped(path)
    said = service.run("out.csv")
    assert said.code == 1
    assert f"image {image}, cat/odd \\xff.png: its name cannot be kept in a list" in said.err
    assert not (service.root / "out.csv").exists()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("x.png", ("x.png", "x-0123456789ab.png")),
        (".hidden.png", ("hidden-0123456789ab.png",)),
        ("...", ("picture-0123456789ab",)),
        ("a\nb.png", ("a_b-0123456789ab.png",)),
        ("\udcff", ("_-0123456789ab",)),
        ("x." + "y" * 40, ("x." + "y" * 40, "x." + "y" * 40 + "-0123456789ab")),
        ("ä" * 125 + ".png", ("ä" * 125 + ".png", "ä" * 119 + "-0123456789ab.png")),
    ],
)
def test_names_are_safe_to_keep_and_fit(name: str, expected: tuple[str, ...]) -> None:
    names = names_for(name, "0123456789abcdef" * 4)
    assert names == expected
    assert all(len(one.encode()) <= 255 for one in names)


def test_a_row_that_leads_out_of_the_output_is_left_out(service: Service) -> None:
    image = service.review("y.png", "dog")
    place = service.filed_at("y.png")
    place.rename(service.root / "outside.png")
    for destination in ("../outside.png", str(service.root / "outside.png"), "dog/../../outside.png"):
        service.sql("UPDATE images SET destination = ? WHERE id = ?", destination, image)
        assert "its row leads out of the output" in service.run("out").err
    assert not (service.root / "out").exists()


def test_a_row_without_a_file_is_left_out(service: Service) -> None:
    image = service.review("y.png", "dog")
    service.sql("UPDATE images SET destination = NULL WHERE id = ?", image)
    assert f"left out: image {image}, no file: it has no file of its own" in service.run("out").err


# ---- into a list


def test_a_list_is_what_training_reads(reviewed: Service) -> None:
    said = reviewed.run("out.csv")
    assert (said.code, said.err) == (0, "")
    lines = (reviewed.root / "out.csv").read_text().splitlines()
    assert lines[0] == "path,label,sha256,source"
    sha256 = reviewed.sql("SELECT sha256 FROM images WHERE id = ?", reviewed.image("grey.png"))[0][0]
    assert f"sorted/_unsure/{reviewed.filed_at('grey.png').parent.name}/grey.png,dog,{sha256},corrected" in lines
    listing = sources.find(reviewed.root / "out.csv")
    assert [(entry.path, listing.labels[entry.target]) for entry in listing.entries] == [
        tuple(line.split(",")[:2]) for line in lines[1:]
    ]
    assert all((listing.root / entry.path).is_file() for entry in listing.entries)


def test_a_list_elsewhere_holds_whole_paths(reviewed: Service, tmp_path: Path) -> None:
    assert reviewed.run(tmp_path / "out.csv").code == 0
    listing = sources.find(tmp_path / "out.csv")
    assert {str(tmp_path / entry.path) for entry in listing.entries} == {
        str(reviewed.filed_at(path)) for path in ("a/x.png", "b/x.png", "y.png", "grey.png")
    }


def test_what_changed_is_not_listed(reviewed: Service) -> None:
    reviewed.filed_at("grey.png").write_bytes(b"something else")
    assert reviewed.run("out.csv").code == 1
    assert "grey" not in (reviewed.root / "out.csv").read_text()


def test_an_earlier_list_is_replaced_and_nothing_else(reviewed: Service) -> None:
    reviewed.run("out.csv")
    before = (reviewed.root / "out.csv").read_text().splitlines()
    reviewed.review("z.png", "dog")
    assert reviewed.run("out.csv").code == 0
    after = (reviewed.root / "out.csv").read_text().splitlines()
    assert set(before) < set(after)
    assert len(after) == len(before) + 1
    (reviewed.root / "mine.csv").write_text("path,label\n")
    assert_refused(reviewed.run("mine.csv"), 2, "it is there already, and is no list of an earlier export")
    assert (reviewed.root / "mine.csv").read_text() == "path,label\n"


def test_an_interrupted_list_is_as_it_was(reviewed: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    reviewed.run("out.csv")
    before = (reviewed.root / "out.csv").read_text()
    reviewed.review("z.png", "dog")

    def interrupted(tally: exporting.Tally, found: reviews.Labelled) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(exporting.Tally, "take", interrupted)
    assert reviewed.run("out.csv").code == 1
    assert (reviewed.root / "out.csv").read_text() == before
    assert not list(reviewed.root.glob(".out*"))


# ---- which pictures


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--inbox", "camera"], {"cat", "dog"}),
        (["--model", "tiny"], {"cat", "dog"}),
        (["--since", "2026-11-21T08:00+00:00"], {"cat", "dog"}),
        (["--since", "2026-11-21T08:01+00:00"], {"dog"}),
    ],
)
def test_filters_choose(service: Service, options: list[str], expected: set[str]) -> None:
    service.review("a/x.png", "cat")
    service.review("y.png", "dog", "2026-11-21 09:30:00.000000")
    assert service.run("out", *options).code == 0
    assert {path.name for path in (service.root / "out").iterdir()} == expected


def test_filters_that_leave_nothing_say_so(reviewed: Service) -> None:
    for options in (["--model", "other"], ["--since", "2027-01-01"]):
        assert_refused(reviewed.run("out", *options), 1, "There is nothing to export", "4 reviewed in the database")
    assert_refused(reviewed.run("out", "--inbox", "kamera"), 2, "no inbox 'kamera'; it has camera")
    assert_refused(reviewed.run("out", "--since", "soon"), 2, "--since must be a time", "'soon'")
    assert not (reviewed.root / "out").exists()


def test_unreviewed_pictures_are_taken_only_on_request_and_only_sure_ones(service: Service) -> None:
    service.review("y.png", "cat")
    service.sql("UPDATE images SET confidence = 0.999 WHERE id = ?", service.image("grey.png"))
    said = service.run("out", "--include", "sorted", "--json")
    assert said.code == 0, said.err
    told = json.loads(said.out)
    assert told["sources"] == {"corrected": 1, "sorted": 4}
    assert told["labels"] == {"cat": 4, "dog": 1}
    names = set(files_of(service.root / "out"))
    assert "cat/y.png" in names
    assert "dog/y.png" not in names, "the person knows better"
    assert not any("grey" in name or "broken" in name for name in names), "unsure ones and refused ones are not sorted"
    service.sql("UPDATE images SET confidence = 0.98 WHERE id = ?", service.image("z.png"))
    assert json.loads(service.run("few", "--include", "sorted", "--json").out)["sources"]["sorted"] == 3
    assert json.loads(service.run("all", "--include", "sorted", "--confidence", "0.9", "--json").out)["pictures"] == 5


def test_more_pictures_than_a_page_are_all_taken_once(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reviews, "_PAGE", 2)
    for path in ("grey.png", "z.png", "a/x.png", "b/x.png", "y.png"):
        service.review(path, "cat")
        service.review(path, "dog")
    assert json.loads(service.run("out", "--json").out)["pictures"] == 5
    assert json.loads(service.run("more", "--include", "sorted", "--json").out)["pictures"] == 6


# ---- the service


def test_the_service_may_be_at_work(reviewed: Service) -> None:
    lock = Lock.take(str(reviewed.root / "pigeonholed.lock"))
    writing = sqlite3.connect(reviewed.workspace.database, isolation_level=None)
    writing.execute("BEGIN IMMEDIATE")
    writing.execute("UPDATE images SET detail = 'at work'")
    try:
        assert reviewed.run("out").code == 0
    finally:
        writing.execute("ROLLBACK")
        writing.close()
        lock.release()


def test_the_database_is_only_read(reviewed: Service) -> None:
    before = reviewed.workspace.database.read_bytes()
    reviewed.run("out")
    assert reviewed.workspace.database.read_bytes() == before


def test_the_configuration_is_found_as_the_service_finds_it(reviewed: Service, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert reviewed.run("one", "-c", reviewed.workspace.config).code == 0
    monkeypatch.setenv("PIGEONHOLED_CONFIG", str(reviewed.workspace.config))
    assert reviewed.run("two").code == 0
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")
    assert_refused(reviewed.run("three", "-c", "gone.toml"), 78, "gone.toml")


def test_no_reviews_are_told_in_one_sentence(service: Service) -> None:
    assert_refused(service.run("out"), 1, "nobody has confirmed or corrected any picture yet")
    assert not (service.root / "out").exists()


def test_a_database_that_is_not_there_is_told(reviewed: Service) -> None:
    text = reviewed.workspace.config.read_text()
    for url, code, words in (
        ("sqlite:///other.db", 69, "there is no database"),
        ("postgresql://user:secret@127.0.0.1:1/name", 69, "Connection refused"),
    ):
        reviewed.workspace.config.write_text(f'[database]\nurl = "{url}"\n{text}')
        said = reviewed.run("out")
        assert_refused(said, code, words)
        assert "secret" not in said.err
    assert not (reviewed.root / "other.db").exists()


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE alembic_version SET version_num = '9999'", "a newer pigeonholed made"),
        ("DELETE FROM alembic_version", "run 'pigeonholed db upgrade'"),
    ],
)
def test_a_database_of_another_version_is_told(reviewed: Service, statement: str, words: str) -> None:
    reviewed.sql(statement)
    assert_refused(reviewed.run("out"), 69, words)


def test_a_damaged_database_is_told(reviewed: Service) -> None:
    for name in ("", "-wal", "-shm"):
        Path(f"{reviewed.workspace.database}{name}").unlink(missing_ok=True)
    reviewed.workspace.database.write_bytes(b"no database at all" * 100)
    assert_refused(reviewed.run("out"), 69, "pigeonholed.db")


def test_an_output_that_is_away_is_no_million_missing_pictures(reviewed: Service) -> None:
    reviewed.workspace.output.rename(reviewed.root / "away")
    reviewed.workspace.output.mkdir()
    for out in ("out", "out.csv"):
        assert_refused(reviewed.run(out), 69, "the output", "is missing; mount it again")
    assert not (reviewed.root / "out.csv").exists()


def test_pictures_of_an_inbox_that_is_configured_no_more_are_left_out(reviewed: Service) -> None:
    config = reviewed.workspace.config
    config.write_text(config.read_text().replace('name = "camera"', 'name = "other"'))
    said = reviewed.run("out")
    assert said.code == 1
    assert said.err.count("its inbox 'camera' is not in the configuration any more") == 4


@pytest.mark.parametrize("out", ["inbox/new", "inbox", "sorted/new", "sorted", "sorted/new.csv", "inbox/new.csv", "."])
def test_an_export_never_goes_where_the_service_works(reviewed: Service, out: str) -> None:
    before = files_of(reviewed.root)
    assert_refused(reviewed.run(out), 2, "choose another place")
    assert files_of(reviewed.root) == before


def test_a_file_in_the_way_is_told(reviewed: Service) -> None:
    (reviewed.root / "out").write_bytes(b"a file")
    assert_refused(reviewed.run("out"), 2, "it is there already, and is no folder")
    (reviewed.root / "out").unlink()
    (reviewed.root / "out").mkdir()
    (reviewed.root / "out/cat").write_bytes(b"a file")
    assert_refused(reviewed.run("out"), 78, "Cannot export into out: its entry cat is no folder")
    assert_refused(reviewed.run("gone/out.csv"), 78, "Cannot export into gone/out.csv: No such file")
