from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from pigeonholed_training.errors import Misconfigured, Unavailable
from pigeonholed_training.runs import RunFolder


def test_a_failed_write_leaves_the_old_content_and_no_litter(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.write("a.json", b"old")

    def full(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(Unavailable, match=r"No space left on device; make room"):
        run.writing("a.json", full)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a.json": b"old"}


def test_a_second_training_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    with (
        RunFolder(tmp_path / "run").claim(),
        pytest.raises(Unavailable, match="another training is using it"),
        RunFolder(tmp_path / "run").claim(),
    ):
        pass


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Misconfigured, match="Not a directory"), RunFolder(tmp_path / "file/run").claim():
        pass


def test_damaged_json_is_told_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_bytes(b"{")
    with pytest.raises(Misconfigured, match="--fresh"):
        RunFolder(tmp_path).read_json("settings.json")


def test_what_a_killed_training_left_half_written_is_removed(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    with run.claim():
        run.write("checkpoints/kept.keras", b"whole")
    (tmp_path / "run/checkpoints/.0123abcd-epoch-0002.keras").write_bytes(b"half")
    with run.claim():
        assert {path.name for path in (tmp_path / "run").rglob("*")} == {".lock", "checkpoints", "kept.keras"}
