"""`pigeonholed rejected`: what was refused and why, and another try."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from pigeonholed.commands import Group, chosen_config, config_option
from pigeonholed.commands.undo import tell

_LONG_S = 3600.0


@click.group(name="rejected", cls=Group)
def command() -> None:
    """Look at what was refused, and try it again."""


def _filters(function: Any) -> Any:
    for option in (
        click.option("--image", type=click.IntRange(min=1), metavar="ID", help="Only this one, by its id."),
        click.option("--inbox", metavar="NAME", help="Only what came from this inbox."),
        click.option("--reason", metavar="REASON", help="Only what was refused for this reason, such as truncated."),
    ):
        function = option(function)
    return function


@command.command(name="list")
@_filters
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@config_option
@click.pass_context
def list_(
    ctx: click.Context, reason: str | None, inbox: str | None, image: int | None, as_json: bool, config: Path | None
) -> None:
    """List refused files, the newest first: id, reason, where it is now, and why."""
    from pigeonholed.config_errors import one_line

    answer = _perform(chosen_config(ctx, config), "rejected", reason, inbox, image)
    for entry in answer:
        if as_json:
            click.echo(json.dumps(entry, ensure_ascii=True))
        else:
            what = f"{entry['image']:>8}  {entry['reason']:<11}  {entry['destination'] or 'stays'}  ({entry['detail']})"
            click.echo(one_line(what))  # names are their droppers', and may try to paint or to forge
    if not answer and not as_json:
        click.echo("nothing is rejected")


@command.command()
@_filters
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@config_option
@click.pass_context
def retry(
    ctx: click.Context, reason: str | None, inbox: str | None, image: int | None, as_json: bool, config: Path | None
) -> None:
    """Put refused files back into their inboxes, to be tried again; without a filter, all of them.

    Their old rows become 'returned', and each gets a new row when it is filed again. One that has stayed in its inbox
    (action = "none") is looked at again where it is.
    """
    tell(_perform(chosen_config(ctx, config), "retry", reason, inbox, image), as_json=as_json)


def _perform(config: Path | None, request: str, reason: str | None, inbox: str | None, image: int | None) -> Any:
    from pigeonholed.config import load_settings
    from pigeonholed.operations import alone
    from pigeonholed.reaching import perform

    settings = load_settings(config)
    given = {"reason": reason, "inbox": inbox, "image": image}
    arguments = {key: value for key, value in given.items() if value is not None}
    return perform(settings, request, arguments, alone=alone(settings), timeout_s=_LONG_S)
