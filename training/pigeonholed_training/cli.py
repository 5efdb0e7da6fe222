"""The commands of `pigeonholed-train`, each imported only when it is used."""

from __future__ import annotations

import keyword
from importlib import import_module

import click

COMMANDS = ("dataset", "recipes", "train", "tune", "evaluate", "predict", "compare", "publish", "import", "completion")


_EXITS = """\b
Exit codes:
  0   done
  1   something was left undone, or a gate failed; nothing was published then
  2   wrong usage
  69  something needed is not available now, such as a GPU or a package
  78  the configuration, the data or the model cannot be used
"""


class Commands(click.Group):
    """Each command is the function of its name in the module of its name in `commands`."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        """In the order in which a newcomer meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command, or None."""
        if cmd_name not in COMMANDS:
            return None
        word = f"{cmd_name}_" if keyword.iskeyword(cmd_name) else cmd_name
        command: click.Command = getattr(import_module(f"pigeonholed_training.commands.{word}"), word)
        command.epilog = command.epilog or _EXITS
        return command


@click.group(
    cls=Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(package_name="pigeonholed")
@click.pass_context
def cli(context: click.Context) -> None:
    """Make, judge and publish the models that pigeonholed serves.

    A data set is a folder of class folders: DATA/cat/*.jpg, DATA/dog/*.png. The names of the folders become the
    labels.

    \b
      pigeonholed-train dataset check photos/
      pigeonholed-train recipes
      pigeonholed-train train photos/ --recipe small --name animals --publish
      pigeonholed-train predict new/ --model animals
    """  # noqa: D301 (click wants the control character)
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
