"""Whatever is sent to the control socket or to the metrics port: an answer or none, and the daemon serves on."""

from __future__ import annotations

import errno
import json
import os
import random
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pigeonholed.control import MAX_REQUEST_BYTES, ask
from running import Running, Workspace, picture, until
from soaking import examples

EXIT_CODES = {1, 2, 69, 78}
ANSWER_S = 20.0
"""However busy the machine is; what is waited for takes milliseconds."""
MEMORY_KB = 60_000
"""How much the daemon may grow by answering: eight requests and the heap's habits take less than half of it."""

KEYS = [
    "last", "since", "image", "reason", "inbox", "path", "name", "version", "file", "items", "model", "after", "", "x"
]  # fmt: skip
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from([1 << 63, -(1 << 63), 10**400, 0, 1, 1e300])
    | st.sampled_from(["tiny", "camera", "unreadable", "\ud800", "\0", "\u202e", "x" * 9000, "../x", "/nowhere/\0"])
    | st.sampled_from(["0001-01-01", "9999-12-31T23:59", "2026-11-21", "/nowhere/x"])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
requests = st.sampled_from(
    [
        "status",
        "undo",
        "release",
        "mend",
        "retry",
        "use",
        "rollback",
        "backup",
        "reclassify",
        "nothing",
        "",
        "__class__",
    ]
)
messages = st.fixed_dictionaries(
    {
        "version": st.just(1) | values,
        "request": requests | values,
        "arguments": st.dictionaries(st.sampled_from(KEYS), values, max_size=3) | values,
    }
)
WHOLE = b'{"version": 1, "request": "use", "arguments": {"name": "unknown", "version": 12}}\n'
PIECES = [
    b"[" * 5000,
    b"{" * 60_000,
    b'"' + b"x" * 70_000,
    b"9" * 5000,
    b"\xff",
    b"\0",
    b"\\ud800",
    b"\n",
    b"1e999",
    b"NaN",
]


def mutated(whole: bytes, rng: random.Random) -> bytes:
    changed = bytearray(whole)
    for _ in range(rng.choice((1, 1, 3))):
        at = rng.randrange(len(changed) + 1)
        match rng.randrange(4):
            case 0:
                changed[at : at + 1] = rng.randbytes(1)
            case 1:
                del changed[at : at + rng.choice((1, 5, 40))]
            case 2:
                changed[at:at] = rng.choice(PIECES)
            case _:
                changed[at:at] = changed[: rng.randrange(len(changed) + 1)]
    return bytes(changed)


class Service:
    """A running daemon with something filed, and the means to talk to it in raw bytes."""

    def __init__(self, site: Workspace, running: Running) -> None:
        self.site, self.running = site, running
        self.control = site.root / "pigeonholed.sock"
        host, _, port = str(running.await_event("metrics_served")["address"]).rpartition(":")
        self.metrics = (host, int(port))
        self.proc = Path(f"/proc/{running.process.pid}")

    def tell(self, data: bytes, *, ends: bool = True) -> bytes:
        """What the control socket answers."""
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as connection:
            connection.settimeout(ANSWER_S)
            connection.connect(str(self.control))
            return _exchanged(connection, data, ends=ends)

    def fetch(self, data: bytes, *, ends: bool = True) -> bytes:
        """What the metrics port answers."""
        with closing(socket.create_connection(self.metrics, timeout=ANSWER_S)) as connection:
            return _exchanged(connection, data, ends=ends)

    def check(self) -> None:
        """It lives, it answers on both, and it has met no fault of its own."""
        assert ask(self.control, "status", {})["pid"] == self.running.process.pid
        assert self.fetch(b"GET /livez HTTP/1.0\r\n\r\n").endswith(b"\r\n\r\nok\n")
        faults = {"control_connection_failed", "control_request_failed", "health_page_failed", "health_request_failed"}
        assert [event for event in self.running.events() if event["event"] in faults] == []

    def memory_kb(self) -> int:
        lines = (self.proc / "status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmRSS:")).split()[1])

    def descriptors(self) -> int:
        return len(os.listdir(self.proc / "fd"))


def _exchanged(connection: socket.socket, data: bytes, *, ends: bool) -> bytes:
    received = b""
    try:
        connection.sendall(data)
        if ends:
            connection.shutdown(socket.SHUT_WR)
        while chunk := connection.recv(65536):
            received += chunk
    except OSError as error:  # refused before all of it was read
        if error.errno not in {errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN}:
            raise
    return received


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    site = Workspace.make(tmp_path_factory.mktemp("requests") / "work", listen="127.0.0.1:0")
    for number in range(4):
        site.drop(f"{number}.png", picture(200, 40, 40, number) if number % 2 else b"text")
    with site.serving() as running:
        running.await_event("service_ready")
        service = Service(site, running)
        service.check()
        before = service.memory_kb(), service.descriptors()
        yield service
        service.check()
        assert service.memory_kb() - before[0] < MEMORY_KB
        deadline_s = time.monotonic() + ANSWER_S
        while service.descriptors() > before[1] + 2 and time.monotonic() < deadline_s:
            time.sleep(0.05)
        assert service.descriptors() <= before[1] + 2
        assert running.terminate() == 0
        assert site.audit() == []


def check_reply(reply: bytes) -> None:
    """One line of JSON: a result, or a sentence with an exit code of the contract that blames no fault of ours."""
    told = json.loads(reply)
    assert reply.count(b"\n") == 1
    assert told["version"] == 1
    if told["ok"]:
        assert "result" in told
        return
    assert told["exit_code"] in EXIT_CODES
    assert told["error"]
    assert "the daemon failed" not in told["error"]


