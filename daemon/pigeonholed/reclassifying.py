"""A newer model over what is filed: a page at a time, so that everybody else has a turn in between."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from pigeonholed.errors import Unavailable, UserError
from pigeonholed.images import Decoded, Rejected
from pigeonholed.lone_thread import LoneThread
from pigeonholed.reexamining import CHANGED, Outcome, is_as_it_was, outcome_of, read_again, refiling_of, told
from pigeonholed.refilings import Choice

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pigeonholed.bundle import Bundle
    from pigeonholed.decoding import Demand
    from pigeonholed.delivery import Delivery
    from pigeonholed.images import Placement
    from pigeonholed.refiling import Refiler
    from pigeonholed.refilings import Candidate, Refiling, Refilings
    from pigeonholed.serving import Policy, Served
    from pigeonholed.store import ModelStore

log = structlog.get_logger()

_TURN_S = 1.0  # then others have theirs
_MOST_FILES = 256  # in one answer
_IDLE_S = 30.0  # after which the model goes
_ENDS_WITHIN_S = 15.0


@dataclass(frozen=True, slots=True)
class Manner:
    """How the pictures of an inbox are looked at: its own model, what is asked of a picture, and of a prediction."""

    model: str
    demand: Callable[[Served], Demand]
    policy: Policy


@dataclass(frozen=True, slots=True)
class Models:
    """Where models come from.

    Attributes:
        store: knows which version is current.
        load: opens, checks and warms a version (None: the current one) as for the service.
        record: remembers that a version was loaded, before any row names it.
    """

    store: ModelStore
    load: Callable[[str, int | None], Served]
    record: Callable[[Bundle], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A page of results to look at again.

    Attributes:
        inbox: of which inbox.
        model: None for the inbox's own.
        version: None for the current one.
        only: sorted or unsure; None for both.
        everything: also what this very version has said before.
        dry_run: say what would be done, and change nothing.
        after: the id up to which all has been looked at.
        through: the id of the last to look at; None for the newest one now.
    """

    inbox: str
    model: str | None = None
    version: int | None = None
    only: Placement | None = None
    everything: bool = False
    dry_run: bool = False
    after: int = 0
    through: int | None = None


class UnknownInbox(UserError):
    """A request for what is not configured; exit code 2, as any wrong usage."""

    exit_code = 2


