"""Pictures of the same bytes: one is sorted, the others are set aside, whatever happens between."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine

from forking import Forker, forking
from gauges import Scraped
from helpers import files_of, make_arrival, make_classified, make_decoded, make_rejected, make_tree, place_in_work
from pigeonholed import known_contents, tables
from pigeonholed.delivery import Delivery
from pigeonholed.duplicates import Originals, as_duplicate
from pigeonholed.entries import Plan
from pigeonholed.finishing import Finisher
from pigeonholed.holding import Holds
from pigeonholed.images import (
    Arrival,
    Classified,
    Fingerprint,
    Handled,
    Original,
    Placement,
    Prediction,
    Reason,
    Status,
)
from pigeonholed.known_contents import KnownContents
from pigeonholed.ledger import Ledger
from pigeonholed.memory import Memory
from pigeonholed.originals import InPlace
from pigeonholed.output import Output
from pigeonholed.patience import Patience
from pigeonholed.placing import Placer
from pigeonholed.results import Selection
from pigeonholed.returning import Returner
from running import (
    KEEPING,
    SETTING_ASIDE,
    Workspace,
    drop_twenty,
    drop_twins,
    environment,
    picture,
    until,
    working,
)

A, B = "a" * 64, "b" * 64


def plan(number: int, sha256: str = A, placement: Placement = Placement.SORTED, **more: Any) -> Plan:
    arrival = make_arrival(f"{number}.png", number, inbox=more.pop("inbox", "camera"), size=1, mtime_ns=1)
    stands = more.pop("stands", placement in {Placement.SORTED, Placement.UNSURE})
    label = Prediction("tiny", 1, (("cat", 0.9),)) if stands else None
    reason = Reason.EMPTY if placement is Placement.REJECTED else None
    fingerprint = Fingerprint(sha256, 1, 1)
    return Plan(arrival, fingerprint, placement, f"cat/{number}.png", label, reason, stands=stands)


def enter(ledger: Ledger, *plans: Plan, confirmed: bool = True) -> None:
    ledger.claim([plan.arrival for plan in plans])
    ledger.plan(plans)
    if confirmed:
        ledger.confirm([plan.arrival for plan in plans])


def known(db: Engine) -> list[tuple[str, str, int]]:
    with db.connect() as connection:
        rows = connection.execute(sa.select(tables.contents).order_by(tables.contents.c.image_id))
        return [(row.inbox, row.sha256, row.image_id) for row in rows]


class TestWhatIsKnown:
    def test_content_is_known_from_the_commit_of_its_plan_on_with_its_place(
        self, ledger: Ledger, contents: KnownContents
    ) -> None:
        enter(ledger, plan(1), confirmed=False)
        assert contents.originals("camera", [A, B]) == {A: Original(1, "cat/1.png")}
        assert contents.originals("attic", [A]) == {}

    def test_plan_of_an_inbox_that_does_not_ask_writes_nothing(self, ledger: Ledger, db: Engine) -> None:
        enter(ledger, plan(1, stands=False))
        assert known(db) == []

    def test_plan_that_is_committed_again_under_another_name_is_known_by_that(
        self, ledger: Ledger, contents: KnownContents, db: Engine
    ) -> None:
        enter(ledger, plan(1), confirmed=False)
        ledger.plan([replace(plan(1), destination="cat/1-1.png")])
        assert contents.originals("camera", [A]) == {A: Original(1, "cat/1-1.png")}
        assert len(known(db)) == 1

    def test_first_of_several_is_named_and_the_next_when_that_is_put_back(
        self, ledger: Ledger, contents: KnownContents
    ) -> None:
        enter(ledger, plan(1), plan(2), plan(3, B))
        assert contents.originals("camera", [A])[A].image_id == 1
        (first,) = ledger.filed(Selection(image=1))
        ledger.begin_return([first], hold=True)
        assert contents.originals("camera", [A])[A].image_id == 1
        ledger.end_return([first])
        assert contents.originals("camera", [A, B]) == {A: Original(2, "cat/2.png"), B: Original(3, "cat/3.png")}

    def test_duplicate_that_is_put_back_leaves_its_original_known(self, ledger: Ledger, db: Engine) -> None:
        enter(ledger, plan(1), plan(2, placement=Placement.DUPLICATE))
        ledger.end_return(ledger.filed(Selection(image=2)))
        assert known(db) == [("camera", A, 1)]

    def test_content_of_a_file_that_ends_without_a_result_is_forgotten(self, ledger: Ledger, db: Engine) -> None:
        enter(ledger, plan(1), confirmed=False)
        ledger.close([plan(1).arrival], Status.LOST, "for a test")
        assert known(db) == []

    def test_content_whose_row_is_gone_hides_no_other(
        self, ledger: Ledger, contents: KnownContents, db: Engine
    ) -> None:
        """A history that was cut down."""
        enter(ledger, plan(1), plan(2))
        with db.begin() as connection:
            connection.execute(sa.delete(tables.images).where(tables.images.c.id == 1))
        assert contents.originals("camera", [A]) == {A: Original(2, "cat/2.png")}

    def test_more_hashes_than_a_query_takes_are_all_answered(
        self, ledger: Ledger, contents: KnownContents, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tables, "MANY", 1)
        enter(ledger, plan(1), plan(2, B))
        assert set(contents.originals("camera", [A, B])) == {A, B}

    def test_question_waits_for_no_writer(self, ledger: Ledger, contents: KnownContents, db: Engine) -> None:
        enter(ledger, plan(1))
        with db.begin() as writing:  # which has the one lock that SQLite gives to writers
            writing.execute(sa.update(tables.images).values(detail="being written"))
            began_s = time.monotonic()
            assert contents.originals("camera", [A]) == {A: Original(1, "cat/1.png")}
            assert time.monotonic() - began_s < 4.0  # else five seconds, and an error

    def test_database_that_is_away_is_waited_for(self, ledger: Ledger, contents: KnownContents, db: Engine) -> None:
        def fail(_connection: sa.Connection) -> None:
            raise sa.exc.OperationalError("BEGIN", {}, sqlite3.OperationalError("unable to open database file"))

        sa.event.listen(db, "begin", fail)
        with pytest.raises(TimeoutError):
            contents.originals("camera", [A])

    def test_database_that_refuses_for_good_is_not_taken_for_one_that_is_away(
        self, contents: KnownContents, db: Engine
    ) -> None:
        def refuse(_connection: sa.Connection) -> None:
            raise sa.exc.ProgrammingError("SELECT", {}, ValueError("no such column"))

        sa.event.listen(db, "begin", refuse)
        with pytest.raises(sa.exc.ProgrammingError):
            contents.originals("camera", [A])


class TestSwitchingOn:
    @pytest.fixture(autouse=True)
    def _small_pages(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(known_contents, "_PAGE", 2)

    def test_what_was_filed_before_is_known_but_for_duplicates_and_the_rejected(
        self, ledger: Ledger, contents: KnownContents, db: Engine
    ) -> None:
        ledger.remember_inbox("camera", "/camera")
        kinds = [Placement.SORTED, Placement.UNSURE, Placement.REJECTED, Placement.DUPLICATE]
        plans = [plan(n, f"{n:064x}", kind, stands=False) for n, kind in enumerate(kinds, 1)]
        enter(ledger, *plans, plan(5, B, stands=False, inbox="attic"))
        enter(ledger, plan(6, B, stands=False), confirmed=False)
        enter(ledger, plan(7, B, stands=False))
        ledger.end_return(ledger.filed(Selection(image=7)))
        contents.know("camera")
        assert [number for _inbox, _sha256, number in known(db)] == [1, 2, 6]

    def test_what_was_filed_while_it_was_off_is_known_when_it_is_on_again(
        self, ledger: Ledger, contents: KnownContents, db: Engine
    ) -> None:
        ledger.remember_inbox("camera", "/camera")
        enter(ledger, plan(1, stands=False))
        contents.know("camera")
        enter(ledger, plan(2, B, stands=False), plan(3, stands=False))
        contents.know("camera")
        assert [number for _inbox, _sha256, number in known(db)] == [1, 2, 3]

    def test_only_rows_that_are_new_since_are_looked_at(
        self, ledger: Ledger, contents: KnownContents, db: Engine
    ) -> None:
        ledger.remember_inbox("camera", "/camera")
        enter(ledger, plan(1), plan(2, B))
        contents.know("camera")
        with db.begin() as connection:
            connection.execute(sa.delete(tables.contents))
        enter(ledger, plan(3))
        contents.know("camera")
        assert [number for _inbox, _sha256, number in known(db)] == [3]

    def test_what_is_in_flight_may_be_planned_while_it_is_off_and_is_looked_at_again(
        self, ledger: Ledger, contents: KnownContents, db: Engine
    ) -> None:
        ledger.remember_inbox("camera", "/camera")
        enter(ledger, plan(1))
        ledger.claim([plan(2, B).arrival])
        enter(ledger, plan(3))
        contents.know("camera")
        ledger.plan([plan(2, B, stands=False)])
        contents.know("camera")
        assert ("camera", B, 2) in known(db)


@dataclass
class Desk:
    """A finisher on a real ledger, for an inbox that sets duplicates aside."""

    inbox: Path
    output: Output
    ledger: Ledger
    contents: KnownContents
    db: Engine
    number: int = 0
    withdrawn: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        make_tree(self.inbox, {})
        self.deliveries = {"camera": Delivery(str(self.inbox), self.output, Placer(), sets_aside=True)}
        self.finisher = self.new_finisher()

    def new_finisher(self) -> Finisher:
        def withdrawn(items: Any) -> None:
            self.withdrawn += [item.arrival.id for item in items]

        return Finisher(self.deliveries, self.ledger, self.contents, Patience(), lambda _plans: None, withdrawn)

    def arrive(self, content: bytes, path: str) -> tuple[Arrival, Fingerprint]:
        self.number += 1
        arrival = place_in_work(self.output, content, path, self.number, token=f"t{self.number}")
        self.ledger.claim([arrival])
        sha256 = hashlib.sha256(content).hexdigest()
        return arrival, Fingerprint(sha256, arrival.file.size, arrival.file.mtime_ns)

    def classified(self, content: bytes, path: str, **more: Any) -> Classified:
        arrival, fingerprint = self.arrive(content, path)
        return replace(make_classified(arrival, **more), fingerprint=fingerprint)

    def rejected(self, content: bytes, path: str) -> Handled:
        arrival, fingerprint = self.arrive(content, path)
        return replace(make_rejected(arrival), fingerprint=fingerprint)

    def finish(self, *handled: Handled) -> dict[str, bytes]:
        self.finisher.turn(handled)
        self.finisher.settle()
        return files_of(self.output.root)

    def rows(self) -> dict[str, tuple[Any, ...]]:
        columns = tables.images.c
        query = sa.select(columns.source_path, columns.outcome, columns.label, columns.detail)
        with self.db.connect() as connection:
            return {row[0]: tuple(row[1:]) for row in connection.execute(query.order_by(columns.id))}

    def predictions(self) -> set[int]:
        with self.db.connect() as connection:
            return set(connection.scalars(sa.select(tables.predictions.c.image_id)))

    def undo(self, number: int) -> None:
        returner = Returner(self.ledger, self.deliveries, Holds())
        assert returner.put_back(self.ledger.filed(Selection(image=number)), hold=True).refused == ()


@pytest.fixture
def desk(tmp_path: Path, output: Output, ledger: Ledger, contents: KnownContents, db: Engine) -> Desk:
    return Desk(tmp_path / "inbox", output, ledger, contents, db)


class TestSettingAside:
    def test_later_one_keeps_sub_folder_and_name_and_says_which_it_equals(self, desk: Desk) -> None:
        desk.deliveries["camera"] = replace(desk.deliveries["camera"], placer=Placer("{label}/{date:%Y}/{name}"))
        desk.finisher = desk.new_finisher()
        desk.finish(desk.classified(b"1", "a/x.png"))
        (first,) = files_of(desk.output.root)
        files = desk.finish(desk.classified(b"1", "b/y.png"))
        assert files == {first: b"1", "_duplicates/b/y.png": b"1"}
        assert desk.rows()["b/y.png"] == ("duplicate", None, f"the same bytes as image 1, filed at {first}")
        assert desk.predictions() == {1}

    def test_within_a_batch_the_first_that_arrived_is_sorted_whichever_comes_first(self, desk: Desk) -> None:
        first, second, third = (desk.classified(b"1", f"{name}.png") for name in "abc")
        files = desk.finish(third, second, first)
        assert files.keys() == {"cat/a.png", "_duplicates/b.png", "_duplicates/c.png"}
        assert desk.rows()["c.png"][2] == "the same bytes as image 1, filed at cat/a.png"

    def test_unsure_one_counts_and_a_taken_name_is_numbered(self, desk: Desk) -> None:
        desk.finish(desk.classified(b"1", "x.png", confidence=0.1), desk.classified(b"1", "y.png"))
        files = desk.finish(desk.classified(b"1", "y.png"))
        assert files.keys() == {"_unsure/cat/x.png", "_duplicates/y.png", "_duplicates/y-1.png"}

    def test_rejected_ones_are_no_duplicates_and_have_none(self, desk: Desk) -> None:
        desk.finish(desk.rejected(b"1", "bad.png"), desk.rejected(b"1", "worse.png"))
        files = desk.finish(desk.classified(b"1", "good.png"))
        assert {name for name in files if not name.endswith(".json")} == {
            "_rejected/unreadable/bad.png",
            "_rejected/unreadable/worse.png",
            "cat/good.png",
        }
        assert "_rejected/unreadable/again.png" in desk.finish(desk.rejected(b"1", "again.png"))

    def test_undo_of_the_original_makes_the_next_one_the_original(self, desk: Desk) -> None:
        desk.finish(desk.classified(b"1", "x.png"), desk.classified(b"1", "y.png"))
        desk.undo(1)
        files = desk.finish(desk.classified(b"1", "z.png"))
        assert files.keys() == {"_duplicates/y.png", "cat/z.png"}

    def test_undo_of_a_duplicate_puts_it_back(self, desk: Desk) -> None:
        desk.finish(desk.classified(b"1", "x.png"), desk.classified(b"1", "s/y.png"))
        desk.undo(2)
        assert files_of(desk.inbox) == {"s/y.png": b"1"}
        assert desk.finish(desk.classified(b"1", "z.png")).keys() == {"cat/x.png", "_duplicates/z.png"}

    def test_one_that_no_model_saw_goes_back_when_its_original_has_gone(self, desk: Desk) -> None:
        desk.finish(desk.classified(b"1", "x.png"))
        duplicate = as_duplicate(desk.classified(b"1", "y.png"), Original(1, "cat/x.png"))
        desk.undo(1)
        assert desk.finish(duplicate) == {}
        assert (files_of(desk.inbox), desk.withdrawn) == ({"x.png": b"1", "y.png": b"1"}, [2])

    def test_original_that_stayed_in_its_inbox_comes_again_after_that(self, desk: Desk) -> None:
        """`action = copy`: what was known of it in memory is forgotten with its row."""
        memory = Memory("camera", str(desk.inbox), desk.ledger)
        forgotten: list[str] = []
        custody = desk.deliveries["camera"].custody
        custody.forget = lambda: (forgotten.append("camera"), memory.forget())  # type: ignore[method-assign]
        assert InPlace(str(desk.inbox), memory).stay
        desk.finish(as_duplicate(desk.classified(b"1", "y.png"), Original(1, "cat/x.png")))
        assert forgotten == ["camera"]

    def test_inbox_that_does_not_ask_sorts_both_and_asks_nobody(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def asked(_inbox: str, _hashes: list[str]) -> dict[str, Original]:
            raise AssertionError

        monkeypatch.setattr(desk.contents, "originals", asked)
        desk.deliveries["camera"] = replace(desk.deliveries["camera"], sets_aside=False)
        desk.finisher = desk.new_finisher()
        desk.finish(desk.classified(b"1", "x.png"), desk.classified(b"1", "y.png"))
        assert [outcome for outcome, _label, _detail in desk.rows().values()] == ["sorted", "sorted"]
        assert known(desk.db) == []


class TestBeforeTheModel:
    @dataclass
    class Filed:
        asked: list[tuple[str, list[str]]] = field(default_factory=list)

        def originals(self, inbox: str, hashes: Any) -> dict[str, Original]:
            self.asked.append((inbox, list(hashes)))
            return {A: Original(7, "cat/x.png")} if A in hashes else {}

    def test_known_ones_are_told_apart_at_one_question_a_batch(self) -> None:
        filed = self.Filed()
        pictures = [
            replace(make_decoded(make_arrival(f"{n}.png", n)), fingerprint=Fingerprint(sha256, 1, 1))
            for n, sha256 in enumerate((A, B, A), 1)
        ]
        fresh, again = Originals({"camera"}, filed, Patience(), "decode").told_apart(pictures)
        assert [picture.arrival.id for picture in fresh] == [2]
        assert [(item.arrival.id, item.original, item.width) for item in again] == [
            (1, Original(7, "cat/x.png"), 640),
            (3, Original(7, "cat/x.png"), 640),
        ]
        assert filed.asked == [("camera", [A, B])]

    def test_other_inboxes_cost_no_question(self) -> None:
        filed = self.Filed()
        picture = make_decoded(make_arrival(inbox="attic"))
        assert Originals({"camera"}, filed, Patience(), "decode").told_apart([picture]) == ([picture], [])
        assert Originals((), filed, Patience(), "decode").of([picture]) == {}
        assert filed.asked == []


@pytest.fixture(scope="module")
def forker() -> Iterator[Forker]:
    with forking(environment()) as forker:
        yield forker


def once(forker: Forker, workspace: Workspace) -> None:
    ended = forker.end(workspace.root, forker.start(workspace.root, "--once"))
    assert ended.code == 0, ended.log


def places(workspace: Workspace) -> dict[str, str]:
    return {os.path.basename(path): os.path.dirname(path) for path in files_of(workspace.output)}


def test_twins_of_a_run_and_of_later_runs_are_set_aside_and_no_model_sees_the_known(
    tmp_path: Path, forker: Forker
) -> None:
    workspace = Workspace.make(tmp_path, variant=SETTING_ASIDE, listen="127.0.0.1:0")
    drop_twins(workspace)
    once(forker, workspace)
    assert workspace.audit() == []
    with workspace.serving() as daemon:
        drop_twins(workspace, "again/")
        until(lambda: workspace.filed() == 20, "all to be filed")
        seen = Scraped.of(daemon.fetch("/metrics")[1])
        assert seen.faults() == []
        assert seen.total("inference_images_total") == 0
        assert seen.total("images_processed_total", "duplicate") == 8
        status = json.loads(workspace.run("status", "--json").stdout)
        assert [inbox["duplicate"] for inbox in status["inboxes"]] == [8]
        assert daemon.terminate() == 0
    assert workspace.audit() == []


def test_originals_that_stay_have_duplicates_too(tmp_path: Path, forker: Forker) -> None:
    variant = replace(KEEPING, inbox=f"{KEEPING.inbox}\n{SETTING_ASIDE.inbox}", sets_aside=True)
    with working(tmp_path, variant) as workspace:
        drop_twins(workspace)
        once(forker, workspace)
        assert workspace.audit() == []
        assert sum(place.startswith("_duplicates") for place in places(workspace).values()) == 6


def test_switched_on_later_it_knows_what_was_filed_before(tmp_path: Path, forker: Forker) -> None:
    workspace = Workspace.make(tmp_path)
    data = picture(220, 60, 40, 1)
    workspace.drop("first.png", data)
    once(forker, workspace)
    workspace.config.write_text(workspace.config.read_text().replace("[[inbox]]", f"[[inbox]]\n{SETTING_ASIDE.inbox}"))
    workspace.drop("second.png", data)
    told = json.loads(workspace.run("run", "--dry-run", "--json").stdout)
    assert told["destination"] == "cat/second.png"  # the database says nothing before the setting has been in service
    once(forker, workspace)
    assert places(workspace)["second.png"] == "_duplicates"
    workspace.drop("third.png", data)
    told = json.loads(workspace.run("run", "--dry-run", "--json").stdout)
    assert (told["outcome"], told["destination"]) == ("duplicate", "_duplicates/third.png")
    once(forker, workspace)
    assert workspace.audit() == []


def test_dry_run_tells_twins_of_one_look_apart_without_a_database(tmp_path: Path) -> None:
    workspace = Workspace.make(tmp_path, variant=SETTING_ASIDE)
    for name in ("a.png", "b.png"):
        workspace.drop(name, picture(220, 60, 40, 1))
    said = workspace.run("run", "--dry-run")
    assert said.returncode == 0, said.stderr
    assert sorted(line.rpartition(" (")[2].split()[0].rstrip(")") for line in said.stdout.splitlines()) == [
        "cat",
        "duplicate",
    ]


def test_undo_and_release_of_twins_sort_one_again(tmp_path: Path, forker: Forker) -> None:
    workspace = Workspace.make(tmp_path, variant=SETTING_ASIDE)
    drop_twenty(workspace)
    drop_twins(workspace)
    once(forker, workspace)
    undone = workspace.run("undo", "--last", "30")
    assert undone.returncode == 0, undone.stderr
    assert files_of(workspace.output) == {}
    assert workspace.run("undo", "--release").returncode == 0
    once(forker, workspace)
    assert workspace.audit() == []
