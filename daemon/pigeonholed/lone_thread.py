"""A thread for what only one thread may do: it begins with the first work, and ends when there is none for long."""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from pigeonholed.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class LoneThread:
    """Does what any thread hands over, one thing after another. At most one such thread is there at a time.

    Args:
        name: of the thread.
        on_end: called by it when it ends: what it owned goes with it.
        idle_s: it ends when it had nothing to do for so long.
    """

    def __init__(self, name: str, on_end: Callable[[], None], idle_s: float) -> None:
        self._name = name
        self._on_end = on_end
        self._idle_s = idle_s
        self._lock = threading.Lock()
        self._work: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self.closing = threading.Event()

    def do(self, work: Callable[[], T]) -> T:
        """Return what `work` returns, or raise what it raises.

        Raises:
            Unavailable: it was closed.
        """
        done: Future[T] = Future()
        with self._lock:
            if self.closing.is_set():
                raise Unavailable("the service is ending: ask again when it is there")
            self._work.put((work, done))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
        return done.result()

    def close(self, timeout_s: float) -> None:
        """Take no more work, and wait for what is being done. Long work should look at `closing`."""
        with self._lock:
            self.closing.set()
            thread = self._thread
            self._work.put(None)
        if thread is not None:
            thread.join(timeout_s)

    def _run(self) -> None:
        while (next_work := self._next()) is not None:
            work, done = next_work
            try:
                result = work()
            except BaseException as error:
                done.set_exception(error)
            else:
                done.set_result(result)

    def _next(self) -> tuple[Callable[[], Any], Future[Any]] | None:
        while True:
            try:
                next_work = self._work.get(timeout=self._idle_s)
            except queue.Empty:
                next_work = None
            if next_work is not None:
                return next_work
            with self._lock:  # nobody hands over anything between the last look and the end
                if self._work.empty():
                    self._thread = None
                    self._on_end()
                    return None
