"""Which custody an inbox gets, on real mounts: by trying, when its folder is there."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers import FakeLedger, make_arrival, make_tree, read_tree
from pigeonholed.copy_custody import Copying
from pigeonholed.custody import Custody, Renaming
from pigeonholed.hold_folder import HOLD, HoldFolder
from pigeonholed.output import Output, OutputRefused
from pigeonholed.patience import Patience
from pigeonholed.probes import probe_name
from pigeonholed.probing import Probed, choose
from pigeonholed.settings import InboxSettings


def _inbox(path: Path, **more: Any) -> InboxSettings:
    return InboxSettings(name="camera", path=path, output=path.parent / "sorted", model="m", **more)


def _choose(inbox: InboxSettings, output: Output) -> Custody:
    return choose(inbox, output, FakeLedger())  # type: ignore[arg-type]


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "inbox", {})


def test_inbox_beside_its_output_is_renamed_from(inbox: Path, output: Output) -> None:
    assert isinstance(_choose(_inbox(inbox), output), Renaming)


@pytest.mark.parametrize("more", [{"hostile": True}, {"action": "copy"}])
def test_inbox_whose_droppers_or_files_say_so_is_copied_from(inbox: Path, output: Output, more: dict[str, Any]) -> None:
    custody = _choose(_inbox(inbox, **more), output)
    assert isinstance(custody, Copying)
    assert custody.keeps == ("action" in more)
    assert read_tree(inbox) == {}


def test_inbox_on_another_mount_is_copied_from_and_nothing_stays_of_the_trial(
    other_mount: Path, output: Output
) -> None:
    assert isinstance(_choose(_inbox(other_mount), output), Copying)
    assert read_tree(other_mount) == {}


def test_probe_of_a_process_that_was_killed_is_removed_and_nothing_that_has_bytes(
    other_mount: Path, output: Output
) -> None:
    stale, other = "00112233445566aa", "00112233445566bb"
    make_tree(other_mount, {HOLD: {stale: {probe_name(stale): b""}, other: {probe_name(other): b"somebody's"}}})
    (other_mount / HOLD).chmod(0o700)
    assert isinstance(_choose(_inbox(other_mount), output), Copying)
    assert read_tree(other_mount) == {HOLD: {other: {probe_name(other): b"somebody's"}}}


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOENT])
def test_probe_that_a_disk_does_not_give_back_at_once_goes_all_the_same(
    other_mount: Path, output: Output, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    unlink, failed = os.unlink, list[str]()

    def fail_once(path: str, *, dir_fd: int | None = None) -> None:
        if path not in failed:
            failed.append(path)
            raise OSError(code, os.strerror(code), path)
        unlink(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", fail_once)
    assert not output.check_source(str(other_mount))
    assert read_tree(other_mount) == {}
    assert len(failed) == 3


def test_inbox_on_another_mount_with_a_hold_folder_of_somebody_else_is_refused(
    inbox: Path, output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its originals would wait where others can reach them."""
    monkeypatch.setattr(Output, "check_source", lambda _output, _inbox: False)
    make_tree(inbox, {HOLD: {}})
    (inbox / HOLD).chmod(0o777)
    with pytest.raises(OutputRefused, match="remove that folder"):
        _choose(_inbox(inbox, hostile=True), output)


