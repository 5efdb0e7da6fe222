"""What ships for Prometheus and Grafana is valid, and asks for metrics that exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families as parse

from pigeonholed.metrics import Metrics

ROOT = Path(__file__).resolve().parents[1]
ALERTS = ROOT / "config/prometheus-alerts.yml"
DASHBOARD = ROOT / "config/grafana-dashboard.json"
TESTS = ROOT / "tests/prometheus/alerts.test.yml"

RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]
]
BOARD: dict[str, Any] = json.loads(DASHBOARD.read_text())
PANELS: list[dict[str, Any]] = BOARD["panels"]
MEASURED = [panel for panel in PANELS if panel["type"] != "row"]


def promtool(*arguments: str) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian, Ubuntu: apt-get install prometheus)")
    found = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False, cwd=ROOT)
    assert found.returncode == 0, found.stdout + found.stderr


def expressions(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Title and query of all that the dashboard asks, as Prometheus takes it."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    sys.modules.pop("dashboard", None)
    import dashboard

    return [(query.panel, query.concrete("5m")) for query in dashboard.queries()]


@pytest.fixture(scope="module")
def series() -> dict[str, dict[str, set[str]]]:
    """Every series by name, with the values of its labels."""
    metrics = Metrics()
    metrics.add_inbox("camera", ["cat", "dog"])
    metrics.add_model("camera", "pets", 3, "openvino", "cpu")
    found: dict[str, dict[str, set[str]]] = {"up": {"job": {"pigeonholed"}}, "ALERTS": {}}
    for family in parse(metrics.expose()[0].decode()):
        for sample in family.samples:
            for label, value in ({"instance": "a"} | sample.labels).items():
                found.setdefault(sample.name, {}).setdefault(label, set()).add(value)
    return found


def fault_of(expression: str, series: dict[str, dict[str, set[str]]]) -> str | None:
    """A metric, a label or a word of one that nobody exposes."""
    bare = re.sub(r'"[^"]*"', '""', expression)
    for name in re.findall(r"\b(?:pigeonholed|process)_\w+", bare):
        if name not in series:
            return f"there is no {name}"
    for name, selector in re.findall(r"\b((?:pigeonholed|process)_\w+|up)\{([^}]*)\}", expression):
        for label, operator, value in re.findall(r'(\w+)(=~|!~|!=|=)"([^"]*)"', selector):
            if label not in series[name]:
                return f"{name} has no label {label}"
            words = value.split("|") if "~" in operator else [value]
            if value != ".*" and not set(words) <= series[name][label]:
                return f"no {label} of {name} is {value}"
    return None


class TestAlerts:
    @pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
    def test_each_rule_asks_for_metrics_that_exist_and_says_what_to_do(
        self, rule: dict[str, Any], series: dict[str, dict[str, set[str]]]
    ) -> None:
        assert fault_of(rule["expr"], series) is None
        assert re.fullmatch(r"Pigeonholed[A-Za-z]+", rule["alert"])
        assert re.fullmatch(r"\d+[smh]", rule["for"])
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert set(rule["annotations"]) == {"summary", "description"}
        assert len(rule["annotations"]["description"]) > 60
        assert rule["annotations"]["description"].endswith(".")

    def test_each_threshold_is_explained(self) -> None:
        for line in ALERTS.read_text().splitlines():
            assert not re.match(r"\s+for: \w+$", line), f"say why: {line.strip()}"

    def test_names_are_unique_and_each_is_in_the_tests_and_in_the_document(self) -> None:
        names = [rule["alert"] for rule in RULES]
        assert len(set(names)) == len(names)
        tested = set(re.findall(r"\bPigeonholed\w+", TESTS.read_text()))
        assert tested == set(names)
        told = set(re.findall(r"^\| `(Pigeonholed\w+)` \|", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE))
        assert told == set(names)

    def test_commands_that_they_name_exist(self) -> None:
        from pigeonholed.cli import cli

        told = {
            name for rule in RULES for name in re.findall(r"`pigeonholed (\w+)", rule["annotations"]["description"])
        }
        assert told
        assert told <= set(cli.list_commands(click.Context(cli)))

    def test_promtool_finds_the_rules_valid(self) -> None:
        promtool("check", "rules", str(ALERTS))

    def test_each_alert_fires_on_its_fault_and_on_nothing_else(self) -> None:
        promtool("test", "rules", str(TESTS))


class TestDashboard:
    def test_each_query_asks_for_metrics_that_exist(
        self, monkeypatch: pytest.MonkeyPatch, series: dict[str, dict[str, set[str]]]
    ) -> None:
        asked = expressions(monkeypatch)
        assert len(asked) > len(MEASURED)
        for title, expression in asked:
            assert fault_of(expression, series) is None, title
            assert "$" not in expression, f"{title}: {expression} has a variable that nobody sets"

    def test_promtool_parses_each_query(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        rules = [
            {"record": f"query:{number}", "expr": expression}
            for number, (_title, expression) in enumerate(expressions(monkeypatch))
        ]
        file = tmp_path / "queries.yml"
        file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
        promtool("check", "rules", str(file))

    def test_it_shows_every_metric_that_changes(
        self, monkeypatch: pytest.MonkeyPatch, series: dict[str, dict[str, set[str]]]
    ) -> None:
        """What it leaves out is said here, so that a new metric is not forgotten."""
        asked = " ".join(expression for _title, expression in expressions(monkeypatch))
        shown = set(re.findall(r"pigeonholed_\w+", asked))
        families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in series if name.startswith("pigeonholed_")}
        left = {
            name.removeprefix("pigeonholed_") for name in families if not any(one.startswith(name) for one in shown)
        }
        assert left == {
            # Parts of a sum that unaccounted_files stands for, and counts for the curious.
            *("claimed_files_total", "resumed_files_total", "vanished_files_total", "returned_files_total"),
            *("overwrites_refused_total", "orphans_found_total", "event_queue_overflows_total", "reviews_total"),
            *("inference_batches_total", "last_success_timestamp_seconds", "drift_window_images"),
            "reclassified_images_total",
        }

    def test_it_can_be_imported_beside_others(self) -> None:
        assert (BOARD["uid"], BOARD["title"], BOARD["id"]) == ("pigeonholed", "pigeonholed", None)
        assert BOARD["schemaVersion"] >= 36
        variables = {variable["name"]: variable for variable in BOARD["templating"]["list"]}
        assert list(variables) == ["datasource", "instance", "inbox"]
        assert (variables["datasource"]["type"], variables["datasource"]["query"]) == ("datasource", "prometheus")
        for panel in MEASURED:
            assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            assert all(target["datasource"] == panel["datasource"] for target in panel["targets"])

    def test_panels_have_a_place_a_title_and_a_description_of_their_own(self) -> None:
        assert len({panel["id"] for panel in PANELS}) == len(PANELS)
        assert len({panel["title"] for panel in PANELS}) == len(PANELS)
        for panel in MEASURED:
            assert panel["description"].endswith("."), panel["title"]
            assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        for one, other in combinations(PANELS, 2):
            assert not _overlap(one["gridPos"], other["gridPos"]), (one["title"], other["title"])
        assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in PANELS)


def _overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return all(
        one[start] < other[start] + other[size] and other[start] < one[start] + one[size]
        for start, size in (("x", "w"), ("y", "h"))
    )
