"""What systemd hears of the real program: at the start, at a reload, where it hangs, and at the end."""

from __future__ import annotations

import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import hanging
from running import Workspace, picture, until

WATCHDOG_USEC = 600_000


class Systemd:
    """The listening end of a NOTIFY_SOCKET; it always listens, as systemd does."""

    def __init__(self, path: Path) -> None:
        self._channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._channel.bind(str(path))
        self.environ = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": str(WATCHDOG_USEC)}
        self._told: list[str] = []
        self._heard_to = 0
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while data := self._channel.recv(65536):
            self._told += data.decode().split("\n")

    def close(self) -> None:
        self._channel.shutdown(socket.SHUT_RD)
        self._thread.join()
        self._channel.close()

    def hear_until(self, wanted: Callable[[str], bool]) -> list[str]:
        """All lines since the last call, to the first that is wanted."""
        heard: list[str] = []

        def look() -> bool:
            while self._heard_to < len(self._told):
                heard.append(self._told[self._heard_to])
                self._heard_to += 1
                if wanted(heard[-1]):
                    return True
            return False

        until(look, "what systemd is to be told", 120.0)
        return heard

    def hear_all(self) -> list[str]:
        """All other lines so far."""
        heard = self._told[self._heard_to :]
        self._heard_to += len(heard)
        return heard


def orders(lines: list[str]) -> list[str]:
    """What changes the state of the unit."""
    words = [line.partition("=")[0] for line in lines]
    return [word for word in words if word not in {"STATUS", "WATCHDOG", "EXTEND_TIMEOUT_USEC"}]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.make(tmp_path / "work", listen="127.0.0.1:0")


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    listener = Systemd(tmp_path / "notify")
    yield listener
    listener.close()


def ready(line: str) -> bool:
    return line == "READY=1"


def test_life_of_the_unit_from_start_to_stop(workspace: Workspace, systemd: Systemd) -> None:
    good = workspace.config.read_text()
    reload = ["RELOADING", "MONOTONIC_USEC", "READY"]
    with workspace.serving(environ=systemd.environ) as daemon:
        start = systemd.hear_until(ready)
        assert orders(start) == ["READY"]
        assert "EXTEND_TIMEOUT_USEC=60000000" in start, "a model that loads is given time"

        workspace.drop("a.png", picture(220, 60, 40, 1))
        systemd.hear_until(lambda line: line == "STATUS=1 files filed, 0 waiting")
        systemd.hear_until(lambda line: line == "WATCHDOG=1")
        workspace.inbox.rmdir()
        systemd.hear_until(lambda line: line == "STATUS=1 files filed, 0 waiting; the inbox camera is missing")
        workspace.inbox.mkdir()

        before_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        daemon.process.send_signal(signal.SIGHUP)  # nothing has changed
        told = systemd.hear_until(ready)
        assert orders(told) == reload
        (at_us,) = [int(line.partition("=")[2]) for line in told if line.startswith("MONOTONIC_USEC=")]
        assert before_us <= at_us, "systemd takes an older moment for the answer to something before"

        workspace.config.write_text(good.replace('model = "tiny"', 'modle = "tiny"'))
        daemon.process.send_signal(signal.SIGHUP)
        assert orders(systemd.hear_until(ready)) == reload
        status = systemd.hear_until(lambda line: line.startswith("STATUS="))[-1]
        assert re.search("the last reload was refused: .*modle", status)

        workspace.config.write_text(good.replace("rescan_s = 0.5", "rescan_s = 0.6"))
        daemon.process.send_signal(signal.SIGHUP)
        assert orders(systemd.hear_until(ready)) == reload
        assert "refused" not in systemd.hear_until(lambda line: line.startswith("STATUS=1 files"))[-1]

        assert daemon.terminate(120) == 0
    assert orders(systemd.hear_until(lambda line: line == "STOPPING=1")) == ["STOPPING"]
    assert orders(systemd.hear_all()) == []


def test_stage_that_hangs_lets_the_watchdog_starve_and_one_that_the_kernel_holds_does_not(
    workspace: Workspace, systemd: Systemd
) -> None:
    workspace.forks = False
    workspace.command = lambda *arguments: [sys.executable, hanging.__file__, *arguments]  # type: ignore[method-assign]
    hang, kernel = workspace.root / hanging.HANG, workspace.root / hanging.KERNEL
    kernel.touch()
    with workspace.serving(environ=systemd.environ) as daemon:
        daemon.await_event("service_ready", 120)
        assert daemon.fetch("/livez") == (200, "ok\n")
        hang.touch()
        workspace.drop("a.png", picture(220, 60, 40, 1))
        systemd.hear_until(lambda line: "1 waiting" in line or "0 waiting" in line)
        for _beat in range(10):
            heard = systemd.hear_until(lambda line: line == "WATCHDOG=1")
            assert not any("no progress" in line for line in heard)

        kernel.unlink()
        stuck = "filing has made no progress"
        systemd.hear_until(lambda line: line.startswith(f"STATUS=no progress: {stuck}"))
        for _beat in range(5):
            assert len(systemd.hear_until(lambda line: line.startswith("STATUS="))) == 1, "the watchdog is fed"
        status, said = daemon.fetch("/livez")
        assert (status, said.startswith(stuck)) == (503, True)
        assert any(event["event"] == "no_progress" for event in daemon.events())

        hang.unlink()
        systemd.hear_until(lambda line: line == "WATCHDOG=1")
        until(lambda: workspace.filed() == 1, "the file to be filed", 120)
        daemon.process.send_signal(signal.SIGABRT)  # as the watchdog does
        assert daemon.process.wait(120) == -signal.SIGABRT
    assert re.search(r'(?m)^Fatal Python error: Aborted\n(.*\n)*  File ".*claiming.py"', daemon.log.read_text())
