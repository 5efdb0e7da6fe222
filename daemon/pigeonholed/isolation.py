"""Decoding in a process of its own, which may die of a picture: the service's side of `confined`."""

from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from pigeonholed.confined import packed, unpacked
from pigeonholed.images import Reason
from pigeonholed.imaging import ImagingError, Picture

if TYPE_CHECKING:
    from collections.abc import Callable

    from pigeonholed.decoding import Demand

_READY_WITHIN_S = 60.0
_LOOK_EVERY_S = 0.2
_REASONS = frozenset({Reason.UNREADABLE, Reason.TRUNCATED, Reason.UNSUPPORTED, Reason.TOO_LARGE, Reason.EMPTY})
_KEPT_VARIABLES = ("PATH", "LANG", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME")


class Died(Exception):
    """The process died or hung while it decoded, or answered nonsense; the message says which."""


class Interrupted(Exception):
    """Told to end while it decoded: nothing is known of the picture."""


def command() -> list[str]:
    """What starts a decoding process; the number of its parent goes after it."""
    return [sys.executable, "-P", "-m", "pigeonholed.confined"]


class DecodingProcess:
    """A child that decodes one picture at a time. Owned by the thread that makes it, whose end it does not survive.

    It inherits three pipes' ends and nothing else: no lock, no socket, no connection, no password in a variable.

    Raises:
        OSError: no process can be had now (EAGAIN where it ended before it was ready).
    """

    def __init__(self) -> None:
        self.fresh = True  # it has decoded nothing yet
        self._process = subprocess.Popen(
            [*command(), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_environment(),
            start_new_session=True,
            bufsize=0,
        )
        self._stdin, self._stdout = _fd(self._process.stdin), _fd(self._process.stdout)
        for fd in (self._stdin, self._stdout):
            os.set_blocking(fd, False)
        try:
            self._expect(_READY_WITHIN_S, lambda: False)
            unpacked(self._read, 0)
        except (Died, ValueError) as error:
            self.close()
            raise OSError(errno.EAGAIN, f"a decoding process does not start: {error}") from error

    def decode(self, data: bytes, demand: Demand, limit_s: float, told_to_end: Callable[[], bool]) -> Picture:
        """Decode there what `imaging.decode` would decode here.

        Args:
            data: the whole file.
            demand: what is wanted of it.
            limit_s: the process is ended when it takes longer.
            told_to_end: asked now and then.

        Raises:
            ImagingError: it gives no picture.
            Died: the process has died of it, or hung. It is of no more use.
            Interrupted: `told_to_end` said so. It is of no more use.
        """
        self.fresh = False
        self._expect(limit_s, told_to_end)
        spec = demand.spec
        request = {
            "height": spec.height,
            "width": spec.width,
            "fit": spec.fit,
            "max_pixels": demand.max_pixels,
            "allow_truncated": demand.allow_truncated,
            "limit_s": limit_s,
        }
        size = spec.height * spec.width * 3
        try:
            self._write(packed(request, len(data)))
            self._write(data)
            header, pixels = unpacked(self._read, size)
            return _picture(header, pixels, (spec.height, spec.width, 3))
        except (ValueError, KeyError, TypeError) as error:
            raise Died("the process that decoded it answered nonsense") from error

    def close(self) -> None:
        """End it. It keeps nothing, so it is killed."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _expect(self, limit_s: float, told_to_end: Callable[[], bool]) -> None:
        self._limit_s, self._ends_s, self._told_to_end = limit_s, time.monotonic() + limit_s, told_to_end

    def _read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            self._await(self._stdout, select.POLLIN)
            part = os.read(self._stdout, size - len(data))
            if not part:
                raise Died(self._end())
            data += part
        return bytes(data)

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            self._await(self._stdin, select.POLLOUT)
            try:
                rest = rest[os.write(self._stdin, rest) :]
            except BrokenPipeError:
                raise Died(self._end()) from None

    def _await(self, fd: int, event: int) -> None:
        """Return when there is something to do at a pipe, or it is broken."""
        poll = select.poll()
        poll.register(fd, event)
        while True:
            if time.monotonic() >= self._ends_s:
                raise Died(f"the process that decoded it took longer than {self._limit_s:g} s")
            if poll.poll(_LOOK_EVERY_S * 1000):
                return
            if self._told_to_end():
                raise Interrupted

    def _end(self) -> str:
        """How it ended, its pipe being closed."""
        try:
            code = self._process.wait(_READY_WITHIN_S)
        except subprocess.TimeoutExpired:
            return "the process that decoded it fell silent"
        if code < 0:
            return f"the process that decoded it was ended by {signal.Signals(-code).name}"
        return f"the process that decoded it ended with exit code {code}"


def _picture(header: dict[str, Any], pixels: bytes, shape: tuple[int, int, int]) -> Picture:
    """What an answer says, of which nothing is believed."""
    if "died" in header:
        raise Died(f"the process that decoded it failed: {str(header['died'])[:500]}")
    if "reason" in header:
        reason = Reason(header["reason"])
        if reason not in _REASONS:
            raise ValueError(reason)
        raise ImagingError(reason, str(header["detail"])[:500])
    width, height = header["width"], header["height"]
    if not (isinstance(width, int) and isinstance(height, int) and 0 < width < 1 << 31 and 0 < height < 1 << 31):
        raise ValueError("no size")
    return Picture(np.frombuffer(bytearray(pixels), np.uint8).reshape(shape), width, height)


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    return kept | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def _fd(pipe: Any) -> int:
    number = pipe.fileno()
    assert isinstance(number, int)
    return number
