"""Entry point of `pigeonholed-train`: every error that a user can cause becomes one message and an exit code."""

from __future__ import annotations

import io
import os
import sys

import click

from pigeonholed_training.errors import TrainingError


def main() -> None:
    """Runs the command line; exits with a code of the contract (0, 1, 2, 69, 78)."""
    # Before anything imports TensorFlow; a user's own choice stands.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from pigeonholed_training.cli import cli
    from pigeonholed_training.data.telling import printable

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal's encoding lacks is no error

    try:
        cli.main(prog_name="pigeonholed-train", standalone_mode=False)
    except click.exceptions.Exit as leaving:
        sys.exit(leaving.exit_code)
    except click.ClickException as fault:
        fault.show()
        sys.exit(fault.exit_code)
    except TrainingError as fault:
        click.echo("\n".join(map(printable, f"Error: {fault}".split("\n"))), err=True)
        sys.exit(fault.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted; the same command takes it up again.", err=True)
        sys.exit(1)
    except BrokenPipeError:
        # Whoever read our output has gone; Python would complain when it closes standard output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


if __name__ == "__main__":
    main()
