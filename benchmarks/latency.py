"""Latency: from the closing of a file in an idle inbox until it is filed, on disk and in the database."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import processes
from workload import Model, Pictures, Workspace

# One destination for each file, whatever the model says of it: so it is known where to look.
_INBOX = 'template = "{inbox}/{name}"\nmin_confidence = 0.0'
_BURST = 20
_BURST_STEP_S = 0.05
_PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Latency:
    """Drops files into an idle inbox of a running service."""

    folder: Path
    model: Model
    pictures: Pictures

    def measure(self, singles: int, bursts: int) -> dict[str, Any]:
        """Milliseconds of single drops with pauses, and of bursts of 20 files 50 ms apart."""
        workspace = Workspace.make(self.folder / "latency", self.model, _INBOX)
        files = self.pictures.files(3 + singles + bursts * _BURST)
        pauses = random.Random(0)  # uneven, so that no timer of the service is met again and again
        with processes.serving(workspace) as service, _watching(workspace) as watcher:
            dropper = _Dropper(workspace.inbox, watcher, {})
            for _ in range(3):  # the first make folders and fill caches; not counted
                dropper.drop("warm", *next(files))
                time.sleep(0.3)
            busy_s, spent_s, started_s = processes.machine_cpu_s(), processes.cpu_s(service.pid), time.monotonic()
            for _ in range(singles):
                dropper.drop("single", *next(files))
                time.sleep(pauses.uniform(0.15, 0.35))
            for _ in range(bursts):
                for _ in range(_BURST):
                    dropper.drop("burst", *next(files))
                    time.sleep(_BURST_STEP_S)
                time.sleep(0.3)
            wall_s = time.monotonic() - started_s
            service_cores = (processes.cpu_s(service.pid) - spent_s) / wall_s
            machine_cores = (processes.machine_cpu_s() - busy_s) / wall_s
            seen = _end(watcher)
        return {
            "single": _summary(seen, dropper.closed["single"]),
            "burst": _summary(seen, dropper.closed["burst"]),
            "service_cores": round(service_cores, 3),
            "others_cores": round(machine_cores - service_cores, 3),  # with the watching process
        }


@dataclass(frozen=True, slots=True)
class _Dropper:
    """Writes files into the inbox as a camera does, and remembers when each was closed."""

    inbox: Path
    watcher: subprocess.Popen[bytes]
    closed: dict[str, dict[str, float]]

    def drop(self, group: str, name: str, data: bytes) -> None:
        assert self.watcher.stdin is not None
        self.watcher.stdin.write(f"{name}\n".encode())
        self.watcher.stdin.flush()
        with open(self.inbox / name, "wb") as file:
            file.write(data)
        self.closed.setdefault(group, {})[name] = time.monotonic()


@contextmanager
def _watching(workspace: Workspace) -> Iterator[subprocess.Popen[bytes]]:
    script = Path(__file__).with_name("latency_watch.py")
    command = [sys.executable, str(script), str(workspace.database), str(workspace.output / "bench")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def _end(watcher: subprocess.Popen[bytes]) -> dict[str, dict[str, float]]:
    try:
        answer, _ = watcher.communicate(timeout=_PATIENCE_S)
    except subprocess.TimeoutExpired:
        raise SystemExit(f"a dropped file was not filed within {_PATIENCE_S:.0f} s") from None
    seen: dict[str, dict[str, float]] = json.loads(answer)
    return seen


def _summary(seen: dict[str, dict[str, float]], closed: dict[str, float]) -> dict[str, Any]:
    filed = np.array([(seen[name]["filed_s"] - closed_s) * 1000 for name, closed_s in closed.items()])
    moved = np.array([(seen[name]["moved_s"] - closed_s) * 1000 for name, closed_s in closed.items()])
    return {
        "files": len(filed),
        "median_ms": round(float(np.median(filed)), 1),
        "p99_ms": round(float(np.percentile(filed, 99)), 1),
        "longest_ms": round(float(filed.max()), 1),
        "median_until_moved_ms": round(float(np.median(moved)), 1),
    }
