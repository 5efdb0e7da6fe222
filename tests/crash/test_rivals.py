"""Three services for one inbox, output and database, as on three hosts with a disk in common: one at a time serves.

Each has a state folder of its own and is started anew whenever it ends, as a service manager does. Meanwhile whichever
serves is killed, stopped for a while or told to end, connections are cut off, and the server of the database dies.
PIGEONHOLED_TEST_SOAK=1 (`make soak`): a thousand faults and fifty thousand arrivals.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

import pytest

from arrivals import drop_some
from forking import Forker, forking
from gauges import told
from running import Workspace, environment, until
from servers import HURRIED, SOON, OwnServer, own_server
from soaking import SCALE, SEED, cases

FAULTS = cases(1000) if SCALE > 0 else 8
ARRIVALS = 50 * FAULTS
SERVER_EVERY_S = 20.0 if SCALE > 0 else 3.0
STOPPED_S = 3.0
AGAIN_S = 0.3  # until an ended service is started anew
HARMS = ("killed", "cut off", "killed", "stopped", "killed", "cut off", "killed", "told to end")
ENDS = {0, 69, -signal.SIGKILL}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300 + 30 * FAULTS)]


@dataclass
class Host:
    """One of those that compete: its folder, and the service there, which is started again and again."""

    root: Path
    forker: Forker
    pid: int = 0
    ends: Counter[int] = field(default_factory=Counter)
    served: int = 0
    findings: list[str] = field(default_factory=list)
    leaving: threading.Event = field(default_factory=threading.Event)

    def live(self) -> None:
        """Serve, or try to, until it is to leave."""
        while not self.leaving.is_set():
            self.pid = self.forker.start(self.root, patched=SOON | HURRIED)
            ended = self.forker.end(self.root, self.pid)
            self.pid = 0
            (self.root / "daemon.log").unlink()
            self.ends[ended.code] += 1
            self.served += '"service_ready"' in ended.log
            unborn = ended.code == -signal.SIGTERM and not ended.log  # it knew no signals yet
            if (ended.code not in ENDS and not unborn) or "Traceback" in ended.log or '"file_lost"' in ended.log:
                self.findings.append(f"it ended with {ended.code}: {ended.log[-3000:]}")
            self.leaving.wait(AGAIN_S)

    def serves(self) -> bool:
        """Whether it is the one."""
        with suppress(FileNotFoundError):  # it ends at this moment
            return self.pid > 0 and Workspace(self.root).is_ready()
        return False

    def send(self, number: int) -> None:
        """A signal, if a service is there."""
        if pid := self.pid:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


@contextmanager
def competing(workspace: Workspace, folder: Path, count: int) -> Iterator[list[Host]]:
    """Services for what a workspace has, each in a folder of its own; at the end they are told to end."""
    text = workspace.config.read_text()
    for name in ("inbox", "sorted"):
        text = text.replace(f'"{name}"', f'"{workspace.root / name}"')
    text += f'[models]\ndir = "{workspace.root / "models"}"\n'
    with ExitStack() as stack:
        hosts = [
            Host(folder / f"host-{number}", stack.enter_context(forking(environment()))) for number in range(count)
        ]
        lives = [threading.Thread(target=host.live, daemon=True) for host in hosts]
        for host, life in zip(hosts, lives, strict=True):
            host.root.mkdir()
            (host.root / "pigeonholed.toml").write_text(text)
            life.start()
        try:
            yield hosts
        finally:
            for host in hosts:
                host.leaving.set()
                host.send(signal.SIGCONT)
                host.send(signal.SIGTERM)
            for life in lives:
                life.join(120)
                assert not life.is_alive()


def test_one_at_a_time_serves_and_whoever_is_next_goes_on(tmp_path: Path) -> None:
    moments, harms = random.Random(SEED), cycle(HARMS)
    number, faults, died_at_s = 0, Counter[str](), time.monotonic()
    with own_server() as server:
        workspace = Workspace.make(tmp_path / "work", more="[batching]\nmax_batch_size = 8\n", url=server.make())
        with competing(workspace, tmp_path, 3) as hosts:
            while faults.total() < FAULTS:
                hosts_that_serve = until(lambda: [host for host in hosts if host.serves()], "one to serve", 120.0)
                assert isinstance(hosts_that_serve, list)
                while number < ARRIVALS * (faults.total() + 1) / FAULTS:
                    number += drop_some(workspace, moments, number)
                    time.sleep(0.005)  # names that are taken are free again when they are filed
                time.sleep(moments.uniform(0.0, 0.4))  # at any moment of its work
                if time.monotonic() - died_at_s > SERVER_EVERY_S:
                    server.stop("immediate")
                    server.start()
                    died_at_s = time.monotonic()
                    faults["server dies"] += 1
                else:
                    fault = next(harms)
                    _harm(hosts_that_serve[0], fault, server, workspace)
                    faults[fault] += 1
            until(lambda: workspace.filed() >= len(workspace.dropped), "all to be filed", 300.0)
        assert workspace.run("run", "--once").returncode == 0
        findings = [finding for host in hosts for finding in host.findings]
        ends = sum((host.ends for host in hosts), Counter[int]())
        served = [host.served for host in hosts]
        told("three services", faults=dict(faults), arrivals=number, served=served, ends=dict(ends))
        assert workspace.audit() == []
        assert findings == []
        assert sum(served) > FAULTS / 3
        assert sum(count > 0 for count in served) >= 2


def _harm(host: Host, fault: str, server: OwnServer, workspace: Workspace) -> None:
    """What happens to the one that serves."""
    if fault == "killed":
        host.send(signal.SIGKILL)
    elif fault == "stopped":
        host.send(signal.SIGSTOP)
        time.sleep(STOPPED_S)
        host.send(signal.SIGCONT)
    elif fault == "told to end":
        host.send(signal.SIGTERM)
    else:
        assert workspace.url is not None
        server.cut_off(workspace.url)
