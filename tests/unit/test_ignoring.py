"""Which names in an inbox are taken for pictures, and which are left alone."""

from __future__ import annotations

import fnmatch
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pigeonholed.ignoring import NameFilter


@pytest.mark.parametrize(
    "path",
    ["x.jpg", "X.JPG", "no extension", "a/b/c.png", "part", "x.part.jpg", "4913.jpg", "party.jpg", "tmp", "a~b.jpg",
     "icon", "template/x.jpg", "x.", "my.download.jpg", "Thumbs.db.jpg", "#1.jpg", "a\nb.jpg", "\udce9.jpg",
     "recycled/x.jpg", "x.tmpx", "reason.json"],
)  # fmt: skip
def test_an_ordinary_file_is_taken(path: str) -> None:
    assert not NameFilter().ignores(path)


@pytest.mark.parametrize(
    "name",
    [".x.jpg", ".DS_Store", "._x.jpg", ".nfs0001", ".syncthing.x.jpg.tmp", ".x.jpg.Ab3dEf", "..x", "x.jpg.part",
     "x.PART", "x.jpg.crdownload", "x.jpg.tmp", "x.temp", "x.jpg.filepart", "x.jpg.!ut", "x.jpg.swp", "x.jpg~",
     "~$x.docx", "~syncthing~x.jpg.tmp", "#x.jpg#", "4913", "Thumbs.db", "THUMBS.DB", "desktop.ini", "Icon\r",
     "x.jpg:Zone.Identifier", "x.jpg.sb-1a2b3c4d-Ab3dEf", "a\nb.part", "\udce9.part"],
)  # fmt: skip
def test_hidden_partial_and_system_files_are_ignored_wherever_they_lie(name: str) -> None:
    names = NameFilter()
    assert names.ignores(name)
    assert names.ignores(f"a/b/{name}")


@pytest.mark.parametrize(
    "folder",
    [".git", ".pigeonholed", ".stversions", "@eaDir", "__MACOSX", "$RECYCLE.BIN", "System Volume Information",
     "lost+found", "#recycle", "x.jpg.sb-1a2b3c4d-Ab3dEf", "x.jpg.download"],
)  # fmt: skip
def test_what_lies_in_a_hidden_or_system_folder_is_ignored(folder: str) -> None:
    names = NameFilter()
    assert names.prunes(folder)
    assert names.ignores(f"{folder}/x.jpg")
    assert names.ignores(f"a/{folder}/b/x.jpg")
    assert not names.ignores("a/b/x.jpg")


@pytest.mark.parametrize("folder", ["a", "part", "x.part", "Thumbs.db", "4913", "day 1", "recycled"])
def test_an_ordinary_folder_is_not_pruned(folder: str) -> None:
    assert not NameFilter().prunes(folder)


def test_include_admits_names_and_nothing_else_whatever_their_case() -> None:
    names = NameFilter(include=["*.jpg", "IMG_?.png"])
    assert not names.ignores("x.jpg")
    assert not names.ignores("a/IMG_1.JPG")
    assert not names.ignores("img_1.png")
    assert names.ignores("img_12.png")
    assert names.ignores("x.jpg.txt")


def test_include_never_admits_what_the_built_in_list_names() -> None:
    names = NameFilter(include=["*.part", ".*", "*"])
    assert names.ignores("x.part")
    assert names.ignores(".x.jpg")


def test_exclude_is_added_to_the_built_in_list_and_goes_before_include() -> None:
    names = NameFilter(include=["*.jpg"], exclude=["thumb_*"])
    assert names.ignores("thumb_1.jpg")
    assert names.ignores("a/THUMB_1.jpg")
    assert names.ignores("x.jpg.part")
    assert not names.ignores("a_thumb_1.jpg")


@pytest.mark.parametrize(
    ("pattern", "matched", "unmatched"),
    [
        ("raw/*.jpg", "raw/x.jpg", "raw/a/x.jpg"),
        ("raw/*.jpg", "raw/X.JPG", "a/raw/x.jpg"),
        ("raw/**/x.jpg", "raw/a/b/x.jpg", "a/x.jpg"),
        ("raw/**/x.jpg", "raw/x.jpg", "raw/ax.jpg"),
        ("raw/**", "raw/a/x.jpg", "rawa/x.jpg"),
        ("**/x.jpg", "x.jpg", "ax.jpg"),
        ("a/?.jpg", "a/x.jpg", "a/xy.jpg"),
        ("/x.jpg", "x.jpg", "a/x.jpg"),
        ("a/b", "a/b/c/x.jpg", "c/a/b/x.jpg"),
        ("a/[xy].jpg", "a/y.jpg", "a/z.jpg"),
        ("[!x]*.jpg", "a.jpg", "x.jpg"),
        ("[a-c].jpg", "b.jpg", "d.jpg"),
        ("[z-a].jpg", "[z-a].jpg", "b.jpg"),
        ("[&&|~].jpg", "&.jpg", "a.jpg"),
        ("[.jpg", "[.jpg", "a.jpg"),
        ("a.jpg", "a.jpg", "abjpg"),
        ("old", "a/old/x.jpg", "older/x.jpg"),
        ("old/", "a/old/x.jpg", "a/old"),
    ],
)
def test_a_pattern_matches_a_name_or_with_a_slash_the_path(pattern: str, matched: str, unmatched: str) -> None:
    names = NameFilter(exclude=[pattern])
    assert names.ignores(matched)
    assert not names.ignores(unmatched)


def test_include_with_a_slash_is_matched_against_the_path() -> None:
    names = NameFilter(include=["cards/*/*.jpg", "*.png"])
    assert not names.ignores("cards/1/x.jpg")
    assert not names.ignores("deep/er/x.png")
    assert names.ignores("cards/x.jpg")
    assert names.ignores("x.jpg")


def test_an_excluded_folder_name_is_pruned_and_an_excluded_path_is_not() -> None:
    names = NameFilter(exclude=["old", "new/", "a/b"])
    assert names.prunes("old")
    assert names.prunes("NEW")
    assert not names.prunes("b")  # only below a
    assert names.ignores("a/b/x.jpg")
    assert not names.ignores("b/x.jpg")


def test_the_memory_of_the_last_folder_never_answers_for_another() -> None:
    names = NameFilter(exclude=["old"])
    answers = [names.ignores(path) for path in ("old/x.jpg", "x.jpg", "old/x.jpg", "new/x.jpg", "new/old/x.jpg")]
    assert answers == [True, False, True, False, True]


@given(st.text("ab*?", min_size=1, max_size=10), st.text("abAB.", min_size=1, max_size=10).map("x{}".format))
def test_a_pattern_of_any_stars_matches_as_a_shell_would(pattern: str, name: str) -> None:
    pattern = "x" + pattern.replace("**", "*")
    assert NameFilter(exclude=[pattern]).ignores(name) == (
        fnmatch.fnmatchcase(name.lower(), pattern) or NameFilter().ignores(name)
    )


@pytest.mark.parametrize("pattern", ["*a" * 9 + "b", "*[ab]?" * 9 + "!", "d/" + "*a" * 9 + "b"])
def test_no_name_keeps_a_pattern_of_many_stars_busy(pattern: str) -> None:
    """Tried every way, this takes longer than the universe will last."""
    started_s = time.thread_time()
    assert not NameFilter(exclude=[pattern]).ignores("d/" + "a" * 250)
    assert time.thread_time() - started_s < 0.5
