"""What a running service can say of itself: `pigeonholed status` shows a `Status`."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter, deque
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pigeonholed import __version__
from pigeonholed.images import Placement
from pigeonholed.metrics import Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pigeonholed.drift import Drift

_WINDOW_S = 60
_DRAIN_S = 10
_TROUBLES_KEPT = 20


@dataclass(frozen=True, slots=True)
class InboxStatus:
    """One inbox; the counts are of what was filed since the start.

    Attributes:
        waiting: files that are known to wait in the inbox, also those that must still settle.
        waiting_is_all: false while more may be there: the list is full, or a scan is under way.
        labels: files sorted or unsure, by label.
        oldest_wait_s: how long the longest-waiting file has waited, None when none waits.
        last_filed_at: None when nothing was filed since the start.
        in_flight: files that were taken and are not filed yet.
        drift: how recent pictures compare with those that the model was judged by.
        events: whether file events tell of arrivals; else only scans find them.
    """

    name: str
    path: str
    available: bool
    waiting: int
    waiting_is_all: bool
    filed: int
    sorted: int
    unsure: int
    rejected: int
    duplicate: int
    labels: Mapping[str, int]
    oldest_wait_s: float | None
    last_filed_at: datetime | None
    in_flight: int
    drift: Drift | None
    events: bool


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """A model in service, and the inboxes that it sorts."""

    name: str
    version: int
    runtime: str
    device: str
    precision: str
    inboxes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something went wrong with the machinery: when last, what (a log event), and how often in a row."""

    at: datetime
    event: str
    detail: str
    times: int = 1


