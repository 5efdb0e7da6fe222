"""Log events: one event, one line, valid UTF-8, in the right notation for its reader."""

from __future__ import annotations

import datetime as dt
import fcntl
import io
import json
import logging
import os
import re
import socket
import threading
import warnings
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import structlog

from pigeonholed import logs

if TYPE_CHECKING:
    from collections.abc import Iterator

NOON = dt.datetime(2024, 5, 17, 12, 0, 0, 123456, tzinfo=dt.UTC)
STAMP = "2024-05-17T12:00:00.123Z"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers = list(root.handlers)
    yield
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    structlog.reset_defaults()


def configured(notation: Any = "console", level: str = "debug", stream: Any = None, **environ: str) -> Any:
    stream = io.StringIO() if stream is None else stream
    logs.configure(notation, level, stream, environ=environ, now=lambda: NOON)
    return stream


def lines_of(stream: io.StringIO) -> list[str]:
    text = stream.getvalue()
    assert text == "" or text.endswith("\n")
    return text.splitlines()


def event_of(stream: io.StringIO) -> dict[str, Any]:
    (line,) = lines_of(stream)
    event: dict[str, Any] = json.loads(line)
    return event


log = structlog.get_logger()  # as modules have it: made before anything is configured


def test_json_holds_time_level_name_and_facts_in_this_order() -> None:
    stream = configured("json")
    log.info("file_filed", inbox="camera", n=3, part=0.5, ok=True, none=None)
    assert list(event_of(stream).items()) == [
        ("timestamp", STAMP), ("level", "info"), ("event", "file_filed"),
        ("inbox", "camera"), ("n", 3), ("part", 0.5), ("ok", True), ("none", None),
    ]  # fmt: skip


def test_the_console_format_reads_as_words() -> None:
    stream = configured()
    log.warning("file_filed", path="a/b.jpg", words="two words", empty="", equals="a=b", n=3, items=["a", 1])
    assert lines_of(stream) == [
        f'{STAMP} warning file_filed path=a/b.jpg words="two words" empty="" equals="a=b" n=3 items=["a", 1]'
    ]


def test_auto_is_for_people_on_a_terminal_and_json_elsewhere() -> None:
    terminal = configured("auto", stream=Terminal(), NO_COLOR="1")
    log.info("file_filed")
    assert lines_of(terminal) == [f"{STAMP} info    file_filed"]
    elsewhere = configured("auto")
    log.info("file_filed")
    assert event_of(elsewhere)["event"] == "file_filed"


@pytest.mark.parametrize(
    ("stream", "environ", "coloured"),
    [
        (Terminal, {}, True),
        (Terminal, {"NO_COLOR": ""}, True),
        (Terminal, {"NO_COLOR": "1"}, False),
        (Terminal, {"TERM": "dumb"}, False),
        (io.StringIO, {}, False),
    ],
)
def test_colours_are_for_terminals_that_want_them(stream: Any, environ: dict[str, str], coloured: bool) -> None:
    written = configured("console", stream=stream(), **environ)
    log.info("file_filed", path="x")
    assert ("\x1b[" in written.getvalue()) is coloured


def test_under_the_journal_the_console_format_has_no_time_of_its_own() -> None:
    journal = configured("console", JOURNAL_STREAM="8:1")
    log.info("file_filed")
    assert lines_of(journal) == ["info    file_filed"]


def test_a_terminal_that_inherited_the_variable_of_the_journal_has_times() -> None:
    terminal = configured("console", stream=Terminal(), JOURNAL_STREAM="8:1", NO_COLOR="1")
    log.info("file_filed")
    assert lines_of(terminal)[0].startswith(STAMP)


