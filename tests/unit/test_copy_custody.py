"""Custody by copying, on real folders: what goes wrong with one file is its own affair, and no original goes early."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from helpers import FakeClock, FakeLedger, make_arrival, make_tree, read_tree
from pigeonholed import claiming
from pigeonholed.claiming import Claimer, Feed
from pigeonholed.contents import is_same_content
from pigeonholed.copy_custody import Copying
from pigeonholed.copying import Copier, Unfit
from pigeonholed.disk import Disk
from pigeonholed.hold_folder import HOLD, HoldFolder
from pigeonholed.ignoring import NameFilter
from pigeonholed.images import Arrival, Fingerprint
from pigeonholed.metrics import Metrics
from pigeonholed.originals import Held, InPlace, copy_back
from pigeonholed.output import Output
from pigeonholed.patience import Patience
from pigeonholed.watching import Rules, Watch


@dataclass
class Desk:
    """An inbox whose files are held in it while they are copied, and a claimer for it."""

    inbox: Path
    output: Output
    patience: Patience
    ledger: FakeLedger = field(default_factory=FakeLedger)
    taken: list[Arrival] = field(default_factory=list)
    clock: FakeClock = field(default_factory=FakeClock)

    def __post_init__(self) -> None:
        make_tree(self.inbox, {})
        self.originals = Held(str(self.inbox), HoldFolder.in_inbox(str(self.inbox), private=True))
        self.custody = Copying(self.originals, self.output, self.ledger)  # type: ignore[arg-type]
        rules = Rules("camera", str(self.inbox), 0.0, 60.0, 30.0, True)
        self.feed = Feed(Watch(rules, NameFilter(), self.output.now_ns), self.output, self.custody)
        self.claimer = Claimer(
            [self.feed], self.ledger, self, self.patience, Metrics(), clock=self.clock  # type: ignore[arg-type]
        )  # fmt: skip

    def submit(self, arrivals: Sequence[Arrival]) -> None:
        """The engine's part."""
        self.taken.extend(arrivals)

    def turn(self, **tree: Any) -> dict[str, bytes]:
        """Drop files, and give the inbox a turn; what then waits in the work folder, by its path in the inbox."""
        make_tree(self.inbox, tree)
        self.claimer.turn()
        return {
            arrival.file.path: Path(self.output.work_path(arrival)).read_bytes()
            for arrival in self.taken
            if os.path.exists(self.output.work_path(arrival))
        }

    def left(self) -> dict[str, Any]:
        """What is in the inbox, but for the root of holds when nothing is in it."""
        tree = read_tree(self.inbox)
        if tree.get(HOLD) == {}:
            del tree[HOLD]
        return tree


@pytest.fixture
def desk(tmp_path: Path, output: Output, patience: Patience) -> Desk:
    return Desk(tmp_path / "inbox", output, patience)


def _failing(original: Callable[..., Any], code: int, when: Callable[..., bool], times: int = 1) -> Callable[..., Any]:
    """Fails so many times where `when` says so."""
    left = [times]

    def call(*arguments: Any, **more: Any) -> Any:
        if left[0] and when(*arguments):
            left[0] -= 1
            raise OSError(code, os.strerror(code))
        return original(*arguments, **more)

    return call


