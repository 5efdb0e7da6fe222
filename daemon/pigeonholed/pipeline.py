"""All wiring: from the settings to a service that runs. Read from top to bottom, `build` is the architecture."""

from __future__ import annotations

import os
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import structlog

from pigeonholed import hook, imaging, recovery
from pigeonholed.channel import Channel
from pigeonholed.claiming import Claimer, Feed
from pigeonholed.control import ControlServer
from pigeonholed.crew import Crew
from pigeonholed.decoding import Demand
from pigeonholed.engines.lanes import Lane
from pigeonholed.engines.local import LocalEngine, Route, Sizes
from pigeonholed.errors import Misconfigured, Unavailable
from pigeonholed.events import Events
from pigeonholed.finishing import Finisher
from pigeonholed.health import HealthServer
from pigeonholed.ignoring import NameFilter
from pigeonholed.inbox_clock import now_ns_of
from pigeonholed.loading import load_served, open_tried
from pigeonholed.locking import Held, Lock
from pigeonholed.metrics import Metrics, Reload, Stage
from pigeonholed.onerun import OneRun
from pigeonholed.operations import Operations
from pigeonholed.paths import to_text
from pigeonholed.patience import Patience
from pigeonholed.progress import LONG_S, STAGE_LIMIT_S, Progress
from pigeonholed.reclassifying import Manner, Models, Reclassifier
from pigeonholed.records import check_inboxes, open_records
from pigeonholed.reporting import Reporter
from pigeonholed.service import Service
from pigeonholed.serving import Policy, Served
from pigeonholed.statistics import Statistics
from pigeonholed.store import ModelStore
from pigeonholed.switching import Switcher
from pigeonholed.watching import Rules, Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pigeonholed.bundle import Bundle
    from pigeonholed.custody import Custody
    from pigeonholed.entries import Plan
    from pigeonholed.holding import Holds
    from pigeonholed.known_contents import KnownContents
    from pigeonholed.output import Output
    from pigeonholed.records import Records
    from pigeonholed.reexamining import Outcome
    from pigeonholed.settings import InboxSettings, Settings

log = structlog.get_logger()

_LONGEST_WAIT_S = 5.0  # between two looks whether a fault of the machine has passed


