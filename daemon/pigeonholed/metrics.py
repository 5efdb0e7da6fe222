"""What the daemon counts, for Prometheus: one attribute a metric, each with the name, type and labels of the contract.

A `Metrics` has its own registry, so that several daemons (and tests) in one process never share a number. Every label
combination that can be known at start is made then, with the value 0: `rate()` sees the first increase, and a dashboard
tells "none yet" from "not measured". No label carries a path, a file name or free text.
"""

from __future__ import annotations

import errno
import math
import platform
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from pigeonholed.accounts import Accounts
from pigeonholed.batching import Flush
from pigeonholed.drift import Drift, Drifts, State
from pigeonholed.images import Placement, Reason


class Stage(StrEnum):
    """What a picture goes through, in order; `queue` is the wait between decoding and inference."""

    SETTLE = "settle"
    CLAIM = "claim"
    READ = "read"
    DECODE = "decode"
    QUEUE = "queue"
    INFER = "infer"
    RECORD = "record"
    FILE = "file"


QUEUED_STAGES = (Stage.SETTLE, Stage.DECODE, Stage.INFER, Stage.FILE)
"""`queue_images{stage}` counts the pictures that wait for this stage: each has a bounded queue in front of it."""


class Ineligible(StrEnum):
    """Why a file is left where it is, without a row."""

    EXCLUDED = "excluded"  # `exclude` or the built-in list names it, or `include` does not
    NOT_REGULAR = "not-regular"  # a link, a pipe, a socket, a device
    PERMISSION = "permission"  # it cannot be read, or its folder cannot
    SIDECAR = "sidecar"  # it travels with a picture, and that is not there or has gone before
    TOO_DEEP = "too-deep"  # its path is longer than the system takes; nothing in such a folder is counted


class Reload(StrEnum):
    """How an attempt to load another version of a model ended."""

    LOADED = "loaded"
    REFUSED = "refused"


class HookRun(StrEnum):
    """How a run of the hook ended."""

    OK = "ok"
    FAILED = "failed"  # it could not be started, or its exit code was not 0
    TIMEOUT = "timeout"


class Fault(StrEnum):
    """What went wrong with the machinery: the bounded vocabulary of `errors_total{reason}`."""

    DATABASE = "database"
    DISK_FULL = "disk-full"
    MISSING = "missing"
    PERMISSION = "permission"
    TOO_MANY_FILES = "too-many-files"
    IO = "io"
    MEMORY = "memory"
    MODEL = "model"
    OTHER = "other"


_FAULT_OF_ERRNO = {
    errno.ENOSPC: Fault.DISK_FULL,
    errno.EDQUOT: Fault.DISK_FULL,
    errno.ENOENT: Fault.MISSING,
    errno.ENOTDIR: Fault.MISSING,
    errno.EACCES: Fault.PERMISSION,
    errno.EPERM: Fault.PERMISSION,
    errno.EROFS: Fault.PERMISSION,
    errno.EMFILE: Fault.TOO_MANY_FILES,
    errno.ENFILE: Fault.TOO_MANY_FILES,
    errno.ENOMEM: Fault.MEMORY,
}


def fault_of(error: BaseException) -> Fault:
    """Name the kind of an error, for `errors_total{reason}`; never raises.

    A database error is known by the package of its class, so that this module needs no database library.
    """
    package = type(error).__module__.partition(".")[0]
    if package in {"sqlalchemy", "sqlite3", "psycopg"}:
        return Fault.DATABASE
    if isinstance(error, MemoryError):
        return Fault.MEMORY
    if isinstance(error, OSError):
        return _FAULT_OF_ERRNO.get(error.errno or 0, Fault.IO)
    if package in {"tensorflow", "keras", "openvino"}:
        return Fault.MODEL
    return Fault.OTHER


# One file's stages take microseconds to seconds; settling and waiting take seconds to minutes.
_STAGE_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_END_TO_END_BUCKETS_S = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 14400)
_BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
# Thresholds live near 1, so that is where the resolution is.
_CONFIDENCE_BUCKETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 1.0)


@dataclass(frozen=True, slots=True)
class _WithoutCreated(Collector):
    """A registry as scrapers want it: without the `_created` series, which double the count and tell nothing."""

    registry: CollectorRegistry
    lock: threading.RLock

    def collect(self) -> Iterator[Metric]:
        with self.lock:  # numbers that change together are seen together
            metrics = list(self.registry.collect())
        for metric in metrics:
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric


