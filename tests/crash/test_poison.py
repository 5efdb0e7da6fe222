"""Pictures that kill or hang the decoder of the real program: they end under `_rejected/poison`, nothing else does."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import poisoned
from auditor import audit
from poisoned import GATE, ending
from running import Running, Workspace, picture, until

NEIGHBOURS = 19
LONG = pytest.mark.skipif(
    "PIGEONHOLED_TEST_KILLS" not in os.environ, reason="`make soak` runs it; see test_isolation.py"
)


class Ward(Workspace):
    """A working folder whose daemon has a decoder that some files kill."""

    forks = False

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, poisoned.__file__, *arguments]

    def drop_deadly(self, path: str, does: str, seed: int = 900) -> None:
        assert self.drop(path, picture(220, 60, 40, seed) + ending(does))

    def drop_neighbours(self, prefix: str = "n", count: int = NEIGHBOURS, seed: int = 0) -> None:
        for number in range(count):
            assert self.drop(f"{prefix}{number}.png", picture(220, 60, 40, seed + number))

    def row(self, path: str, status: str = "filed") -> dict[str, Any]:
        (row,) = [row for row in self.rows() if row["source_path"] == path and row["status"] == status]
        return row

    def decoded(self, does: str) -> list[int]:
        """The processes that began to decode files that do this, in order."""
        lines = self.said().splitlines()
        return [int(line.split()[2]) for line in lines if line.startswith(f"decode {does} ")]

    def findings(self, *poison: str) -> list[str]:
        return audit(self.dropped, [self.inbox], self.output, self.database, poison=[path.encode() for path in poison])

    def filed_or_dead(self, running: Running, count: int) -> Callable[[], bool]:
        return lambda: running.process.poll() is not None or self.filed() >= count

    def restart_until_filed(self, count: int) -> list[int]:
        """What a service manager does; the exit codes of the daemons that ended by themselves."""
        ends: list[int] = []
        while True:
            with self.serving() as running:
                until(self.filed_or_dead(running, count), f"{count} results", 60.0)
                if running.process.poll() is None:
                    assert running.terminate() == 0
                    return ends
                ends.append(running.process.returncode)
            assert len(ends) <= 3, self.said()[-3000:]


def make(root: Path, **named: Any) -> Ward:
    ward = Ward.make(root, **named)
    assert isinstance(ward, Ward)
    return ward


@pytest.mark.slow
@pytest.mark.parametrize(
    ("does", "code", "says"),
    [
        ("abort", -signal.SIGABRT, "SIGABRT"),
        pytest.param("segfault", -signal.SIGSEGV, "SIGSEGV", marks=LONG),
        pytest.param("eat", -signal.SIGKILL, "MemoryError", marks=LONG),
    ],
)
def test_picture_that_kills_the_decoder_is_set_aside_and_its_neighbours_are_not(
    tmp_path: Path, does: str, code: int, says: str
) -> None:
    ward = make(tmp_path)
    ward.drop_neighbours()
    ward.drop_deadly("a/deadly.png", does)
    ends = ward.restart_until_filed(NEIGHBOURS + 1)
    assert ends == [code]
    assert ward.findings("a/deadly.png") == []
    row = ward.row("a/deadly.png")
    assert (row["reason"], row["deaths"], row["destination"]) == ("poison", 3, "_rejected/poison/a/deadly.png")
    assert says in row["detail"]
    told = json.loads((ward.output / "_rejected/poison/a/deadly.png.reason.json").read_text())
    assert told["reason"] == "poison"
    assert {row["outcome"] for row in ward.rows() if row["source_path"].startswith("n")} == {"sorted"}


@pytest.mark.slow
def test_picture_that_hangs_is_set_aside_by_a_service_that_goes_on(tmp_path: Path) -> None:
    ward = make(tmp_path, more="[batching]\nmax_decode_s = 1.0\ndecode_workers = 2\n")
    ward.drop_deadly("hangs.png", "hang")
    with ward.serving() as running:
        running.await_event("service_ready")
        until(lambda: ward.decoded("hang"), "the hang")
        ward.drop_neighbours()
        until(ward.filed_or_dead(running, NEIGHBOURS), "the neighbours")
        assert ward.row("hangs.png", "claimed")["deaths"] < 3, "the neighbours had to wait for it"
        until(ward.filed_or_dead(running, NEIGHBOURS + 1), "the verdict", 60.0)
        assert running.terminate() == 0
    assert ward.findings("hangs.png") == []
    row = ward.row("hangs.png")
    assert (row["reason"], row["deaths"]) == ("poison", 3)
    assert "longer than 1 s" in row["detail"]
    daemon = running.process.pid
    assert [pid == daemon for pid in ward.decoded("hang")] == [True, *[False] * 4][: len(ward.decoded("hang"))]


@pytest.mark.slow
def test_picture_is_not_blamed_for_the_deaths_of_the_daemon(tmp_path: Path) -> None:
    """Killed from outside, always while it decodes this picture: at first itself, then through a process."""
    ward = make(tmp_path)
    ward.drop_deadly("slow.png", "wait")
    for life in range(1, 4):
        with ward.serving() as running:
            until(lambda life=life: len(ward.decoded("wait")) >= life, "the decoding")
            running.process.kill()
            running.process.wait()
        child = ward.decoded("wait")[-1]
        assert (child == running.process.pid) is (life == 1)
        until(lambda child=child: not Path(f"/proc/{child}").exists(), "the end of the process that decoded")
        assert ward.row("slow.png", "claimed")["deaths"] == 0
    (ward.root / GATE).touch()
    assert ward.restart_until_filed(1) == []
    assert ward.findings() == []
    assert (ward.row("slow.png")["outcome"], ward.row("slow.png")["deaths"]) == ("sorted", 0)


@pytest.mark.slow
def test_service_serves_others_and_ends_in_order_while_a_suspect_is_decoded(tmp_path: Path) -> None:
    ward = make(tmp_path)
    ward.drop_deadly("slow.png", "wait")
    with ward.serving() as running:
        until(lambda: ward.decoded("wait"), "the decoding")
        running.process.kill()
        running.process.wait()
    with ward.serving() as running:
        until(lambda: len(ward.decoded("wait")) == 2, "the decoding apart")
        ward.drop_neighbours()
        until(ward.filed_or_dead(running, NEIGHBOURS), "the neighbours")
        running.process.send_signal(signal.SIGTERM)
        (ward.root / GATE).touch()
        assert running.process.wait(30) == 0
    assert ward.filed() == NEIGHBOURS + 1
    assert ward.findings() == []


@pytest.mark.slow
def test_one_run_after_the_one_that_died_sets_it_aside_and_a_retry_is_tried_apart(tmp_path: Path) -> None:
    ward = make(tmp_path)
    ward.drop_deadly("deadly.png", "abort")
    ward.drop_neighbours(count=3)
    assert ward.run("run", "--once").returncode == -signal.SIGABRT
    done = ward.run("run", "--once")
    assert done.returncode == 0, done.stderr
    assert ward.findings("deadly.png") == []
    with ward.serving() as running:
        running.await_event("service_ready")
        retried = ward.run("rejected", "retry", "--reason", "poison")
        assert retried.returncode == 0, retried.stderr
        until(ward.filed_or_dead(running, 4), "another verdict")
        assert running.terminate() == 0
    assert running.process.pid not in ward.decoded("abort")
    assert ward.findings("deadly.png") == []
    assert ward.row("deadly.png", "returned")["deaths"] == 3
    again = ward.row("deadly.png")
    assert (again["reason"], again["deaths"]) == ("poison", 3)


@pytest.mark.slow
def test_one_run_ends_though_a_picture_hangs(tmp_path: Path) -> None:
    ward = make(tmp_path, more="[batching]\nmax_decode_s = 0.5\n")
    ward.drop_neighbours(count=3)
    ward.drop_deadly("hangs.png", "hang")
    done = ward.run("run", "--once")
    assert done.returncode == 0, done.stderr
    assert "4 files filed: 1 rejected, 3 sorted" in done.stderr
    assert ward.findings("hangs.png") == []
