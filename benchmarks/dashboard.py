"""The Grafana dashboard that ships, as a list of queries."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DASHBOARD = Path(__file__).resolve().parents[1] / "config/grafana-dashboard.json"


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a panel; `legend` is Grafana's template for its series."""

    panel: str
    legend: str
    expression: str

    def concrete(self, window: str) -> str:
        """The expression with all services and inboxes, over so long a window (as `30s`), as Prometheus takes it."""
        expression = self.expression
        for name, value in (("$instance", ".*"), ("$inbox", ".*"), ("$__rate_interval", window)):
            expression = expression.replace(name, value)
        return expression

    def name_of(self, labels: dict[str, str]) -> str:
        """The legend of one series."""
        text = self.legend
        for name, value in labels.items():
            text = text.replace("{{" + name + "}}", value)
        return text


def queries(path: Path = DASHBOARD) -> Iterator[Query]:
    """Every query of every panel, and those of the annotations."""
    content = json.loads(path.read_text(encoding="utf-8"))
    for panel in content["panels"]:
        for target in panel.get("targets", []):
            yield Query(panel["title"], target["legendFormat"], target["expr"])
    for annotation in content["annotations"]["list"]:
        if "expr" in annotation:
            yield Query(annotation["name"], annotation["textFormat"], annotation["expr"])
