"""Runs the daemon's own code on a real disk and database, and asks the model whether it would have done the same.

Each change of disk and database is recorded under the name of the model's step. What happens from outside (another
drop, an outsider, a kill) stands in the same record, so that the model can be led along the same way.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from helpers import NothingFiled, make_served, make_tree
from pigeonholed import database, recovery
from pigeonholed.claiming import Claimer, Feed
from pigeonholed.copy_custody import Copying
from pigeonholed.copying import Copier
from pigeonholed.custody import Custody, Renaming
from pigeonholed.decoding import Demand, examine
from pigeonholed.delivery import Delivery
from pigeonholed.disk import Disk
from pigeonholed.finishing import Finisher
from pigeonholed.hold_folder import HOLD, HoldFolder
from pigeonholed.holding import Holds
from pigeonholed.images import Arrival, Decoded, Handled, ImageFile, Placement, Prediction
from pigeonholed.ledger import Ledger
from pigeonholed.metrics import Metrics
from pigeonholed.originals import Held
from pigeonholed.output import Output
from pigeonholed.patience import Patience
from pigeonholed.placing import Placer
from pigeonholed.refiling import Refiler
from pigeonholed.refilings import Choice, Refiling, Refilings, Result
from pigeonholed.returning import Returner
from pigeonholed.serving import Policy
from pigeonholed.watching import Rules, Watch
from pigeonholed.writer import Change, Writer
from protocol.model import COPYING, HOSTILE, RENAMING, Protocol
from protocol.state import Image, Process
from protocol.world import begin, started, steps

Effect = tuple[str, ...]
"""Names of steps that are one: of the syncs of one `Disk.sync`, or a single one."""
Outside = Callable[[Image, Process], tuple[Image, Process]]
"""What happens from outside, in the words of the model."""

_SILENT = frozenset({"read", "last_look", "submit", ""})
_COMMITS = {
    "claim": "claim",
    "ingest": "ingest",
    "plan": "plan",
    "filed": "confirm",
    "close": "close",
    "hold": "begin_return",
    "back": "end_return",
    "unheld": "cancel_return",
}
_REFILING_COMMITS = {
    "intend": "begin_refiling",
    "redirect": "redirect",
    "filed": "end_refiling",
    "back": "cancel_refiling",
}
_SAME = {
    "replan": "plan",
    "close_missed": "close",
    "close_vanished": "close",
    "close_given_back": "close",
    "resume_returns": "cancel_return",
    "resume_refiling": "cancel_refiling",
    "make_other_folder": "make_folders",
    "remove_batch_folders": "rmdir",
    "remove_missed_folder": "rmdir",
    "remove_hold_folder": "rmdir",
    "remove_hold_found": "rmdir",
    "sweep": "rmdir",
    "sweep_one_folders": "rmdir",
    "remove_one_folders": "rmdir",
    "make_one_folder": "make_batch_folder",
    "look": "take_in",
    "look_in_hold": "take_in",
    "take_in_hold": "take_in",
    "unlink_copied": "unlink_source",
    "unlink_leftovers": "unlink_source",
    "discard_halves": "discard_copy",
    "finish_copies": "unlink_filed",
    "sync_given_back": "sync_return",
    "sync_vanished": "sync_return",
    "sync_finished": "sync_copied_back",
}
"""Steps of the model that are one and the same call of the code."""
_KINDS = [
    (re.compile(kind), name)
    for kind, name in {
        r"sorted/\.pigeonholed": "private",
        r"sorted/\.pigeonholed/[0-9a-f]{16}": "batch",
        r"(sorted/\.pigeonholed|inbox/\.pigeonholed-hold)/[0-9a-f]{16}/\d+-[0-9a-f]{32}\.held": "original",
        r"sorted/\.pigeonholed/[0-9a-f]{16}/[0-9a-f]{32}": "work",
        r"sorted/\.pigeonholed/[0-9a-f]{16}/[0-9a-f]{32}\.part": "part",
        r"inbox": "inbox",
        r"inbox/\.pigeonholed-hold": "root",
        r"inbox/\.pigeonholed-hold/[0-9a-f]{16}": "hold",
        r"inbox/\.pigeonholed-hold/[0-9a-f]{16}\.part": "back",
        r"inbox/x": "dropped",
        r"sorted": "sorted",
        r"sorted/(cat|dog)": "class",
        r"sorted/(cat|dog)/x(-\d)?": "filed",
    }.items()
]
"""What each path is; the daemon touches no other."""


class Killed(BaseException):
    """The process dies here. No `except Exception` stops it."""


@dataclass
class Recorder:
    """What the daemon did, and what was done to it. With `kill_after`, it dies before its next effect."""

    place: Path
    protocol: Protocol
    done: list[Effect | Outside] = field(default_factory=list)
    kill_after: int | None = None
    on: bool = False
    _synced: set[str] = field(default_factory=set)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for owner, name, named in [
            (os, "mkdir", self._mkdir), (os, "rename", self._rename), (Disk, "rename_new", self._rename_new),
            (os, "rmdir", self._rmdir), (os, "unlink", self._unlink), (Copier, "copy", self._copy),
            (Writer, "write", self._write),
        ]:  # fmt: skip
            monkeypatch.setattr(owner, name, self._recorded(getattr(owner, name), named))
        fsync = os.fsync

        def recorded_fsync(fd: int) -> None:
            if self.on and not self._synced:
                self._die_if_due()
            fsync(fd)
            if self.on:
                self._synced.add(self._path("", fd))

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

    @contextmanager
    def looking_away(self) -> Iterator[None]:
        """Somebody else does something."""
        on, self.on = self.on, False
        yield
        self.on = on

    def outside(self, happens: Outside) -> None:
        self._flush()
        self.done.append(happens)

    def _recorded(self, original: Callable[..., Any], named: Callable[..., str | None]) -> Callable[..., Any]:
        def step(*arguments: Any, **more: Any) -> Any:
            name = named(*arguments, **more) if self.on else None
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

    def _path(self, path: str, folder: int | None = None) -> str:
        """A path relative to the place, however it was reached."""
        above = "" if folder is None else os.readlink(f"/proc/self/fd/{folder}")
        whole = os.path.join(above, path).rstrip("/")
        real = os.path.join(os.path.realpath(os.path.dirname(whole)), os.path.basename(whole))
        for name in ("inbox", "sorted"):
            root = os.path.realpath(self.place / name)
            if os.path.realpath(whole) == root:
                return name
            if real.startswith(f"{root}/"):
                return name + real.removeprefix(root)
        raise AssertionError(f"the daemon has nothing to do at {whole}")

    def _kind(self, path: str, folder: int | None = None) -> str:
        return _kind_of(self._path(path, folder))

    def _mkdir(self, path: str, _mode: int = 0, *, mode: int = 0, dir_fd: int | None = None) -> str | None:
        made = self._path(path, dir_fd)
        if os.path.isdir(self.place / made):
            return None
        return {"batch": "make_batch_folder", "hold": "make_hold_folder", "class": "make_folders"}.get(_kind_of(made))

    def _rmdir(self, path: str, *, dir_fd: int | None = None) -> str | None:
        return None if self._kind(path, dir_fd) == "root" else "rmdir"  # what is in that folder is what counts

    def _rename(self, source: str, target: str, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None) -> str:
        renamed = self._kind(source, src_dir_fd), self._kind(target, dst_dir_fd)
        return {("dropped", "work"): "take_in", ("dropped", "original"): "take_in", ("part", "work"): "name_copy"}[
            renamed
        ]

    def _rename_new(
        self, _disk: Disk, source: str, target: str, *, source_dir: int | None = None, target_dir: int | None = None
    ) -> str | None:
        new = self._path(target, target_dir)
        if os.path.lexists(self.place / new) or not os.path.isdir(os.path.dirname(self.place / new)):
            return None  # it will fail, and change nothing
        renamed = self._kind(source, source_dir), _kind_of(new)
        return {
            ("work", "filed"): "move",
            ("work", "dropped"): "give_back",
            ("filed", "dropped"): "move_back",
            ("filed", "filed"): "move_on",
            ("back", "dropped"): "name_back",
        }[renamed]

    def _unlink(self, path: str, *, dir_fd: int | None = None) -> str | None:
        gone = self._path(path, dir_fd)
        if not os.path.lexists(self.place / gone):
            return None
        return {
            "original": "unlink_source",
            "part": "discard_copy",
            "back": "discard_back",
            "filed": "unlink_filed",
        }[_kind_of(gone)]

    def _copy(self, _copier: Copier, _source: int, target: str) -> str | None:
        copied = self._path(target)
        if os.path.lexists(self.place / copied):
            return None  # it will fail
        return {"part": "copy", "back": "copy_back"}[_kind_of(copied)]

    def _write(self, _writer: Writer, changes: Sequence[Change]) -> str | None:
        names = [id(change.statement) for change in changes if change.rows]
        commits = [commit for name in names if (commit := self.commits.get(name))]
        return "plan" if "plan" in commits else commits[0] if commits else None

    def _flush(self) -> None:
        if names := _syncs(self._synced, self.protocol):
            self.done.append(names)
        self._synced.clear()

    commits: dict[int, str] = field(default_factory=dict)


def _commits_of(steps: Any, names: Mapping[str, str]) -> dict[int, str]:
    """The model's names of statements."""
    return {id(statement): names[name] for name, statement in vars(steps).items() if name in names}


