"""What systemd is told."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pigeonholed.systemd import Pulse, notify


def test_state_reaches_the_socket_that_systemd_names(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        assert notify("READY=1", "STATUS=serving", environ={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        assert listener.recv(100) == b"READY=1\nSTATUS=serving"


def test_abstract_socket_is_reached_too() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0pigeonholed-test-notify")
        assert notify("READY=1", environ={"NOTIFY_SOCKET": "@pigeonholed-test-notify"})
        assert listener.recv(100) == b"READY=1"


def test_nothing_happens_where_nobody_listens(tmp_path: Path) -> None:
    assert not notify("READY=1", environ={})
    assert not notify("READY=1", environ={"NOTIFY_SOCKET": "relative"})
    assert not notify("READY=1", environ={"NOTIFY_SOCKET": str(tmp_path / "gone")})


def test_a_name_in_an_error_is_no_order_to_systemd_and_never_ends_the_daemon(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        environ = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        assert notify("STATUS=failed: the output a\nMAINPID=1\udcff is away", environ=environ)
        assert listener.recv(100) == b"STATUS=failed: the output a\\nMAINPID=1\\udcff is away"


class Heard:
    """A Pulse and what systemd hears of it."""

    def __init__(self, listener: socket.socket, environ: dict[str, str]) -> None:
        self.listener = listener
        self.faults: list[str] = []
        self.starting = False
        self.pulse = Pulse(lambda: self.faults, lambda: "3 files filed", lambda: self.starting, environ)

    def hear(self) -> list[str]:
        return self.listener.recv(4096).decode().split("\n")


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[Heard]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(30)
        yield Heard(listener, {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "60000"})


def test_process_that_makes_progress_feeds_the_watchdog_and_says_what_it_did(heard: Heard) -> None:
    heard.pulse.beat()
    assert heard.hear() == ["WATCHDOG=1", "STATUS=3 files filed"]


def test_start_that_takes_long_is_given_more_time(heard: Heard) -> None:
    heard.starting = True
    heard.pulse.beat()
    assert heard.hear() == ["WATCHDOG=1", "EXTEND_TIMEOUT_USEC=60000000", "STATUS=3 files filed"]


def test_watchdog_is_not_fed_and_no_time_asked_for_where_something_is_stuck(heard: Heard) -> None:
    heard.starting, heard.faults = True, ["filing has made no progress for 600 s"]
    heard.pulse.beat()
    assert heard.hear() == ["STATUS=no progress: filing has made no progress for 600 s"]


def test_pulse_comes_again_and_again_until_it_is_stopped(heard: Heard) -> None:
    heard.pulse.start()
    for _time in range(3):
        assert heard.hear()[0] == "WATCHDOG=1"
    heard.pulse.stop()
    heard.listener.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while heard.hear():
            pass


@pytest.mark.parametrize(
    ("environ", "pause_s"),
    [
        ({}, 5.0),
        ({"WATCHDOG_USEC": "3000000"}, 1.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 1.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, 5.0),
        ({"WATCHDOG_USEC": "120000000"}, 5.0),
        ({"WATCHDOG_USEC": "nonsense"}, 5.0),
    ],
)
def test_pulse_is_three_times_as_fast_as_the_watchdog_wants_it(environ: dict[str, str], pause_s: float) -> None:
    assert Pulse(list, str, bool, environ)._pause_s() == pause_s