class Metrics:
    """All metrics of one daemon. Safe to use from any thread.

    Each attribute is a `prometheus_client` metric named as in the contract, without the prefix `pigeonholed_`:
    `metrics.images_processed_total.labels("camera", "sorted").inc()`. Label values are given in the order below.

    Attributes:
        registry: the collector registry that holds them, and the process's own (`process_*`).
        lock: held while numbers change that belong together, and while a scrape reads them.
        accounts: changes those of them that say what begins and ends.
        drift: what the metrics of drift are read from.
        images_processed_total: counter (inbox, outcome): filed pictures; outcome is a `Placement`.
        images_classified_total: counter (inbox, label): pictures filed as sorted or unsure, by label.
        images_rejected_total: counter (inbox, reason): refused pictures; reason is a `Reason`.
        ineligible_files: gauge (inbox, reason): files that are left where they are; reason is an `Ineligible`.
        inference_images_total: counter (model, version): pictures that went through a model.
        inference_batches_total: counter (model, version): batches that did.
        batch_size_images: histogram: pictures in a batch, padding not counted.
        batch_flush_total: counter (reason): batches by `Flush`.
        queue_images: gauge (stage): pictures waiting for a stage of `QUEUED_STAGES`.
        queue_oldest_age_seconds: gauge (inbox): age of the picture that waits longest, 0 when none waits.
        stage_duration_seconds: histogram (stage): time spent in a `Stage`; of a file in settle (since its last change),
            read, decode and queue, of a batch in claim, infer, record and file.
        end_to_end_seconds: histogram (inbox): from the moment a file was found complete to that it is filed.
        confidence_ratio: histogram (model): calibrated probability of the best label.
        errors_total: counter (stage, reason): faults of the machinery; `Stage` and `Fault`; see `count_error`.
        retries_total: counter (stage): attempts repeated after a fault.
        database_available: gauge: 1 when the last attempt to write to the database succeeded, else 0.
        rescan_recovered_total: counter (inbox): files that a rescan found and no event had announced.
        inbox_events: gauge (inbox): 1 while events tell of files that arrive, 0 while only scans find them.
        inbox_available: gauge (inbox): 1 when the inbox can be listed, else 0.
        last_success_timestamp_seconds: gauge (inbox): when a picture was last filed, 0 when never; Unix time.
        model_info: gauge (inbox, model, version, runtime, device): 1 for what serves an inbox; see `add_model`.
        model_reloads_total: counter (model, result): attempts to load another version, by `Reload`.
        claimed_files_total: counter (inbox): arrivals: files that were recorded and taken.
        resumed_files_total: counter (inbox): arrivals that were left unfinished before, and were taken up.
        vanished_files_total: counter (inbox): arrivals without a result: gone, kept or still written to by their owner.
        lost_files_total: counter: files in neither of the places where they could be. Stays 0.
        in_flight_files: gauge (inbox): arrivals that have not ended yet.
        in_flight_oldest_age_seconds: gauge (inbox): age of the oldest of those, 0 when there is none.
        unaccounted_files: gauge (inbox): by how much the books of `accounts` do not balance. Stays 0.
        returned_files_total: counter (inbox): results that were put back into their inbox.
        reclassified_images_total: counter (inbox, result): results that a newer model looked at; see `reexamining`.
        overwrites_refused_total: counter (inbox): moves whose name was taken meanwhile; another name was planned.
        orphans_found_total: counter: batch folders with files that no row explains; left alone. Stays 0.
        event_queue_overflows_total: counter: times that the kernel dropped file events; a scan makes up for them.
        drift_window_images: gauge (inbox): recent pictures by weight; see `drift`.
        drift_label_distance_ratio: gauge (inbox): how differently labels are spread than at training, or NaN.
        drift_label_chance_ratio: gauge (inbox): what of that chance alone exceeds once in a thousand times.
        drift_confidence_fall_ratio: gauge (inbox): how much less sure the model is than at training.
        drift_confidence_chance_ratio: gauge (inbox): as above.
        unsure_share_ratio: gauge (inbox): recent pictures below the model's own threshold for their label.
        unsure_share_training_ratio: gauge (inbox): those of the pictures that the model was judged by.
        hook_runs_total: counter (result): runs of the hook, by `HookRun`.
        hook_batches_dropped_total: counter: batches that it was not run for: too many waited, or the service ended.
        build_info: gauge (version, python, keras, openvino): 1.
        reviews_total: counter (inbox, result): what people said of a label: `confirmed` or `corrected`.
    """

    def __init__(self, version: str | None = None, *, process: bool = True) -> None:
        """Make every metric, with the label combinations that need no inbox and no model.

        Args:
            version: of pigeonholed; None for the installed one.
            process: also measure the process itself (memory, CPU, open files).
        """
        self.registry = CollectorRegistry()
        self.lock = threading.RLock()
        self.accounts = Accounts(self)
        self.drift = Drifts(self.lock)
        self._inboxes: set[str] = set()
        self._model_info_of: dict[str, tuple[str, ...]] = {}  # owner: whoever calls add_model, one thread
        self._make_outcomes()
        self._make_inference()
        self._make_flow()
        self._make_accounts()
        self._make_drift()
        self._make_faults()
        versions = (
            version or _version_of("pigeonholed"),
            platform.python_version(),
            _version_of("keras"),
            _version_of("openvino"),
        )
        self.build_info = self._gauge(
            "build_info", "Versions of what runs; always 1.", "version", "python", "keras", "openvino"
        )
        self.build_info.labels(*versions).set(1)
        if process:
            ProcessCollector(registry=self.registry)

    def add_inbox(self, inbox: str, labels: Iterable[str]) -> None:
        """Make every combination of an inbox with the words that go with it. May be called again with new labels."""
        self._inboxes.add(inbox)
        _touch(self.images_processed_total, [inbox], Placement)
        _touch(self.images_classified_total, [inbox], labels)
        _touch(self.images_rejected_total, [inbox], Reason)
        _touch(self.ineligible_files, [inbox], Ineligible)
        _touch(self.reviews_total, [inbox], ("confirmed", "corrected"))
        _touch(self.reclassified_images_total, [inbox], ("moved", "renewed", "unchanged", "left"))
        for metric in (
            self.queue_oldest_age_seconds,
            self.end_to_end_seconds,
            self.rescan_recovered_total,
            self.inbox_events,
            self.inbox_available,
            self.last_success_timestamp_seconds,
            self.claimed_files_total,
            self.resumed_files_total,
            self.vanished_files_total,
            self.returned_files_total,
            self.overwrites_refused_total,
        ):
            metric.labels(inbox)
        for gauge, read in (
            (self.in_flight_files, self.accounts.in_flight),
            (self.in_flight_oldest_age_seconds, self.accounts.oldest_s),
            (self.unaccounted_files, self.accounts.unaccounted),
        ):
            gauge.labels(inbox).set_function(partial(read, inbox))
        self._add_drift(inbox)

    def keep_inboxes(self, names: Collection[str]) -> None:
        """End what is told of inboxes that are served no more: they are neither away nor behind. Their counts stay."""
        with self.lock:
            for inbox in self._inboxes - set(names):
                for reason in Ineligible:
                    self.ineligible_files.remove(inbox, reason.value)
                of_now = (self.queue_oldest_age_seconds, self.inbox_available, self.inbox_events)
                for gauge in (*of_now, *self._of_drift()):
                    gauge.remove(inbox)
                if (served := self._model_info_of.pop(inbox, None)) is not None:
                    self.model_info.remove(*served)
            self._inboxes &= set(names)

    def _of_drift(self) -> tuple[Gauge, ...]:
        return (
            self.drift_window_images,
            self.drift_label_distance_ratio,
            self.drift_label_chance_ratio,
            self.drift_confidence_fall_ratio,
            self.drift_confidence_chance_ratio,
            self.unsure_share_ratio,
            self.unsure_share_training_ratio,
        )

    def _add_drift(self, inbox: str) -> None:
        """Read what is told of drift when it is asked for."""

        def read(of: Callable[[Drift], float | None]) -> float:
            drift = self.drift.of(inbox)
            value = of(drift or Drift(State.TOO_FEW, 0))
            return math.nan if value is None else value

        shown: tuple[Callable[[Drift], float | None], ...] = (
            lambda drift: drift.images,
            lambda drift: drift.labels.distance if drift.labels else None,
            lambda drift: drift.labels.chance if drift.labels else None,
            lambda drift: drift.confidence.distance if drift.confidence else None,
            lambda drift: drift.confidence.chance if drift.confidence else None,
            lambda drift: drift.unsure,
            lambda drift: drift.unsure_at_training,
        )
        for gauge, of in zip(self._of_drift(), shown, strict=True):
            gauge.labels(inbox).set_function(partial(read, of))

    def add_model(self, inbox: str, model: str, version: int, runtime: str, device: str) -> None:
        """Say what serves an inbox from now on, in place of what served it before; the counts of both stay."""
        self.inference_images_total.labels(model, str(version))
        self.inference_batches_total.labels(model, str(version))
        self.confidence_ratio.labels(model)
        _touch(self.model_reloads_total, [model], Reload)
        labels = (inbox, model, str(version), runtime, device)
        before = self._model_info_of.get(inbox)
        # The new one first: a scrape in between sees two models for a moment, never none.
        self.model_info.labels(*labels).set(1)
        if before not in (None, labels):
            self.model_info.remove(*before)
        self._model_info_of[inbox] = labels

    def count_error(self, stage: Stage, error: BaseException) -> None:
        """Count a fault of the machinery under the bounded word for it."""
        self.errors_total.labels(stage, fault_of(error)).inc()

    def count_retry(self, stage: Stage, error: BaseException) -> None:
        """Count a fault, and that what failed is tried again."""
        self.count_error(stage, error)
        self.retries_total.labels(stage).inc()

    def expose(self, accept: str = "") -> tuple[bytes, str]:
        """Write all metrics out.

        Args:
            accept: the scraper's Accept header; OpenMetrics when it asks for that, else the Prometheus text format.

        Returns:
            The body and its content type.
        """
        try:
            encode, content_type = choose_encoder(accept)
        except (TypeError, ValueError):  # it asks for a version that is none
            encode, content_type = choose_encoder("")
        return encode(_WithoutCreated(self.registry, self.lock)), content_type

    def _make_outcomes(self) -> None:
        self.images_processed_total = self._counter("images_processed_total", "Pictures filed.", "inbox", "outcome")
        self.images_classified_total = self._counter(
            "images_classified_total", "Pictures filed as sorted or unsure, by label.", "inbox", "label"
        )
        self.images_rejected_total = self._counter("images_rejected_total", "Pictures refused.", "inbox", "reason")
        self.ineligible_files = self._gauge(
            "ineligible_files", "Files left where they are, without a row.", "inbox", "reason"
        )
        self.reviews_total = self._counter("reviews_total", "Labels that people looked over.", "inbox", "result")

    def _make_inference(self) -> None:
        self.inference_images_total = self._counter(
            "inference_images_total", "Pictures that went through a model.", "model", "version"
        )
        self.inference_batches_total = self._counter(
            "inference_batches_total", "Batches that went through a model.", "model", "version"
        )
        self.batch_size_images = self._histogram("batch_size_images", "Pictures in a batch.", _BATCH_BUCKETS)
        self.batch_flush_total = self._counter("batch_flush_total", "Batches by why they were complete.", "reason")
        self.confidence_ratio = self._histogram(
            "confidence_ratio", "Calibrated probability of the best label.", _CONFIDENCE_BUCKETS, "model"
        )
        self.model_info = self._gauge(
            "model_info", "What serves an inbox; always 1.", "inbox", "model", "version", "runtime", "device"
        )
        self.model_reloads_total = self._counter(
            "model_reloads_total", "Attempts to load another version of a model.", "model", "result"
        )
        _touch(self.batch_flush_total, [], Flush)

    def _make_flow(self) -> None:
        self.queue_images = self._gauge("queue_images", "Pictures waiting for a stage.", "stage")
        self.queue_oldest_age_seconds = self._gauge(
            "queue_oldest_age_seconds", "Age of the picture that waits longest; 0 when none does.", "inbox"
        )
        self.stage_duration_seconds = self._histogram(
            "stage_duration_seconds", "Time spent in a stage.", _STAGE_BUCKETS_S, "stage"
        )
        self.end_to_end_seconds = self._histogram(
            "end_to_end_seconds",
            "From when a file was found complete until it is filed.",
            _END_TO_END_BUCKETS_S,
            "inbox",
        )
        self.inbox_events = self._gauge(
            "inbox_events", "1 while events tell of files that arrive, 0 while only scans find them.", "inbox"
        )
        self.inbox_available = self._gauge("inbox_available", "1 when the inbox can be listed.", "inbox")
        self.last_success_timestamp_seconds = self._gauge(
            "last_success_timestamp_seconds", "When a picture was last filed; 0 when never.", "inbox"
        )
        _touch(self.queue_images, [], QUEUED_STAGES)
        _touch(self.stage_duration_seconds, [], Stage)

    def _make_accounts(self) -> None:
        self.claimed_files_total = self._counter("claimed_files_total", "Files recorded and taken.", "inbox")
        self.resumed_files_total = self._counter(
            "resumed_files_total", "Files left unfinished before, and taken up.", "inbox"
        )
        self.vanished_files_total = self._counter(
            "vanished_files_total", "Files taken that leave no result: gone, kept or still written to.", "inbox"
        )
        self.lost_files_total = self._counter("lost_files_total", "Files that are nowhere; must stay 0.")
        self.in_flight_files = self._gauge("in_flight_files", "Files taken and not filed yet.", "inbox")
        self.in_flight_oldest_age_seconds = self._gauge(
            "in_flight_oldest_age_seconds", "Age of the file that is in flight for longest; 0 when none is.", "inbox"
        )
        self.unaccounted_files = self._gauge(
            "unaccounted_files",
            "Claimed and resumed less filed, vanished, lost and in flight; must stay 0.",
            "inbox",
        )
        self.returned_files_total = self._counter(
            "returned_files_total", "Filed files that were put back into their inbox.", "inbox"
        )
        self.reclassified_images_total = self._counter(
            "reclassified_images_total", "Filed pictures that a newer model looked at.", "inbox", "result"
        )

    def _make_drift(self) -> None:
        self.drift_window_images = self._gauge(
            "drift_window_images", "Recent pictures by weight, which drift is told from.", "inbox"
        )
        self.drift_label_distance_ratio = self._gauge(
            "drift_label_distance_ratio",
            "Total variation distance of the labels of recent pictures from training; NaN while unknown.",
            "inbox",
        )
        self.drift_label_chance_ratio = self._gauge(
            "drift_label_chance_ratio", "The part of drift_label_distance_ratio that may be chance.", "inbox"
        )
        self.drift_confidence_fall_ratio = self._gauge(
            "drift_confidence_fall_ratio",
            "By how many more of recent pictures the model is less sure than at training; NaN while unknown.",
            "inbox",
        )
        self.drift_confidence_chance_ratio = self._gauge(
            "drift_confidence_chance_ratio", "The part of drift_confidence_fall_ratio that may be chance.", "inbox"
        )
        self.unsure_share_ratio = self._gauge(
            "unsure_share_ratio", "Share of recent pictures below the threshold of their model.", "inbox"
        )
        self.unsure_share_training_ratio = self._gauge(
            "unsure_share_training_ratio", "The same share when the model was judged.", "inbox"
        )

    def _make_faults(self) -> None:
        self.errors_total = self._counter("errors_total", "Faults of the machinery.", "stage", "reason")
        self.retries_total = self._counter("retries_total", "Attempts repeated after a fault.", "stage")
        self.database_available = self._gauge(
            "database_available", "1 when the last attempt to write to the database succeeded."
        )
        self.rescan_recovered_total = self._counter(
            "rescan_recovered_total", "Files that a rescan found and no event had announced.", "inbox"
        )
        self.overwrites_refused_total = self._counter(
            "overwrites_refused_total", "Moves whose name was taken meanwhile; nothing was overwritten.", "inbox"
        )
        self.orphans_found_total = self._counter(
            "orphans_found_total", "Batch folders with files that no row explains; must stay 0."
        )
        self.event_queue_overflows_total = self._counter(
            "event_queue_overflows_total", "Times that the kernel dropped file events; a scan followed."
        )
        self.hook_runs_total = self._counter("hook_runs_total", "Runs of the hook.", "result")
        self.hook_batches_dropped_total = self._counter(
            "hook_batches_dropped_total", "Batches that the hook was not run for."
        )
        _touch(self.hook_runs_total, [], HookRun)
        _touch(self.retries_total, [], Stage)
        for stage in Stage:
            _touch(self.errors_total, [stage], Fault)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, namespace="pigeonholed", registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, namespace="pigeonholed", registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, text, labels, namespace="pigeonholed", buckets=buckets, registry=self.registry)


def _touch(metric: Counter | Gauge | Histogram, prefix: list[str], words: Iterable[str]) -> None:
    """Make one series for each word as the last label; it stays at 0 until something happens."""
    for word in words:
        metric.labels(*prefix, str(word))


def _version_of(distribution: str) -> str:
    """Read a version without importing the package: that would cost seconds and hundreds of megabytes."""
    try:
        return installed_version(distribution)
    except PackageNotFoundError:
        return "none"
