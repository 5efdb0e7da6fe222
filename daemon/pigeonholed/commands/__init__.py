"""One module a command; each holds `command`, and imports what is heavy only when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pigeonholed.manual import complete

config_option = click.option(
    "--config",
    "-c",
    "config",
    type=click.Path(path_type=Path),
    help="Configuration file (also accepted before the command).",
)


def chosen_config(ctx: click.Context, config: Path | None) -> Path | None:
    """The file named at the command, else the one named before it."""
    return config or ctx.find_root().obj


class Group(click.Group):
    """Commands of one noun; without a command it prints its help, which is no mistake."""

    def __init__(self, *args: Any, **options: Any) -> None:
        options.setdefault("invoke_without_command", True)
        super().__init__(*args, **options)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, with the end of its help; None where there is none of that name."""
        command = super().get_command(ctx, cmd_name)
        return command and complete(command, f"{self.name} {cmd_name}")

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, or print the help."""
        if not ctx.args and not ctx._protected_args:
            click.echo(ctx.get_help())
            return None
        return super().invoke(ctx)