@contextmanager
def build(
    settings: Settings,
    *,
    stop: threading.Event | None = None,
    once: bool = False,
    may_upgrade: bool = True,
    metrics: Metrics | None = None,
    reload: Callable[[], None] | None = None,
    progress: Progress | None = None,
) -> Iterator[Service]:
    """Make a service out of settings, and take everything apart again at the end.

    Args:
        settings: what to build.
        stop: set when the process should end; what the building waits for (a database) is then given up.
        once: file what is there, then end.
        may_upgrade: an older database is upgraded rather than refused.
        metrics: those of the service before, whose counts go on.
        reload: reads the configuration again; None where nothing can.
        progress: of the process; told of each step of the building, too.

    Raises:
        UserError: something that the settings name is missing, held by another process, or cannot be used.
        BundleError: a model cannot be served.
    """
    stop = stop or threading.Event()
    metrics = metrics or Metrics()
    progress = progress or Progress()
    progress.main.adopt()
    progress.main.begin("opening the database and the folders", LONG_S)
    imaging.configure()
    with ExitStack() as stack:
        _lock_state(settings, stack)
        check_supported(settings)
        health = _Health(progress)
        addresses = _serve_http(settings, metrics, health, stack)
        on_database = partial(metrics.count_retry, Stage.RECORD)
        records = stack.enter_context(
            open_records(settings, stop=stop, serving=not once, may_upgrade=may_upgrade, on_retry=on_database)
        )
        metrics.database_available.set(1)
        ledger, deliveries, outputs = records.ledger, records.deliveries, records.outputs
        lanes = _load_models(settings, records, metrics, stop, progress)
        metrics.keep_inboxes({inbox.name for inbox in settings.inbox})

        statistics = Statistics({inbox.name: to_text(str(inbox.path)) for inbox in settings.inbox})

        def on_retry(stage: str, error: OSError) -> None:
            metrics.count_retry(Stage(stage), error)
            statistics.trouble("stage_blocked", f"{stage}: {error.strerror}")

        patience = Patience(stop, on_retry, longest_wait_s=_LONGEST_WAIT_S)
        crew = Crew(lambda: service.tear_down())  # noqa: PLW0108 (the service is made below)
        routes = {inbox.name: _route(inbox, outputs, lanes) for inbox in settings.inbox}
        batching = settings.batching
        workers = batching.decode_workers or os.cpu_count() or 1
        sizes = Sizes(batching.max_batch_size, batching.max_wait_s, workers, batching.max_decode_s)
        reporter = Reporter(metrics, statistics)
        finisher = Finisher(
            deliveries,
            ledger,
            records.contents,
            patience,
            _on_filed(settings, reporter, metrics, statistics, stack),
            reporter.withdrawn,
            reporter.name_taken,
            lambda stage: metrics.stage_duration_seconds.labels(stage).time(),
        )
        progress.main.begin("taking up what was in flight", LONG_S)
        _know_contents(settings, records.contents)
        resumed = recovery.recover(ledger, finisher, deliveries, time.monotonic(), patience, metrics)

        def waits_for(stage: Stage) -> Callable[[], bool]:
            return lambda: stage in patience.waiting or not ledger.reachable

        claiming_task = progress.task("taking files in", waits=waits_for(Stage.CLAIM))
        filing_task = progress.task("filing", waits=waits_for(Stage.FILE))
        engine = LocalEngine(routes, sizes, ledger, records.contents, crew, patience, metrics)
        stack.callback(engine.abort)  # ends its threads where the service is never run
        feeds = [
            Feed(
                watch_of(
                    inbox,
                    partial(now_ns_of, str(inbox.path), delivery.output),
                    partial(_passes_over, inbox.name, records.holds, delivery.custody),
                    metrics.stage_duration_seconds.labels(Stage.SETTLE).observe,
                    claiming_task.beat,
                ),
                delivery.output,
                delivery.custody,
            )
            for inbox in settings.inbox
            for delivery in [deliveries[inbox.name]]
        ]
        watches = [feed.watch for feed in feeds]
        claimer = Claimer(feeds, ledger, engine, patience, metrics, task=claiming_task)
        service = Service(
            settings=settings,
            stop=stop,
            crew=crew,
            claimer=claimer,
            claiming=OneRun(claimer, watches) if once else claimer,
            engine=engine,
            finisher=finisher,
            records=records,
            metrics=metrics,
            reporter=reporter,
            statistics=statistics,
            watches=watches,
            events=None if once else _watch_events(settings, watches, claimer, metrics, statistics, stack),
            switcher=_switcher(settings, records, lanes, metrics, statistics, stop),
            patience=patience,
            resumed=resumed,
            progress=progress,
            claimer_task=claiming_task,
            finisher_task=filing_task,
            addresses=addresses,
        )
        health.service = service
        records.returner.on_return = lambda inbox, count: metrics.returned_files_total.labels(inbox).inc(count)
        reclassifier = reclassifier_of(settings, records, metrics, stop)
        stack.callback(reclassifier.close)
        _serve_control(settings, service, reclassifier, reload, stack)
        yield service


def rehearse(settings: Settings, records: Records) -> None:
    """Check whether settings could be built, as far as that goes beside a running service.

    Raises:
        UserError: something that they name is missing or cannot be used.
        BundleError: a model cannot be served.
    """
    check_supported(settings)
    check_inboxes(settings, records.ledger, serving=True)
    for name, version in {(inbox.model, inbox.version) for inbox in settings.inbox}:
        open_tried(settings, ModelStore(settings.models.dir), records.served, name, version)


@dataclass(slots=True)
class _Health:
    """What the probes ask while the service is still being built."""

    progress: Progress
    service: Service | None = None

    def live(self) -> list[str]:
        return self.progress.stuck() if self.service is None else self.service.stuck()

    def ready(self) -> list[str]:
        return ["starting"] if self.service is None else self.service.faults()


def _lock_state(settings: Settings, stack: ExitStack) -> None:
    """One writer at a time; a command that holds the lock for a moment is waited for, another daemon is not."""
    folder = settings.state.dir
    try:
        os.makedirs(folder, exist_ok=True)
        lock = Lock.take_after_commands(settings.state.lock_file)
    except Held as held:
        raise Unavailable(
            f"cannot start: process {held.holder or 'unknown'} already serves the state folder {folder}; "
            "stop it first, or give this one a state folder of its own"
        ) from None
    except OSError as error:
        raise Misconfigured(
            f"cannot use the state folder {folder}: {error.strerror}; "
            "let this user write to it, or choose another in [state].dir"
        ) from None
    stack.callback(lock.release)


def _know_contents(settings: Settings, contents: KnownContents) -> None:
    """What is filed of inboxes that set duplicates aside, whenever they began to."""
    for inbox in settings.inbox:
        if inbox.duplicates == "set-aside":
            contents.know(inbox.name)


