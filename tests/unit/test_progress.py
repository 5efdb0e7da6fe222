"""Progress: what counts as a standstill, and what does not."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from helpers import FakeClock, make_tree
from pigeonholed.progress import Progress, Task, held_by_kernel


class Stage:
    """A task whose waiting and being held a test decides."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.waits = self.held = False
        self.task = Task("filing", 10.0, lambda: self.waits, clock=clock, held=lambda _thread: self.held)
        self.task.beat()

    def stuck_after(self, seconds: float) -> bool:
        self.clock.advance(seconds)
        return self.task.stuck() is not None


@pytest.fixture
def stage(clock: FakeClock) -> Stage:
    return Stage(clock)


def test_no_step_within_the_limit_is_a_standstill_and_the_next_step_ends_it(stage: Stage) -> None:
    assert not stage.stuck_after(9.9)
    assert stage.stuck_after(0.1)
    assert stage.task.stuck() == "filing has made no progress for 10 s"
    stage.task.beat()
    assert stage.task.stuck() is None


def test_who_waits_for_others_stands_not_still(stage: Stage) -> None:
    with stage.task.resting():
        assert not stage.stuck_after(1000.0)
    assert not stage.stuck_after(9.0)
    stage.task.rest()
    assert not stage.stuck_after(1000.0)


def test_waiting_for_a_disk_or_a_database_is_no_standstill_and_then_the_full_time_is_given_again(stage: Stage) -> None:
    stage.waits = True
    for _hour in range(3):
        assert not stage.stuck_after(3600.0)
    stage.waits = False
    assert not stage.stuck_after(9.9)
    assert stage.stuck_after(0.1)


def test_thread_that_the_kernel_holds_waits_for_a_disk(stage: Stage) -> None:
    stage.held = True
    for _hour in range(3):
        assert not stage.stuck_after(3600.0)
    stage.held = False
    assert stage.stuck_after(10.0)


def test_another_step_has_its_own_limit_and_name(stage: Stage) -> None:
    stage.task.begin("loading the model x", 100.0)
    assert not stage.stuck_after(99.0)
    assert stage.stuck_after(1.0)
    assert str(stage.task.stuck()).startswith("loading the model x has made")


def test_every_task_is_asked_and_one_that_is_made_anew_replaces_the_old(clock: FakeClock) -> None:
    progress = Progress(clock)
    progress.main.begin("serving", 50.0)
    old = progress.task("filing", 10.0)
    old.beat()
    assert progress.stuck() == []
    clock.advance(20.0)
    assert progress.stuck() == ["filing has made no progress for 20 s"]
    progress.task("filing", 10.0).beat()
    assert progress.stuck() == []
    clock.advance(40.0)
    assert len(progress.stuck()) == 2


@pytest.mark.parametrize(("told", "held"), [(b"7 (a) S (b) D 1 2", True), (b"7 (a) D (b) S 1 2", False), (b"", False)])
def test_kernel_tells_whether_it_holds_a_thread(tmp_path: Path, told: bytes, held: bool) -> None:
    assert not held_by_kernel(threading.get_native_id())  # it runs
    assert not held_by_kernel(7, str(tmp_path))
    make_tree(tmp_path, {"7/stat": told})
    assert held_by_kernel(7, str(tmp_path)) is held
