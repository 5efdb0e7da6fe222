"""One run of somebody's command: it is given some bytes, listened to, and ended with all that it started."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_LOOK_EVERY_S = 0.05
_KILLED_WITHIN_S = 2.0
_MOST_SAID_BYTES = 16_384
_PART_BYTES = 65_536
_OURS = ("PIGEONHOLED", "NOTIFY_SOCKET", "WATCHDOG_", "LISTEN_", "CREDENTIALS_DIRECTORY", "PG")
"""Variables that begin so are for us: they configure us, lead to our supervisor, or hold our passwords."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended.

    Attributes:
        code: its exit code, or the negative number of a signal; None where it took too long.
        said: the first of what it wrote to stdout and stderr.
    """

    code: int | None
    said: bytes


def run(command: Sequence[str], data: bytes, ends_s: Callable[[], float], environ: Mapping[str, str]) -> Ended:
    """Run a command, without a shell, in a process group of its own. What of that is left at its end is killed.

    It may leave its input unread. It holds none of our files, and gets no variable that is only for us.

    Args:
        command: a program and its arguments.
        data: what it can read from stdin.
        ends_s: the moment, in monotonic seconds, at which it is killed; asked again and again.
        environ: our own variables.

    Raises:
        OSError: it cannot be started.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={name: value for name, value in environ.items() if not name.startswith(_OURS)},
        start_new_session=True,
        bufsize=0,
    )
    said = bytearray()
    try:
        in_time = _attend(process, data, said, ends_s)
    finally:
        ended = _end(process)
    return Ended(process.returncode if in_time and ended else None, bytes(said))


def _attend(process: subprocess.Popen[bytes], data: bytes, said: bytearray, ends_s: Callable[[], float]) -> bool:
    """Write and read until the command itself has ended, whoever has its pipes then; false where it takes too long."""
    rest = memoryview(data)
    with selectors.DefaultSelector() as selector:
        for pipe, event in ((process.stdin, selectors.EVENT_WRITE), (process.stdout, selectors.EVENT_READ)):
            assert pipe is not None
            os.set_blocking(pipe.fileno(), False)
            selector.register(pipe, event)
        while not _has_ended(process):
            if time.monotonic() >= ends_s():
                return False
            for key, _events in selector.select(_LOOK_EVERY_S):
                if key.events == selectors.EVENT_WRITE:
                    rest = _written(key.fd, rest)
                    done = not rest
                else:
                    done = not _heard(key.fd, said)
                if done:
                    _closed(selector, key.fileobj)
        for key in [*selector.get_map().values()]:
            if key.events == selectors.EVENT_READ:
                _heard(key.fd, said)
    return True


def _closed(selector: selectors.BaseSelector, pipe: Any) -> None:
    selector.unregister(pipe)
    pipe.close()


def _written(fd: int, rest: memoryview) -> memoryview:
    """What is left to write; nothing where nobody reads."""
    try:
        return rest[os.write(fd, rest[:_PART_BYTES]) :] if rest else rest
    except BlockingIOError:
        return rest
    except BrokenPipeError:
        return rest[:0]


def _heard(fd: int, said: bytearray) -> bool:
    """Read what has been said, and keep the first of it; false where nothing more will be."""
    try:
        part = os.read(fd, _PART_BYTES)
    except BlockingIOError:
        return True
    said += part[: max(0, _MOST_SAID_BYTES - len(said))]
    return bool(part)


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Without burying it: until then the number of its group is nobody else's."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _end(process: subprocess.Popen[bytes]) -> bool:
    """Kill what is left of the group; false where the command is one that cannot be killed by us."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    try:
        process.wait(_KILLED_WITHIN_S)
    except subprocess.TimeoutExpired:
        return False
    return True
