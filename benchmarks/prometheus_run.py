"""The real Prometheus beside a real service: every query of the dashboard, every alert, and one planted fault.

    python benchmarks/prometheus_run.py --work DIR --picture panels.png

Needs `prometheus` on the path (Debian, Ubuntu: apt-get install prometheus). Trains a small model on digits, drops
pictures at a rate, first such as it was trained on, then blurred ones; one in twenty is broken. Prints what each query
answers; then takes the inbox away and waits for the alert. Takes about seven minutes, all on loopback.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import numpy.typing as npt
from dashboard import Query, queries
from processes import environment, serving
from workload import Model, Pictures, Workspace, train

ALERTS = Path(__file__).resolve().parents[1] / "config/prometheus-alerts.yml"
WINDOW = "30s"
CONFIG = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: ["{alerts}"]
scrape_configs:
  - job_name: pigeonholed
    static_configs: [{{targets: ["{target}"]}}]
"""
BROKEN = (b"", b"%PDF-1.7 no picture", b"\xff\xd8\xff\xe0 broken")
PANELS = (
    "Filed by outcome",
    "From complete to filed",
    "Unsure and rejected",
    "Drift: less sure than at training",
    "Drift: labels",
    "Inboxes and database",
)


class Prometheus:
    """A running server; every answer is its own."""

    def __init__(self, address: str) -> None:
        self._address = address

    def get(self, path: str, **parameters: object) -> Any:
        with urllib.request.urlopen(
            f"http://{self._address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}", timeout=10
        ) as answer:
            return json.load(answer)["data"]

    def now(self, expression: str) -> list[tuple[dict[str, str], float]]:
        found = self.get("query", query=expression)["result"]
        return [(one["metric"], float(one["value"][1])) for one in found]

    def over_time(self, expression: str, start_s: float) -> list[tuple[dict[str, str], npt.NDArray[np.float64]]]:
        found = self.get("query_range", query=expression, start=start_s, end=time.time(), step=1)["result"]
        return [(one["metric"], np.array(one["values"], np.float64)) for one in found]

    def alerts(self) -> list[str]:
        """Alert and state of each that is not at rest."""
        return sorted(
            f"{alert['labels']['alertname']} {alert['state']}: {alert['annotations']['summary']}"
            for alert in self.get("alerts")["alerts"]
        )

    def rules(self) -> list[Mapping[str, Any]]:
        return [rule for group in self.get("rules")["groups"] for rule in group["rules"]]


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[Prometheus]:
    """A server that scrapes `target` each second, until the end of the block."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    folder.mkdir(parents=True)
    (folder / "prometheus.yml").write_text(CONFIG.format(alerts=ALERTS, target=target))
    command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with open(folder / "prometheus.log", "wb") as log:
        process = subprocess.Popen(
            [*command, f"--web.listen-address={address}"], stdout=log, stderr=subprocess.STDOUT, env=environment()
        )
    try:
        server = Prometheus(address)
        wait(lambda: _answers(server), "Prometheus to answer")
        yield server
    finally:
        process.terminate()
        process.wait(timeout=30)


def _answers(server: Prometheus) -> bool:
    try:
        return bool(server.now("up == 1"))
    except OSError:
        return False


def wait(look: Any, what: str, deadline_s: float = 240.0) -> None:
    """Look once a second until it is true."""
    ends_s = time.monotonic() + deadline_s
    while not look():
        if time.monotonic() > ends_s:
            raise SystemExit(f"waited {deadline_s:.0f} s in vain for {what}")
        time.sleep(1)


def blurred(data: bytes) -> bytes:
    """The same picture, as through a dirty lens."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    return cv2.imencode(".jpg", cv2.GaussianBlur(pixels, (0, 0), 4))[1].tobytes()


def feed(workspace: Workspace, pictures: Pictures, name: str, seconds: float, rate: float, *, blur: bool) -> int:
    """Drop pictures at a rate, one in twenty of them broken; how many."""
    rng, started_s, dropped = np.random.default_rng(7), time.monotonic(), 0
    while (passed_s := time.monotonic() - started_s) < seconds:
        while dropped < passed_s * rate:
            data = pictures.jpeg(int(rng.integers(len(pictures.images))), rng)
            data = BROKEN[dropped % 3] if dropped % 20 == 0 else blurred(data) if blur else data
            draft = workspace.root / "draft"
            draft.write_bytes(data)
            draft.rename(workspace.inbox / f"{name}-{dropped:05d}.jpg")
            dropped += 1
        time.sleep(0.05)
    return dropped


