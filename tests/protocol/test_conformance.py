"""The daemon's code and the model take the same steps: neither can change without the other."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from helpers import png
from mounts import another_mount
from pigeonholed import database
from pigeonholed.hold_folder import HOLD
from protocol.conforming import Daemon, Effect, Killed, Outside, Recorder, Verdict, follow, killed, names_in, prepare
from protocol.model import COPYING, HOSTILE, RENAMING, VARIANTS, Protocol
from protocol.state import NAME, File, Image, Item, Process, Thread, at, changed, free_name, hold, with_folder
from protocol.world import dropped, outsider_at

_MOST_EFFECTS = 60


@dataclass
class Stage:
    """An inbox with A in it, and one life of the daemon after another; what happened in them is one record."""

    folder: Path
    migrated_file: Path
    recorder: Recorder
    elsewhere: Path | None = None
    lives: list[Daemon] = field(default_factory=list)

    @property
    def place(self) -> Path:
        return self.recorder.place

    def prepare(self, name: str) -> None:
        """A new place, of which nothing is recorded yet."""
        self.recorder.on = False
        self.recorder.place = self.folder / name
        self.recorder.done.clear()
        prepare(self.place, png("red"), self.elsewhere)
        shutil.copy(self.migrated_file, self.place / "pigeonholed.db")

    def live(self) -> Daemon:
        self.lives.append(Daemon(self.place, self.recorder))
        return self.lives[-1]

    def drop_b(self) -> None:
        (self.place / "inbox/x").write_bytes(png("red", mark=1))
        self.recorder.outside(lambda image, process: (dropped(image), process))

    def judge(self) -> Verdict:
        return self.follow(self.recorder.effects())

    def follow(self, effects: list[Effect | Outside]) -> Verdict:
        return follow(effects, self.recorder.protocol)

    def differs(self) -> str:
        """Where model and code part; empty where they do not."""
        effects, verdict = self.recorder.effects(), self.judge()
        if verdict.parted_at is None:
            return ""
        did = effects[: verdict.parted_at + 1]
        return f"the code did {did[-1]} after {did[:-1]}; the model would {sorted(verdict.model_would)}"

    def close(self) -> None:
        for life in self.lives:
            life.end()


@pytest.fixture(params=VARIANTS, ids=lambda protocol: protocol.name)
def protocol(request: pytest.FixtureRequest) -> Protocol:
    chosen: Protocol = request.param
    return chosen


@pytest.fixture
def stage(tmp_path: Path, migrated_file: Path, protocol: Protocol, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    with ExitStack() as stack:
        elsewhere = stack.enter_context(another_mount(tmp_path)) if protocol is COPYING else None
        recorder = Recorder(tmp_path, protocol)
        stage = Stage(tmp_path, migrated_file, recorder, elsewhere)
        stage.prepare("place")
        recorder.install(monkeypatch)
        yield stage
        stage.close()


# -- ways through the daemon ------------------------------------------------------------------------------------------

Way = Callable[[Stage, Daemon], None]


def one_file(stage: Stage, daemon: Daemon) -> None:
    daemon.claim()
    daemon.to_rest()


def two_batches(stage: Stage, daemon: Daemon) -> None:
    """The second batch's sync and commit serve the first."""
    daemon.claim()
    first = daemon.read()
    stage.drop_b()
    daemon.claim()
    second = daemon.read()
    daemon.finisher.turn(first)
    daemon.finisher.turn(second)
    daemon.finisher.settle()


def batch_of_two(stage: Stage, daemon: Daemon) -> None:
    daemon.claim()
    stage.drop_b()
    daemon.claim()
    daemon.to_rest()


def outsider_takes_the_name(stage: Stage, daemon: Daemon) -> None:
    plan = daemon.ledger.plan
    free = [True]

    def plan_then_outsider(*arguments: object, **more: object) -> None:
        plan(*arguments, **more)  # type: ignore[arg-type]
        if free and not (stage.place / "sorted/cat").exists():
            free.clear()
            with stage.recorder.looking_away():
                (stage.place / "sorted/cat").mkdir()
            (stage.place / "sorted/cat/x").write_bytes(b"an outsider")
            stage.recorder.outside(lambda image, process: (outsider_at(image, "cat/x"), process))

    daemon.ledger.plan = plan_then_outsider  # type: ignore[method-assign]
    one_file(stage, daemon)


def undone(stage: Stage, daemon: Daemon) -> None:
    one_file(stage, daemon)
    stage.recorder.outside(_undo_asked_for)
    daemon.put_back(hold=True)


def tried_again(stage: Stage, daemon: Daemon) -> None:
    one_file(stage, daemon)
    stage.recorder.outside(_retry_asked_for)
    daemon.put_back(hold=False)
    daemon.claim()
    daemon.to_rest()


def filed_anew(stage: Stage, daemon: Daemon) -> None:
    one_file(stage, daemon)
    stage.recorder.outside(_another_model_looks)
    daemon.file_anew()


