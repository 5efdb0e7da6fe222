"""One output folder: its owner, its lock, its work folder."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers import make_arrival, make_tree, place_in_work, read_tree
from pigeonholed import output as outputs
from pigeonholed.disk import WAITED_FOR, Disk
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


def test_batch_folder_that_resists_is_removed_later(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = [output.make_batch_folder() for _ in range(4)]
    removed, refusals = os.rmdir, {tokens[0]: errno.EIO, tokens[1]: errno.EEXIST, tokens[2]: errno.ENOENT}

    def rmdir(path: str) -> None:
        if (code := refusals.pop(os.path.basename(path), None)) is not None:
            raise OSError(code, os.strerror(code))
        removed(path)

    monkeypatch.setattr(os, "rmdir", rmdir)
    for token in tokens:
        output.remove_batch_folder(token)
    assert sorted(output.batch_folders()) == sorted(tokens[:3])
    output.tidy()
    assert output.batch_folders() == []


def test_batch_folder_that_was_in_use_is_removed_when_the_output_is_closed(tmp_path: Path) -> None:
    output = Output.open(tmp_path, _OURS)
    token = output.make_batch_folder()
    (tmp_path / ".pigeonholed" / token / "file").touch()
    output.remove_batch_folder(token)
    (tmp_path / ".pigeonholed" / token / "file").unlink()
    output.close()
    assert {*read_tree(tmp_path)[".pigeonholed"]} == {"owner", "lock"}


class TestAway:
    """A mount that goes: nothing that seems to be missing there is lost, and everything is waited for."""

    @pytest.fixture
    def away(self, output: Output) -> Output:
        os.rename(output.root, f"{output.root}-away")
        os.mkdir(output.root)
        return output

    def _is_waited_for(self, action: Callable[[], object]) -> None:
        with pytest.raises(OSError, match="is away") as stale:
            action()
        assert stale.value.errno in WAITED_FOR

    def test_output_that_is_away_is_waited_for(self, away: Output) -> None:
        arrival = make_arrival()
        self._is_waited_for(away.require)
        self._is_waited_for(away.make_batch_folder)
        self._is_waited_for(lambda: away.status_of(arrival))

    def test_file_is_not_said_to_be_gone_from_its_inbox(self, away: Output, tmp_path: Path) -> None:
        make_tree(tmp_path / "inbox", {"x.png": b"A"})
        self._is_waited_for(lambda: away.take_in(str(tmp_path / "inbox/x.png"), make_arrival()))
        assert read_tree(tmp_path / "inbox") == {"x.png": b"A"}


def test_claimed_file_that_is_in_its_folders_listing_is_not_lost(
    output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network file system can answer ENOENT for a file that is there."""
    arrival = place_in_work(output, b"A")

    def not_there(path: str) -> os.stat_result:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)

    monkeypatch.setattr(os, "lstat", not_there)
    with pytest.raises(OSError, match="is there and cannot be found") as stale:
        output.status_of(arrival)
    assert stale.value.errno in WAITED_FOR


def test_claimed_file_that_is_gone_is_gone_with_or_without_its_folder(output: Output) -> None:
    arrival = make_arrival(token=output.make_batch_folder())
    for gone in (arrival, make_arrival(token="never made")):
        with pytest.raises(FileNotFoundError):
            output.status_of(gone)


def test_folder_that_cannot_be_made_in_an_output_that_is_there_is_no_fault_that_passes(
    output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_there(path: str, mode: int) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)

    monkeypatch.setattr(os, "mkdir", not_there)
    with pytest.raises(FileNotFoundError):
        output.make_batch_folder()


def test_output_that_turned_out_to_be_another_is_not_ours_at_the_next_start(tmp_path: Path) -> None:
    """Else files in flight would be called lost then, because nothing says any more that it is new."""
    output = Output.open(tmp_path / "sorted", "1" * 32)
    assert output.fresh
    output.disown()
    output.disown()
    output.close()
    again = Output.open(tmp_path / "sorted", "2" * 32)
    assert again.fresh
    again.close()


def test_probes_of_a_killed_process_are_removed_and_users_files_of_such_names_are_not(
    output: Output, tmp_path: Path
) -> None:
    ours, users = f".pigeonholed-{'0' * 16}.probe", f".pigeonholed-{'1' * 16}.probe"
    make_tree(tmp_path / "inbox", {ours: b"", users: b"a user's own"})
    assert output.check_source(str(tmp_path / "inbox"))
    assert read_tree(tmp_path / "inbox") == {users: b"a user's own"}


def test_inbox_folder_that_is_a_link_now_counts_as_gone(output: Output, tmp_path: Path) -> None:
    make_tree(tmp_path, {"outside": {"x.png": b"A"}, "inbox": {}})
    (tmp_path / "inbox/s").symlink_to(tmp_path / "outside")
    with pytest.raises(FileNotFoundError):
        output.take_in(str(tmp_path / "inbox/s/x.png"), make_arrival("s/x.png", token=output.make_batch_folder()))
    assert read_tree(tmp_path / "outside") == {"x.png": b"A"}


def test_inbox_that_renames_refuse_is_refused_and_not_copied(
    output: Output, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = make_tree(tmp_path / "inbox", {})

    def refuse(source: str, target: str) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(OutputRefused, match="cannot move files from the inbox"):
        output.check_source(str(inbox))
    assert read_tree(inbox) == {}
