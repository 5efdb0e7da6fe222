"""The command after each batch: real scripts that are slow, fail, fork, are deaf or talk without end."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from helpers import fingerprint_of, make_arrival
from pigeonholed import errand
from pigeonholed.entries import Plan
from pigeonholed.errand import Ended
from pigeonholed.errors import Misconfigured
from pigeonholed.hook import Hook, check, lines_of
from pigeonholed.images import Placement, Prediction, Reason
from pigeonholed.metrics import HookRun, Metrics
from running import until

SHA256 = "ab" * 32


def plan_of(number: int = 1, path: str = "s/x.png") -> Plan:
    arrival = make_arrival(path, number)
    prediction = Prediction("tiny", 3, (("cat", 0.75), ("dog", 0.25)))
    return Plan(arrival, fingerprint_of(arrival, SHA256), Placement.SORTED, f"cat/{path}", prediction)


def script(tmp_path: Path, body: str, name: str = "hook") -> list[str]:
    """A program of Python that is run by its path, as people's are."""
    file = tmp_path / name
    file.write_text(f"#!{sys.executable}\nimport os, sys, time\n{body}\n")
    file.chmod(0o755)
    return [str(file)]


def run(command: list[str], data: bytes = b"", limit_s: float = 20.0, **environ: str) -> Ended:
    ends_s = time.monotonic() + limit_s
    return errand.run(command, data, lambda: ends_s, {"PATH": os.environ["PATH"], **environ})


