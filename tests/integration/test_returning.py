"""Putting filed files back: what cannot be stays as it is, and what is half way is finished at the next start."""

from __future__ import annotations

import errno
import hashlib
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from helpers import make_arrival, make_tree, read_tree
from pigeonholed.custody import Renaming
from pigeonholed.delivery import Delivery
from pigeonholed.disk import Disk
from pigeonholed.entries import Hold, Plan
from pigeonholed.holding import Holds
from pigeonholed.images import Arrival, Fingerprint, Placement, Reason
from pigeonholed.ledger import Ledger
from pigeonholed.output import Output
from pigeonholed.placing import Placer
from pigeonholed.returning import Returned, Returner

CONTENT = b"A"
MTIME_NS = 5


@dataclass
class Desk:
    """Filed files, an inbox, and who puts them back."""

    inbox: Path
    output: Output
    ledger: Ledger
    holds: Holds = field(default_factory=Holds)

    def __post_init__(self) -> None:
        make_tree(self.inbox, {})
        self.custody = Renaming(str(self.inbox), self.output)
        self.deliveries = {"camera": Delivery(str(self.inbox), self.output, Placer(), self.custody)}

    def file(self, path: str = "s/x", number: int = 1, *, rejected: bool = False, inbox: str = "camera") -> Path:
        """A filed file; returns where it is."""
        arrival = make_arrival(path, number, inbox=inbox, size=len(CONTENT), mtime_ns=MTIME_NS)
        self.ledger.claim([arrival])
        destination = f"_rejected/empty/{path}" if rejected else f"cat/{path}"
        self.ledger.plan([self._plan(arrival, destination, rejected)])
        self.ledger.confirm([arrival])
        explanation = f'{{"arrival": "{arrival.key}"}}'.encode()
        sidecar = {f"{destination}.reason.json": explanation} if rejected else {}
        make_tree(Path(self.output.root), {destination: CONTENT, **sidecar})
        filed = Path(self.output.root, destination)
        os.utime(filed, ns=(0, MTIME_NS))
        return filed

    def _plan(self, arrival: Arrival, destination: str, rejected: bool) -> Plan:
        fingerprint = Fingerprint(hashlib.sha256(CONTENT).hexdigest(), len(CONTENT), MTIME_NS)
        if rejected:
            return Plan(arrival, fingerprint, Placement.REJECTED, destination, None, Reason.EMPTY, "d")
        return Plan(arrival, fingerprint, Placement.SORTED, destination)

    def returner(self) -> Returner:
        return Returner(self.ledger, self.deliveries, self.holds)

    def undo(self, *, hold: bool = True) -> Returned:
        return self.returner().put_back(self.ledger.filed(), hold=hold)

    def passed_over(self, path: str = "s/x") -> bool:
        return self.holds.covers("camera", path, len(CONTENT), MTIME_NS)

    def dropped(self) -> dict[str, Any]:
        return read_tree(self.inbox)


@pytest.fixture
def desk(tmp_path: Path, output: Output, ledger: Ledger) -> Desk:
    return Desk(tmp_path / "inbox", output, ledger)


class TestHolds:
    HOLD = Hold("camera", "x", 1, 5)

    def test_held_file_is_passed_over_until_it_changes_and_then_never_again(self) -> None:
        holds = Holds([self.HOLD])
        assert holds.covers("camera", "x", 1, 5)
        assert not holds.covers("camera", "y", 1, 5)
        assert not holds.covers("camera", "x", 1, 6)
        assert not holds.covers("camera", "x", 1, 5)

    def test_released_files_are_counted_and_passed_over_no_more(self) -> None:
        holds = Holds([self.HOLD, replace(self.HOLD, path="y")])
        assert (holds.clear(), holds.clear()) == (2, 0)
        assert not holds.covers("camera", "x", 1, 5)


