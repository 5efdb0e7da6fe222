"""The way of pictures to one model: how many are on it, and the queue at its end."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pigeonholed.channel import Channel
    from pigeonholed.images import Decoded
    from pigeonholed.imaging import PixelSpec
    from pigeonholed.serving import Served


class Flow:
    """How many files are on their way to a model. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0

    def add(self, count: int) -> None:
        """More are on their way."""
        with self._lock:
            self._count += count

    def arrived(self, count: int) -> bool:
        """Some have arrived or left the way; true when none is left on it."""
        with self._lock:
            self._count -= count
            return self._count == 0

    def count(self) -> int:
        """How many are on their way now."""
        return self._count


@dataclass(slots=True)
class Lane:
    """The queue in front of one model.

    Attributes:
        served: what classifies the next batch; another version is put in its place while the service runs.
        decoded: pictures for it.
        flow: pictures on their way to it.
        asked_s: when it was given the batch that it has now; None while it has none.
    """

    served: Served
    decoded: Channel[Decoded]
    flow: Flow = field(default_factory=Flow)
    asked_s: float | None = None

    @property
    def spec(self) -> PixelSpec:
        """What the model wants to see now."""
        return self.served.spec
