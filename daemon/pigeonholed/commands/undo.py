"""`pigeonholed undo`: files back where they came from."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pigeonholed.commands import chosen_config, config_option
from pigeonholed.commands.selecting import listed, selecting, selection_of

if TYPE_CHECKING:
    from pigeonholed.results import Selection
    from pigeonholed.settings import Settings

_LONG_S = 3600.0  # hashing and moving a night's work takes its time


@click.command(name="undo")
@click.option("--last", type=click.IntRange(min=1), metavar="N", help="The N files that were filed last.")
@selecting("since", "image", "until", "inbox", "outcome", "label", "path")
@click.option("--dry-run", is_flag=True, help="Only list what would be put back; a hash is not looked at.")
@click.option("--release", is_flag=True, help="Let the daemon take the files that were put back.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object; with --dry-run one a line.")
@config_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    last: int | None,
    dry_run: bool,
    release: bool,
    as_json: bool,
    config: Path | None,
    **filters: str | int | None,
) -> None:
    """Put filed pictures back where they came from.

    One of --last, --since and --image says what; the other options leave out some of it. With --last N it is the N
    newest of those that are left.

    Each is checked by its hash first and nothing is ever overwritten; what cannot be put back stays where it is, is
    named, and makes the exit code 1. The daemon passes over the files that are back, until they change or until
    'pigeonholed undo --release'.

    Of a picture that has stayed in its inbox (action = "none") only the row changes.

    \b
    Exit code 0: done; 1: something stayed; 2: wrong usage; 69: something needed is away.

    \b
    Examples:
      pigeonholed undo --last 20 --dry-run
      pigeonholed undo --since 2026-11-21T08:00 --label dog --path 'zoo/*'
    """  # noqa: D301 (\b is click's sign for lines that stay as they are)
    from pigeonholed.config import load_settings  # heavy ones only when they are needed
    from pigeonholed.operations import alone
    from pigeonholed.reaching import perform

    settings = load_settings(chosen_config(ctx, config))
    given = [name for name, value in {**filters, "last": last, "dry_run": dry_run or None}.items() if value is not None]
    if release and given:
        raise click.UsageError("--release goes alone")
    if not release and len({"last", "since", "image"} & set(given)) != 1:
        raise click.UsageError("say what to undo: --last N, --since TIME or --image ID; or --release")
    selection = selection_of(filters)
    if dry_run:
        _foretell(settings, selection, last, as_json=as_json)
        return
    arguments = selection.as_arguments() | ({} if last is None else {"last": last})
    request = "release" if release else "undo"
    tell(perform(settings, request, arguments, alone=alone(settings), timeout_s=_LONG_S), as_json=as_json)


def _foretell(settings: Settings, selection: Selection, last: int | None, *, as_json: bool) -> None:
    from pigeonholed.config_errors import one_line

    count = 0
    for entry in listed(settings, selection, last):
        count += 1
        if as_json:
            click.echo(json.dumps(entry, ensure_ascii=True))
        else:
            place = entry["destination"] or "stays"
            click.echo(one_line(f"{entry['image']:>8}  {place} -> {entry['inbox']}: {entry['path']}"))
    if not as_json:
        click.echo(f"{count} files would be put back")


def tell(answer: dict[str, Any], *, as_json: bool) -> None:
    """Show what came of it; exit 1 if something was left undone."""
    from pigeonholed.config_errors import one_line

    refused = answer.get("refused", [])
    if as_json:
        click.echo(json.dumps(answer, ensure_ascii=True))
    elif "released" in answer:
        click.echo(f"{answer['released']} files released")
    else:
        click.echo(f"{answer['back']} files put back")
        for line in refused:
            click.echo(one_line(f"left: {line}"), err=True)
    if refused:
        sys.exit(1)
