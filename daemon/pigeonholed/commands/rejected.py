"""`pigeonholed rejected`: what was refused and why, and another try."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import click

from pigeonholed.commands import Group, chosen_config, config_option
from pigeonholed.commands.selecting import listed, selecting, selection_of
from pigeonholed.commands.undo import tell

_LONG_S = 3600.0
_FILTERS = ("image", "inbox", "reason", "since", "until", "path")


@click.group(name="rejected", cls=Group)
def command() -> None:
    """Look at what was refused, and try it again."""


@command.command(name="list")
@selecting(*_FILTERS, "limit")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@config_option
@click.pass_context
def list_(
    ctx: click.Context, /, limit: int | None, as_json: bool, config: Path | None, **filters: str | int | None
) -> None:
    """List refused files, the newest first: id, reason, where it is now, and why.

    Reads the database alone, beside a daemon and without one.

    \b
    Exit code 0: also where nothing is rejected; 2: wrong usage; 69: no database.

    \b
    Examples:
      pigeonholed rejected list --reason truncated --since 2026-11-21
      pigeonholed rejected list --json --limit 100 | jq -r .destination
    """  # noqa: D301 (\b is click's sign for lines that stay as they are)
    from pigeonholed.config import load_settings
    from pigeonholed.config_errors import one_line
    from pigeonholed.images import Placement

    selection = replace(selection_of(filters), outcome=Placement.REJECTED)
    found = False
    for entry in listed(load_settings(chosen_config(ctx, config)), selection, limit):
        found = True
        if as_json:
            click.echo(json.dumps(entry, ensure_ascii=True))
        else:
            what = f"{entry['image']:>8}  {entry['reason']:<11}  {entry['destination'] or 'stays'}  ({entry['detail']})"
            click.echo(one_line(what))  # names are their droppers', and may try to paint or to forge
    if not found and not as_json:
        click.echo("nothing is rejected")


@command.command()
@selecting(*_FILTERS, "limit")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@config_option
@click.pass_context
def retry(
    ctx: click.Context, /, limit: int | None, as_json: bool, config: Path | None, **filters: str | int | None
) -> None:
    """Put refused files back into their inboxes, to be tried again; without a filter, all of them.

    Their old rows become 'returned', and each gets a new row when it is filed again. One that has stayed in its inbox
    (action = "none") is looked at again where it is. 'rejected list' with the same filters shows which they are.

    \b
    Exit code 0: done; 1: some stayed, each is named; 2: wrong usage; 69: something needed is away.

    \b
    Example:
      pigeonholed rejected retry --reason io-error --path 'scanner/*'
    """  # noqa: D301
    from pigeonholed.config import load_settings
    from pigeonholed.operations import alone
    from pigeonholed.reaching import perform

    arguments = selection_of(filters).as_arguments() | ({} if limit is None else {"limit": limit})
    settings = load_settings(chosen_config(ctx, config))
    tell(perform(settings, "retry", arguments, alone=alone(settings), timeout_s=_LONG_S), as_json=as_json)