def check_supported(settings: Settings) -> None:
    """Refuse what cannot be run, and what the contract knows and this version does not do yet."""
    if settings.engine.kind != "local":
        raise Misconfigured('engine.kind = "ray" is not built yet in this version; use "local"')
    hook.check(settings.hook.command)


def _on_filed(
    settings: Settings, reporter: Reporter, metrics: Metrics, statistics: Statistics, stack: ExitStack
) -> Callable[[Sequence[Plan]], None]:
    """What is told of each batch that was filed: the reporter, and then the hook, which nobody waits for."""
    if not settings.hook.command:
        return reporter.filed_batch
    hooked = hook.Hook(settings.hook.command, settings.hook.timeout_s, metrics, trouble=statistics.trouble)
    hooked.start()
    stack.callback(hooked.close)

    def filed(plans: Sequence[Plan]) -> None:
        reporter.filed_batch(plans)
        hooked.offer(plans)

    return filed


def _serve_http(settings: Settings, metrics: Metrics, health: _Health, stack: ExitStack) -> dict[str, str]:
    """Answer scrapers and probes from now on; returns the actual address."""
    listen = settings.metrics.listen
    if listen is None:
        return {}
    try:
        server = HealthServer(listen.host, listen.port, metrics, health.live, health.ready)
    except OSError as error:
        raise Unavailable(
            f"cannot listen on {listen} for metrics: {error.strerror or error}; "
            'choose another address in [metrics].listen, or "" for none'
        ) from None
    server.start()
    stack.callback(server.close)
    address = str(replace(listen, port=server.port))
    log.info("metrics_served", address=address)
    return {"metrics": address}


def _serve_control(
    settings: Settings,
    service: Service,
    reclassifier: Reclassifier,
    reload: Callable[[], None] | None,
    stack: ExitStack,
) -> None:
    """Let commands reach the one writer."""
    records = service.records
    operations = Operations(
        records.ledger,
        records.returner,
        records.holds,
        records.store,
        records.engine,
        reclassifier,
        records.mender,
        on_change=service.look_again,
        status=service.status,
        reload=reload,
        on_fault=service.crew.fail,
    )
    server = ControlServer(settings.control.socket, operations.answer)
    server.start()
    stack.callback(server.close)


def reclassifier_of(
    settings: Settings, records: Records, metrics: Metrics, stop: threading.Event | None = None
) -> Reclassifier:
    """What looks again at filed pictures, with models that are opened as those of the service are."""

    def load(name: str, version: int | None) -> Served:
        imaging.configure()
        return load_served(
            settings, open_tried(settings, records.store, records.served, name, version or "current", stop)
        )

    def record(bundle: Bundle) -> None:
        records.served.record(bundle.name, bundle.version, bundle.digest, bundle.labels)

    def count(bundle: Bundle, pictures: int) -> None:
        metrics.inference_images_total.labels(bundle.name, str(bundle.version)).inc(pictures)
        metrics.inference_batches_total.labels(bundle.name, str(bundle.version)).inc()

    def tell(inbox: str, counts: Mapping[Outcome, int]) -> None:
        for outcome, files in counts.items():
            metrics.reclassified_images_total.labels(inbox, outcome).inc(files)

    reclassifier = Reclassifier(
        records.refilings,
        records.refiler,
        records.deliveries,
        {inbox.name: Manner(inbox.model, partial(demand_of, inbox), policy_of(inbox)) for inbox in settings.inbox},
        Models(records.store, load, record),
        settings.batching.max_batch_size,
    )
    reclassifier.on_results = tell
    reclassifier.on_inference = count
    return reclassifier


def _load_models(
    settings: Settings, records: Records, metrics: Metrics, stop: threading.Event, progress: Progress
) -> dict[tuple[str, object], Lane]:
    lanes: dict[tuple[str, object], Lane] = {}
    for inbox in settings.inbox:
        key = (inbox.model, inbox.version)
        if key not in lanes:
            progress.main.begin(f"loading the model {inbox.model}", STAGE_LIMIT_S)
            bundle = open_tried(settings, records.store, records.served, inbox.model, inbox.version, stop)
            served = load_served(settings, bundle, partial(metrics.count_retry, Stage.INFER))
            lanes[key] = Lane(served, Channel(settings.batching.max_batch_size * 4))
            _announce(settings, records, metrics, lanes[key], key)
    return lanes


