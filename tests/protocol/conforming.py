"""Runs the daemon's own code on a real disk and database, and asks the model whether it would have done the same.

Each change of disk and database is recorded under the name of the model's step. What happens from outside (another
drop, an outsider, a kill) stands in the same record, so that the model can be led along the same way.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from helpers import make_served, make_tree
from pigeonholed import database, recovery
from pigeonholed.claiming import Claimer, Feed
from pigeonholed.decoding import Demand, examine
from pigeonholed.disk import Disk
from pigeonholed.finishing import Delivery, Finisher
from pigeonholed.images import Arrival, Decoded, Handled, ImageFile
from pigeonholed.ledger import Ledger
from pigeonholed.metrics import Metrics
from pigeonholed.output import Output
from pigeonholed.patience import Patience
from pigeonholed.placing import Placer
from pigeonholed.returning import Holds, Returner
from pigeonholed.serving import Policy
from pigeonholed.watching import Rules, Watch
from pigeonholed.writer import Change, Writer
from protocol.model import Protocol
from protocol.state import Image, Process
from protocol.world import begin, started, steps

Effect = tuple[str, ...]
"""Names of steps that are one: of the syncs of one `Disk.sync`, or a single one."""
Outside = Callable[[Image, Process], tuple[Image, Process]]
"""What happens from outside, in the words of the model."""

_SILENT = frozenset({"read", "last_look", "submit", ""})
_COMMITS = {
    "claim": "claim",
    "plan": "plan",
    "filed": "confirm",
    "close": "close",
    "hold": "begin_return",
    "back": "end_return",
    "unheld": "cancel_return",
}
_SAME = {
    "replan": "plan",
    "close_missed": "close",
    "close_vanished": "close",
    "close_given_back": "close",
    "resume_returns": "cancel_return",
    "remove_batch_folders": "rmdir",
    "remove_missed_folder": "rmdir",
    "sweep": "rmdir",
    "look": "take_in",
    "sync_given_back": "sync_return",
    "sync_vanished": "sync_return",
}
"""Steps of the model that are one and the same call of the code."""


class Killed(BaseException):
    """The process dies here. No `except Exception` stops it."""


@dataclass
class Recorder:
    """What the daemon did, and what was done to it. With `kill_after`, it dies before its next effect."""

    place: Path
    done: list[Effect | Outside] = field(default_factory=list)
    kill_after: int | None = None
    on: bool = False
    _synced: set[str] = field(default_factory=set)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for owner, name, named in [
            (os, "mkdir", self._mkdir), (os, "rename", self._rename), (Disk, "rename_new", self._rename_new),
            (os, "rmdir", lambda path: "rmdir"), (Writer, "write", self._write),
        ]:  # fmt: skip
            monkeypatch.setattr(owner, name, self._recorded(getattr(owner, name), named))
        fsync = os.fsync

        def recorded_fsync(fd: int) -> None:
            if self.on and not self._synced:
                self._die_if_due()
            fsync(fd)
            if self.on:
                self._synced.add(self._relative(os.readlink(f"/proc/self/fd/{fd}")))

        monkeypatch.setattr(os, "fsync", recorded_fsync)

    def effects(self) -> list[Effect | Outside]:
        """What was done, a mkdir of many levels or an rmdir of many folders once."""
        self._flush()
        once = {("rmdir",), ("make_folders",)}
        return [
            effect
            for number, effect in enumerate(self.done)
            if not (number and effect in once and effect == self.done[number - 1])
        ]

    def outside(self, happens: Outside) -> None:
        self._flush()
        self.done.append(happens)

    def _recorded(self, original: Callable[..., Any], named: Callable[..., str | None]) -> Callable[..., Any]:
        def step(*arguments: Any, **more: Any) -> Any:
            name = named(*arguments) if self.on else None
            if name is None:
                return original(*arguments, **more)
            self._flush()
            self._die_if_due()
            result = original(*arguments, **more)
            self.done.append((name,))
            return result

        return step

    def _die_if_due(self) -> None:
        if self.kill_after is not None and len(self.done) >= self.kill_after:
            raise Killed

    def _relative(self, path: str) -> str:
        return os.path.relpath(path, self.place)

    def _mkdir(self, path: str, _mode: int = 0) -> str | None:
        if os.path.isdir(path):
            return None
        return "make_batch_folder" if os.path.basename(os.path.dirname(path)) == ".pigeonholed" else "make_folders"

    def _rename(self, source: str, _target: str) -> str:
        assert self._relative(source).startswith("inbox/"), source
        return "take_in"

    def _rename_new(self, _disk: Disk, source: str, target: str) -> str | None:
        if os.path.lexists(target) or not os.path.isdir(os.path.dirname(target)):
            return None  # it will fail, and change nothing
        if self._relative(target).startswith("inbox/"):
            return "give_back" if "/.pigeonholed/" in source else "move_back"
        return "move"

    def _write(self, _writer: Writer, changes: Sequence[Change]) -> str | None:
        steps_of = {id(statement): name for name, statement in vars(self.statements).items()}
        names = [steps_of[id(change.statement)] for change in changes if change.rows]
        commits = [_COMMITS[name] for name in names if name in _COMMITS]
        return "plan" if "plan" in commits else commits[0] if commits else None

    def _flush(self) -> None:
        if names := _syncs(self._synced):
            self.done.append(names)
        self._synced.clear()

    statements: Any = None


def _syncs(paths: Iterable[str]) -> Effect:
    """Which syncs of the model a set of synced paths amounts to."""
    paths = set(paths)
    private = "sorted/.pigeonholed"
    files = {path for path in paths if path.startswith(private) and path.count("/") == 3}
    tokens = {path for path in paths if path.startswith(private) and path.count("/") == 2}
    claimed = {os.path.dirname(path) for path in files}
    names = set()
    if files:
        names.add("sync_contents")
    if files and claimed <= tokens and "inbox" in paths:
        names.add("sync_claims")
    if private in paths:
        names.add("sync_work_folders")
    if "sorted/cat" in paths and tokens - claimed:
        names.add("sync_moves")
    if "sorted" in paths:
        names.add("sync_new_folders")
    if not files and "inbox" in paths and ("sorted/cat" in paths or tokens):
        names.add("sync_return")
    return tuple(sorted(names))


class _AllNames:
    def ignores(self, relative_path: str) -> bool:
        return False

    def prunes(self, folder_name: str) -> bool:
        return False


class _Queue:
    """Where the claimer leaves files, instead of an engine."""

    def __init__(self) -> None:
        self.arrivals: list[Arrival] = []

    def submit(self, arrivals: Sequence[Arrival]) -> None:
        self.arrivals.extend(arrivals)


class Daemon:
    """The daemon's parts on one thread, to be led through its steps by a test."""

    def __init__(self, place: Path, recorder: Recorder) -> None:
        self.place, self.recorder = place, recorder
        recorder.on = False
        self._engine = database.connect(f"sqlite:///{place / 'pigeonholed.db'}")
        self._writer = Writer(self._engine)
        self._writer.start()
        self.ledger = Ledger(self._engine, self._writer)
        recorder.statements = self.ledger._steps
        self.output = Output.open(place / "sorted", self.ledger.identity)
        self.deliveries = {"camera": Delivery(str(place / "inbox"), self.output, Placer())}
        self.finisher = Finisher(self.deliveries, self.ledger, Patience(), lambda _: None, lambda _: None)
        self.holds = Holds(self.ledger.holds())
        self.returner = Returner(self.ledger, self.deliveries, self.holds)
        rules = Rules("camera", str(place / "inbox"), 0.0, 0.0, 30.0, True)
        self._feed = Feed(Watch(rules, _AllNames(), self.output.now_ns), self.output)
        self.queue = _Queue()
        self._claimer = Claimer([self._feed], self.ledger, self.queue, Patience(), Metrics())  # type: ignore[arg-type]
        self._served = make_served()
        recorder.on = True

    def start(self) -> None:
        """As `pipeline.build` does: what was being put back first, then what was in flight."""
        self.returner.resume()
        self.queue.submit(recovery.recover(self.ledger, self.finisher, self.deliveries, 0.0))

    def claim(self) -> bool:
        """Claim what lies in the inbox, if it is not passed over; without the watch, which only decides when."""
        try:
            status = os.lstat(self.place / "inbox/x")
        except FileNotFoundError:
            return False
        if self.holds.covers("camera", "x", status.st_size, status.st_mtime_ns):
            return False
        file = ImageFile("camera", "x", status.st_size, status.st_mtime_ns)
        self.queue.submit(self._claimer.claim(self._feed, [file]))
        return True

    def read(self) -> list[Handled]:
        """Read and classify what was claimed."""
        handled: list[Handled] = []
        for arrival in self.queue.arrivals:
            demand = Demand(self._served.bundle.manifest.pixel_spec, 10_000, 10_000)
            result = examine(arrival, self.output.work_path(arrival), demand)
            policies = {"camera": Policy(None, 5)}
            handled.extend(self._served.classify([result], policies) if isinstance(result, Decoded) else [result])
        self.queue.arrivals.clear()
        return handled

    def to_rest(self) -> None:
        """File all there is."""
        while True:
            self.finisher.turn(self.read())
            self.finisher.settle()
            if not self.claim():
                return

    def put_back(self) -> None:
        self.returner.put_back(self.ledger.filed(), hold=True)

    def end(self) -> None:
        """What the kernel does for a dead process, and not more."""
        self.recorder.on = False
        with suppress(OSError):
            self.output.disk.close()
        os.close(self.output._lock.fd)
        self._writer.stop()


