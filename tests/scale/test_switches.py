"""Another model again and again, under load: no file is missed, no row names a model that did not make it, and neither
memory nor descriptors grow.

The suite switches 60 times; PIGEONHOLED_TEST_SOAK=1 (`make soak`) 500 times, and 30 times with Keras.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import pytest

from arrivals import arriving
from bundles import make_bundle
from gauges import MB, Scraped, filed_at, open_files, percentile, resident_bytes, told
from pigeonholed.control import ask
from running import Running, Workspace, picture, until
from soaking import SCALE, cases, soak

SWITCHES = cases(500) if SCALE > 0 else 60
WARM_UP_FILES = cases(10_000) if SCALE > 0 else 500  # until caches and allocators have what they keep
WARM_UP = 20  # switches, for the same
SOME = (SWITCHES - WARM_UP) // 4  # switches that are looked at together: one alone is noise
MOST_GROWTH = 0.05 if SCALE > 0 else 0.1  # over few switches the noise of allocators is most of it
QUIET_S = SWITCHES / 50  # load without a switch, to compare with
LABELS = {1: ("cat", "dog"), 2: ("dog", "cat")}
SAYS = {1: "cat", 2: "dog"}  # to a red picture

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800 if SCALE > 0 else 120)]


@dataclass
class Switching:
    """A daemon that files red pictures all the time, and what it held after each switch."""

    workspace: Workspace
    daemon: Running
    dropped_at: dict[str, float] = field(default_factory=dict)
    resident: list[int] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)

    def drop(self, _serial: int = 0) -> None:
        """One more picture, whatever was dropped before."""
        serial = len(self.workspace.dropped)
        data = picture(220, 60, 40, serial)
        self.dropped_at[f"{serial}.png"] = time.time()
        self.workspace.drop(f"{serial}.png", data)

    def await_all(self) -> None:
        until(lambda: self.workspace.filed() == len(self.workspace.dropped), "all to be filed", 120, every_s=0.05)

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

    def finish(self) -> Scraped:
        """Let all be filed and the daemon end; what it said last."""
        self.await_all()
        until(lambda: Scraped.of(self.daemon.fetch("/metrics")[1]).total("in_flight_files") == 0, "the last batch")
        at = Scraped.of(self.daemon.fetch("/metrics")[1])
        assert self.daemon.terminate() == 0
        return at

    def delays_s(self, first: int, end: int) -> list[float]:
        """From the drop of files until they were filed, by their numbers."""
        filed = filed_at(self.workspace.database)
        return [filed[name] - self.dropped_at[name] for name in (f"{serial}.png" for serial in range(first, end))]

    def growth(self) -> float:
        """The most memory at the end beside the most after the warm-up: 0.05 is 5 % more."""
        return max(self.resident[-SOME:]) / max(self.resident[WARM_UP : WARM_UP + SOME]) - 1

    def tenths_mb(self) -> list[int]:
        """Memory in each tenth of the time."""
        step = len(self.resident) // 10
        return [round(median(self.resident[at : at + step]) / MB) for at in range(0, 10 * step, step)]

    def _switched(self) -> int:
        return sum(event.get("event") == "model_switched" for event in self.daemon.events())


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = Workspace.make(tmp_path, listen="127.0.0.1:0")
    workspace.forks = False  # its memory is looked at
    make_bundle(workspace.root / "second", labels=LABELS[2], publish_into=workspace.root / "models")
    (workspace.root / "models/tiny/CURRENT").write_text("1\n")
    return workspace


def answers(workspace: Workspace) -> dict[int, str]:
    """What each version said; fails where one said two things."""
    found = workspace.rows("SELECT DISTINCT model_version, label FROM images")
    rows = [(row["model_version"], row["label"]) for row in found]
    assert len(dict(rows)) == len(rows), rows
    return dict(rows)


def test_switches_under_load_name_the_version_that_answered_and_leave_nothing_behind(workspace: Workspace) -> None:
    with workspace.serving() as daemon:
        daemon.await_event("service_ready")
        switching = Switching(workspace, daemon)
        for _ in range(WARM_UP_FILES):
            switching.drop()
        switching.await_all()
        with arriving(switching.drop, 200):
            quiet_ends_s = time.monotonic() + QUIET_S
            until(lambda: time.monotonic() >= quiet_ends_s, "the quiet to end", 2 * QUIET_S)
            quiet_ends = len(workspace.dropped)
            slowest_s = max(switching.switch(turn) for turn in range(1, SWITCHES + 1))
        at = switching.finish()
    quiet_s = percentile(switching.delays_s(WARM_UP_FILES, quiet_ends), 99)
    busy_s = percentile(switching.delays_s(quiet_ends, len(workspace.dropped)), 99)
    told(
        f"{SWITCHES} switches",
        files=len(workspace.dropped) - quiet_ends,
        slowest_s=round(slowest_s, 2),
        p99_delay_without_s=round(quiet_s, 2),
        p99_delay_s=round(busy_s, 2),
        resident_mb=switching.tenths_mb(),
        growth=f"{switching.growth():.1%}",
        descriptors=(min(switching.descriptors[WARM_UP:]), max(switching.descriptors[WARM_UP:])),
    )
    assert workspace.audit() == []
    assert answers(workspace) == SAYS
    assert at.faults() == []
    if SCALE > 0:  # a machine that does other things meanwhile says nothing about delays
        assert busy_s <= 3 * quiet_s + 0.5
    assert switching.growth() <= MOST_GROWTH
    # The least of some: connections of the moment come and go.
    assert min(switching.descriptors[-SOME:]) <= min(switching.descriptors[WARM_UP : WARM_UP + SOME])


@soak
def test_switches_with_keras_take_seconds_and_bounded_memory(workspace: Workspace) -> None:
    workspace.config.write_text(workspace.config.read_text() + '[runtime]\nkind = "keras"\ndevice = "cpu"\n')
    with workspace.serving() as daemon:
        daemon.await_event("service_ready", 120)
        switching = Switching(workspace, daemon)
        with_trial_s = switching.switch(1)
        with arriving(switching.drop, 50):
            times_s = [switching.switch(turn) for turn in range(2, 31)]
        at = switching.finish()
    grown = switching.resident[-1] - switching.resident[0]
    told(
        "30 switches with Keras",
        with_trial_s=round(with_trial_s, 1),
        median_s=round(median(times_s), 2),
        resident_mb=switching.tenths_mb(),
        each_mb=round(grown / MB / 29, 1),
        descriptors=(min(switching.descriptors), max(switching.descriptors)),
    )
    assert workspace.audit() == []
    assert answers(workspace) == SAYS
    assert at.faults() == []
    assert with_trial_s < 10
    assert grown <= 150 * MB
