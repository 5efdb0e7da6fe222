"""Idle: what the service costs while nothing arrives, with few and with many files that are not for it."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import processes
from workload import Model, Workspace

_CALM_SHARE = 0.05
_CALM_STEP_S = 0.5
_CALM_WITHIN_S = 60.0


def measure(folder: Path, model: Model, ignored: int, window_s: float) -> dict[str, Any]:
    """CPU share of one core over `window_s`, with `ignored` half-written files in the inbox.

    The window begins when the service has come to rest after its first scan, so that one of 30 s, the default time
    between two scans, holds one scan.
    """
    workspace = Workspace.make(folder / "idle", model)
    try:
        for index in range(ignored):
            with open(workspace.inbox / f"thumb-{index:06d}.jpg.part", "wb"):
                pass
        with processes.serving(workspace) as service:
            waited_s = _await_calm(service)
            spent_s, started_s, busy_s = processes.cpu_s(service.pid), time.monotonic(), processes.machine_cpu_s()
            time.sleep(window_s)
            wall_s = time.monotonic() - started_s
            used_s = processes.cpu_s(service.pid) - spent_s
            others_s = processes.machine_cpu_s() - busy_s - used_s
    finally:
        shutil.rmtree(workspace.root)
    return {
        "ignored_files": ignored,
        "window_s": round(wall_s, 1),
        "came_to_rest_s": round(waited_s, 1),
        "cpu_ms": round(used_s * 1000, 1),
        "core_percent": round(100 * used_s / wall_s, 3),
        "others_cores": round(max(0.0, others_s) / wall_s, 3),
    }


def _await_calm(service: subprocess.Popen[bytes]) -> float:
    started_s = time.monotonic()
    while time.monotonic() - started_s < _CALM_WITHIN_S:
        spent_s = processes.cpu_s(service.pid)
        time.sleep(_CALM_STEP_S)
        if processes.cpu_s(service.pid) - spent_s < _CALM_SHARE * _CALM_STEP_S:
            break
    return time.monotonic() - started_s
