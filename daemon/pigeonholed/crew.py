"""The threads of a pipeline: if one fails, all end, and the first error is what the process reports."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from pigeonholed.channel import Closed
from pigeonholed.patience import GivenUp
from pigeonholed.writer import Stopped

if TYPE_CHECKING:
    from collections.abc import Callable

_ENDINGS = (Closed, GivenUp, Stopped)
"""How a thread ends that was torn down on purpose; the disk is the truth, and the next start goes on from there."""


class Crew:
    """Runs the stages.

    Args:
        on_failure: called by each thread that does not end by itself; it must make the others end.
    """

    def __init__(self, on_failure: Callable[[], None]) -> None:
        self._on_failure = on_failure
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self.error: BaseException | None = None

    def start(self, name: str, work: Callable[[], None]) -> threading.Thread:
        """Run `work` in a thread of its own."""
        thread = threading.Thread(target=self._run, args=(work,), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def dismiss(self, thread: threading.Thread) -> None:
        """Expect no more of a thread: it hangs, and may end or not."""
        self._threads.remove(thread)

    def fail(self, error: BaseException) -> None:
        """Make all end because of `error`, unless they end already."""
        with self._lock:
            if self.error is not None:
                return
            self.error = error
        self._on_failure()

    def dead(self) -> list[str]:
        """The names of threads that have ended."""
        return [thread.name for thread in self._threads if not thread.is_alive()]

    def check(self) -> None:
        """Raise what made a stage fail, if one did."""
        if self.error is not None:
            raise self.error

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except _ENDINGS:
            self._on_failure()
        except BaseException as error:
            self.fail(error)
