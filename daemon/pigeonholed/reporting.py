"""What the outside is told of results: metrics, and one log event for each batch."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from functools import cache
from typing import TYPE_CHECKING

import structlog

from pigeonholed.images import Placement, Status
from pigeonholed.paths import to_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pigeonholed.entries import Plan
    from pigeonholed.images import Arrival, Prediction, Withdrawn
    from pigeonholed.metrics import Metrics
    from pigeonholed.statistics import Statistics

log = structlog.get_logger()

_MOST_NAMED = 1000


class Reporter:
    """Counts and logs what was filed. Owned by the finishing thread; the counts may be read from any thread."""

    def __init__(
        self,
        metrics: Metrics,
        statistics: Statistics,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._metrics = metrics
        self._statistics = statistics
        self._clock = clock
        self._wall_clock = wall_clock
        self.filed = 0
        self.placements: Counter[Placement] = Counter()
        self.given_back: deque[Arrival] = deque(maxlen=_MOST_NAMED)

    def filed_batch(self, plans: Sequence[Plan]) -> None:
        """These have become results."""
        now_s = self._clock()
        placements: Counter[tuple[str, Placement]] = Counter()
        labels: Counter[tuple[str, str]] = Counter()
        said: dict[str, list[Prediction]] = {}
        # Found once for a batch: that takes longer than the observation.
        ended_s = cache(lambda inbox: self._metrics.end_to_end_seconds.labels(inbox).observe)
        sure_of = cache(lambda model: self._metrics.confidence_ratio.labels(model).observe)
        for plan in plans:
            inbox = plan.arrival.file.inbox
            placements[inbox, plan.placement] += 1
            ended_s(inbox)(now_s - plan.arrival.seen_s)
            if plan.prediction is not None:
                labels[inbox, plan.prediction.label] += 1
                said.setdefault(inbox, []).append(plan.prediction)
                sure_of(plan.prediction.model)(plan.prediction.confidence)
            elif plan.reason is not None:
                self._metrics.images_rejected_total.labels(inbox, plan.reason).inc()
                log.info(
                    "file_rejected",
                    inbox=inbox,
                    path=to_text(plan.arrival.file.path),
                    reason=plan.reason.value,
                    detail=plan.detail,
                )
        self._metrics.accounts.filed(plans)
        for (inbox, placement), count in placements.items():
            self._metrics.last_success_timestamp_seconds.labels(inbox).set(self._wall_clock())
            self.placements[placement] += count
        for (inbox, label), count in labels.items():
            self._metrics.images_classified_total.labels(inbox, label).inc(count)
        for inbox, predictions in said.items():
            self._metrics.drift.filed(inbox, predictions)
        self.filed += len(plans)
        self._statistics.filed(placements, labels)
        self._log(plans)

    def withdrawn(self, items: Sequence[Withdrawn]) -> None:
        """These leave no result."""
        self._metrics.accounts.lost([item.arrival for item in items if item.status is Status.LOST])
        self._metrics.accounts.vanished([item.arrival for item in items if item.status is not Status.LOST])
        for item in items:
            path = to_text(item.arrival.file.path)
            if item.status is Status.LOST:
                self._statistics.trouble("file_lost", path)
                log.critical("file_lost", inbox=item.arrival.file.inbox, path=path, detail=item.detail)
            else:
                self.given_back.append(item.arrival)
                log.info("file_withdrawn", inbox=item.arrival.file.inbox, path=path, detail=item.detail)

    def name_taken(self, plan: Plan) -> None:
        """A move found its name taken, and nothing was overwritten."""
        self._metrics.overwrites_refused_total.labels(plan.arrival.file.inbox).inc()
        log.info("name_taken", inbox=plan.arrival.file.inbox, destination=to_text(plan.destination))

    def _log(self, plans: Sequence[Plan]) -> None:
        counts = Counter(plan.placement for plan in plans)
        log.info("batch_filed", files=len(plans), **{placement.value: count for placement, count in counts.items()})
        if not log.is_enabled_for(logging.DEBUG):
            return
        for plan in plans:
            log.debug(
                "file_filed",
                inbox=plan.arrival.file.inbox,
                path=to_text(plan.arrival.file.path),
                destination=to_text(plan.destination) or None,
                confidence=None if plan.prediction is None else round(plan.prediction.confidence, 4),
            )
