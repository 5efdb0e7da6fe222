"""The books of an inbox: what came into our hands, and what became of it. They always balance.

    claimed + resumed = filed + vanished + lost + in flight

All but the last are counts. What is in flight is known by name, so the two sides are kept apart and can disagree: an
arrival that ends twice, or that nobody began, leaves a difference for ever. One that is dropped on the way stays in
flight, and grows old.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import prometheus_client

    from pigeonholed.entries import Plan
    from pigeonholed.images import Arrival
    from pigeonholed.metrics import Metrics


@dataclass(slots=True)
class _Book:
    """One inbox: how many began less how many ended, and which have begun and not ended (their names, since when)."""

    balance: int = 0
    open: dict[str, float] = field(default_factory=dict)


class Accounts:
    """Counts what begins and ends, each in one step with what is in flight: a scrape never sees a half of it.

    They go on from one pipeline of a process to the next. Safe to use from any thread.

    Args:
        metrics: whose counters they are, and whose lock.
        clock: monotonic seconds.
    """

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
        self._clock = clock
        self._books: dict[str, _Book] = {}

    def claimed(self, arrivals: Sequence[Arrival]) -> None:
        """These have a row now."""
        with self._metrics.lock:
            self._begin(self._metrics.claimed_files_total, arrivals)

    def resumed(self, arrivals: Iterable[Arrival]) -> None:
        """These had one: an earlier process, or pipeline of this one, left them unfinished."""
        with self._metrics.lock:
            new = [arrival for arrival in arrivals if arrival.key not in self._book(arrival.file.inbox).open]
            self._begin(self._metrics.resumed_files_total, new)

    def filed(self, plans: Sequence[Plan]) -> None:
        """These have become results."""
        with self._metrics.lock:
            kinds = Counter((plan.arrival.file.inbox, plan.placement) for plan in plans)
            for (inbox, placement), count in kinds.items():
                self._metrics.images_processed_total.labels(inbox, placement).inc(count)
            self._end([plan.arrival for plan in plans])

    def vanished(self, arrivals: Sequence[Arrival]) -> None:
        """These leave no result: their owners took them away, kept them, or still write."""
        with self._metrics.lock:
            for inbox, count in _by_inbox(arrivals).items():
                self._metrics.vanished_files_total.labels(inbox).inc(count)
            self._end(arrivals)

    def lost(self, arrivals: Sequence[Arrival]) -> None:
        """These are nowhere, which must never happen."""
        with self._metrics.lock:
            self._metrics.lost_files_total.inc(len(arrivals))
            self._end(arrivals)

    def in_flight(self, inbox: str) -> int:
        """How many have begun and not ended."""
        with self._metrics.lock:
            return len(self._book(inbox).open)

    def oldest_s(self, inbox: str) -> float:
        """How long ago the one began that is in flight for longest; 0 where none is."""
        with self._metrics.lock:
            began_s = next(iter(self._book(inbox).open.values()), None)
        return 0.0 if began_s is None else self._clock() - began_s

    def unaccounted(self, inbox: str) -> int:
        """By how much the books do not balance: 0, or a fault of the program."""
        with self._metrics.lock:
            book = self._book(inbox)
            return book.balance - len(book.open)

    def _book(self, inbox: str) -> _Book:
        return self._books.setdefault(inbox, _Book())

    def _begin(self, counter: prometheus_client.Counter, arrivals: Sequence[Arrival]) -> None:
        now_s = self._clock()
        for inbox, count in _by_inbox(arrivals).items():
            counter.labels(inbox).inc(count)
            self._book(inbox).balance += count
        for arrival in arrivals:
            self._book(arrival.file.inbox).open[arrival.key] = now_s

    def _end(self, arrivals: Sequence[Arrival]) -> None:
        for arrival in arrivals:
            book = self._book(arrival.file.inbox)
            book.balance -= 1
            book.open.pop(arrival.key, None)


def _by_inbox(arrivals: Sequence[Arrival]) -> Counter[str]:
    return Counter(arrival.file.inbox for arrival in arrivals)