def filed_anew_beside_an_outsider(stage: Stage, daemon: Daemon) -> None:
    begin = daemon.refilings.begin

    def begin_then_outsider(refilings: Any) -> None:
        begin(refilings)
        with stage.recorder.looking_away():
            (stage.place / "sorted/dog").mkdir()
        (stage.place / "sorted/dog/x").write_bytes(b"an outsider")
        stage.recorder.outside(lambda image, process: (outsider_at(image, "dog/x"), process))

    daemon.refilings.begin = begin_then_outsider  # type: ignore[method-assign]
    filed_anew(stage, daemon)


def filed_anew_and_undone(stage: Stage, daemon: Daemon) -> None:
    filed_anew(stage, daemon)
    stage.recorder.outside(_undo_asked_for)
    daemon.put_back(hold=True)


def undone_in_vain(stage: Stage, daemon: Daemon) -> None:
    """Another file has its old place."""
    one_file(stage, daemon)
    stage.drop_b()
    stage.recorder.outside(_undo_asked_for)
    daemon.put_back(hold=True)
    daemon.claim()
    daemon.to_rest()


def still_written_to(stage: Stage, daemon: Daemon) -> None:
    daemon.claim()
    handled = daemon.read()
    (work,) = stage.place.glob("sorted/.pigeonholed/*/*")
    work.write_bytes(png("red") + b"more")
    stage.recorder.outside(_written_on)
    daemon.finisher.turn(handled)


def taken_away_before_the_claim(stage: Stage, daemon: Daemon) -> None:
    claim = daemon.ledger.claim

    def claim_then_remove(*arguments: object) -> None:
        claim(*arguments)  # type: ignore[arg-type]
        with stage.recorder.looking_away():
            os.unlink(stage.place / "inbox/x")
        stage.recorder.outside(_removed)

    daemon.ledger.claim = claim_then_remove  # type: ignore[method-assign]
    daemon.claim()


def _undo_asked_for(image: Image, process: Process, fate: str = "returning") -> tuple[Image, Process]:
    (row,) = (row for row in image.rows if row.status == "filed")
    item = Item(row.id, row.sha256, row.destination, fate)
    return image, process._replace(returner=Thread("return", 0, (item,)))


def _another_model_looks(image: Image, process: Process) -> tuple[Image, Process]:
    (row,) = (row for row in image.rows if row.status == "filed")
    item = Item(row.id, row.sha256, free_name(image, (), "dog"), "refile")
    return image, process._replace(returner=Thread("refile", 0, (item,)))


def _retry_asked_for(image: Image, process: Process) -> tuple[Image, Process]:
    return _undo_asked_for(image, process, "retrying")


def _written_on(image: Image, process: Process) -> tuple[Image, Process]:
    file = image.files[0]
    return changed(image, file, file._replace(content="A, longer", synced=False)), process


def _removed(image: Image, process: Process) -> tuple[Image, Process]:
    return image._replace(files=(), promised=frozenset()), process


def _originals(stage: Stage) -> list[Path]:
    return [*stage.place.glob("sorted/.pigeonholed/*/*.held"), *stage.place.glob(f"inbox/{HOLD}/*/*.held")]


def _first_row(stage: Stage) -> Any:
    engine = database.connect(f"sqlite:///{stage.place / 'pigeonholed.db'}")
    with engine.connect() as connection:
        row = connection.exec_driver_sql("SELECT * FROM images WHERE id = 1").one_or_none()
    engine.dispose()
    return row


def _claim_undone(image: Image, process: Process) -> tuple[Image, Process]:
    held = at(image, hold(1))
    assert held is not None
    return changed(image, held, held._replace(trail=(NAME,))), process


def _original_back(image: Image, process: Process) -> tuple[Image, Process]:
    if at(image, hold(1)):
        return image, process
    original = File("A", (hold(1),), synced=True)
    return changed(with_folder(image, "hold/1", synced=True), None, original), process


# -- the comparison ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "way",
    [
        one_file,
        two_batches,
        batch_of_two,
        outsider_takes_the_name,
        undone,
        undone_in_vain,
        tried_again,
        filed_anew,
        filed_anew_beside_an_outsider,
        filed_anew_and_undone,
        still_written_to,
        taken_away_before_the_claim,
    ],
)
def test_code_does_what_the_model_does(stage: Stage, protocol: Protocol, way: Way) -> None:
    if way is still_written_to and protocol is not RENAMING:
        pytest.skip("nobody can write to a copy")
    daemon = stage.live()
    daemon.start()
    stage.recorder.done.clear()
    way(stage, daemon)
    assert len(stage.recorder.effects()) > 3
    assert not stage.differs()
    _assert_same_end(stage, daemon)


@pytest.mark.parametrize(
    "way",
    [
        one_file,
        two_batches,
        outsider_takes_the_name,
        undone,
        tried_again,
        filed_anew,
        filed_anew_beside_an_outsider,
        still_written_to,
    ],
)
def test_killed_anywhere_the_code_starts_again_as_the_model_does(stage: Stage, protocol: Protocol, way: Way) -> None:
    if way is still_written_to and protocol is not RENAMING:
        pytest.skip("nobody can write to a copy")
    if way in {filed_anew, filed_anew_beside_an_outsider} and protocol is not RENAMING:
        pytest.skip("it makes no difference how a file came into the output")
    assert _kill_everywhere(stage, way) == []


