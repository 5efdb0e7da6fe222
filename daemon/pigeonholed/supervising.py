"""The life of the process: what signals do, and how a changed configuration takes effect.

A reload is rehearsed first, and systemd told when it has come to its end, good or bad. Only then does the running
pipeline drain, and a new one is built in the same process. If that fails after all, the old configuration serves again.

A pipeline that a fault of the machine has ended (a disk or a database that cannot read or write) is built anew after a
pause, as often as it takes: it begins by looking at the disk, and believes nothing that the one before had not made
durable. Told to end meanwhile, a service that has served ends with code 0, as it does where only a stage waits: its end
was asked for, and what is in flight is as safe as after a kill.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
from typing import TYPE_CHECKING

import sqlalchemy as sa
import structlog

from pigeonholed import systemd
from pigeonholed.bundle import BundleError
from pigeonholed.database import DatabaseAway, is_away
from pigeonholed.errors import Spent, Unavailable, UserError
from pigeonholed.metrics import Metrics
from pigeonholed.paths import to_text
from pigeonholed.pipeline import build, rehearse
from pigeonholed.progress import STAGE_LIMIT_S, Progress

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from pigeonholed.service import Service
    from pigeonholed.settings import Settings

log = structlog.get_logger()

_LOOK_EVERY_S = 0.2


class Supervisor:
    """Runs one pipeline after another until told to end. Owned by the main thread, but for `ask_reload`.

    Args:
        load: reads the settings anew.
        once: file what is there, then end.
        may_upgrade: an older database is upgraded rather than refused.
    """

    _FIRST_PAUSE_S = 1.0
    _LONGEST_PAUSE_S = 30.0

    def __init__(self, load: Callable[[], Settings], *, once: bool, may_upgrade: bool) -> None:
        self._load = load
        self._once = once
        self._may_upgrade = may_upgrade
        self._metrics = Metrics()
        self._stop = threading.Event()
        self._ending = False
        self._service: Service | None = None
        self._next: Settings | None = None
        self._fallback: Settings | None = None
        self._asked: queue.SimpleQueue[None] = queue.SimpleQueue()  # of all queues the one for signal handlers
        self._refused = ""
        self._filed = 0  # by the services before the one that runs
        self._progress = Progress()
        self._pulse = systemd.Pulse(self._stuck, self._line, lambda: self._service is None and not self._ending)
        self._told_to_end = threading.Event()
        self._served: Service | None = None
        self._pause_s = self._FIRST_PAUSE_S

    def run(self, settings: Settings) -> Service | None:
        """Serve until TERM or INT, or with `once` until all is done; returns the last service for what it counted.

        None where it was told to end while its first still waited for a database.

        Raises:
            UserError: it cannot start.
            BundleError: a model cannot be served.
            BaseException: whatever made a stage fail.
        """
        self._take_signals()
        threading.Thread(target=self._reload, name="rehearsal", daemon=True).start()
        self._pulse.start()
        try:
            return self._serve_on(settings)
        finally:
            self._pulse.stop()

    def _serve_on(self, settings: Settings) -> Service | None:
        service: Service | None
        while True:
            try:
                service = self._serve(settings)
            except (UserError, BundleError) as error:
                if self._fallback is not None:
                    log.error("reload_failed", error=str(error), instead="the configuration before")
                    settings, self._fallback = self._fallback, None
                    continue
                service = self._outlast(error)
            except (OSError, sa.exc.DBAPIError) as error:
                service = self._outlast(_fault_of_the_machine(error))
            if service is None and self._ending and self._served is None:
                return None
            if service is None:
                continue
            if self._next is None or self._ending:
                return service
            self._fallback, settings, self._next = settings, self._next, None

    def ask_reload(self) -> None:
        """Read the configuration again, and change over to it if it is good; models are looked at in any case."""
        self._asked.put(None)

    def _serve(self, settings: Settings) -> Service:
        self._stop = threading.Event()
        if self._ending:
            self._stop.set()
        with build(
            settings,
            stop=self._stop,
            once=self._once,
            may_upgrade=self._may_upgrade,
            metrics=self._metrics,
            reload=self.ask_reload,
            progress=self._progress,
        ) as service:
            self._fallback = None
            self._service = self._served = service
            try:
                service.run()
            finally:
                self._service = None
                self._filed += service.reporter.filed
                if service.reporter.filed:
                    self._pause_s = self._FIRST_PAUSE_S
        return service

    def _outlast(self, error: UserError | BundleError) -> Service | None:
        """Wait before the next try of a service that has served, or that a server's database keeps waiting.

        Returns:
            The last service, where it is told to end; None where it goes on, or there was none.

        Raises:
            UserError, BundleError: `error`, where it has never served or no next try would help.
        """
        waits = self._served is not None or isinstance(error, DatabaseAway)
        if self._once or not waits or (isinstance(error, Spent) and not self._ending):
            raise error
        if not self._ending:
            log.error("service_failed", error=str(error), again_in_s=self._pause_s)
            waiting = f"waiting to try again after a failure: {error}"
            self._progress.main.begin(waiting, STAGE_LIMIT_S)
            systemd.notify(f"STATUS={waiting}")
        if self._told_to_end.wait(self._pause_s):
            log.warning("work_left", error=str(error), instead="the next start takes it up")
            return self._served
        self._pause_s = min(self._pause_s * 2, self._LONGEST_PAUSE_S)
        return None

    def _reload(self) -> None:
        """What the rehearsing thread does; of several that ask at once, one rehearsal is for all."""
        while True:
            self._asked.get()
            while not self._asked.empty():
                self._asked.get()
            while (service := self._service) is None:
                if self._told_to_end.wait(_LOOK_EVERY_S):
                    return
            systemd.notify_reloading()
            if not self._rehearse(service):
                systemd.notify("READY=1", f"STATUS={self._line()}")

    def _rehearse(self, service: Service) -> bool:
        """Whether another service is built now, which will say itself when it is ready."""
        try:
            settings = self._load()
            rehearse(settings, service.records)
        except Exception as error:  # whatever it is: the service that runs has nothing to do with it
            self._refused = str(error) or repr(error)
            log.error("reload_refused", error=self._refused)
            service.statistics.trouble("reload_refused", self._refused)
            return False
        self._refused = ""
        service.switcher.forget_refusals()
        if self._service is not service:
            self._asked.put(None)  # that one ends for another reason: ask the next one
            return True
        if settings == (self._next or service.settings):
            log.info("configuration_unchanged")
            return self._next is not None
        log.info("configuration_reloaded", source=str(settings.source))
        self._next = settings
        service.end()
        return True

    def _stuck(self) -> list[str]:
        service = self._service
        return self._progress.stuck() if service is None else service.stuck()

    def _line(self) -> str:
        """The process in one line, for systemd's STATUS."""
        service = self._service
        line = self._progress.main.what if service is None else service.line(self._filed)
        return f"{line}; the last reload was refused: {self._refused}" if self._refused else line

    def _take_signals(self) -> None:
        signal.signal(signal.SIGTERM, self._end)
        signal.signal(signal.SIGINT, self._end)
        signal.signal(signal.SIGHUP, lambda _number, _frame: self.ask_reload())
        signal.signal(signal.SIGIO, signal.SIG_IGN)  # of the leases that tell whether a file is being written to

    def _end(self, number: int, _frame: FrameType | None) -> None:
        if self._ending:
            os._exit(128 + number)  # nothing needs tidying: a kill at any moment is safe
        self._ending = True
        systemd.notify("STOPPING=1")
        self._told_to_end.set()
        self._stop.set()
        if self._service is not None:
            self._service.end()


def _fault_of_the_machine(error: OSError | sa.exc.DBAPIError) -> Unavailable:
    """Say in one sentence what failed."""
    if isinstance(error, sa.exc.DBAPIError):
        kind = DatabaseAway if is_away(error) else Unavailable
        return kind(f"the database failed: {error.orig}; no file is lost by it")
    where = f" at {to_text(error.filename)}" if isinstance(error.filename, str) else ""
    return Unavailable(f"the system failed{where}: {error.strerror or error}; no file is lost by it")
