"""All wiring: from the settings to a service that runs. Read from top to bottom, `build` is the architecture."""

from __future__ import annotations

import os
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from pigeonholed import database, imaging, recovery
from pigeonholed.channel import Channel
from pigeonholed.claiming import Claimer, Feed
from pigeonholed.classifying import DeviceUnavailable, load_classifier
from pigeonholed.crew import Crew
from pigeonholed.decoding import Demand
from pigeonholed.engines.local import Lane, LocalEngine, Route, Sizes
from pigeonholed.errors import Misconfigured, Unavailable
from pigeonholed.events import Events, gives_events
from pigeonholed.finishing import Delivery, Finisher
from pigeonholed.health import HealthServer
from pigeonholed.ignoring import NameFilter
from pigeonholed.ledger import Ledger
from pigeonholed.locking import Held, Lock
from pigeonholed.metrics import Metrics, Stage
from pigeonholed.onerun import OneRun
from pigeonholed.output import Output
from pigeonholed.patience import Patience
from pigeonholed.placing import Placer
from pigeonholed.reporting import Reporter
from pigeonholed.service import Claiming, Service
from pigeonholed.serving import Policy, Served
from pigeonholed.store import ModelStore
from pigeonholed.watching import Rules, Watch
from pigeonholed.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pigeonholed.settings import InboxSettings, Settings

log = structlog.get_logger()

_ONCE_PATIENCE_S = 10.0


@contextmanager
def build(
    settings: Settings, *, stop: threading.Event | None = None, once: bool = False, may_upgrade: bool = True
) -> Iterator[Service]:
    """Make a service out of settings, and take everything apart again at the end.

    Args:
        settings: what to build.
        stop: set when the process should end; what the building waits for (a database) is then given up.
        once: file what is there, then end.
        may_upgrade: an older database is upgraded rather than refused.

    Raises:
        UserError: something that the settings name is missing, held by another process, or cannot be used.
        BundleError: a model cannot be served.
    """
    stop = stop or threading.Event()
    imaging.configure()
    with ExitStack() as stack:
        _lock_state(settings, stack)
        _check_supported(settings)
        metrics = Metrics()
        health = _Health()
        _serve_http(settings, metrics, health, stack)
        ledger, writer = _open_database(settings, stop, stack, once=once, may_upgrade=may_upgrade)
        _check_inboxes(settings, ledger, once=once)
        outputs = _open_outputs(settings, ledger, stack)
        lanes = _load_models(settings, ledger, metrics)

        patience = Patience(stop, lambda stage, error: metrics.count_error(Stage(stage), error))
        crew = Crew(lambda: service.tear_down())  # noqa: PLW0108 (the service is made below)
        routes = {inbox.name: _route(inbox, outputs, lanes) for inbox in settings.inbox}
        workers = settings.batching.decode_workers or os.cpu_count() or 1
        sizes = Sizes(settings.batching.max_batch_size, settings.batching.max_wait_s, workers)
        reporter = Reporter(metrics)
        deliveries = {
            inbox.name: Delivery(str(inbox.path), outputs[str(inbox.output)], Placer(inbox.template))
            for inbox in settings.inbox
        }
        finisher = Finisher(deliveries, ledger, patience, reporter.filed_batch, reporter.withdrawn)
        resumed = recovery.recover(ledger, finisher, deliveries, time.monotonic())

        engine = LocalEngine(routes, sizes, crew, patience, metrics)
        feeds = [
            Feed(_watch(inbox, outputs[str(inbox.output)]), outputs[str(inbox.output)]) for inbox in settings.inbox
        ]
        watches = [feed.watch for feed in feeds]
        claimer = Claimer(feeds, ledger, engine, patience, metrics)
        events = None if once else _watch_events(settings, watches, claimer, stack)
        claiming: Claiming = OneRun(claimer, watches) if once else claimer
        service = Service(
            settings, stop, crew, claimer, claiming, engine, finisher, ledger, writer, metrics, reporter, watches,
            events, resumed,
        )  # fmt: skip
        health.service = service
        yield service


@dataclass(slots=True)
class _Health:
    """What the probes ask while the service is still being built."""

    service: Service | None = None

    def live(self) -> list[str]:
        return [] if self.service is None else self.service.stuck()

    def ready(self) -> list[str]:
        return ["starting"] if self.service is None else self.service.faults()


def _lock_state(settings: Settings, stack: ExitStack) -> None:
    folder = settings.state.dir
    try:
        os.makedirs(folder, exist_ok=True)
        lock = Lock.take(str(folder / "pigeonholed.lock"))
    except Held as held:
        raise Unavailable(
            f"cannot start: process {held.holder or 'unknown'} already serves the state folder {folder}; "
            "stop it first, or give this one a state folder of its own"
        ) from None
    except OSError as error:
        raise Misconfigured(f"cannot use the state folder {folder}: {error.strerror}") from None
    stack.callback(lock.release)


def _check_supported(settings: Settings) -> None:
    """Refuse what the contract knows and this version does not do yet, rather than do something else."""
    if settings.engine.kind != "local":
        raise Misconfigured('engine.kind = "ray" is not built yet in this version; use "local"')
    for inbox in settings.inbox:
        for key, value, only in (
            ("action", inbox.action, "move"),
            ("hostile", inbox.hostile, False),
            ("duplicates", inbox.duplicates, "sort"),
        ):
            if value != only:
                raise Misconfigured(
                    f"the inbox {inbox.name} asks for {key} = {value!r}, which is not built yet in this version; "
                    f"use {only!r}"
                )


