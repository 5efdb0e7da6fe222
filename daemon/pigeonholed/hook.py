"""The command that people have run after each batch.

It is told of each batch at most once, and perhaps not at all: filing waits for no hook, and nobody remembers for it.
The database is the truth; who needs every result asks that.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import structlog

from pigeonholed import errand
from pigeonholed.errors import Misconfigured
from pigeonholed.metrics import HookRun
from pigeonholed.paths import to_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pigeonholed.entries import Plan
    from pigeonholed.errand import Ended
    from pigeonholed.metrics import Metrics

log = structlog.get_logger()

_MOST_LINES = 20  # of what one run says
_LONGEST_LINE = 300


def check(command: Sequence[str]) -> None:
    """Make sure that a command could be run; an empty one is none.

    Raises:
        Misconfigured: it is not there, or may not be executed by this user.
    """
    if not command or shutil.which(command[0]) is not None:
        return
    program = ascii(command[0])
    if os.path.dirname(command[0]) and os.path.lexists(command[0]):
        problem = "it is no file that this user may execute; chmod +x it, or name another in [hook].command"
    else:
        problem = "there is no such program; install it, or name another in [hook].command"
    raise Misconfigured(f"cannot run the hook {program}: {problem}")


class Hook:
    """Runs a command for one batch after another, in a thread of its own.

    Args:
        command: the program and its arguments.
        limit_s: a run that takes longer is killed.
        metrics: told how runs end, and of batches that no run is made for.
        trouble: told what goes wrong, in a word and a sentence.
        capacity: batches that wait at most.
        grace_s: at the end what waits gets so long.
    """

    def __init__(
        self,
        command: Sequence[str],
        limit_s: float,
        metrics: Metrics,
        *,
        trouble: Callable[[str, str], None] = lambda _kind, _what: None,
        capacity: int = 64,
        grace_s: float = 5.0,
    ) -> None:
        self._command = command
        self._limit_s = limit_s
        self._metrics = metrics
        self._trouble = trouble
        self._capacity = capacity
        self._grace_s = grace_s
        self._waiting: deque[Sequence[Plan]] = deque()
        self._changed = threading.Condition()
        self._last_s = math.inf
        self._thread = threading.Thread(target=self._run, name="hook", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def offer(self, plans: Sequence[Plan]) -> None:
        """A batch was filed. Never waits: where too many wait already, this one is dropped. Any thread."""
        with self._changed:
            taken = len(self._waiting) < self._capacity and self._last_s == math.inf
            if taken:
                self._waiting.append(plans)
                self._changed.notify()
        if not taken:
            self._drop([plans], "too many wait")

    def close(self) -> None:
        """End soon: what waits, and the run that is under way, get the grace; what is left then is dropped."""
        with self._changed:
            self._last_s = time.monotonic() + self._grace_s
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while (plans := self._next()) is not None:
            self._call(plans)

    def _next(self) -> Sequence[Plan] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._last_s < math.inf)
            if self._waiting and time.monotonic() < self._last_s:
                return self._waiting.popleft()
            left = [*self._waiting]
            self._waiting.clear()
        if left:
            self._drop(left, "the service ends")
        return None

    def _call(self, plans: Sequence[Plan]) -> None:
        """Run the command for one batch; whatever comes of that, the next one follows."""
        late_s = time.monotonic() + self._limit_s
        try:
            ended = errand.run(self._command, lines_of(plans), lambda: min(late_s, self._last_s), os.environ)
        except OSError as error:
            self._failed(HookRun.FAILED, f"it cannot be started: {error.strerror}", len(plans))
            return
        self._say(ended)
        if ended.code is None:
            longer = "to the end of the service" if late_s > self._last_s else f"longer than {self._limit_s:g} s"
            self._failed(HookRun.TIMEOUT, f"it took {longer}", len(plans))
        elif ended.code != 0:
            how = f"exit code {ended.code}" if ended.code > 0 else f"signal {-ended.code}"
            self._failed(HookRun.FAILED, f"it ended with {how}", len(plans))
        else:
            self._metrics.hook_runs_total.labels(HookRun.OK).inc()

    def _say(self, ended: Ended) -> None:
        lines = [line for line in ended.said.decode("utf-8", "backslashreplace").splitlines() if line.strip()]
        for line in lines[:_MOST_LINES]:
            log.info("hook_said", line=line[:_LONGEST_LINE])
        if len(lines) > _MOST_LINES:
            log.info("hook_said_more", lines_left_out=len(lines) - _MOST_LINES)

    def _failed(self, result: HookRun, why: str, files: int) -> None:
        self._metrics.hook_runs_total.labels(result).inc()
        self._trouble("hook_failed", why)
        log.warning("hook_failed", result=result.value, why=why, files=files)

    def _drop(self, batches: Sequence[Sequence[Plan]], why: str) -> None:
        self._metrics.hook_batches_dropped_total.inc(len(batches))
        files = sum(map(len, batches))
        self._trouble("hook_batches_dropped", f"{files} results: {why}")
        log.warning("hook_batches_dropped", batches=len(batches), files=files, because=why)


def lines_of(plans: Sequence[Plan]) -> bytes:
    """The results of a batch, as JSON in ASCII, one a line: no name in them can end one."""
    return "".join(json.dumps(_told(plan), ensure_ascii=True) + "\n" for plan in plans).encode("ascii")


def _told(plan: Plan) -> dict[str, Any]:
    prediction = plan.prediction
    return {
        "id": plan.arrival.id,
        "inbox": plan.arrival.file.inbox,
        "path": to_text(plan.arrival.file.path),
        "outcome": plan.placement.value,
        "reason": None if plan.reason is None else plan.reason.value,
        "label": None if prediction is None else prediction.label,
        "confidence": None if prediction is None else prediction.confidence,
        "model": None if prediction is None else prediction.model,
        "version": None if prediction is None else prediction.version,
        "destination": to_text(plan.destination) or None,
        "sha256": plan.fingerprint.sha256,
    }
