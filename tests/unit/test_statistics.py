"""What a service says of itself: counts, rate and the time to the end."""

from __future__ import annotations

import json
import os
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from helpers import FakeClock
from pigeonholed.images import Placement
from pigeonholed.metrics import Stage
from pigeonholed.statistics import InboxView, ModelStatus, Rate, Statistics, Status

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
IDLE = InboxView(True, 0, True, None)


@pytest.fixture
def statistics(clock: FakeClock) -> Statistics:
    started_s = clock()
    return Statistics(
        {"camera": "/in/camera", "phone": "/in/phone"},
        clock=clock,
        now=lambda: NOON + timedelta(seconds=clock() - started_s),
    )


def status_of(statistics: Statistics, queue: dict[Stage, int] | None = None, **views: InboxView) -> Status:
    return statistics.status({"camera": IDLE, "phone": IDLE} | views, queue or {}, (), {})


def file(statistics: Statistics, count: int, inbox: str = "camera", placement: Placement = Placement.SORTED) -> None:
    statistics.filed({(inbox, placement): count})


@pytest.mark.parametrize(
    ("steps", "per_s"),
    [
        ([], 0.0),
        ([(0.0, 5)], 5.0),  # less than a second counts as one
        ([(10.0, 50)], 5.0),  # since the start
        ([(20.0, 60), (20.0, 60)], 3.0),
        ([(0.0, 600), (59.0, 0)], 600 / 59),
        ([(0.0, 600), (60.0, 0)], 0.0),  # fell out of the window
        ([(0.0, 600), (1000.0, 0)], 0.0),
        ([(100.0, 590)], 10.0),  # at the turn of a second the window is 59 s and nothing of the next
        ([(100.5, 595)], 10.0),
    ],
)
def test_the_rate_is_the_mean_of_the_last_minute(steps: list[tuple[float, int]], per_s: float) -> None:
    clock = FakeClock(7000.0)
    rate = Rate(clock())
    for seconds, count in steps:
        rate.add(clock.advance(seconds), count)
    assert rate.per_s(clock()) == pytest.approx(per_s)


def test_the_last_minute_is_shown_second_by_second() -> None:
    clock = FakeClock(500.25)
    rate = Rate(clock())
    for count in (3, 0, 2):
        rate.add(clock.advance(1.0), count)
    assert rate.recent(clock())[-4:] == (0, 3, 0, 2)
    assert rate.recent(clock.advance(2.0))[-5:] == (3, 0, 2, 0, 0)
    assert len(rate.recent(clock.advance(1e6))) == 60
    assert sum(rate.recent(clock())) == 0


def test_the_pace_of_a_burst_is_not_diluted_by_the_idle_time_before() -> None:
    clock = FakeClock(7000.0)
    rate = Rate(clock())
    clock.advance(100.0)
    for _ in range(5):
        rate.add(clock(), 300)
        clock.advance(1.0)
    assert rate.per_s(clock()) == pytest.approx(1500 / 59)
    assert rate.drain_per_s(clock()) == pytest.approx(300)
    assert rate.drain_per_s(clock.advance(11.0)) == 0.0


def test_counts_are_by_inbox_outcome_and_label(statistics: Statistics) -> None:
    statistics.filed(
        {("camera", Placement.SORTED): 2, ("camera", Placement.UNSURE): 1, ("phone", Placement.REJECTED): 4},
        {("camera", "cat"): 1, ("camera", "dog"): 2},
    )
    statistics.filed({("camera", Placement.DUPLICATE): 1})
    camera, phone = status_of(statistics).inboxes
    assert (camera.filed, camera.sorted, camera.unsure, camera.rejected, camera.duplicate) == (4, 2, 1, 0, 1)
    assert (phone.filed, phone.sorted, phone.rejected) == (4, 0, 4)
    assert list(camera.labels.items()) == [("dog", 2), ("cat", 1)]
    assert phone.labels == {}


def test_each_inbox_knows_when_it_last_filed(statistics: Statistics, clock: FakeClock) -> None:
    clock.advance(5.0)
    file(statistics, 1)
    camera, phone = status_of(statistics).inboxes
    assert camera.last_filed_at == NOON + timedelta(seconds=5)
    assert phone.last_filed_at is None


def test_files_that_settle_are_in_the_queue_once(statistics: Statistics) -> None:
    waiting = InboxView(True, 3, True, 12.34)
    status = status_of(statistics, {Stage.SETTLE: 99, Stage.DECODE: 2, Stage.FILE: 1}, camera=waiting)
    assert status.queue == {"settle": 3, "decode": 2, "file": 1}
    assert status.inboxes[0].oldest_wait_s == 12.3
    assert status.inboxes[1].oldest_wait_s is None


