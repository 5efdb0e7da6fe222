"""What a running daemon shows of itself from outside: memory, descriptors, and sums of its metrics."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from prometheus_client.parser import text_string_to_metric_families as parse

MB = 1 << 20


def family(pid: int) -> list[int]:
    """A process and all that descend from it, as they are now."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has ended
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [pid]
    for member in found:
        found += children.get(member, [])
    return found


def resident_bytes(pid: int) -> int:
    """Memory of one process, what it shares included; 0 for one that has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def open_files(pid: int) -> int:
    """How many descriptors a process has."""
    return len(os.listdir(f"/proc/{pid}/fd"))


@dataclass
class Record:
    """Numbers over time: seconds since the beginning, and what was seen then."""

    at_s: list[float] = field(default_factory=list)
    seen: list[float] = field(default_factory=list)

    @property
    def most(self) -> float:
        return max(self.seen)

    def slope_per_h(self, after_s: float = 0.0) -> float:
        """By how much it grows in an hour: the line of least squares through what was seen from `after_s` on."""
        chosen = [(at_s, value) for at_s, value in zip(self.at_s, self.seen, strict=True) if at_s >= after_s]
        at_h, values = np.array(chosen).T
        return float(np.polyfit(at_h / 3600, values, 1)[0])

    def between(self, start_s: float, end_s: float) -> list[float]:
        return [value for at_s, value in zip(self.at_s, self.seen, strict=True) if start_s <= at_s < end_s]


@contextmanager
def sampling(look: Callable[[], float], every_s: float = 0.1) -> Iterator[Record]:
    """Look again and again in a thread, while the block runs."""
    record = Record()
    started_s = time.monotonic()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            record.seen.append(look())
            record.at_s.append(time.monotonic() - started_s)
            done.wait(every_s)

    thread = threading.Thread(target=watch, name="sampler")
    thread.start()
    try:
        yield record
    finally:
        done.set()
        thread.join()


def sampling_family(pid: int) -> AbstractContextManager[Record]:
    """Memory of a daemon and of all processes that it starts, in bytes."""
    return sampling(lambda: sum(map(resident_bytes, family(pid))))


@dataclass(frozen=True)
class Scraped:
    """A scrape: each series by its name without the prefix and its labels' values."""

    series: Mapping[tuple[str, ...], float]

    @classmethod
    def of(cls, text: str) -> Scraped:
        return cls(
            {
                (sample.name.removeprefix("pigeonholed_"), *sample.labels.values()): sample.value
                for metric in parse(text)
                for sample in metric.samples
            }
        )

    def total(self, name: str, *words: str) -> int:
        """The sum over all series that have these words among their labels; fails where there is none."""
        values = [value for key, value in self.series.items() if key[0] == name and set(words) <= set(key[1:])]
        assert values, f"there is no {name}"
        return round(sum(values))

    @property
    def begun(self) -> int:
        return self.total("claimed_files_total") + self.total("resumed_files_total")

    @property
    def ended(self) -> int:
        ends = ("images_processed_total", "vanished_files_total", "lost_files_total")
        return sum(map(self.total, ends))

    def faults(self) -> list[str]:
        """What must be 0 and is not; the law of conservation among it."""
        faults = [
            f"{name} is {self.total(name)}"
            for name in ("lost_files_total", "unaccounted_files", "orphans_found_total")
            if self.total(name)
        ]
        if self.begun != self.ended + self.total("in_flight_files"):
            faults.append(f"{self.begun} began, {self.ended} ended, {self.total('in_flight_files')} are in flight")
        return faults


def filed_at(database: Path) -> dict[str, float]:
    """When each file was filed, Unix time, by its path."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        rows = connection.execute("SELECT source_path, filed_at FROM images WHERE status = 'filed'").fetchall()
    return {path: datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() for path, text in rows}


def percentile(values: Sequence[float], percent: float) -> float:
    return float(np.percentile(np.array(values), percent))


def told(title: str, **figures: object) -> None:
    """Print figures in one line, for whoever runs a long form with -s."""
    print(f"\n{title}: " + ", ".join(f"{name} {value}" for name, value in figures.items()))


def counted(words: Sequence[str]) -> dict[str, int]:
    return dict(Counter(words))
