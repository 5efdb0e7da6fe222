"""`action = "none"`: pictures that are only looked at where they are. Their rows are true, and nothing else is made.

The first part are single steps on a real database; the second is the real program.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import CliRunner
from sqlalchemy.engine import Engine

from auditor import audit
from crash.test_poison import Ward
from forking import Forker, forking
from helpers import (
    NothingFiled,
    fingerprint_of,
    make_arrival,
    make_classified,
    make_rejected,
    make_tree,
    png,
    read_tree,
)
from pigeonholed import recovery, staying, tables
from pigeonholed.claiming import Claimer, Feed
from pigeonholed.cli import cli
from pigeonholed.config import load_settings
from pigeonholed.custody import Custody, Renaming
from pigeonholed.decoding import Demand, examine
from pigeonholed.delivery import Delivery
from pigeonholed.entries import Copy, Plan
from pigeonholed.errors import Misconfigured
from pigeonholed.finishing import Finisher
from pigeonholed.holding import Holds
from pigeonholed.ignoring import NameFilter
from pigeonholed.images import (
    STAYS,
    Arrival,
    Decoded,
    Duplicate,
    Fingerprint,
    Original,
    Placement,
    Reason,
    Rejected,
    Status,
    Withdrawn,
)
from pigeonholed.imaging import PixelSpec
from pigeonholed.known_contents import KnownContents
from pigeonholed.ledger import Ledger
from pigeonholed.memory import Memory
from pigeonholed.metrics import Metrics
from pigeonholed.operations import alone
from pigeonholed.originals import InPlace
from pigeonholed.output import Output, OutputRefused
from pigeonholed.patience import Patience
from pigeonholed.placing import Placer
from pigeonholed.probing import Probed
from pigeonholed.returning import Returner
from pigeonholed.settings import InboxSettings
from pigeonholed.settling import signature_of
from pigeonholed.staying import Staying, look_again, open_in_place
from pigeonholed.watching import Rules, Watch
from records_of import ask
from running import LOOKING, Workspace, environment, picture

CONTENT = png()
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PATH = "s/x.png"


@dataclass
class Desk:
    """An inbox whose files stay, and all that handles them."""

    inbox: Path
    output: Output
    ledger: Ledger
    db: Engine
    filed: list[Plan] = field(default_factory=list)
    withdrawn: list[Withdrawn] = field(default_factory=list)

    def __post_init__(self) -> None:
        make_tree(self.inbox, {PATH: CONTENT})
        self.custody: Custody = self.begin_anew()
        self.nowhere = False

    @property
    def file(self) -> Path:
        return self.inbox / PATH

    def begin_anew(self) -> Staying:
        """As a process finds it that has just begun."""
        known = Memory("camera", str(self.inbox), self.ledger, looked_at=True)
        return Staying(InPlace(str(self.inbox), known), self.output)

    def arrival(self, number: int = 1, token: str = STAYS) -> Arrival:
        status = os.lstat(self.file)
        return make_arrival(PATH, number, size=status.st_size, mtime_ns=status.st_mtime_ns, token=token)

    def claim(self, number: int = 1) -> Arrival:
        arrival = self.arrival(number)
        self.ledger.claim([arrival])
        self.custody.take(arrival)
        return arrival

    def examined(self, arrival: Arrival) -> Decoded | Rejected | Withdrawn:
        demand = Demand(PixelSpec(8, 8), 10_000, 10_000)
        opener = lambda path: open_in_place(str(self.inbox), path)  # noqa: E731
        return examine(arrival, arrival.file.path, demand, opener=opener, pause=lambda _s: None)

    def classified(self, arrival: Arrival) -> Any:
        result = self.examined(arrival)
        if not isinstance(result, Decoded):
            return result
        return replace(make_classified(arrival), fingerprint=result.fingerprint)

    def delivery(self) -> dict[str, Delivery]:
        return {"camera": Delivery(str(self.inbox), self.output, Placer(), self.custody, self.nowhere)}

    def finisher(self) -> Finisher:
        return Finisher(
            self.delivery(), self.ledger, NothingFiled(), Patience(), self.filed.extend, self.withdrawn.extend
        )

    def noted(self, number: int = 1) -> Arrival:
        """A file that was looked at."""
        arrival = self.claim(number)
        self.finisher().turn([self.classified(arrival)])
        return arrival

    def fresh(self) -> list[str]:
        return [file.path for file in self.begin_anew().fresh([self.arrival().file])]

    def rows(self) -> list[dict[str, Any]]:
        with self.db.connect() as connection:
            query = sa.select(tables.images).order_by(tables.images.c.id)
            return [dict(row) for row in connection.execute(query).mappings()]

    def statuses(self) -> list[str]:
        return [row["status"] for row in self.rows()]

    def recover(self) -> list[int]:
        return [arrival.id for arrival in recovery.recover(self.ledger, self.finisher(), self.delivery(), 0.0)]


@pytest.fixture
def desk(tmp_path: Path, output: Output, ledger: Ledger, db: Engine) -> Desk:
    return Desk(tmp_path / "inbox", output, ledger, db)


class TestRow:
    def test_row_is_all_that_is_made_and_the_file_is_known(self, desk: Desk) -> None:
        arrival = desk.claim()
        assert not desk.custody.fresh([arrival.file])  # it is being looked at
        assert desk.custody.knows(PATH)
        before = read_tree(desk.output.root)
        desk.finisher().turn([desk.classified(arrival)])
        (row,) = desk.rows()
        assert (row["status"], row["outcome"], row["label"]) == ("filed", "sorted", "cat")
        assert (row["sha256"], row["size_bytes"], row["destination"]) == (SHA256, len(CONTENT), None)
        assert [plan.arrival.id for plan in desk.filed] == [1]
        assert read_tree(desk.inbox) == {"s": {"x.png": CONTENT}}
        assert read_tree(desk.output.root) == before
        assert not desk.custody.fresh([arrival.file])
        assert desk.fresh() == []

    def test_rejected_file_gets_no_explanation_beside_it(self, desk: Desk) -> None:
        arrival = desk.claim()
        read = desk.examined(arrival)
        assert isinstance(read, Decoded)
        desk.finisher().turn([replace(make_rejected(arrival, Reason.UNREADABLE), fingerprint=read.fingerprint)])
        assert [(row["outcome"], row["reason"], row["label"]) for row in desk.rows()] == [
            ("rejected", "unreadable", None)
        ]
        assert read_tree(desk.inbox) == {"s": {"x.png": CONTENT}}
        assert desk.fresh() == []

    def test_step_whose_acknowledgement_was_lost_can_be_repeated(self, desk: Desk) -> None:
        desk.noted()
        (before,) = desk.rows()
        desk.ledger.note(desk.filed)
        assert desk.rows() == [before]

    def test_permissions_and_other_names_do_not_make_a_file_new(self, desk: Desk) -> None:
        desk.noted()
        desk.file.chmod(0o600)
        os.link(desk.file, desk.inbox / "other")
        assert desk.fresh() == []

    @pytest.mark.parametrize("keeps_time", [False, True])
    def test_changed_file_is_a_new_arrival(self, desk: Desk, keeps_time: bool) -> None:
        desk.noted()
        before = os.lstat(desk.file)
        desk.file.write_bytes(CONTENT[::-1])
        if keeps_time:
            os.utime(desk.file, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert desk.fresh() == [PATH]
        desk.noted(2)
        assert desk.statuses() == ["filed", "filed"]
        assert desk.fresh() == []

    def test_file_that_cannot_be_read_is_refused_once_and_tried_again_when_it_is_another(self, desk: Desk) -> None:
        arrival = desk.claim()
        unread = Rejected(arrival, fingerprint_of(arrival, None), Reason.IO_ERROR, "for a test")
        desk.finisher().turn([unread])
        assert [(row["reason"], row["sha256"]) for row in desk.rows()] == [("io-error", None)]
        assert desk.fresh() == []
        desk.file.chmod(0o640)
        assert desk.fresh() == [PATH]

    def test_file_that_cannot_be_read_and_is_another_by_now_is_none(self, desk: Desk) -> None:
        arrival = desk.claim()
        os.utime(desk.file, ns=(0, 0))
        desk.finisher().turn([Rejected(arrival, fingerprint_of(arrival, None), Reason.IO_ERROR, "for a test")])
        assert desk.statuses() == ["vanished"]


def _replace(path: Path) -> None:
    path.with_name("draft").write_bytes(CONTENT)
    path.with_name("draft").replace(path)


def _restore(path: Path) -> None:
    """Another content of the same size, with the time set back."""
    before = os.lstat(path)
    path.write_bytes(CONTENT[::-1])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _link(path: Path) -> None:
    path.rename(path.with_name("y.png"))
    path.symlink_to("y.png")


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _folder_link(path: Path) -> None:
    path.parent.rename(path.parent.with_name("t"))
    path.parent.symlink_to("t")


DISTURBANCES = [_replace, _restore, _link, _pipe, _folder_link, Path.unlink]


class TestDisturbed:
    """Whatever others do to a file meanwhile, no row says of it what is not so; and it comes again if it is there."""

    @pytest.mark.parametrize("disturb", [change for change in DISTURBANCES if change is not _restore])
    def test_before_it_is_read(self, desk: Desk, disturb: Callable[[Path], None]) -> None:
        arrival = desk.claim()
        disturb(desk.file)
        result = desk.examined(arrival)
        assert isinstance(result, Withdrawn)
        desk.finisher().turn([result])
        assert desk.statuses() == ["vanished"]
        assert [item.status for item in desk.withdrawn] == [Status.VANISHED]
        assert not desk.custody.knows(PATH)

    @pytest.mark.parametrize("disturb", DISTURBANCES)
    def test_while_it_is_classified(self, desk: Desk, disturb: Callable[[Path], None]) -> None:
        classified = desk.classified(desk.claim())
        disturb(desk.file)
        desk.finisher().turn([classified])
        assert desk.statuses() == ["vanished"]
        assert not desk.filed
        assert not desk.custody.knows(PATH)

    def test_its_link_is_never_followed(self, desk: Desk, tmp_path: Path) -> None:
        make_tree(tmp_path, {"secret/x.png": CONTENT})
        arrival = desk.claim()
        desk.file.unlink()
        desk.file.parent.rmdir()
        desk.file.parent.symlink_to(tmp_path / "secret")
        assert isinstance(desk.examined(arrival), Withdrawn)

    def test_folder_out_of_reach_blames_nobody_and_a_machine_at_fault_is_waited_for(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        classified = desk.classified(desk.claim())
        for code in (errno.EACCES, errno.EMFILE):

            def fail(*_arguments: Any, code: int = code, **_named: Any) -> Any:
                raise OSError(code, os.strerror(code))

            with monkeypatch.context() as failing:
                failing.setattr(staying, "folder", fail)
                if code == errno.EMFILE:
                    with pytest.raises(OSError, match="Too many open files"):
                        look_again(classified, str(desk.inbox))
                else:
                    seen = look_again(classified, str(desk.inbox))
                    assert isinstance(seen, Withdrawn)


class TestRecovery:
    def test_file_in_flight_is_looked_at_again_and_does_not_arrive_beside_that(self, desk: Desk) -> None:
        arrival = desk.claim()
        desk.custody = desk.begin_anew()
        assert desk.recover() == [1]
        assert desk.custody.fresh([arrival.file]) == []
        desk.finisher().turn([desk.classified(arrival)])
        assert desk.statuses() == ["filed"]

    @pytest.mark.parametrize("change", ["gone", "changed"])
    def test_file_that_is_another_by_now_is_a_new_arrival(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch, change: str
    ) -> None:
        def sync(*_arguments: object) -> None:
            raise AssertionError("nothing was moved that a sync could make durable")

        monkeypatch.setattr(desk.output.disk, "sync", sync)
        desk.claim()
        if change == "gone":
            desk.file.unlink()
        else:
            desk.file.write_bytes(CONTENT + b"more")
        desk.custody = desk.begin_anew()
        assert desk.recover() == []
        assert desk.statuses() == ["vanished"]

    def test_inbox_that_moves_its_files_by_now_takes_it_as_a_new_arrival(self, desk: Desk) -> None:
        desk.claim()
        desk.custody = Renaming(str(desk.inbox), desk.output)
        assert desk.recover() == []
        assert desk.statuses() == ["vanished"]

    def test_claim_to_move_it_that_never_happened_is_none_any_more(self, desk: Desk) -> None:
        desk.ledger.claim([desk.arrival(token="7" * 16)])
        assert desk.recover() == []
        assert desk.statuses() == ["vanished"]
        assert desk.file.read_bytes() == CONTENT

    def test_file_that_was_taken_to_be_moved_is_moved(self, desk: Desk) -> None:
        arrival = desk.arrival(token="7" * 16)
        desk.ledger.claim([arrival])
        os.mkdir(desk.output.batch_folder(arrival.token))
        desk.file.rename(desk.output.work_path(arrival))
        assert desk.recover() == [1]
        finisher = desk.finisher()
        finisher.turn([replace(make_classified(arrival), fingerprint=fingerprint_of(arrival, SHA256))])
        finisher.settle()
        assert [row["destination"] for row in desk.rows()] == ["cat/s/x.png"]
        assert Path(desk.output.root, "cat/s/x.png").read_bytes() == CONTENT

    def test_file_that_was_taken_needs_its_output_named(self, desk: Desk) -> None:
        desk.ledger.claim([desk.arrival(token="7" * 16)])
        desk.nowhere = True
        with pytest.raises(Misconfigured, match="1 files of the inbox camera were on their way"):
            desk.recover()
        assert desk.statuses() == ["claimed"]


class TestReturn:
    def returner(self, desk: Desk, holds: Holds) -> Returner:
        return Returner(desk.ledger, desk.delivery(), holds)

    @pytest.mark.parametrize("hold", [False, True])
    def test_nothing_moves_and_only_what_is_held_is_passed_over(self, desk: Desk, hold: bool) -> None:
        arrival = desk.noted()
        holds = Holds()
        returned = self.returner(desk, holds).put_back(desk.ledger.filed(), hold=hold)
        assert (returned.back, returned.refused) == (1, ())
        assert desk.statuses() == ["returned"]
        assert read_tree(desk.inbox) == {"s": {"x.png": CONTENT}}
        assert holds.covers("camera", PATH, arrival.file.size, arrival.file.mtime_ns) is hold
        assert desk.fresh() == [PATH]  # of a hold, the watch passes over it

    def test_rejected_file_that_is_gone_from_its_inbox_is_returned_all_the_same(self, desk: Desk) -> None:
        arrival = desk.claim()
        read = desk.examined(arrival)
        assert isinstance(read, Decoded)
        desk.finisher().turn([replace(make_rejected(arrival), fingerprint=read.fingerprint)])
        desk.file.unlink()
        assert self.returner(desk, Holds()).put_back(desk.ledger.filed(), hold=True).back == 1

    def test_killed_between_intent_and_result_it_is_finished(self, desk: Desk) -> None:
        desk.noted()
        desk.ledger.begin_return(desk.ledger.filed(), hold=False)
        self.returner(desk, Holds(desk.ledger.holds())).resume()
        assert desk.statuses() == ["returned"]
        assert desk.ledger.returning() == []
        assert desk.fresh() == [PATH]

    def test_file_that_was_moved_goes_back_under_its_new_action(self, desk: Desk) -> None:
        arrival = desk.arrival(token="7" * 16)
        desk.ledger.claim([arrival])
        plan = Plan(arrival, fingerprint_of(arrival, SHA256), Placement.SORTED, "cat/s/x.png")
        desk.ledger.plan([plan])
        desk.ledger.confirm([arrival])
        make_tree(Path(desk.output.root), {"cat": {"s": {}}})
        desk.file.rename(Path(desk.output.root, "cat/s/x.png"))
        desk.nowhere = True
        refused = self.returner(desk, Holds()).put_back(desk.ledger.filed(), hold=True)
        assert refused.refused == (
            "cat/s/x.png: the output of its inbox is away, or the configuration does not name it any more",
        )
        desk.nowhere = False
        assert self.returner(desk, Holds()).put_back(desk.ledger.filed(), hold=True).back == 1
        assert desk.file.read_bytes() == CONTENT


class _Engine:
    """Takes files, and leaves them to the test."""

    def __init__(self) -> None:
        self.taken: list[Arrival] = []

    def submit(self, arrivals: Sequence[Arrival]) -> None:
        self.taken.extend(arrivals)


class TestClaimed:
    def test_file_is_claimed_once_and_again_only_when_it_has_changed(self, desk: Desk) -> None:
        inbox = InboxSettings(name="camera", path=desk.inbox, model="tiny", action="none")
        desk.custody = custody = Probed(inbox, desk.output, desk.ledger)
        rules = Rules("camera", str(desk.inbox), 0.0, 0.0, 30.0, True)
        watch = Watch(
            rules, NameFilter(), desk.output.now_ns, passes_over=lambda path, _size, _time: custody.knows(path)
        )
        engine = _Engine()
        claimer = Claimer([Feed(watch, desk.output, custody)], desk.ledger, engine, Patience(), Metrics())  # type: ignore[arg-type]

        def claimed() -> int:
            watch.rescan()
            scans, before = watch.scans, len(engine.taken)
            while watch.scans < scans + 2:
                watch.rescan()
                claimer.turn()
            return len(engine.taken) - before

        assert (claimed(), claimed()) == (1, 0)
        assert desk.statuses() == ["claimed"]
        desk.finisher().turn([desk.classified(engine.taken[0])])
        assert (claimed(), claimed()) == (0, 0)
        assert custody.knows(PATH)
        custody.forget()  # something was put back: now the ledger is asked again
        assert not custody.knows(PATH)
        assert (claimed(), custody.knows(PATH)) == (0, True)
        desk.file.write_bytes(CONTENT + b"more")
        assert claimed() == 1
        desk.finisher().turn([Withdrawn(engine.taken[1], Status.VANISHED, "for a test")])
        assert claimed() == 1
        custody.close()
        custody.release(engine.taken)  # there is none to tell
        assert read_tree(desk.output.root).keys() == {".pigeonholed"}
        assert desk.output.batch_folders() == []

    def test_nothing_is_needed_for_a_batch_and_nothing_left_of_it(self, desk: Desk) -> None:
        before = read_tree(desk.output.root), read_tree(desk.inbox)
        desk.custody.begin(STAYS)
        assert desk.custody.has(desk.arrival())
        desk.custody.end(STAYS)
        desk.custody.tidy()
        desk.custody.close()
        assert (read_tree(desk.output.root), read_tree(desk.inbox)) == before

    def test_inbox_that_cannot_be_read_is_refused(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "access", lambda *_arguments: False)
        inbox = InboxSettings(name="camera", path=desk.inbox, model="tiny", action="none")
        with pytest.raises(OutputRefused, match="cannot read the inbox"):
            Probed(inbox, desk.output, desk.ledger)


class TestDuplicates:
    """`duplicates = "set-aside"` where files stay: of equal ones the first has a label, and nothing is set aside."""

    @pytest.fixture
    def twins(self, desk: Desk, contents: KnownContents) -> Finisher:
        delivery = replace(desk.delivery()["camera"], sets_aside=True)
        return Finisher(
            {"camera": delivery}, desk.ledger, contents, Patience(), desk.filed.extend, desk.withdrawn.extend
        )

    def note(self, desk: Desk, twins: Finisher, *numbers: int) -> None:
        """Look at the same bytes, each time as another file of the inbox; given in another order than they came."""
        outcomes = []
        for number in numbers:
            path = desk.inbox / f"s/{number}.png"
            path.write_bytes(CONTENT)
            status = os.lstat(path)
            arrival = make_arrival(f"s/{number}.png", number, size=status.st_size, mtime_ns=status.st_mtime_ns)
            arrival = replace(arrival, token=STAYS)
            desk.ledger.claim([arrival])
            outcomes.append(desk.classified(arrival))
        twins.turn(outcomes[::-1])

    def rows(self, desk: Desk) -> list[tuple[Any, ...]]:
        columns = tables.images.c
        query = sa.select(columns.id, columns.outcome, columns.label, columns.destination, columns.detail)
        with desk.db.connect() as connection:
            return [tuple(row) for row in connection.execute(query.order_by(columns.id))]

    def contents(self, desk: Desk) -> list[int]:
        with desk.db.connect() as connection:
            return list(connection.scalars(sa.select(tables.contents.c.image_id)))

    def test_the_first_that_arrived_is_sorted_and_the_others_say_whose_bytes_they_are(
        self, desk: Desk, twins: Finisher
    ) -> None:
        self.note(desk, twins, 1, 2)
        self.note(desk, twins, 3)
        assert self.rows(desk) == [
            (1, "sorted", "cat", None, None),
            (2, "duplicate", None, None, "the same bytes as image 1"),
            (3, "duplicate", None, None, "the same bytes as image 1"),
        ]
        assert self.contents(desk) == [1]
        with desk.db.connect() as connection:
            assert set(connection.scalars(sa.select(tables.predictions.c.image_id))) == {1}
        assert read_tree(desk.inbox) == {"s": dict.fromkeys(("x.png", "1.png", "2.png", "3.png"), CONTENT)}

    @pytest.mark.parametrize("hold", [True, False])
    def test_after_its_original_was_returned_the_next_is_sorted(self, desk: Desk, twins: Finisher, hold: bool) -> None:
        self.note(desk, twins, 1)
        Returner(desk.ledger, desk.delivery(), Holds()).put_back(desk.ledger.filed(), hold=hold)
        assert self.contents(desk) == []
        self.note(desk, twins, 2)
        assert self.rows(desk)[1][:2] == (2, "sorted")
        assert self.contents(desk) == [2]

    def test_original_that_is_taken_to_be_moved_makes_room_for_another(self, desk: Desk, twins: Finisher) -> None:
        self.note(desk, twins, 1)
        status = os.lstat(desk.inbox / "s/1.png")
        desk.ledger.remember_inbox("camera", str(desk.inbox))
        ledger = Ledger(desk.db, desk.ledger._writer)
        ledger.claim([make_arrival("s/1.png", 2, size=status.st_size, mtime_ns=status.st_mtime_ns)])
        assert self.contents(desk) == []
        self.note(desk, twins, 3)
        assert self.rows(desk)[2][:2] == (3, "sorted")

    def test_one_that_no_model_saw_is_looked_at_again_when_its_original_has_gone(
        self, desk: Desk, twins: Finisher
    ) -> None:
        seen = desk.classified(desk.claim())
        twins.turn([Duplicate(seen.arrival, seen.fingerprint, 3, 4, Original(77, None))])
        assert desk.statuses() == ["vanished"]
        assert (self.contents(desk), [item.status for item in desk.withdrawn]) == ([], [Status.VANISHED])
        assert not desk.custody.knows(PATH), "it arrives again"


class TestOtherAction:
    """An inbox gets another action: each file ends with one row that says so."""

    def test_row_of_a_file_that_is_claimed_to_be_moved_is_returned(self, desk: Desk) -> None:
        desk.noted()
        desk.ledger = Ledger(desk.db, desk.ledger._writer)
        desk.ledger.remember_inbox("camera", str(desk.inbox))
        desk.ledger = Ledger(desk.db, desk.ledger._writer)
        desk.ledger.claim([desk.arrival(2, token="7" * 16)])
        assert desk.statuses() == ["returned", "claimed"]
        assert desk.fresh() == [PATH]

    def test_row_of_a_file_that_has_changed_since_stands(self, desk: Desk) -> None:
        desk.noted()
        desk.ledger.remember_inbox("camera", str(desk.inbox))
        desk.ledger = Ledger(desk.db, desk.ledger._writer)
        desk.file.write_bytes(CONTENT + b"more")
        desk.ledger.claim([desk.arrival(2, token="7" * 16)])
        assert desk.statuses() == ["filed", "claimed"]

    def test_file_that_was_only_looked_at_is_to_be_copied(self, desk: Desk) -> None:
        arrival = desk.noted()
        known = Memory("camera", str(desk.inbox), desk.ledger)
        assert known.fresh([arrival.file]) == [arrival.file]

    def test_file_that_was_copied_is_not_looked_at(self, desk: Desk) -> None:
        arrival = desk.arrival(token="7" * 16)
        desk.ledger.claim([arrival])
        read = desk.examined(desk.arrival())
        assert isinstance(read, Decoded)
        read = read.fingerprint
        desk.ledger.ingest(
            [Copy(arrival, Fingerprint(SHA256, read.size, read.mtime_ns), signature_of(os.lstat(desk.file)))]
        )
        assert desk.fresh() == []


# -- the real program -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def forker() -> Iterator[Forker]:
    with forking(environment()) as forker:
        yield forker


@dataclass
class Place:
    """A working folder; its runs are forks, its commands run here."""

    workspace: Workspace
    forker: Forker

    def act(self, action: str, *, output: bool = True) -> None:
        """Give the inbox another action."""
        lines = [
            line for line in self.workspace.config.read_text().splitlines() if not line.startswith(("action", "output"))
        ]
        lines.insert(lines.index('path = "inbox"'), f'action = "{action}"')
        if output:
            lines.insert(lines.index('path = "inbox"'), 'output = "sorted"')
        self.workspace.config.write_text("\n".join(lines))

    def run(self) -> list[tuple[str, str | None]]:
        """Run to the end; path and destination of each result."""
        root = self.workspace.root
        ended = self.forker.end(root, self.forker.start(root, "--once"))
        assert ended.code == 0, ended.log
        return self.filed()

    def filed(self) -> list[tuple[str, str | None]]:
        query = "SELECT source_path, destination FROM images WHERE status = 'filed'"
        return sorted(ask(self.workspace.database, query), key=repr)

    def ask(self, request: str, **arguments: Any) -> Any:
        return alone(load_settings(self.workspace.config))(request, arguments)

    def findings(self, **options: Any) -> list[str]:
        workspace = self.workspace
        return audit(workspace.dropped, [workspace.inbox], workspace.output, workspace.database, **options)


@pytest.fixture
def place(tmp_path: Path, forker: Forker) -> Place:
    place = Place(Workspace.make(tmp_path / "place", variant=LOOKING), forker)
    place.workspace.drop("a.png", picture(220, 60, 40, 1))
    place.workspace.drop("s/b.png", picture(40, 60, 220, 2))
    return place


@pytest.mark.slow
def test_files_stay_are_classified_once_and_again_when_they_change_or_are_tried_again(place: Place) -> None:
    place.act("none", output=False)
    inbox = place.workspace.inbox
    place.workspace.drop("none.png", b"no picture")
    (inbox / "link.png").symlink_to("a.png")
    os.mkfifo(inbox / "pipe.png")
    assert place.run() == [("a.png", None), ("none.png", None), ("s/b.png", None)]
    assert place.findings(rows_only=True, stays=[b"link.png", b"pipe.png"]) == []
    assert place.run() == place.filed()
    listed = CliRunner().invoke(cli, ["rejected", "list", "--json", "--config", str(place.workspace.config)])
    assert [json.loads(line)["destination"] for line in listed.stdout.splitlines()] == [None]
    assert place.ask("retry") == {"back": 1, "refused": []}
    assert len(place.filed()) == 2
    (inbox / "a.png").write_bytes(picture(40, 60, 220, 3))
    assert [path for path, _ in place.run()] == ["a.png", "a.png", "none.png", "s/b.png"]
    assert place.ask("undo", last=4) == {"back": 4, "refused": []}
    assert place.run() == []
    assert place.ask("release") == {"released": 3}
    assert place.run() == [("a.png", None), ("none.png", None), ("s/b.png", None)]
    assert not place.workspace.output.exists()
    assert sorted(os.listdir(inbox)) == ["a.png", "link.png", "none.png", "pipe.png", "s"]


@pytest.mark.slow
def test_inbox_that_gets_other_actions_has_one_result_for_each_file(place: Place) -> None:
    """none, copy, none, move: what is filed then is filed once; what was moved stays moved."""
    place.act("none", output=False)
    assert place.run() == [("a.png", None), ("s/b.png", None)]
    place.act("copy")
    copied = [("a.png", "cat/a.png"), ("s/b.png", "dog/s/b.png")]
    assert place.run() == copied
    assert place.findings(inbox_keeps=True) == []
    place.workspace.drop("c.png", picture(220, 60, 40, 3))
    place.act("none")
    assert place.run() == sorted([*copied, ("c.png", None)])
    assert place.findings(inbox_keeps=True, looked_at=[b"c.png"]) == []
    assert place.ask("undo", last=3) == {"back": 3, "refused": []}  # a row, and two copies
    assert sorted(os.listdir(place.workspace.inbox)) == ["a.png", "c.png", "s"]
    assert place.ask("release") == {"released": 3}
    assert place.run() == [("a.png", None), ("c.png", None), ("s/b.png", None)]
    place.act("move")
    assert place.run() == sorted([*copied, ("c.png", "cat/c.png")])
    assert place.findings() == []


@pytest.mark.slow
def test_picture_that_kills_the_decoder_is_poison_where_it_is(tmp_path: Path) -> None:
    ward = Ward.make(tmp_path / "place", variant=LOOKING)
    assert isinstance(ward, Ward)
    ward.drop_deadly("deadly.png", "abort")
    ward.drop_neighbours(count=3)
    assert len(ward.restart_until_filed(4)) == 1
    assert ward.row("deadly.png")["reason"] == "poison"
    found = audit(
        ward.dropped, [ward.inbox], ward.output, ward.database, poison=[b"deadly.png"], inbox_keeps=True, rows_only=True
    )
    assert found == []
