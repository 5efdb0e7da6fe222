"""The decoding threads, of which some may hang.

A thread cannot be killed. One that hangs is left behind, another takes its place, and what it had in hand goes to a
process, which can be killed.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import structlog

from pigeonholed.decoding import decode_here
from pigeonholed.errors import Spent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pigeonholed.crew import Crew
    from pigeonholed.decoding import Demand
    from pigeonholed.images import Arrival, Fingerprint
    from pigeonholed.imaging import Picture

log = structlog.get_logger()


class Suspected(Exception):
    """These bytes have killed or hung a decoder: they are decoded in a process of their own."""


class Hands:
    """What one decoding thread has in hand. Only `take_away` is for other threads.

    A thread that hung and comes back learns from `let_go` that its files are no longer its own.

    Args:
        distrusted: hashes of files that are not decoded here.
    """

    def __init__(self, distrusted: set[str | None], clock: Callable[[], float] = time.monotonic) -> None:
        self._distrusted = distrusted
        self._clock = clock
        self._lock = threading.Lock()
        self._held: Sequence[Arrival] | None = None
        self._since_s: float | None = None
        self._sha256: str | None = None
        self._spent_s: float | None = None

    def take(self, arrivals: Sequence[Arrival]) -> None:
        """Begin with files."""
        self._held = arrivals

    def decode(self, data: bytes, fingerprint: Fingerprint, demand: Demand) -> Picture:
        """Decode one of them in this thread; only this counts as hanging, not the wait for a disk.

        Raises:
            ImagingError: it gives no picture.
            Suspected: it must not be decoded here.
        """
        if fingerprint.sha256 in self._distrusted:
            raise Suspected
        self._sha256, self._since_s = fingerprint.sha256, self._clock()
        started_s = time.perf_counter()
        try:
            return decode_here(data, fingerprint, demand)
        finally:
            self._since_s = None
            self._spent_s = time.perf_counter() - started_s

    def take_spent_s(self) -> float | None:
        """How long the last file took to decode; None where none was since the last question."""
        spent_s, self._spent_s = self._spent_s, None
        return spent_s

    def let_go(self) -> bool:
        """Be done with the files; false if they have been taken away."""
        with self._lock:
            held, self._held = self._held, None
            return held is not None

    def take_away(self, after_s: float) -> tuple[Sequence[Arrival], str | None] | None:
        """Take the files of a thread that has decoded one for longer than `after_s`, and the hash of that one."""
        with self._lock:
            since_s = self._since_s
            if since_s is None or self._held is None or self._clock() - since_s < after_s:
                return None
            held, self._held = self._held, None
            return held, self._sha256


@dataclass(frozen=True, slots=True)
class _Decoder:
    """A decoding thread and what it has in hand."""

    hands: Hands
    thread: threading.Thread


class Decoders:
    """Threads that decode. `take_over` and `join` are for one and the same other thread.

    Args:
        count: of threads.
        work: what each does until there is nothing more to do, or its files were taken from it.
        crew: runs them.
        limit_s: one that decodes a file for longer hangs.
        distrusted: hashes of files that they do not decode; gets those that they hung on.
    """

    def __init__(
        self, count: int, work: Callable[[Hands], None], crew: Crew, limit_s: float, distrusted: set[str | None]
    ) -> None:
        self._work = work
        self._crew = crew
        self._limit_s = limit_s
        self._distrusted = distrusted
        self._decoders = [self._start(index) for index in range(count)]
        self._hanging: list[threading.Thread] = []

    def take_over(self) -> list[Sequence[Arrival]]:
        """Replace threads that hang, and return what they had in hand. If too many hang, the service is ended."""
        files = []
        for index, decoder in enumerate(self._decoders):
            taken = decoder.hands.take_away(self._limit_s)
            if taken is None:
                continue
            arrivals, sha256 = taken
            log.error("decoder_hangs", sha256=sha256, longer_than_s=self._limit_s, files=len(arrivals))
            self._distrusted.add(sha256)
            self._crew.dismiss(decoder.thread)
            self._hanging.append(decoder.thread)
            self._decoders[index] = self._start(index)
            files.append(arrivals)
        self._hanging = [thread for thread in self._hanging if thread.is_alive()]
        if len(self._hanging) > len(self._decoders):
            self._crew.fail(
                Spent(
                    f"{len(self._hanging)} decoders hang, and only a new process is rid of them; start it again: "
                    "the pictures are safe, and will be decoded apart from all others"
                )
            )
        return files

    def join(self, timeout_s: float) -> bool:
        """Wait for those that do not hang; false when some still work after `timeout_s`."""
        ends_s = time.monotonic() + timeout_s
        for decoder in self._decoders:
            decoder.thread.join(max(0.0, ends_s - time.monotonic()))
        return not any(decoder.thread.is_alive() for decoder in self._decoders)

    def _start(self, index: int) -> _Decoder:
        hands = Hands(self._distrusted)
        return _Decoder(hands, self._crew.start(f"decoder-{index}", partial(self._work, hands)))
