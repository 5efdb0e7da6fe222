"""The threads that classify, one a model: one that never comes back ends the service."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pigeonholed.errors import Spent

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence

    from pigeonholed.crew import Crew
    from pigeonholed.engines.lanes import Lane

ANSWERS_WITHIN_S = 300.0
"""A batch that takes longer hangs: a version whose warming takes longer than that is never taken into service."""

_LOOK_EVERY_S = 0.5


class Classifiers:
    """Threads that classify. `give_up` and `join` are for one and the same other thread.

    Args:
        lanes: what each is to work through.
        work: what each does until its lane has run out.
        crew: runs them.
    """

    def __init__(self, lanes: Sequence[Lane], work: Callable[[Lane], None], crew: Crew) -> None:
        self._crew = crew
        self._threads = [
            (lane, crew.start(f"classifier-{lane.served.bundle.name}", lambda lane=lane: work(lane)))  # type: ignore[misc]
            for lane in lanes
        ]

    def give_up(self) -> None:
        """End the service if a model does not answer; its thread, which holds the network, cannot be replaced."""
        silent = [(lane, thread) for lane, thread in self._threads if _is_silent(lane)]
        for lane, thread in silent:
            self._threads.remove((lane, thread))
            self._crew.dismiss(thread)
            self._crew.fail(
                Spent(
                    f"the model {lane.served.bundle.name} has not answered for {ANSWERS_WITHIN_S:.0f} s, and only a "
                    "new process is rid of it; start it again: the pictures are safe"
                )
            )

    def join(self) -> None:
        """Wait for all but those that never come back."""
        while self._threads:
            self.give_up()
            self._threads = [(lane, thread) for lane, thread in self._threads if _lives(thread)]


def _is_silent(lane: Lane) -> bool:
    asked_s = lane.asked_s
    return asked_s is not None and time.monotonic() - asked_s >= ANSWERS_WITHIN_S


def _lives(thread: threading.Thread) -> bool:
    thread.join(_LOOK_EVERY_S)
    return thread.is_alive()