class Reclassifier:
    """Looks again at filed pictures. One thread, its own, calls the model, which stays loaded between two pages.

    Args:
        refilings: the rows.
        refiler: moves what belongs elsewhere.
        deliveries: by inbox.
        manners: by inbox.
        models: where they come from.
        batch: pictures that the model sees at a time.
        clock: monotonic seconds.

    Attributes:
        on_results: told of an inbox and how many files had which outcome; not of those of a dry run.
        on_inference: told of a model and how many pictures went through it.
    """

    def __init__(
        self,
        refilings: Refilings,
        refiler: Refiler,
        deliveries: Mapping[str, Delivery],
        manners: Mapping[str, Manner],
        models: Models,
        batch: int,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._refilings = refilings
        self._refiler = refiler
        self._deliveries = deliveries
        self._manners = manners
        self._models = models
        self._batch = batch
        self._clock = clock
        self._served: Served | None = None  # owned by the thread, as is the next
        self._recorded: Served | None = None
        self._thread = LoneThread("reclassifier", self._drop, _IDLE_S)
        self.on_results: Callable[[str, Mapping[Outcome, int]], None] = lambda _inbox, _counts: None
        self.on_inference: Callable[[Bundle, int], None] = lambda _bundle, _count: None

    def prepare(self, wanted: Wanted) -> None:
        """Load the model, which may take a while; a page that follows takes no longer than it must.

        Raises:
            UserError: no such inbox, or the model cannot be had.
            BundleError: the model cannot be served.
        """
        self._thread.do(lambda: self._serve(wanted))

    def page(self, wanted: Wanted) -> dict[str, Any]:
        """Look at some pictures, for about a second.

        Returns:
            `model` and `version` that looked, `after` and `through` for the next page (the last one has come when
            they are the same), and `files`: an entry for each file.

        Raises:
            UserError: as `prepare`; or the output is away.
            OSError: a file may be half way; the next start finishes it.
        """
        return self._thread.do(lambda: self._page(wanted))

    def close(self) -> None:
        """Take no more pages, and let the one that is being done end."""
        self._thread.close(_ENDS_WITHIN_S)

    def _drop(self) -> None:
        self._served = self._recorded = None

    def _serve(self, wanted: Wanted) -> Served:
        """The model that is asked for; the one before goes first, so that there need not be room for two."""
        if wanted.inbox not in self._manners:
            raise UnknownInbox(f"there is no inbox {wanted.inbox[:80]!a}; there are {', '.join(self._manners)}")
        name = wanted.model or self._manners[wanted.inbox].model
        version = wanted.version or self._models.store.current(name)
        served = self._served
        if served is None or (served.bundle.name, served.bundle.version) != (name, version):
            self._drop()
            self._served = served = self._models.load(name, version)
        return served

    def _page(self, wanted: Wanted) -> dict[str, Any]:
        served = self._serve(wanted)
        bundle = served.bundle
        choice = Choice(wanted.inbox, wanted.only, None if wanted.everything else (bundle.name, bundle.version))
        through = self._refilings.last_id() if wanted.through is None else wanted.through
        after, ends_s = wanted.after, self._clock() + _TURN_S
        files: list[dict[str, Any]] = []
        while after < through:
            candidates, after = self._refilings.candidates(choice, after, through, self._batch)
            seen = self._seen(candidates, served, ends_s)
            if len(seen) < len(candidates):
                after = seen[-1][0].arrival.id
            files += self._look_again(seen, served, wanted) if seen else []
            if len(files) >= _MOST_FILES or self._clock() >= ends_s:
                break  # not before something was done, however slow the machine is
        return {"model": bundle.name, "version": bundle.version, "after": after, "through": through, "files": files}

    def _seen(self, candidates: Sequence[Candidate], served: Served, ends_s: float) -> list[_Seen]:
        """Read and decode: at least one, as many as there is time for."""
        seen: list[_Seen] = []
        for candidate in candidates:
            if seen and self._clock() >= ends_s:
                break
            inbox = candidate.arrival.file.inbox
            seen.append(
                (candidate, read_again(candidate, self._deliveries[inbox], self._manners[inbox].demand(served)))
            )
        return seen

    def _look_again(self, seen: Sequence[_Seen], served: Served, wanted: Wanted) -> list[dict[str, Any]]:
        """Classify a batch, and make its results true."""
        decoded = [(candidate, picture) for candidate, picture in seen if isinstance(picture, Decoded)]
        left = [(candidate, picture) for candidate, picture in seen if isinstance(picture, str)]
        self._require(wanted.inbox)
        refilings, refused = self._judged(decoded, served, wanted.inbox)
        left += refused
        if self._thread.closing.is_set():
            raise Unavailable("the service is ending; ask again, and it goes on with what is left")
        if not wanted.dry_run:
            if self._recorded is not served:
                self._models.record(served.bundle)
                self._recorded = served
            refilings, stayed = self._refiler.file(refilings)
            left += stayed
            counts = Counter(map(outcome_of, refilings)) + Counter({Outcome.LEFT: len(left)})
            self.on_results(wanted.inbox, counts)
            log.info("files_reclassified", inbox=wanted.inbox, **{one.value: count for one, count in counts.items()})
        entries = [told(one.candidate, one) for one in refilings] + [told(one, None, why) for one, why in left]
        return sorted(entries, key=lambda entry: int(entry["image"]))

    def _judged(
        self, decoded: Sequence[tuple[Candidate, Decoded]], served: Served, inbox: str
    ) -> tuple[list[Refiling], list[tuple[Candidate, str]]]:
        """What follows from what the model says; of some, nothing does."""
        if not decoded:
            return [], []
        outcomes = served.classify([picture for _candidate, picture in decoded], {inbox: self._manners[inbox].policy})
        self.on_inference(served.bundle, len(decoded))
        delivery = self._deliveries[inbox]
        refilings: list[Refiling] = []
        left: list[tuple[Candidate, str]] = []
        place = partial(self._refiler.place, promised=set())
        for (candidate, picture), outcome in zip(decoded, outcomes, strict=True):
            if isinstance(outcome, Rejected):
                left.append((candidate, f"it cannot be looked at ({outcome.reason}): {outcome.detail}"))
            elif not is_as_it_was(candidate, delivery, picture.fingerprint):
                left.append((candidate, CHANGED))
            else:
                refilings.append(refiling_of(candidate, outcome, delivery, place))
        return refilings, left

    def _require(self, inbox: str) -> None:
        """Make sure that what was not found is not only away."""
        try:
            self._deliveries[inbox].output.require()
        except OSError as error:
            raise Unavailable(f"{error.strerror} Nothing was changed; ask again when it is") from None


_Seen = tuple["Candidate", Decoded | str]
"""A candidate, and its pixels or why there are none."""
