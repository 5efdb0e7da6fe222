"""The command line: the commands, and what every one of them does with an error that a user can mend."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import IO, Any

import click

from pigeonholed import __version__
from pigeonholed.manual import complete

_COMMANDS = {
    "init": "init",
    "demo": "demo",
    "run": "run",
    "check": "check",
    "status": "status",
    "classify": "classify",
    "rejected": "rejected",
    "undo": "undo",
    "reclassify": "reclassify",
    "export": "export",
    "fsck": "fsck",
    "models": "models",
    "db": "db",
    "completion": "completion",
}


class Fault(click.ClickException):
    """One sentence on stderr, and the exit code of the contract."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # click declares it for the class and reads it from the instance

    def show(self, file: IO[Any] | None = None) -> None:
        """Print it without the word Error: the sentence says what is wrong."""
        click.echo(f"pigeonholed: {self.format_message()}", file=file, err=file is None)


class Commands(click.Group):
    """Imports a command only when it is used: `--help` and `init` need no database, no OpenCV and no model."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        """In the order in which a newcomer meets them."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command, or None."""
        module = _COMMANDS.get(cmd_name)
        if module is None:
            return None
        command: click.Command = import_module(f"pigeonholed.commands.{module}").command
        return complete(command, cmd_name)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; what a user can mend ends in one clear message."""
        from pigeonholed.bundle import BundleError
        from pigeonholed.config_errors import ConfigError, one_line
        from pigeonholed.errors import Misconfigured, UserError
        from pigeonholed.logs import configure

        configure("auto", "warning")  # stdout is for data; `run` then follows its configuration

        try:
            return super().invoke(ctx)
        except ConfigError as error:  # a line a fault, each of them printable
            raise Fault(str(error), error.exit_code) from error
        except UserError as error:
            raise Fault(one_line(str(error)), error.exit_code) from error
        except BundleError as error:
            raise Fault(one_line(str(error)), Misconfigured.exit_code) from error


@click.group(
    cls=Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="pigeonholed")
@click.option(
    "--config",
    "-c",
    type=click.Path(path_type=Path),
    help="Configuration file. Default: $PIGEONHOLED_CONFIG, ./pigeonholed.toml, the user's, then /etc/pigeonholed.",
)
@click.pass_context
def cli(ctx: click.Context, config: Path | None) -> None:
    """Drop pictures into a folder; pigeonholed sorts them with your model and never loses one.

    New here? 'pigeonholed demo' shows the whole job on real pictures; 'pigeonholed init DIR' makes a folder to start
    from. 'pigeonholed COMMAND --help' tells what a command does, its exit codes, and how it is used.
    """
    ctx.obj = config
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
