"""Child processes and what they cost: wall time, CPU time, and how busy everybody else was meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from workload import Workspace

_CPUCLOCK_SCHED = 2


@dataclass(frozen=True, slots=True)
class Cost:
    """What a stretch of time cost.

    Attributes:
        started_s: Unix time of its start.
        wall_s: how long it took.
        cpu_s: CPU time of the process.
        others_cores: cores that all other processes of the machine kept busy on average.
    """

    started_s: float
    wall_s: float
    cpu_s: float
    others_cores: float

    def rounded(self) -> dict[str, float]:
        return {name: round(value, 3) for name, value in asdict(self).items()}


def run(command: Sequence[str], log: Path) -> Cost:
    """Run a process to its end.

    Raises:
        SystemExit: it failed; with the end of what it said.
    """
    busy_s, started_s, started = machine_cpu_s(), time.time(), time.perf_counter()
    with open(log, "wb") as stream:
        process = subprocess.Popen(command, env=environment(), stdout=stream, stderr=subprocess.STDOUT)
        try:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            if process.returncode is None:
                process.kill()
    wall_s = time.perf_counter() - started
    if process.returncode != 0:
        said = log.read_text(errors="replace")[-2000:]
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}: {said}")
    cpu_s = usage.ru_utime + usage.ru_stime
    return Cost(started_s, wall_s, cpu_s, max(0.0, machine_cpu_s() - busy_s - cpu_s) / wall_s)


@contextmanager
def serving(workspace: Workspace) -> Iterator[subprocess.Popen[bytes]]:
    """The service, ready for files until the end of the block."""
    log = workspace.root / "pigeonholed.log"
    with open(log, "wb") as stream:
        command = workspace.command("--log-format", "json")
        process = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=stream)
    try:
        _await_ready(process, log)
        yield process
        process.send_signal(signal.SIGTERM)
        if process.wait(timeout=30) != 0:
            raise SystemExit(f"the service ended with {process.returncode}: {log.read_text()[-2000:]}")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def environment() -> dict[str, str]:
    """Ours without what would change the service's configuration."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PIGEONHOLED_")}


def cpu_s(pid: int) -> float:
    """CPU time of a running process with all its threads, to the nanosecond: `clock_getcpuclockid(3)`."""
    return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)


def machine_cpu_s() -> float:
    """CPU time that the whole machine has spent working, in steps of 10 ms."""
    with open("/proc/stat", encoding="ascii") as file:
        user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, file.readline().split()[1:9])
    return float(user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _await_ready(process: subprocess.Popen[bytes], log: Path, deadline_s: float = 60.0) -> None:
    ends_s = time.monotonic() + deadline_s
    while not _is_ready(log):
        if process.poll() is not None or time.monotonic() > ends_s:
            raise SystemExit(f"the service did not become ready: {log.read_text()[-2000:]}")
        time.sleep(0.05)


def _is_ready(log: Path) -> bool:
    for line in log.read_text().splitlines():
        if '"metrics_served"' in line and line.endswith("}"):
            event: dict[str, Any] = json.loads(line)
            try:
                with urllib.request.urlopen(f"http://{event['address']}/readyz", timeout=5):
                    return True
            except OSError:
                return False
    return False
