"""One output folder: its owner, its lock, its work folder."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from helpers import make_arrival, make_tree, read_tree
from pigeonholed import output as outputs
from pigeonholed.disk import Disk
from pigeonholed.output import Output, OutputHeld, OutputRefused

_OURS, _THEIRS = "a" * 32, "b" * 32


def test_at_rest_it_holds_only_owner_and_lock(tmp_path: Path) -> None:
    Output.open(tmp_path / "sorted", _OURS).close()
    assert read_tree(tmp_path / "sorted") == {".pigeonholed": {"owner": f"{_OURS}\n".encode(), "lock": b""}}
    assert os.stat(tmp_path / "sorted/.pigeonholed").st_mode & 0o077 == 0


def test_its_own_database_may_open_it_again(tmp_path: Path) -> None:
    Output.open(tmp_path, _OURS).close()
    Output.open(tmp_path, _OURS).close()


def test_another_database_is_refused_and_leaves_no_lock(tmp_path: Path) -> None:
    Output.open(tmp_path, _OURS).close()
    with pytest.raises(OutputRefused, match="belongs to another database"):
        Output.open(tmp_path, _THEIRS)
    Output.open(tmp_path, _OURS).close()


def test_output_in_use_is_refused_naming_the_process(tmp_path: Path) -> None:
    output = Output.open(tmp_path, _OURS)
    with pytest.raises(OutputHeld, match=str(os.getpid())):
        Output.open(tmp_path, _OURS)
    output.close()


def test_without_an_identity_nothing_is_claimed(tmp_path: Path) -> None:
    Output.open(tmp_path, None).close()
    assert "owner" not in read_tree(tmp_path)[".pigeonholed"]
    Output.open(tmp_path, _OURS).close()
    Output.open(tmp_path, None).close()


def test_output_that_cannot_be_made_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputRefused, match="cannot write to the output") as refused:
        Output.open(tmp_path / "file/sorted", _OURS)
    assert "\n" not in str(refused.value)


def test_full_disk_is_one_sentence_and_leaves_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(outputs, "write_file", fail)
    with pytest.raises(OutputRefused, match="No space left on device"):
        Output.open(tmp_path, _OURS)
    monkeypatch.undo()
    Output.open(tmp_path, _OURS).close()


def test_leftovers_of_a_process_killed_while_it_opened_are_removed(tmp_path: Path) -> None:
    Output.open(tmp_path, _OURS).close()
    before = read_tree(tmp_path)
    probe = ".pigeonholed-0123456789abcdef.probe"
    make_tree(tmp_path, {probe: b"", ".pigeonholed": {probe: b"", ".owner.0123456789ab.tmp": b"half"}})
    Output.open(tmp_path, _OURS).close()
    assert read_tree(tmp_path) == before


def test_batch_folders_are_private_distinct_and_listed(output: Output) -> None:
    tokens = {output.make_batch_folder() for _ in range(3)}
    assert len(tokens) == 3
    assert set(output.batch_folders()) == tokens
    assert all(os.stat(output.batch_folder(token)).st_mode & 0o077 == 0 for token in tokens)


def test_batch_folder_goes_only_when_its_last_file_has_left(output: Output) -> None:
    token = output.make_batch_folder()
    arrival = make_arrival(token=token)
    path = Path(output.work_path(arrival))
    assert path.parent == Path(output.batch_folder(token))
    path.touch()
    output.remove_batch_folder(token)
    assert output.batch_folders() == [token]
    path.unlink()
    output.remove_batch_folder(token)
    output.remove_batch_folder(token)
    assert output.batch_folders() == []


def test_source_is_probed_by_real_renames_and_nothing_stays(output: Output, tmp_path: Path) -> None:
    make_tree(tmp_path / "inbox", {"a.png": b"1"})
    before = read_tree(output.root)
    output.check_source(str(tmp_path / "inbox"))
    assert read_tree(tmp_path / "inbox") == {"a.png": b"1"}
    assert read_tree(output.root) == before


def test_inbox_on_another_mount_is_found_out_by_renaming(
    output: Output, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = make_tree(tmp_path / "inbox", {})

    def refuse(source: str, target: str) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "rename", refuse)
    assert output.check_source(str(inbox)) is False
    monkeypatch.undo()
    assert output.check_source(str(inbox)) is True
    assert read_tree(inbox) == {}


def test_output_that_takes_no_files_is_refused_and_nothing_stays(
    output: Output, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = make_tree(tmp_path / "inbox", {})
    before = read_tree(output.root)

    def refuse(_self: Disk, _source: str, _target: str) -> None:
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Disk, "rename_new", refuse)
    with pytest.raises(OutputRefused, match="Permission denied"):
        output.check_source(str(inbox))
    assert (read_tree(inbox), read_tree(output.root)) == ({}, before)


def test_inbox_that_cannot_be_written_is_refused(output: Output, tmp_path: Path) -> None:
    with pytest.raises(OutputRefused, match="cannot take files out of the inbox"):
        output.check_source(str(tmp_path / "missing"))


def test_sticky_inbox_of_another_user_is_refused_with_the_remedy(
    output: Output, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = make_tree(tmp_path / "inbox", {})
    inbox.chmod(0o1777)
    assert output.check_source(str(inbox))  # our own
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(OutputRefused, match="chmod -t"):
        output.check_source(str(inbox))
    assert read_tree(inbox) == {}
    inbox.chmod(0o777)
    assert output.check_source(str(inbox))


def test_time_is_that_of_the_file_system(output: Output) -> None:
    first = output.now_ns()
    assert first <= output.now_ns()
    assert os.stat(os.path.join(output.private, "lock")).st_ctime_ns >= first
    assert output.free_bytes() > 0