@given(messages)
@examples(150, 50_000)
def test_requests_of_any_shape_get_a_result_or_a_sentence(service: Service, message: dict[str, Any]) -> None:
    data = json.dumps(message).encode() + b"\n"
    if len(data) <= MAX_REQUEST_BYTES:
        check_reply(service.tell(data))


@given(st.integers(0, 1 << 48) | st.binary(max_size=200), st.booleans())
@examples(150, 50_000)
def test_bytes_that_are_hardly_a_request_are_answered_or_dropped(
    service: Service, what: int | bytes, line: bool
) -> None:
    data = mutated(WHOLE, random.Random(what)) if isinstance(what, int) else what
    reply = service.tell(data.replace(b"retry", b"x") + (b"\n" if line else b""))
    if reply:
        check_reply(reply)


PAGES = [
    b"GET /metrics HTTP/1.1\r\nAccept: application/openmetrics-text; version=1.0.0; q=0.5, text/plain;q=x\r\n\r\n",
    b"HEAD /readyz HTTP/1.0\r\nAccept: */*\r\nConnection: keep-alive\r\n\r\n",
    b"GET /livez\r\n",
]
HEADERS = [
    *(b"A: b\r\n" * 200, b"Accept: " + b"q=" * 5000, b"x" * 70_000, b"\r\n", b"\r", b"\0", b"\xff", b" HTTP/9.9"),
    *(b"Content-Length: 99999999999\r\n", b"Transfer-Encoding: chunked\r\n", b"HTTP/1.1\r\nExpect: 100-continue\r\n"),
    *(b"version=9999999999.x; escaping=\xc3\xa9", b"/../../etc/passwd", b"%00%0a", b"?name[]=\xe2\x80\xae", b"POST "),
]


@given(st.integers(0, 1 << 48))
@examples(150, 50_000)
def test_http_that_is_none_gets_a_status_or_a_closed_door(service: Service, number: int) -> None:
    rng = random.Random(number)
    data = bytearray(rng.choice(PAGES))
    for _ in range(rng.choice((1, 2, 4))):
        at = rng.randrange(len(data) + 1)
        if rng.random() < 0.7:
            data[at:at] = rng.choice(HEADERS)
        else:
            data[at : at + rng.choice((1, 9))] = rng.randbytes(1)
    reply = service.fetch(bytes(data))
    if reply.startswith(b"HTTP/"):
        status = int(reply.split(b" ", 2)[1])
        assert status in {200, 400, 404, 405, 414, 417, 431, 503, 505}
        assert b"Traceback" not in reply


@pytest.mark.parametrize("port", ["control", "metrics"])
def test_a_crowd_that_says_nothing_delays_others_for_seconds_only(service: Service, port: str) -> None:
    """Sixty connections are opened, say half a word and stay; the daemon files on, and answers when they have gone."""
    with ExitStack() as crowd:
        for _ in range(60):
            family = socket.AF_UNIX if port == "control" else socket.AF_INET
            connection = crowd.enter_context(closing(socket.socket(family, socket.SOCK_STREAM)))
            connection.settimeout(ANSWER_S)
            connection.connect(str(service.control) if port == "control" else service.metrics)
            with suppress(ConnectionError):  # of the page: the ninth is told that it is busy
                connection.sendall(b"G")
        filed = service.site.filed()
        service.site.drop(f"{port}.png", picture(200, 40, 40, 77))
        until(lambda: service.site.filed() > filed, "a picture to be filed")
    until(lambda: service.fetch(b"GET /livez HTTP/1.0\r\n\r\n").endswith(b"ok\n"), "the crowd to be forgotten")
    service.check()


@pytest.mark.parametrize(
    ("request_", "arguments", "said"),
    [
        ("retry", {"reason": ["unreadable"]}, "reason must be a name, not ['unreadable']"),
        ("retry", {"inbox": {}}, "inbox must be a name, not {}"),
        ("retry", {"inbox": "\ud800"}, "inbox must be a name, not '\\ud800'"),
        ("retry", {"image": 1 << 63}, "image must be a whole number from 1 on, not 9223372036854775808"),
        ("undo", {"since": "0001-01-01T00:00+23:00"}, "since must be a time such as"),
        ("undo", {"since": "9999-12-31T23:59-23:00"}, "since must be a time such as"),
        ("retry", {"path": "\ud800*"}, "path must be a pattern such as"),
        ("undo", {"last": 1, "outcome": "eaten"}, "there is no outcome 'eaten'; there are sorted, unsure"),
        ("mend", {"items": 3, "since": 0}, "say what is to be mended"),
        ("mend", {"items": [], "since": -1}, "say up to which id"),
        ("mend", {"items": [{"kind": "missing", "folder": "/", "path": "x"}], "since": 0}, "say what kind of finding"),
        ("backup", {"file": "/nowhere/\0"}, "say where to write the backup"),
        ("x" * 9000, {}, "there is no request 'xxx"),
    ],
)
def test_what_was_found_is_wrong_usage(service: Service, request_: str, arguments: dict[str, Any], said: str) -> None:
    reply = json.loads(
        service.tell(json.dumps({"version": 1, "request": request_, "arguments": arguments}).encode() + b"\n")
    )
    assert (reply["ok"], reply["exit_code"]) == (False, 2)
    assert reply["error"].startswith(said)
    assert len(reply["error"]) < 300