def test_the_end_is_reckoned_from_the_pace_of_the_last_seconds(statistics: Statistics, clock: FakeClock) -> None:
    clock.advance(300.0)
    file(statistics, 100)
    clock.advance(2.0)
    assert status_of(statistics, {Stage.DECODE: 200}).eta_s == pytest.approx(4.0)


def test_nothing_to_do_ends_at_once(statistics: Statistics) -> None:
    assert status_of(statistics).eta_s == 0.0


def test_the_end_of_work_that_does_not_move_is_unknown(statistics: Statistics, clock: FakeClock) -> None:
    file(statistics, 100)
    clock.advance(20.0)
    assert status_of(statistics, {Stage.DECODE: 1}).eta_s is None


def test_files_in_flight_are_told(statistics: Statistics) -> None:
    camera, phone = status_of(statistics, camera=InboxView(True, 0, True, None, in_flight=3)).inboxes
    assert (camera.in_flight, phone.in_flight) == (3, 0)


def test_the_end_is_unknown_while_more_may_be_waiting(statistics: Statistics, clock: FakeClock) -> None:
    file(statistics, 100)
    more = InboxView(True, 8192, False, 1.0)
    assert status_of(statistics, camera=more).eta_s is None


def test_a_trouble_that_repeats_is_one_entry(statistics: Statistics, clock: FakeClock) -> None:
    for _ in range(3):
        clock.advance(1.0)
        statistics.trouble("stage_blocked", "No space left on device")
    statistics.trouble("model_refused", "checksum")
    statistics.trouble("stage_blocked", "No space left on device")
    errors = status_of(statistics).errors
    assert [(error.event, error.times) for error in errors] == [
        ("stage_blocked", 3),
        ("model_refused", 1),
        ("stage_blocked", 1),
    ]
    assert errors[0].at == NOON + timedelta(seconds=3)


def test_only_the_last_troubles_are_kept(statistics: Statistics) -> None:
    for number in range(50):
        statistics.trouble("event", str(number))
    assert [error.detail for error in status_of(statistics).errors] == [str(number) for number in range(30, 50)]


def test_an_inbox_that_nobody_looked_at_counts_as_not_available(statistics: Statistics) -> None:
    assert [inbox.available for inbox in statistics.status({}, {}, (), {}).inboxes] == [False, False]


def test_a_status_is_a_value_of_json(statistics: Statistics, clock: FakeClock) -> None:
    clock.advance(1.5)
    file(statistics, 1)
    statistics.trouble("event", "detail")
    model = ModelStatus("tiny", 2, "openvino", "cpu", "f32", ("camera",))
    status = statistics.status({"camera": IDLE}, {Stage.INFER: 1}, [model], {"metrics": "127.0.0.1:9109"})
    facts: dict[str, Any] = json.loads(json.dumps(status.as_dict(), allow_nan=False))
    assert next(iter(facts)) == "running"
    assert facts["running"] is True
    assert facts["pid"] == os.getpid()
    assert facts["started_at"] == "2026-01-01T12:00:00.000Z"
    assert facts["uptime_s"] == 1.5
    assert facts["addresses"] == {"metrics": "127.0.0.1:9109"}
    assert facts["inboxes"][0]["last_filed_at"] == "2026-01-01T12:00:01.500Z"
    assert facts["models"] == [
        {
            "name": "tiny",
            "version": 2,
            "runtime": "openvino",
            "device": "cpu",
            "precision": "f32",
            "inboxes": ["camera"],
        }
    ]
    assert facts["errors"][0] == {"at": "2026-01-01T12:00:01.500Z", "event": "event", "detail": "detail", "times": 1}
    assert len(facts["recent"]) == 60


def test_a_status_does_not_change_with_what_comes_after(statistics: Statistics) -> None:
    statistics.filed({("camera", Placement.SORTED): 1}, {("camera", "cat"): 1})
    before = status_of(statistics)
    shown = before.as_dict()
    statistics.filed({("camera", Placement.SORTED): 1}, {("camera", "cat"): 1})
    statistics.trouble("event", "detail")
    assert before.as_dict() == shown


def test_no_count_is_lost_between_threads(statistics: Statistics) -> None:
    def work() -> None:
        for _ in range(200):
            statistics.filed({("camera", Placement.SORTED): 1}, {("camera", "cat"): 1})
            statistics.trouble("event", "detail")
            status_of(statistics)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    status = status_of(statistics)
    assert (status.inboxes[0].filed, status.inboxes[0].labels, status.errors[0].times) == (800, {"cat": 800}, 800)