@pytest.mark.parametrize("protocol", [COPYING, HOSTILE], ids=lambda protocol: protocol.name, indirect=True)
def test_claim_that_a_power_cut_undoes_is_made_again_and_its_file_is_filed_once(stage: Stage) -> None:
    """Whatever there is of its copy by then: nothing, half, or all of it under its name."""
    left: list[str] = []

    def cut() -> None:
        for original in _originals(stage):
            if _first_row(stage).status == "claimed":  # else its claim was synced before
                left.extend(path.suffix or "whole" for path in stage.place.glob("sorted/.pigeonholed/*/*"))
                os.rename(original, stage.place / "inbox/x")
                stage.recorder.outside(_claim_undone)

    assert _kill_everywhere(stage, one_file, then=cut) == []
    assert {".part", "whole"} <= set(left)


@pytest.mark.parametrize("protocol", [COPYING, HOSTILE], ids=lambda protocol: protocol.name, indirect=True)
def test_original_that_a_power_cut_brings_back_is_removed_whatever_became_of_its_copy(stage: Stage) -> None:
    """Nobody syncs its removal, so it may come back at any later time."""
    brought: list[str] = []

    def cut() -> None:
        row = _first_row(stage)
        if row is not None and row.status in {"ingested", "planned", "filed", "returned"}:
            brought.append(row.status)
            root = "sorted/.pigeonholed" if stage.recorder.protocol is HOSTILE else f"inbox/{HOLD}"
            original = stage.place / root / row.token / f"1-{row.arrival}.held"
            original.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            original.write_bytes(png("red"))
            stage.recorder.outside(_original_back)

    assert _kill_everywhere(stage, tried_again, then=cut) == []
    assert set(brought) == {"ingested", "planned", "filed", "returned"}


def _kill_everywhere(stage: Stage, way: Way, then: Callable[[], None] = lambda: None) -> list[str]:
    """Where model and code part when the code is killed after its first effect, its second, and so on."""
    faults: list[str] = []
    for after in range(_MOST_EFFECTS):
        stage.prepare(str(after))
        daemon = stage.live()
        stage.recorder.kill_after = after
        try:
            way(stage, daemon)
        except Killed:
            pass
        else:
            return faults
        finally:
            stage.recorder.kill_after = None
            stage.lives.pop().end()
        stage.recorder.outside(killed)
        then()
        daemon = stage.live()
        daemon.start()
        daemon.to_rest()
        if fault := stage.differs():
            faults.append(f"killed after {after} effects: {fault}")
        else:
            _assert_same_end(stage, daemon)
        stage.lives.pop().end()
    raise AssertionError("the way never ended")


def _assert_same_end(stage: Stage, daemon: Daemon) -> None:
    """Rows and files of the code are those of one of the states that the model may be in."""
    with daemon.ledger._engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT status, destination FROM images ORDER BY id").all()
    real = [(status, destination or "") for status, destination in rows]
    output = stage.place / "sorted"
    files = [
        f"{label}/{name}"
        for label in ("cat", "dog")
        if (output / label).is_dir()
        for name in os.listdir(output / label)
    ]
    files = sorted([*files, *(f"inbox/{name}" for name in names_in(stage.place / "inbox"))])
    states = stage.judge().states
    assert (real, files) in [
        (
            [(row.status, row.destination) for row in image.rows],
            sorted(file.place for file in image.files if file.place),
        )
        for image, _ in states
    ]


def test_comparison_notices_each_effect_that_is_left_out(stage: Stage) -> None:
    daemon = stage.live()
    two_batches(stage, daemon)
    effects = stage.recorder.effects()
    assert len(effects) > 12
    for number, effect in enumerate(effects):
        rest = effects[:number] + effects[number + 1 :]
        last = number == len(effects) - 1  # then the model only waits for it
        assert last or stage.follow(rest).parted_at is not None, effect


def test_comparison_notices_each_pair_of_effects_in_the_wrong_order(stage: Stage) -> None:
    daemon = stage.live()
    one_file(stage, daemon)
    effects = stage.recorder.effects()
    for number in range(len(effects) - 1):
        swapped = [*effects]
        swapped[number : number + 2] = reversed(swapped[number : number + 2])
        assert stage.follow(swapped).parted_at is not None, effects[number]


def test_comparison_notices_each_single_sync_that_is_left_out(stage: Stage) -> None:
    daemon = stage.live()
    two_batches(stage, daemon)
    effects = stage.recorder.effects()
    for number, effect in enumerate(effects):
        if not callable(effect) and len(effect) > 1:
            for name in effect:
                fewer = [*effects]
                fewer[number] = tuple(other for other in effect if other != name)
                assert stage.follow(fewer).parted_at is not None, name
