"""`pigeonholed-train publish`: a finished training becomes the next version of its model, if it passes its gates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pigeonholed_training.commands.options import FOLDER, MODELS_HELP, check_name, gate_options, store

if TYPE_CHECKING:
    from pathlib import Path

    from pigeonholed_training.gates import Wanted


@click.command(short_help="Publish a finished training, if it passes its gates.")
@click.argument("run", type=FOLDER)
@click.option("--name", metavar="N", help="Name in the store. [default: that of the run]")
@click.option("--models", type=FOLDER, help=MODELS_HELP)
@gate_options
def publish(run: Path, name: str | None, models: Path | None, wanted: Wanted) -> None:
    """Publish the finished training in the folder RUN as the next version of its model.

    It is published only if it passes its gates: the figures that you ask for, on the pictures that judged it; and,
    where the model has a live version, not being worse than that on the same pictures by more than chance would make
    it. Pictures that the live version has learnt from do not count. Else the exit code is 1 and the store stays as it
    was.

    \b
      pigeonholed-train publish runs/animals
      pigeonholed-train publish runs/animals --min-accuracy 0.95 --min-macro-f1 0.9
    """  # noqa: D301 (click wants the control character)
    from pigeonholed_training import entrants

    name = name or entrants.of_run(run).manifest.name
    check_name(name)
    publish_run(run, name, store(models), wanted)


def publish_run(run: Path, name: str, models: Path, wanted: Wanted) -> None:
    """Publishes and says so, with what came of each gate; see `releasing.release` for arguments and errors."""
    from pigeonholed_training import releasing

    released = releasing.release(run, name, models, wanted)
    for gate in released.gates:
        click.echo(gate.says, err=True)
    click.echo(f"Published {name} version {released.bundle.version} into {models}.")
