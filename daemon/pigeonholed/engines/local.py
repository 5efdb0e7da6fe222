"""The engine of one machine: decoding threads, and one thread for each model."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from pigeonholed.batching import batches
from pigeonholed.channel import Channel
from pigeonholed.decoding import examine
from pigeonholed.images import Decoded, Status, Withdrawn
from pigeonholed.metrics import Stage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pigeonholed.batching import Flush
    from pigeonholed.crew import Crew
    from pigeonholed.decoding import Demand
    from pigeonholed.images import Arrival, Handled, Rejected
    from pigeonholed.imaging import PixelSpec
    from pigeonholed.metrics import Metrics
    from pigeonholed.output import Output
    from pigeonholed.patience import Patience
    from pigeonholed.serving import Policy, Served

_CHUNK = 16  # files that one decoder takes at a time: few enough that no decoder idles beside a full one


@dataclass(frozen=True, slots=True)
class Route:
    """What the engine knows of an inbox: where its claimed files wait, what is asked of them, and which lane."""

    output: Output
    demand: Demand
    lane: Lane
    policy: Policy


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
    """

    served: Served
    decoded: Channel[Decoded]
    flow: Flow = field(default_factory=Flow)

    @property
    def spec(self) -> PixelSpec:
        """What the model wants to see now."""
        return self.served.spec


@dataclass(frozen=True, slots=True)
class Sizes:
    """Batch size and wait, and how many threads decode."""

    max_batch_size: int
    max_wait_s: float
    decode_workers: int


class LocalEngine:
    """Decodes in `decode_workers` threads and classifies in one thread a model.

    Args:
        routes: by inbox.
        sizes: of batches and of the crew.
        crew: runs the threads.
        patience: waits for lost mounts and the like.
        metrics: told at the seams.
    """

    def __init__(
        self, routes: Mapping[str, Route], sizes: Sizes, crew: Crew, patience: Patience, metrics: Metrics
    ) -> None:
        self._routes = routes
        self._sizes = sizes
        self._patience = patience
        self._metrics = metrics
        self._files: Channel[Arrival] = Channel(sizes.max_batch_size * 4)
        self._outcomes: Channel[Handled] = Channel(sizes.max_batch_size * 4)
        self._lanes = list({id(route.lane): route.lane for route in routes.values()}.values())
        self._decoders = [crew.start(f"decoder-{index}", self._decode) for index in range(sizes.decode_workers)]
        self._classifiers = [
            crew.start(f"classifier-{lane.served.bundle.name}", lambda lane=lane: self._classify(lane))  # type: ignore[misc]
            for lane in self._lanes
        ]

    def submit(self, arrivals: Sequence[Arrival]) -> None:
        """Take files; waits while there is no room."""
        for start in range(0, len(arrivals), _CHUNK):
            chunk = arrivals[start : start + _CHUNK]
            for lane, count in self._lanes_of(chunk):
                lane.flow.add(count)
            self._files.put(chunk)

    def handled(self, timeout_s: float | None) -> Sequence[Handled] | None:
        """Outcomes; an empty sequence when none came within `timeout_s`, None once all has come out."""
        return self._outcomes.get(timeout_s)

    def close(self) -> None:
        """Let everything run out: first the decoders, then the models."""
        self._files.close()
        for thread in self._decoders:
            thread.join()
        for lane in self._lanes:
            lane.decoded.close()
        for thread in self._classifiers:
            thread.join()
        self._outcomes.close()

    def abort(self) -> None:
        """Drop everything: a stage has failed."""
        self._files.abort()
        for lane in self._lanes:
            lane.decoded.abort()
        self._outcomes.abort()

    def waiting(self) -> dict[Stage, int]:
        """Pictures in front of each stage."""
        return {
            Stage.DECODE: len(self._files),
            Stage.INFER: sum(len(lane.decoded) for lane in self._lanes),
            Stage.FILE: len(self._outcomes),
        }

    def serving(self) -> dict[str, Served]:
        """What serves each inbox now."""
        return {name: route.lane.served for name, route in self._routes.items()}

    def _decode(self) -> None:
        duration = self._metrics.stage_duration_seconds.labels(Stage.DECODE)
        for chunk in self._files:
            ready: dict[int, list[Decoded]] = {}
            refused: list[Handled] = []
            for arrival in chunk:
                started_s = time.perf_counter()
                route = self._routes[arrival.file.inbox]
                result = self._examine(arrival, route, route.lane.spec)
                duration.observe(time.perf_counter() - started_s)
                if isinstance(result, Decoded):
                    ready.setdefault(id(route.lane), []).append(result)
                else:
                    refused.append(result)
            self._pass_on(chunk, ready, refused)

    def _examine(self, arrival: Arrival, route: Route, spec: PixelSpec) -> Decoded | Rejected | Withdrawn:
        demand = route.demand if route.demand.spec == spec else replace(route.demand, spec=spec)
        look = partial(_read, arrival, route.output, demand)
        return self._patience.retry("decode", "read a claimed file", look)

    def _pass_on(self, chunk: Sequence[Arrival], ready: Mapping[int, list[Decoded]], refused: list[Handled]) -> None:
        for lane in self._lanes:
            lane.decoded.put(ready.get(id(lane), ()))
        self._outcomes.put(refused)
        # Only now, so that a model which sees nothing more on its way has everything already.
        for lane, count in self._lanes_of(chunk):
            if lane.flow.arrived(count):
                lane.decoded.wake()

    def _lanes_of(self, chunk: Sequence[Arrival]) -> list[tuple[Lane, int]]:
        """The lanes that files go to, and how many to each."""
        counts = Counter(arrival.file.inbox for arrival in chunk)
        return [(self._routes[inbox].lane, count) for inbox, count in counts.items()]

    def _classify(self, lane: Lane) -> None:
        policies = {name: route.policy for name, route in self._routes.items()}
        duration = self._metrics.stage_duration_seconds.labels(Stage.INFER)
        for batch, flush in batches(
            lane.decoded,
            max_size=self._sizes.max_batch_size,
            max_wait_s=self._sizes.max_wait_s,
            on_its_way=lane.flow.count,
        ):
            served = lane.served
            seen, refused = self._seen_by(served, batch)
            started_s = time.perf_counter()
            outcomes: list[Handled] = [*served.classify(seen, policies), *refused] if seen else refused
            duration.observe(time.perf_counter() - started_s)
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
            again = self._examine(decoded.arrival, self._routes[decoded.arrival.file.inbox], spec)
            if isinstance(again, Decoded):
                seen.append(again)
            else:
                refused.append(again)
        return seen, refused

    def _count_batch(self, served: Served, size: int, flush: Flush) -> None:
        labels = (served.bundle.name, str(served.bundle.version))
        self._metrics.inference_images_total.labels(*labels).inc(size)
        self._metrics.inference_batches_total.labels(*labels).inc()
        self._metrics.batch_size_images.observe(size)
        self._metrics.batch_flush_total.labels(flush).inc()


def _read(arrival: Arrival, output: Output, demand: Demand) -> Decoded | Rejected | Withdrawn:
    """Examine a claimed file; one that seems to be missing is only lost if its folder lists it no more."""
    result = examine(arrival, output.work_path(arrival), demand)
    if isinstance(result, Withdrawn) and result.status is Status.LOST:
        output.require_gone(arrival)
    return result
