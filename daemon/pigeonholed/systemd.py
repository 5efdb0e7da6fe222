"""What systemd is told of us, by the protocol of sd_notify(3): datagrams to the socket that it names."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING

import structlog

from pigeonholed.config_errors import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

log = structlog.get_logger()

_HEARD_WITHIN_S = 10.0
_LONGEST_PAUSE_S = 5.0
_EXTENDED_BY_S = 60
_STATUS_CHARACTERS = 500


def notify(*lines: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Send state such as `READY=1`, one line each; false where nobody listens. Never raises.

    A line break within a line is escaped: what follows it would be another order to systemd, and names are droppers'.
    """
    address = environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.settimeout(_HEARD_WITHIN_S)  # systemd may be busy; a service that waits for it for ever helps nobody
        channel.sendto("\n".join(map(one_line, lines)).encode(), address)
        return True
    return False


def notify_reloading() -> None:
    """Say that a reload has begun; `READY=1` ends it, whatever came of it."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def show_stacks_at_abort(environ: Mapping[str, str] = os.environ) -> None:
    """Under systemd, let SIGABRT write what every thread is at to the journal: it is what the watchdog kills with."""
    if environ.get("NOTIFY_SOCKET") and sys.__stderr__ is not None:
        faulthandler.enable(sys.__stderr__)


class Pulse:
    """Tells systemd that we live for as long as there is progress, from a thread of its own, from `start` to `stop`.

    Nothing is sent while something is stuck: the watchdog then kills the process, which is safe, and starts another.

    Args:
        stuck: why there is no progress; empty when there is.
        line: the process in one line.
        starting: whether it is still on its way to `READY=1`, and needs more time.
    """

    def __init__(
        self,
        stuck: Callable[[], list[str]],
        line: Callable[[], str],
        starting: Callable[[], bool],
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._stuck = stuck
        self._line = line
        self._starting = starting
        self._environ = environ
        self._ended = threading.Event()
        self._told: list[str] = []
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    def start(self) -> None:
        """Begin, with a first message at once."""
        self._thread.start()

    def stop(self) -> None:
        """Say no more."""
        self._ended.set()
        self._thread.join()

    def beat(self) -> None:
        """Send what is to be sent now."""
        if faults := self._stuck():
            if not self._told:
                log.error("no_progress", because=faults)
            self._told = faults
            notify(f"STATUS=no progress: {'; '.join(faults)}"[:_STATUS_CHARACTERS], environ=self._environ)
            return
        self._told = []
        more = [f"EXTEND_TIMEOUT_USEC={_EXTENDED_BY_S * 1_000_000}"] if self._starting() else []
        notify("WATCHDOG=1", *more, f"STATUS={self._line()}"[:_STATUS_CHARACTERS], environ=self._environ)

    def _run(self) -> None:
        pause_s = self._pause_s()
        while not self._ended.is_set():
            self.beat()
            self._ended.wait(pause_s)

    def _pause_s(self) -> float:
        """A third of the time after which systemd's watchdog bites, if it is meant for us."""
        ours = self._environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        given = self._environ.get("WATCHDOG_USEC", "")
        if not ours or not given.isdecimal() or int(given) == 0:
            return _LONGEST_PAUSE_S
        return min(_LONGEST_PAUSE_S, int(given) / 3e6)
