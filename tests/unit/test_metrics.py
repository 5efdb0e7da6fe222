"""The metrics of the contract, as a scraper reads them."""

from __future__ import annotations

import errno
import math
import re
import sqlite3
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from pigeonholed.metrics import Fault, Metrics, Stage, fault_of

# Section 8 of the contract, retyped by hand on purpose: name -> (type, labels).
CONTRACT = {
    "images_processed_total": ("counter", {"inbox", "outcome"}),
    "images_classified_total": ("counter", {"inbox", "label"}),
    "images_rejected_total": ("counter", {"inbox", "reason"}),
    "ineligible_files": ("gauge", {"inbox", "reason"}),
    "inference_images_total": ("counter", {"model", "version"}),
    "inference_batches_total": ("counter", {"model", "version"}),
    "batch_size_images": ("histogram", set()),
    "batch_flush_total": ("counter", {"reason"}),
    "queue_images": ("gauge", {"stage"}),
    "queue_oldest_age_seconds": ("gauge", {"inbox"}),
    "stage_duration_seconds": ("histogram", {"stage"}),
    "end_to_end_seconds": ("histogram", {"inbox"}),
    "confidence_ratio": ("histogram", {"model"}),
    "errors_total": ("counter", {"stage", "reason"}),
    "retries_total": ("counter", {"stage"}),
    "rescan_recovered_total": ("counter", {"inbox"}),
    "inbox_events": ("gauge", {"inbox"}),
    "inbox_available": ("gauge", {"inbox"}),
    "last_success_timestamp_seconds": ("gauge", {"inbox"}),
    "model_info": ("gauge", {"inbox", "model", "version", "runtime", "device"}),
    "model_reloads_total": ("counter", {"model", "result"}),
    "lost_files_total": ("counter", set()),
    "build_info": ("gauge", {"version", "python", "keras", "openvino"}),
    "reviews_total": ("counter", {"inbox", "result"}),
}
# What we add to it; docs/metrics.md tells of both.
OURS = {
    "claimed_files_total": ("counter", {"inbox"}),
    "resumed_files_total": ("counter", {"inbox"}),
    "vanished_files_total": ("counter", {"inbox"}),
    "in_flight_files": ("gauge", {"inbox"}),
    "in_flight_oldest_age_seconds": ("gauge", {"inbox"}),
    "unaccounted_files": ("gauge", {"inbox"}),
    "returned_files_total": ("counter", {"inbox"}),
    "reclassified_images_total": ("counter", {"inbox", "result"}),
    "overwrites_refused_total": ("counter", {"inbox"}),
    "orphans_found_total": ("counter", set()),
    "event_queue_overflows_total": ("counter", set()),
    "database_available": ("gauge", set()),
    "drift_window_images": ("gauge", {"inbox"}),
    "drift_label_distance_ratio": ("gauge", {"inbox"}),
    "drift_label_chance_ratio": ("gauge", {"inbox"}),
    "drift_confidence_fall_ratio": ("gauge", {"inbox"}),
    "drift_confidence_chance_ratio": ("gauge", {"inbox"}),
    "unsure_share_ratio": ("gauge", {"inbox"}),
    "unsure_share_training_ratio": ("gauge", {"inbox"}),
    "hook_runs_total": ("counter", {"result"}),
    "hook_batches_dropped_total": ("counter", set()),
}
# Nobody knows them before there are enough pictures, and 0 would be a claim.
UNKNOWN_AT_START = {name for name in OURS if name.startswith(("drift_", "unsure_"))} - {"drift_window_images"}
ALL = CONTRACT | OURS
DOCUMENT = Path(__file__).resolve().parents[2] / "docs/metrics.md"
WORDS = {
    ("images_processed_total", "outcome"): {"sorted", "unsure", "rejected", "duplicate"},
    ("images_classified_total", "label"): {"cat", "dog"},
    ("images_rejected_total", "reason"): {
        "unreadable", "truncated", "unsupported", "too-large", "empty", "io-error", "model-error", "poison"
    },
    ("batch_flush_total", "reason"): {"full", "timeout", "idle", "drain", "model_change"},
    ("stage_duration_seconds", "stage"): {
        "settle", "claim", "read", "decode", "queue", "infer", "record", "file"
    },
}  # fmt: skip


