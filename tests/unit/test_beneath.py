"""Folders below a root: made where they are missing, and never reached through a link."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from helpers import make_tree, read_tree
from pigeonholed import beneath


def test_folder_is_made_below_the_root_and_nowhere_else(tmp_path: Path) -> None:
    make_tree(tmp_path, {"root": {}})
    with beneath.folder(str(tmp_path / "root"), "a/b", make=True) as fd:
        os.mkdir("c", dir_fd=fd)
    assert read_tree(tmp_path) == {"root": {"a": {"b": {"c": {}}}}}


def test_missing_folder_is_not_made_unasked(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), beneath.folder(str(tmp_path), "a"):
        pass


def test_root_itself_may_be_reached_through_a_link(tmp_path: Path) -> None:
    make_tree(tmp_path, {"disk": {"a": {}}})
    (tmp_path / "link").symlink_to("disk")
    with beneath.folder(str(tmp_path / "link"), "a") as fd:
        assert os.path.samestat(os.fstat(fd), os.stat(tmp_path / "disk/a"))
        assert os.path.samestat(os.stat(beneath.path_of(fd)), os.stat(tmp_path / "disk/a"))


@pytest.mark.parametrize("make", [False, True])
@pytest.mark.parametrize(
    "way", ["out", "out/deep", "in/out", "file", "file/x", "..", "in/../..", "/etc", "in//x", "./in"]
)
def test_nothing_but_folders_leads_on(tmp_path: Path, way: str, make: bool) -> None:
    make_tree(tmp_path, {"outside": {"deep": {}}, "root": {"in": {}, "file": b"x"}})
    for link in ("out", "in/out"):
        (tmp_path / "root" / link).symlink_to(tmp_path / "outside")
    with pytest.raises(NotADirectoryError), beneath.folder(str(tmp_path / "root"), way, make=make):
        pass
    assert read_tree(tmp_path / "outside") == {"deep": {}}


def test_open_folder_stays_itself_when_its_name_is_taken_by_a_link(tmp_path: Path) -> None:
    make_tree(tmp_path, {"outside": {}, "root": {"a": {}}})
    with beneath.folder(str(tmp_path / "root"), "a") as fd:
        os.rename(tmp_path / "root/a", tmp_path / "root/b")
        (tmp_path / "root/a").symlink_to(tmp_path / "outside")
        os.mkdir("made", dir_fd=fd)
    assert read_tree(tmp_path / "outside") == {}
    assert read_tree(tmp_path / "root/b") == {"made": {}}


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    make_tree(tmp_path, {"root": {"a": {"b": {}}, "file": b"x"}})
    before = os.listdir("/proc/self/fd")
    for way in ("a/b", "a/b/new/er", "file", "a/.."):
        try:
            with beneath.folder(str(tmp_path / "root"), way, make=True):
                pass
        except NotADirectoryError:
            pass
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EOPNOTSUPP])
def test_file_system_that_cannot_sync_folders_keeps_their_entries_its_own_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    _fsync_fails(monkeypatch, code)
    with beneath.folder(str(tmp_path), "") as fd:
        beneath.sync_folder(fd)


def test_disk_that_fails_to_sync_a_folder_is_never_taken_for_one_that_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fsync_fails(monkeypatch, errno.EIO)
    with beneath.folder(str(tmp_path), "") as fd, pytest.raises(OSError, match="Input/output error"):
        beneath.sync_folder(fd)


def _fsync_fails(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def fsync(_fd: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fsync)