class TestPutBack:
    def test_undone_file_is_back_and_passed_over(self, desk: Desk) -> None:
        filed = desk.file()
        assert desk.undo() == Returned(1, ())
        assert (desk.dropped(), filed.exists()) == ({"s": {"x": CONTENT}}, False)
        assert desk.passed_over()
        assert desk.ledger.filed() == desk.ledger.returning() == []

    def test_file_that_is_tried_again_is_passed_over_until_its_row_says_that_it_is_back(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where it is copied it is there twice for a while, and would be filed twice if the daemon were killed then."""
        desk.file()
        end = desk.ledger.end_return
        seen: list[bool] = []

        def end_return(files: Any) -> None:
            seen.append(desk.passed_over())
            end(files)

        monkeypatch.setattr(desk.ledger, "end_return", end_return)
        assert desk.undo(hold=False).back == 1
        assert seen == [True]
        assert not desk.passed_over()

    def test_rejected_file_takes_its_explanation_along(self, desk: Desk) -> None:
        filed = desk.file(rejected=True)
        desk.undo()
        assert os.listdir(filed.parent) == []

    def test_explanation_of_somebody_else_stays(self, desk: Desk) -> None:
        filed = desk.file(rejected=True)
        make_tree(filed.parent, {"x.reason.json": b"a user's own"})
        desk.undo()
        assert read_tree(filed.parent) == {"x.reason.json": b"a user's own"}

    @pytest.mark.parametrize(
        ("why", "told"),
        [
            ("taken", "is taken"),
            ("changed", "changed since"),
            ("gone", "not where it was filed"),
            ("folder", "cannot be read: Is a directory"),
            ("inbox", "is missing"),
            ("unknown", "not in the configuration"),
            ("file in the way", "in the way"),
            ("no folder", "cannot be put back: No space left"),
            ("mount", "cannot be put back: Read-only"),
        ],
    )
    def test_what_cannot_be_put_back_stays_as_it_is_and_the_reason_is_told(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch, why: str, told: str
    ) -> None:
        filed = desk.file()
        match why:
            case "taken":
                make_tree(desk.inbox, {"s": {"x": b"new"}})
            case "changed":
                filed.write_bytes(b"B")
            case "gone":
                filed.unlink()
            case "folder":
                filed.unlink()
                filed.mkdir()
            case "inbox":
                desk.inbox.rmdir()
            case "unknown":
                desk.deliveries.clear()
            case "file in the way":
                make_tree(desk.inbox, {"s": b"new"})
            case "no folder":
                monkeypatch.setattr(os, "mkdir", _raising(errno.ENOSPC))
            case "mount":
                monkeypatch.setattr(Disk, "rename_new", _raising(errno.EROFS))
        before = read_tree(desk.output.root)
        returned = desk.undo()
        monkeypatch.undo()
        assert returned.back == 0
        (sentence,) = returned.refused
        assert told in sentence
        assert read_tree(desk.output.root) == before
        assert len(desk.ledger.filed()) == 1
        assert desk.ledger.returning() == []
        assert not desk.passed_over()
        assert desk.output.leaving == set()

    def test_refused_file_does_not_release_the_one_that_has_its_place(self, desk: Desk) -> None:
        """Two versions of one name were filed; the newer one is held in the inbox."""
        desk.file("s/x", 1)
        Path(desk.output.root, "cat/s/x").rename(Path(desk.output.root, "cat/s/older"))
        desk.file("s/x", 2)
        newer, older = desk.ledger.filed()
        assert desk.returner().put_back([newer], hold=True).back == 1
        refused = desk.returner().put_back([replace(older, destination="cat/s/older")], hold=True)
        assert refused.back == 0
        assert desk.passed_over()

    def test_return_that_may_be_half_way_is_not_called_refused(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The next start finishes what is there."""
        filed = desk.file()
        rename = Disk.rename_new

        def rename_then_fail(disk: Disk, source: str, target: str) -> None:
            rename(disk, source, target)
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(Disk, "rename_new", rename_then_fail)
        with pytest.raises(OSError, match="Input/output error"):
            desk.undo()
        monkeypatch.undo()
        assert len(desk.ledger.returning()) == 1
        desk.returner().resume()
        assert (desk.dropped(), filed.exists()) == ({"s": {"x": CONTENT}}, False)
        assert desk.ledger.filed() == desk.ledger.returning() == []


class TestResume:
    def _begun(self, desk: Desk, **more: Any) -> Path:
        """A file whose return was committed, and not more."""
        filed = desk.file(**more)
        desk.ledger.begin_return(desk.ledger.filed(), hold=True)
        desk.holds = Holds(desk.ledger.holds())
        return filed

    def test_file_that_never_left_stays_filed(self, desk: Desk) -> None:
        filed = self._begun(desk)
        desk.returner().resume()
        assert filed.read_bytes() == CONTENT
        assert len(desk.ledger.filed()) == 1
        assert desk.ledger.returning() == desk.ledger.holds() == []
        assert not desk.passed_over()

    def test_file_that_is_back_is_returned_and_its_explanation_goes(self, desk: Desk) -> None:
        filed = self._begun(desk, rejected=True)
        make_tree(desk.inbox, {"s": {}})
        filed.rename(desk.inbox / "s/x")
        desk.returner().resume()
        assert os.listdir(filed.parent) == []
        assert desk.passed_over()
        assert desk.ledger.filed() == desk.ledger.returning() == []

    def test_file_of_somebody_else_in_its_old_place_is_not_taken_for_it(self, desk: Desk) -> None:
        filed = self._begun(desk)
        make_tree(desk.inbox, {"s": {}})
        filed.rename(desk.inbox / "s/x")
        filed.write_bytes(b"somebody else's")
        desk.returner().resume()
        assert filed.read_bytes() == b"somebody else's"
        assert desk.ledger.filed() == desk.ledger.returning() == []

    def test_return_by_link_that_was_killed_half_way_is_finished(self, desk: Desk) -> None:
        """On file systems that know no other way a file has two names for a moment; it would be filed twice."""
        filed = self._begun(desk)
        make_tree(desk.inbox, {"s": {}})
        os.link(filed, desk.inbox / "s/x")
        desk.returner().resume()
        assert (desk.dropped(), filed.exists()) == ({"s": {"x": CONTENT}}, False)
        assert desk.ledger.filed() == desk.ledger.returning() == []

    def test_one_file_that_two_ways_lead_to_is_not_taken_for_two(self, desk: Desk) -> None:
        """Its only name would go."""
        filed = self._begun(desk)
        (desk.inbox / "s").symlink_to(filed.parent)
        desk.returner().resume()
        assert filed.read_bytes() == CONTENT
        assert len(desk.ledger.filed()) == 1

    def test_same_bytes_that_were_dropped_since_do_not_stand_for_a_file_that_was_to_be_renamed_back(
        self, desk: Desk
    ) -> None:
        filed = self._begun(desk)
        make_tree(desk.inbox, {"s": {"x": CONTENT}})
        desk.returner().resume()
        assert filed.read_bytes() == CONTENT
        assert len(desk.ledger.filed()) == 1

    def test_return_to_an_inbox_that_is_away_is_judged_when_it_is_there(self, desk: Desk) -> None:
        """It may hold a copy: called filed, the file would be there twice."""
        filed = self._begun(desk)
        desk.inbox.rmdir()
        desk.returner().resume()
        assert len(desk.ledger.returning()) == 1
        assert filed.read_bytes() == CONTENT
        desk.inbox.mkdir()
        desk.returner().resume()
        assert desk.ledger.returning() == []

    def test_return_that_has_ended_though_its_inbox_is_not_configured_any_more(self, desk: Desk) -> None:
        desk.returner()._end([])
        desk.file(inbox="elsewhere")
        counted: list[tuple[str, int]] = []
        returner = desk.returner()
        returner.on_return = lambda inbox, count: counted.append((inbox, count))
        returner._end(desk.ledger.filed())
        assert counted == [("elsewhere", 1)]
        assert desk.ledger.filed() == []

    def test_return_to_an_inbox_that_is_not_configured_is_given_up(self, desk: Desk) -> None:
        """Its file is where it was filed."""
        filed = self._begun(desk, inbox="elsewhere")
        desk.returner().resume()
        assert filed.read_bytes() == CONTENT
        assert len(desk.ledger.filed()) == 1


def _raising(code: int) -> Any:
    def call(*_arguments: Any, **_more: Any) -> None:
        raise OSError(code, os.strerror(code))

    return call
