"""Tries everything that can happen to the delivery protocol, and judges every image of disk and database on the way.

python tests/protocol/check.py             each variant, small budgets of faults
python tests/protocol/check.py --full      the budgets of the figures in docs/reliability.md
python tests/protocol/check.py --mutants   every mutant, with the shortest way to its violation
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # as pytest does

from protocol.model import VARIANTS, Protocol
from protocol.mutants import MUTANTS
from protocol.state import NAME, OUTSIDER, Image, World, at
from protocol.world import begin, happenings, started, steps

_IN_FLIGHT = frozenset({"claimed", "ingested", "planned"})
_MOST_STEPS_TO_REST = 300


# -- what must hold ---------------------------------------------------------------------------------------------------


def fault_at_any_time(image: Image) -> str | None:
    """Never lost (C1), nothing filed twice (C2, C3), each `filed` row true of the disk (C4, contract 4)."""
    there = [file.content for file in image.files if file.place]
    for content in sorted(image.promised):
        if content not in there:
            return f"{content} is lost"
    filed = [row for row in image.rows if row.status == "filed"]
    for row in filed:
        file = at(image, row.destination)
        if (file is None or file.content != row.sha256) and row.hold not in {"returning", "retrying"}:
            return f"row {row.id} says filed, and {row.destination} is {file.content if file else 'not there'}"
    settled = [row for row in filed if not row.hold]
    if len({row.destination for row in settled}) < len(settled):
        return "two filed rows name one file"
    for row in image.rows:
        if row.status == "lost":
            return f"row {row.id} gave the alarm: lost"
    return None


def fault_at_rest(image: Image) -> str | None:
    """Contract 7: everything is in exactly one place, with exactly one `filed` row, and nothing is left over."""
    if fault := fault_at_any_time(image):
        return fault
    for row in image.rows:
        if row.status in _IN_FLIGHT or row.hold in {"returning", "retrying"}:
            return f"row {row.id} is {row.hold or row.status} for ever"
    known = {row.destination: row.sha256 for row in image.rows if row.status == "filed"}
    held = {row.sha256 for row in image.rows if row.hold == "held"}
    for file in image.files:
        place = file.place
        is_result = place in known and known[place] == file.content
        is_held = place == NAME and file.content in held
        if place and file.content != OUTSIDER and not is_result and not is_held:
            return f"{file.content} stays at {place}, which no filed row names"
    for content in image.promised - {OUTSIDER} - held:
        if sum(row.sha256 == content for row in image.rows if row.status == "filed") != 1:
            return f"{content} has not exactly one filed row"
    if any(folder.name.startswith(("work/", "hold/")) for folder in image.folders):
        return "an empty work folder stays"
    return None


def rest(image: Image, protocol: Protocol) -> Image | str:
    """What a fresh process that is left in peace makes of an image; a string where it gets nowhere."""
    process = started()
    for _ in range(_MOST_STEPS_TO_REST):
        step = next(iter(steps(image, process, protocol)), None)
        if step is None:
            return image
        _, image, then = step
        process = then or started()
    return "it never comes to rest"


# -- the search -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Report:
    """What a search found: a violation and the shortest way to it, or none.

    Attributes:
        states: how many were seen.
        transitions: how many steps led from one to another.
        images: how many different disks and databases recovery was run on.
        seconds: by the clock.
        cpu_seconds: of this process.
        fault: what was violated, None where nothing was.
        way: names of what happened, from the beginning.
        complete: whether there was nothing more to see; else a bound ended the search.
    """

    protocol: str
    states: int
    transitions: int
    images: int
    seconds: float
    cpu_seconds: float
    fault: str | None = None
    way: tuple[str, ...] = ()
    complete: bool = True

    def __str__(self) -> str:
        counts = f"{self.states:,} states, {self.transitions:,} transitions, {self.images:,} images recovered from"
        head = f"{self.protocol}: {counts}, {self.seconds:.0f} s ({self.cpu_seconds:.0f} s of CPU)"
        if self.fault is None:
            return f"{head}: no violation{'' if self.complete else ', but not all was seen'}"
        steps_taken = (f"    {number:2}. {name}" for number, name in enumerate(self.way, 1))
        return "\n".join([f"{head}: {self.fault}", *steps_taken])


def search(protocol: Protocol, world: World, *, most_states: int = 10**9, deadline_s: float = 1e9) -> Report:
    """Breadth first, so that the first violation is a shortest one."""
    began_s, worked_s = time.monotonic(), time.process_time()
    came_from: dict[World, tuple[World, str] | None] = {world: None}
    waiting = deque([world])
    judged: dict[Image, str | None] = {}
    transitions = 0

    def report(fault: str | None = None, way: tuple[str, ...] = (), *, complete: bool = True) -> Report:
        took = time.monotonic() - began_s, time.process_time() - worked_s
        return Report(protocol.name, len(came_from), transitions, len(judged), *took, fault, way, complete)

    while waiting:
        if len(came_from) > most_states or time.monotonic() - began_s > deadline_s:
            return report(complete=False)
        here = waiting.popleft()
        if here.image not in judged:
            judged[here.image] = _judge(here.image, protocol)
        if fault := judged[here.image]:
            return report(fault, _way(came_from, here))
        for name, then in happenings(here, protocol):
            transitions += 1
            if then not in came_from:
                came_from[then] = here, name
                waiting.append(then)
    return report()


def _judge(image: Image, protocol: Protocol) -> str | None:
    """What is wrong with an image now, or with what recovery makes of it if everything is killed now."""
    if fault := fault_at_any_time(image):
        return fault
    resting = rest(image, protocol)
    if isinstance(resting, str):
        return f"after a restart {resting}"
    fault = fault_at_rest(resting)
    return fault and f"after a restart {fault}"


def _way(came_from: dict[World, tuple[World, str] | None], world: World) -> tuple[str, ...]:
    names: list[str] = []
    while (before := came_from[world]) is not None:
        world, name = before
        names.append(name)
    return tuple(reversed(names))


# -- from the command line --------------------------------------------------------------------------------------------

SMALL = {
    "renaming": [
        begin(kills=1, power_cuts=1, drops=1),
        begin(kills=1, power_cuts=1, overwrites=1, drops=1, outsiders=1),
        begin(kills=1, power_cuts=1, outsiders=1, returns=1),
        begin(kills=1, power_cuts=1, writes=1),
        begin(kills=1, drops=1, retries=1),
        begin(kills=1, power_cuts=1, outsiders=1, refilings=1),
        begin(kills=1, drops=1, refilings=2),
    ],
    "copying": [
        begin(kills=1, power_cuts=1, outsiders=1),
        begin(power_cuts=1, drops=1),
        begin(kills=1, drops=1, overwrites=1),
        begin(power_cuts=1, retries=1),
        begin(kills=1, power_cuts=1, returns=1),
        begin(power_cuts=1, refilings=1),
    ],
    "hostile": [
        begin(kills=1, power_cuts=1),
        begin(kills=1, power_cuts=1, refilings=1),
        begin(power_cuts=1, drops=1, overwrites=1),
        begin(kills=1, drops=1, retries=1),
    ],
}
"""Seconds: each kind of fault, beside a kill or a power cut."""
FULL = {
    "renaming": [
        begin(kills=2, power_cuts=2, drops=1, overwrites=1, outsiders=1),
        begin(kills=2, power_cuts=2, drops=1, overwrites=1, outsiders=1, returns=1),
        begin(kills=2, power_cuts=2, drops=1, retries=1),
        begin(kills=2, power_cuts=2, writes=1, outsiders=1),
        begin(kills=2, power_cuts=2, drops=1, outsiders=1, refilings=2),
        begin(kills=2, power_cuts=1, outsiders=1, returns=1, refilings=1),
    ],
    "copying": [
        begin(kills=2, power_cuts=1, drops=1, overwrites=1, outsiders=1),
        begin(kills=2, power_cuts=1, drops=1, outsiders=1, returns=1),
        begin(kills=1, power_cuts=2, outsiders=1, retries=1),
        begin(kills=1, power_cuts=1, returns=1, refilings=1),
    ],
    "hostile": [
        begin(kills=2, power_cuts=1, drops=1, overwrites=1),
        begin(kills=1, power_cuts=1, outsiders=1, returns=1),
    ],
}
"""Minutes: all of them together, and the same fault twice."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="at least a million states")
    parser.add_argument("--mutants", action="store_true", help="show how each mutant fails")
    chosen = parser.parse_args()
    if chosen.mutants:
        reports = [search(mutant.protocol, mutant.world) for mutant in MUTANTS]
        print(*reports, sep="\n")
        return int(any(report.fault is None for report in reports))
    reports = []
    for protocol in VARIANTS:
        for world in (FULL if chosen.full else SMALL)[protocol.name]:
            reports.append(search(protocol, world))
            print(reports[-1], flush=True)
    total = sum(report.states for report in reports)
    seconds, cpu_seconds = sum(report.seconds for report in reports), sum(report.cpu_seconds for report in reports)
    print(f"together {total:,} states, {sum(report.transitions for report in reports):,} transitions, ", end="")
    print(f"{sum(report.images for report in reports):,} images, {seconds:.0f} s ({cpu_seconds:.0f} s of CPU)")
    return int(any(report.fault is not None for report in reports))


if __name__ == "__main__":
    sys.exit(main())