@dataclass(frozen=True, slots=True)
class Status:
    """A service at one moment.

    Attributes:
        addresses: what it listens on, by what for (`metrics`, `control`), with the actual ports.
        queue: pictures in front of each stage.
        rate_per_s: pictures filed a second over the last minute, or since the start where that is shorter.
        eta_s: when the queue will be empty at the pace of the last seconds; 0 when it is, None where nobody knows.
        recent: pictures filed in each of the last 60 seconds, the oldest first; the last second is not over.
        errors: the last ones, the newest last.
    """

    pid: int
    version: str
    started_at: datetime
    uptime_s: float
    addresses: Mapping[str, str]
    inboxes: tuple[InboxStatus, ...]
    queue: Mapping[str, int]
    rate_per_s: float
    eta_s: float | None
    recent: tuple[int, ...]
    models: tuple[ModelStatus, ...]
    errors: tuple[Trouble, ...]

    def as_dict(self) -> dict[str, Any]:
        """The same in types that JSON has, with `running` first; times are ISO 8601 in UTC."""
        return {"running": True} | {key: _plain(value) for key, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class InboxView:
    """What only a look at an inbox can tell; the fields are those of `InboxStatus`."""

    available: bool
    waiting: int
    waiting_is_all: bool
    oldest_wait_s: float | None
    in_flight: int = 0
    drift: Drift | None = None
    events: bool = False


class Rate:
    """Counts by the second over the last minute, in the same little memory for ever. Not safe for threads."""

    def __init__(self, started_s: float) -> None:
        self._started_s = started_s
        self._second = int(started_s)
        self._counts = deque([0] * _WINDOW_S, maxlen=_WINDOW_S)

    def add(self, now_s: float, count: int) -> None:
        """Count what happened now."""
        self._advance(now_s)
        self._counts[-1] += count

    def recent(self, now_s: float) -> tuple[int, ...]:
        """The counts of the last 60 seconds, the current one last."""
        self._advance(now_s)
        return tuple(self._counts)

    def per_s(self, now_s: float) -> float:
        """The mean over the last minute; since the start, where that is shorter."""
        window_s = _WINDOW_S - 1 + now_s % 1
        return sum(self.recent(now_s)) / max(1.0, min(window_s, now_s - self._started_s))

    def drain_per_s(self, now_s: float) -> float:
        """The pace of the work that is going on: the mean over the last seconds, from the first that saw any."""
        last = self.recent(now_s)[-_DRAIN_S:]
        worked = next((index for index, count in enumerate(last) if count), None)
        if worked is None:
            return 0.0
        return sum(last) / max(1.0, len(last) - 1 - worked + now_s % 1)

    def _advance(self, now_s: float) -> None:
        passed = int(now_s) - self._second
        if passed > 0:
            self._counts.extend([0] * min(passed, _WINDOW_S))
            self._second += passed


@dataclass(slots=True)
class _Tally:
    """What was filed from one inbox."""

    path: str
    placements: Counter[Placement] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    last_filed_at: datetime | None = None


class Statistics:
    """Counts since the start. Safe to use from any thread.

    Args:
        inboxes: name and path (as text) of each.
        clock: monotonic seconds.
        now: the time of day, UTC.
    """

    def __init__(
        self,
        inboxes: Mapping[str, str],
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._clock = clock
        self._now = now
        self._started_s = clock()
        self._started_at = now()
        self._lock = threading.Lock()
        self._tallies = {name: _Tally(path) for name, path in inboxes.items()}
        self._rate = Rate(self._started_s)
        self._troubles: deque[Trouble] = deque(maxlen=_TROUBLES_KEPT)

    def filed(
        self, placements: Mapping[tuple[str, Placement], int], labels: Mapping[tuple[str, str], int] | None = None
    ) -> None:
        """Count a batch of results: by inbox and placement, and by inbox and label."""
        with self._lock:
            for (inbox, placement), count in placements.items():
                tally = self._tallies[inbox]
                tally.placements[placement] += count
                tally.last_filed_at = self._now()
            for (inbox, label), count in (labels or {}).items():
                self._tallies[inbox].labels[label] += count
            self._rate.add(self._clock(), sum(placements.values()))

    def trouble(self, event: str, detail: str) -> None:
        """Remember a fault of the machinery; one that repeats is remembered once, with how often."""
        with self._lock:
            times = 1
            if self._troubles and (self._troubles[-1].event, self._troubles[-1].detail) == (event, detail):
                times += self._troubles.pop().times
            self._troubles.append(Trouble(self._now(), event, detail, times))

    def status(
        self,
        views: Mapping[str, InboxView],
        queue: Mapping[Stage, int],
        models: Iterable[ModelStatus],
        addresses: Mapping[str, str],
    ) -> Status:
        """The service as it is now.

        Args:
            views: by inbox.
            queue: pictures in front of each stage but `settle`, which is known from `views`.
            models: in service.
            addresses: what is listened on.
        """
        with self._lock:
            now_s = self._clock()
            in_front = {Stage.SETTLE.value: sum(view.waiting for view in views.values())}
            in_front |= {stage.value: count for stage, count in queue.items() if stage is not Stage.SETTLE}
            known = all(view.waiting_is_all for view in views.values())
            return Status(
                pid=os.getpid(),
                version=__version__,
                started_at=self._started_at,
                uptime_s=round(now_s - self._started_s, 1),
                addresses=dict(addresses),
                inboxes=tuple(_inbox(name, tally, views.get(name, _UNSEEN)) for name, tally in self._tallies.items()),
                queue=in_front,
                rate_per_s=round(self._rate.per_s(now_s), 2),
                eta_s=_eta_s(sum(in_front.values()), self._rate.drain_per_s(now_s)) if known else None,
                recent=self._rate.recent(now_s),
                models=tuple(models),
                errors=tuple(self._troubles),
            )


_UNSEEN = InboxView(False, 0, False, None)


def _inbox(name: str, tally: _Tally, view: InboxView) -> InboxStatus:
    counts = {placement.value: tally.placements[placement] for placement in Placement}
    return InboxStatus(
        name=name,
        path=tally.path,
        available=view.available,
        waiting=view.waiting,
        waiting_is_all=view.waiting_is_all,
        filed=sum(counts.values()),
        labels=dict(tally.labels.most_common()),
        oldest_wait_s=None if view.oldest_wait_s is None else round(view.oldest_wait_s, 1),
        last_filed_at=tally.last_filed_at,
        in_flight=view.in_flight,
        drift=view.drift,
        events=view.events,
        **counts,
    )


def _eta_s(waiting: int, per_s: float) -> float | None:
    if waiting == 0:
        return 0.0
    return round(waiting / per_s, 1) if per_s > 0 else None


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
