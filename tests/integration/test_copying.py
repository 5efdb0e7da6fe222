"""Files that are copied rather than renamed: what a crash may leave, what a dropper may do, what comes back.

The first part is a table as in `test_recovery`: a row, the places of its original and its copy, and what the next start
makes of them. The second part is the real program.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine

from helpers import fingerprint_of, make_arrival, make_tree, png, read_tree, recovered
from mounts import another_mount
from pigeonholed import memory, recovery, tables
from pigeonholed.copy_custody import Copying
from pigeonholed.custody import Custody, Renaming
from pigeonholed.delivery import Delivery
from pigeonholed.entries import Copied, Copy, Plan
from pigeonholed.hold_folder import HOLD, HoldFolder, held_name
from pigeonholed.holding import Holds
from pigeonholed.images import Arrival, Fingerprint, Placement, Prediction
from pigeonholed.ledger import Ledger
from pigeonholed.memory import Memory, signature_of
from pigeonholed.originals import Held, InPlace
from pigeonholed.output import Output
from pigeonholed.patience import Patience
from pigeonholed.placing import Placer
from pigeonholed.returning import Returner
from running import HOSTILE, KEEPING, OTHER_MOUNT, Workspace, picture, until

CONTENT = png()
SHA256 = hashlib.sha256(CONTENT).hexdigest()
TOKEN = "7" * 16
MTIME_NS = 5 * 10**9


@dataclass
class Desk:
    """An inbox, an output and a ledger, as a process finds them at its start."""

    inbox: Path
    output: Output
    ledger: Ledger
    db: Engine
    filed: list[int] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        make_tree(self.inbox, {})
        self.hold = HoldFolder.in_inbox(str(self.inbox), private=True)
        self.custody: Custody = Copying(Held(str(self.inbox), self.hold), self.output, self.ledger)

    def claimed(self, number: int = 1) -> Arrival:
        arrival = make_arrival("s/x.png", number, size=len(CONTENT), mtime_ns=MTIME_NS, token=TOKEN)
        self.ledger.claim([arrival])
        os.makedirs(self.output.batch_folder(TOKEN), exist_ok=True)
        return arrival

    def ingested(self, number: int = 1) -> Arrival:
        arrival = self.claimed(number)
        self.ledger.ingest([Copy(arrival, Fingerprint(SHA256, len(CONTENT), MTIME_NS))])
        return arrival

    def planned(self, number: int = 1) -> Arrival:
        arrival = self.ingested(number)
        prediction = Prediction("tiny", 1, (("cat", 0.9), ("dog", 0.1)))
        self.ledger.plan([Plan(arrival, fingerprint_of(arrival, SHA256), Placement.SORTED, "cat/s/x.png", prediction)])
        return arrival

    def put(self, path: str | Path, content: bytes = CONTENT) -> None:
        make_tree(Path("/"), {str(path).lstrip("/"): content})
        os.utime(path, ns=(0, MTIME_NS))

    def hold_original(self, arrival: Arrival, root: str | None = None, content: bytes = CONTENT) -> Path:
        held = Path(root or self.hold.root, TOKEN, held_name(arrival))
        self.put(held, content)
        os.chmod(os.path.dirname(held.parent), 0o700)
        return held

    def work(self, arrival: Arrival) -> Path:
        return Path(self.output.work_path(arrival))

    def delivery(self) -> dict[str, Delivery]:
        return {"camera": Delivery(str(self.inbox), self.output, Placer(), self.custody)}

    def recover(self) -> list[int]:
        """As a new process does; its books balance, and what it gives back is what is in flight."""
        return [arrival.id for arrival in recovered(self.ledger, self.delivery(), self.filed, self.lost)[0]]

    def status(self) -> str:
        (row,) = self.rows()
        return str(row["status"])

    def rows(self) -> list[dict[str, Any]]:
        with self.db.connect() as connection:
            return [dict(row) for row in connection.execute(sa.select(tables.images)).mappings()]


@pytest.fixture
def desk(tmp_path: Path, output: Output, ledger: Ledger, db: Engine) -> Desk:
    return Desk(tmp_path / "inbox", output, ledger, db)


def _failing_on(call: Callable[..., Any], name: str, code: int) -> Callable[..., Any]:
    """The same call, but it fails on paths that end so."""

    def failing(path: Any, *arguments: Any, **named: Any) -> Any:
        if isinstance(path, str) and path.endswith(name):
            raise OSError(code, os.strerror(code))
        return call(path, *arguments, **named)

    return failing


class TestHeld:
    @pytest.mark.parametrize("left", ["nothing", "half", "whole"])
    @pytest.mark.parametrize("where", ["inbox", "output"])
    def test_original_is_the_truth_until_its_copy_is_recorded(self, desk: Desk, left: str, where: str) -> None:
        arrival = desk.claimed()
        held = desk.hold_original(arrival, None if where == "inbox" else desk.output.private)
        if left == "half":
            desk.put(f"{desk.work(arrival)}.part", CONTENT[:9])
        elif left == "whole":
            desk.put(desk.work(arrival), CONTENT[:9])  # its name does not help where a power cut took its bytes
        assert desk.recover() == [1]
        assert desk.work(arrival).read_bytes() == CONTENT
        assert os.lstat(desk.work(arrival)).st_mtime_ns == MTIME_NS
        assert not held.exists()
        assert os.listdir(desk.output.batch_folder(TOKEN)) == [arrival.key]
        assert (desk.status(), desk.rows()[0]["sha256"]) == ("ingested", SHA256)
        assert read_tree(desk.inbox) == {}

    def test_original_is_found_though_the_settings_say_renaming_now(self, desk: Desk) -> None:
        arrival = desk.claimed()
        desk.hold_original(arrival)
        desk.custody = Renaming(str(desk.inbox), desk.output)
        assert desk.recover() == [1]
        assert desk.work(arrival).read_bytes() == CONTENT

    def test_renamed_file_stays_what_it_is_though_the_settings_say_copying_now(self, desk: Desk) -> None:
        arrival = desk.claimed()
        desk.put(desk.work(arrival))
        assert desk.recover() == [1]
        assert desk.work(arrival).read_bytes() == CONTENT
        assert desk.status() == "claimed"

    def test_claim_that_never_happened_is_made_and_copied(self, desk: Desk) -> None:
        arrival = desk.claimed()
        desk.put(desk.inbox / "s/x.png")
        assert desk.recover() == [1]
        assert desk.work(arrival).read_bytes() == CONTENT
        assert read_tree(desk.inbox) == {"s": {}}

    def test_original_that_a_power_cut_put_back_into_the_inbox_is_taken_again_and_its_copy_made_anew(
        self, desk: Desk
    ) -> None:
        """Its claim was not durable yet, its copy was. Both would be filed."""
        arrival = desk.claimed()
        desk.put(desk.inbox / "s/x.png")
        desk.put(desk.work(arrival))
        assert desk.recover() == [1]
        assert desk.work(arrival).read_bytes() == CONTENT
        assert read_tree(desk.inbox) == {"s": {}}
        assert (desk.status(), desk.rows()[0]["sha256"]) == ("ingested", SHA256)

    def test_the_same_goes_for_an_original_that_was_replaced_just_before_its_claim(self, desk: Desk) -> None:
        """Its row knows the time of the one before: what was copied is what counts."""
        arrival = desk.claimed()
        desk.put(desk.inbox / "s/x.png")
        os.utime(desk.inbox / "s/x.png", ns=(0, MTIME_NS + 1))
        desk.put(desk.work(arrival))
        assert desk.recover() == [1]
        assert read_tree(desk.inbox) == {"s": {}}
        assert desk.rows()[0]["mtime_ns"] == MTIME_NS + 1

    def test_copy_whose_original_was_replaced_since_is_used_and_the_new_file_is_a_new_arrival(self, desk: Desk) -> None:
        arrival = desk.claimed()
        desk.put(desk.inbox / "s/x.png", b"another")
        desk.put(desk.work(arrival))
        assert desk.recover() == [1]
        assert desk.work(arrival).read_bytes() == CONTENT
        assert read_tree(desk.inbox) == {"s": {"x.png": b"another"}}

    def test_copy_is_used_where_its_original_can_not_be_taken_again(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is all that we have in hand; the original is a new arrival when it can be taken."""
        arrival = desk.claimed()
        desk.put(desk.inbox / "s/x.png")
        desk.put(desk.work(arrival))

        def refuse(_originals: Held, _arrival: Arrival) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(Held, "take", refuse)
        assert desk.recover() == [1]
        assert desk.work(arrival).read_bytes() == CONTENT
        assert read_tree(desk.inbox)["s"] == {"x.png": CONTENT}

    def test_half_a_copy_beside_what_is_used_does_not_stay(self, desk: Desk) -> None:
        arrival = desk.claimed()
        desk.put(desk.work(arrival))
        desk.put(f"{desk.work(arrival)}.part", CONTENT[:9])
        assert desk.recover() == [1]
        assert os.listdir(desk.output.batch_folder(TOKEN)) == [arrival.key]

    def test_folder_of_an_original_that_is_gone_does_not_stay_in_the_inbox(self, desk: Desk) -> None:
        """Killed between the removal of the one and of the other."""
        arrival = desk.ingested()
        desk.put(desk.work(arrival))
        make_tree(desk.inbox, {HOLD: {TOKEN: {}}})
        assert desk.recover() == [1]
        assert read_tree(desk.inbox) == {}

    def test_half_of_what_was_being_put_back_does_not_stay_in_the_inbox(self, desk: Desk) -> None:
        make_tree(desk.inbox, {HOLD: {f"{TOKEN}.part": CONTENT[:9], "a user's own": b"x"}})
        desk.recover()
        assert read_tree(desk.inbox) == {HOLD: {"a user's own": b"x"}}

    def test_original_that_cannot_be_copied_goes_back_and_its_row_ends(self, desk: Desk) -> None:
        arrival = desk.claimed()
        held = desk.hold_original(arrival)
        held.unlink()
        held.symlink_to("/etc/hostname")
        make_tree(desk.inbox, {"s": {}})
        assert desk.recover() == []
        assert desk.status() == "vanished"
        assert os.readlink(desk.inbox / "s/x.png") == "/etc/hostname"
        assert desk.output.batch_folders() == []

    def test_recorded_copy_stands_and_its_original_goes(self, desk: Desk) -> None:
        arrival = desk.ingested()
        desk.hold_original(arrival, content=b"changed by a dropper who kept it open")
        desk.put(desk.work(arrival))
        assert desk.recover() == [1]
        assert desk.work(arrival).read_bytes() == CONTENT
        assert read_tree(desk.inbox) == {}

    def test_recorded_copy_that_is_gone_is_made_again_while_there_is_an_original(self, desk: Desk) -> None:
        arrival = desk.ingested()
        desk.hold_original(arrival)
        assert desk.recover() == [1]
        assert desk.work(arrival).read_bytes() == CONTENT

    def test_recorded_copy_that_a_disk_does_not_show_is_not_lost(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        arrival = desk.ingested()
        desk.put(desk.work(arrival))
        with monkeypatch.context() as failing:
            failing.setattr(os, "lstat", _failing_on(os.lstat, arrival.key, errno.EIO))
            with pytest.raises(OSError, match="Input/output error"):
                desk.recover()
        assert (desk.status(), desk.lost) == ("ingested", [])
        assert desk.recover() == [1]

    def test_original_that_resists_is_removed_later(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        arrival = desk.claimed()
        held = desk.hold_original(arrival)
        with monkeypatch.context() as failing:
            failing.setattr(os, "unlink", _failing_on(os.unlink, ".held", errno.EACCES))
            assert desk.custody.ingest([arrival], Patience()).taken == [arrival]
            desk.custody.tidy()
            assert held.exists()
        desk.custody.tidy()
        desk.custody.close()
        assert read_tree(desk.inbox) == {}

    def test_place_of_a_batch_of_which_nothing_came_goes(self, desk: Desk) -> None:
        desk.custody.begin(TOKEN)
        desk.custody.end(TOKEN)
        assert os.listdir(desk.hold.root) == []

    def test_original_goes_back_under_its_name_or_stays_where_it_is(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        arrival = desk.claimed()
        held = desk.hold_original(arrival)
        make_tree(desk.inbox, {"s": {}})
        originals = Held(str(desk.inbox), desk.hold)
        with monkeypatch.context() as failing:
            failing.setattr(os, "open", _failing_on(os.open, "s", errno.EMFILE))
            with pytest.raises(OSError, match="Too many open files"):
                originals.give_back(arrival, desk.output.disk)
        assert held.exists()
        originals.give_back(arrival, desk.output.disk)
        assert (desk.inbox / "s/x.png").exists()

    def test_recorded_copy_that_is_gone_without_an_original_is_lost_and_that_is_said(self, desk: Desk) -> None:
        desk.ingested()
        assert desk.recover() == []
        assert (desk.status(), desk.lost) == ("lost", [1])

    @pytest.mark.parametrize("moved", [False, True])
    def test_original_that_a_power_cut_brought_back_goes_when_its_file_is_filed(self, desk: Desk, moved: bool) -> None:
        arrival = desk.planned()
        desk.put(Path(desk.output.root, "cat/s/x.png") if moved else desk.work(arrival))
        desk.hold_original(arrival)
        desk.hold_original(arrival, desk.output.private)
        assert desk.recover() == []
        assert (desk.status(), desk.filed) == ("filed", [1])
        assert read_tree(desk.inbox) == {}
        assert desk.output.batch_folders() == []

    def test_original_that_no_row_explains_is_never_touched(self, desk: Desk) -> None:
        held = desk.hold_original(make_arrival(number=99))
        other = desk.hold_original(make_arrival(number=1))
        desk.ledger.claim(
            [replace(make_arrival("y.png", 1, token="another"), key="f" * 32)]
        )  # the id of a row, another key
        desk.recover()
        assert held.read_bytes() == other.read_bytes() == CONTENT

    def test_original_that_was_out_of_sight_when_its_row_ended_goes_back(self, desk: Desk) -> None:
        """Its inbox was an empty mount point at the last start."""
        arrival = desk.claimed()
        assert desk.recover() == []
        assert desk.status() == "vanished"
        desk.hold_original(arrival)
        make_tree(desk.inbox, {"s": {}})
        assert desk.recover() == []
        assert read_tree(desk.inbox) == {"s": {"x.png": CONTENT}}

    def test_nobody_says_what_became_of_a_file_while_its_inbox_is_away(self, desk: Desk) -> None:
        arrival = desk.claimed()
        held = desk.hold_original(arrival)
        desk.inbox.rename(desk.inbox.with_name("away"))
        assert desk.recover() == []
        assert desk.status() == "claimed"
        desk.inbox.with_name("away").rename(desk.inbox)
        assert held.exists()
        assert desk.recover() == [1]


class TestKept:
    @pytest.fixture
    def desk(self, desk: Desk) -> Desk:
        known = Memory("camera", str(desk.inbox), desk.ledger)
        desk.custody = Copying(InPlace(str(desk.inbox), known), desk.output, desk.ledger)
        return desk

    def fresh(self, desk: Desk) -> list[str]:
        """What would be taken, asked by a process that has just begun."""
        known = Memory("camera", str(desk.inbox), desk.ledger)
        status = os.lstat(desk.inbox / "s/x.png")
        file = make_arrival("s/x.png", size=status.st_size, mtime_ns=status.st_mtime_ns).file
        return [found.path for found in known.fresh([file])]

    def test_file_is_copied_once_whatever_a_crash_left(self, desk: Desk) -> None:
        arrival = desk.claimed()
        desk.put(desk.inbox / "s/x.png")
        desk.put(f"{desk.work(arrival)}.part", CONTENT[:9])
        assert self.fresh(desk) == ["s/x.png"]
        assert desk.recover() == [1]
        assert desk.work(arrival).read_bytes() == (desk.inbox / "s/x.png").read_bytes() == CONTENT
        assert self.fresh(desk) == []

    def test_complete_copy_is_made_anew_so_that_its_original_is_remembered(self, desk: Desk) -> None:
        arrival = desk.claimed()
        desk.put(desk.inbox / "s/x.png")
        desk.put(desk.work(arrival))
        assert desk.recover() == [1]
        assert self.fresh(desk) == []

    def test_file_that_was_renamed_under_other_settings_is_not_taken_for_a_copy(self, desk: Desk) -> None:
        arrival = desk.claimed()
        other = bytes(len(CONTENT))
        desk.put(desk.inbox / "s/x.png", other)  # dropped again: same name, size and time
        desk.put(desk.work(arrival))
        assert desk.recover() == [1]
        assert desk.work(arrival).read_bytes() == CONTENT
        assert self.fresh(desk) == ["s/x.png"]

    def _remembered(self, desk: Desk) -> Path:
        arrival = desk.claimed()
        original = desk.inbox / "s/x.png"
        desk.put(original)
        desk.ledger.ingest([Copy(arrival, fingerprint_of(arrival, SHA256), signature_of(os.lstat(original)))])
        assert self.fresh(desk) == []
        return original

    def test_permissions_do_not_make_a_file_new(self, desk: Desk) -> None:
        original = self._remembered(desk)
        original.chmod(0o600)
        assert self.fresh(desk) == []
        with desk.db.connect() as connection:
            row = connection.execute(sa.select(tables.copied)).one()
        assert row.ctime_ns == os.lstat(original).st_ctime_ns  # so that its content is not read again and again

    def test_restored_file_is_not_new(self, desk: Desk) -> None:
        original = self._remembered(desk)
        original.unlink()
        desk.put(original)
        assert self.fresh(desk) == []

    def test_changed_file_is_new_even_with_its_time_set_back(self, desk: Desk) -> None:
        original = self._remembered(desk)
        desk.put(original, bytes(len(CONTENT)))
        assert self.fresh(desk) == ["s/x.png"]

    @pytest.mark.parametrize("code", [errno.EIO, errno.EACCES])
    def test_file_that_cannot_be_compared_now_is_not_copied_again(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch, code: int
    ) -> None:
        self._remembered(desk).chmod(0o600)
        with monkeypatch.context() as failing:
            failing.setattr(os, "open", _failing_on(os.open, "x.png", code))
            assert self.fresh(desk) == []
        assert self.fresh(desk) == []

    def test_comparing_waits_for_a_machine_that_is_at_fault(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        self._remembered(desk).chmod(0o600)
        monkeypatch.setattr(os, "open", _failing_on(os.open, "x.png", errno.EMFILE))
        with pytest.raises(OSError, match="Too many open files"):
            self.fresh(desk)

    def test_copy_that_cannot_be_compared_with_its_original_is_not_filed_without_being_remembered(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        arrival = desk.claimed()
        desk.put(desk.inbox / "s/x.png")
        desk.put(desk.work(arrival))
        with monkeypatch.context() as failing:
            failing.setattr(os, "open", _failing_on(os.open, "x.png", errno.EIO))
            with pytest.raises(OSError, match="Input/output error"):
                desk.recover()
        assert desk.recover() == [1]
        assert self.fresh(desk) == []

    def test_touched_file_is_new(self, desk: Desk) -> None:
        os.utime(self._remembered(desk), ns=(0, 6 * 10**9))
        assert self.fresh(desk) == ["s/x.png"]

    def test_file_whose_arrival_ended_without_a_result_is_new(self, desk: Desk) -> None:
        self._remembered(desk)
        desk.ledger.close([make_arrival("s/x.png", 1)], recovery.Status.LOST, "for a test")
        assert self.fresh(desk) == ["s/x.png"]

    def test_file_that_goes_while_it_is_looked_up_is_left_out(self, desk: Desk) -> None:
        self._remembered(desk).unlink()
        file = make_arrival("s/x.png", size=len(CONTENT), mtime_ns=MTIME_NS).file
        assert desk.custody.fresh([file]) == []
        assert not desk.custody.knows("s/x.png")

    def test_file_that_cannot_be_read_again_is_passed_over_until_it_can(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whether others wrote to it, nobody knows yet; a claim would only leave a useless row at each look."""
        path = self._remembered(desk)
        path.write_bytes(CONTENT[::-1])
        os.utime(path, ns=(MTIME_NS, MTIME_NS))

        def refuse(_root: str, _path: str) -> int:
            raise PermissionError(errno.EACCES, "Permission denied")

        with monkeypatch.context() as refusing:
            refusing.setattr(memory, "open_beneath", refuse)
            assert self.fresh(desk) == []
        assert self.fresh(desk) == ["s/x.png"]

    def test_what_is_forgotten_while_it_is_looked_up_is_asked_about_again(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An undo between the question and the answer: noted as seen, the file would never come again."""
        self._remembered(desk)
        file = make_arrival("s/x.png", size=len(CONTENT), mtime_ns=MTIME_NS).file
        copied = Ledger.copied

        def copied_then_forgotten(ledger: Ledger, inbox: str, paths: list[str], **named: Any) -> dict[str, Copied]:
            found = copied(ledger, inbox, paths, **named)
            desk.custody.forget()
            return found

        monkeypatch.setattr(Ledger, "copied", copied_then_forgotten)
        assert desk.custody.fresh([file]) == []
        assert not desk.custody.knows("s/x.png")

    def test_what_was_seen_lately_costs_no_query(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        original = self._remembered(desk)
        file = make_arrival("s/x.png", size=len(CONTENT), mtime_ns=MTIME_NS).file
        assert not desk.custody.knows("s/x.png")
        assert desk.custody.fresh([file]) == []
        monkeypatch.setattr(Ledger, "copied", None)
        assert desk.custody.knows("s/x.png")
        original.chmod(0o600)
        assert not desk.custody.knows("s/x.png")


class TestPutBack:
    """`undo` where a rename does not lead back, or where the original never left."""

    def _filed(self, desk: Desk) -> Path:
        desk.put(Path(desk.output.root, "cat/s/x.png"))
        desk.planned()
        desk.recover()
        assert desk.status() == "filed"
        return Path(desk.output.root, "cat/s/x.png")

    def _undo(self, desk: Desk) -> tuple[int, int]:
        returned = Returner(desk.ledger, desk.delivery(), Holds()).put_back(desk.ledger.filed(), hold=True)
        return returned.back, len(returned.refused)

    def _keep(self, desk: Desk) -> None:
        known = Memory("camera", str(desk.inbox), desk.ledger)
        desk.custody = Copying(InPlace(str(desk.inbox), known), desk.output, desk.ledger)

    def test_copy_goes_where_its_original_is_still_there(self, desk: Desk) -> None:
        filed = self._filed(desk)
        self._keep(desk)
        desk.put(desk.inbox / "s/x.png")
        assert self._undo(desk) == (1, 0)
        assert not filed.exists()
        assert (desk.inbox / "s/x.png").read_bytes() == CONTENT
        assert desk.status() == "returned"

    def test_copy_stays_where_its_original_has_changed(self, desk: Desk) -> None:
        filed = self._filed(desk)
        self._keep(desk)
        desk.put(desk.inbox / "s/x.png", bytes(len(CONTENT)))
        assert self._undo(desk) == (0, 1)
        assert filed.read_bytes() == CONTENT
        assert desk.status() == "filed"

    def test_copy_whose_original_is_gone_goes_back_itself(self, desk: Desk) -> None:
        filed = self._filed(desk)
        self._keep(desk)
        assert self._undo(desk) == (1, 0)
        assert not filed.exists()
        assert (desk.inbox / "s/x.png").read_bytes() == CONTENT

    def test_between_mounts_a_file_is_copied_back_and_never_over_another(
        self, tmp_path: Path, output: Output, ledger: Ledger, db: Engine
    ) -> None:
        with another_mount(tmp_path) as elsewhere:
            desk = Desk(elsewhere / "inbox", output, ledger, db)
            filed = self._filed(desk)
            desk.put(desk.inbox / "s/x.png", b"dropped since")
            assert self._undo(desk) == (0, 1)
            assert filed.read_bytes() == CONTENT
            (desk.inbox / "s/x.png").unlink()
            assert self._undo(desk) == (1, 0)
            assert read_tree(desk.inbox) == {"s": {"x.png": CONTENT}}
            assert os.lstat(desk.inbox / "s/x.png").st_mtime_ns == MTIME_NS
            assert not filed.exists()

    def test_killed_between_copy_and_removal_the_return_is_finished(self, desk: Desk) -> None:
        filed = self._filed(desk)
        desk.ledger.begin_return(desk.ledger.filed(), hold=True)
        desk.put(desk.inbox / "s/x.png")
        Returner(desk.ledger, desk.delivery(), Holds()).resume()
        assert not filed.exists()
        assert desk.status() == "returned"


# -- the real program -------------------------------------------------------------------------------------------------


def _hostile(tmp_path: Path) -> Workspace:
    return Workspace.make(tmp_path / "place", variant=HOSTILE)


@pytest.mark.slow
def test_dropper_who_goes_on_writing_changes_nothing_that_was_filed(tmp_path: Path) -> None:
    """Through a descriptor that was open before, and through a hard link: the rows are true of the disk."""
    workspace = _hostile(tmp_path)
    ended = threading.Event()
    for number in range(12):
        workspace.drop(f"{number}.png", picture(220, 60, 40, number))
    links = tmp_path / "links"
    links.mkdir()
    for number in range(12):
        os.link(workspace.inbox / f"{number}.png", links / f"{number}.png")
    files = [(links / f"{number}.png").open("r+b", buffering=0) for number in range(12)]

    def write() -> None:
        """Spoil each file as soon as it has left the inbox, which the daemon has settled on by then."""
        waiting = dict(enumerate(files))
        while waiting and not ended.wait(0.001):
            for number in [number for number in waiting if not (workspace.inbox / f"{number}.png").exists()]:
                waiting.pop(number).write(b"spoilt")

    writer = threading.Thread(target=write)
    writer.start()
    done = workspace.run("run", "--once")
    ended.set()
    writer.join()
    for file in files:
        file.close()
    for path, content in _filed(workspace).items():
        assert hashlib.sha256(content).hexdigest() == path[1], path
    inodes = {os.lstat(link).st_ino for link in links.iterdir()}
    assert not inodes & {os.lstat(workspace.output / path).st_ino for path, _sha256 in _filed(workspace)}
    left = 12 - workspace.filed()  # what was spoilt while it was copied went back, and is named
    assert done.returncode == (1 if left else 0), done.stderr
    assert ("still changing and left where they are: camera/" in done.stderr) == (left > 0)
    assert len([*workspace.inbox.iterdir()]) == left


def _filed(workspace: Workspace) -> dict[tuple[str, str], bytes]:
    """By destination and hash of each row, the bytes that are there."""
    return {
        (row["destination"], row["sha256"]): (workspace.output / row["destination"]).read_bytes()
        for row in workspace.rows()
        if row["destination"] is not None
    }


@pytest.mark.slow
def test_copied_files_stay_and_do_not_come_again_after_a_restart(tmp_path: Path) -> None:
    workspace = Workspace.make(tmp_path / "place", variant=KEEPING)
    workspace.drop("a.png", picture(220, 60, 40, 1))
    workspace.drop("s/none.png", b"no picture")
    assert workspace.run("run", "--once").returncode == 0
    assert workspace.audit() == []
    workspace.drop("b.png", picture(40, 60, 220, 2))
    with workspace.serving() as daemon:
        until(lambda: workspace.filed() == 3, "the file that is new")
        retried = workspace.run("rejected", "retry")
        assert retried.returncode == 0, retried.stderr
        until(lambda: len(workspace.statuses()) == 4 and workspace.filed() == 3, "the file that is tried again")
        assert daemon.terminate() == 0
    assert workspace.audit() == []
    assert sorted(workspace.statuses()) == ["filed", "filed", "filed", "returned"]


@pytest.mark.slow
def test_inbox_on_another_mount_is_emptied_and_nothing_stays_in_it(tmp_path: Path, other_mount: Path) -> None:
    workspace = Workspace.make(tmp_path / "place", variant=OTHER_MOUNT, mount=other_mount)
    for number in range(5):
        workspace.drop(f"s/{number}.png", picture(220, 60, 40, number))
    (workspace.inbox / "s/0.png").chmod(0o755)
    assert workspace.run("run", "--once").returncode == 0
    assert workspace.audit() == []
    assert os.listdir(workspace.inbox) == ["s"]
    assert HOLD not in os.listdir(workspace.inbox)
    assert {os.lstat(workspace.output / path).st_mode & 0o111 for path, _sha256 in _filed(workspace)} == {0}
