"""`pigeonholed demo`: the whole job on real pictures, and a table of what went where."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from pigeonholed.demonstration import Result, Summary


@click.command(name="demo")
@click.argument("folder", metavar="[DIR]", default="demo", type=click.Path(path_type=Path, file_okay=False))
def command(folder: Path) -> None:
    """Do the main job on embedded data: handwritten digits, sorted by a small network that is trained first.

    DIR (default: demo/) stays to be looked at: pigeonholed.toml, pigeonholed.db, inbox/, sorted/, models/ and
    dropped.csv, which says what was dropped and what is on it.
    """
    from rich.console import Console

    from pigeonholed.demonstration import Demo

    summary = Demo(folder, lambda line: click.echo(line, err=True)).run()
    _show(Console(highlight=False), summary, folder)


def _show(console: Console, summary: Summary, folder: Path) -> None:
    from pigeonholed.demonstration import accuracy

    _table(console, summary.results)
    _rejected(console, summary.results)
    readable, right, unsure = accuracy(summary.results)
    rate = len(summary.results) / summary.seconds if summary.seconds > 0 else 0.0
    scraped = summary.metrics.get("pigeonholed_images_processed_total", 0.0)
    lines = [
        f"[bold]{right} of {readable}[/] readable pictures got the right label ({right / readable:.1%}).",
        f"{unsure} of them ({unsure / readable:.1%}) were unsure and wait in _unsure/ for a person.",
        f"{len(summary.results)} files in {summary.seconds:.1f} s, {rate:.0f} images/s, waiting for quiet included; "
        f"/metrics counted {scraped:.0f}.",
        "",
        "[bold]Look around[/]",
        f"  {folder}/sorted/                        the pictures in their class folders",
        f"  {folder}/sorted/_unsure/, _rejected/    what a person should look at, and why",
        f"  {folder}/models/digits/1/report.html    how good the model is, and how we know",
        f"  {folder}/pigeonholed.db                 every result, in the tables images and predictions",
        "",
        "[bold]Go on[/]",
        f"  pigeonholed run --config {folder}/pigeonholed.toml    and drop pictures into {folder}/inbox/",
    ]
    console.print("\n".join(lines), soft_wrap=True)


def _table(console: Console, results: Sequence[Result]) -> None:
    from rich.table import Table

    from pigeonholed.images import Placement

    labelled = [result for result in results if result.label is not None]
    table = Table(title="What went where")
    table.add_column("label")
    for name in ("sorted", "unsure", "right", "wrong"):
        table.add_column(name, justify="right")
    for label in sorted({str(result.label) for result in labelled}):
        mine = [result for result in labelled if result.label == label]
        right = sum(result.drop.truth == label for result in mine)
        places = Counter(result.placement for result in mine)
        wrong = len(mine) - right
        table.add_row(
            label,
            str(places[Placement.SORTED]),
            str(places[Placement.UNSURE]),
            str(right),
            str(wrong) if wrong else "-",
        )
    places = Counter(result.placement for result in labelled)
    right = sum(result.drop.truth == result.label for result in labelled)
    table.add_section()
    table.add_row(
        "all", str(places[Placement.SORTED]), str(places[Placement.UNSURE]), str(right), str(len(labelled) - right)
    )
    console.print(table)


def _rejected(console: Console, results: Sequence[Result]) -> None:
    from rich.table import Table

    table = Table(title="What was rejected, and why")
    for name in ("dropped as", "reason", "now in"):
        table.add_column(name, overflow="fold")
    for result in sorted(results, key=lambda result: result.drop.path):
        if result.reason is not None:
            table.add_row(result.drop.path, result.reason, f"sorted/_rejected/{result.reason}/")
    console.print(table)
