"""A burst of files, of most of which no event tells: the kernel's queue of events holds 64.

The suite drops 2,000 files; PIGEONHOLED_TEST_SOAK=1 (`make soak`) drops 100,000 within a minute.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from gauges import MB, Scraped, sampling_family, told
from kernel import shortened_event_queue
from running import Workspace, until
from soaking import SCALE, cases

FILES = cases(100_000) if SCALE > 0 else 2_000
FOLDERS = 100  # watched from the start
STOPPED = 0.25  # for this share of the burst nobody reads the queue
WITHIN_S = 60.0
MOST_MEMORY = 300 * MB


def pictures(count: int) -> Iterator[bytes]:
    """PNGs of 8x8, red and blue ones, no two alike."""
    pixels = np.empty((8, 8, 3), np.uint8)
    for serial in range(count):
        pixels[:] = ((40, 60, 220), (220, 60, 40))[serial % 2]
        pixels[0, 0] = serial & 255, serial >> 8 & 255, serial >> 16
        yield cv2.imencode(".png", pixels)[1].tobytes()


@pytest.mark.slow
@pytest.mark.timeout(1800 if SCALE > 0 else 120)
@pytest.mark.parametrize(
    "queue", [64, pytest.param(16_384, marks=pytest.mark.skipif(SCALE <= 0, reason="`make soak` runs it"))]
)
def test_burst_is_filed_though_most_events_are_dropped(tmp_path: Path, queue: int) -> None:
    workspace = Workspace.make(tmp_path, settle_s=0.2, listen="127.0.0.1:0")
    workspace.forks = False  # its memory is looked at
    # Beyond the patience of this test, so that it is the overflow that makes the daemon scan.
    workspace.config.write_text(workspace.config.read_text().replace("rescan_s = 0.5", "rescan_s = 3600"))
    for folder in range(FOLDERS):
        (workspace.inbox / str(folder)).mkdir()
    burst = list(pictures(FILES))
    with shortened_event_queue(queue), workspace.serving() as daemon:
        daemon.await_event("service_ready")
        pid = daemon.process.pid
        with sampling_family(pid) as memory:
            until(lambda: len(memory.seen) > 3, "memory at rest")
            base = memory.most
            os.kill(pid, signal.SIGSTOP)
            started_s = time.monotonic()
            for serial, data in enumerate(burst):
                if serial == round(FILES * STOPPED):
                    os.kill(pid, signal.SIGCONT)
                assert workspace.drop(f"{serial % FOLDERS}/{serial}.png", data)
            dropped_s = time.monotonic() - started_s
            until(lambda: workspace.filed() == FILES, "all to be filed", 20 + FILES / 100, every_s=0.5)
            took_s = time.monotonic() - started_s
        at = Scraped.of(daemon.fetch("/metrics")[1])
        assert daemon.terminate() == 0
    told(
        f"burst of {FILES}, event queue {queue}",
        dropped_in_s=round(dropped_s, 1),
        filed_in_s=round(took_s, 1),
        overflows=at.total("event_queue_overflows_total"),
        base_mb=round(base / MB),
        most_mb=round(memory.most / MB),
    )
    assert dropped_s <= WITHIN_S
    assert at.total("event_queue_overflows_total") > 0
    assert (at.total("images_processed_total"), at.faults()) == (FILES, [])
    assert memory.most - base <= MOST_MEMORY
    assert workspace.audit() == []
