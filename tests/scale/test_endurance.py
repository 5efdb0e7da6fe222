"""A long time under load with a fault every ten seconds: nothing is lost, and nothing grows.

`make endurance` runs it for two hours (ENDURE_S=600: ten minutes). PIGEONHOLED_TEST_ENDURANCE_S is that time, and
PIGEONHOLED_TEST_ENDURANCE_RATE how many files are dropped in a second. The suite leaves it out.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

import pytest

from arrivals import arriving
from bundles import make_bundle
from gauges import MB, Record, Scraped, filed_at, open_files, percentile, resident_bytes, sampling, told
from pigeonholed.control import ask
from running import Running, Workspace, picture, until

SECONDS = float(os.environ.get("PIGEONHOLED_TEST_ENDURANCE_S", "0"))
RATE_PER_S = float(os.environ.get("PIGEONHOLED_TEST_ENDURANCE_RATE", "100"))
EVERY_S = 10.0
PAUSED_S = 3.0
LOCKED_S = 6.0  # longer than SQLite waits by itself, which is 5 s
LONG_S = 3600.0  # from then on slopes mean something
KILLING = 1 / 3  # kills come in this share of the time; what is left is one life, whose memory is watched
WARM_UP = 1 / 9  # of the time, from the last kill on: allocators take what they keep

pytestmark = [
    pytest.mark.skipif(SECONDS <= 0, reason="`make endurance` runs it"),
    pytest.mark.timeout(SECONDS * 2 + 1200),
]


@dataclass
class Ordeal:
    """A daemon that files what comes, and what happens to it."""

    workspace: Workspace
    dropped_at: dict[str, float] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    daemon: Running = field(init=False)
    _life: ExitStack = field(default_factory=ExitStack)
    _versions: Iterator[int] = field(default_factory=lambda: cycle((2, 1)))

    def begin(self) -> None:
        """A new life, after whatever ended the one before."""
        self._life.close()
        self.daemon = self._life.enter_context(self.workspace.serving())
        self._await_ready(1)

    def end(self) -> None:
        assert self.daemon.terminate(60) == 0
        self._life.close()

    def kill(self) -> None:
        """-9, and another life."""
        self.daemon.process.kill()
        self.daemon.process.wait()
        self.begin()

    def pause(self) -> None:
        """As a virtual machine is frozen."""
        os.kill(self.daemon.process.pid, signal.SIGSTOP)
        time.sleep(PAUSED_S)
        os.kill(self.daemon.process.pid, signal.SIGCONT)

    def switch(self) -> None:
        """Another version of the model."""
        ask(self.workspace.root / "pigeonholed.sock", "use", {"name": "tiny", "version": next(self._versions)})

    def reload(self) -> None:
        """A changed configuration: the whole pipeline is built anew."""
        text = self.workspace.config.read_text()
        now, then = ("0.5", "0.6") if "rescan_s = 0.5" in text else ("0.6", "0.5")
        self.workspace.config.write_text(text.replace(f"rescan_s = {now}", f"rescan_s = {then}"))
        ready = self._ready()
        self.daemon.process.send_signal(signal.SIGHUP)
        self._await_ready(ready + 1)

    def lock(self) -> None:
        """Somebody else writes to the database."""
        with closing(sqlite3.connect(self.workspace.database, isolation_level=None, timeout=60)) as other:
            other.execute("BEGIN IMMEDIATE")
            time.sleep(LOCKED_S)
            other.execute("ROLLBACK")

    def _ready(self) -> int:
        return sum(event["event"] == "service_ready" for event in self.daemon.events())

    def _await_ready(self, times: int) -> None:
        until(lambda: self._ready() >= times, "the service to be ready", 120, every_s=0.2)

    def drop(self, serial: int) -> None:
        """A picture, or what is none."""
        data = b"no picture %d" % serial if serial % 50 == 7 else picture(220, 60, 40, serial)
        name = f"{serial % 20}/{serial}.png"
        self.dropped_at[name] = time.time()
        self.workspace.drop(name, data)

    def suffer(self) -> float:
        """A fault every ten seconds, all kinds in turn; when the last life began, in seconds from the start."""
        started_s = time.monotonic()
        last_life_s = 0.0
        for turn, fault in enumerate(cycle((self.kill, self.pause, self.switch, self.reload, self.lock))):
            at_s = started_s + (turn + 1) * EVERY_S
            if at_s > started_s + SECONDS:
                return last_life_s
            until(lambda at_s=at_s: time.monotonic() >= at_s, "the next fault", SECONDS, every_s=0.1)  # type: ignore[misc]
            if fault == self.kill:
                if at_s > started_s + SECONDS * KILLING:
                    continue
                last_life_s = time.monotonic() - started_s
            fault()
            self.faults.append(fault.__name__)
        raise AssertionError

    def delays_s(self) -> list[float]:
        """From the drop of each file until it was filed, in order of the drops."""
        filed = filed_at(self.workspace.database)
        return [filed[path] - at_s for path, at_s in self.dropped_at.items()]


def test_faults_for_a_long_time_lose_nothing_and_leave_nothing_behind(tmp_path: Path) -> None:
    workspace = Workspace.make(tmp_path, listen="127.0.0.1:0", new=True)
    workspace.forks = False  # its memory is looked at
    make_bundle(workspace.root / "second", publish_into=workspace.root / "models")
    ordeal = Ordeal(workspace)
    ordeal.begin()
    wal = workspace.root / "pigeonholed.db-wal"
    with (
        sampling(lambda: resident_bytes(ordeal.daemon.process.pid), 0.5) as memory,
        sampling(lambda: _or_zero(ordeal.daemon.process.pid), 0.5) as descriptors,
        sampling(lambda: wal.stat().st_size if wal.exists() else 0, 0.5) as journal,
    ):
        with arriving(ordeal.drop, RATE_PER_S):
            last_life_s = ordeal.suffer()
        until(lambda: workspace.filed() == len(workspace.dropped), "all to be filed", 120, every_s=0.5)
    at = Scraped.of(ordeal.daemon.fetch("/metrics")[1])
    ordeal.end()
    delays_s = ordeal.delays_s()
    watched_s = last_life_s + SECONDS * WARM_UP
    memory_slope, descriptor_slope = memory.slope_per_h(watched_s) / MB, descriptors.slope_per_h(watched_s)
    told(
        f"{SECONDS:g} s, {RATE_PER_S:g} files/s",
        files=len(workspace.dropped),
        faults={name: ordeal.faults.count(name) for name in sorted(set(ordeal.faults))},
        watched_from_s=round(watched_s),
        resident_mb=_tenths(memory, watched_s),
        mb_per_h=round(memory_slope, 1),
        descriptors=_tenths(descriptors, watched_s, 1),
        descriptors_per_h=round(descriptor_slope, 1),
        most_wal_mb=round(journal.most / MB, 1),
        p50_s=round(percentile(delays_s, 50), 2),
        p99_s=[round(percentile(part, 99), 2) for part in _thirds(delays_s)],
        most_s=round(max(delays_s), 1),
    )
    assert workspace.audit() == []
    assert at.faults() == []
    assert journal.most <= 64 * MB
    assert max(descriptors.between(watched_s, SECONDS)) <= min(descriptors.between(watched_s, SECONDS)) + 30
    if SECONDS >= LONG_S:
        assert memory_slope < 1
        assert abs(descriptor_slope) < 1


def _or_zero(pid: int) -> float:
    try:
        return open_files(pid)
    except OSError:
        return 0.0  # between two lives


def _tenths(record: Record, start_s: float, unit: int = MB) -> list[int]:
    """The median of each tenth of what was watched."""
    step_s = (record.at_s[-1] - start_s) / 10
    parts = (record.between(start_s + n * step_s, start_s + (n + 1) * step_s) for n in range(10))
    return [round(percentile(part, 50) / unit) for part in parts if part]


def _thirds(values: list[float]) -> list[list[float]]:
    size = len(values) // 3
    return [values[:size], values[size : 2 * size], values[2 * size :]]