def _kind_of(path: str) -> str:
    return next(name for kind, name in _KINDS if kind.fullmatch(path))


def _syncs(paths: Iterable[str], protocol: Protocol) -> Effect:
    """Which syncs of the model a set of synced paths amounts to."""
    hold = {"inbox", "root", "hold"} if protocol is COPYING else {"inbox", "batch"}
    paths = set(paths)
    kinds = {_kind_of(path) for path in paths}
    batches = {path for path in paths if _kind_of(path) == "batch"}
    claimed = {os.path.dirname(path) for path in paths if _kind_of(path) == "work"}
    if {"sorted/cat", "sorted/dog"} <= paths and not batches and "inbox" not in kinds:
        return ("sync_other_folder", "sync_refiled") if "sorted" in kinds else ("sync_refiled",)
    names = set()
    if "part" in kinds:
        names.add("sync_copy")
    if claimed:
        names.add("sync_contents")
    if claimed and claimed <= batches and "inbox" in kinds:
        names.add("sync_claims")
    if "private" in kinds:
        names.add("sync_work_folders")
    if "private" in kinds and batches and not claimed:
        names.add("sync_copy_name")
    if "private" in kinds and not claimed and hold <= kinds:
        names.add("sync_holds")
    if "class" in kinds and batches - claimed:
        names.add("sync_moves")
    if "sorted" in kinds:
        names.add("sync_new_folders")
    if not claimed and "private" not in kinds and "inbox" in kinds and ("class" in kinds or batches):
        names.add("sync_return")
    if "back" in kinds:
        names.add("sync_copy_back")
    if kinds == {"inbox"}:
        names.add("sync_back")
    if kinds == {"inbox", "dropped"}:
        names.add("sync_copied_back")
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
        self._descriptors: list[HoldFolder | Disk] = []
        self._engine = database.connect(f"sqlite:///{place / 'pigeonholed.db'}")
        self._writer = Writer(self._engine)
        self._writer.start()
        self.ledger = Ledger(self._engine, self._writer)
        self.refilings = Refilings(self._engine, self._writer)
        recorder.commits = _commits_of(self.ledger._steps, _COMMITS)
        recorder.commits |= _commits_of(self.refilings._steps, _REFILING_COMMITS)
        self.output = Output.open(place / "sorted", self.ledger.identity)
        custody = self._custody(str(place / "inbox"), recorder.protocol)
        self.deliveries = {"camera": Delivery(str(place / "inbox"), self.output, Placer(), custody)}
        self.finisher = Finisher(
            self.deliveries, self.ledger, NothingFiled(), Patience(), lambda _: None, lambda _: None
        )
        self.holds = Holds(self.ledger.holds())
        self.returner = Returner(self.ledger, self.deliveries, self.holds)
        self.refiler = Refiler(self.refilings, self.deliveries)
        rules = Rules("camera", str(place / "inbox"), 0.0, 0.0, 30.0, True)
        self._feed = Feed(Watch(rules, _AllNames(), self.output.now_ns), self.output, custody)
        self.queue = _Queue()
        self._claimer = Claimer([self._feed], self.ledger, self.queue, Patience(), Metrics())  # type: ignore[arg-type]
        self._served = make_served()
        recorder.on = True

    def _custody(self, inbox: str, protocol: Protocol) -> Custody:
        if protocol is RENAMING:
            return Renaming(inbox, self.output)
        in_output = protocol is HOSTILE
        hold = HoldFolder.in_output(self.output) if in_output else HoldFolder.in_inbox(inbox, private=True)
        custody = Copying(Held(inbox, hold), self.output, self.ledger)
        self._descriptors = [hold, custody._disk]
        return custody

    def start(self) -> None:
        """As `pipeline.build` does: what was being put back or filed anew first, then what was in flight."""
        self.returner.resume()
        self.refiler.resume()
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

    def put_back(self, *, hold: bool) -> None:
        self.returner.put_back(self.ledger.filed(), hold=hold)

    def file_anew(self) -> None:
        """Another model says that the first file is a dog."""
        (candidate,), _ = self.refilings.candidates(Choice("camera"), 0, 1, 1)
        place = self.refiler.place(candidate, "dog/x", set())
        prediction = Prediction("tiny", 2, (("dog", 0.9),))
        self.refiler.file([Refiling(candidate, Result(Placement.SORTED, prediction, place), "dog/x")])

    def end(self) -> None:
        """What the kernel does for a dead process, and not more."""
        self.recorder.on = False
        for holder in (*self._descriptors, self.output.disk):
            with suppress(OSError):
                holder.close()
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


def prepare(place: Path, content: bytes, elsewhere: Path | None) -> None:
    """A place with a file in its inbox, which is on another mount if one is given."""
    make_tree(place, {"sorted": {}})
    if elsewhere is not None:
        (place / "inbox").symlink_to(make_tree(elsewhere / place.name, {}))
    make_tree(place / "inbox", {"x": content})


def names_in(inbox: Path) -> list[str]:
    """What lies in an inbox, but for the root of holds, which nothing may be in."""
    if (inbox / HOLD).is_dir():
        assert os.listdir(inbox / HOLD) == []
    return [name for name in os.listdir(inbox) if name != HOLD]
