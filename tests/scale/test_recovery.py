"""Many files in flight when the daemon is killed: the next start is ready soon, and files them all.

The suite has 500 of them; PIGEONHOLED_TEST_SOAK=1 (`make soak`) has 10,000.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

import staged
from gauges import Scraped, counted, told
from running import HOSTILE, OTHER_MOUNT, RENAMING, Variant, Workspace, picture, until, working
from soaking import SCALE, cases

STAGED = cases(10_000) if SCALE > 0 else 500
READY_WITHIN_S = 15.0
LONG = pytest.mark.skipif(SCALE <= 0, reason="`make soak` runs it")
_HELD_UP = "[batching]\nmax_batch_size = {half}\nmax_wait_s = 60\nmax_decode_s = 3600\n"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800 if SCALE > 0 else 120)]


class Stage(Workspace):
    """A workspace whose daemon can be held up."""

    forks = False
    held_up = True

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, staged.__file__, *arguments] if self.held_up else super().command(*arguments)


@dataclass
class Killed:
    """A workspace whose daemon was killed with everything in flight, and the statuses of its rows."""

    workspace: Stage
    statuses: dict[str, int]


@contextmanager
def killed(tmp_path: Path, variant: Variant, *, half_planned: bool) -> Iterator[Killed]:
    with working(tmp_path, variant, listen="127.0.0.1:0") as made:
        stage = Stage(made.root, variant=variant, mount=made.mount)
        plain = stage.config.read_text()
        stage.config.write_text(plain + _HELD_UP.format(half=STAGED // 2))
        for serial in range(STAGED):
            stage.drop(f"{serial % 10}/{serial}.png", picture(220, 60, 40, serial, size=8))
        waiting = "ingested" if variant is not RENAMING else "claimed"
        with stage.serving() as daemon:
            daemon.await_event("service_ready", 60)
            until(lambda: stage.statuses().count(waiting) == STAGED, "all to be taken", 120, every_s=0.2)
            if half_planned:
                (stage.root / staged.GATE).touch()
            else:
                daemon.process.kill()
            assert daemon.process.wait(120) == -signal.SIGKILL
        stage.config.write_text(plain)
        stage.held_up = False
        yield Killed(stage, counted(stage.statuses()))


@pytest.mark.parametrize("half_planned", [pytest.param(False, marks=LONG, id="claimed"), pytest.param(True, id="half")])
@pytest.mark.parametrize("variant", [RENAMING, HOSTILE, pytest.param(OTHER_MOUNT, marks=LONG)], ids=str)
def test_thousands_in_flight_are_taken_up_and_the_daemon_is_ready_soon(
    tmp_path: Path, variant: Variant, half_planned: bool
) -> None:
    with killed(tmp_path, variant, half_planned=half_planned) as after:
        workspace = after.workspace
        assert sum(after.statuses.values()) == STAGED
        assert after.statuses.get("planned", 0) == (STAGED // 2 if half_planned else 0)
        started_s = time.monotonic()
        with workspace.serving() as daemon:
            daemon.await_event("service_ready", 120)
            ready_s = time.monotonic() - started_s
            until(lambda: workspace.filed() == STAGED, "all to be filed", 30 + STAGED / 50, every_s=0.2)
            filed_s = time.monotonic() - started_s
            at = Scraped.of(daemon.fetch("/metrics")[1])
            assert daemon.terminate() == 0
        told(f"{STAGED} in flight, {variant}", **after.statuses, ready_s=round(ready_s, 1), filed_s=round(filed_s, 1))
        assert (at.total("resumed_files_total"), at.faults()) == (STAGED, [])
        assert ready_s <= READY_WITHIN_S
        assert workspace.audit() == []
