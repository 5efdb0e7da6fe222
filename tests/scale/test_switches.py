"""Another model again and again, under load: no file is missed, no row names a model that did not make it, and neither
memory nor descriptors grow.

The suite switches 100 times; PIGEONHOLED_TEST_SOAK=1 (`make soak`) 500 times, and 30 times with Keras.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import pytest

from bundles import make_bundle
from gauges import MB, Scraped, open_files, resident_bytes, sampling, told
from pigeonholed.control import ask
from running import Running, Workspace, picture, until
from soaking import SCALE, cases, soak

SWITCHES = cases(500) if SCALE > 0 else 100
WARM_UP = 20  # switches until allocators have what they keep
SOME = 10  # switches whose memory is looked at together: one alone is noise
BATCH = 64
LABELS = {1: ("cat", "dog"), 2: ("dog", "cat")}
SAYS = {1: "cat", 2: "dog"}  # to a red picture

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800 if SCALE > 0 else 120)]


@dataclass
class Switching:
    """A daemon that files red pictures all the time, and what it held after each switch."""

    workspace: Workspace
    daemon: Running
    resident: list[int] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)

    def switch(self, turn: int, deadline_s: float = 60.0) -> float:
        """Make the other version current; how long it took until it served."""
        version = 1 + turn % 2
        started_s = time.monotonic()
        ask(self.workspace.root / "pigeonholed.sock", "use", {"name": "tiny", "version": version})
        until(lambda: self._switched() == turn, f"switch {turn}", deadline_s)
        took_s = time.monotonic() - started_s
        self.resident.append(resident_bytes(self.daemon.process.pid))
        self.descriptors.append(open_files(self.daemon.process.pid))
        return took_s

    def queued(self) -> int:
        """Pictures that wait for the model."""
        status = ask(self.workspace.root / "pigeonholed.sock", "status", {})
        return int(status["queue"]["infer"])

    def _switched(self) -> int:
        return sum(event.get("event") == "model_switched" for event in self.daemon.events())

    def growth(self) -> float:
        """Memory at the end beside that after the warm-up: 0.05 is 5 % more."""
        return median(self.resident[-SOME:]) / median(self.resident[WARM_UP : WARM_UP + SOME]) - 1


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = Workspace.make(tmp_path, listen="127.0.0.1:0")
    make_bundle(workspace.root / "second", labels=LABELS[2], publish_into=workspace.root / "models")
    (workspace.root / "models/tiny/CURRENT").write_text("1\n")
    return workspace


@contextmanager
def load(workspace: Workspace, pause_s: float) -> Iterator[None]:
    done = threading.Event()

    def drop() -> None:
        while not done.wait(pause_s):
            serial = len(workspace.dropped)
            workspace.drop(f"{serial}.png", picture(220, 60, 40, serial))

    thread = threading.Thread(target=drop)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def finish(switching: Switching) -> Scraped:
    """Let all be filed and the daemon end; what it said last."""
    workspace, daemon = switching.workspace, switching.daemon
    until(lambda: workspace.filed() == len(workspace.dropped), "all to be filed", 60)
    until(lambda: Scraped.of(daemon.fetch("/metrics")[1]).total("in_flight_files") == 0, "the books to be closed")
    at = Scraped.of(daemon.fetch("/metrics")[1])
    assert daemon.terminate() == 0
    return at


def answers(workspace: Workspace) -> dict[int, str]:
    with closing(sqlite3.connect(f"file:{workspace.database}?mode=ro", uri=True)) as connection:
        rows = connection.execute("SELECT DISTINCT model_version, label FROM images").fetchall()
    assert len(dict(rows)) == len(rows), rows
    return dict(rows)


def each_queue(look: Callable[[], int]) -> Callable[[], float]:
    return lambda: float(look())


def test_switches_under_load_name_the_version_that_answered_and_leave_nothing_behind(workspace: Workspace) -> None:
    with workspace.serving() as daemon:
        daemon.await_event("service_ready")
        switching = Switching(workspace, daemon)
        with load(workspace, pause_s=0.004), sampling(each_queue(switching.queued), every_s=0.02) as queue:
            slowest_s = max(switching.switch(turn) for turn in range(1, SWITCHES + 1))
        at = finish(switching)
    told(
        f"{SWITCHES} switches",
        files=len(workspace.dropped),
        slowest_s=round(slowest_s, 2),
        most_queued=round(queue.most),
        resident_mb=[round(size / MB) for size in switching.resident[:: max(1, SWITCHES // 10)]],
        growth=f"{switching.growth():.1%}",
        descriptors=(min(switching.descriptors[WARM_UP:]), max(switching.descriptors[WARM_UP:])),
    )
    assert workspace.audit() == []
    assert answers(workspace) == SAYS
    assert at.faults() == []
    assert queue.most <= BATCH, "more than a batch waited for the model"
    assert switching.growth() <= 0.05
    # The least of some: connections of the moment come and go.
    assert min(switching.descriptors[-SOME:]) <= min(switching.descriptors[WARM_UP : WARM_UP + SOME])


@soak
def test_switches_with_keras_take_seconds_and_bounded_memory(workspace: Workspace) -> None:
    workspace.config.write_text(workspace.config.read_text() + '[runtime]\nkind = "keras"\ndevice = "cpu"\n')
    with workspace.serving() as daemon:
        daemon.await_event("service_ready", 120)
        switching = Switching(workspace, daemon)
        with_trial_s = switching.switch(1)
        with load(workspace, pause_s=0.02):
            times_s = [switching.switch(turn) for turn in range(2, 31)]
        at = finish(switching)
    grown = switching.resident[-1] - switching.resident[0]
    told(
        "30 switches with Keras",
        with_trial_s=round(with_trial_s, 1),
        median_s=round(median(times_s), 2),
        resident_mb=[round(size / MB) for size in switching.resident[::3]],
        each_mb=round(grown / MB / 29, 1),
        descriptors=(min(switching.descriptors), max(switching.descriptors)),
    )
    assert workspace.audit() == []
    assert answers(workspace) == SAYS
    assert at.faults() == []
    assert with_trial_s < 10
    assert grown <= 150 * MB
