"""A built pipeline in service: its threads, its end, and what may be asked of it meanwhile."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import structlog

from pigeonholed import systemd
from pigeonholed.metrics import Stage

if TYPE_CHECKING:
    import threading
    from collections.abc import Sequence

    from pigeonholed.claiming import Claimer
    from pigeonholed.crew import Crew
    from pigeonholed.engines.local import LocalEngine
    from pigeonholed.events import Events
    from pigeonholed.finishing import Finisher
    from pigeonholed.images import Arrival
    from pigeonholed.metrics import Metrics
    from pigeonholed.records import Records
    from pigeonholed.reporting import Reporter
    from pigeonholed.settings import Settings
    from pigeonholed.switching import Switcher
    from pigeonholed.watching import Watch

log = structlog.get_logger()


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
    watches: Sequence[Watch]
    events: Events | None
    switcher: Switcher
    resumed: Sequence[Arrival]
    warm: bool = False
    _recovered: dict[str, int] = field(default_factory=dict)

    def run(self) -> None:
        """Serve until told to stop or, with `--once`, until all is done; then drain.

        Raises:
            BaseException: whatever made a stage fail. What was in flight is safe and is taken up at the next start.
        """
        claiming = self.crew.start("claimer", self._claim)
        finishing = self.crew.start("finisher", self._finish)
        self.warm = True
        systemd.notify("READY=1", "STATUS=serving")
        while claiming.is_alive():
            self.observe()
            self.switcher.look()
            if not self.stuck():
                systemd.notify("WATCHDOG=1", f"STATUS={self.reporter.filed} files filed")
            claiming.join(0.5)
        systemd.notify("STOPPING=1", "STATUS=finishing what is in flight")
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

    def tear_down(self) -> None:
        """A stage has failed: make the others end."""
        self.end()
        self.engine.abort()

    def observe(self) -> None:
        """Write down what only a look can tell; the main thread's turn."""
        for stage, count in self.engine.waiting().items():
            self.metrics.queue_images.labels(stage).set(count)
        self.metrics.queue_images.labels(Stage.SETTLE).set(sum(len(watch.window) for watch in self.watches))
        for watch in self.watches:
            name = watch.rules.name
            self.metrics.inbox_available.labels(name).set(watch.available)
            recovered = watch.recovered - self._recovered.get(name, 0)
            self._recovered[name] = watch.recovered
            if self.events is not None:
                self.metrics.rescan_recovered_total.labels(name).inc(recovered)
            for reason, count in dict(watch.ineligible).items():
                self.metrics.ineligible_files.labels(name, reason).set(count)
        if self.events is not None and not self.events.alive():
            log.warning("watcher_died", instead="rescans")
            self.events = None

    def faults(self) -> list[str]:
        """Why the service is not ready; empty when it is."""
        faults = [] if self.warm else ["the models are not warm yet"]
        if not self.records.ledger.reachable:
            faults.append("the database cannot be reached")
        faults += [f"the inbox {watch.rules.name} is missing" for watch in self.watches if not watch.available]
        return faults

    def stuck(self) -> list[str]:
        """Why the process makes no progress; empty when it does."""
        dead = [] if self.stop.is_set() else self.crew.dead()
        return [f"the thread {name} has ended" for name in dead]

    def _claim(self) -> None:
        self.engine.submit(self.resumed)
        self.claiming.run(self.stop)

    def _finish(self) -> None:
        most = self.settings.batching.max_batch_size * 4
        while (group := self.engine.handled(None)) is not None:
            batch = list(group)
            while len(batch) < most and (more := self.engine.handled(0)):
                batch.extend(more)
            self.finisher.turn(batch)
            if not self.engine.waiting()[Stage.FILE]:
                self.finisher.settle()
        self.finisher.settle()
