"""The books balance, and say so when they do not."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse_text

from helpers import FakeClock, fingerprint_of, make_arrival
from pigeonholed.accounts import Accounts
from pigeonholed.entries import Plan
from pigeonholed.images import Arrival, Placement
from pigeonholed.metrics import Metrics


@pytest.fixture
def metrics(clock: FakeClock) -> Metrics:
    metrics = Metrics(process=False)
    metrics.accounts = Accounts(metrics, clock)
    metrics.add_inbox("camera", ["cat"])
    return metrics


def plan_of(arrival: Arrival) -> Plan:
    return Plan(arrival, fingerprint_of(arrival), Placement.SORTED, "cat/x.png")


def arrivals(count: int, first: int = 1) -> list[Arrival]:
    return [make_arrival(f"{number}.png", number) for number in range(first, first + count)]


def shown(metrics: Metrics) -> Mapping[str, float]:
    """Sums over all labels, as a scraper computes them."""
    sums: dict[str, float] = {}
    for family in parse_text(metrics.expose()[0].decode()):
        for sample in family.samples:
            name = sample.name.removeprefix("pigeonholed_")
            sums[name] = sums.get(name, 0.0) + sample.value
    return sums


def test_what_began_is_in_flight_until_it_ends_in_one_of_four_ways(metrics: Metrics) -> None:
    new, old = arrivals(4), arrivals(1, first=5)
    metrics.accounts.claimed(new)
    metrics.accounts.resumed(old)
    assert shown(metrics)["in_flight_files"] == 5
    metrics.accounts.filed([plan_of(new[0]), plan_of(old[0])])
    metrics.accounts.vanished([new[1]])
    metrics.accounts.lost([new[2]])
    after = shown(metrics)
    assert (after["claimed_files_total"], after["resumed_files_total"]) == (4, 1)
    assert (after["images_processed_total"], after["vanished_files_total"], after["lost_files_total"]) == (2, 1, 1)
    assert (after["in_flight_files"], after["unaccounted_files"]) == (1, 0)


def test_file_that_is_filed_twice_is_seen(metrics: Metrics) -> None:
    (arrival,) = arrivals(1)
    metrics.accounts.claimed([arrival])
    metrics.accounts.filed([plan_of(arrival)])
    metrics.accounts.filed([plan_of(arrival)])
    assert metrics.accounts.unaccounted("camera") == shown(metrics)["unaccounted_files"] == -1


def test_file_that_is_claimed_twice_is_seen(metrics: Metrics) -> None:
    metrics.accounts.claimed(arrivals(1) * 2)
    assert metrics.accounts.unaccounted("camera") == 1


def test_file_that_nobody_began_is_seen(metrics: Metrics) -> None:
    metrics.accounts.vanished(arrivals(1))
    assert metrics.accounts.unaccounted("camera") == -1


def test_file_that_is_dropped_on_the_way_grows_old(metrics: Metrics, clock: FakeClock) -> None:
    first, second = arrivals(2)
    metrics.accounts.claimed([first])
    clock.advance(5)
    metrics.accounts.claimed([second])
    metrics.accounts.filed([plan_of(second)])
    clock.advance(60)
    assert shown(metrics)["in_flight_oldest_age_seconds"] == 65
    metrics.accounts.vanished([first])
    assert shown(metrics)["in_flight_oldest_age_seconds"] == 0


def test_next_pipeline_of_a_process_counts_what_the_one_before_left_only_once(metrics: Metrics) -> None:
    left, older = arrivals(1), arrivals(1, first=2)
    metrics.accounts.claimed(left)
    metrics.accounts.resumed([*left, *older])
    after = shown(metrics)
    assert (after["claimed_files_total"], after["resumed_files_total"], after["in_flight_files"]) == (1, 1, 2)
    assert after["unaccounted_files"] == 0


def test_scrape_never_sees_a_half_of_a_change(metrics: Metrics) -> None:
    """Each scrape while others count: the sum is exact, not merely at rest."""
    done = threading.Event()

    def work() -> None:
        number = 1
        while not done.is_set():
            batch = arrivals(8, first=number)
            number += 8
            metrics.accounts.claimed(batch)
            metrics.accounts.filed([plan_of(arrival) for arrival in batch[:7]])
            metrics.accounts.vanished(batch[7:])

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(100):
            at = shown(metrics)
            ended = at["images_processed_total"] + at["vanished_files_total"] + at["lost_files_total"]
            assert at["claimed_files_total"] + at["resumed_files_total"] == ended + at["in_flight_files"]
            assert at["unaccounted_files"] == 0
    finally:
        done.set()
        thread.join()
    assert at["claimed_files_total"] > 100
