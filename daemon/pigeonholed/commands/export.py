"""`pigeonholed export`: the results as a table."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from pigeonholed.commands import chosen_config, config_option
from pigeonholed.commands.selecting import selecting, selection_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pigeonholed.exporting import Column, Export
    from pigeonholed.settings import Settings
    from pigeonholed.tabular import Table

_FORMATS = ("csv", "jsonl", "parquet")
_MOST_TOP = 1000


@click.command(name="export")
@click.option(
    "--format",
    "format_",
    type=click.Choice(_FORMATS),
    help="Default: what the end of FILE says (.csv, .jsonl, .parquet), else csv.",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    default=Path("-"),
    metavar="FILE",
    help="Where to; - is the standard output, and the default.",
)
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@selecting("inbox", "outcome", "label", "model", "reason", "since", "until", "path")
@click.option(
    "--status",
    type=click.Choice(["filed", "all"]),
    default="filed",
    help="filed: the results (default); all: also what is in flight, was put back, or has vanished.",
)
@click.option(
    "--top",
    type=click.IntRange(min=0, max=_MOST_TOP),
    default=0,
    metavar="K",
    help="Add the K most probable labels of each with their confidences.",
)
@click.option("--review", is_flag=True, help="Add the latest review of each.")
@config_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    format_: str | None,
    output: Path,
    force: bool,
    status: str,
    top: int,
    review: bool,
    config: Path | None,
    **filters: str | None,
) -> None:
    """Write the results as CSV, JSON lines or Parquet, by id; also while the daemon works.

    \b
    Columns, always in this order:
      id, inbox, source_path, sha256, size_bytes, mtime_ns, width, height, status,
      outcome, reason, detail, model, model_version, label, confidence, destination,
      arrived_at, classified_at, filed_at
      with --top K: top_1_label, top_1_confidence, ... top_K_label, top_K_confidence
      with --review: review_label, review_previous_label, reviewed_at, reviewer

    source_path is relative to the inbox, destination to its output; bytes of a name that are no UTF-8 stand as \\xNN,
    a backslash as \\\\. Times are UTC. In CSV, text that a spreadsheet would take for a formula has an apostrophe in
    front, and what is not known is empty; elsewhere it is null.

    All rows are of one moment, and few of them are in memory at a time. FILE is whole or not there, and nothing is
    replaced without --force. While it runs, the log of an SQLite database that is at work grows.

    \b
    Exit code 0: done; 1: FILE could not be written; 2: wrong usage, or FILE is there;
    69: no database, or Parquet without pyarrow (pip install pigeonholed[parquet]).

    \b
    Examples:
      pigeonholed export > results.csv
      pigeonholed export --outcome unsure --top 3 --since 2026-11-21 -o unsure.parquet
      pigeonholed export --format jsonl | jq -r 'select(.confidence < 0.8) | .destination'
    """  # noqa: D301 (\b is click's sign for lines that stay as they are)
    from pigeonholed.config import load_settings
    from pigeonholed.exporting import Export

    selection = replace(selection_of(filters), filed_only=status == "filed")
    wanted = Export(selection, top=top, review=review)
    to_stdout = str(output) == "-"
    form = format_ or _format_of(output)
    if form == "parquet" and to_stdout and sys.stdout.isatty():
        raise click.UsageError("Parquet is no text for a terminal: name a file with --output FILE, or redirect it")
    _write(load_settings(chosen_config(ctx, config)), wanted, form, None if to_stdout else output, force=force)


def _write(settings: Settings, wanted: Export, form: str, file: Path | None, *, force: bool) -> None:
    from pigeonholed.outfile import standard_output, whole_file
    from pigeonholed.snapshot import snapshot

    with snapshot(settings) as connection:
        target: AbstractContextManager[IO[bytes]] = standard_output()
        if file is not None:
            target = whole_file(file, replace=force)
        with target as stream, _progress(file, lambda: wanted.count(connection)) as advance:
            table = _table(form, stream, wanted.columns, for_eyes=file is None and sys.stdout.isatty())
            for rows in wanted.rows(connection):
                table.write(rows)
                advance(len(rows))
            table.close()


def _format_of(output: Path) -> str:
    suffix = output.suffix.lower().removeprefix(".")
    return suffix if suffix in _FORMATS else "csv"


def _table(form: str, stream: IO[bytes], columns: Sequence[Column], *, for_eyes: bool) -> Table:
    from pigeonholed.tabular import CsvTable, JsonLinesTable

    if form == "csv":
        return CsvTable(stream, columns, for_eyes=for_eyes)
    if form == "jsonl":
        return JsonLinesTable(stream, columns)
    from pigeonholed.parquet import ParquetTable

    return ParquetTable(stream, columns)


@contextmanager
def _progress(file: Path | None, count: Callable[[], int]) -> Iterator[Callable[[int], Any]]:
    """Shows how far a file is, on a terminal; elsewhere nothing, and nothing is counted."""
    if file is None or not sys.stderr.isatty():
        yield lambda _rows: None
        return
    from rich.console import Console
    from rich.progress import Progress

    from pigeonholed.paths import to_text

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(to_text(os.fspath(file.name)), total=count())
        yield lambda rows: progress.advance(task, rows)