@pytest.mark.parametrize("notation", ["console", "json"])
@pytest.mark.parametrize(
    "hostile",
    ["a\nb", "a\r\nb", "\x1b[31mred", "\x00", "\x7f", "\x9b31m", "\u2028", "\u202egnp.jpg", "\udce9.jpg", "\ud800",
     "\U000e0001", "🕊"],
)  # fmt: skip
def test_no_value_key_or_name_breaks_its_line_or_its_encoding(notation: str, hostile: str) -> None:
    stream = configured(notation)
    log.info(hostile, path=hostile, nested={hostile: [hostile]}, **{hostile: 1})
    text = stream.getvalue()
    assert text.endswith("\n")
    assert text[:-1].isprintable()
    text.encode()


def test_what_json_escapes_reads_back() -> None:
    stream = configured("json")
    log.info("file_filed", path="a\n\x7f\x9b\u2028\U000e0001 🕊 é")
    assert event_of(stream)["path"] == "a\n\x7f\x9b\u2028\U000e0001 🕊 é"


def test_a_byte_that_is_no_utf8_is_written_as_the_database_writes_it() -> None:
    stream = configured("json")
    log.info("file_filed", path="caf\udce9.jpg", raw=b"caf\xe9", lone="\ud800")
    event = event_of(stream)
    assert (event["path"], event["raw"], event["lone"]) == (r"caf\xe9.jpg", r"caf\xe9", r"\ud800")


class Word(StrEnum):
    EMPTY = "empty"


class Mute:
    def __str__(self) -> str:
        raise RuntimeError("no")


def test_values_of_any_type_become_json() -> None:
    stream = configured("json")
    nan = float("nan")
    log.info(
        "batch_done", reason=Word.EMPTY, at=NOON, nan=nan, n=np.int64(3), share=np.float32(0.5), bad=Mute(), t=(1, 2)
    )
    event = event_of(stream)
    assert (event["reason"], event["nan"], event["n"], event["share"]) == ("empty", "nan", 3, 0.5)
    assert isinstance(event["n"], int)
    assert (event["bad"], event["t"], event["at"]) == ("<Mute>", [1, 2], str(NOON))


def test_a_value_that_holds_itself_ends() -> None:
    stream = configured("json")
    endless: list[Any] = []
    endless.append(endless)
    log.info("batch_done", endless=endless)
    assert event_of(stream)["event"] == "batch_done"


@pytest.mark.parametrize("notation", ["console", "json"])
def test_an_exception_stays_in_the_line_of_its_event(notation: str) -> None:
    stream = configured(notation)
    try:
        raise OSError("first\nsecond")
    except OSError:
        log.exception("move_failed")
    (line,) = lines_of(stream)
    assert "OSError" in line
    assert r"first\nsecond" in line


def test_a_stream_that_is_no_utf8_gets_ascii_that_is_json() -> None:
    raw = io.BytesIO()
    configured("json", stream=io.TextIOWrapper(raw, "ascii"))
    log.info("file_filed", path="é🕊")
    assert json.loads(raw.getvalue())["path"] == "é🕊"
    assert raw.getvalue().isascii()


def test_a_stream_that_cannot_be_written_to_stops_nobody() -> None:
    class Full(io.StringIO):
        def write(self, _text: str) -> int:
            raise OSError(28, "No space left on device")

    configured(stream=Full())
    log.error("file_filed")
    closed = io.StringIO()
    closed.close()
    configured("auto", stream=closed)
    log.error("file_filed")


