"""`fsck` where sidecars travel, duplicates are set aside, files stay, and files are on their way to another class."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from forking import Forker, forking
from helpers import files_of
from pigeonholed.cli import cli
from running import LOOKING, RENAMING, Workspace, accompanied, environment, picture

RED = picture(220, 60, 40, 1)


@pytest.fixture(scope="module")
def forker() -> Iterator[Forker]:
    with forking(environment()) as forker:
        yield forker


def serve(site: Workspace, forker: Forker) -> None:
    ended = forker.end(site.root, forker.start(site.root, "--once"))
    assert ended.code == 0, ended.log


@pytest.fixture(scope="module")
def mould(tmp_path_factory: pytest.TempPathFactory, forker: Forker) -> Workspace:
    """Pictures with sidecars and a duplicate, filed by the real program."""
    workspace = Workspace.make(tmp_path_factory.mktemp("fsck") / "work", variant=accompanied(RENAMING))
    workspace.drop_with("a.png", RED, ".xmp", "*.json")
    workspace.drop_with("b.png", picture(220, 60, 40, 2), ".xmp")
    workspace.drop_with("s/twin.png", RED, ".xmp")
    workspace.drop_with("bad.png", b"\x89PNG\r\n\x1a\nbroken", ".json")
    serve(workspace, forker)
    return workspace


@pytest.fixture
def site(mould: Workspace, tmp_path: Path) -> Workspace:
    return mould.copy(tmp_path / "work")


def fsck(site: Workspace, *arguments: str) -> list[tuple[Any, ...]]:
    """Kind, path, where it was found, whether it was mended."""
    done = CliRunner().invoke(cli, ["fsck", "--json", *arguments, "--config", str(site.config)], catch_exceptions=False)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.exit_code == (0 if all(one["mended"] for one in told) else 1), done.output
    return [(one["kind"], one["path"], one["found"], one["mended"]) for one in told]


def undo(site: Workspace, *which: str) -> None:
    done = CliRunner().invoke(cli, ["undo", *(which or ("--last", "9")), "--config", str(site.config)])
    assert done.exit_code == 0, done.output


def query(site: Workspace, text: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(site.database)) as connection, connection:
        return connection.execute(text).fetchall()


def move(site: Workspace, source: str, target: str) -> None:
    (site.output / target).parent.mkdir(parents=True, exist_ok=True)
    (site.output / source).rename(site.output / target)


def test_what_was_filed_beside_pictures_is_explained(site: Workspace) -> None:
    assert {"cat/a.png.xmp", "cat/a.json", "_duplicates/s/twin.png.xmp"} <= files_of(site.output).keys()
    assert fsck(site) == []
    (site.output / "cat/a.json").write_bytes(b"its owner has changed it")
    assert fsck(site) == []


def test_sidecar_that_is_gone_is_told_of_and_forgotten_by_repair(site: Workspace) -> None:
    (site.output / "cat/a.json").unlink()
    assert fsck(site) == [("sidecar-missing", "cat/a.json", None, False)]
    assert fsck(site, "--repair") == [("sidecar-missing", "cat/a.json", None, True)]
    assert fsck(site) == []
    assert query(site, "SELECT count(*) FROM images") == [(4,)]
    undo(site)
    assert "a.png.xmp" in files_of(site.inbox)


def test_picture_that_a_person_moved_with_its_sidecars_is_followed_and_so_are_they(
    site: Workspace, forker: Forker
) -> None:
    move(site, "cat/a.png", "dog/mine/b.png")
    move(site, "cat/a.png.xmp", "dog/mine/b.png.xmp")
    move(site, "cat/a.json", "dog/mine/b.json")
    expected = [
        ("moved", "cat/a.png", "dog/mine/b.png"),
        ("sidecar-moved", "cat/a.json", "dog/mine/b.json"),
        ("sidecar-moved", "cat/a.png.xmp", "dog/mine/b.png.xmp"),
    ]
    assert sorted(fsck(site)) == [(*one, False) for one in expected]
    assert sorted(fsck(site, "--repair")) == [(*one, True) for one in expected]
    assert fsck(site) == []
    before = files_of(site.output)
    serve(site, forker)
    assert files_of(site.output) == before
    undo(site)
    assert {"a.png", "a.png.xmp", "a.json"} <= files_of(site.inbox).keys()


def test_sidecar_that_was_renamed_beside_its_picture_is_followed(site: Workspace) -> None:
    move(site, "cat/b.png.xmp", "cat/b.XMP")
    assert fsck(site, "--repair") == [("sidecar-moved", "cat/b.png.xmp", "cat/b.XMP", True)]
    assert fsck(site) == []


def test_sidecar_of_another_picture_is_not_taken_for_it(site: Workspace) -> None:
    """Another picture's is explained, and one that lies elsewhere is nobody's for certain."""
    (site.output / "cat/b.png.xmp").unlink()
    move(site, "cat/a.png.xmp", "other/a.png.xmp")
    assert sorted(fsck(site)) == [
        ("sidecar-missing", "cat/a.png.xmp", None, False),
        ("sidecar-missing", "cat/b.png.xmp", None, False),
        ("unexplained", "other/a.png.xmp", None, False),
    ]


def test_picture_that_was_moved_alone_leaves_its_sidecar_where_it_is_told(site: Workspace) -> None:
    move(site, "cat/b.png", "dog/b.png")
    assert fsck(site, "--repair") == [("moved", "cat/b.png", "dog/b.png", True)]
    assert fsck(site) == []
    undo(site)
    assert {"b.png", "b.png.xmp"} <= files_of(site.inbox).keys()


def test_repair_makes_no_picture_of_a_sidecar(site: Workspace) -> None:
    """Neither of one whose picture is gone, nor of one that somebody put there, whatever is configured by now."""
    (site.output / "cat/b.png").unlink()
    (site.output / "cat/stray.XMP").write_bytes(b"of nobody")
    assert fsck(site, "--repair") == [
        ("missing", "cat/b.png", None, True),
        ("unexplained", "cat/stray.XMP", None, False),
    ]
    assert fsck(site, "--repair") == [
        ("unexplained", "cat/b.png.xmp", None, False),
        ("unexplained", "cat/stray.XMP", None, False),
    ]
    (site.output / "cat/stray.XMP").unlink()
    site.config.write_text(site.config.read_text().replace('sidecars = [".xmp", ".json"]', ""))
    assert fsck(site, "--repair") == [("unexplained", "cat/b.png.xmp", None, False)]
    assert query(site, "SELECT count(*) FROM images") == [(4,)]


def test_duplicates_are_rows_like_others_and_one_without_a_row_gets_one(site: Workspace) -> None:
    move(site, "_duplicates/s/twin.png", "_duplicates/twin-2.png")
    assert fsck(site, "--repair") == [("moved", "_duplicates/s/twin.png", "_duplicates/twin-2.png", True)]
    (site.output / "_duplicates/s/more.png").write_bytes(picture(220, 60, 40, 9))
    assert fsck(site, "--repair") == [("unexplained", "_duplicates/s/more.png", None, True)]
    ((outcome, label, source),) = query(site, "SELECT outcome, label, source_path FROM images WHERE id = 5")
    assert (outcome, label, source) == ("duplicate", None, "s/more.png")
    assert fsck(site) == []
    undo(site, "--image", "5")
    assert "s/more.png" in files_of(site.inbox)


def test_places_of_a_move_to_another_class_that_was_killed_are_explained(site: Workspace) -> None:
    """The picture and one of its sidecars are still in the old class, the other is ahead in the new one."""
    (number,) = query(site, "SELECT id FROM images WHERE destination = 'cat/a.png'")[0]
    query(
        site,
        "INSERT INTO refilings SELECT id, destination, outcome, model, model_version, label, confidence, '[]', "
        f"classified_at, filed_at FROM images WHERE id = {number}",
    )
    query(site, f"UPDATE images SET status = 'planned', destination = 'dog/a.png' WHERE id = {number}")
    move(site, "cat/a.json", "dog/a.json")
    assert fsck(site) == [("in-flight", "a.png", None, False)]
    assert fsck(site, "--repair") == [("in-flight", "a.png", None, False)]
    assert query(site, "SELECT count(*) FROM images") == [(4,)]


def test_rows_of_files_that_stay_are_no_findings_and_neither_is_an_output_of_others(
    tmp_path: Path, forker: Forker
) -> None:
    site = Workspace.make(tmp_path / "work", variant=accompanied(LOOKING))
    site.drop("a.png", RED)
    site.drop("b.png", RED)
    serve(site, forker)
    assert (fsck(site), fsck(site, "--repair")) == ([], [])
    (site.output / ".pigeonholed").mkdir(parents=True)
    (site.output / ".pigeonholed/owner").write_text("0" * 32 + "\n")
    assert fsck(site) == []
    (site.inbox / "a.png").unlink()
    assert fsck(site, "--repair") == []
    assert query(site, "SELECT outcome, destination, label IS NULL FROM images WHERE status = 'filed'") == [
        ("sorted", None, 0),
        ("duplicate", None, 1),
    ]