@dataclass(frozen=True)
class Verdict:
    """Whether the model could have done the same; `states` are those that it may then be in."""

    states: frozenset[tuple[Image, Process]]
    parted_at: int | None = None
    model_would: frozenset[Effect] = frozenset()


def follow(effects: Sequence[Effect | Outside], protocol: Protocol) -> Verdict:
    """Lead the model along a record, from a daemon without work and A in its inbox."""
    world = begin()
    states = _with_silent({(world.image, world.processes[0])}, protocol)
    for number, effect in enumerate(effects):
        if callable(effect):
            states = _with_silent({effect(*state) for state in states}, protocol)
            continue
        possible = [
            (_effect(name, state[0], image), image, process)
            for state in states
            for name, image, process in steps(*state, protocol)
            if process is not None
        ]
        then = {(image, process) for would, image, process in possible if _is_done(would, effect)}
        if not then:
            return Verdict(frozenset(states), number, frozenset(would for would, _, _ in possible if would))
        states = _with_silent(then, protocol)
    return Verdict(frozenset(states))


def _is_done(would: Effect, done: Effect) -> bool:
    """Whether the code did what the model would do. It may sync more than it needs to, never less."""
    syncs = all(name.startswith("sync") for name in (*would, *done))
    return would == done or bool(syncs and would and set(would) < set(done))


def _effect(name: str, before: Image, after: Image) -> Effect:
    """What is seen of a step from outside: nothing, where it only looked. A sync is always seen."""
    names = {_SAME.get(part, part) for part in name.split(", ") if part not in _SILENT}
    return tuple(sorted(names)) if before != after or any(part.startswith("sync") for part in names) else ()


def _with_silent(states: set[tuple[Image, Process]], protocol: Protocol) -> set[tuple[Image, Process]]:
    """These states, and what becomes of them by steps that nobody sees."""
    waiting = list(states)
    while waiting:
        state = waiting.pop()
        for name, image, process in steps(*state, protocol):
            if process is not None and not _effect(name, state[0], image) and (image, process) not in states:
                states.add((image, process))
                waiting.append((image, process))
    return states


def killed(image: Image, _process: Process) -> tuple[Image, Process]:
    """kill -9 and another start."""
    return image, started()


def prepare(place: Path, content: bytes) -> None:
    make_tree(place, {"sorted": {}, "inbox": {"x": content}})
