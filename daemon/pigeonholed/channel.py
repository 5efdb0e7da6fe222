"""A bounded queue between two stages that ends by itself.

`queue.Queue.shutdown` of Python 3.13 can replace the closing part one day; the bound counts items, not lists.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

T = TypeVar("T")


class Closed(Exception):
    """Nothing more can be put in: the pipeline is being torn down."""


class Channel(Generic[T]):
    """Passes groups of items from producers to consumers, in order.

    Args:
        capacity: items (not groups) that may wait; `put` blocks beyond it. A group larger than that passes alone.

    Any thread may call any method.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._groups: deque[Sequence[T]] = deque()
        self._waiting = 0
        self._closed = False
        self._condition = threading.Condition()

    def __len__(self) -> int:
        """Items waiting now."""
        return self._waiting

    def put(self, group: Sequence[T]) -> None:
        """Add a group, waiting for room.

        Raises:
            Closed: the channel was closed or aborted.
        """
        if not group:
            return
        with self._condition:
            while self._waiting and self._waiting + len(group) > self._capacity and not self._closed:
                self._condition.wait()
            if self._closed:
                raise Closed
            self._groups.append(group)
            self._waiting += len(group)
            self._condition.notify_all()

    def get(self, timeout_s: float | None = None) -> Sequence[T] | None:
        """Take the oldest group; None once closed and empty, or an empty group when `timeout_s` ran out."""
        with self._condition:
            if not self._groups and not self._closed:
                self._condition.wait_for(lambda: self._groups or self._closed, timeout_s)
            if self._groups:
                group = self._groups.popleft()
                self._waiting -= len(group)
                self._condition.notify_all()
                return group
            return None if self._closed else ()

    def wake(self) -> None:
        """Let a consumer that waits in `get` look around: it gets an empty group."""
        with self._condition:
            if not self._groups:
                self._groups.append(())
            self._condition.notify_all()

    def close(self) -> None:
        """No more will come; what waits is still handed out."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()

    def abort(self) -> None:
        """Close, and drop what waits: a stage has failed and the disk is the truth."""
        with self._condition:
            self._groups.clear()
            self._waiting = 0
            self._closed = True
            self._condition.notify_all()

    def __iter__(self) -> Iterator[Sequence[T]]:
        """Groups until the channel is closed and empty."""
        while (group := self.get()) is not None:
            if group:
                yield group
