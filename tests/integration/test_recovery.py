"""What an earlier process left unfinished is taken up: every state of the row, wherever the file is.

The first part is the table of the delivery protocol, a row and a place at a time. The second part kills the real code
before and after each of its steps, on a real disk and a real database, and starts again.
"""

from __future__ import annotations

import errno
import hashlib
import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine

import auditor
from helpers import NothingFiled, files_of, lines, make_arrival, make_served, make_tree, png, read_tree, recovered
from mounts import another_mount
from pigeonholed import database, recovery, tables
from pigeonholed.claiming import Claimer, Feed
from pigeonholed.copy_custody import Copying
from pigeonholed.copying import Copier
from pigeonholed.custody import Custody, Renaming
from pigeonholed.decoding import Demand, examine
from pigeonholed.delivery import Delivery
from pigeonholed.disk import Disk
from pigeonholed.entries import Plan
from pigeonholed.errors import Unavailable
from pigeonholed.finishing import Finisher
from pigeonholed.hold_folder import HoldFolder
from pigeonholed.ignoring import NameFilter
from pigeonholed.images import (
    Arrival,
    Decoded,
    Fingerprint,
    Handled,
    Placement,
    Prediction,
    Reason,
)
from pigeonholed.ledger import Ledger
from pigeonholed.memory import Memory
from pigeonholed.metrics import Metrics
from pigeonholed.originals import Held, InPlace
from pigeonholed.output import Output
from pigeonholed.patience import Patience
from pigeonholed.placing import Placer
from pigeonholed.served_models import ServedModels
from pigeonholed.serving import Policy
from pigeonholed.watching import Rules, Watch
from pigeonholed.writer import Writer
from records_of import ON_POSTGRES
from servers import address_in, database_in, put_database, take_database

THOROUGH = "PIGEONHOLED_TEST_KILLS" in os.environ and not ON_POSTGRES  # `make soak`
CONTENT = png()
TOKEN = "7" * 16


@dataclass
class Desk:
    """An inbox, an output and a ledger, as a process finds them at its start."""

    inbox: Path
    output: Output
    ledger: Ledger
    db: Engine
    filed: list[int] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    metrics: Metrics = field(default_factory=lambda: Metrics(process=False))

    def __post_init__(self) -> None:
        make_tree(self.inbox, {})

    def arrival(self, path: str = "s/x.png", number: int = 1, content: bytes = CONTENT) -> Arrival:
        """A claim that was recorded; where its file is, the test says."""
        arrival = make_arrival(path, number, size=len(content), mtime_ns=5 * 10**9, token=TOKEN)
        self.ledger.claim([arrival])
        os.makedirs(self.output.batch_folder(TOKEN), exist_ok=True)
        return arrival

    def planned(self, **more: Any) -> Arrival:
        arrival = self.arrival(**more)
        fingerprint = Fingerprint(hashlib.sha256(CONTENT).hexdigest(), arrival.file.size, arrival.file.mtime_ns)
        prediction = Prediction("tiny", 1, (("cat", 0.9), ("dog", 0.1)))
        self.ledger.plan([Plan(arrival, fingerprint, Placement.SORTED, "cat/s/x.png", prediction)])
        return arrival

    def put(self, path: str, content: bytes = CONTENT) -> None:
        make_tree(Path("/"), {path.lstrip("/"): content})
        os.utime(path, ns=(0, 5 * 10**9))

    def in_inbox(self, arrival: Arrival, content: bytes = CONTENT) -> None:
        self.put(str(self.inbox / arrival.file.path), content)

    def in_work(self, arrival: Arrival, content: bytes = CONTENT) -> None:
        self.put(self.output.work_path(arrival), content)

    def at_destination(self, content: bytes = CONTENT) -> None:
        self.put(os.path.join(self.output.root, "cat/s/x.png"), content)

    def recover(self) -> list[Arrival]:
        """As a new process does; its books balance, and what it gives back is what is in flight."""
        deliveries = {"camera": Delivery(str(self.inbox), self.output, Placer())}
        again, self.metrics = recovered(self.ledger, deliveries, self.filed, self.lost)
        return again

    def status(self) -> str:
        (row,) = self.rows()
        return str(row["status"])

    def rows(self) -> list[dict[str, Any]]:
        with self.db.connect() as connection:
            return [dict(row) for row in connection.execute(sa.select(tables.images)).mappings()]


