"""One module a command; each holds `command`, and imports what is heavy only when it runs."""

from __future__ import annotations

from pathlib import Path

import click

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
