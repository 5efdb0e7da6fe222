"""Daemons that start in a tenth of a second: everything is imported once, and each is a fork of that process.

As a program it reads one JSON object a line from stdin: `{"start": …}` forks a daemon and prints its pid,
`{"reap": PID}` waits for its end and prints how it ended.
"""

from __future__ import annotations

import json
import os
import pkgutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faults import Fault, Faults

_UNEXPECTED = 70


@dataclass(frozen=True)
class Ended:
    """How a daemon ended.

    Attributes:
        code: its exit code, or the negative number of a signal.
        log: what it wrote to stderr.
        calls: what `Faults` reported.
    """

    code: int
    log: str
    calls: list[str]


class Forker:
    """Starts daemons on the working folder that each call names. Close it at the end."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(environ)
        )
        self._alive: set[int] = set()

    def start(
        self,
        root: Path,
        *arguments: str,
        fault: Fault | None = None,
        patched: Mapping[str, Any] | None = None,
        command: str = "run",
    ) -> int:
        """Start `pigeonholed run` on `root/pigeonholed.toml`; returns its pid. Its log is `root/daemon.log`.

        Args:
            root: the working folder.
            arguments: of `run`, or of `command`.
            fault: what goes wrong in it; its calls are then reported to `root/calls`.
            patched: values to put in place of attributes of modules or classes, by their full names: shorter waits.
            command: another one than `run`.
        """
        told = None if fault is None else fault.to_json()
        request = {
            "start": str(root),
            "arguments": [command, *arguments],
            "fault": told,
            "patched": dict(patched or {}),
        }
        pid = self._ask(request)
        self._alive.add(pid)
        return pid

    def end(self, root: Path, pid: int) -> Ended:
        """Wait for the end of a daemon."""
        code = self._ask({"reap": pid})
        self._alive.discard(pid)
        calls = root / "calls"
        return Ended(code, (root / "daemon.log").read_text(), calls.read_text().splitlines() if calls.exists() else [])

    def kill(self, root: Path, pid: int) -> None:
        """Kill a daemon that is alive."""
        os.kill(pid, signal.SIGKILL)
        ended = self.end(root, pid)
        assert ended.code == -signal.SIGKILL, f"the daemon had ended by itself with {ended.code}: {ended.log[-3000:]}"

    def abandon(self) -> None:
        """Kill every daemon that a test has left alive."""
        for pid in self._alive:
            os.kill(pid, signal.SIGKILL)
            self._ask({"reap": pid})
        self._alive.clear()

    def close(self) -> None:
        self.abandon()
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _ask(self, request: Mapping[str, Any]) -> int:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


@contextmanager
def forking(environ: Mapping[str, str]) -> Iterator[Forker]:
    """A forker that is closed at the end."""
    forker = Forker(environ)
    try:
        yield forker
    finally:
        forker.close()


def main() -> None:
    """Import everything, then serve stdin."""
    import alembic.command
    import openvino
    import psycopg
    import sqlalchemy.dialects.postgresql.psycopg
    import sqlalchemy.dialects.sqlite

    import pigeonholed.commands.run
    import pigeonholed.config
    import pigeonholed.pipeline

    assert all((alembic.command, openvino, psycopg, sqlalchemy.dialects, pigeonholed.config, pigeonholed.pipeline))
    for line in sys.stdin:
        request = json.loads(line)
        if "start" in request:
            print(_start(Path(request["start"]), request), flush=True)
        else:
            print(os.waitstatus_to_exitcode(os.waitpid(request["reap"], 0)[1]), flush=True)


def _start(root: Path, request: Mapping[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = _UNEXPECTED
    try:
        _become(root, request)
        from pigeonholed.cli import cli

        cli([*request["arguments"], "--config", str(root / "pigeonholed.toml")], standalone_mode=True)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    os._exit(code)


def _become(root: Path, request: Mapping[str, Any]) -> None:
    """Set up the process that is to be a daemon: where it writes, what waits shorter, what goes wrong."""
    appending = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    log = os.open(root / "daemon.log", appending)
    for stream, source in ((0, os.open(os.devnull, os.O_RDONLY)), (1, log), (2, log)):
        os.dup2(source, stream)  # what was there is the forker's
    for name, value in request["patched"].items():
        owner, _, attribute = name.rpartition(".")
        setattr(pkgutil.resolve_name(owner), attribute, value)
    if request["fault"] is not None:
        (root / "calls").unlink(missing_ok=True)
        Faults(Fault.from_json(request["fault"]), os.open(root / "calls", appending)).install()


if __name__ == "__main__":
    main()
