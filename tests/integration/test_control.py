"""The control socket, asked over real sockets."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from pigeonholed import control_sockets
from pigeonholed.bundle import BundleError
from pigeonholed.control import MAX_REQUEST_BYTES, ControlServer, NoDaemon, ask
from pigeonholed.errors import Misconfigured, Unavailable, UserError

Make = Callable[..., Path]


def echo(request: str, arguments: dict[str, Any]) -> Any:
    return {"request": request, "arguments": arguments}


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Starts servers and closes them afterwards."""
    servers: list[ControlServer] = []

    def start(answer: Callable[[str, dict[str, Any]], Any] = echo, path: Path | None = None, **options: Any) -> Path:
        path = path or tmp_path / "control.sock"
        server = ControlServer(path, answer, **options)
        server.start()
        servers.append(server)
        return path

    yield start
    for server in servers:
        server.close()


def dial(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(10)
    connection.connect(str(path))
    return connection


def everything(connection: socket.socket) -> bytes:
    received = b""
    while chunk := connection.recv(65536):
        received += chunk
    return received


def talk(path: Path, data: bytes) -> dict[str, Any]:
    """Send raw bytes, end, and read the reply."""
    with dial(path) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        reply: dict[str, Any] = json.loads(everything(connection))
    return reply


def line(**message: Any) -> bytes:
    return json.dumps({"version": 1, "request": "status", "arguments": {}} | message).encode() + b"\n"


def lone_server(path: Path, reply: bytes) -> Iterator[None]:
    """Something that listens, reads one request and replies with these bytes."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(1)

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(reply)

    thread = threading.Thread(target=serve)
    thread.start()
    yield
    thread.join()
    listener.close()


def leave_dead_socket(path: Path) -> None:
    """A socket file whose process was killed."""
    code = (
        "import os, signal, socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(1);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(path)], check=False, timeout=20)
    assert ended.returncode == -signal.SIGKILL
    assert stat.S_ISSOCK(path.stat().st_mode)


def test_a_request_comes_back_with_its_result(make: Make) -> None:
    path = make()
    assert ask(path, "undo", {"last": 3}) == {"request": "undo", "arguments": {"last": 3}}


def test_the_wire_is_as_it_is_documented(make: Make) -> None:
    def answer(request: str, arguments: dict[str, Any]) -> Any:
        if request == "no":
            raise Unavailable("not now")
        return [1, None]

    path = make(answer)
    assert talk(path, line()) == {"version": 1, "ok": True, "result": [1, None]}
    assert talk(path, line(request="no")) == {"version": 1, "ok": False, "error": "not now", "exit_code": 69}


def test_names_that_are_no_unicode_travel_both_ways(make: Make) -> None:
    name = os.fsdecode(b"a\xff\nb")
    assert ask(make(), "undo", {"path": name})["arguments"]["path"] == name


@pytest.mark.parametrize(
    ("error", "expected", "exit_code"),
    [
        (UserError("why"), UserError, 1),
        (Unavailable("why"), Unavailable, 69),
        (Misconfigured("why"), Misconfigured, 78),
        (BundleError("why"), Misconfigured, 78),
    ],
)
def test_a_refusal_arrives_with_its_sentence_and_exit_code(
    make: Make, error: Exception, expected: type[UserError], exit_code: int
) -> None:
    def refuse(request: str, arguments: dict[str, Any]) -> Any:
        raise error

    with pytest.raises(expected) as caught:
        ask(make(refuse), "use", {})
    assert (type(caught.value), str(caught.value), caught.value.exit_code) == (expected, "why", exit_code)


def test_an_exit_code_of_another_kind_arrives_as_it_is(make: Make) -> None:
    class BadRequest(UserError):
        exit_code = 2

    def refuse(request: str, arguments: dict[str, Any]) -> Any:
        raise BadRequest("why")

    with pytest.raises(UserError, match="why") as caught:
        ask(make(refuse), "use", {})
    assert caught.value.exit_code == 2
    assert UserError.exit_code == 1


@pytest.mark.parametrize("result", [object(), float("nan"), {1, 2}], ids=["object", "nan", "set"])
def test_a_result_that_json_cannot_hold_is_a_fault_that_is_told(make: Make, result: object) -> None:
    path = make(lambda request, arguments: result)
    with capture_logs() as logs, pytest.raises(UserError, match="failed at 'status'"):
        ask(path, "status", {})
    assert [event["event"] for event in logs] == ["control_request_failed"]


def test_a_fault_of_ours_is_logged_and_the_server_goes_on(make: Make) -> None:
    def answer(request: str, arguments: dict[str, Any]) -> Any:
        if request == "break":
            raise ZeroDivisionError("by zero")
        return "fine"

    path = make(answer, max_connections=1)
    with capture_logs() as logs, pytest.raises(UserError, match="ZeroDivisionError: by zero") as caught:
        ask(path, "break", {})
    assert caught.value.exit_code == 1
    assert logs[0]["request"] == "break"
    assert ask(path, "status", {}) == "fine"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\n", "no JSON"),
        (b"\xff\xfe\x00garbage\n", "no JSON"),
        (b"GET / HTTP/1.1\r\n\r\n", "no JSON"),
        (b"[" * 60_000 + b"\n", "no JSON"),
        (b"1" * 60_000 + b"\n", "no JSON"),
        (b'{"version": NaN}\n', "no JSON"),
        (b"[1]\n", "no JSON object"),
        (b"{}\n", "version 1"),
        (line(version=2), "version 1 .* is of 2"),
        (line(version=True), "version 1"),
        (line(version="1"), "version 1"),
        (line(request=None), "needs a text"),
        (line(arguments=[1]), "needs a text"),
        (line()[:-1], "broke off"),
        (b"x" * 10 * MAX_REQUEST_BYTES, f"at most {MAX_REQUEST_BYTES} bytes"),
    ],
)
def test_what_is_no_request_is_refused_in_a_sentence(make: Make, data: bytes, said: str) -> None:
    path = make()
    with dial(path) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it need not read on to refuse
        reply = json.loads(connection.recv(65536))
    assert reply["ok"] is False
    assert reply["exit_code"] == 69
    assert re.search(said, reply["error"])
    assert ask(path, "status", {})["request"] == "status"


def test_a_request_of_exactly_the_limit_is_answered_and_one_byte_more_is_not(make: Make) -> None:
    path = make()
    filling = MAX_REQUEST_BYTES - len(line(arguments={"x": ""}))
    assert talk(path, line(arguments={"x": "y" * filling}))["ok"] is True
    assert "at most" in talk(path, line(arguments={"x": "y" * (filling + 1)}))["error"]


def test_too_long_a_request_is_not_even_sent(make: Make) -> None:
    with pytest.raises(UserError, match="more than 65536 bytes"):
        ask(make(), "undo", {"x": "y" * MAX_REQUEST_BYTES})


def test_a_silent_client_is_cut_off_and_told(make: Make) -> None:
    path = make(max_connections=1, idle_s=0.05)
    with dial(path) as silent:
        assert b"no complete request came within 0.05 s" in everything(silent)
    assert ask(path, "status", {})["request"] == "status"


def test_a_trickling_client_is_cut_off_by_the_same_clock(make: Make) -> None:
    path = make(max_connections=1, idle_s=0.2)
    started_s = time.monotonic()
    with dial(path) as slow:
        slow.settimeout(0.02)
        received = b""
        while not received:
            try:
                slow.sendall(b" ")
                received = slow.recv(1000)
            except TimeoutError:
                continue
    assert b"no complete request" in received
    assert time.monotonic() - started_s < 5


def test_a_client_that_takes_no_answer_costs_no_more_than_its_time(make: Make) -> None:
    path = make(lambda request, arguments: "x" * 4_000_000, max_connections=1, idle_s=0.1)
    with dial(path) as deaf:
        deaf.sendall(line())
        assert len(ask(path, "status", {})) == 4_000_000


def test_a_client_that_goes_away_does_no_harm(make: Make) -> None:
    path = make(lambda request, arguments: "x" * 1_000_000, max_connections=1)
    with capture_logs() as logs:
        for data in (b"", b"half", line()):
            with dial(path) as connection:
                connection.sendall(data)
        assert len(ask(path, "status", {})) == 1_000_000
    assert logs == []


def test_twenty_clients_at_once_are_all_answered_at_most_eight_at_a_time(make: Make) -> None:
    lock = threading.Lock()
    eight = threading.Barrier(8)
    now, most = 0, 0

    def answer(request: str, arguments: dict[str, Any]) -> Any:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        if arguments["number"] < 0:
            eight.wait(20)  # all eight are needed to go on: they are served at the same time
        with lock:
            now -= 1
        return arguments["number"]

    path = make(answer)
    with ThreadPoolExecutor(20) as pool:
        together = list(pool.map(lambda number: ask(path, "x", {"number": -number}), range(1, 9)))
        many = list(pool.map(lambda number: ask(path, "x", {"number": number}), range(20)))
    assert together == [-number for number in range(1, 9)]
    assert many == list(range(20))
    assert most == 8


def test_a_crowd_beyond_the_kernels_queue_waits_its_turn(make: Make) -> None:
    path = make(max_connections=1)
    with ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(lambda number: ask(path, "x", {"number": number}), range(100)))
    assert [answer["arguments"]["number"] for answer in answers] == list(range(100))


def test_nobody_else_may_connect_not_even_in_the_first_moment(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "control.sock"
    bind = control_sockets._bind
    modes: list[int] = []

    def observed(listener: socket.socket, where: Path) -> None:
        bind(listener, where)
        modes.append(stat.S_IMODE(where.lstat().st_mode))

    monkeypatch.setattr(control_sockets, "_bind", observed)
    before = os.umask(0)
    try:
        make(path=path)
    finally:
        os.umask(before)
    assert modes == [0o600]
    assert stat.S_IMODE(path.lstat().st_mode) == 0o600


def test_no_socket_is_no_daemon(tmp_path: Path) -> None:
    with pytest.raises(NoDaemon, match="no daemon answers at"):
        ask(tmp_path / "control.sock", "status", {})
    with pytest.raises(NoDaemon):
        ask(tmp_path / "missing" / "control.sock", "status", {})


def test_a_killed_daemons_socket_is_found_out_and_replaced(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    leave_dead_socket(path)
    with pytest.raises(NoDaemon):
        ask(path, "status", {})
    make(path=path)
    assert ask(path, "status", {})["request"] == "status"


def test_a_living_daemons_socket_is_never_taken(make: Make) -> None:
    path = make()
    with pytest.raises(Unavailable, match="another process answers at the control socket"):
        ControlServer(path, echo).start()
    assert ask(path, "status", {})["request"] == "status"


def test_a_busy_daemons_socket_is_never_taken(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(0)
        with dial(path), pytest.raises(Unavailable, match="another process answers"):
            ControlServer(path, echo).start()
    assert path.exists()


def test_a_file_in_the_way_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    path.write_text("mine")
    with pytest.raises(Misconfigured, match="no socket is there"):
        ControlServer(path, echo).start()
    assert path.read_text() == "mine"
    with pytest.raises(Misconfigured, match="is no socket"):
        ask(path, "status", {})


@pytest.mark.parametrize("dead", [True, False], ids=["dangling", "to a dead socket"])
def test_the_server_never_follows_a_link(tmp_path: Path, dead: bool) -> None:
    target, path = tmp_path / "target.sock", tmp_path / "control.sock"
    if not dead:
        leave_dead_socket(target)
    path.symlink_to(target)
    with pytest.raises(Misconfigured, match="no socket is there"):
        ControlServer(path, echo).start()
    assert path.is_symlink()
    assert target.exists() is not dead


def test_the_client_never_follows_a_link(make: Make, tmp_path: Path) -> None:
    link = tmp_path / "link.sock"
    link.symlink_to(make())
    with pytest.raises(Misconfigured, match="is no socket"):
        ask(link, "status", {})


def test_a_path_longer_than_a_socket_may_have_works(make: Make, tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 50) / "and longer"
    folder.mkdir(parents=True)
    path = make(path=folder / "control.sock")
    assert len(str(path)) > 200
    assert stat.S_IMODE(path.lstat().st_mode) == 0o600
    assert ask(path, "status", {})["request"] == "status"


def test_a_name_that_no_socket_can_have_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"cannot make the control socket .*too long for a socket"):
        ControlServer(tmp_path / ("x" * 120), echo).start()


def test_a_missing_folder_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"No such file or directory; name a path .* in \[control\].socket"):
        ControlServer(tmp_path / "missing" / "control.sock", echo).start()


def test_close_lets_an_answer_end_and_removes_the_socket(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    asked, go_on = threading.Event(), threading.Event()

    def answer(request: str, arguments: dict[str, Any]) -> Any:
        asked.set()
        assert go_on.wait(10)
        return "done"

    server = ControlServer(path, answer)
    server.start()
    with ThreadPoolExecutor(2) as pool:
        result = pool.submit(ask, path, "undo", {})
        assert asked.wait(10)
        closing = pool.submit(server.close)
        with pytest.raises(TimeoutError):
            closing.result(0.1)
        assert not path.exists()
        go_on.set()
        assert result.result(10) == "done"
        closing.result(10)
    with pytest.raises(NoDaemon):
        ask(path, "status", {})
    server.close()


def test_close_waits_for_no_client_that_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    server = ControlServer(path, echo, max_connections=1, idle_s=60, grace_s=60)
    server.start()
    with dial(path) as idle:
        while not server._reading:
            pass
        started_s = time.monotonic()
        server.close()
        assert time.monotonic() - started_s < 5
        assert idle.recv(10) == b""


def test_close_never_removes_another_daemons_socket(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    first = ControlServer(path, echo)
    first.start()
    path.unlink()
    make(path=path)
    first.close()
    assert ask(path, "status", {})["request"] == "status"


def test_a_daemon_that_does_not_answer_in_time_is_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(1)
        with pytest.raises(Unavailable, match=r"did not answer within 0\.05 s"):
            ask(path, "status", {}, timeout_s=0.05)


def test_a_daemon_whose_queue_stays_full_is_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(0)
        with dial(path), pytest.raises(Unavailable, match="did not answer within"):
            ask(path, "status", {}, timeout_s=0.05)


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (b"", "ended before it answered"),
        (b'{"version": 1, "ok"', "ended before it answered"),
        (b"hello\n", "is no daemon of pigeonholed"),
        (b"[]\n", "is no daemon of pigeonholed"),
        (b'{"version": 1, "ok": false}\n', "is no daemon of pigeonholed"),
        (b'{"version": 2, "ok": true, "result": 1}\n', "is of another version"),
    ],
)
def test_an_answer_that_is_none_is_unavailable(tmp_path: Path, reply: bytes, said: str) -> None:
    path = tmp_path / "control.sock"
    serving = lone_server(path, reply)
    next(serving)
    with pytest.raises(Unavailable, match=said):
        ask(path, "status", {})
    next(serving, None)


def test_a_daemon_that_ends_with_the_request_unread_is_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener, ThreadPoolExecutor(1) as pool:
        listener.bind(str(path))
        listener.listen(1)
        asked = pool.submit(ask, path, "status", {})
        connection, _ = listener.accept()
        connection.recv(1, socket.MSG_PEEK)
        connection.close()
        with pytest.raises(Unavailable, match="ended before it answered"):
            asked.result(10)


def test_a_refusal_before_the_request_was_read_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall(b'{"version": 1, "ok": false, "error": "too busy", "exit_code": 69}\n')
    theirs.close()
    monkeypatch.setattr(control_sockets, "dial", lambda path, ends_s: ours)
    with pytest.raises(Unavailable, match="too busy"):
        ask(Path("control.sock"), "status", {})
