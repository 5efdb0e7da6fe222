"""Faults at will inside a real daemon: at its n-th call to the disk or the database it dies, or the call fails.

The calls are wrapped beneath the daemon's own code: the functions of `os` and `fcntl` that it uses, the two of the C
library that `Disk` calls itself, and COMMIT. A call is named by the code that asks for it, as in
`claiming._take:rename`.
"""

from __future__ import annotations

import builtins
import ctypes
import errno
import fcntl
import io
import json
import os
import re
import shlex
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

CHANGES = (
    "rename", "replace", "link", "symlink", "unlink", "mkdir", "rmdir", "fsync", "fdatasync", "ftruncate", "truncate",
    "write", "pwrite", "copy_file_range", "sendfile", "chmod", "fchmod",
)  # fmt: skip
LOOKS = ("open", "read", "readv", "pread", "lstat", "stat", "fstat", "statvfs", "scandir", "listdir", "utime")
CONTROLS = ("ioctl", "flock", "fcntl")
_CREATES = os.O_CREAT
# Who calls these is of interest, not what they call.
_BENEATH = frozenset({"beneath", "custody", "disk", "durable", "output", "patience", "probing"})
_ANY = ""
_EACH = "each"


@dataclass(frozen=True)
class Fault:
    """What goes wrong, and where.

    Attributes:
        what: `kill` the process, `fail` the call, or have it `lie`: it does its work and then says that it failed.
        site: the call that it concerns; `""` counts all calls that change something as one sequence; `each` concerns
            every site for itself, `each rename` every site of such calls.
        first: the first call that it concerns, from 1.
        times: how many calls from there on; beyond them all is well again.
        code: name of the error.
        after: `kill` comes after the call, not before.
        serving: calls count only while a built service serves.
        rebuilding: with `serving`, and when that has failed, those of what is built after it, too.
    """

    what: str = "none"
    site: str = _ANY
    first: int = 1
    times: int = 1
    code: str = "EIO"
    after: bool = False
    serving: bool = False
    rebuilding: bool = False

    def __str__(self) -> str:
        when = "after" if self.after else "before"
        where = f"call {self.first} of {self.site or 'all'}"
        if self.what == "kill":
            return f"killed {when} {where}"
        return f"{self.code} {self.times} times from {where} on" + (" though it was done" if self.what == "lie" else "")

    def to_json(self) -> str:
        """For the environment of a daemon; `from_json` is the inverse."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Fault:
        return cls(**json.loads(text))

    def concerns(self, site: str) -> bool:
        """Whether a call is one of those that it means."""
        kind, _, calls = self.site.partition(" ")
        if kind == _EACH:
            return site.partition(":")[2].startswith(calls)
        return self.site in {_ANY, site}

    def replay(self) -> str:
        """What to put before the same command, so that it does this and nothing else."""
        return f"PIGEONHOLED_TEST_FAULT={shlex.quote(self.to_json())}"


def _asked_for() -> Fault | None:
    text = os.environ.get("PIGEONHOLED_TEST_FAULT")
    return None if text is None else Fault.from_json(text)


FAULT = _asked_for()
"""The one fault that is to be tried again, or None."""


class Faults:
    """Wraps the calls of this process, counts them, and does to them what a `Fault` says.

    Args:
        fault: what is to happen; a `Fault()` only counts.
        report: a descriptor that the name of each call of the fault's kind is written to, a line each.
    """

    def __init__(self, fault: Fault, report: int) -> None:
        self._fault = fault
        self._report = report
        self._write, self._kill = os.write, os.kill
        self._lock = threading.Lock()
        self._seen: Counter[str] = Counter()
        self._statements = threading.local()
        self._armed = not fault.serving

    def install(self) -> None:
        """Wrap everything, for the rest of the life of this process."""
        for name in CHANGES + LOOKS:
            if hasattr(os, name):
                setattr(os, name, self._wrapped(name, getattr(os, name)))
        for name in CONTROLS:
            setattr(fcntl, name, self._wrapped(name, getattr(fcntl, name)))
        builtins.open = io.open = self._wrapped_open(open)  # type: ignore[assignment]
        self._wrap_library()
        self._wrap_commit()
        self._wrap_readiness()

    def _wrapped(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            called, changes = name, name in CHANGES or name == "ioctl"
            if name == "open" and arguments[1] & _CREATES:
                called, changes = "create", True
            return self._pass(called, changes, lambda: original(*arguments, **named), _raise)

        return call

    def _wrapped_open(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(file: Any, mode: str = "r", *arguments: Any, **named: Any) -> Any:
            creates = not mode.startswith("r")
            name = "create" if creates else "open"
            return self._pass(name, creates, lambda: original(file, mode, *arguments, **named), _raise)

        return call

    def _pass(self, name: str, changes: bool, call: Callable[[], Any], fail: Callable[[int], Any]) -> Any:
        """Let a call through, or not."""
        site = _site(name) if self._armed else None
        if site is None or not (struck := self._strikes(site, changes)):
            return call()
        if self._fault.what == "kill":
            if self._fault.after:
                call()
            self._say(f"! {site}")
            self._kill(os.getpid(), signal.SIGKILL)
        if self._fault.what == "lie":
            call()
        assert struck
        return fail(getattr(errno, self._fault.code))

    def _strikes(self, site: str, changes: bool) -> bool:
        """Count a call; whether the fault concerns it."""
        fault = self._fault
        if not changes and (fault.site == _ANY or fault.what == "lie"):
            return False
        with self._lock:
            key = _ANY if fault.site == _ANY else site
            self._seen[key] += 1
            number = self._seen[key]
            if fault.what == "none":
                self._say(site)
        return fault.what != "none" and fault.concerns(site) and fault.first <= number < fault.first + fault.times

    def _say(self, line: str) -> None:
        self._write(self._report, f"{line}\n".encode())

    def _wrap_library(self) -> None:
        from pigeonholed.disk import Disk

        originally, faults = Disk.__init__, self

        def prepared(disk: Any, *arguments: Any, **named: Any) -> None:
            originally(disk, *arguments, **named)
            disk._renameat2 = faults._wrapped_in_c("renameat2", disk._renameat2)
            disk._syncfs = faults._wrapped_in_c("syncfs", disk._syncfs)

        Disk.__init__ = prepared  # type: ignore[method-assign]

    def _wrapped_in_c(self, name: str, original: Any) -> Any:
        def fail(code: int) -> int:
            ctypes.set_errno(code)
            return -1

        return original and (lambda *arguments: self._pass(name, True, lambda: original(*arguments), fail))

    def _wrap_commit(self) -> None:
        from sqlalchemy import event
        from sqlalchemy.engine import Engine
        from sqlalchemy.engine.default import DefaultDialect

        originally, faults = DefaultDialect.do_commit, self

        @event.listens_for(Engine, "before_cursor_execute")
        def remember(_connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
            if (said := _summary(statement)) is not None:
                faults._said().append(said)

        def commit(dialect: Any, connection: Any) -> None:
            said = tuple(dict.fromkeys(faults._said()))
            faults._said().clear()
            refuse = partial(_refuse, dialect.loaded_dbapi.OperationalError)
            # A transaction that only read has no answer to lose. Each new connection to a server begins with several of
            # those: if they failed, too, no connection would come to be for the longest time.
            faults._pass("commit " + "+".join(said), bool(said), lambda: originally(dialect, connection), refuse)

        DefaultDialect.do_commit = commit  # type: ignore[method-assign]

    def _said(self) -> list[str]:
        """The statements of this thread's transaction."""
        if not hasattr(self._statements, "said"):
            self._statements.said = []
        said: list[str] = self._statements.said
        return said

    def _wrap_readiness(self) -> None:
        from pigeonholed.service import Service

        originally, faults = Service.run, self

        def run(service: Service) -> None:
            faults._armed = True
            try:
                originally(service)
            finally:
                faults._armed = faults._fault.rebuilding or not faults._fault.serving

        Service.run = run  # type: ignore[method-assign]


def _raise(code: int) -> None:
    raise OSError(code, os.strerror(code))


def _refuse(kind: type[Exception], code: int) -> None:
    full = code in {errno.ENOSPC, errno.EDQUOT}
    raise kind("database or disk is full" if full else "disk I/O error")


def _summary(statement: str) -> str | None:
    """`INSERT images` or `UPDATE images.status`; None for what changes nothing."""
    words = re.match(r"(INSERT|DELETE)\s+(?:INTO|FROM)\s+(\w+)|(UPDATE)\s+(\w+)\s+SET\s+(\w+)", statement)
    if words is None:
        return None
    verb, table, update, updated, column = words.groups()
    return f"{verb} {table}" if verb else f"{update} {updated}.{column}"


def _site(name: str) -> str | None:
    """Who asks for a call, and for what; None when it is not the daemon's own code."""
    frame = sys._getframe(2)
    found = None
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.startswith("pigeonholed."):
            module = module.removeprefix("pigeonholed.")
            found = f"{module}.{frame.f_code.co_name}:{name}"
            if module not in _BENEATH:
                break
        frame = frame.f_back  # type: ignore[assignment]
    return found
