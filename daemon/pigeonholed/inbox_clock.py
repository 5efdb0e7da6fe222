"""What time it is where the files of an inbox get theirs: a file has settled by the clock of its file system."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from pigeonholed.filesystems import gives_events

if TYPE_CHECKING:
    from pigeonholed.output import Output

_CLOCK_REALTIME_COARSE = 5  # of Linux, which Python's `time` does not name: what local file systems put on files


def now_ns_of(inbox: str, output: Output) -> int:
    """The time of the file system of an inbox, in ns since the epoch; 0 where nobody can tell: one on another machine.

    The output's file system is asked where it is the same one. Else the kernel gives all local ones its own time.
    """
    try:
        if os.stat(inbox).st_dev == os.stat(output.private).st_dev:
            return output.now_ns()
        return time.clock_gettime_ns(_CLOCK_REALTIME_COARSE) if gives_events(inbox) else 0
    except OSError:
        return 0  # it is away
