"""Locks that say who holds what: one daemon a state folder and a database file, one database an output folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from dataclasses import dataclass
from typing import Self

COMMAND = "command"
"""The purpose of a command that does one thing and ends."""

_COMMANDS_END_WITHIN_S = 10.0
_LOOK_EVERY_S = 0.05


class Held(Exception):
    """Another process holds the lock.

    Attributes:
        path: the lock file.
        holder: the pid that the holder wrote down, or an empty string.
        purpose: what it said that it holds the lock for, or an empty string.
    """

    def __init__(self, path: str, holder: str, purpose: str = "") -> None:
        super().__init__(f"{path} is held by process {holder or '(unknown)'}")
        self.path = path
        self.holder = holder
        self.purpose = purpose


@dataclass(frozen=True, slots=True)
class Lock:
    """An exclusive `flock` that the kernel drops when the process dies, however it dies."""

    path: str
    fd: int

    @classmethod
    def take(cls, path: str, *, mode: int = 0o600, purpose: str = "") -> Self:
        """Take the lock at once or not at all; `purpose` is one word for others to read.

        Raises:
            Held: another process has it.
            OSError: the file cannot be made or locked.
        """
        # O_CLOEXEC: a child must not keep the lock of a dead daemon alive.
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
        try:
            _lock(fd, path)
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()} {purpose}".strip().encode("ascii") + b"\n", 0)
        except BaseException:
            os.close(fd)  # and with it the lock, if it was ours already
            raise
        return cls(path, fd)

    @classmethod
    def take_after_commands(cls, path: str, *, purpose: str = "") -> Self:
        """As `take`, but a command that holds the lock for a moment is waited for, up to 10 s.

        So is whoever has not said yet who it is, or has just taken that back, for it may be a command.

        Raises:
            Held: another process has it, and is no command, or does not end.
            OSError: the file cannot be made or locked.
        """
        gives_up_s = time.monotonic() + _COMMANDS_END_WITHIN_S
        while True:
            try:
                return cls.take(path, purpose=purpose)
            except Held as held:
                if (held.holder and held.purpose != COMMAND) or time.monotonic() >= gives_up_s:
                    raise
            time.sleep(_LOOK_EVERY_S)

    def release(self) -> None:
        """Give the lock back; the file stays, so that no second inode of that name can be locked."""
        with contextlib.suppress(OSError):  # what stands in the file is only for people to read
            os.ftruncate(self.fd, 0)
        os.close(self.fd)


def holder_of(path: str) -> str | None:
    """The pid of the process that holds a lock; None where nobody does.

    Found without touching the lock: a daemon that starts at this moment must not find it taken.
    """
    try:
        inode = str(os.stat(path).st_ino)
        with open("/proc/locks", encoding="ascii", errors="replace") as table:
            held = any(fields[1] == "FLOCK" and fields[5].endswith(f":{inode}") for fields in map(str.split, table))
        if not held:
            return None
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read(64).partition(" ")[0].strip() or "unknown"
    except (OSError, IndexError):
        return None


def _lock(fd: int, path: str) -> None:
    """Lock an open file, or say who has it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        holder, _, purpose = os.pread(fd, 64, 0).decode("ascii", "replace").strip().partition(" ")
        raise Held(path, holder, purpose) from None
