"""What systemd is told."""

from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from pigeonholed.systemd import notify

UNIT = Path(__file__).parents[2] / "systemd" / "pigeonholed.service"


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


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze on this machine")
@pytest.mark.parametrize(
    ("device", "tenths"), [("PrivateDevices=yes", 20), ("PrivateDevices=no", 25)], ids=["cpu", "gpu"]
)
def test_unit_exposes_no_more_than_was_promised(tmp_path: Path, device: str, tenths: int) -> None:
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("\nPrivateDevices=yes\n", f"\n{device}\n"))
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={tenths}", str(unit)]
    judged = subprocess.run(command, check=False, capture_output=True, text=True)
    if "unrecognized option" in judged.stderr:
        pytest.skip("this systemd-analyze cannot judge a file, which came with systemd 250")
    assert judged.returncode == 0, judged.stdout[-300:] + judged.stderr