def test_a_reader_that_stops_reading_stops_nobody_and_is_told_what_it_missed() -> None:
    """As a log service that hangs, or a disk that is full below it; this test ends only if nothing waits for ever."""
    out, into = os.pipe()
    with open(out, "rb") as reader, open(into, "w", encoding="utf-8") as writer:
        configured("json", stream=writer)
        size = fcntl.fcntl(into, fcntl.F_GETPIPE_SZ)
        for serial in range(400):
            log.info("file_filed", serial=serial, padding="x" * (size // 100))
        os.set_blocking(out, False)
        before = (reader.read() or b"").splitlines()
        log.info("file_filed", serial=400)
        after = reader.read().splitlines()
    assert [json.loads(line)["serial"] for line in before[:-1]] == list(range(len(before) - 1))
    events = [json.loads(line) for line in after if line.startswith(b"{")]
    assert [event["event"] for event in events] == ["file_filed", "log_lines_lost"]
    assert events[1]["lines"] in (400 - len(before), 401 - len(before))  # one more where the last was torn


@pytest.mark.parametrize("end", ["pipe", "socket"])
def test_a_reader_that_reads_gets_long_lines_whole(end: str) -> None:
    out, into = [end.detach() for end in socket.socketpair()] if end == "socket" else os.pipe()
    long = "x" * 300_000
    got: list[bytes] = []
    with open(out, "rb") as reader:
        thread = threading.Thread(target=lambda: got.append(reader.readline()))
        thread.start()
        with open(into, "w", encoding="utf-8") as stream:
            configured("json", stream=stream)
            log.info("file_filed", long=long)
        thread.join(10)
    assert json.loads(got[0])["long"] == long


def test_less_than_the_level_is_not_written() -> None:
    stream = configured(level="warning")
    log.info("file_filed")
    log.debug("file_filed")
    log.warning("file_left")
    assert lines_of(stream) == [f"{STAMP} warning file_left"]


def test_configuring_again_replaces_level_and_stream() -> None:
    first = configured(level="error")
    second = configured(level="debug")
    log.debug("file_filed")
    logging.getLogger("alembic").warning("once")
    assert lines_of(first) == []
    assert len(lines_of(second)) == 2


def test_libraries_are_heard_from_warning_on_through_the_same_renderer() -> None:
    stream = configured("json")
    library = logging.getLogger("sqlalchemy.pool")
    library.setLevel(logging.DEBUG)
    library.info("unheard")
    library.error("pool %s\nis gone", "A")
    library.setLevel(logging.NOTSET)
    event = event_of(stream)
    assert (event["level"], event["event"], event["library"]) == ("error", "library_reported", "sqlalchemy.pool")
    assert event["message"] == "pool A\nis gone"


def test_a_library_that_formats_wrongly_is_heard_all_the_same() -> None:
    logging.getLogger().handlers.clear()  # pytest's own fail where ours must not
    stream = configured("json")
    logging.getLogger("x").warning("%d", "three")
    assert event_of(stream)["message"] == "%d"


def test_a_level_between_two_names_is_heard() -> None:
    stream = configured("json")
    logging.getLogger("x").log(35, "odd")
    assert event_of(stream)["level"] == "warning"


def test_a_warning_of_python_is_an_event() -> None:
    stream = configured("json")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn("old thing", stacklevel=1)
        logging.captureWarnings(False)
    event = event_of(stream)
    assert event["library"] == "py.warnings"
    assert re.search("UserWarning: old thing", event["message"])


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_a_trouble_that_lasts_is_told_when_it_begins_and_when_it_is_over() -> None:
    clock = Clock()
    with structlog.testing.capture_logs() as events:
        trouble = logs.Repeated(log, "database_lost", "database_recovered", clock=clock)
        trouble.success()
        for _ in range(5):
            trouble.failure(error="refused")
            clock.now_s += 1
        trouble.success()
        trouble.success()
        trouble.failure(error="again")
    assert events == [
        {"event": "database_lost", "log_level": "warning", "error": "refused"},
        {"event": "database_recovered", "log_level": "info", "failures": 5, "lasted_s": 5.0},
        {"event": "database_lost", "log_level": "warning", "error": "again"},
    ]


def test_a_trouble_that_lasts_long_is_told_again_now_and_then() -> None:
    clock = Clock()
    with structlog.testing.capture_logs() as events:
        trouble = logs.Repeated(log, "mount_lost", "mount_recovered", remind_s=60.0, clock=clock)
        for _ in range(130):
            trouble.failure(error="gone")
            clock.now_s += 1
    assert [event.get("failures") for event in events] == [None, 61, 121]