def _announce(settings: Settings, records: Records, metrics: Metrics, lane: Lane, key: tuple[str, object]) -> None:
    """Record and tell which version serves from now on."""
    bundle, classifier = lane.served.bundle, lane.served.classifier
    records.served.record(bundle.name, bundle.version, bundle.digest, bundle.labels)
    for inbox in settings.inbox:
        if (inbox.model, inbox.version) == key:
            metrics.add_inbox(inbox.name, bundle.labels)
            metrics.add_model(inbox.name, bundle.name, bundle.version, classifier.runtime, classifier.device)
            metrics.drift.serve(inbox.name, bundle.name, bundle.version, bundle.manifest)
    log.info(
        "model_loaded",
        model=bundle.name,
        version=bundle.version,
        runtime=classifier.runtime,
        device=classifier.device,
        precision=classifier.precision,
    )


def _switcher(
    settings: Settings,
    records: Records,
    lanes: Mapping[tuple[str, object], Lane],
    metrics: Metrics,
    statistics: Statistics,
    stop: threading.Event,
) -> Switcher:
    """Follows the models that are not pinned to a version."""
    keys = {id(lane): key for key, lane in lanes.items()}

    def switched(lane: Lane) -> None:
        _announce(settings, records, metrics, lane, keys[id(lane)])
        metrics.model_reloads_total.labels(lane.served.bundle.name, Reload.LOADED).inc()

    def refused(name: str, why: str) -> None:
        metrics.model_reloads_total.labels(name, Reload.REFUSED).inc()
        statistics.trouble("model_refused", why)

    return Switcher(
        records.store,
        [lane for (_name, version), lane in lanes.items() if version == "current"],
        lambda name: load_served(
            settings,
            open_tried(settings, records.store, records.served, name, "current", stop),
            partial(metrics.count_retry, Stage.INFER),
        ),
        switched,
        refused,
    )


def _route(inbox: InboxSettings, outputs: Mapping[str, Output], lanes: Mapping[tuple[str, object], Lane]) -> Route:
    lane = lanes[inbox.model, inbox.version]
    sets_aside = inbox.duplicates == "set-aside"
    return Route(
        outputs[inbox.name], demand_of(inbox, lane.served), lane, policy_of(inbox), str(inbox.path), sets_aside
    )


def demand_of(inbox: InboxSettings, served: Served) -> Demand:
    """What an inbox and its model ask of a picture."""
    return Demand(
        served.bundle.manifest.pixel_spec,
        inbox.max_pixels,
        inbox.max_bytes,
        allow_truncated=inbox.truncated == "classify",
        wants_date="{date" in inbox.template,
    )


def policy_of(inbox: InboxSettings) -> Policy:
    """What an inbox does with predictions."""
    return Policy(None if inbox.min_confidence == "model" else inbox.min_confidence, inbox.top_k)


def watch_of(
    inbox: InboxSettings,
    now_ns: Callable[[], int],
    passes_over: Callable[[str, int, int], bool] = lambda _path, _size, _mtime_ns: False,
    on_complete: Callable[[float], None] = lambda _age_s: None,
    beat: Callable[[], None] = lambda: None,
) -> Watch:
    """An inbox, watched by its rules."""
    rules = Rules(
        inbox.name,
        str(inbox.path),
        inbox.settle_s,
        inbox.incomplete_s,
        inbox.rescan_s,
        inbox.recursive,
        inbox.sidecars,
    )
    names = NameFilter(inbox.include, inbox.exclude)
    return Watch(rules, names, now_ns, passes_over=passes_over, on_complete=on_complete, beat=beat)


def _passes_over(inbox: str, holds: Holds, custody: Custody, path: str, size: int, mtime_ns: int) -> bool:
    """Whether a file is left alone: `undo` has put it back, or it is known."""
    return holds.covers(inbox, path, size, mtime_ns) or custody.knows(path)


def _watch_events(
    settings: Settings,
    watches: Sequence[Watch],
    claimer: Claimer,
    metrics: Metrics,
    statistics: Statistics,
    stack: ExitStack,
) -> Events | None:
    """Watch first, scan later: what arrives in between is seen by both."""
    wanted = [(inbox, watch) for inbox, watch in zip(settings.inbox, watches, strict=True) if inbox.watch != "poll"]
    if not wanted:
        return None
    events = Events(
        claimer.wake,
        metrics.event_queue_overflows_total.inc,
        on_limit=lambda told: statistics.trouble("watch_limited", told),
    )
    stack.callback(events.close)
    for inbox, watch in wanted:
        even_remote = inbox.watch == "events"
        events.watch(str(inbox.path), watch.hints, recursive=inbox.recursive, even_remote=even_remote)
        watch.silent = events.silent(str(inbox.path))
    return events
