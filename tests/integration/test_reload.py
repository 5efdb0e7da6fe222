"""HUP: a changed configuration takes effect in the same process; a faulty one leaves the old in service."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from running import Running, Workspace, picture, until


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.make(tmp_path, listen="127.0.0.1:0")


def hup(daemon: Running) -> None:
    daemon.process.send_signal(signal.SIGHUP)


def test_faulty_configuration_is_refused_and_the_old_one_goes_on(workspace: Workspace) -> None:
    good = workspace.config.read_text()
    with workspace.serving() as daemon:
        daemon.await_event("service_ready")
        workspace.config.write_text(good.replace('model = "tiny"', 'modle = "tiny"'))
        hup(daemon)
        assert "modle" in str(daemon.await_event("reload_refused")["error"])
        workspace.drop("a.png", picture(220, 60, 40, 1))
        until(lambda: workspace.filed() == 1, "the old configuration to go on")
        assert daemon.terminate() == 0


def test_new_inbox_is_served_after_hup_and_nothing_is_lost_on_the_way(workspace: Workspace) -> None:
    (workspace.root / "second").mkdir()
    with workspace.serving() as daemon:
        daemon.await_event("service_ready")
        for serial in range(30):
            workspace.drop(f"{serial}.png", picture(220, 60, 40, serial))
        second = '[[inbox]]\nname = "second"\npath = "second"\noutput = "sorted"\nmodel = "tiny"\nsettle_s = 0\n'
        workspace.config.write_text(workspace.config.read_text() + second)
        hup(daemon)
        daemon.await_event("configuration_reloaded")

        def both_ready() -> bool:
            return any(
                event.get("event") == "service_ready" and event["inboxes"] == ["camera", "second"]
                for event in daemon.events()
            )

        until(both_ready, "the second inbox to be served")
        (workspace.root / "second/x.png").write_bytes(picture(40, 60, 220, 99))
        until(lambda: workspace.filed() == 31, "all filed")
        assert (workspace.output / "dog/x.png").exists()
        assert daemon.terminate() == 0


def test_systemd_takes_a_reload_for_no_end(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """After STOPPING=1 it would kill the service in time, whatever comes after."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0pigeonholed-test-{os.getpid()}")
        listener.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@pigeonholed-test-{os.getpid()}")

        def told_until(last: str) -> list[str]:
            told: list[str] = []
            while last not in told:
                told += [line for line in listener.recv(4096).decode().splitlines() if not line.startswith("STATUS=")]
            return [line.partition("=")[0] for line in told if line.startswith(("READY", "RELOAD", "MONO", "STOP"))]

        with workspace.serving() as daemon:
            assert told_until("READY=1") == ["READY"]
            workspace.config.write_text(workspace.config.read_text().replace("rescan_s = 0.5", "rescan_s = 0.6"))
            hup(daemon)
            assert told_until("READY=1") == ["RELOADING", "MONOTONIC_USEC", "READY"]
            assert daemon.terminate() == 0
            assert told_until("STOPPING=1") == ["STOPPING"]


def test_unchanged_configuration_changes_nothing(workspace: Workspace) -> None:
    with workspace.serving() as daemon:
        daemon.await_event("service_ready")
        hup(daemon)
        daemon.await_event("configuration_unchanged")
        assert sum(event["event"] == "service_ready" for event in daemon.events()) == 1
        assert daemon.terminate() == 0


def test_model_that_is_missing_in_the_new_configuration_is_found_before_anything_ends(workspace: Workspace) -> None:
    with workspace.serving() as daemon:
        daemon.await_event("service_ready")
        workspace.config.write_text(workspace.config.read_text().replace('model = "tiny"', 'model = "nobody"'))
        hup(daemon)
        assert "nobody" in str(daemon.await_event("reload_refused")["error"])
        workspace.drop("a.png", picture(220, 60, 40, 1))
        until(lambda: workspace.filed() == 1, "the old configuration to go on")
        assert daemon.terminate() == 0
