"""`pigeonholed undo`: files back where they came from."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from pigeonholed.commands import chosen_config, config_option

_LONG_S = 3600.0  # hashing and moving a night's work takes its time


@click.command(name="undo")
@click.option("--last", type=click.IntRange(min=1), metavar="N", help="The N files that were filed last.")
@click.option("--since", metavar="TIME", help="Everything filed since then, such as 2026-11-21T08:00 (local time).")
@click.option("--image", type=click.IntRange(min=1), metavar="ID", help="One file, by its id in the table images.")
@click.option("--release", is_flag=True, help="Let the daemon take the files that were put back.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@config_option
@click.pass_context
def command(
    ctx: click.Context,
    last: int | None,
    since: str | None,
    image: int | None,
    release: bool,
    as_json: bool,
    config: Path | None,
) -> None:
    """Put filed pictures back where they came from.

    Each is checked by its hash first and nothing is ever overwritten; what cannot be put back stays where it is, is
    named, and makes the exit code 1. The daemon passes over the files that are back, until they change or until
    'pigeonholed undo --release'.

    Of a picture that has stayed in its inbox (action = "none") only the row changes.
    """
    from pigeonholed.config import load_settings  # heavy ones only when they are needed
    from pigeonholed.operations import alone
    from pigeonholed.reaching import perform

    settings = load_settings(chosen_config(ctx, config))
    arguments: dict[str, Any] = {"last": last, "since": since, "image": image}
    asked = {key: value for key, value in arguments.items() if value is not None}
    if release and asked:
        raise click.UsageError("--release goes alone")
    if not release and len(asked) != 1:
        raise click.UsageError("say what to undo: --last N, --since TIME or --image ID; or --release")
    request = "release" if release else "undo"
    answer = perform(settings, request, asked, alone=alone(settings), timeout_s=_LONG_S)
    tell(answer, as_json=as_json)


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
