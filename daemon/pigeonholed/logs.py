"""Log events: one event is one line of valid UTF-8, readable on a terminal and JSON elsewhere."""

from __future__ import annotations

import datetime as dt
import logging
import os
import select
import stat
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Literal, TextIO

import structlog

from pigeonholed.log_lines import Console, Stamp, as_json, escaped

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from structlog.typing import Processor


def configure(
    format: Literal["auto", "console", "json"] = "auto",  # noqa: A002 (the word of the configuration)
    level: str = "info",
    stream: TextIO | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
) -> None:
    """Send all events of this process to `stream` (default: stderr); may be called again.

    "auto" is the console format on a terminal and JSON otherwise. Colours appear on a terminal only, and not under
    NO_COLOR. Under systemd (JOURNAL_STREAM) the console format has no time of its own. What libraries tell through
    `logging` or `warnings` appears as the event `library_reported`, from level warning on. A stream that cannot be
    written to, or whose reader takes nothing for a second, loses events and nothing else; `log_lines_lost` then says
    how many.

    Args:
        format: how an event is written.
        level: the least level that is written: debug, info, warning, error.
        stream: where to.
        environ: the variables NO_COLOR, TERM and JOURNAL_STREAM count.
        now: the time of an event, UTC.
    """
    target = sys.stderr if stream is None else stream
    terminal = _is_terminal(target)
    processors: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.format_exc_info,
    ]
    if format == "json" or (format == "auto" and not terminal):
        processors += [Stamp(now), as_json]
    else:
        if terminal or not environ.get("JOURNAL_STREAM"):  # a terminal is never the journal, whatever it inherited
            processors.append(Stamp(now))
        colours = terminal and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
        processors.append(Console(colours))
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_LineLoggerFactory(target),
        cache_logger_on_first_use=False,
    )
    _route_libraries()


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except (AttributeError, ValueError):  # closed
        return False


class _LineLoggerFactory:
    """Makes loggers that share one stream and one lock, so that lines of several threads never mix."""

    def __init__(self, stream: TextIO) -> None:
        self._logger = _LineLogger(stream)

    def __call__(self, *_arguments: object) -> _LineLogger:
        return self._logger


class _LineLogger:
    """Writes each event in one call and flushes it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._reader = _Reader.of(stream)
        self._lost = 0
        self._unicode = (getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "") == "utf8"
        self._lock = threading.Lock()

    def msg(self, line: str) -> None:
        """Write one line; a stream that is full, closed or gone loses it, because sorting matters more."""
        text = line if self._unicode else "".join(c if c.isascii() else escaped(c) for c in line)
        with self._lock:
            written = self._written(text + "\n")
            lost, self._lost = (self._lost, 0) if written else (0, self._lost + 1)
        if lost:
            structlog.get_logger().warning("log_lines_lost", lines=lost)

    def _written(self, text: str) -> bool:
        try:
            if self._reader is not None:
                self._stream.flush()  # what was printed comes first; a closed stream says so
                return self._reader.takes(text.encode(errors="backslashreplace"))
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            return False
        return True

    debug = info = warning = error = critical = exception = msg


class _Reader:
    """Whoever reads from a pipe, socket or terminal; one that takes nothing must not hold up the pictures."""

    _PATIENCE_MS = 1000
    _PIECE = select.PIPE_BUF  # what is ready takes so much without blocking

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self._patience_ms = self._PATIENCE_MS
        self._torn = False

    @classmethod
    def of(cls, stream: TextIO) -> _Reader | None:
        """The reader of a stream; None where a write cannot wait for one."""
        try:
            mode = os.fstat(stream.fileno()).st_mode
        except (AttributeError, OSError, ValueError):  # it is in memory, or closed
            return None
        waits = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISCHR(mode)
        return cls(stream.fileno()) if waits else None

    def takes(self, line: bytes) -> bool:
        """Write a line; false if that would take more than a moment. Who has waited once waits no more until it goes.

        Raises:
            OSError: nobody will ever read it.
        """
        rest = b"\n" + line if self._torn else line
        while rest:
            if not self._poll.poll(self._patience_ms):
                self._torn, self._patience_ms = self._torn or len(rest) < len(line), 0
                return False
            rest = rest[os.write(self._fd, rest[: self._PIECE]) :]
        self._torn, self._patience_ms = False, self._PATIENCE_MS
        return True


class _Forwarder(logging.Handler):
    """Hands records of the standard library to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        """Tell of one record."""
        message = _message_of(record)
        log = structlog.get_logger()
        log.log(
            min(max(record.levelno // 10 * 10, logging.WARNING), logging.CRITICAL),
            "library_reported",
            library=record.name,
            message=message,
            exc_info=record.exc_info or None,
        )


def _message_of(record: logging.LogRecord) -> str:
    try:
        return record.getMessage().strip()
    except Exception:  # a library's faulty format must not stop us
        return str(record.msg)


def _route_libraries() -> None:
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _Forwarder)]:
        root.removeHandler(handler)
    root.addHandler(_Forwarder(logging.WARNING))
    logging.captureWarnings(True)


class Repeated:
    """Tells of a trouble that lasts once when it begins, now and then while it lasts, and once when it is over.

    Not safe for threads: each owner has its own.

    Args:
        log: where to tell, a structlog logger.
        failed: name of the event when it begins and while it lasts, level warning.
        recovered: name of the event when it is over, level info, with `failures` and `lasted_s`.
        remind_s: how often it is told again while it lasts.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        log: Any,
        failed: str,
        recovered: str,
        *,
        remind_s: float = 600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._failed = failed
        self._recovered = recovered
        self._remind_s = remind_s
        self._clock = clock
        self._since_s: float | None = None
        self._told_s = 0.0
        self.failures = 0

    def failure(self, **facts: object) -> None:
        """Count one failure."""
        now_s = self._clock()
        self.failures += 1
        if self._since_s is None:
            self._since_s = self._told_s = now_s
            self._log.warning(self._failed, **facts)
        elif now_s - self._told_s >= self._remind_s:
            self._told_s = now_s
            lasted_s = round(now_s - self._since_s, 1)
            self._log.warning(self._failed, **facts, failures=self.failures, lasted_s=lasted_s)

    def success(self, **facts: object) -> None:
        """End the trouble, if there is one."""
        if self._since_s is None:
            return
        lasted_s = round(self._clock() - self._since_s, 1)
        self._log.info(self._recovered, **facts, failures=self.failures, lasted_s=lasted_s)
        self._since_s = None
        self.failures = 0
