"""What was measured beside what was promised, and on what machine."""

from __future__ import annotations

import os
import platform
import sqlite3
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from rich.table import Column, Table

_PACKAGES = ("pigeonholed", "openvino", "keras", "tensorflow", "opencv-python-headless", "numpy", "sqlalchemy")


@dataclass(frozen=True, slots=True)
class Figure:
    """One number, and the bound that it is to keep; without a bound it is there to compare with.

    Attributes:
        name: what was measured.
        value: the number.
        unit: its unit.
        bound: the target.
        sense: on which side of the bound the target is met.
        judged: false for a small run, whose numbers mean little.
    """

    name: str
    value: float
    unit: str
    bound: float | None = None
    sense: Literal["at least", "under"] = "under"
    judged: bool = True

    @property
    def verdict(self) -> str:
        if self.bound is None:
            return ""
        if not self.judged:
            return "not judged"
        kept = self.value >= self.bound if self.sense == "at least" else self.value < self.bound
        return "met" if kept else "MISSED"

    @property
    def target(self) -> str:
        return "" if self.bound is None else f"{self.sense} {self.bound:,g}"

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "verdict": self.verdict}


def figures(results: dict[str, Any], *, judged: bool) -> Iterator[Figure]:
    """The figures of the issue, from whatever was measured."""
    if rates := results.get("rate"):
        best = rates["service"]
        yield Figure("service", best["best_files_per_s"], "files/s", 3000, "at least", judged)
        from_start = max(result["files_per_s_from_process_start"] for result in best["rounds"])
        yield Figure("with start-up", from_start, "files/s")
        yield Figure("ideal: decode and model", rates["ideal"]["best_files_per_s"], "files/s")
        yield Figure("plain script", rates["plain"]["best_files_per_s"], "files/s")
    if latency := results.get("latency"):
        for kind, name in (("single", "one file"), ("burst", "20 in a row")):
            yield Figure(f"latency, {name}: median", latency[kind]["median_ms"], "ms", 60, judged=judged)
            yield Figure(f"latency, {name}: 99 %", latency[kind]["p99_ms"], "ms", 150, judged=judged)
    for idle in results.get("idle", []):
        name = f"idle, {idle['ignored_files']:,} ignored files"
        yield Figure(name, idle["core_percent"], "% of a core", 1, judged=judged)


def table(rows: list[Figure]) -> Table:
    """For people."""
    shown = Table("figure", Column("measured", justify="right"), "unit", "target", "verdict")
    for figure in rows:
        style = {"met": "green", "MISSED": "bold red"}.get(figure.verdict)
        value = f"{figure.value:,.0f}" if figure.value >= 100 else f"{figure.value:.3g}"
        shown.add_row(figure.name, value, figure.unit, figure.target, figure.verdict, style=style)
    return shown


def machine(folder: Path) -> dict[str, Any]:
    """On what the figures were measured; `folder` is where the files were."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "file_system": _said("stat", "--file-system", "--format=%T", str(folder)),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "versions": {name: _version(name) for name in _PACKAGES},
        "commit": _commit(Path(__file__).parent),
    }


def _commit(folder: Path) -> str | None:
    commit = _said("git", "-C", str(folder), "rev-parse", "HEAD")
    changed = _said("git", "-C", str(folder), "status", "--porcelain", "--untracked-files=no")
    return f"{commit} with changes" if commit and changed else commit


def _said(*command: str) -> str | None:
    """What a command says; None where it is not there or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _cpu() -> str:
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
