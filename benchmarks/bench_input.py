"""The input pipeline of training beside stock Keras: the same pictures, the same changes, interleaved in one run.

From the second epoch on: ours reads decoded pictures from its cache and warps each once; stock Keras decodes again and
runs a layer for each change; a third column keeps decoded pictures in memory for it, which a large set cannot have.
JSON goes to stdout (or to `--json FILE`), a short table to stderr.
"""

from __future__ import annotations

import json
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import feeding
import verdicts
from rich.console import Console

WAYS = ("ours", "keras", "keras-cached")


@click.command(context_settings={"show_default": True})
@click.option("--pictures", default=8000, type=click.IntRange(200), help="Pictures of the set.")
@click.option("--seconds", default=8.0, type=click.FloatRange(0.1), help="Seconds of each measurement.")
@click.option("--rounds", default=3, type=click.IntRange(1), help="Rounds over the three ways; the best counts.")
@click.option("--quick", is_flag=True, help="Small counts; targets are then not judged.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write the report there instead of to stdout.")
def main(pictures: int, seconds: float, rounds: int, quick: bool, file: Path | None) -> None:
    """Measure the input pipeline on this machine; let nothing else run meanwhile."""
    if quick:
        pictures, seconds, rounds = 400, 1.0, 1
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="pigeonholed-bench-") as folder:
        report = measure(Path(folder), pictures, seconds, rounds, console)
    rows = figures(report["results"], judged=not quick)
    report["figures"] = [row.as_dict() for row in rows]
    text = json.dumps(report, indent=2) + "\n"
    if file is None:
        sys.stdout.write(text)
    else:
        file.write_text(text)
    console.print(verdicts.table(rows))


def measure(folder: Path, pictures: int, seconds: float, rounds: int, console: Console) -> dict[str, Any]:
    """Rates of all ways in turn, and the memory of ours with a quarter of the pictures beside all."""
    console.print(f"making {pictures:,} pictures …", highlight=False)
    small, whole, cache = folder / "small", folder / "whole", folder / "cache"
    feeding.make_pictures(small, pictures // 4)
    feeding.make_pictures(whole, pictures)
    results: dict[str, Any] = {way: [] for way in WAYS}
    for number in range(rounds):
        for way in WAYS:
            results[way].append(feeding.measure(way, whole, cache, seconds))
            said = results[way][-1]["pictures_per_s"]
            console.print(f"round {number + 1}, {way}: {said:,.0f} pictures/s", highlight=False)
    results["ours-quarter"] = [feeding.measure("ours", small, cache, seconds)]
    return {
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": verdicts.machine(folder),
        "options": {"pictures": pictures, "seconds": seconds, "rounds": rounds},
        "results": results,
    }


def figures(results: dict[str, Any], *, judged: bool) -> list[verdicts.Figure]:
    """Rates, their ratio, and how memory grows."""
    best = {way: max(result["pictures_per_s"] for result in results[way]) for way in WAYS}
    whole, quarter = results["ours"][-1], results["ours-quarter"][0]
    return [
        verdicts.Figure("input of training", best["ours"], "pictures/s"),
        verdicts.Figure("stock Keras", best["keras"], "pictures/s"),
        verdicts.Figure("stock Keras, decoded pictures in memory", best["keras-cached"], "pictures/s"),
        verdicts.Figure("ours over stock Keras", best["ours"] / best["keras"], "times", 2, "at least", judged),
        verdicts.Figure("own memory", whole["own_mb"], "MB"),
        verdicts.Figure("own memory with a quarter of the pictures", quarter["own_mb"], "MB"),
        verdicts.Figure("with mapped files (256 MB of them at most)", whole["all_mb"], "MB"),
        verdicts.Figure("the same with a quarter of the pictures", quarter["all_mb"], "MB"),
    ]


if __name__ == "__main__":
    main()