@pytest.fixture
def metrics() -> Metrics:
    made = Metrics(version="9.9")
    made.add_inbox("camera", ["cat", "dog"])
    made.add_model("camera", "pets", 3, "openvino", "cpu")
    return made


def families(metrics: Metrics) -> dict[str, Metric]:
    """Every metric by its contract name."""
    body, _ = metrics.expose()
    found = {}
    for family in parse_text(body.decode()):
        name = family.name + ("_total" if family.type == "counter" else "")
        found[name.removeprefix("pigeonholed_")] = family
    return found


@pytest.mark.parametrize("name", ALL)
def test_every_metric_has_a_series_at_the_first_scrape(metrics: Metrics, name: str) -> None:
    kind, labels = ALL[name]
    family = families(metrics)[name]
    assert family.type == kind
    assert family.samples
    for sample in family.samples:
        assert set(sample.labels) - {"le"} == labels
    assert hasattr(metrics, name)


def test_there_is_no_other_metric(metrics: Metrics) -> None:
    ours = {name for name in families(metrics) if not name.startswith("process_")}
    assert ours == set(ALL)


def test_the_document_lists_every_metric_with_its_type_and_labels() -> None:
    rows = re.findall(r"^\| `pigeonholed_(\w+)(?:\{([\w,]*)\})?` \| (\w+) \|", DOCUMENT.read_text(), re.MULTILINE)
    assert {name: (kind, set(filter(None, labels.split(",")))) for name, labels, kind in rows} == ALL


@pytest.mark.parametrize(("name", "label"), WORDS)
def test_labels_have_every_word_of_their_vocabulary_from_the_start(metrics: Metrics, name: str, label: str) -> None:
    words = {sample.labels[label] for sample in families(metrics)[name].samples}
    assert words == WORDS[name, label]


def test_everything_but_the_infos_starts_at_zero(metrics: Metrics) -> None:
    for name, family in families(metrics).items():
        if name.startswith("process_"):
            continue
        values = {sample.value for sample in family.samples}
        if name in UNKNOWN_AT_START:
            assert all(map(math.isnan, values)), name
        else:
            assert values == ({1.0} if name.endswith("_info") else {0.0}), name


def test_names_follow_the_rules_of_prometheus(metrics: Metrics) -> None:
    for family in parse_text(metrics.expose()[0].decode()):
        assert re.fullmatch(r"(pigeonholed|process)_[a-z][a-z_]*", family.name)
        assert family.documentation
        assert not family.name.endswith(("_milliseconds", "_ms", "_percent", "_count", "_sum", "_bucket"))


def test_no_created_series_are_shown(metrics: Metrics) -> None:
    assert b"_created" not in metrics.expose()[0]


def test_a_scraper_that_asks_for_openmetrics_gets_it(metrics: Metrics) -> None:
    body, content_type = metrics.expose("application/openmetrics-text; version=1.0.0,text/plain;q=0.5")
    assert content_type.startswith("application/openmetrics-text")
    assert "pigeonholed_images_processed" in {family.name for family in parse_openmetrics(body.decode())}  # type: ignore[no-untyped-call]


def test_counting_shows_under_the_right_labels(metrics: Metrics) -> None:
    metrics.images_processed_total.labels("camera", "unsure").inc(2)
    body = metrics.expose()[0].decode()
    assert 'pigeonholed_images_processed_total{inbox="camera",outcome="unsure"} 2.0' in body


def test_a_label_that_looks_like_a_metric_stays_one_label(metrics: Metrics) -> None:
    nasty = 'x"} 1\nfake_metric 2'
    metrics.add_inbox(nasty, [])
    found = families(metrics)
    assert "fake_metric" not in found
    assert {sample.labels["inbox"] for sample in found["inbox_available"].samples} == {"camera", nasty}


