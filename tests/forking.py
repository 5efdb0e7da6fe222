"""Daemons that start in a tenth of a second: everything is imported once, and each is a fork of that process.

As a program it reads one JSON object a line from stdin: `{"start": …}` forks a daemon and prints its pid,
`{"type": …}` the same for a command as it is typed, `{"reap": PID}` waits for its end and prints how it ended.
"""

from __future__ import annotations

import atexit
import functools
import gc
import json
import math
import os
import pkgutil
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from faults import Fault, Faults

_UNEXPECTED = 70
_MODES = (os.O_RDONLY, os.O_WRONLY | os.O_APPEND, os.O_WRONLY | os.O_APPEND)


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


@dataclass
class Forked:
    """A command that was started; what is asked of a `subprocess.Popen` can be asked of it.

    Attributes:
        pid: its process.
        returncode: None while it runs.
    """

    pid: int
    _forker: Forker
    returncode: int | None = None

    def poll(self) -> int | None:
        return self._await(0.0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._await(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _await(self, timeout_s: float | None) -> int | None:
        if self.returncode is None:
            process = os.pidfd_open(self.pid)  # it stays that process until it is reaped
            try:
                ended = select.poll()  # unlike `select` it takes descriptors beyond 1023
                ended.register(process, select.POLLIN)
                if ended.poll(None if timeout_s is None else math.ceil(timeout_s * 1000)):
                    self.returncode = self._forker.reap(self.pid)
            finally:
                os.close(process)
        return self.returncode


class Forker:
    """Starts daemons on the working folder that each call names. Close it at the end."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(environ)
        )
        self._alive: set[int] = set()
        self._turn = threading.Lock()
        self.works = True

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

    def type(
        self, root: Path, *arguments: str, environ: Mapping[str, str], timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end in a working folder, as `subprocess.run` does; it ends as an interpreter ends.

        Raises:
            subprocess.TimeoutExpired: it was killed after that long.
        """
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            streams = [f"/proc/{os.getpid()}/fd/{stream.fileno()}" for stream in (out, err)]
            command = self.begin(root, *arguments, environ=environ, streams=streams)
            try:
                code = command.wait(timeout_s)
            finally:
                command.kill()
                command.wait()
            said = [os.pread(stream.fileno(), 1 << 30, 0).decode(errors="surrogateescape") for stream in (out, err)]
        said = [text.replace("\r\n", "\n").replace("\r", "\n") for text in said]
        return subprocess.CompletedProcess(list(arguments), code, *said)

    def begin(self, root: Path, *arguments: str, environ: Mapping[str, str], streams: Sequence[str]) -> Forked:
        """Start a command in a working folder; what it says goes to the ends of these two files."""
        request = {"type": str(root), "arguments": arguments, "environ": dict(environ), "streams": streams}
        return Forked(self._ask(request), self)

    def reap(self, pid: int) -> int:
        """The exit code of a process that has ended, or the negative number of a signal."""
        return self._ask({"reap": pid})

    def kill(self, root: Path, pid: int) -> None:
        """Kill a daemon that is alive."""
        os.kill(pid, signal.SIGKILL)
        ended = self.end(root, pid)
        assert ended.code == -signal.SIGKILL, f"the daemon had ended by itself with {ended.code}: {ended.log[-3000:]}"

    def abandon(self) -> None:
        """Kill every daemon that a test has left alive."""
        for pid in self._alive:
            os.kill(pid, signal.SIGKILL)
            if self.works:
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
        with self._turn:
            assert self.works, "an earlier test broke off a question to this forker"
            try:
                self._process.stdin.write(json.dumps(request) + "\n")
                self._process.stdin.flush()
                return int(self._process.stdout.readline())
            except BaseException:  # a timeout, Ctrl-C: the next to ask would take this answer for its own
                self.works = False
                self._process.kill()
                raise


@contextmanager
def forking(environ: Mapping[str, str]) -> Iterator[Forker]:
    """A forker that is closed at the end."""
    forker = Forker(environ)
    try:
        yield forker
    finally:
        forker.close()


def shared_forker() -> Forker:
    """One for commands, until this process ends."""
    if not _shared_forker().works:
        _shared_forker.cache_clear()
    return _shared_forker()


@functools.cache
def _shared_forker() -> Forker:
    forker = Forker(os.environ)
    atexit.register(forker.close)
    return forker


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
    gc.collect()
    gc.freeze()  # no fork looks through what was imported, and none copies it so
    for line in sys.stdin:
        request = json.loads(line)
        if "start" in request:
            print(_start(Path(request["start"]), request), flush=True)
        elif "type" in request:
            if pid := os.fork():
                print(pid, flush=True)
            else:
                _type(request)
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
        traceback.print_exc()
    os._exit(code)


def _type(request: Mapping[str, Any]) -> NoReturn:
    """Be the command line, in the process that was forked for it."""
    os.chdir(request["type"])
    for stream, (path, flag) in enumerate(zip((os.devnull, *request["streams"]), _MODES, strict=True)):
        source = os.open(path, flag)
        os.dup2(source, stream)  # what was there is the forker's
        os.close(source)
    os.environ.clear()
    os.environ.update(request["environ"])
    time.tzset()
    sys.argv[:] = ["pigeonholed", *request["arguments"]]
    code: object = None
    try:
        from pigeonholed.__main__ import main

        main()
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if not isinstance(code, int | None):
        print(code, file=sys.stderr)
        code = 1
    # What an interpreter does at its end, but for taking apart what was imported, which takes a third of a second.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


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
