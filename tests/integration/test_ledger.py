"""The record of what arrived and what became of it, on a real database."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine

from helpers import make_arrival
from pigeonholed import tables
from pigeonholed.amendments import Amendments, Found
from pigeonholed.database import WRITES
from pigeonholed.disk import WAITED_FOR
from pigeonholed.entries import Copied, Hold, Plan
from pigeonholed.images import Arrival, Fingerprint, Placement, Prediction, Reason, Status
from pigeonholed.ledger import Ledger
from pigeonholed.paths import from_text
from pigeonholed.results import Selection
from pigeonholed.served_models import ServedModels
from pigeonholed.settling import Signature
from pigeonholed.writer import Writer

_SHA = "ab" * 32


def _rows(db: Engine, table: sa.Table = tables.images) -> list[dict[str, Any]]:
    with db.connect() as connection:
        return [dict(row) for row in connection.execute(sa.select(table)).mappings()]


def _row(db: Engine) -> dict[str, Any]:
    (row,) = _rows(db)
    return row


def _sorted(arrival: Arrival, destination: str = "cat/x.png") -> Plan:
    prediction = Prediction("tiny", 3, (("cat", 0.75), ("dog", 0.25)))
    fingerprint = Fingerprint(_SHA, 11, 22)
    return Plan(arrival, fingerprint, Placement.SORTED, destination, prediction, width=640, height=480)


def _rejected(arrival: Arrival, sha256: str | None = _SHA) -> Plan:
    return Plan(
        arrival, Fingerprint(sha256, 0, 1), Placement.REJECTED, "_rejected/empty/x.png", None, Reason.EMPTY, "no bytes"
    )


@pytest.fixture
def arrival(ledger: Ledger) -> Arrival:
    arrival = make_arrival("s/x.png", 1, size=11, mtime_ns=22)
    ledger.claim([arrival])
    return arrival


def test_claim_is_recorded_with_all_that_recovery_needs(db: Engine, ledger: Ledger, arrival: Arrival) -> None:
    row = _row(db)
    assert (row["id"], row["inbox"], row["source_path"], row["status"]) == (1, "camera", "s/x.png", "claimed")
    assert (row["size_bytes"], row["mtime_ns"], row["attempts"]) == (11, 22, 1)
    assert (row["arrival"], row["token"]) == (arrival.key, arrival.token)
    assert timedelta(0) <= datetime.now(UTC) - row["arrived_at"] < timedelta(seconds=30)
    (unfinished,) = ledger.in_flight(7.0)
    assert unfinished.arrival == replace(arrival, seen_s=7.0)
    assert unfinished.plan is None


def test_plan_is_recorded_with_its_predictions_and_read_back(db: Engine, ledger: Ledger, arrival: Arrival) -> None:
    plan = _sorted(arrival)
    ledger.plan([plan])
    row = _row(db)
    assert {name: row[name] for name in ("status", "outcome", "label", "confidence", "model", "model_version")} == {
        "status": "planned",
        "outcome": "sorted",
        "label": "cat",
        "confidence": 0.75,
        "model": "tiny",
        "model_version": 3,
    }
    assert (row["sha256"], row["destination"], row["width"], row["height"]) == (_SHA, "cat/x.png", 640, 480)
    assert (row["reason"], row["filed_at"]) == (None, None)
    assert row["classified_at"] is not None
    assert [(p["rank"], p["label"], p["confidence"]) for p in _rows(db, tables.predictions)] == [
        (1, "cat", 0.75),
        (2, "dog", 0.25),
    ]
    (unfinished,) = ledger.in_flight(0.0)
    assert unfinished.plan is not None
    assert unfinished.plan.prediction is not None
    assert unfinished.plan.prediction.label == "cat"
    assert replace(unfinished.plan, prediction=plan.prediction) == plan


def test_rejection_has_a_reason_and_no_label(db: Engine, ledger: Ledger, arrival: Arrival) -> None:
    ledger.plan([_rejected(arrival)])
    row = _row(db)
    assert (row["outcome"], row["reason"], row["detail"]) == ("rejected", "empty", "no bytes")
    assert (row["label"], row["confidence"], row["model"], row["classified_at"]) == (None, None, None, None)
    assert row["size_bytes"] == 0
    assert _rows(db, tables.predictions) == []
    (unfinished,) = ledger.in_flight(0.0)
    assert unfinished.plan == replace(_rejected(arrival), arrival=unfinished.arrival)


def test_confirmed_plan_is_filed_with_times_in_order(db: Engine, ledger: Ledger, arrival: Arrival) -> None:
    ledger.plan([_sorted(arrival)])
    ledger.confirm([arrival])
    row = _row(db)
    assert row["status"] == "filed"
    assert row["arrived_at"] <= row["classified_at"] <= row["filed_at"]
    assert row["filed_at"].utcoffset() == timedelta(0)
    assert ledger.in_flight(0.0) == []


def test_plan_of_a_batch_and_confirmation_of_the_one_before_are_one_commit(db: Engine, ledger: Ledger) -> None:
    first, second = make_arrival("a", 1), make_arrival("b", 2)
    ledger.claim([first, second])
    ledger.plan([_sorted(first)])
    commits: list[None] = []
    sa.event.listen(db, "commit", lambda _connection: commits.append(None))
    ledger.plan([_sorted(second, "cat/b")], [first])
    assert len(commits) == 1
    assert [row["status"] for row in _rows(db)] == ["filed", "planned"]


@pytest.mark.parametrize("step", ["claim", "plan", "confirm", "close"])
def test_step_whose_acknowledgement_was_lost_can_be_repeated(
    db: Engine, ledger: Ledger, arrival: Arrival, step: str
) -> None:
    def do() -> None:
        if step == "claim":
            ledger.claim([arrival])
        elif step == "plan":
            ledger.plan([_sorted(arrival)])
        elif step == "confirm":
            ledger.confirm([arrival])
        else:
            ledger.close([arrival], Status.VANISHED, "gone")

    if step == "confirm":
        ledger.plan([_sorted(arrival)])
    do()
    before = [{**row, "filed_at": None, "classified_at": None} for row in _rows(db)]
    do()
    assert [{**row, "filed_at": None, "classified_at": None} for row in _rows(db)] == before
    assert len(_rows(db, tables.predictions)) in {0, 2}


def test_late_claim_does_not_take_back_what_is_filed(db: Engine, ledger: Ledger, arrival: Arrival) -> None:
    ledger.plan([_sorted(arrival)])
    ledger.confirm([arrival])
    ledger.claim([arrival])
    ledger.plan([_sorted(arrival, "dog/x.png")])
    row = _row(db)
    assert (row["status"], row["destination"]) == ("filed", "cat/x.png")


def test_file_that_was_never_planned_is_never_filed(db: Engine, ledger: Ledger, arrival: Arrival) -> None:
    ledger.confirm([arrival])
    assert _row(db)["status"] == "claimed"


def test_plan_of_another_token_changes_nothing(db: Engine, ledger: Ledger, arrival: Arrival) -> None:
    ledger.plan([_sorted(replace(arrival, token="other"))])
    assert _row(db)["status"] == "claimed"
    ledger.plan([_sorted(arrival)])
    ledger.confirm([replace(arrival, token="other")])
    assert _row(db)["status"] == "planned"


def test_new_name_replaces_the_planned_one(db: Engine, ledger: Ledger, arrival: Arrival) -> None:
    ledger.plan([_sorted(arrival)])
    ledger.plan([_sorted(arrival, "cat/x-1.png")])
    assert _row(db)["destination"] == "cat/x-1.png"
    assert len(_rows(db, tables.predictions)) == 2


@pytest.mark.parametrize("status", [Status.VANISHED, Status.LOST])
def test_closed_arrival_leaves_no_result(db: Engine, ledger: Ledger, arrival: Arrival, status: Status) -> None:
    ledger.close([arrival], status, "why")
    row = _row(db)
    assert (row["status"], row["detail"]) == (status.value, "why")
    assert ledger.in_flight(0.0) == []


def test_another_attempt_is_counted(db: Engine, ledger: Ledger, arrival: Arrival) -> None:
    ledger.begin_again([arrival])
    ledger.begin_again([])
    assert _row(db)["attempts"] == 2
    assert ledger.in_flight(0.0)[0].attempts == 2


def test_paths_that_are_no_text_are_kept_losslessly(db: Engine, ledger: Ledger) -> None:
    arrival = make_arrival(from_text("a\\\\b/caf\\xe9\x1b\n.png"), 1)
    ledger.claim([arrival])
    ledger.plan([_sorted(arrival, f"cat/{arrival.file.path}")])
    row = _row(db)
    assert row["source_path"] == "a\\\\b/caf\\xe9\x1b\n.png"
    assert row["destination"] == "cat/a\\\\b/caf\\xe9\x1b\n.png"
    (unfinished,) = ledger.in_flight(0.0)
    assert unfinished.arrival.file.path == arrival.file.path
    assert unfinished.plan is not None
    assert unfinished.plan.destination == f"cat/{arrival.file.path}"


def test_ids_go_on_where_an_earlier_process_stopped(db: Engine, ledger: Ledger, writer: Writer) -> None:
    assert list(ledger.take_ids(3)) == [1, 2, 3]
    assert list(ledger.take_ids(2)) == [4, 5]
    ledger.claim([make_arrival("a", 5)])
    assert list(Ledger(db, writer).take_ids(1)) == [6]


def test_rows_in_flight_come_oldest_first(ledger: Ledger) -> None:
    ledger.claim([make_arrival(str(number), number) for number in (3, 1, 2)])
    assert [row.arrival.id for row in ledger.in_flight(0.0)] == [1, 2, 3]


def test_large_batch_is_recorded_whole(db: Engine, ledger: Ledger) -> None:
    arrivals = [make_arrival(str(number), number) for number in range(1, 1001)]
    ledger.claim(arrivals)
    ledger.plan([_sorted(arrival, f"cat/{arrival.id}") for arrival in arrivals])
    ledger.confirm(arrivals)
    assert {row["status"] for row in _rows(db)} == {"filed"}
    assert len(_rows(db, tables.predictions)) == 2000


def test_inboxes_that_were_seen_are_remembered(ledger: Ledger) -> None:
    assert ledger.known_inboxes() == set()
    ledger.remember_inbox("camera", "/a")
    ledger.remember_inbox("camera", "/b")
    assert ledger.known_inboxes() == {"camera"}


def test_each_loading_of_a_model_is_recorded(db: Engine, served: ServedModels) -> None:
    served.record("tiny", 1, "f" * 64, ("cat", "dog"))
    served.record("tiny", 2, "e" * 64, ("cat", "dog"))
    rows = _rows(db, tables.models)
    assert [(row["name"], row["version"], row["labels"]) for row in rows] == [
        ("tiny", 1, ["cat", "dog"]),
        ("tiny", 2, ["cat", "dog"]),
    ]
    assert rows[0]["id"] != rows[1]["id"]


def test_large_numbers_fit(db: Engine, ledger: Ledger) -> None:
    ledger.claim([make_arrival("x", 2**40, size=2**40, mtime_ns=2**62)])
    row = _row(db)
    assert (row["id"], row["size_bytes"], row["mtime_ns"]) == (2**40, 2**40, 2**62)


def test_identity_is_that_of_the_database(db: Engine, ledger: Ledger, writer: Writer) -> None:
    assert ledger.identity == Ledger(db, writer).identity
    assert len(bytes.fromhex(ledger.identity)) == 16


def test_questions_do_not_wait_for_whoever_writes(db: Engine, ledger: Ledger, arrival: Arrival) -> None:
    """On SQLite a transaction that might write would wait for another one to end, and give up after five seconds."""
    with db.execution_options(**WRITES).begin() as other:
        other.execute(sa.update(tables.images).where(tables.images.c.id == arrival.id).values(attempts=9))
        assert ledger.in_flight(0.0)[0].attempts == 1  # what is committed
        assert ledger.known_inboxes() == set()


def test_deaths_that_are_recorded_are_found_by_the_next_process(db: Engine, ledger: Ledger, arrival: Arrival) -> None:
    assert ledger.in_flight(0.0)[0].arrival.deaths == 0
    for _ in range(2):  # the acknowledgement of the first was lost
        ledger.record_deaths(replace(arrival, deaths=2))
    assert ledger.in_flight(0.0)[0].arrival.deaths == 2
    assert _row(db)["attempts"] == 1


def test_poison_is_remembered_by_its_bytes_also_when_it_is_put_back(ledger: Ledger, arrival: Arrival) -> None:
    ledger.plan([_rejected(arrival)])
    assert ledger.poisons() == set()
    ledger.plan([replace(_rejected(arrival), reason=Reason.POISON)])
    assert ledger.poisons() == {_SHA}
    ledger.confirm([arrival])
    (filed,) = ledger.filed()
    ledger.begin_return([filed], hold=False)
    ledger.end_return([filed])
    assert ledger.poisons() == {_SHA}


def test_poison_is_found_by_its_small_index(db: Engine, ledger: Ledger) -> None:
    """At millions of filed rows, the start must not read them all."""
    if db.dialect.name != "sqlite":
        pytest.skip("reads the plan of SQLite")
    statements: list[str] = []
    sa.event.listen(db, "before_cursor_execute", lambda _c, _u, statement, *_more: statements.append(statement))
    ledger.poisons()
    (query,) = [statement for statement in statements if "FROM images" in statement]
    with db.connect() as connection:
        plan = " ".join(str(row) for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}"))
    assert "images_poison" in plan


def test_results_answer_to_every_condition_that_is_given(ledger: Ledger) -> None:
    """What `undo --last 1` or `--since` took too many of would be moved out of the output."""
    for number in (1, 2, 3):
        arrival = make_arrival(f"{number}.png", number, inbox="other" if number == 3 else "camera")
        ledger.claim([arrival])
        plan = _rejected(arrival) if number == 2 else _sorted(arrival, f"cat/{number}.png")
        ledger.plan([plan])
        ledger.confirm([arrival])
    now = datetime.now(UTC)
    asked: dict[str, list[int]] = {
        "all": [file.id for file in ledger.filed()],
        "last": [file.id for file in ledger.filed(most=2)],
        "image": [file.id for file in ledger.filed(Selection(image=2))],
        "placement": [file.id for file in ledger.filed(Selection(outcome=Placement.REJECTED))],
        "reason": [file.id for file in ledger.filed(Selection(reason=Reason.EMPTY))],
        "inbox": [file.id for file in ledger.filed(Selection(inbox="other"))],
        "since": [file.id for file in ledger.filed(Selection(since=now - timedelta(hours=1)))],
        "later": [file.id for file in ledger.filed(Selection(since=now + timedelta(hours=1)))],
    }
    assert asked == {
        "all": [3, 2, 1], "last": [3, 2], "image": [2], "placement": [2], "reason": [2], "inbox": [3],
        "since": [3, 2, 1], "later": [],
    }  # fmt: skip


def test_released_files_are_held_no_longer_but_those_on_their_way_are(ledger: Ledger) -> None:
    for number in (1, 2):
        arrival = make_arrival(f"{number}.png", number)
        ledger.claim([arrival])
        ledger.plan([_sorted(arrival, f"cat/{number}.png")])
        ledger.confirm([arrival])
    (second, first) = ledger.filed()
    ledger.begin_return([first, second], hold=True)
    ledger.end_return([first])
    assert len(ledger.holds()) == 2
    ledger.release()
    assert [hold.path for hold in ledger.holds()] == ["2.png"]
    assert [file.id for file in ledger.returning()] == [2]


def test_model_that_served_before_is_known_and_nobody_guesses_without_a_database(
    db: Engine, ledger: Ledger, served: ServedModels
) -> None:
    served.record("tiny", 1, "d" * 64, ["cat"])
    assert served.has_served("d" * 64)
    assert not served.has_served("e" * 64)
    assert ledger.reachable
    _lose(db)
    assert not served.has_served("d" * 64)


def test_next_process_knows_what_was_copied(db: Engine, ledger: Ledger, writer: Writer) -> None:
    copied = Copied(Signature(1, 2, 3, 4), _SHA, 7)
    ledger.remember_inbox("camera", "/camera")
    ledger.remember("camera", [("x.png", copied)])
    assert Ledger(db, writer).copied("camera", ["x.png", "y.png"], looked_at=False) == {"x.png": copied}


def test_database_that_is_away_does_not_make_copied_files_new(db: Engine, ledger: Ledger) -> None:
    """They would all be copied a second time. It is waited for."""
    _lose(db)
    with pytest.raises(TimeoutError) as away:
        ledger.copied("camera", ["x.png"], looked_at=False)
    assert away.value.errno in WAITED_FOR


def test_places_of_sidecars_are_known(db: Engine, amendments: Amendments, arrival: Arrival) -> None:
    sidecar = {"part": 1, "source_path": "x.xmp", "size_bytes": 1, "mtime_ns": 1, "destination": "cat/x.xmp"}
    with db.begin() as connection:
        connection.execute(tables.sidecars.insert().values(image_id=arrival.id, **sidecar))
    assert amendments.beside_pictures(["cat/x.xmp", "cat/y.xmp"]) == {"cat/x.xmp"}
    assert amendments.beside_pictures([]) == set()


def _lose(db: Engine) -> None:
    def fail(_connection: sa.Connection) -> None:
        raise sa.exc.OperationalError("BEGIN", {}, sqlite3.OperationalError("unable to open database file"))

    sa.event.listen(db, "begin", fail)


def test_results_are_brought_into_line_with_the_disk_once(
    db: Engine, ledger: Ledger, amendments: Amendments, arrival: Arrival
) -> None:
    others = [make_arrival(f"s/{number}.png", number, size=11, mtime_ns=22) for number in (2, 3)]
    ledger.claim(others)
    ledger.plan([_sorted(one, f"cat/{one.id}.png") for one in (arrival, *others)])
    ledger.confirm([arrival, others[0]])  # the third is planned only
    hold = Hold("camera", "old/y.png", 5, 6)
    found = Found(9, hold, "cat/old/y.png", Placement.SORTED, _SHA, "a" * 32, "cat", None, "found")
    for _twice in range(2):  # as after a lost acknowledgement
        amendments.record(gone=[(1, "gone"), (3, "gone")], moved=[(1, "x"), (2, "dog\udcff.png")], found=[found])
    rows = {row["id"]: row for row in _rows(db)}
    assert (rows[1]["status"], rows[1]["detail"], rows[1]["destination"]) == ("vanished", "gone", "cat/1.png")
    assert (rows[2]["status"], from_text(rows[2]["destination"])) == ("filed", "dog\udcff.png")
    assert (rows[3]["status"], rows[3]["detail"]) == ("planned", None), "what is in flight is not judged"
    made = rows[9]
    assert (made["status"], made["label"], made["model"], made["source_path"]) == ("filed", "cat", None, "old/y.png")
    assert set(amendments.filed_of([1, 2, 3, 9, 77])) == {2, 9}
    assert amendments.filed_of([9])[9].filed_at == made["filed_at"]
    assert amendments.placed_since(1, ["cat/1.png", "cat/3.png", "cat/old/y.png"]) == {"cat/3.png", "cat/old/y.png"}
    assert amendments.placed_since(3, ["cat/3.png"]) == set()
    assert amendments.placed_since(3, []) == set()
    ledger.begin_return(list(amendments.filed_of([2]).values()), hold=True)
    assert set(amendments.filed_of([2, 9])) == {9}, "one that is being put back is nobody else's to judge"


def test_labels_of_every_version_are_known(ledger: Ledger, served: ServedModels) -> None:
    served.record("tiny", 1, "d1", ["cat", "dog"])
    served.record("tiny", 2, "d2", ["cat", "cow"])
    served.record("other", 1, "d3", ["oak"])
    assert served.labels_of("tiny") == {"cat", "dog", "cow"}
    assert served.labels_of("none") == set()
    assert ledger.last_id == 0


def test_results_come_in_pages_the_newest_first(ledger: Ledger) -> None:
    arrivals = [make_arrival(f"{number}.png", number) for number in range(1, 6)]
    ledger.claim(arrivals)
    ledger.plan([_sorted(arrival, f"cat/{arrival.id}.png") for arrival in arrivals])
    ledger.confirm(arrivals)
    assert [file.id for file in ledger.filed(most=2)] == [5, 4]
    assert [file.id for file in ledger.filed(before=4)] == [3, 2, 1]
    assert [file.id for file in ledger.filed(Selection(path="2*"), before=4, most=9)] == [2]
