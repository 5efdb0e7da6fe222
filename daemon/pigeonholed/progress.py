"""Whether the process makes progress: what each thread that matters is at, and for how long already.

Waiting is no fault: for work, for room in the next queue, for a database or a disk that is away. A thread that the
kernel itself holds waits for a disk or a mount, too, which a new process would do just as well.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STAGE_LIMIT_S = 600.0
"""For one batch of a stage, or for one model that is loaded: many times what a slow disk needs."""

LONG_S = 86_400.0
"""For what grows with the database, such as an upgrade."""


def held_by_kernel(thread_id: int, threads: str = "/proc/self/task") -> bool:
    """Whether a thread of this process is in a call to the kernel that nothing can interrupt: a disk or a mount."""
    try:
        with open(f"{threads}/{thread_id}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[:1] == [b"D"]
    except OSError:
        return False


class Task:
    """What one thread is at. `begin`, `beat`, `rest` and `resting` are for that thread, the rest for any.

    Args:
        what: the work, as in "filing".
        limit_s: how long it may go on without a beat.
        waits: whether it waits for something of the machine that is away.
    """

    def __init__(
        self,
        what: str,
        limit_s: float = STAGE_LIMIT_S,
        waits: Callable[[], bool] = lambda: False,
        *,
        clock: Callable[[], float] = time.monotonic,
        held: Callable[[int], bool] = held_by_kernel,
    ) -> None:
        self.what = what
        self.limit_s = limit_s
        self._waits = waits
        self._clock = clock
        self._held = held
        self._thread_id = 0
        self._since_s: float | None = None
        self._excused_s = clock()

    def begin(self, what: str, limit_s: float) -> None:
        """Be at something else from now on."""
        self.what, self.limit_s = what, limit_s
        self.beat()

    def beat(self) -> None:
        """Another step is done, and the next one begins; cheap enough for every file."""
        self._since_s = self._clock()

    def rest(self) -> None:
        """Be at nothing: what is waited for is others' work."""
        self._since_s = None

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Within the block only others' work is waited for."""
        self.rest()
        try:
            yield
        finally:
            self.beat()

    def adopt(self) -> None:
        """Be the task of this thread."""
        self._thread_id = threading.get_native_id()
        self.beat()

    def stuck(self) -> str | None:
        """What is wrong with it, as a sentence without its full stop; None when nothing is."""
        since_s, now_s = self._since_s, self._clock()
        if since_s is None:
            return None
        if self._waits() or (now_s - since_s >= self.limit_s and self._held(self._thread_id)):
            self._excused_s = now_s  # and when that is over, it has the full time again
        if now_s - max(since_s, self._excused_s) < self.limit_s:
            return None
        return f"{self.what} has made no progress for {now_s - since_s:.0f} s"


class Progress:
    """The tasks of a process; any thread may ask for what is stuck.

    Attributes:
        main: the task of the main thread, which has one from the start to the end.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tasks: dict[str, Task] = {}
        self.main = self.task("starting", LONG_S)

    def task(self, what: str, limit_s: float = STAGE_LIMIT_S, waits: Callable[[], bool] = lambda: False) -> Task:
        """A task, in the place of an earlier one of that name."""
        task = self._tasks[what] = Task(what, limit_s, waits, clock=self._clock)
        return task

    def stuck(self) -> list[str]:
        """Why there is no progress; empty when there is."""
        return [fault for task in list(self._tasks.values()) if (fault := task.stuck()) is not None]
