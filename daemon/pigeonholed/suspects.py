"""Pictures under suspicion: in flight when an earlier process died, or of bytes that a decoder died of or hung on.

Each is decoded by a process that decodes nothing else meanwhile and may die of it; one after another, so that however
many there are, they cost one process. Most are innocent, so the first try of each is in a process that goes on to the
next. A death there proves little; what follows is tried behind all others, each time in a process that has decoded
nothing before. Three deaths of such make a poison, and they are counted in the ledger: the count outlives the daemon,
and a death of the daemon adds nothing to it.
"""

from __future__ import annotations

import errno
import time
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import structlog

from pigeonholed.channel import Channel
from pigeonholed.images import Reason, Rejected
from pigeonholed.isolation import DecodingProcess, Died, Interrupted
from pigeonholed.paths import to_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pigeonholed.decoding import Decode, Demand
    from pigeonholed.images import Arrival, Decoded, Fingerprint, Withdrawn
    from pigeonholed.imaging import Picture
    from pigeonholed.patience import Patience

log = structlog.get_logger()

DEADLY = 3
"""So many processes that decode a picture alone must die of it until it is called poison."""

_MOST = 10_000  # beyond so many that wait, decoders wait as well

_NO_PROCESS_NOW = frozenset({errno.EAGAIN})


class Deaths(Protocol):
    """Where deaths are counted durably: the ledger."""

    def record_deaths(self, arrival: Arrival) -> None:
        """Record `arrival.deaths`."""


class _Fatal(Exception):
    """A process died of a picture."""

    def __init__(self, fingerprint: Fingerprint, detail: str, *, alone: bool) -> None:
        super().__init__(detail)
        self.fingerprint = fingerprint
        self.alone = alone


class Suspects:
    """Decodes suspects; `run` is a thread of its own, the other methods are for any thread.

    Args:
        examine: reads a file and decodes it as it is told.
        done: takes what became of it.
        ledger: counts deaths.
        patience: waits for a machine that is at fault; after its `stop`, what is not done soon is left for the next
            start, and nothing is held against it.
        limit_s: a process that decodes for longer hangs.
        distrusted: gets the hashes of what a process died of.
    """

    def __init__(
        self,
        examine: Callable[[Arrival, Decode], Decoded | Rejected | Withdrawn],
        done: Callable[[Decoded | Rejected | Withdrawn], None],
        ledger: Deaths,
        patience: Patience,
        limit_s: float,
        distrusted: set[str | None],
    ) -> None:
        self._examine = examine
        self._done = done
        self._ledger = ledger
        self._patience = patience
        self._limit_s = limit_s
        self._distrusted = distrusted
        self._fresh: Channel[Arrival] = Channel(_MOST)
        self._grave: deque[Arrival] = deque()
        self._process: DecodingProcess | None = None
        self._leaves_s: float | None = None

    def __len__(self) -> int:
        """How many wait."""
        return len(self._fresh) + len(self._grave)

    def add(self, arrivals: Sequence[Arrival]) -> None:
        """Take suspects, without waiting unless very many wait already.

        Raises:
            Closed: the engine is being torn down.
        """
        self._fresh.put(arrivals)

    def close(self) -> None:
        """No more will come."""
        self._fresh.close()

    def abort(self) -> None:
        """Drop what waits."""
        self._fresh.abort()

    def run(self) -> None:
        """Decode until closed, and all is judged or left."""
        try:
            while (group := self._next()) is not None:
                for arrival in group:
                    self._try(arrival)
                if self._grave:
                    self._discard()
                    self._try(self._grave.popleft())
        finally:
            self._discard()

    def _next(self) -> Sequence[Arrival] | None:
        if not self._grave:
            if not len(self._fresh):
                self._discard()  # nobody knows for how long
            return self._fresh.get()
        return self._fresh.get(0) or ()

    def _try(self, arrival: Arrival) -> None:
        """Decode one, once."""
        if self._leaving():
            return
        try:
            self._done(self._examine(arrival, self._decode))
        except Interrupted:
            self._discard()
        except _Fatal as fatal:
            self._discard()
            if not self._patience.stop.is_set():  # perhaps it was told to end as well
                self._blame(arrival, fatal)

    def _blame(self, arrival: Arrival, fatal: _Fatal) -> None:
        self._distrusted.add(fatal.fingerprint.sha256)
        if fatal.alone:
            arrival = replace(arrival, deaths=arrival.deaths + 1)
            self._ledger.record_deaths(arrival)
        log.warning(
            "decoding_process_died",
            inbox=arrival.file.inbox,
            path=to_text(arrival.file.path),
            error=str(fatal),
            deaths=arrival.deaths,
        )
        if arrival.deaths < DEADLY:
            self._grave.append(arrival)
            return
        detail = f"{arrival.deaths} processes that decoded it alone died or hung; of the last: {fatal}"
        self._done(Rejected(arrival, fatal.fingerprint, Reason.POISON, detail))

    def _decode(self, data: bytes, fingerprint: Fingerprint, demand: Demand) -> Picture:
        if self._process is None:
            self._process = self._patience.retry(
                "decode", "start a decoding process", DecodingProcess, also=_NO_PROCESS_NOW
            )
        alone = self._process.fresh
        try:
            return self._process.decode(data, demand, self._limit_s, self._leaving)
        except Died as died:
            raise _Fatal(fingerprint, str(died), alone=alone) from died
        except OSError:
            self._discard()  # asked once more, it would give the answer that it still owes to the next picture
            raise

    def _leaving(self) -> bool:
        """Whether the service has been ending for so long that what is not done is left."""
        if not self._patience.stop.is_set():
            return False
        if self._leaves_s is None:
            self._leaves_s = time.monotonic() + self._patience.grace_s
        return time.monotonic() >= self._leaves_s

    def _discard(self) -> None:
        if self._process is not None:
            self._process.close()
            self._process = None