def show(server: Prometheus, asked: Sequence[Query]) -> int:
    """Print what each query answers, five series of each; how many answer nothing."""
    silent = 0
    for query in asked:
        found = server.now(query.concrete(WINDOW))
        values = [f"{query.name_of(labels)} {value:.4g}".strip() for labels, value in found]
        more = f", and {len(values) - 5} more" if len(values) > 5 else ""
        click.echo(f"  {query.panel}: {', '.join(values[:5]) or '(nothing)'}{more}")
        silent += not values
    return silent


def draw(server: Prometheus, asked: Sequence[Query], start_s: float, file: Path) -> None:
    """Some panels as Grafana would draw them."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(15, 7), layout="constrained")
    for axis, panel in zip(axes.flat, PANELS, strict=True):
        for query in (one for one in asked if one.panel == panel):
            for labels, values in server.over_time(query.concrete(WINDOW), start_s):
                name = query.name_of(labels)
                axis.plot(values[:, 0] - start_s, values[:, 1], label=name, ls="--" if "chance" in name else "-")
        axis.set_title(panel)
        axis.set_xlabel("seconds")
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.savefig(file, dpi=70)


@click.command(help=__doc__)
@click.option("--work", type=click.Path(path_type=Path, file_okay=False), required=True, help="An empty folder.")
@click.option("--rate", default=20.0, show_default=True, help="Pictures a second.")
@click.option("--seconds", default=60.0, show_default=True, help="For pictures as at training, then for blurred ones.")
@click.option("--picture", type=click.Path(path_type=Path), help="Draw some panels into this PNG.")
def main(work: Path, rate: float, seconds: float, picture: Path | None) -> None:
    work.mkdir(parents=True, exist_ok=True)
    pictures, asked = Pictures.load(), list(queries())
    published = work / "models"
    model = Model(published, "digits") if published.exists() else train(pictures, work, epochs=None)
    workspace = Workspace.make(work / f"service-{time.time():.0f}", model)
    with serving(workspace), prometheus(workspace.root / "prometheus", _address(workspace)) as server:
        start_s = time.time()
        dropped = feed(workspace, pictures, "clear", seconds, rate, blur=False)
        click.echo(f"\nafter {dropped} pictures such as at training:")
        show(server, asked)
        click.echo(f"alerts: {server.alerts() or 'none'}")
        dropped = feed(workspace, pictures, "blurred", seconds, rate, blur=True)
        click.echo(f"\nafter {dropped} blurred ones:")
        silent = show(server, asked)
        click.echo(f"{len(asked)} queries, {silent} without an answer")
        click.echo("alerts: " + "\n  ".join(["", *server.alerts()]))
        away = workspace.root / "away"
        workspace.inbox.rename(away)
        began_s = time.time()
        wait(lambda: any(a.startswith("PigeonholedInboxLost firing") for a in server.alerts()), "the alert")
        click.echo(f"\nthe inbox was taken away; after {time.time() - began_s:.0f} s:")
        click.echo("\n".join(f"  {alert}" for alert in server.alerts()))
        away.rename(workspace.inbox)
        wait(lambda: not any(a.startswith("PigeonholedInboxLost") for a in server.alerts()), "the alert to end")
        click.echo("it came back; alerts:")
        click.echo("\n".join(f"  {alert}" for alert in server.alerts()))
        unhealthy = [rule["name"] for rule in server.rules() if rule["health"] != "ok"]
        click.echo(f"\n{len(server.rules())} rules, {len(unhealthy)} of them unhealthy {unhealthy or ''}")
        click.echo(status_of(workspace))
        if picture is not None:
            draw(server, asked, start_s, picture)


def status_of(workspace: Workspace) -> str:
    """What `pigeonholed status` says."""
    command = [sys.executable, "-m", "pigeonholed", "status", "--config", str(workspace.root / "pigeonholed.toml")]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment()).stdout


def _address(workspace: Workspace) -> str:
    events = (
        json.loads(line) for line in (workspace.root / "pigeonholed.log").read_text().splitlines() if line[:1] == "{"
    )
    return str(next(event["address"] for event in events if event["event"] == "metrics_served"))


if __name__ == "__main__":
    main()
