"""What a scraper reads from a running daemon: complete from the start, by the rules, and true of what happened."""

from __future__ import annotations

import math
import re
import shutil
import signal
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from bundles import publish_tiny
from gauges import Scraped
from pigeonholed.control import ask
from pigeonholed.metrics import Fault, Stage
from running import Running, Workspace, picture, until

RED, BLUE = (220, 60, 40), (40, 60, 220)
ALIKE = {"n": 400, "part": "test", "labels": [200, 200], "levels": [0.5, 0.9], "below": [0, 4], "unsure": 4}

pytestmark = pytest.mark.slow


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = Workspace.make(tmp_path / "work", listen="127.0.0.1:0", settle_s=0.05)
    publish_tiny(workspace.root / "models", manifest={"reference": ALIKE})
    return workspace


def scrape(daemon: Running, accept: str = "") -> str:
    daemon.await_event("metrics_served")
    address = [event["address"] for event in daemon.events() if event["event"] == "metrics_served"][-1]
    request = urllib.request.Request(f"http://{address}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return str(answer.read().decode())


def series(families: list[Metric]) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
    return {(s.name, tuple(sorted(s.labels.items()))) for family in families for s in family.samples}


def total(daemon: Running, *key: str) -> float:
    return Scraped.of(scrape(daemon)).series[key]


def drop(workspace: Workspace, n_red: int, n_blue: int, folder: str = "") -> None:
    for serial in range(n_red + n_blue):
        data = picture(*(RED if serial < n_red else BLUE), seed=serial, size=8)
        workspace.drop(f"{folder}{serial}.png", data)


def drift_of(workspace: Workspace) -> dict[str, Any]:
    told: dict[str, Any] = ask(workspace.root / "pigeonholed.sock", "status", {})["inboxes"][0]["drift"]
    return told


def test_every_series_is_there_from_the_start_and_every_stage_is_measured(workspace: Workspace) -> None:
    with workspace.serving() as daemon:
        daemon.await_event("service_ready")
        first = list(parse_text(scrape(daemon)))
        workspace.drop("broken.png", b"no picture")
        drop(workspace, 20, 20)
        until(lambda: workspace.filed() == 41, "all to be filed")
        until(lambda: total(daemon, "in_flight_files", "camera") == 0, "the books to be closed")
        later = list(parse_text(scrape(daemon)))
        assert series(first) == series(later)
        check_rules(scrape(daemon), scrape(daemon, "application/openmetrics-text; version=1.0.0"))
        at = Scraped.of(scrape(daemon)).series
        for stage in Stage:
            assert at["stage_duration_seconds_count", stage] > 0, stage
            for fault in Fault:
                assert at["errors_total", fault, stage] == 0
            assert at["retries_total", stage] == 0
        for stage in (Stage.SETTLE, Stage.READ):
            assert at["stage_duration_seconds_count", stage] == 41
        assert at["stage_duration_seconds_count", Stage.QUEUE] == 40
        assert at["stage_duration_seconds_sum", Stage.SETTLE] >= 41 * 0.05
        assert at["stage_duration_seconds_sum", Stage.QUEUE] < 40 * 60  # seconds, and since they were decoded
        assert at["end_to_end_seconds_count", "camera"] == 41
        assert at["confidence_ratio_count", "tiny"] == 40
        assert (at[("database_available",)], at["inbox_available", "camera"]) == (1, 1)
        assert at["drift_window_images", "camera"] == pytest.approx(40, abs=1)
        assert math.isnan(at["drift_label_distance_ratio", "camera"])
        assert daemon.terminate() == 0


def check_rules(text: str, strict: str) -> None:
    families = list(parse_openmetrics(strict))  # type: ignore[no-untyped-call]
    assert {family.name for family in families} == {family.name for family in parse_text(text)}
    for family in families:
        assert family.documentation.endswith("."), family.name
        assert re.fullmatch(r"(pigeonholed|process)_[a-z_]+", family.name)
        assert family.samples, family.name
    ours = [family for family in families if family.name.startswith("pigeonholed_")]
    for family in ours:
        # A base unit, a thing that is counted, or 1 for "it is so".
        assert family.name.endswith(
            ("_seconds", "_ratio", "_images", "_files", "_info", "_available", "_events", "_total")
        ) or family.type == "counter", family.name  # fmt: skip
        assert {name for sample in family.samples for name in sample.labels} <= BOUNDED, family.name
    if shutil.which("promtool"):  # tests of the alerts say aloud where it is not
        found = subprocess.run(
            ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False
        )
        assert (found.returncode, found.stdout + found.stderr) == (0, "")


# Each has few values, which configuration, bundle or our own enums name; `le` is of histograms.
BOUNDED = {
    *("inbox", "outcome", "label", "reason", "stage", "model", "version", "runtime", "device", "result"),
    *("python", "keras", "openvino", "le"),
}


def test_drift_is_told_of_what_was_dropped_over_a_reload_until_another_version_serves(workspace: Workspace) -> None:
    with workspace.serving() as daemon:
        daemon.await_event("service_ready")
        assert drift_of(workspace)["state"] == "too-few"
        drop(workspace, 150, 150)
        until(lambda: workspace.filed() == 300, "all to be filed")
        until(lambda: drift_of(workspace)["state"] == "as-at-training", "as at training")
        workspace.config.write_text(workspace.config.read_text().replace("rescan_s = 0.5", "rescan_s = 0.6"))
        daemon.process.send_signal(signal.SIGHUP)
        until(lambda: sum(event["event"] == "service_ready" for event in daemon.events()) == 2, "the new service")
        assert drift_of(workspace)["state"] == "as-at-training"  # it goes on over a reload
        drop(workspace, 300, 0, "more/")
        until(lambda: workspace.filed() == 600, "all to be filed")
        until(lambda: drift_of(workspace)["state"] == "shifted", "the shift")
        at = Scraped.of(scrape(daemon)).series
        assert at["drift_label_distance_ratio", "camera"] > at["drift_label_chance_ratio", "camera"]
        assert at["drift_confidence_fall_ratio", "camera"] <= at["drift_confidence_chance_ratio", "camera"]
        assert at["unsure_share_ratio", "camera"] == 0.0
        assert at["unsure_share_training_ratio", "camera"] == 0.01
        said = workspace.run("status").stdout
        assert re.search(r"^camera: labels shifted: (\d+ % cat|\d+ % dog), 50 % at training$", said, re.MULTILINE)
        # ... but another version begins anew.
        publish_tiny(workspace.root / "models", manifest={"reference": ALIKE})
        daemon.await_event("model_switched")
        until(lambda: drift_of(workspace)["images"] == 0, "a new beginning")
        assert math.isnan(total(daemon, "drift_label_distance_ratio", "camera"))
        assert daemon.terminate() == 0