@pytest.fixture
def desk(tmp_path: Path, output: Output, ledger: Ledger, db: Engine) -> Desk:
    return Desk(tmp_path / "inbox", output, ledger, db)


class TestClaimed:
    def test_in_the_inbox_it_is_claimed_again(self, desk: Desk) -> None:
        arrival = desk.arrival()
        desk.in_inbox(arrival)
        assert [again.id for again in desk.recover()] == [1]
        assert Path(desk.output.work_path(arrival)).read_bytes() == CONTENT
        assert read_tree(desk.inbox) == {"s": {}}
        assert desk.rows()[0]["attempts"] == 2

    def test_in_the_inbox_it_is_claimed_again_though_its_work_folder_is_gone(self, desk: Desk) -> None:
        arrival = desk.arrival()
        desk.in_inbox(arrival)
        os.rmdir(desk.output.batch_folder(TOKEN))
        assert [again.id for again in desk.recover()] == [1]
        assert Path(desk.output.work_path(arrival)).read_bytes() == CONTENT

    def test_in_the_work_folder_it_is_decoded_again(self, desk: Desk) -> None:
        arrival = desk.arrival()
        desk.in_work(arrival)
        (again,) = desk.recover()
        assert again.file == arrival.file
        assert (again.key, again.token) == (arrival.key, arrival.token)
        assert Path(desk.output.work_path(arrival)).read_bytes() == CONTENT
        assert desk.status() == "claimed"

    def test_in_the_work_folder_it_counts_though_the_name_was_dropped_again(self, desk: Desk) -> None:
        arrival = desk.arrival()
        desk.in_work(arrival)
        desk.in_inbox(arrival, b"a new arrival")
        assert [again.id for again in desk.recover()] == [1]
        assert read_tree(desk.inbox) == {"s": {"x.png": b"a new arrival"}}

    def test_nowhere_it_was_taken_away_by_its_owner(self, desk: Desk) -> None:
        desk.arrival()
        assert desk.recover() == []
        assert desk.status() == "vanished"
        assert desk.output.batch_folders() == []

    def test_another_file_under_its_name_is_a_new_arrival(self, desk: Desk) -> None:
        arrival = desk.arrival()
        desk.in_inbox(arrival, b"another")
        assert desk.recover() == []
        assert desk.status() == "vanished"
        assert read_tree(desk.inbox) == {"s": {"x.png": b"another"}}

    def test_folder_that_became_a_file_does_not_keep_the_daemon_from_starting(self, desk: Desk) -> None:
        desk.arrival()
        make_tree(desk.inbox, {"s": b"a file now"})
        assert desk.recover() == []
        assert desk.status() == "vanished"

    def test_inbox_that_is_missing_does_not_keep_the_daemon_from_starting(self, desk: Desk) -> None:
        """Nor does anybody claim to know what became of its file: that may be held there."""
        desk.arrival()
        desk.inbox.rmdir()
        assert desk.recover() == []
        assert desk.status() == "claimed"
        desk.inbox.mkdir()
        assert desk.recover() == []
        assert desk.status() == "vanished"

    def test_folder_that_nobody_may_take_from_does_not_keep_the_daemon_from_starting(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        arrival = desk.arrival()
        desk.in_inbox(arrival)

        def refuse(_custody: Renaming, _arrival: Arrival) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(Renaming, "take", refuse)
        assert desk.recover() == []
        assert desk.status() == "vanished"  # it comes again as a new arrival
        assert read_tree(desk.inbox) == {"s": {"x.png": CONTENT}}


class TestPlanned:
    def test_in_the_work_folder_it_is_moved_and_filed(self, desk: Desk) -> None:
        desk.in_work(desk.planned())
        assert desk.recover() == []
        assert (desk.status(), desk.filed) == ("filed", [1])
        assert files_of(desk.output.root) == {"cat/s/x.png": CONTENT}
        assert desk.output.batch_folders() == []

    def test_at_its_destination_it_is_filed_where_it_is(self, desk: Desk) -> None:
        desk.planned()
        desk.at_destination()
        assert desk.recover() == []
        assert (desk.status(), desk.filed) == ("filed", [1])
        assert files_of(desk.output.root) == {"cat/s/x.png": CONTENT}
        assert desk.output.batch_folders() == []

    def test_found_move_is_made_durable_before_it_is_confirmed(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        desk.planned()
        desk.at_destination()
        synced: set[str] = set()

        def sync(_disk: Disk, files: Sequence[str], folders: Sequence[str]) -> None:
            assert desk.status() == "planned"
            synced.update(os.path.relpath(folder, desk.output.root) for folder in folders)

        monkeypatch.setattr(Disk, "sync", sync)
        desk.recover()
        assert {"cat/s", f".pigeonholed/{TOKEN}"} <= synced

    def test_outsider_at_its_destination_is_left_alone(self, desk: Desk) -> None:
        desk.in_work(desk.planned())
        desk.at_destination(b"an outsider")
        desk.recover()
        assert files_of(desk.output.root) == {"cat/s/x.png": b"an outsider", "cat/s/x-1.png": CONTENT}
        assert desk.rows()[0]["destination"] == "cat/s/x-1.png"
        assert desk.status() == "filed"

    def test_same_bytes_of_an_outsider_do_not_stand_for_it(self, desk: Desk) -> None:
        desk.in_work(desk.planned())
        desk.at_destination(CONTENT)
        desk.recover()
        assert files_of(desk.output.root) == {"cat/s/x.png": CONTENT, "cat/s/x-1.png": CONTENT}

    def test_move_by_link_that_was_killed_half_way_is_finished(self, desk: Desk) -> None:
        arrival = desk.planned()
        desk.in_work(arrival)
        os.makedirs(os.path.join(desk.output.root, "cat/s"))
        os.link(desk.output.work_path(arrival), os.path.join(desk.output.root, "cat/s/x.png"))
        desk.output.disk._renameat2 = None
        desk.recover()
        assert files_of(desk.output.root) == {"cat/s/x.png": CONTENT}
        assert desk.output.batch_folders() == []
        assert desk.status() == "filed"

    def test_nowhere_it_is_lost_and_alarms_and_its_row_is_kept(self, desk: Desk) -> None:
        desk.planned()
        assert desk.recover() == []
        assert (desk.status(), desk.lost) == ("lost", [1])

    def test_files_that_should_be_in_an_output_that_is_new_are_not_called_lost(self, desk: Desk) -> None:
        """Its mount is away. At the next start it must be new again."""
        desk.planned()
        desk.output.fresh = True
        owner = Path(desk.output.private, "owner")
        owner.write_text("ours")
        with pytest.raises(Unavailable, match="1 files in flight should be in the output"):
            desk.recover()
        assert (desk.status(), desk.lost) == ("planned", [])
        assert not owner.exists()

    @pytest.mark.parametrize("content", [b"other bytes", CONTENT[::-1]])
    def test_other_bytes_at_its_destination_are_not_taken_for_it(self, desk: Desk, content: bytes) -> None:
        desk.planned()
        desk.at_destination(content)
        desk.recover()
        assert desk.status() == "lost"
        assert files_of(desk.output.root) == {"cat/s/x.png": content}

    def test_in_the_inbox_alone_it_cannot_be(self, desk: Desk) -> None:
        """The claim was durable before the plan: what is in the inbox under that name is another arrival."""
        desk.in_inbox(desk.planned(), CONTENT)
        desk.recover()
        assert desk.status() == "lost"
        assert read_tree(desk.inbox) == {"s": {"x.png": CONTENT}}

    @pytest.mark.parametrize(("found", "status"), [(CONTENT, "filed"), (CONTENT + b"more", "lost")])
    def test_rejected_file_without_a_hash_is_found_by_its_size(self, desk: Desk, found: bytes, status: str) -> None:
        arrival = desk.arrival()
        unread = Fingerprint(None, len(CONTENT), 0)
        place = "_rejected/io-error/s/x.png"
        desk.ledger.plan([Plan(arrival, unread, Placement.REJECTED, place, reason=Reason.IO_ERROR, detail="d")])
        desk.put(os.path.join(desk.output.root, place), found)
        desk.recover()
        assert desk.status() == status

    @pytest.mark.parametrize("killed_after", ["plan", "draft", "sidecar"])
    def test_rejected_file_gets_its_sidecar_once(self, desk: Desk, killed_after: str) -> None:
        arrival = desk.arrival()
        place = "_rejected/empty/s/x.png"
        fingerprint = Fingerprint(hashlib.sha256(CONTENT).hexdigest(), len(CONTENT), 0)
        desk.ledger.plan([Plan(arrival, fingerprint, Placement.REJECTED, place, reason=Reason.EMPTY, detail="d")])
        desk.in_work(arrival)
        if killed_after == "draft":
            desk.put(desk.output.draft_path(arrival), b'{"half')
        elif killed_after == "sidecar":
            explanation = f'{{"arrival": "{arrival.key}"}}'.encode()
            desk.put(os.path.join(desk.output.root, place + ".reason.json"), explanation)
        desk.recover()
        files = files_of(desk.output.root)
        assert set(files) == {place, place + ".reason.json"}
        assert arrival.key.encode() in files[place + ".reason.json"]
        assert desk.output.batch_folders() == []

    def test_file_with_the_old_and_the_new_name_of_its_move_is_filed_once(self, desk: Desk) -> None:
        """As btrfs leaves it, when the power goes between the syncs of the two folders."""
        arrival = desk.planned()
        desk.in_work(arrival)
        os.makedirs(os.path.join(desk.output.root, "cat/s"))
        os.link(desk.output.work_path(arrival), os.path.join(desk.output.root, "cat/s/x.png"))
        assert desk.recover() == []
        assert files_of(desk.output.root) == {"cat/s/x.png": CONTENT}
        assert (desk.status(), desk.output.batch_folders()) == ("filed", [])

    def test_reason_for_what_was_not_planned_in_time_goes(self, desk: Desk) -> None:
        """The file is decoded again, and may be no longer rejected then."""
        arrival = desk.arrival()
        desk.in_work(arrival)
        desk.put(desk.output.draft_path(arrival), b'{"half')
        assert [again.id for again in desk.recover()] == [1]
        assert os.listdir(desk.output.batch_folder(TOKEN)) == [arrival.key]


class TestRest:
    def test_filed_row_is_left_alone(self, desk: Desk) -> None:
        arrival = desk.planned()
        desk.ledger.confirm([arrival])
        before = desk.rows()
        assert desk.recover() == []
        assert desk.rows() == before

    def test_row_of_an_inbox_that_is_not_configured_is_left_alone(self, desk: Desk) -> None:
        stranger = make_arrival("x.png", 1, inbox="elsewhere", token=TOKEN)
        desk.ledger.claim([stranger])
        os.makedirs(desk.output.batch_folder(TOKEN))
        desk.in_work(stranger)
        assert desk.recover() == []
        assert desk.status() == "claimed"
        assert Path(desk.output.work_path(stranger)).read_bytes() == CONTENT

    def test_empty_work_folder_without_a_row_is_removed(self, desk: Desk) -> None:
        desk.output.make_batch_folder()
        desk.recover()
        assert desk.output.batch_folders() == []

    def test_work_folder_that_holds_what_no_row_knows_is_never_touched(self, desk: Desk) -> None:
        token = desk.output.make_batch_folder()
        desk.put(os.path.join(desk.output.batch_folder(token), "orphan"))
        desk.recover()
        assert os.listdir(desk.output.batch_folder(token)) == ["orphan"]
        assert b"pigeonholed_orphans_found_total 1.0" in desk.metrics.expose()[0]

    def test_recovering_twice_changes_nothing_more(self, desk: Desk) -> None:
        desk.in_work(desk.planned())
        second = make_arrival("y.png", 2, size=len(CONTENT), mtime_ns=5 * 10**9, token=TOKEN)
        desk.ledger.claim([second])
        desk.in_work(second)
        desk.recover()
        rows, files = desk.rows(), files_of(desk.output.root)
        assert [again.id for again in desk.recover()] == [2]
        assert [{**row, "attempts": 0} for row in desk.rows()] == [{**row, "attempts": 0} for row in rows]
        assert files_of(desk.output.root) == files
        assert desk.filed == [1]


# -- killed at each step ----------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process dies here. No `except Exception` stops it."""


class Killer:
    """Counts the instants before and after each step that changes the disk or the database, and kills at one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = -1
        self.seen = 0
        for owner, name in [
            (os, "mkdir"), (os, "rename"), (os, "rmdir"), (os, "unlink"),
            (Disk, "rename_new"), (Disk, "sync"), (Writer, "write"), (Copier, "copy"),
        ]:  # fmt: skip
            monkeypatch.setattr(owner, name, self._stepping(getattr(owner, name)))

    def _stepping(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **named: Any) -> Any:
            self._instant()
            result = original(*arguments, **named)
            self._instant()
            return result

        return step

    def _instant(self) -> None:
        self.seen += 1
        if self.left == 0:
            raise Killed
        self.left -= 1

    def kill_at(self, instant: int) -> None:
        self.left, self.seen = instant, 0

    def spare(self) -> None:
        self.left = -1


class _NoEngine:
    def __init__(self) -> None:
        self.submitted: list[Arrival] = []

    def submit(self, arrivals: Sequence[Arrival]) -> None:
        self.submitted.extend(arrivals)


def _custody_of(kind: str, inbox: str, output: Output, ledger: Ledger) -> Custody:
    match kind:
        case "renaming":
            return Renaming(inbox, output)
        case "hostile":
            return Copying(Held(inbox, HoldFolder.in_output(output)), output, ledger)
        case "copy":
            return Copying(InPlace(inbox, Memory("camera", inbox, ledger)), output, ledger)
        case _:
            return Copying(Held(inbox, HoldFolder.in_inbox(inbox, private=True)), output, ledger)


class Life:
    """One process: opens everything, takes up what was left, files what is there, a small batch at a time."""

    def __init__(self, place: Path, custody: str) -> None:
        self.place = place
        self.custody = custody
        self.db = database.connect(address_in(place))
        self.writer = Writer(self.db)
        self.writer.start()
        self.output: Output | None = None

    def run(self) -> None:
        ledger = Ledger(self.db, self.writer)
        self.output = output = Output.open(self.place / "sorted", ledger.identity)
        custody = _custody_of(self.custody, str(self.place / "inbox"), output, ledger)
        delivery = {"camera": Delivery(str(self.place / "inbox"), output, Placer(), custody)}
        finisher = Finisher(delivery, ledger, NothingFiled(), Patience(), lambda _plans: None, lambda _items: None)
        served, policies = make_served(), {"camera": Policy(None, 5)}
        ServedModels(self.db, self.writer).record("tiny", 1, "0" * 64, served.bundle.labels)

        def handle(arrivals: Sequence[Arrival]) -> None:
            handled: list[Handled] = []
            for arrival in arrivals:
                demand = Demand(served.bundle.manifest.pixel_spec, 10_000, 10_000)
                result = examine(arrival, output.work_path(arrival), demand)
                if isinstance(result, Decoded):
                    handled.extend(served.classify([result], policies))
                else:
                    handled.append(result)
            finisher.turn(handled)

        handle(recovery.recover(ledger, finisher, delivery, 0.0))
        rules = Rules("camera", str(self.place / "inbox"), 0.0, 0.0, 30.0, True)
        engine = _NoEngine()
        feed = Feed(Watch(rules, NameFilter(), output.now_ns), output, custody)
        claimer = Claimer([feed], ledger, engine, Patience(), Metrics(), limit=3)  # type: ignore[arg-type]
        while claimer.turn() or feed.watch.scanning():  # a turn may come by nothing but what was copied before
            handle(engine.submitted)
            engine.submitted.clear()
        finisher.settle()

    def end(self) -> None:
        """What the kernel does for a dead process, and not more."""
        if self.output is not None:
            self.output.disk.close()
            os.close(self.output._lock.fd)
        self.writer.stop()
        self.db.dispose()


_DROPPED = {
    "a.png": png("red", mark=1),
    "b.png": png("blue", mark=2),
    "taken.png": png("red", mark=3),
    "same.png": png("grey", mark=4),
    "s/same.png": png("grey", mark=4),
    "s/x.txt": b"just text",
    "s/x.txt.reason.json": b"a user's own",
}


def _prepare(place: Path, migrated_file: Path, elsewhere: Path | None = None) -> None:
    """Fill a place; the inbox is on another mount if one is given."""
    make_tree(place, {"sorted": {"cat": {"taken.png": b"an outsider"}}})
    if elsewhere is None:
        make_tree(place / "inbox", _DROPPED)
    else:
        (place / "inbox").symlink_to(make_tree(elsewhere / place.name, _DROPPED))
    put_database(place, migrated_file)


def _live(place: Path, custody: str) -> bool:
    """Live until done or killed; whether it was killed."""
    life = Life(place, custody)
    try:
        life.run()
    except Killed:
        return True
    finally:
        life.end()
    return False


def _judge(place: Path, custody: str) -> None:
    """Everything is exactly once where its row says; our own look, and that of the auditor."""
    keeps = custody == "copy"
    assert files_of(place / "inbox") == (_DROPPED if keeps else {})
    files = files_of(place / "sorted")
    assert files.pop("cat/taken.png") == b"an outsider"
    contents = sorted(content for path, content in files.items() if not _is_sidecar(path, files))
    assert contents == sorted(_DROPPED.values())
    (place / "sorted/cat/taken.png").unlink()  # it is no result, and the auditor would say so
    dropped = [
        auditor.Dropped(os.fsencode(path), hashlib.sha256(content).hexdigest()) for path, content in _DROPPED.items()
    ]
    findings = auditor.audit(dropped, [place / "inbox"], place / "sorted", database_in(place), inbox_keeps=keeps)
    assert not findings, lines(findings)
    take_database(place)


def _is_sidecar(path: str, files: dict[str, bytes]) -> bool:
    return path.endswith(".reason.json") and path.removesuffix(".reason.json") in files and files[path][:1] == b"{"


@pytest.fixture
def killer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Killer]:
    killer = Killer(monkeypatch)
    yield killer
    killer.spare()


@pytest.fixture(params=["renaming", "copy"] if ON_POSTGRES else ["renaming", "hostile", "other-mount", "copy"])
def custody(request: pytest.FixtureRequest) -> str:
    """How files come into our hands."""
    return str(request.param)


@pytest.fixture
def elsewhere(custody: str, tmp_path: Path) -> Iterator[Path | None]:
    """Where inboxes are, if not beside their outputs."""
    if custody == "other-mount":
        with another_mount(tmp_path) as folder:
            yield folder
    else:
        yield None


@pytest.mark.slow
def test_killed_before_or_after_any_step_nothing_is_lost_and_nothing_is_there_twice(
    tmp_path: Path, migrated_file: Path, custody: str, elsewhere: Path | None, killer: Killer
) -> None:
    killed = 0
    while True:
        place = tmp_path / str(killed)
        _prepare(place, migrated_file, elsewhere)
        killer.kill_at(killed)
        if not _live(place, custody):
            break
        killer.spare()
        assert not _live(place, custody)
        _judge(place, custody)
        # The instant after a step is the one before the next, so every second finds the same disk.
        killed += 1 if THOROUGH or (custody == "renaming" and not ON_POSTGRES) else 2
    killer.spare()
    _judge(place, custody)
    assert killed > 60  # the run has that many steps, and each was survived


@pytest.mark.slow
def test_killed_again_and_again_even_while_it_recovers(
    tmp_path: Path, migrated_file: Path, custody: str, elsewhere: Path | None, killer: Killer
) -> None:
    chance = random.Random(20260101)
    for trial in range(25 if THOROUGH or (custody == "renaming" and not ON_POSTGRES) else 10):
        place = tmp_path / str(trial)
        _prepare(place, migrated_file, elsewhere)
        for _ in range(6):
            killer.kill_at(chance.randrange(25))
            if not _live(place, custody):
                break
        killer.spare()
        assert not _live(place, custody)
        _judge(place, custody)
