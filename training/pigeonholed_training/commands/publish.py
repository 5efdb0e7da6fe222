"""`pigeonholed-train publish`: a finished training becomes the next version of its model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pigeonholed_training.commands.options import FOLDER, MODELS_HELP, check_name, store

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@click.argument("run", type=FOLDER)
@click.option("--name", metavar="N", help="Name in the store. [default: that of the run]")
@click.option("--models", type=FOLDER, help=MODELS_HELP)
def publish(run: Path, name: str | None, models: Path | None) -> None:
    """Publish the finished training in the folder RUN as the next version of its model."""
    from pigeonholed_training import session

    metrics = session.finished(run)
    name = name or str(metrics["name"])
    check_name(name)
    publish_run(run, name, store(models))


def publish_run(run: Path, name: str, models: Path) -> None:
    """Publishes and says so; see `publishing.publish` for what it raises."""
    from pigeonholed_training import publishing

    bundle = publishing.publish(run / "bundle", name, models)
    click.echo(f"Published {name} version {bundle.version} into {models}.")
