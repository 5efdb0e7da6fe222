"""Taking files out of the inboxes: a batch is recorded first, then renamed into the work folder."""

from __future__ import annotations

import errno
import os
import secrets
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import structlog

from pigeonholed.custody import Renaming
from pigeonholed.disk import may_rename_out_of
from pigeonholed.images import STAYS, Arrival, Status, accompanied
from pigeonholed.metrics import Stage
from pigeonholed.paths import to_text
from pigeonholed.progress import Task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pigeonholed.custody import Custody, Refusal
    from pigeonholed.engines import Engine
    from pigeonholed.images import ImageFile
    from pigeonholed.ledger import Ledger
    from pigeonholed.metrics import Metrics
    from pigeonholed.output import Output
    from pigeonholed.patience import Patience
    from pigeonholed.watching import Watch

log = structlog.get_logger()

_BLOCKED_S = 60.0
_MOST_NAMED = 1000
_COPIED_AT_ONCE_BYTES = 64 << 20


@dataclass(slots=True)
class Feed:
    """An inbox and where its files go; `blocked` holds folders that files could not be taken out of, until when."""

    watch: Watch
    output: Output
    custody: Custody = None  # type: ignore[assignment]  # Renaming, where nothing else is said
    blocked: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.custody is None:
            self.custody = Renaming(self.watch.rules.root, self.output)

    def path_of(self, file: ImageFile) -> str:
        """Where a file lies in its inbox."""
        return os.path.join(self.watch.rules.root, file.path)


