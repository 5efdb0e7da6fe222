"""The daemon's code and the model take the same steps: neither can change without the other."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from helpers import png
from protocol.conforming import Daemon, Killed, Recorder, Verdict, follow, killed, prepare
from protocol.model import RENAMING
from protocol.state import Image, Item, Process, Thread, changed
from protocol.world import dropped, outsider_at

_MOST_EFFECTS = 60
DAEMON = RENAMING


@dataclass
class Stage:
    """An inbox with A in it, and one life of the daemon after another; what happened in them is one record."""

    place: Path
    recorder: Recorder
    lives: list[Daemon] = field(default_factory=list)

    def live(self) -> Daemon:
        self.lives.append(Daemon(self.place, self.recorder))
        return self.lives[-1]

    def drop_b(self) -> None:
        (self.place / "inbox/x").write_bytes(png("red", mark=1))
        self.recorder.outside(lambda image, process: (dropped(image), process))

    def judge(self) -> Verdict:
        return follow(self.recorder.effects(), DAEMON)

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


@pytest.fixture
def stage(tmp_path: Path, migrated_file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    place = tmp_path / "place"
    prepare(place, png("red"))
    shutil.copy(migrated_file, place / "pigeonholed.db")
    recorder = Recorder(place)
    recorder.install(monkeypatch)
    stage = Stage(place, recorder)
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
            on, stage.recorder.on = stage.recorder.on, False
            (stage.place / "sorted/cat").mkdir()
            stage.recorder.on = on
            (stage.place / "sorted/cat/x").write_bytes(b"an outsider")
            stage.recorder.outside(lambda image, process: (outsider_at(image, "cat/x"), process))

    daemon.ledger.plan = plan_then_outsider  # type: ignore[method-assign]
    one_file(stage, daemon)


def undone(stage: Stage, daemon: Daemon) -> None:
    one_file(stage, daemon)
    stage.recorder.outside(_undo_asked_for)
    daemon.put_back()


def undone_in_vain(stage: Stage, daemon: Daemon) -> None:
    """Another file has its old place."""
    one_file(stage, daemon)
    stage.drop_b()
    stage.recorder.outside(_undo_asked_for)
    daemon.put_back()
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
        os.unlink(stage.place / "inbox/x")
        stage.recorder.outside(_removed)

    daemon.ledger.claim = claim_then_remove  # type: ignore[method-assign]
    daemon.claim()


def _undo_asked_for(image: Image, process: Process) -> tuple[Image, Process]:
    (row,) = (row for row in image.rows if row.status == "filed")
    item = Item(row.id, row.sha256, row.destination, "returning")
    return image, process._replace(returner=Thread("return", 0, (item,)))


def _written_on(image: Image, process: Process) -> tuple[Image, Process]:
    file = image.files[0]
    return changed(image, file, file._replace(content="A, longer", synced=False)), process


def _removed(image: Image, process: Process) -> tuple[Image, Process]:
    return image._replace(files=(), promised=frozenset()), process


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
        still_written_to,
        taken_away_before_the_claim,
    ],
)
def test_code_does_what_the_model_does(stage: Stage, way: Way) -> None:
    daemon = stage.live()
    daemon.start()
    stage.recorder.done.clear()
    way(stage, daemon)
    assert len(stage.recorder.effects()) > 3
    assert not stage.differs()
    _assert_same_end(stage, daemon)


@pytest.mark.parametrize("way", [one_file, two_batches, outsider_takes_the_name, undone, still_written_to])
def test_killed_anywhere_the_code_starts_again_as_the_model_does(
    stage: Stage, way: Way, tmp_path: Path, migrated_file: Path
) -> None:
    assert _kill_everywhere(stage, way, tmp_path, migrated_file) == []


def _kill_everywhere(stage: Stage, way: Way, tmp_path: Path, migrated_file: Path) -> list[str]:
    """Where model and code part when the code is killed after its first effect, its second, and so on."""
    faults: list[str] = []
    for after in range(_MOST_EFFECTS):
        place = tmp_path / str(after)
        prepare(place, png("red"))
        shutil.copy(migrated_file, place / "pigeonholed.db")
        stage.place = stage.recorder.place = place
        stage.recorder.done.clear()
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
    folders = [("inbox/", stage.place / "inbox"), ("cat/", stage.place / "sorted/cat")]
    files = sorted(prefix + name for prefix, folder in folders if folder.is_dir() for name in os.listdir(folder))
    states = stage.judge().states
    assert (real, files) in [
        ([(row.status, row.destination) for row in image.rows], sorted(file.place for file in image.files))
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
        assert last or follow(rest, DAEMON).parted_at is not None, effect


def test_comparison_notices_each_pair_of_effects_in_the_wrong_order(stage: Stage) -> None:
    daemon = stage.live()
    one_file(stage, daemon)
    effects = stage.recorder.effects()
    for number in range(len(effects) - 1):
        swapped = [*effects]
        swapped[number : number + 2] = reversed(swapped[number : number + 2])
        assert follow(swapped, DAEMON).parted_at is not None, effects[number]


def test_comparison_notices_each_single_sync_that_is_left_out(stage: Stage) -> None:
    daemon = stage.live()
    two_batches(stage, daemon)
    effects = stage.recorder.effects()
    for number, effect in enumerate(effects):
        if not callable(effect) and len(effect) > 1:
            for name in effect:
                fewer = [*effects]
                fewer[number] = tuple(other for other in effect if other != name)
                assert follow(fewer, DAEMON).parted_at is not None, name
