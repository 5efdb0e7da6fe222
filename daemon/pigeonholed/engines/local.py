"""The engine of one machine: decoding threads, and one thread for each model."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from pigeonholed.batching import batches
from pigeonholed.channel import Channel
from pigeonholed.decoding import decode_here, examine
from pigeonholed.duplicates import Originals
from pigeonholed.engines.classifiers import Classifiers
from pigeonholed.engines.decoders import Decoders, Suspected
from pigeonholed.images import Decoded, Status, Withdrawn
from pigeonholed.metrics import Stage
from pigeonholed.staying import open_in_place
from pigeonholed.suspects import Suspects

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pigeonholed.batching import Flush
    from pigeonholed.crew import Crew
    from pigeonholed.decoding import Decode, Demand
    from pigeonholed.duplicates import Filed
    from pigeonholed.engines.decoders import Hands
    from pigeonholed.engines.lanes import Lane
    from pigeonholed.images import Arrival, Handled, Rejected
    from pigeonholed.imaging import PixelSpec
    from pigeonholed.ledger import Ledger
    from pigeonholed.metrics import Metrics
    from pigeonholed.output import Output
    from pigeonholed.patience import Patience
    from pigeonholed.serving import Policy, Served

_CHUNK = 16  # files that one decoder takes at a time: few enough that no decoder idles beside a full one
_LOOK_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Route:
    """What the engine knows of an inbox: where claimed files wait, what is asked of them, which lane; its folder."""

    output: Output
    demand: Demand
    lane: Lane
    policy: Policy
    inbox: str = ""
    sets_aside: bool = False  # what has the bytes of a filed picture is not shown to a model


@dataclass(frozen=True, slots=True)
class Sizes:
    """Batch size and wait, how many threads decode, and how long one may take over a picture."""

    max_batch_size: int
    max_wait_s: float
    decode_workers: int
    max_decode_s: float


class LocalEngine:
    """Decodes in `decode_workers` threads, suspects in a process, and classifies in one thread a model.

    Args:
        routes: by inbox.
        sizes: of batches and of the crew.
        ledger: knows and counts what processes died of.
        contents: what is filed, for inboxes that set duplicates aside.
        crew: runs the threads.
        patience: waits for lost mounts and the like.
        metrics: told at the seams.
    """

    def __init__(
        self,
        routes: Mapping[str, Route],
        sizes: Sizes,
        ledger: Ledger,
        contents: Filed,
        crew: Crew,
        patience: Patience,
        metrics: Metrics,
    ) -> None:
        self._routes = routes
        self._sizes = sizes
        self._patience = patience
        self._metrics = metrics
        durations = metrics.stage_duration_seconds.labels
        # Asked for once: finding a histogram by its label takes longer than the rest of an observation.
        self._read_s, self._decode_s = durations(Stage.READ).observe, durations(Stage.DECODE).observe
        self._infer_s, self._waited_s = durations(Stage.INFER).observe, durations(Stage.QUEUE).observe
        asking = [inbox for inbox, route in routes.items() if route.sets_aside]
        self._originals = Originals(asking, contents, patience, "decode")
        self._files: Channel[Arrival] = Channel(sizes.max_batch_size * 4)
        self._outcomes: Channel[Handled] = Channel(sizes.max_batch_size * 4)
        self._lanes = list({id(route.lane): route.lane for route in routes.values()}.values())
        self._distrusted: set[str | None] = {*ledger.poisons()}
        self._suspects = Suspects(self._examine, self._judged, ledger, patience, sizes.max_decode_s, self._distrusted)
        self._judge = crew.start("judge", self._suspects.run)
        self._decoders = Decoders(sizes.decode_workers, self._decode, crew, sizes.max_decode_s, self._distrusted)
        self._classifiers = Classifiers(self._lanes, self._classify, crew)

    def submit(self, arrivals: Sequence[Arrival]) -> None:
        """Take files; waits while there is no room."""
        for start in range(0, len(arrivals), _CHUNK):
            chunk = arrivals[start : start + _CHUNK]
            for lane, count in self._lanes_of(chunk):
                lane.flow.add(count)
            self._files.put(chunk)

    def submit_suspects(self, arrivals: Sequence[Arrival]) -> None:
        """Take files that were in flight when an earlier process died, perhaps of one of them."""
        self._suspects.add(arrivals)

    def handled(self, timeout_s: float | None) -> Sequence[Handled] | None:
        """Outcomes; an empty sequence when none came within `timeout_s`, None once all has come out."""
        return self._outcomes.get(timeout_s)

    def close(self) -> None:
        """Let everything run out: first the decoders, then the models."""
        self._files.close()
        while not self._decoders.join(_LOOK_EVERY_S):
            self.take_over()
        self._suspects.close()
        self._judge.join()
        for lane in self._lanes:
            lane.decoded.close()
        self._classifiers.join()
        self._outcomes.close()

    def take_over(self) -> None:
        """Find what hangs: others do the work of decoders; a model that never answers ends the service.

        Called now and then by the thread that calls `close`.
        """
        self._classifiers.give_up()
        for arrivals in self._decoders.take_over():
            self._suspects.add(arrivals)
            self._leave_flow(arrivals)

    def abort(self) -> None:
        """Drop everything: a stage has failed."""
        self._files.abort()
        self._suspects.abort()
        for lane in self._lanes:
            lane.decoded.abort()
        self._outcomes.abort()

    def waiting(self) -> dict[Stage, int]:
        """Pictures in front of each stage."""
        return {
            Stage.DECODE: len(self._files) + len(self._suspects),
            Stage.INFER: sum(len(lane.decoded) for lane in self._lanes),
            Stage.FILE: len(self._outcomes),
        }

    def serving(self) -> dict[str, Served]:
        """What serves each inbox now."""
        return {name: route.lane.served for name, route in self._routes.items()}

    def _decode(self, hands: Hands) -> None:
        for chunk in self._files:
            ready: dict[int, list[Decoded]] = {}
            refused: list[Handled] = []
            suspects: list[Arrival] = []
            hands.take(chunk)
            for arrival in chunk:
                started_s = time.perf_counter()
                try:
                    result = self._examine(arrival, hands.decode)
                except Suspected:
                    suspects.append(arrival)
                    continue
                finally:
                    self._count_reading(time.perf_counter() - started_s, hands.take_spent_s())
                if isinstance(result, Decoded):
                    ready.setdefault(id(self._routes[arrival.file.inbox].lane), []).append(result)
                else:
                    refused.append(result)
            if not hands.let_go():
                return  # they are in other hands, and another thread has this one's place
            self._suspects.add(suspects)
            self._pass_on(chunk, ready, refused)

    def _examine(
        self, arrival: Arrival, decode: Decode, spec: PixelSpec | None = None
    ) -> Decoded | Rejected | Withdrawn:
        """Read and decode a claimed file for `spec`, or for what its model wants to see now."""
        route = self._routes[arrival.file.inbox]
        spec = spec or route.lane.spec
        demand = route.demand if route.demand.spec == spec else replace(route.demand, spec=spec)
        look = partial(_read, arrival, route, demand, decode)
        return self._patience.retry("decode", "read a claimed file", look)

    def _judged(self, result: Decoded | Rejected | Withdrawn) -> None:
        """Take what became of a suspect; nobody waited for it, so it was in no lane's flow."""
        if isinstance(result, Decoded):
            fresh, known = self._originals.told_apart([result])
            self._routes[result.arrival.file.inbox].lane.decoded.put(fresh)
            self._outcomes.put(known)
        else:
            self._outcomes.put([result])

    def _pass_on(self, chunk: Sequence[Arrival], ready: Mapping[int, list[Decoded]], refused: list[Handled]) -> None:
        for lane in self._lanes:
            fresh, known = self._originals.told_apart(ready.get(id(lane), ()))
            lane.decoded.put(fresh)
            refused += known
        self._outcomes.put(refused)
        # Only now, so that a model which sees nothing more on its way has everything already.
        self._leave_flow(chunk)

    def _leave_flow(self, chunk: Sequence[Arrival]) -> None:
        for lane, count in self._lanes_of(chunk):
            if lane.flow.arrived(count):
                lane.decoded.wake()

    def _lanes_of(self, chunk: Sequence[Arrival]) -> list[tuple[Lane, int]]:
        """The lanes that files go to, and how many to each."""
        counts = Counter(arrival.file.inbox for arrival in chunk)
        return [(self._routes[inbox].lane, count) for inbox, count in counts.items()]

    def _classify(self, lane: Lane) -> None:
        policies = {name: route.policy for name, route in self._routes.items()}
        for batch, flush in batches(
            lane.decoded,
            max_size=self._sizes.max_batch_size,
            max_wait_s=self._sizes.max_wait_s,
            on_its_way=lane.flow.count,
        ):
            served = lane.served
            seen, refused = self._seen_by(served, batch)
            started_s = lane.asked_s = time.monotonic()
            for decoded in batch:
                self._waited_s(started_s - decoded.ready_s)
            outcomes: list[Handled] = [*served.classify(seen, policies), *refused] if seen else refused
            lane.asked_s = None
            self._infer_s(time.monotonic() - started_s)
            self._count_batch(served, len(seen), flush)
            self._outcomes.put(outcomes)

    def _seen_by(self, served: Served, batch: list[Decoded]) -> tuple[list[Decoded], list[Handled]]:
        """Decode again what was decoded for an earlier version of the model that wanted to see it otherwise."""
        spec = served.spec
        if all(decoded.spec == spec for decoded in batch):
            return batch, []
        seen: list[Decoded] = []
        refused: list[Handled] = []
        for decoded in batch:
            again = self._examine(decoded.arrival, decode_here, spec)
            if isinstance(again, Decoded):
                seen.append(again)
            else:
                refused.append(again)
        return seen, refused

    def _count_reading(self, whole_s: float, decode_s: float | None) -> None:
        """One file: what is not decoding is reading and hashing, and the wait for a lost mount."""
        self._read_s(max(0.0, whole_s - (decode_s or 0.0)))
        if decode_s is not None:
            self._decode_s(decode_s)

    def _count_batch(self, served: Served, size: int, flush: Flush) -> None:
        labels = (served.bundle.name, str(served.bundle.version))
        self._metrics.inference_images_total.labels(*labels).inc(size)
        self._metrics.inference_batches_total.labels(*labels).inc()
        self._metrics.batch_size_images.observe(size)
        self._metrics.batch_flush_total.labels(flush).inc()


def _read(arrival: Arrival, route: Route, demand: Demand, decode: Decode) -> Decoded | Rejected | Withdrawn:
    """Examine a claimed file; one that seems to be missing is only lost if its folder lists it no more."""
    if arrival.stays:
        return examine(arrival, arrival.file.path, demand, decode, opener=partial(open_in_place, route.inbox))
    result = examine(arrival, route.output.work_path(arrival), demand, decode)
    if isinstance(result, Withdrawn) and result.status is Status.LOST:
        route.output.require_gone(arrival)
    return result
