"""`pigeonholed reclassify`: a newer model over what is filed."""

from __future__ import annotations

import json
import sys
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pigeonholed.commands import chosen_config, config_option

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console

    from pigeonholed.settings import Settings

Page = dict[str, Any]

_PAGE_WITHIN_S = 900.0  # the first loads the model, and all wait for an `undo` that is under way


@click.command(name="reclassify")
@click.option("--model", metavar="NAME", help="Which model looks. Default: the inbox's own.")
@click.option(
    "--version", type=click.IntRange(min=1), metavar="N", help="Which version of it. Default: the current one."
)
@click.option("--only", type=click.Choice(["sorted", "unsure"]), help="Only what is filed as that.")
@click.option("--inbox", metavar="NAME", help="Only what came from this inbox. Default: all, one after another.")
@click.option("--all", "everything", is_flag=True, help="Also what this very version of the model has said before.")
@click.option("--dry-run", is_flag=True, help="Say what would become of each, and change nothing.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, for each picture that was looked at.")
@config_option
@click.pass_context
def command(
    ctx: click.Context,
    model: str | None,
    version: int | None,
    only: str | None,
    inbox: str | None,
    everything: bool,
    dry_run: bool,
    as_json: bool,
    config: Path | None,
) -> None:
    """Let a newer model look again at what is filed, and move what belongs elsewhere.

    Every picture that is filed as sorted or unsure gets the label, the confidence and the model of this look. Where the
    template gives it another place, it moves there; nothing is ever overwritten. What a person has reviewed stays as it
    is. A picture that is not where it was filed, or has changed since, is left, is named, and makes the exit code 1.

    With a running daemon it is done there, while new pictures are filed and other commands have their turn. Broken off
    at any moment (Ctrl-C, a kill, a power cut) nothing is lost: run it again, and it goes on with what is left. Only
    with --all it begins anew.
    """
    from pigeonholed.config import load_settings
    from pigeonholed.reaching import session

    settings = load_settings(chosen_config(ctx, config))
    asked = {"model": model, "version": version, "only": only, "all": everything, "dry_run": dry_run}
    asked = {key: value for key, value in asked.items() if value}
    inboxes = [one.name for one in settings.inbox] if inbox is None else [inbox]
    tally = Tally(dry_run)
    broken_off = False
    try:
        with session(settings, _alone(settings), timeout_s=_PAGE_WITHIN_S) as answer, _progress() as (bar, console):
            for name in inboxes:
                bar(name, 0.0)  # the first page waits for the model
                for page in _pages(answer, {"inbox": name, **asked}, partial(bar, name)):
                    tally.add(page)
                    _tell_files(page["files"], console, as_json=as_json)
    except KeyboardInterrupt:
        broken_off = True
    if not as_json and tally.looked:
        _show(tally)
    if broken_off:
        click.echo("broken off: run it again, and it goes on with what is left", err=True)
    if broken_off or tally.results["left"]:
        sys.exit(1)


def _alone(settings: Settings) -> Callable[[], Any]:
    @contextmanager
    def alone() -> Iterator[Callable[[str, dict[str, Any]], Any]]:
        from pigeonholed.operations import opened

        with opened(settings) as operations:
            yield operations.answer

    return alone


def _pages(
    answer: Callable[[str, dict[str, Any]], Any], asked: dict[str, Any], done: Callable[[float], None]
) -> Iterator[Page]:
    """Page after page, all by the version of the first and up to what was the newest row then."""
    while True:
        page: Page = answer("reclassify", asked)
        yield page
        done(page["after"] / page["through"] if page["through"] else 1.0)
        if page["after"] >= page["through"]:
            return
        asked |= {key: page[key] for key in ("model", "version", "after", "through")}


@dataclass(slots=True)
class Tally:
    """What came of all pages.

    Attributes:
        dry_run: nothing was changed.
        results: how many were `moved`, `renewed`, `unchanged`, `left`.
        changes: how many went from one label, sorted or unsure, to another.
        reasons: why how many were left.
        looked: the models that looked.
        newly: how many are `sorted`, or `unsure`, and were not before.
    """

    dry_run: bool
    results: Counter[str] = field(default_factory=Counter)
    changes: Counter[tuple[str, str]] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    looked: set[tuple[str, int]] = field(default_factory=set)
    newly: Counter[str] = field(default_factory=Counter)

    def add(self, page: Page) -> None:
        """Count a page."""
        self.looked.add((page["model"], page["version"]))
        for file in page["files"]:
            self.results[file["result"]] += 1
            if file["result"] == "left":
                self.reasons[file["reason"].partition(":")[0]] += 1  # without what is different for each
                continue
            before = _shown(file["label_before"], file["outcome_before"])
            now = _shown(file["label"], file["outcome"])
            if before != now or file["result"] == "moved":
                self.changes[before, now] += 1
            if file["outcome"] != file["outcome_before"]:
                self.newly[file["outcome"]] += 1


def _shown(label: str, outcome: str) -> str:
    return f"{label} (unsure)" if outcome == "unsure" else label


def _tell_files(files: list[dict[str, Any]], console: Console, *, as_json: bool) -> None:
    from pigeonholed.config_errors import one_line

    for file in files:
        if as_json:
            click.echo(json.dumps(file, ensure_ascii=True))
        elif file["result"] == "left":
            where = file["destination_before"] or file["path"]
            console.print(one_line(f"left: {where}: {file['reason']}"), markup=False, highlight=False, soft_wrap=True)


def _show(tally: Tally) -> None:
    """The table of changes, and the sums."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    if tally.changes:
        table = Table("from", "to", box=None, header_style="bold")
        table.add_column("would move or change" if tally.dry_run else "files", justify="right")
        for (before, now), count in sorted(tally.changes.items(), key=lambda item: (-item[1], item[0])):
            table.add_row(before, now, f"{count:,}")
        console.print(table)
    models = ", ".join(f"{name} {version}" for name, version in sorted(tally.looked))
    results = tally.results
    looked = f"{results.total():,} pictures looked at by {models}" if results else f"nothing for {models} to look at"
    if not results:
        console.print(f"{looked}: all is of that version, reviewed, or chosen out")
        return
    would = "would be " if tally.dry_run else ""
    console.print(
        f"{looked}: {results['moved']:,} {would}moved, {results['renewed']:,} {would}renewed in place, "
        f"{results['unchanged']:,} unchanged, {results['left']:,} left"
    )
    if tally.newly:
        console.print(f"newly sorted: {tally.newly['sorted']:,}; newly unsure: {tally.newly['unsure']:,}")
    for reason, count in tally.reasons.most_common():
        console.print(f"left, {count:,}: {reason}", markup=False, soft_wrap=True)


@contextmanager
def _progress() -> Iterator[tuple[Callable[[str, float], None], Console]]:
    """A bar on stderr where that is a terminal; how far an inbox is, from 0 to 1."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        tasks: dict[str, Any] = {}

        def show(inbox: str, done: float) -> None:
            if inbox not in tasks:
                tasks[inbox] = progress.add_task(inbox, total=1.0)
            progress.update(tasks[inbox], completed=done)

        yield show, console
