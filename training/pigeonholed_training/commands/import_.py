"""`pigeonholed-train import`: a model that was made elsewhere becomes a version that the daemon serves."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import click

from pigeonholed_training.commands.options import FOLDER, MODELS_HELP, check_name, store

RULES = ("0..255", "0..1", "-1..1", "torch", "caffe")


class Size(click.ParamType[tuple[int, int]]):
    """Height and width from `224x224`."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Parses, or ends the command with a usage error."""
        found = re.fullmatch(r"([1-9]\d{0,3})[xX]([1-9]\d{0,3})", str(value))
        if found is None or max(int(found[1]), int(found[2])) > 4096:
            self.fail(f"{value!r} is no size; write height and width in pixels, as in 224x224.", param, ctx)
        return int(found[1]), int(found[2])


@click.command(name="import", short_help="Publish a classifier that you made elsewhere.")
@click.argument("model", type=FOLDER)
@click.option("--name", required=True, metavar="N", help="Name of the model in the store.")
@click.option(
    "--labels",
    required=True,
    metavar="L",
    help="Labels in the order of the outputs: a,b,c, or a FILE (one a line, a JSON list, class_indices as JSON).",
)
@click.option(
    "--pixels",
    type=click.Choice(["auto", *RULES]),
    default="auto",
    show_default=True,
    help="How pixels were scaled for it in training.",
)
@click.option("--size", type=Size(), metavar="HxW", help="Of its pictures, for a model that takes any size.")
@click.option(
    "--fit",
    type=click.Choice(["stretch", "crop", "pad"]),
    default="stretch",
    show_default=True,
    help="What happens to a picture of another shape.",
)
@click.option(
    "--output",
    type=click.Choice(["auto", "softmax", "sigmoid", "logits"]),
    default="auto",
    show_default=True,
    help="What its numbers are.",
)
@click.option("--samples", type=FOLDER, metavar="DIR", help="Class folders named as the labels, to try it on.")
@click.option(
    "--precision",
    type=click.FloatRange(0.5, 1.0, min_open=True, max_open=True),
    default=0.98,
    show_default=True,
    metavar="P",
    help="What thresholds shall promise of the pictures that are sorted.",
)
@click.option("--models", type=FOLDER, help=MODELS_HELP)
def import_(
    model: Path,
    name: str,
    labels: str,
    pixels: str,
    size: tuple[int, int] | None,
    fit: Literal["stretch", "crop", "pad"],
    output: str,
    samples: Path | None,
    precision: float,
    models: Path | None,
) -> None:
    """Publish MODEL, a classifier that you made elsewhere and trust, as the next version of N.

    MODEL is a .keras file, an .h5 file of a whole model, or the folder of a SavedModel. Importing runs that model's
    code; serving the bundle that comes out never does.

    With --samples it is found out how pixels must be scaled, confidences are calibrated on one half of the pictures,
    and the other half judges. Pictures that it was not trained on are best.

    \b
      pigeonholed-train import cats.keras --name cats --labels cat,dog --samples photos/
      pigeonholed-train import keras_model.h5 --name tm --labels labels.txt --pixels -1..1
    """  # noqa: D301 (click wants the control character)
    from pigeonholed_training.importing import session
    from pigeonholed_training.importing.naming import labels_of
    from pigeonholed_training.progress import Narrator

    check_name(name)
    order = session.Order(
        model=model,
        name=name,
        labels=labels_of(labels),
        models=store(models),
        pixels=pixels,
        size=size,
        fit=fit,
        output=output,
        samples=samples,
        precision=precision,
    )
    bundle: Any = session.carry_out(order, Narrator())
    click.echo(f"Published {name} version {bundle.version} into {order.models}.")