def test_another_model_replaces_the_one_that_served_the_inbox(metrics: Metrics) -> None:
    metrics.inference_images_total.labels("pets", "3").inc(7)
    metrics.add_model("camera", "pets", 4, "openvino", "cpu")
    found = families(metrics)
    assert [sample.labels["version"] for sample in found["model_info"].samples] == ["4"]
    assert {s.labels["version"]: s.value for s in found["inference_images_total"].samples} == {"3": 7.0, "4": 0.0}


def test_the_same_model_added_again_stays(metrics: Metrics) -> None:
    metrics.add_model("camera", "pets", 3, "openvino", "cpu")
    assert [sample.labels["version"] for sample in families(metrics)["model_info"].samples] == ["3"]


def test_an_inbox_that_is_served_no_more_is_neither_away_nor_behind_and_keeps_its_counts(metrics: Metrics) -> None:
    metrics.add_inbox("phone", ["cat", "dog"])
    metrics.add_model("phone", "pets", 3, "openvino", "cpu")
    metrics.images_processed_total.labels("phone", "sorted").inc()
    metrics.keep_inboxes({"camera"})
    told = {
        name for name, family in families(metrics).items() for s in family.samples if s.labels.get("inbox") == "phone"
    }
    kept = {name for name, (kind, labels) in ALL.items() if "inbox" in labels and kind != "gauge"}
    assert told == kept | {"last_success_timestamp_seconds", "in_flight_files"} | {
        "in_flight_oldest_age_seconds", "unaccounted_files"
    }  # fmt: skip
    assert all(len(families(metrics)[name].samples) >= 1 for name in ALL)
    metrics.keep_inboxes({"camera"})
    metrics.add_inbox("phone", ["cat", "dog"])
    metrics.add_model("phone", "pets", 3, "openvino", "cpu")
    values = {s.labels["outcome"]: s.value for s in families(metrics)["images_processed_total"].samples
              if s.labels["inbox"] == "phone"}  # fmt: skip
    assert values["sorted"] == 1.0


def test_two_instances_share_no_number(metrics: Metrics) -> None:
    other = Metrics()
    other.lost_files_total.inc()
    assert families(metrics)["lost_files_total"].samples[0].value == 0.0


def test_adding_an_inbox_again_keeps_its_counts(metrics: Metrics) -> None:
    metrics.images_classified_total.labels("camera", "cat").inc()
    metrics.add_inbox("camera", ["cat", "fox"])
    values = {s.labels["label"]: s.value for s in families(metrics)["images_classified_total"].samples}
    assert values == {"cat": 1.0, "dog": 0.0, "fox": 0.0}


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (OSError(errno.ENOSPC, "full"), Fault.DISK_FULL),
        (OSError(errno.EDQUOT, "full"), Fault.DISK_FULL),
        (FileNotFoundError(errno.ENOENT, "gone"), Fault.MISSING),
        (PermissionError(errno.EACCES, "no"), Fault.PERMISSION),
        (OSError(errno.EROFS, "ro"), Fault.PERMISSION),
        (OSError(errno.EMFILE, "many"), Fault.TOO_MANY_FILES),
        (OSError(errno.EIO, "io"), Fault.IO),
        (OSError("no errno"), Fault.IO),
        (MemoryError(), Fault.MEMORY),
        (sqlite3.OperationalError("locked"), Fault.DATABASE),
        (ValueError("what"), Fault.OTHER),
    ],
)
def test_an_error_is_counted_under_a_bounded_word(metrics: Metrics, error: BaseException, fault: Fault) -> None:
    assert fault_of(error) is fault
    metrics.count_error(Stage.FILE, error)
    counted = {(s.labels["stage"], s.labels["reason"]): s.value for s in families(metrics)["errors_total"].samples}
    assert counted["file", fault] == 1.0
    assert sum(counted.values()) == 1.0
