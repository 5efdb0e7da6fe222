"""kill -9 at random moments under load: nothing lost, nothing twice, nobody blamed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mounts import another_mount
from running import Workspace, environment, picture

KILLS = int(os.environ.get("PIGEONHOLED_TEST_KILLS", "50"))
# By custody: lines of its inbox in the configuration, and its share of the kills.
CUSTODIES = {
    "renaming": ("", 1.0),
    "hostile": ("hostile = true", 0.2),
    "other-mount": ("", 0.2),
    "copy": ('action = "copy"', 0.2),
}
FORKER = Path(__file__).with_name("forker.py")


class Forker:
    """Daemons that start in a tenth of a second."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._process = subprocess.Popen(
            [sys.executable, str(FORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
        )

    def ask(self, line: str) -> int:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def start(self) -> int:
        return self.ask(f"start {self._workspace.config} {self._workspace.root / 'daemon.log'}")

    def kill(self, pid: int) -> None:
        """Kill a daemon that is alive."""
        os.kill(pid, signal.SIGKILL)
        code = self.ask(f"reap {pid}")
        log = self._workspace.root / "daemon.log"
        assert code == -signal.SIGKILL, f"the daemon had ended by itself with {code}: {log.read_text()[-3000:]}"

    def close(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


@pytest.fixture(params=CUSTODIES)
def custody(request: pytest.FixtureRequest) -> str:
    """How files come into the daemon's hands."""
    return str(request.param)


@pytest.fixture
def workspace(tmp_path: Path, custody: str) -> Iterator[Workspace]:
    workspace = Workspace.make(tmp_path, of_inbox=CUSTODIES[custody][0], keeps=custody == "copy")
    if custody == "other-mount":
        with another_mount(tmp_path) as folder:
            workspace.move_inbox(folder / "inbox")
            yield workspace
    else:
        yield workspace


@pytest.fixture
def forker(workspace: Workspace) -> Iterator[Forker]:
    forker = Forker(workspace)
    yield forker
    forker.close()


@pytest.mark.slow
@pytest.mark.timeout(max(240, KILLS * 5))
def test_kill_at_random_moments_loses_nothing_and_files_nothing_twice(
    workspace: Workspace, custody: str, forker: Forker
) -> None:
    kills = max(1, int(KILLS * CUSTODIES[custody][1]))
    seed = int(os.environ.get("PIGEONHOLED_TEST_SEED", str(random.SystemRandom().randrange(10**6))))
    print(f"PIGEONHOLED_TEST_SEED={seed}")
    moments = random.Random(seed)
    number = 0
    for _ in range(kills):
        pid = forker.start()
        ends_s = time.monotonic() + moments.uniform(0.05, 0.9)
        while time.monotonic() < ends_s:
            number += _drop_some(workspace, moments, number)
            time.sleep(moments.uniform(0, 0.03))  # load, not waiting: arrivals come in bursts and pauses
        forker.kill(pid)
    done = workspace.run("run", "--once", timeout_s=120)
    assert done.returncode == 0, (seed, done.stderr[-3000:])
    assert workspace.audit() == [], seed
    assert len(workspace.dropped) == number > kills * 5


def _drop_some(workspace: Workspace, moments: random.Random, number: int) -> int:
    """A burst of files: names that clash, sub-folders, pictures that are none."""
    dropped = 0
    for serial in range(number, number + moments.randint(1, 12)):
        name = f"{moments.choice(['', 'a/', 'a/b/'])}{moments.randrange(60)}.png"
        if serial % 10 == 9:
            data = moments.choice([b"no picture %d", b"\x89PNG\r\n\x1a\nbroken %d"]) % serial
        else:
            data = picture(moments.choice([40, 120, 220]), 60, moments.choice([40, 120, 220]), serial)
        dropped += workspace.drop(name, data)
    return dropped