class Claimer:
    """Claims what is complete, inbox by inbox in turn, so that a flooded inbox does not starve the others.

    Args:
        feeds: the inboxes.
        ledger: records claims.
        engine: takes claimed files; its backpressure is what holds the claimer back.
        patience: waits for full disks and the like.
        metrics: told of claims.
        limit: files in a batch.
        task: told of each step, so that others see whether there is progress.

    Owned by the claiming thread, but for `wake`.
    """

    _LONGEST_SLEEP_S = 1.0

    def __init__(
        self,
        feeds: Sequence[Feed],
        ledger: Ledger,
        engine: Engine,
        patience: Patience,
        metrics: Metrics,
        *,
        limit: int = 128,
        clock: Callable[[], float] = time.monotonic,
        task: Task | None = None,
    ) -> None:
        self._feeds = feeds
        self._ledger = ledger
        self._engine = engine
        self._patience = patience
        self._metrics = metrics
        self._limit = limit
        self._clock = clock
        self._task = task or Task("taking files in")
        self._woken = threading.Event()
        self.claimed = 0
        self.refused: deque[Arrival] = deque(maxlen=_MOST_NAMED)

    def wake(self) -> None:
        """Something may have arrived, or the process should end. Any thread."""
        self._woken.set()

    def blocked(self) -> list[str]:
        """Folders that files could not be taken out of."""
        return [folder for feed in self._feeds for folder in feed.blocked]

    def run(self, stop: threading.Event) -> None:
        """Claim until told to stop."""
        while not stop.is_set():
            self._woken.clear()
            if self.turn():
                continue
            now_s = self._clock()
            at_s = min((feed.watch.next_look_s() for feed in self._feeds), default=now_s + self._LONGEST_SLEEP_S)
            if at_s > now_s and not stop.is_set():
                self._woken.wait(min(at_s - now_s, self._LONGEST_SLEEP_S))

    def turn(self) -> bool:
        """Give every inbox one batch; false when no inbox had anything."""
        return sum(self._serve(feed) for feed in self._feeds) > 0

    def _serve(self, feed: Feed) -> bool:
        self._task.beat()
        feed.custody.tidy()
        feed.output.tidy()
        now_s = self._clock()
        files = feed.watch.take(now_s, self._limit)
        allowed = {folder: self._may_take_from(feed, folder, now_s) for folder in {_folder_of(file) for file in files}}
        files = [file for file in files if allowed[_folder_of(file)]]
        if files:
            files = [*self._patience.retry("claim", "look up what is known", partial(feed.custody.fresh, files))]
        for batch in _batches(files, _COPIED_AT_ONCE_BYTES) if feed.custody.copies else [files] if files else []:
            self._task.beat()
            if arrivals := self.claim(feed, batch):
                with self._task.resting():  # while the engine has no room
                    self._engine.submit(arrivals)
        return bool(files)

    def claim(self, feed: Feed, files: Sequence[ImageFile]) -> list[Arrival]:
        """Record a batch and take its files; returns those that could be taken."""
        started_s = self._clock()
        token = STAYS if feed.custody.rows_only else self._begin(feed, files)
        if token is None:
            return []
        ids = self._ledger.take_ids(len(files))
        keys = secrets.token_hex(16 * len(files))
        arrivals = [
            _arrival(number, file, keys[32 * index : 32 * index + 32], token, started_s)
            for index, (number, file) in enumerate(zip(ids, files, strict=True))
        ]
        self._ledger.claim(arrivals)
        self._metrics.accounts.claimed(arrivals)
        missed = [arrival for arrival in arrivals if not self._take(feed, arrival)]
        gone = {arrival.id for arrival in missed}
        ingested = feed.custody.ingest([arrival for arrival in arrivals if arrival.id not in gone], self._patience)
        if missed:
            self._ledger.close(missed, Status.VANISHED, "it could not be taken out of the inbox")
            self._metrics.accounts.vanished(missed)
        for refusal in ingested.refused:
            self._refuse(feed, refusal)
        taken = self._with_companions(feed, ingested.taken)
        feed.custody.end(token)
        if not taken:
            feed.output.remove_batch_folder(token)
        self.claimed += len(taken)
        self._metrics.stage_duration_seconds.labels(Stage.CLAIM).observe(self._clock() - started_s)
        return taken

    def _with_companions(self, feed: Feed, arrivals: list[Arrival]) -> list[Arrival]:
        """Take what travels with pictures that are in our hands; what cannot be had stays with its owner."""
        companions = [companion for arrival in arrivals for companion in arrival.companions]
        if not companions:
            return arrivals
        there = [companion for companion in companions if self._take_companion(feed, companion)]
        ingested = feed.custody.ingest(there, self._patience)
        for refusal in ingested.refused:
            log.warning("file_left", path=to_text(feed.path_of(refusal.arrival.file)), why=refusal.why)
        return accompanied(arrivals, ingested.taken)

    def _take_companion(self, feed: Feed, companion: Arrival) -> bool:
        try:
            self._patience.retry("claim", "take a file out of its inbox", partial(feed.custody.take, companion))
        except OSError:  # gone, or its owner keeps it, or an earlier attempt whose answer was lost had taken it
            return self._has(feed, companion)
        return True

    def _begin(self, feed: Feed, files: Sequence[ImageFile]) -> str | None:
        """Make what a batch needs, and say its token; where that cannot be, its folders are blocked for a while."""
        token = self._patience.retry("claim", "make a work folder", feed.output.make_batch_folder)
        try:
            self._patience.retry("claim", "make a hold folder", partial(feed.custody.begin, token))
        except OSError as error:
            feed.custody.end(token)
            feed.output.remove_batch_folder(token)
            for folder in {os.path.dirname(feed.path_of(file)) for file in files}:
                self._block(feed, folder, error)
            return None
        return token

    def _refuse(self, feed: Feed, refusal: Refusal) -> None:
        """A file was left to its owner: it comes again as a new arrival."""
        self.refused.append(refusal.arrival)
        self._ledger.close([refusal.arrival], Status.VANISHED, refusal.why)
        self._metrics.accounts.vanished([refusal.arrival])
        log.warning("file_left", path=to_text(feed.path_of(refusal.arrival.file)), why=refusal.why)
        if refusal.error is not None:
            self._block(feed, os.path.dirname(feed.path_of(refusal.arrival.file)), refusal.error)

    def _take(self, feed: Feed, arrival: Arrival) -> bool:
        try:
            self._patience.retry("claim", "take a file out of its inbox", partial(feed.custody.take, arrival))
        except FileNotFoundError:
            return self._has(feed, arrival)  # gone, or an earlier attempt whose answer was lost had taken it
        except OSError as error:
            if self._has(feed, arrival):
                return True
            self._block(feed, os.path.dirname(feed.path_of(arrival.file)), error)
            return False
        return True

    def _has(self, feed: Feed, arrival: Arrival) -> bool:
        return self._patience.retry("claim", "look for a file that was taken", partial(feed.custody.has, arrival))

    def _block(self, feed: Feed, folder: str, error: OSError) -> None:
        self._metrics.count_error(Stage.CLAIM, error)
        feed.blocked[folder] = self._clock() + _BLOCKED_S
        log.warning("folder_blocked", folder=to_text(folder), error=error.strerror, again_in_s=_BLOCKED_S)

    def _may_take_from(self, feed: Feed, subfolder: str, now_s: float) -> bool:
        """Whether files can be renamed away at all: a claim that must fail would leave a useless row at each look."""
        folder = os.path.join(feed.watch.rules.root, subfolder).rstrip("/")
        until_s = feed.blocked.get(folder)
        if until_s is None or until_s <= now_s:
            feed.blocked.pop(folder, None)
            if feed.custody.keeps or may_rename_out_of(folder):
                return True
            self._block(feed, folder, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
        return False


def _arrival(number: int, file: ImageFile, key: str, token: str, seen_s: float) -> Arrival:
    arrival = Arrival(number, file, key, token, seen_s)
    if not file.companions:
        return arrival
    return arrival.with_companions((part, companion, False) for part, companion in enumerate(file.companions, 1))


def _folder_of(file: ImageFile) -> str:
    """The folder of a file, relative to its inbox; empty for the inbox itself."""
    return file.path.rpartition("/")[0]


def _batches(files: Sequence[ImageFile], most_bytes: int) -> Iterator[list[ImageFile]]:
    """Groups that are not much larger than so many bytes: what is copied together waits together."""
    group: list[ImageFile] = []
    size = 0
    for file in files:
        if group and size + file.size > most_bytes:
            yield group
            group, size = [], 0
        group.append(file)
        size += file.size
    if group:
        yield group