def _serve_http(settings: Settings, metrics: Metrics, health: _Health, stack: ExitStack) -> None:
    listen = settings.metrics.listen
    if listen is None:
        return
    try:
        server = HealthServer(listen.host, listen.port, metrics, health.live, health.ready)
    except OSError as error:
        raise Unavailable(
            f"cannot listen on {listen} for metrics: {error.strerror or error}; "
            'choose another address in [metrics].listen, or "" for none'
        ) from None
    server.start()
    stack.callback(server.close)
    log.info("metrics_served", address=f"{listen.host}:{server.port}")


def _open_database(
    settings: Settings, stop: threading.Event, stack: ExitStack, *, once: bool, may_upgrade: bool
) -> tuple[Ledger, Writer]:
    engine = database.connect(settings.database.url)
    stack.callback(engine.dispose)
    waits = not once and settings.database.file is None
    database.wait_for(engine, stop, patience_s=None if waits else 0.0)
    database.prepare(engine, may_upgrade=may_upgrade)
    writer = Writer(engine, patience_s=_ONCE_PATIENCE_S if once else None, stop=stop)
    writer.start()
    stack.callback(writer.stop)
    return Ledger(engine, writer), writer


def _check_inboxes(settings: Settings, ledger: Ledger, *, once: bool) -> None:
    """A missing inbox that was seen before is waited for (its mount may be away); one that never was is a mistake."""
    known = ledger.known_inboxes()
    for inbox in settings.inbox:
        if os.path.isdir(inbox.path):
            ledger.remember_inbox(inbox.name, str(inbox.path))
        elif inbox.name in known:
            if once:
                raise Unavailable(f"the inbox {inbox.path} is missing; mount it again, or take it out of the settings")
            log.warning("inbox_missing", inbox=inbox.name, path=str(inbox.path))
        elif inbox.create:
            os.makedirs(inbox.path, exist_ok=True)
            ledger.remember_inbox(inbox.name, str(inbox.path))
        else:
            raise Misconfigured(
                f"the inbox {inbox.path} does not exist; make that folder, "
                f"or say create = true for the inbox {inbox.name}"
            )


def _open_outputs(settings: Settings, ledger: Ledger, stack: ExitStack) -> dict[str, Output]:
    outputs: dict[str, Output] = {}
    for inbox in settings.inbox:
        if str(inbox.output) not in outputs:
            output = Output.open(inbox.output, ledger.identity)
            stack.callback(output.close)
            outputs[str(inbox.output)] = output
        if os.path.isdir(inbox.path):
            outputs[str(inbox.output)].check_source(str(inbox.path))
    return outputs


def _load_models(settings: Settings, ledger: Ledger, metrics: Metrics) -> dict[tuple[str, object], Lane]:
    store = ModelStore(settings.models.dir)
    lanes: dict[tuple[str, object], Lane] = {}
    for inbox in settings.inbox:
        key = (inbox.model, inbox.version)
        if key not in lanes:
            served = _load(store, inbox, settings)
            bundle = served.bundle
            ledger.record_model(bundle.name, bundle.version, bundle.digest, bundle.labels)
            lanes[key] = Lane(served, Channel(settings.batching.max_batch_size * 4))
        served = lanes[key].served
        metrics.add_inbox(inbox.name, served.bundle.labels)
        metrics.add_model(
            inbox.name,
            served.bundle.name,
            served.bundle.version,
            served.classifier.runtime,
            served.classifier.device,
        )
    return lanes


def _load(store: ModelStore, inbox: InboxSettings, settings: Settings) -> Served:
    bundle = store.open(inbox.model, inbox.version)
    runtime = settings.runtime
    try:
        classifier = load_classifier(
            bundle,
            kind=runtime.kind,
            device=runtime.device,
            precision=runtime.precision,
            max_batch_size=settings.batching.max_batch_size,
        )
    except DeviceUnavailable as error:
        raise Unavailable(str(error)) from None
    log.info(
        "model_loaded",
        model=bundle.name,
        version=bundle.version,
        runtime=classifier.runtime,
        device=classifier.device,
        precision=classifier.precision,
    )
    return Served(bundle, classifier)


def _route(inbox: InboxSettings, outputs: Mapping[str, Output], lanes: Mapping[tuple[str, object], Lane]) -> Route:
    lane = lanes[inbox.model, inbox.version]
    demand = Demand(
        lane.served.bundle.manifest.pixel_spec,
        inbox.max_pixels,
        inbox.max_bytes,
        allow_truncated=inbox.truncated == "classify",
        wants_date="{date" in inbox.template,
    )
    policy = Policy(None if inbox.min_confidence == "model" else inbox.min_confidence, inbox.top_k)
    return Route(outputs[str(inbox.output)], demand, lane, policy)


def _watch(inbox: InboxSettings, output: Output) -> Watch:
    rules = Rules(inbox.name, str(inbox.path), inbox.settle_s, inbox.incomplete_s, inbox.rescan_s, inbox.recursive)
    return Watch(rules, NameFilter(inbox.include, inbox.exclude), output.now_ns)


def _watch_events(settings: Settings, watches: Sequence[Watch], claimer: Claimer, stack: ExitStack) -> Events | None:
    """Watch first, scan later: what arrives in between is seen by both."""
    wanted = [
        (inbox, watch)
        for inbox, watch in zip(settings.inbox, watches, strict=True)
        if os.path.isdir(inbox.path)
        and (inbox.watch == "events" or (inbox.watch == "auto" and gives_events(str(inbox.path))))
    ]
    if not wanted:
        return None
    events = Events(claimer.wake)
    stack.callback(events.close)
    for inbox, watch in wanted:
        events.watch(str(inbox.path), watch.hints, recursive=inbox.recursive)
    return events
