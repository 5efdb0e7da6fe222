"""Completion in shells: the script that each needs, and the names that it offers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import get_completion_class

if TYPE_CHECKING:
    from pigeonholed.settings import Settings

_INSTALLED_BY = {
    "bash": "{program} completion bash > ~/.local/share/bash-completion/completions/{program}",
    "zsh": "{program} completion zsh > ~/.zfunc/_{program}    (with fpath+=~/.zfunc before compinit in ~/.zshrc)",
    "fish": "{program} completion fish > ~/.config/fish/completions/{program}.fish",
}
SHELLS = tuple(_INSTALLED_BY)


def script(cli: click.Command, program: str, shell: str) -> str:
    """What a shell has to read to complete a program; its second line or so says how to install it.

    Args:
        cli: the program.
        program: its name.
        shell: one of `SHELLS`.
    """
    variable = f"_{program.replace('-', '_').upper()}_COMPLETE"
    made = get_completion_class(shell)
    assert made is not None
    source = made(cli, {}, program, variable).source().strip()
    how = f"# To install it: {_INSTALLED_BY[shell].format(program=program)}"
    if not source.startswith("#"):
        return f"{how}\n{source}"
    first, _, rest = source.partition("\n")  # zsh wants its own line first
    return f"{first}\n{how}\n{rest}"


def model_names(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """The models in the store that begin so; none where there is no configuration."""
    from pigeonholed.store import ModelStore

    try:
        folder = ctx.params.get("folder") or _settings(ctx).models.dir
        return [name for name in ModelStore(Path(folder)).names() if name.startswith(incomplete)]
    except Exception:  # whatever it is: this is no moment to tell of it
        return []


def inbox_names(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """The inboxes of the configuration that begin so; none where there is none."""
    try:
        return [inbox.name for inbox in _settings(ctx).inbox if inbox.name.startswith(incomplete)]
    except Exception:  # as above
        return []


def _settings(ctx: click.Context) -> Settings:
    from pigeonholed.config import load_settings

    return load_settings(ctx.params.get("config") or ctx.find_root().params.get("config"))
