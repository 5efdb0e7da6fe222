"""A decoding process: the same pixels as here, a word for each way to die, and nothing of its parent's in its hands."""

from __future__ import annotations

import io
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import poisoned
from helpers import png
from pigeonholed import imaging, isolation
from pigeonholed.decoding import Demand
from pigeonholed.images import Reason
from pigeonholed.isolation import DecodingProcess, Died, Interrupted
from poisoned import ending
from running import until

DEMAND = Demand(imaging.PixelSpec(8, 12, "pad"), max_pixels=10_000, max_bytes=10**6)


def never() -> bool:
    return False


@pytest.fixture
def real() -> Iterator[DecodingProcess]:
    process = DecodingProcess()
    yield process
    process.close()


@pytest.fixture
def deadly(monkeypatch: pytest.MonkeyPatch) -> Iterator[DecodingProcess]:
    """One whose decoder some files kill."""
    monkeypatch.setattr(isolation, "command", lambda: [sys.executable, poisoned.__file__, poisoned.CONFINED])
    process = DecodingProcess()
    yield process
    process.close()


def pid_of(process: DecodingProcess) -> int:
    return process._process.pid


def test_one_after_another_gives_the_pixels_or_the_reason_that_decoding_here_gives(real: DecodingProcess) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (40, 60, 3)).astype(np.uint8)
    for suffix in (".jpg", ".png", ".webp", ".bmp", ".tiff", ".gif"):
        done, encoded = cv2.imencode(suffix, noise)
        assert done
        data = encoded.tobytes()
        here, there = imaging.decode(data, DEMAND.spec), real.decode(data, DEMAND, 30.0, never)
        assert np.array_equal(here.pixels, there.pixels)
        assert (here.width, here.height) == (there.width, there.height) == (60, 40)
        assert there.pixels.flags.writeable is here.pixels.flags.writeable is True
        with pytest.raises(imaging.ImagingError) as expected:
            imaging.decode(data[: len(data) // 2], DEMAND.spec)
        with pytest.raises(imaging.ImagingError) as got:
            real.decode(data[: len(data) // 2], DEMAND, 30.0, never)
        assert (got.value.reason, got.value.detail) == (expected.value.reason, expected.value.detail)
    with pytest.raises(imaging.ImagingError) as large:
        real.decode(png(size=101), DEMAND, 30.0, never)
    assert large.value.reason is Reason.TOO_LARGE


def heif_and_avif(size: tuple[int, int] = (96, 64)) -> list[bytes]:
    heif = pytest.importorskip("pillow_heif")
    noise = np.random.default_rng(1).integers(0, 255, (*size[::-1], 3)).astype(np.uint8)
    picture = Image.fromarray(noise)
    made = [io.BytesIO(), io.BytesIO(), io.BytesIO()]
    heif.from_pillow(picture).save(made[0])
    heif.from_pillow(picture).save(made[1], tile_size=64)
    picture.save(made[2], "AVIF")
    return [file.getvalue() for file in made]


def test_heif_and_avif_give_the_same_pixels_in_a_process_of_any_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """The decoder of HEIF starts a thread, which only root may where there are to be none."""
    command = isolation.command()
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    if os.geteuid() == 0:
        python = [*nobody, sys.executable, "-c", "import pigeonholed"]
        if shutil.which("setpriv") is None or subprocess.run(python, check=False, capture_output=True).returncode != 0:
            pytest.skip("nobody but root may run this program here, or setpriv is missing")
        monkeypatch.setattr(isolation, "command", lambda: [*nobody, *command])
    process = DecodingProcess()
    try:
        for data in heif_and_avif():
            there = process.decode(data, DEMAND, 30.0, never)
            assert np.array_equal(imaging.decode(data, DEMAND.spec).pixels, there.pixels)
            with pytest.raises(imaging.ImagingError) as cut:
                process.decode(data[:-1], DEMAND, 30.0, never)
            assert cut.value.reason is Reason.TRUNCATED
    finally:
        process.close()


def test_file_larger_than_a_pipe_goes_through(real: DecodingProcess) -> None:
    data = png() + bytes(5_000_000)
    for _ in range(2):
        assert real.decode(data, DEMAND, 30.0, never).width == 8


@pytest.mark.parametrize(
    ("does", "says"),
    [("abort", "ended by SIGABRT"), ("segfault", "ended by SIGSEGV"), ("eat", "failed: .*MemoryError")],
)
def test_death_is_named(deadly: DecodingProcess, does: str, says: str) -> None:
    assert deadly.decode(png(), DEMAND, 30.0, never).width == 8
    with pytest.raises(Died, match=says):
        deadly.decode(png() + ending(does), DEMAND, 30.0, never)
    with pytest.raises(Died):  # and it stays dead
        deadly.decode(png(), DEMAND, 30.0, never)


def test_hang_ends_in_time(deadly: DecodingProcess) -> None:
    started_s = time.monotonic()
    with pytest.raises(Died, match=r"longer than 0\.3 s"):
        deadly.decode(png() + ending("hang"), DEMAND, 0.3, never)
    assert time.monotonic() - started_s < 5.0


def test_stopped_process_is_a_hang_though_it_takes_no_bytes(real: DecodingProcess) -> None:
    os.kill(pid_of(real), signal.SIGSTOP)
    with pytest.raises(Died, match="longer than"):
        real.decode(png() + bytes(5_000_000), DEMAND, 0.3, never)


def test_who_is_told_to_end_does_not_wait_for_it(deadly: DecodingProcess) -> None:
    with pytest.raises(Interrupted):
        deadly.decode(png() + ending("hang"), DEMAND, 60.0, lambda: True)


def test_signals_to_all_processes_of_the_service_do_not_end_it(real: DecodingProcess) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(pid_of(real), number)
    assert real.decode(png(), DEMAND, 30.0, never).width == 8
    assert os.getpgid(pid_of(real)) != os.getpgid(0), "Ctrl-C in a terminal reaches the whole group"


def test_it_holds_nothing_but_its_pipes_and_can_open_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIGEONHOLED__DATABASE__URL", "postgresql+psycopg://u:secret@host/name")
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    lock = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    os.set_inheritable(lock, True)  # even so
    with closing(socket.socket()) as listening, closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        os.set_inheritable(listening.fileno(), True)
        connection.execute("CREATE TABLE t (a)")
        process = DecodingProcess()
        folder = Path(f"/proc/{pid_of(process)}")
        fds = {int(link.name): os.readlink(link) for link in (folder / "fd").iterdir()}
        standard_error = os.readlink("/proc/self/fd/2")
        assert all(name.startswith("pipe:") for name in fds.values() if name != standard_error), fds
        assert (folder / "environ").read_bytes().count(b"secret") == 0
        assert b"NOTIFY_SOCKET" not in (folder / "environ").read_bytes()
        status = (folder / "status").read_text()
        assert "NoNewPrivs:\t1" in status
        assert "Threads:\t1" in status
        limits = {line[:25].strip(): line[26:].split()[:2] for line in (folder / "limits").read_text().splitlines()[1:]}
        for name in ("Max open files", "Max core file size"):
            assert limits[name] == ["0", "0"], name
        assert limits["Max processes"][0] == "0"
        assert (folder / "oom_score_adj").read_text() == "1000\n"
        process.decode(png(), DEMAND, 30.0, never)
        process.close()
    os.close(lock)
    assert not folder.exists()


def test_it_loads_neither_networks_nor_the_service() -> None:
    program = (
        "import sys, pigeonholed.confined\n"
        "print(sorted({'tensorflow', 'keras', 'openvino', 'sqlalchemy', 'pydantic', 'structlog', 'click', 'socket'}"
        " & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_it_does_not_outlive_a_parent_that_is_killed(tmp_path: Path) -> None:
    program = (
        "import sys, time\n"
        "from pigeonholed import isolation\n"
        f"isolation.command = lambda: [sys.executable, {poisoned.__file__!r}, {poisoned.CONFINED!r}]\n"
        "from test_isolation import DEMAND, ending, never, pid_of, png\n"
        "process = isolation.DecodingProcess()\n"
        "print(pid_of(process), flush=True)\n"
        "process.decode(png() + ending('hang'), DEMAND, 60.0, never)\n"
    )
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parent.parent), *sys.path])
    parent = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert parent.stdout is not None
    assert parent.stderr is not None
    child = int(parent.stdout.readline())
    assert parent.stderr.readline().startswith(b"decode hang")
    parent.kill()
    parent.communicate()
    try:
        until(lambda: not Path(f"/proc/{child}").exists(), "its end", 10.0)
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


def test_thread_that_made_it_is_the_one_whose_end_it_does_not_survive() -> None:
    made: list[DecodingProcess] = []
    thread = threading.Thread(target=lambda: made.append(DecodingProcess()))
    thread.start()
    thread.join()
    (process,) = made
    assert process._process.wait(10) == -signal.SIGKILL
    process.close()


@pytest.mark.parametrize(
    "answer",
    [
        b'{"width": 8, "height": 8}',  # no pixels
        b'{"width": -1, "height": 8}',
        b'{"reason": "poison", "detail": "I say so"}',
        b'{"reason": "made-up", "detail": ""}',
        b"{}",
        b"[]",
        b"no json",
    ],
)
def test_nonsense_is_as_bad_as_death(monkeypatch: pytest.MonkeyPatch, answer: bytes) -> None:
    """A decoder that was taken over by a picture may answer anything."""
    program = (
        "import os\n"
        "from pigeonholed.confined import packed, unpacked\n"
        "os.write(1, packed({'ready': True}))\n"
        "read = lambda size: b''.join(os.read(0, 1) for _ in range(size))\n"
        "unpacked(read, 1 << 20)\n"
        f"os.write(1, len({answer!r}).to_bytes(4, 'big') + bytes(8) + {answer!r})\n"
    )
    monkeypatch.setattr(isolation, "command", lambda: [sys.executable, "-c", program])
    with closing(DecodingProcess()) as process, pytest.raises(Died, match="nonsense"):
        process.decode(png(), DEMAND, 30.0, never)


def test_process_that_does_not_start_is_a_fault_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "command", lambda: [sys.executable, "-c", "raise SystemExit(3)"])
    with pytest.raises(BlockingIOError, match=r"does not start: .* exit code 3"):
        DecodingProcess()