class TestErrand:
    def test_command_reads_what_it_is_given_and_is_heard(self, tmp_path: Path) -> None:
        command = script(tmp_path, "print(len(sys.stdin.read())); print('oh', file=sys.stderr); sys.exit(3)")
        ended = run(command, b"x" * 300_000)
        assert (ended.code, sorted(ended.said.split())) == (3, [b"300000", b"oh"])

    def test_command_gets_no_variable_that_is_for_us_and_none_of_our_files(self, tmp_path: Path) -> None:
        command = script(tmp_path, "print(sorted(os.environ), [f for f in os.listdir('/proc/self/fd') if int(f) > 2])")
        file = os.open(tmp_path / "ours", os.O_CREAT | os.O_RDWR)
        said = run(command, PIGEONHOLED__DATABASE__URL="s", PGPASSWORD="s", NOTIFY_SOCKET="s", THEIRS="t").said
        os.close(file)
        assert b"THEIRS" in said
        assert not any(name in said for name in (b"PIGEONHOLED", b"PGPASSWORD", b"NOTIFY"))
        assert said.count(b"'3'") == 1  # the listing itself
        assert b"'4'" not in said

    def test_command_that_does_not_read_is_not_waited_for(self, tmp_path: Path) -> None:
        assert run(script(tmp_path, "os.close(0); print('done')"), b"x" * 5_000_000) == Ended(0, b"done\n")
        assert run(script(tmp_path, "pass"), b"x" * 5_000_000).code == 0

    def test_command_that_talks_without_end_is_listened_to_for_a_while(self, tmp_path: Path) -> None:
        ended = run(script(tmp_path, "sys.stdout.write('y' * 5_000_000)"))
        assert (ended.code, len(ended.said)) == (0, 16_384)

    def test_command_that_takes_too_long_is_killed_with_its_children(self, tmp_path: Path) -> None:
        body = "pid = os.fork()\nif pid: print(pid, flush=True)\ntime.sleep(60)"
        started_s = time.monotonic()
        ended = run(script(tmp_path, body), b"x" * 5_000_000, limit_s=1.0)
        assert ended.code is None
        assert time.monotonic() - started_s < 20.0
        if ended.said:  # it had come so far
            until(lambda: _is_gone(int(ended.said)), "the end of the child")

    def test_child_that_stays_and_holds_the_pipes_is_not_waited_for_and_killed(self, tmp_path: Path) -> None:
        body = "pid = os.fork()\nif not pid: time.sleep(60)\nprint(pid, flush=True)\nos._exit(0)"
        started_s = time.monotonic()
        ended = run(script(tmp_path, body), limit_s=50.0)
        assert ended.code == 0
        assert time.monotonic() - started_s < 40.0
        until(lambda: _is_gone(int(ended.said.split()[0])), "the end of the child")

    def test_command_that_is_killed_says_by_what(self, tmp_path: Path) -> None:
        assert run(script(tmp_path, "os.kill(os.getpid(), 15)")).code == -15

    def test_command_that_cannot_be_killed_is_left(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """One that became another user's."""
        killed: list[int] = []

        def refuse(group: int, _signal: int) -> None:
            killed.append(group)
            raise PermissionError

        monkeypatch.setattr(os, "killpg", refuse)
        monkeypatch.setattr(errand, "_KILLED_WITHIN_S", 0.05)
        monkeypatch.setattr("subprocess.Popen.__del__", lambda _process: None)
        assert run(script(tmp_path, "time.sleep(60)"), limit_s=0.2).code is None
        os.kill(killed[0], 9)
        os.waitpid(killed[0], 0)


def _is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


class TestLines:
    def test_each_result_is_a_line_of_ascii_with_the_keys_of_the_documents(self) -> None:
        hostile = "s/\x1b[2J\n\udcff\u202eé.png"
        arrival = make_arrival("none.png", 2)
        stays = replace(plan_of(3), destination="")
        refused = Plan(
            arrival, fingerprint_of(arrival, None), Placement.REJECTED, "_rejected/x", None, Reason.IO_ERROR, "d"
        )
        lines = lines_of([plan_of(1, hostile), refused, stays]).decode("ascii").splitlines()
        first, second, third = map(json.loads, lines)
        assert all(line.isprintable() for line in lines)
        assert first == {
            "id": 1, "inbox": "camera", "path": "s/\x1b[2J\n\\xff\u202eé.png", "outcome": "sorted", "reason": None,
            "label": "cat", "confidence": 0.75, "model": "tiny", "version": 3,
            "destination": "cat/s/\x1b[2J\n\\xff\u202eé.png", "sha256": SHA256,
        }  # fmt: skip
        assert (second["outcome"], second["reason"], second["label"], second["sha256"]) == (
            "rejected",
            "io-error",
            None,
            None,
        )
        assert third["destination"] is None


class TestCheck:
    def test_what_can_be_run_is_and_none_is_none(self, tmp_path: Path) -> None:
        check([])
        check(["sh", "-c", "true"])
        check(script(tmp_path, ""))

    @pytest.mark.parametrize("kind", ["missing", "missing path", "plain file", "folder"])
    def test_what_cannot_be_run_is_refused_in_one_sentence(self, tmp_path: Path, kind: str) -> None:
        (tmp_path / "plain").write_text("echo")
        name = {"missing": "no-such-program-\x1b", "missing path": "/no/such", "folder": str(tmp_path)}
        with pytest.raises(Misconfigured) as refused:
            check([name.get(kind, str(tmp_path / "plain"))])
        assert "cannot run the hook" in str(refused.value)
        assert str(refused.value).isprintable()
        assert ("chmod +x" in str(refused.value)) is (kind in ("plain file", "folder"))


class Desk:
    """A hook and what it has counted."""

    def __init__(self, command: list[str], **options: Any) -> None:
        self.metrics = Metrics(process=False)
        self.troubles: list[str] = []
        limit_s = options.pop("limit_s", 30.0)
        self.hook = Hook(
            command, limit_s, self.metrics, trouble=lambda kind, _what: self.troubles.append(kind), **options
        )

    def runs(self, result: HookRun) -> int:
        return int(self.metrics.hook_runs_total.labels(result)._value.get())

    def dropped(self) -> int:
        return int(self.metrics.hook_batches_dropped_total._value.get())


@pytest.fixture(autouse=True)
def every_level() -> None:
    """A command that an earlier test ran may have set the log to warnings only."""
    structlog.reset_defaults()


@pytest.fixture
def desk() -> Iterator[Callable[..., Desk]]:
    made: list[Desk] = []

    def make(command: list[str], **options: Any) -> Desk:
        made.append(Desk(command, **options))
        return made[-1]

    yield make
    for one in made:
        if one.hook._thread.is_alive():
            one.hook.close()


class TestHook:
    def test_batches_are_told_in_their_order_one_at_a_time(self, tmp_path: Path, desk: Callable[..., Desk]) -> None:
        told = tmp_path / "told"
        body = f"out = open({str(told)!r}, 'a'); out.write('['); out.write(sys.stdin.read()); out.write(']')"
        it = desk(script(tmp_path, body))
        it.hook.start()
        for number in range(1, 4):
            it.hook.offer([plan_of(number), plan_of(number + 10)])
        until(lambda: it.runs(HookRun.OK) == 3, "three runs")
        batches = told.read_text().strip("[]").split("][")
        assert [[json.loads(line)["id"] for line in batch.splitlines()] for batch in batches] == [
            [1, 11], [2, 12], [3, 13],
        ]  # fmt: skip
        assert (it.dropped(), it.troubles) == (0, [])

    def test_failures_are_counted_and_told_and_the_next_batch_follows(
        self, tmp_path: Path, desk: Callable[..., Desk]
    ) -> None:
        body = "print('\\x1b[31mno\\n\\nline two' + 'x' * 999); [print(n) for n in range(50)]; sys.exit(7)"
        it = desk(script(tmp_path, body))
        with capture_logs() as logs:
            it.hook.start()
            it.hook.offer([plan_of()])
            (tmp_path / "later").touch()
            until(lambda: it.runs(HookRun.FAILED) == 1, "the first run")
            (tmp_path / "hook").unlink()
            it.hook.offer([plan_of()])
            until(lambda: it.runs(HookRun.FAILED) == 2, "the second run")
            script(tmp_path, "os.kill(os.getpid(), 9)")
            it.hook.offer([plan_of()])
            until(lambda: it.runs(HookRun.FAILED) == 3, "the third run")
        said = [entry["line"] for entry in logs if entry["event"] == "hook_said"]
        assert len(said) == 20
        assert max(map(len, said)) == 300
        assert [entry["lines_left_out"] for entry in logs if entry["event"] == "hook_said_more"] == [32]
        whys = [entry["why"] for entry in logs if entry["event"] == "hook_failed"]
        assert whys[0] == "it ended with exit code 7"
        assert whys[1].startswith("it cannot be started: No such file")
        assert whys[2] == "it ended with signal 9"
        assert it.troubles == ["hook_failed"] * 3

    def test_slow_one_is_ended_and_nobody_waits_for_it(self, tmp_path: Path, desk: Callable[..., Desk]) -> None:
        it = desk(script(tmp_path, "time.sleep(60)"), limit_s=0.3, capacity=2)
        for _ in range(5):  # nothing takes them yet
            it.hook.offer([plan_of()])
        assert it.dropped() == 3
        it.hook.start()
        until(lambda: it.runs(HookRun.TIMEOUT) == 2, "two runs")

    def test_at_the_end_what_waits_gets_a_grace_and_the_rest_is_dropped(
        self, tmp_path: Path, desk: Callable[..., Desk]
    ) -> None:
        it = desk(script(tmp_path, "time.sleep(60)"), grace_s=0.5)
        it.hook.start()
        for _ in range(3):
            it.hook.offer([plan_of()])
        started_s = time.monotonic()
        it.hook.close()
        assert time.monotonic() - started_s < 20.0
        assert (it.runs(HookRun.TIMEOUT), it.dropped()) == (1, 2)
        it.hook.offer([plan_of()])
        assert it.dropped() == 3

    def test_at_the_end_quick_ones_are_all_told(self, tmp_path: Path, desk: Callable[..., Desk]) -> None:
        it = desk(script(tmp_path, "sys.stdin.read()"), grace_s=60.0)
        it.hook.start()
        for _ in range(3):
            it.hook.offer([plan_of()])
        it.hook.close()
        assert (it.runs(HookRun.OK), it.dropped()) == (3, 0)

    def test_offering_never_waits(self, tmp_path: Path, desk: Callable[..., Desk]) -> None:
        it = desk(script(tmp_path, "time.sleep(60)"), grace_s=0.0)
        it.hook.start()
        done = threading.Event()

        def offer() -> None:
            for number in range(2000):
                it.hook.offer([plan_of(number)])
            done.set()

        threading.Thread(target=offer, daemon=True).start()
        assert done.wait(20.0)
        assert it.dropped() >= 2000 - 64 - 1
