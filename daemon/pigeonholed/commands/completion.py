"""`pigeonholed completion`: what a shell needs to complete commands."""

from __future__ import annotations

import click

from pigeonholed.completion import SHELLS, script


@click.command(name="completion")
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the script that lets a shell complete commands, options, and names of models and inboxes.

    Its first lines say where to put it. For a look, without installing anything:

    \b
      source <(pigeonholed completion bash)
    """  # noqa: D301 (click wants the control character)
    click.echo(script(ctx.find_root().command, "pigeonholed", shell))
