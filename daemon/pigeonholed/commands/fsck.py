"""`pigeonholed fsck`: disk against database."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pigeonholed.commands import chosen_config, config_option
from pigeonholed.commands.selecting import selecting

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pigeonholed.findings import Finding
    from pigeonholed.fsck import Check, Progress
    from pigeonholed.settings import Settings

_LONG_S = 3600.0
_REQUEST_BYTES = 40_000  # well below what the control socket takes
_REQUEST_ITEMS = 200  # the daemon does nothing else for other commands meanwhile


@click.command(name="fsck")
@click.option("--repair", is_flag=True, help="Bring the rows into line with the disk; no file is moved or removed.")
@click.option("--fast", is_flag=True, help="Look at names and sizes only, not at contents.")
@selecting("inbox")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a finding.")
@config_option
@click.pass_context
def command(
    ctx: click.Context, repair: bool, fast: bool, inbox: str | None, as_json: bool, config: Path | None
) -> None:
    """Compare what is filed with what the database says, both ways; also while the daemon works.

    Every result is looked for and its content hashed (not with --fast), every file below an output is looked up; with
    --inbox only its results, and its output. Each finding is a line: what kind, which file, which row, what is wrong,
    what can be done.

    \b
      missing         a file is not where it was filed      --repair: row becomes 'vanished'
      moved           it is elsewhere below its output      --repair: row follows it
      changed         it has other bytes                    a person decides
      twice           two rows claim one file               --repair: the right row keeps it
      unexplained     no row explains a file                --repair: a row is made of a file in
                                                            the folder of a class or a reason
      reason-missing  a rejected file lacks .reason.json    --repair: written anew
      reason-foreign  its .reason.json is another's         a person decides
      reason-stray    a .reason.json without its file       a person decides
      sidecar-moved   a sidecar is beside its picture, but  --repair: row follows it
                      not where it was filed
      sidecar-missing it is not there at all                --repair: row forgets it
      in-flight       a row is not finished, no daemon runs 'pigeonholed run' takes it up
      left-over       a work folder holds what no row knows a person decides
      lost, row, database, unreadable                       a person decides

    What is in a sidecar is its owner's to change, and no row is ever made of one.

    Nothing is changed without --repair. With it, only rows are, by the running daemon or, where none runs, here; no
    file of yours is moved, overwritten or removed, and a kill at any moment leaves every row true. After an older
    backup of the database was put in its place, --repair makes rows for what has been filed since; what the model
    said of those files stays unknown.

    \b
    Exit code 0: disk and database agree, or do now; 1: something is left; 69: no database, or an
    output is away.

    \b
    Examples:
      pigeonholed fsck --fast
      pigeonholed fsck --repair
      pigeonholed fsck --json | jq -r 'select(.kind == "missing") | .path'
    """  # noqa: D301 (\b is click's sign for lines that stay as they are)
    from pigeonholed.config import load_settings
    from pigeonholed.fsck import Check, Scope
    from pigeonholed.locking import holder_of

    settings = load_settings(chosen_config(ctx, config))
    if inbox is not None and inbox not in {one.name for one in settings.inbox}:
        raise click.UsageError(f"there is no inbox {inbox!a}; there are {', '.join(o.name for o in settings.inbox)}")
    resting = holder_of(settings.state.lock_file) is None
    with _progress() as progress:
        check = Check(settings, Scope(inbox, fast, resting), progress)
        found = mended = 0
        for finding, how in _mended(settings, check) if repair else ((one, None) for one in check.findings()):
            found += 1
            mended += how is not None and how[0]
            _show(finding, how, as_json=as_json)
    _sum_up(check, found, mended)
    if found > mended:
        sys.exit(1)


def _mended(settings: Settings, check: Check) -> Iterator[tuple[Finding, tuple[bool, str] | None]]:
    """Each finding, and what came of mending it; None where nothing can be done by itself."""
    from pigeonholed.findings import MENDABLE
    from pigeonholed.operations import alone
    from pigeonholed.reaching import perform

    since = 0
    for batch in _batches(check.findings()):
        items = [finding.as_arguments() for finding in batch if finding.kind in MENDABLE]
        told: list[tuple[bool, str]] = []
        if items:
            since = max(since, check.last_id)
            request = {"items": items, "since": since}
            answer = perform(settings, "mend", request, alone=alone(settings), timeout_s=_LONG_S)
            told, since = [(bool(done), str(how)) for done, how in answer["told"]], answer["last_id"]
        answers = iter(told)
        yield from ((one, next(answers) if one.kind in MENDABLE else None) for one in batch)


def _batches(findings: Iterable[Finding]) -> Iterator[list[Finding]]:
    """So many at a time as one request may hold."""
    batch: list[Finding] = []
    size = 0
    for finding in findings:
        length = len(json.dumps(finding.as_arguments(), ensure_ascii=True))
        if batch and (size + length > _REQUEST_BYTES or len(batch) == _REQUEST_ITEMS):
            yield batch
            batch, size = [], 0
        batch.append(finding)
        size += length
    if batch:
        yield batch


def _show(finding: Finding, how: tuple[bool, str] | None, *, as_json: bool) -> None:
    from pigeonholed.config_errors import one_line

    told = finding.as_dict()
    if as_json:
        done = {"mended": how is not None and how[0], "how": None if how is None else how[1]}
        click.echo(json.dumps(told | done, ensure_ascii=True))
        return
    row = "" if finding.image is None else f" (row {finding.image})"
    end = told["remedy"] if how is None else f"{'mended' if how[0] else 'left'}: {how[1]}"
    # Names are their droppers', and may try to paint or to forge.
    click.echo(one_line(f"{finding.kind:<15}  {finding.path}{row} {finding.what}; {end}"))


def _sum_up(check: Check, found: int, mended: int) -> None:
    from pigeonholed.config_errors import one_line

    for inbox, count in check.unconfigured.items():
        what = f"{count:,} results of the inbox {inbox}, which is not in the configuration, were not looked at"
        click.echo(one_line(what), err=True)
    agree = "disk and database agree" if found == mended else f"{found - mended:,} left"
    told = f"{found:,} findings, {mended:,} mended, " if found else ""
    click.echo(f"{check.rows:,} results and {check.files:,} files looked at: {told}{agree}", err=True)


@contextmanager
def _progress() -> Iterator[Progress | None]:
    """Shows how far it is, on a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("files", total=None)

        class Shown:
            """On a terminal."""

            def begins(self, what: str, total: int | None = None) -> None:
                bars.reset(task, description=what, total=total)

            def advances(self, count: int) -> None:
                bars.advance(task, count)

        shown: Any = Shown()
        yield shown
