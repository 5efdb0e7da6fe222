"""`pigeonholed-train predict`: what a model says of single pictures."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import click

from pigeonholed_training.commands.options import FOLDER, MODELS_HELP, store
from pigeonholed_training.errors import Misconfigured, WrongUsage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pigeonholed.bundle import Manifest
    from pigeonholed.classifying import Classifier

SHOWN = 64  # pictures of a grid


@click.command(short_help="Show what a model says of pictures.")
@click.argument("images", nargs=-1, required=True, type=FOLDER, metavar="IMAGE...")
@click.option("--model", metavar="NAME", help="A published model.")
@click.option("--run", type=FOLDER, help="A run folder instead.")
@click.option("--models", type=FOLDER, help=MODELS_HELP)
@click.option("--top", type=click.IntRange(min=1), default=3, show_default=True, help="Labels a picture.")
@click.option("--json", "as_json", is_flag=True, help="One object a line.")
@click.option("--grid", type=FOLDER, help=f"Write the first {SHOWN} pictures with their labels as a PNG.")
def predict(
    images: tuple[Path, ...],
    model: str | None,
    run: Path | None,
    models: Path | None,
    top: int,
    as_json: bool,
    grid: Path | None,
) -> None:
    """Show what a model says of pictures, or of folders of them, with calibrated confidences."""
    from pigeonholed import imaging
    from pigeonholed_training import predicting

    if (model is None) == (run is None):
        raise WrongUsage("Give either --model NAME or --run RUN.")
    imaging.configure()
    paths = predicting.pictures_of(images)
    said: list[Any] = []
    with _model(model, run, models) as (manifest, classifier):
        for answer in predicting.answers(paths, manifest, classifier, top):
            click.echo(json.dumps(answer.as_dict(), ensure_ascii=True) if as_json else _line(answer))
            if grid is not None and len(said) < SHOWN and answer.pixels is not None:
                said.append(answer)
    if grid is not None:
        _draw(said, grid)


@contextlib.contextmanager
def _model(name: str | None, run: Path | None, models: Path | None) -> Iterator[tuple[Manifest, Classifier]]:
    """The published model, or that of a run."""
    from pigeonholed.bundle import BundleError
    from pigeonholed.classifying import load_classifier
    from pigeonholed.store import ModelStore
    from pigeonholed_training import entrants

    if run is not None:
        found = entrants.of_run(run)
        with found.serving() as classifier:
            yield found.manifest, classifier
        return
    try:
        bundle = ModelStore(store(models)).open(str(name))
        classifier = load_classifier(bundle)
    except BundleError as fault:
        raise Misconfigured(str(fault)) from fault
    yield bundle.manifest, classifier


def _line(answer: Any) -> str:
    from pigeonholed.paths import to_text
    from pigeonholed_training.data.telling import printable

    path = printable(to_text(answer.path))
    if not answer.top:
        return f"{path}  rejected: {answer.reason}, {answer.detail}"
    said = "  ".join(f"{label} {confidence:.4f}" for label, confidence in answer.top)
    return f"{path}  {answer.outcome}  {said}"


def _draw(said: list[Any], grid: Path) -> None:
    from pigeonholed_training import predicting
    from pigeonholed_training.backend import require_train_extra

    require_train_extra()
    try:
        predicting.draw_grid(said, grid)
    except OSError as fault:
        raise Misconfigured(f"Cannot write {grid}: {fault.strerror or fault}.") from fault
