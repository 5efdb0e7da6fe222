"""Files of which no event tells are found by scans: how long that takes, at most.

The suite scans every second; PIGEONHOLED_TEST_SOAK=1 (`make soak`) as often as the daemon does by itself, for minutes.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from gauges import filed_at, percentile, told
from pigeonholed.settings import InboxSettings
from running import Workspace, picture, until
from soaking import SCALE, SEED

RESCAN_S = InboxSettings.model_fields["rescan_s"].default if SCALE > 0 else 1.0
SCANS = 10 if SCALE > 0 else 3
A_SCAN = 10  # files
SPARE_S = 10.0  # to be decoded, classified and filed on a machine that is busy: it is the wait that is judged


@pytest.mark.slow
@pytest.mark.timeout(60 + 3 * SCANS * RESCAN_S)
def test_files_without_an_event_are_filed_after_the_next_scan(tmp_path: Path) -> None:
    workspace = Workspace.make(tmp_path)
    text = workspace.config.read_text()
    workspace.config.write_text(text.replace("rescan_s = 0.5", f'rescan_s = {RESCAN_S}\nwatch = "poll"'))
    moments = random.Random(SEED)
    dropped_at = {}
    with workspace.serving() as daemon:
        daemon.await_event("service_ready")
        for serial in range(SCANS * A_SCAN):
            time.sleep(moments.uniform(0, 2 * RESCAN_S / A_SCAN))  # at any moment between two scans
            name = f"{serial}.png"
            dropped_at[name] = time.time()
            workspace.drop(name, picture(220, 60, 40, serial))
        until(lambda: workspace.filed() == len(dropped_at), "all to be filed", RESCAN_S + 30)
        assert daemon.terminate() == 0
    filed = filed_at(workspace.database)
    waits_s = [filed[name] - at_s for name, at_s in dropped_at.items()]
    told(
        f"no events, a scan every {RESCAN_S:g} s",
        files=len(waits_s),
        p50_s=round(percentile(waits_s, 50), 1),
        most_s=round(max(waits_s), 1),
    )
    assert workspace.audit() == []
    assert RESCAN_S / 2 < max(waits_s) < RESCAN_S + SPARE_S  # it was scans that found them, and the next one
