"""Sidecars that are beside a picture, and those that are waited for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pigeonholed.companions import Company
from pigeonholed.ignoring import NameFilter
from pigeonholed.settling import Marks, Signature, signature_of

SETTLE_S = 2.0


class Beside:
    """The sidecars of `a.jpg`, and who writes to them."""

    def __init__(self, root: Path, settle_s: float, exclude: tuple[str, ...] = ()) -> None:
        self.root = root
        self.written_to: set[str] = set()
        self.marks = Marks(settle_s)
        names = NameFilter(exclude=exclude)
        self._company = Company("camera", str(root), (".xmp", ".json"), self.marks, self._is_open, names)

    def _is_open(self, full_path: str, _signature: Signature, _now_s: float) -> bool:
        return os.path.basename(full_path) in self.written_to

    def at(self, now_s: float) -> tuple[list[str], float]:
        """The names of those that are complete, and how long to wait for the others."""
        found, wait_s = self._company.beside("a.jpg", now_s)
        return [file.path for file in found], wait_s

    def taken(self) -> None:
        """The picture was taken, with what was beside it."""
        self._company.forget("a.jpg")


@pytest.fixture
def beside(tmp_path: Path) -> Beside:
    return Beside(tmp_path, SETTLE_S)


def test_one_that_has_just_changed_is_waited_for_as_long_as_it_must_rest(beside: Beside) -> None:
    (beside.root / "a.jpg.xmp").write_text("x")
    assert beside.at(100.0) == ([], SETTLE_S)
    assert beside.at(100.5) == ([], SETTLE_S - 0.5)
    assert beside.at(102.0) == (["a.jpg.xmp"], 0.0)


def test_the_longest_wait_counts(beside: Beside) -> None:
    (beside.root / "a.jpg.xmp").write_text("x")
    assert beside.at(100.0) == ([], SETTLE_S)
    (beside.root / "a.json").write_text("y")
    assert beside.at(101.5) == ([], SETTLE_S)
    assert beside.at(102.5) == (["a.jpg.xmp"], SETTLE_S - 1.0)


def test_one_that_changes_begins_anew(beside: Beside) -> None:
    (beside.root / "a.xmp").write_text("x")
    beside.at(100.0)
    (beside.root / "a.xmp").write_text("longer")
    assert beside.at(101.5) == ([], SETTLE_S)


def test_one_that_is_older_than_a_mark_needs_no_wait(beside: Beside) -> None:
    (beside.root / "a.xmp").write_text("x")
    changed_ns = signature_of(os.lstat(beside.root / "a.xmp")).ctime_ns
    beside.marks.add(100.0, changed_ns + 1)
    assert beside.at(100.0 + SETTLE_S) == (["a.xmp"], 0.0)


def test_one_that_is_written_to_is_waited_for(beside: Beside) -> None:
    (beside.root / "a.xmp").write_text("x")
    beside.at(100.0)
    beside.written_to.add("a.xmp")
    names, wait_s = beside.at(103.0)
    assert names == []
    assert wait_s > 0
    beside.written_to.clear()
    assert beside.at(103.0) == (["a.xmp"], 0.0)


def test_without_a_time_to_settle_none_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "a.jpg.json").write_text("x")
    assert Beside(tmp_path, 0.0).at(100.0) == (["a.jpg.json"], 0.0)


def test_what_is_no_file_is_left_alone(beside: Beside) -> None:
    (beside.root / "a.xmp").mkdir()
    (beside.root / "a.json").symlink_to("elsewhere")
    assert beside.at(100.0) == ([], 0.0)


def test_what_the_inbox_excludes_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a.xmp").write_text("x")
    assert Beside(tmp_path, 0.0, exclude=("*.xmp",)).at(100.0) == ([], 0.0)


def test_what_was_taken_is_forgotten(beside: Beside) -> None:
    (beside.root / "a.xmp").write_text("x")
    beside.at(100.0)
    beside.taken()
    assert beside.at(101.0) == ([], SETTLE_S)
