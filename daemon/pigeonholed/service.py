"""A built pipeline in service: its threads, its end, and what may be asked of it meanwhile."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from pigeonholed import systemd
from pigeonholed.metrics import Ineligible, Stage
from pigeonholed.paths import to_text
from pigeonholed.progress import STAGE_LIMIT_S, Progress, Task
from pigeonholed.statistics import InboxView, ModelStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pigeonholed.claiming import Claimer
    from pigeonholed.crew import Crew
    from pigeonholed.engines.local import LocalEngine
    from pigeonholed.events import Events
    from pigeonholed.finishing import Finisher
    from pigeonholed.images import Arrival
    from pigeonholed.metrics import Metrics
    from pigeonholed.patience import Patience
    from pigeonholed.records import Records
    from pigeonholed.reporting import Reporter
    from pigeonholed.serving import Served
    from pigeonholed.settings import Settings
    from pigeonholed.statistics import Statistics
    from pigeonholed.switching import Switcher
    from pigeonholed.watching import Watch

log = structlog.get_logger()

_LOOK_EVERY_S = 0.5
_DRAIN_LIMIT_S = 3600.0  # decoders may hang on each of some hundred files, for a while
_WATCHED_ANEW = (
    "a watching thread has died, an inbox is another folder or mount now, or more can be watched than before"
)
_MENDED_BY_PEOPLE = frozenset({Ineligible.PERMISSION, Ineligible.TOO_DEEP})


class Claiming(Protocol):
    """What the claiming thread runs: a `Claimer` for ever, or a `OneRun` until all is claimed."""

    def run(self, stop: threading.Event) -> None:
        """Return when nothing more is to be claimed, or `stop` is set."""


@dataclass(slots=True)
class Service:
    """A built pipeline. `run` is the whole life of it; everything else may be asked from any thread."""

    settings: Settings
    stop: threading.Event
    crew: Crew
    claimer: Claimer
    claiming: Claiming
    engine: LocalEngine
    finisher: Finisher
    records: Records
    metrics: Metrics
    reporter: Reporter
    statistics: Statistics
    watches: Sequence[Watch]
    events: Events | None
    switcher: Switcher
    patience: Patience
    resumed: Sequence[Arrival]
    progress: Progress
    claimer_task: Task
    finisher_task: Task
    addresses: dict[str, str] = field(default_factory=dict)
    warm: bool = False
    _attention: threading.Event = field(default_factory=threading.Event)
    _recovered: dict[str, int] = field(default_factory=dict)
    _told: set[tuple[str, Ineligible]] = field(default_factory=set)
    _scans: int = 0
    _unaccounted: dict[str, int] = field(default_factory=dict)

    def run(self) -> None:
        """Serve until told to stop or, with `--once`, until all is done; then drain.

        Raises:
            BaseException: whatever made a stage fail. What was in flight is safe and is taken up at the next start.
        """
        claiming = self.crew.start("claimer", self._claim)
        finishing = self.crew.start("finisher", self._finish)
        self.warm = True
        self.switcher.on_end = self._attention.set
        systemd.notify("READY=1", "STATUS=serving")
        log.info("service_ready", inboxes=[watch.rules.name for watch in self.watches])
        while claiming.is_alive():
            self.progress.main.begin("serving", STAGE_LIMIT_S)
            self.observe()
            self.switcher.look()
            self.engine.take_over()
            self._attention.wait(_LOOK_EVERY_S)
            self._attention.clear()
        # To end, or to go on with another configuration.
        self.progress.main.begin("finishing what is in flight", _DRAIN_LIMIT_S)
        systemd.notify("STATUS=finishing what is in flight")
        # Shutdown, as a sentence: the claimer has ended; let the engine run out; then the finisher has the last word.
        self.engine.close()
        finishing.join()
        self.switcher.join()
        self.observe()
        self.crew.check()

    def end(self) -> None:
        """Stop taking files in; what is in flight is still finished."""
        self.stop.set()
        self.claimer.wake()

    def look_again(self) -> None:
        """Something was put back or released, or another version of a model chosen: look soon."""
        for watch in self.watches:
            watch.hints.overflow()
        self.claimer.wake()
        self._attention.set()

    def status(self) -> dict[str, Any]:
        """What `pigeonholed status` shows."""
        views = {watch.rules.name: self._view(watch) for watch in self.watches}
        addresses = {"control": to_text(str(self.settings.control.socket))} | self.addresses
        return self.statistics.status(views, self.engine.waiting(), self._models(), addresses).as_dict()

    def _models(self) -> list[ModelStatus]:
        lanes: dict[int, tuple[Served, list[str]]] = {}
        for inbox, served in self.engine.serving().items():
            lanes.setdefault(id(served), (served, []))[1].append(inbox)
        return [
            ModelStatus(
                served.bundle.name,
                served.bundle.version,
                served.classifier.runtime,
                served.classifier.device,
                served.classifier.precision,
                tuple(inboxes),
            )
            for served, inboxes in lanes.values()
        ]

    def tear_down(self) -> None:
        """A stage has failed: make the others end."""
        self.end()
        self.engine.abort()

    def observe(self) -> None:
        """Write down what only a look can tell; the main thread's turn."""
        for stage, count in self.engine.waiting().items():
            self.metrics.queue_images.labels(stage).set(count)
        self.metrics.queue_images.labels(Stage.SETTLE).set(sum(len(watch.window) for watch in self.watches))
        self.metrics.database_available.set(self.records.ledger.reachable)
        for watch in self.watches:
            name = watch.rules.name
            self.metrics.inbox_available.labels(name).set(watch.available)
            recovered = watch.recovered - self._recovered.get(name, 0)
            self._recovered[name] = watch.recovered
            watched = self.events is not None and self.events.watches(watch.rules.root)
            self.metrics.inbox_events.labels(name).set(watched)
            if watched:
                self.metrics.rescan_recovered_total.labels(name).inc(recovered)
            oldest_s = watch.window.oldest_s()
            age_s = 0.0 if oldest_s is None else time.monotonic() - oldest_s
            self.metrics.queue_oldest_age_seconds.labels(name).set(age_s)
            for reason, count in dict(watch.ineligible).items():
                self.metrics.ineligible_files.labels(name, reason).set(count)
                self._tell_what_is_left(name, reason, count)
            self._balance(name)
        self._tend_events()

    def _balance(self, inbox: str) -> None:
        """Raise the alarm, once, where the books of an inbox do not balance."""
        files = self.metrics.accounts.unaccounted(inbox)
        if files != self._unaccounted.get(inbox, 0):
            self._unaccounted[inbox] = files
            log.critical("files_unaccounted", inbox=inbox, files=files, remedy="pigeonholed fsck")
            self.statistics.trouble("files_unaccounted", f"{inbox}: {files}")

    def left(self) -> list[str]:
        """What `--once` was to file and did not, as INBOX/PATH: it still changed, or could not be taken."""
        roots = {watch.rules.name: watch.rules.root for watch in self.watches}
        again = [arrival.file for arrival in (*self.claimer.refused, *self.reporter.given_back)]
        there = {f"{file.inbox}/{file.path}" for file in again if os.path.lexists(f"{roots[file.inbox]}/{file.path}")}
        return sorted(there | set(getattr(self.claiming, "left", ())))

    def faults(self) -> list[str]:
        """Why the service is not ready; empty when it is."""
        faults = [] if self.warm else ["the models are not warm yet"]
        if not self.records.ledger.reachable:
            faults.append("the database cannot be reached")
        faults += [f"the inbox {watch.rules.name} is missing" for watch in self.watches if not watch.available]
        faults += [f"the stage {stage} waits: {why}" for stage, why in dict(self.patience.waiting).items()]
        return faults

    def stuck(self) -> list[str]:
        """Why the process makes no progress; empty when it does."""
        dead = [] if self.stop.is_set() else self.crew.dead()
        return [f"the thread {name} has ended" for name in dead] + self.progress.stuck()

    def line(self, filed_before: int = 0) -> str:
        """The service in one line: what it, and others before it, have done, what waits, and what is away."""
        waiting = sum(self.engine.waiting().values()) + sum(len(watch.window) for watch in self.watches)
        return "; ".join([f"{filed_before + self.reporter.filed} files filed, {waiting} waiting", *self.faults()])

    def _tell_what_is_left(self, inbox: str, reason: Ineligible, count: int) -> None:
        """Say once that there are files which somebody could mend."""
        if reason not in _MENDED_BY_PEOPLE:
            return
        if not count:
            self._told.discard((inbox, reason))
        elif (inbox, reason) not in self._told:
            self._told.add((inbox, reason))
            log.warning("files_left", inbox=inbox, because=reason, files=count)

    def _tend_events(self) -> None:
        """Watch anew where that is needed; only after a scan is it certain that asking for a folder takes no time."""
        scans = sum(watch.scans for watch in self.watches)
        if self.events is None or (scans == self._scans and self.events.alive() and not self.events.unsettled):
            return
        self._scans = scans
        for watch in self.watches:
            watch.silent = self.events.silent(watch.rules.root)
        if self.events.tend():
            log.warning("watched_anew", because=_WATCHED_ANEW)
            self.statistics.trouble("watched_anew", _WATCHED_ANEW)
            self.claimer.wake()

    def _view(self, watch: Watch) -> InboxView:
        name = watch.rules.name
        oldest_s = watch.window.oldest_s()
        return InboxView(
            available=watch.available,
            waiting=len(watch.window),
            waiting_is_all=not (watch.scanning() or watch.window.full()),
            oldest_wait_s=None if oldest_s is None else time.monotonic() - oldest_s,
            in_flight=self.metrics.accounts.in_flight(name),
            drift=self.metrics.drift.of(name),
            events=self.events is not None and self.events.watches(watch.rules.root),
        )

    def _claim(self) -> None:
        self.claimer_task.adopt()
        try:
            self.engine.submit_suspects(self.resumed)
            self.claiming.run(self.stop)
        finally:
            self.claimer_task.rest()
            self._attention.set()

    def _finish(self) -> None:
        self.finisher_task.adopt()
        try:
            self._finish_all()
        finally:
            self.finisher_task.rest()

    def _finish_all(self) -> None:
        most = self.settings.batching.max_batch_size * 4
        while True:
            with self.finisher_task.resting():
                group = self.engine.handled(None)
            if group is None:
                break
            batch = list(group)
            while len(batch) < most and (more := self.engine.handled(0)):
                batch.extend(more)
            self.finisher.turn(batch)
            if not self.engine.waiting()[Stage.FILE]:
                self.finisher.settle()
        self.finisher.settle()