class TestCopying:
    def test_taken_files_are_copied_and_recorded_and_their_originals_go(self, desk: Desk) -> None:
        assert desk.turn(a=b"A", s={"b": b"B"}) == {"a": b"A", "s/b": b"B"}
        assert [step for step, _ in desk.ledger.steps] == ["claim", "ingest"]
        assert desk.left() == {"s": {}}

    def test_original_that_its_disk_denies_at_first_goes_all_the_same(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        denied = _failing(os.unlink, errno.ENOENT, lambda name: name.endswith(".held"), times=2)
        monkeypatch.setattr(os, "unlink", denied)
        assert desk.turn(a=b"A") == {"a": b"A"}
        assert desk.left() == {}

    def test_empty_inbox_costs_nothing(self, desk: Desk) -> None:
        assert desk.turn() == {}
        assert desk.ledger.steps == []
        assert read_tree(desk.inbox) == {}

    def test_what_is_copied_together_is_not_much_larger_than_a_bound(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """All of a batch waits for its last byte."""
        monkeypatch.setattr(claiming, "_COPIED_AT_ONCE_BYTES", 10)
        desk.turn(a=bytes(4), b=bytes(4), c=bytes(4), d=bytes(30), e=bytes(1))
        sizes = [sum(arrival.file.size for arrival in desk.taken if arrival.id in ids)
                 for ids in desk.ledger.named("ingest")]  # fmt: skip
        assert sum(sizes) == 43
        assert all(size <= 10 or size == 30 for size in sizes)

    def test_full_disk_in_mid_batch_is_waited_for_and_no_file_is_copied_twice(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        copied: list[str] = []
        copy = _failing(Copier.copy, errno.ENOSPC, lambda *_: len(copied) == 1)

        def counted(copier: Copier, source: int, target: str) -> Fingerprint:
            done: Fingerprint = copy(copier, source, target)
            copied.append(target)
            return done

        monkeypatch.setattr(Copier, "copy", counted)
        assert desk.turn(a=b"A", b=b"B") == {"a": b"A", "b": b"B"}
        assert len(set(copied)) == len(copied) == 2

    def test_copies_that_a_failed_sync_may_have_spoilt_are_made_anew(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sync = Disk.sync
        spoil = [True]

        def sync_or_spoil(disk: Disk, files: Sequence[str], folders: Sequence[str]) -> None:
            if files and spoil:
                spoil.clear()
                for path in files:
                    Path(path).write_bytes(b"?")  # the kernel dropped the page that it could not write
                raise OSError(errno.ENOSPC, "No space left on device")
            sync(disk, files, folders)

        monkeypatch.setattr(Disk, "sync", sync_or_spoil)
        assert desk.turn(a=b"A", b=b"B") == {"a": b"A", "b": b"B"}

    def test_names_that_could_not_be_synced_at_first_are_not_given_twice(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        failing = _failing(Disk.sync, errno.ENOSPC, lambda _disk, files, _folders: not files)
        monkeypatch.setattr(Disk, "sync", failing)
        assert desk.turn(a=b"A", b=b"B") == {"a": b"A", "b": b"B"}

    def test_copy_that_disappears_is_never_recorded_and_its_original_stays(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sync = Disk.sync

        def sync_then_remove(disk: Disk, files: Sequence[str], folders: Sequence[str]) -> None:
            sync(disk, files, folders)
            for path in files:
                os.unlink(path)

        monkeypatch.setattr(Disk, "sync", sync_then_remove)
        with pytest.raises(FileNotFoundError):
            desk.turn(a=b"A")
        assert desk.ledger.named("ingest") == []
        ((original, content),) = next(iter(read_tree(desk.inbox)[HOLD].values())).items()
        assert (original.endswith(".held"), content) == (True, b"A")

    def test_file_that_is_still_written_to_goes_back_and_its_neighbours_do_not(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        copy = Copier.copy

        def refuse_b(copier: Copier, source: int, target: str) -> Fingerprint:
            if os.pread(source, 1, 0) == b"B":
                raise Unfit("it was still being written to")
            return copy(copier, source, target)

        monkeypatch.setattr(Copier, "copy", refuse_b)
        assert desk.turn(a=b"A", b=b"B") == {"a": b"A"}
        assert desk.left() == {"b": b"B"}
        assert len(desk.ledger.named("vanished")) == 1
        assert desk.claimer.blocked() == []  # the next look finds it as it then is

    def test_file_that_cannot_be_read_is_tried_three_times_and_then_left_and_its_folder_blocked(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reads: list[int] = []
        copy = Copier.copy

        def fail_b(copier: Copier, source: int, target: str) -> Fingerprint:
            if os.pread(source, 1, 0) == b"B":
                reads.append(source)
                raise OSError(errno.EIO, "Input/output error")
            return copy(copier, source, target)

        monkeypatch.setattr(Copier, "copy", fail_b)
        assert desk.turn(a=b"A", s={"b": b"B"}) == {"a": b"A"}
        assert len(reads) == 3
        assert desk.left() == {"s": {"b": b"B"}}
        assert desk.claimer.blocked() == [str(desk.inbox / "s")]

    def test_original_that_cannot_be_removed_does_not_hold_its_copy_up(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is only in the way: the next start removes it."""
        is_held = lambda path, *_: str(path).endswith(".held")  # noqa: E731
        monkeypatch.setattr(os, "unlink", _failing(os.unlink, errno.EPERM, is_held))
        assert desk.turn(a=b"A") == {"a": b"A"}
        assert desk.ledger.named("ingest") == [[1]]

    def test_batch_that_came_to_nothing_leaves_no_folder_and_syncs_nothing(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its files were taken away by their owners between the look and the claim."""
        monkeypatch.setattr(
            Disk, "sync", lambda _disk, files, folders: pytest.fail("nothing to sync") if folders else 0
        )
        synced: list[str] = []
        claim = desk.ledger.claim

        def claim_then_remove(arrivals: Sequence[Arrival]) -> None:
            claim(arrivals)
            os.unlink(desk.inbox / "a")

        desk.ledger.claim = claim_then_remove  # type: ignore[method-assign]
        assert desk.turn(a=b"A") == {}
        assert synced == []
        assert read_tree(desk.inbox) == {HOLD: {}}
        assert desk.output.batch_folders() == []
        desk.custody.close()
        assert read_tree(desk.inbox) == {}

    def test_hold_folder_of_somebody_else_blocks_the_inbox_and_costs_no_row(self, desk: Desk) -> None:
        make_tree(desk.inbox, {HOLD: {}})
        (desk.inbox / HOLD).chmod(0o777)
        assert desk.turn(a=b"A") == {}
        assert desk.ledger.steps == []
        assert desk.output.batch_folders() == []
        assert desk.claimer.blocked() == [str(desk.inbox)]
        (desk.inbox / HOLD).rmdir()
        desk.clock.advance(61.0)
        assert desk.turn() == {"a": b"A"}


class TestHeld:
    def _held(self, desk: Desk, path: str = "s/x") -> Arrival:
        """An original that waits."""
        make_tree(desk.inbox, {path: b"A"})
        arrival = make_arrival(path, token="7" * 16)
        desk.originals.begin(arrival.token)
        desk.originals.take(arrival)
        return arrival

    def _give_back(self, desk: Desk, arrival: Arrival) -> dict[str, Any]:
        desk.originals.give_back(arrival, desk.output.disk)
        desk.originals.end(arrival.token)
        return desk.left()

    def test_name_that_was_taken_before_is_taken_again(self, desk: Desk) -> None:
        arrival = self._held(desk)
        assert not desk.originals.knows(arrival.file.path)
        assert desk.originals.fresh([arrival.file]) == [arrival.file]

    def test_file_goes_back_to_its_place(self, desk: Desk) -> None:
        assert self._give_back(desk, self._held(desk)) == {"s": {"x": b"A"}}

    def test_file_goes_back_beside_one_that_has_come_meanwhile(self, desk: Desk) -> None:
        arrival = self._held(desk)
        make_tree(desk.inbox, {"s": {"x": b"new"}})
        assert self._give_back(desk, arrival) == {"s": {"x": b"new", "x-1": b"A"}}

    def test_file_whose_folder_is_gone_goes_back_into_the_inbox_itself(self, desk: Desk) -> None:
        arrival = self._held(desk)
        (desk.inbox / "s").rmdir()
        assert self._give_back(desk, arrival) == {"x": b"A"}

    def test_lost_answer_to_giving_back_is_made_good_by_looking(self, desk: Desk) -> None:
        arrival = self._held(desk)
        desk.originals.give_back(arrival, desk.output.disk)
        assert self._give_back(desk, arrival) == {"s": {"x": b"A"}}

    def test_file_that_is_there_and_cannot_be_found_is_not_said_to_be_back(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        arrival = self._held(desk)
        monkeypatch.setattr(Disk, "rename_new", _failing(Disk.rename_new, errno.ENOENT, lambda *_: True))
        with pytest.raises(FileNotFoundError):
            desk.originals.give_back(arrival, desk.output.disk)
        assert desk.originals.has(arrival)

    def test_file_for_which_no_name_is_free_is_not_said_to_be_back(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        arrival = self._held(desk)
        monkeypatch.setattr(Disk, "rename_new", _failing(Disk.rename_new, errno.EEXIST, lambda *_: True, times=99))
        with pytest.raises(FileExistsError, match="no name is free"):
            desk.originals.give_back(arrival, desk.output.disk)
        assert desk.originals.has(arrival)


class TestInPlace:
    def _open(self, desk: Desk, arrival: Arrival) -> int:
        return InPlace(str(desk.inbox), None).open(arrival)  # type: ignore[arg-type]

    def test_file_that_is_gone_is_left_to_its_owner(self, desk: Desk) -> None:
        arrival = make_arrival("x", size=1)
        with pytest.raises(Unfit, match="gone"):
            self._open(desk, arrival)
        assert not InPlace(str(desk.inbox), None).has(arrival)  # type: ignore[arg-type]

    @pytest.mark.parametrize("content", [b"longer", b"B"])
    def test_file_that_changed_since_it_was_seen_is_a_new_one(self, desk: Desk, content: bytes) -> None:
        make_tree(desk.inbox, {"x": content})
        os.utime(desk.inbox / "x", ns=(0, 6))
        before = os.listdir("/proc/self/fd")
        with pytest.raises(Unfit, match="changed"):
            self._open(desk, make_arrival("x", size=1, mtime_ns=5))
        assert os.listdir("/proc/self/fd") == before


class TestCopyBack:
    @pytest.mark.parametrize("failing", ["copy", "sync", "rename_new"])
    def test_what_fails_on_the_way_back_leaves_the_filed_file_alone_and_no_half(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch, failing: str
    ) -> None:
        make_tree(Path(desk.output.root), {"cat": {"x": b"A"}})
        owner: Any = Copier if failing == "copy" else Disk
        monkeypatch.setattr(owner, failing, _failing(getattr(owner, failing), errno.EIO, lambda *_: True))
        source, target = os.path.join(desk.output.root, "cat/x"), str(desk.inbox / "x")
        with pytest.raises(OSError, match="Input/output error"):
            copy_back(source, target, str(desk.inbox), desk.output.disk, Copier())
        assert Path(source).read_bytes() == b"A"
        assert read_tree(desk.inbox) == {}

    @pytest.mark.parametrize("taken", [False, True])
    def test_file_that_cannot_be_renamed_back_to_another_mount_is_copied_there_and_never_over_another(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch, taken: bool
    ) -> None:
        filed = Path(desk.output.root, "cat/x")
        make_tree(Path(desk.output.root), {"cat": {"x": b"A"}})
        make_tree(desk.inbox, {"x": b"new"} if taken else {})
        monkeypatch.setattr(Disk, "rename_new", _failing(Disk.rename_new, errno.EXDEV, lambda *_: True))
        if taken:
            with pytest.raises(FileExistsError):
                desk.custody.put_back(str(filed), str(desk.inbox / "x"))
        else:
            desk.custody.put_back(str(filed), str(desk.inbox / "x"))
        assert filed.exists() == taken
        assert read_tree(desk.inbox) == {"x": b"new" if taken else b"A"}

    def test_only_another_mount_is_a_reason_to_copy_back(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        """A file that could not be renamed for another cause would be there twice."""
        make_tree(Path(desk.output.root), {"cat": {"x": b"A"}})
        monkeypatch.setattr(Disk, "rename_new", _failing(Disk.rename_new, errno.EACCES, lambda *_: True))
        with pytest.raises(PermissionError):
            desk.custody.put_back(os.path.join(desk.output.root, "cat/x"), str(desk.inbox / "x"))
        assert read_tree(desk.inbox) == {}

    def test_what_is_no_file_is_the_same_as_nothing(self, desk: Desk) -> None:
        make_tree(desk.inbox, {"x": b"A", "y": b"B", "folder": {}})
        os.mkfifo(desk.inbox / "pipe")
        before = os.listdir("/proc/self/fd")
        paths = {name: str(desk.inbox / name) for name in ("x", "y", "folder", "pipe")}
        same = {name for name, path in paths.items() if is_same_content(paths["x"], path)}
        assert same == {"x"}
        assert os.listdir("/proc/self/fd") == before
