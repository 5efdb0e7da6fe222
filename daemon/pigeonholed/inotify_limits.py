"""The kernel's limits on watching folders: how high they are, and what to say where one is reached."""

from __future__ import annotations

import ctypes
import errno
import os
from enum import Enum

_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC
_LEAST = {"max_user_watches": 524_288, "max_user_instances": 1024}


class Limit(Enum):
    """A limit for each user of the machine; the value is its name below `fs.inotify`."""

    WATCHES = "max_user_watches"
    INSTANCES = "max_user_instances"

    def value_now(self) -> int | None:
        """How high it is; None where nobody can tell."""
        try:
            with open(f"/proc/sys/fs/inotify/{self.value}", encoding="ascii") as file:
                return int(file.read())
        except (OSError, ValueError):
            return None

    def told(self) -> str:
        """What to do about it: the setting, how high it is, and what would do."""
        now = self.value_now()
        wanted = max(_LEAST[self.value], 2 * (now or 0))
        return (
            f"fs.inotify.{self.value} is {'unknown' if now is None else now} and too low for this user; "
            f"'sysctl fs.inotify.{self.value}={wanted}' raises it, and a line in /etc/sysctl.d/ keeps it"
        )


def limit_of(error: BaseException) -> Limit | None:
    """Which limit an attempt to watch has met; None for any other fault.

    inotify says that no space is left where it has no watches left, and that too many files are open where this user
    has too many queues of events.
    """
    if not isinstance(error, OSError):
        return None
    return {errno.ENOSPC: Limit.WATCHES, errno.EMFILE: Limit.INSTANCES}.get(error.errno or 0)


def exhausted() -> Limit | None:
    """The limit that keeps this user from watching anything at all now; None where there is none."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.inotify_init1(_NONBLOCK_CLOEXEC)
    if fd < 0:
        return limit_of(OSError(ctypes.get_errno(), "inotify"))
    os.close(fd)
    return None
