"""Waiting for a machine that is at fault: disk full, mount gone, too many open files. No file is blamed for it."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import structlog

from pigeonholed.disk import WAITED_FOR

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

log = structlog.get_logger()


class GivenUp(Exception):
    """The process was told to end while a stage waited; what it held is safe and is taken up at the next start."""


@dataclass(frozen=True, slots=True)
class Patience:
    """Repeats what failed for a fault of the machine until it succeeds.

    Attributes:
        stop: set when the process should end; after `grace_s` of further trying a stage then gives up.
        on_retry: called with the stage and the error before each wait.
        waiting: by stage, what it waits for now; other threads read it.
    """

    stop: threading.Event = field(default_factory=threading.Event)
    on_retry: Callable[[str, OSError], None] = lambda _stage, _error: None
    first_wait_s: float = 0.1
    longest_wait_s: float = 5.0
    grace_s: float = 10.0
    clock: Callable[[], float] = time.monotonic
    waiting: dict[str, str] = field(default_factory=dict)

    def retry(self, stage: str, what: str, action: Callable[[], T], *, also: frozenset[int] = frozenset()) -> T:
        """Return what `action` returns; it must be safe to repeat.

        Args:
            stage: the metric's word for who waits.
            what: for the log, a verb first.
            action: what to do.
            also: errors that pass, besides those of the machine.

        Raises:
            GivenUp: told to end.
            OSError: the fault is not one that passes.
        """
        wait_s = self.first_wait_s
        failures = 0
        stopped_s: float | None = None
        while True:
            try:
                result = action()
            except OSError as error:
                if error.errno not in WAITED_FOR and error.errno not in also:
                    raise
                failures += 1
                self.waiting[stage] = error.strerror or str(error)
                self.on_retry(stage, error)
                if failures == 1:
                    log.warning("stage_blocked", stage=stage, attempted=what, error=error.strerror)
                if self.stop.wait(wait_s):
                    stopped_s = self.clock() if stopped_s is None else stopped_s
                    if self.clock() - stopped_s >= self.grace_s:
                        raise GivenUp(f"{what}: {error.strerror}") from error
                    threading.Event().wait(self.first_wait_s)  # `stop` is set and would not wait any more
                wait_s = min(wait_s * 2, self.longest_wait_s)
            else:
                if failures:
                    self.waiting.pop(stage, None)
                    log.info("stage_recovered", stage=stage, attempted=what, failures=failures)
                return result