def test_inbox_that_cannot_be_looked_into_is_refused(
    inbox: Path, output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    with pytest.raises(OutputRefused, match="cannot read the inbox"):
        _choose(_inbox(inbox, action="copy"), output)


class TestProbed:
    @pytest.fixture
    def probed(self, inbox: Path, output: Output) -> Iterator[Probed]:
        probed = Probed(_inbox(inbox, hostile=True), output, FakeLedger())  # type: ignore[arg-type]
        yield probed
        probed.close()

    def test_inbox_that_is_away_is_tried_when_it_is_there(self, inbox: Path, output: Output) -> None:
        inbox.rmdir()
        probed = Probed(_inbox(inbox, hostile=True), output, FakeLedger())  # type: ignore[arg-type]
        assert not probed.copies
        assert not probed.knows("x")
        probed.forget()
        probed.tidy()
        probed.close()
        inbox.mkdir()
        token = output.make_batch_folder()
        probed.begin(token)
        assert probed.copies
        probed.end(token)
        probed.close()

    def test_it_does_what_was_chosen(self, inbox: Path, output: Output, probed: Probed, patience: Patience) -> None:
        make_tree(inbox, {"x": b"A"})
        arrival = make_arrival("x", token=output.make_batch_folder())
        assert not probed.keeps
        assert probed.fresh([arrival.file]) == [arrival.file]
        probed.begin(arrival.token)
        probed.take(arrival)
        assert probed.has(arrival)
        assert probed.ingest([arrival], patience).taken == [arrival]
        probed.end(arrival.token)
        probed.tidy()
        probed.forget()
        assert not probed.knows("x")
        assert Path(output.work_path(arrival)).read_bytes() == b"A"
        probed.put_back(output.work_path(arrival), str(inbox / "x"))
        assert read_tree(inbox) == {"x": b"A"}

    def test_closed_it_leaves_nothing_in_the_inbox(self, other_mount: Path, output: Output) -> None:
        inbox = make_tree(other_mount / "inbox", {})
        probed = Probed(_inbox(inbox), output, FakeLedger())  # type: ignore[arg-type]
        token = output.make_batch_folder()
        probed.begin(token)
        assert read_tree(inbox).keys() == {HOLD}
        probed.end(token)
        probed.close()
        assert read_tree(inbox) == {}

    def test_mount_that_comes_between_is_found_out_by_the_next_batch(
        self, inbox: Path, output: Output, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        probed = Probed(_inbox(inbox), output, FakeLedger())  # type: ignore[arg-type]
        assert not probed.copies
        make_tree(inbox, {"x": b"A"})
        arrival = make_arrival("x", token=output.make_batch_folder())
        rename = os.rename

        def refuse(source: str, target: str, **folders: Any) -> None:
            if "dst_dir_fd" not in folders:  # the hold is on the inbox's own mount
                raise OSError(errno.EXDEV, "Invalid cross-device link")
            rename(source, target, **folders)

        monkeypatch.setattr(os, "rename", refuse)
        probed.begin(arrival.token)
        with pytest.raises(OSError, match="cross-device"):
            probed.take(arrival)
        probed.begin(arrival.token)
        assert probed.copies
        probed.take(arrival)
        assert probed.has(arrival)
        assert HoldFolder.in_inbox(str(inbox), private=True).has(arrival)
        probed.end(arrival.token)


def test_batch_folders_of_an_output_are_neither_made_nor_removed_for_what_is_held_there(output: Output) -> None:
    hold = HoldFolder.in_output(output)
    with pytest.raises(FileNotFoundError):
        hold.folder("0" * 16)
    token = output.make_batch_folder()
    os.chmod(output.private, 0o750)  # who may look into the output is for its owner to say
    hold.folder(token)
    hold.remove(token)
    hold.remove_root()
    assert output.batch_folders() == [token]


@pytest.mark.parametrize("ours", [True, False])
def test_hold_folder_that_somebody_else_has_closed_holds_nothing_of_ours(
    inbox: Path, monkeypatch: pytest.MonkeyPatch, ours: bool
) -> None:
    """Our own that cannot be looked into is another matter: nobody knows what is in it."""
    make_tree(inbox, {HOLD: {}})
    hold = HoldFolder.in_inbox(str(inbox), private=False)
    arrival = make_arrival("x", token="t")
    lstat = os.lstat

    def refuse(path: str) -> os.stat_result:
        if path.endswith(".held"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return lstat(path)

    monkeypatch.setattr(os, "lstat", refuse)
    if ours:
        with pytest.raises(PermissionError):
            hold.has(arrival)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        assert not hold.has(arrival)
