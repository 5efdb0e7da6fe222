"""The commands of `pigeonholed-train`. Heavy modules are imported by the command that needs them."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pigeonholed_training import durations
from pigeonholed_training.errors import Misconfigured, WrongUsage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pigeonholed.bundle import Manifest
    from pigeonholed.classifying import Classifier

FOLDER = click.Path(path_type=Path)
MODELS_HELP = "The model store. [default: that of the configuration, else models/]"


class Duration(click.ParamType[float]):
    """Seconds from `90s`, `10m`, `1.5h`."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parses, or ends the command with a usage error."""
        if isinstance(value, float):
            return value
        try:
            return durations.seconds(str(value))
        except ValueError as fault:
            self.fail(str(fault), param, ctx)


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(package_name="pigeonholed")
@click.pass_context
def cli(context: click.Context) -> None:
    r"""Make, judge and publish the models that pigeonholed serves.

    A data set is a folder of class folders: DATA/cat/*.jpg, DATA/dog/*.png. The names of the folders become the
    labels.

    \b
      pigeonholed-train recipes
      pigeonholed-train train photos/ --recipe digits --name digits --publish
      pigeonholed-train predict new/ --model digits
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@cli.command()
@click.argument("data", type=FOLDER)
@click.option("--recipe", required=True, metavar="R", help="How to make it; 'pigeonholed-train recipes' lists them.")
@click.option("--name", required=True, metavar="N", help="Name of the model and of its run folder.")
@click.option("--weights", default="none", show_default=True, metavar="W", help="Where a network starts from.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Change a setting of the recipe.")
@click.option("--epochs", type=click.IntRange(min=1), metavar="E", help="Passes over the pictures, for --set epochs=E.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, metavar="S", help="Repeats a run.")
@click.option("--time", "budget_s", type=Duration(), metavar="T", help="Time for training, such as 90s, 10m or 1.5h.")
@click.option(
    "--precision",
    type=click.FloatRange(0.5, 1.0, min_open=True, max_open=True),
    default=0.98,
    show_default=True,
    metavar="P",
    help="What thresholds shall promise of the pictures that are sorted.",
)
@click.option("--publish", "publish_it", is_flag=True, help="Publish the result into the model store.")
@click.option("--fresh", is_flag=True, help="Forget an earlier run of that name and start over.")
@click.option("--runs", type=FOLDER, default=Path("runs"), show_default=True, help="Where run folders are made.")
@click.option("--models", type=FOLDER, help=MODELS_HELP)
def train(
    data: Path,
    recipe: str,
    name: str,
    weights: str,
    assignments: tuple[str, ...],
    epochs: int | None,
    seed: int,
    budget_s: float | None,
    precision: float,
    publish_it: bool,
    fresh: bool,
    runs: Path,
    models: Path | None,
) -> None:
    """Train a model on DATA, a folder of class folders.

    Pictures that cannot be read are named and passed over. Everything goes into the run folder RUNS/N: settings, log,
    history.csv, curves.png, model.keras, metrics.json and report.html. After an interruption the same command goes on
    after the last finished epoch; when all is done it only reports (and publishes, with --publish).
    """
    from pigeonholed_training import recipes, session
    from pigeonholed_training.progress import Narrator

    _check_name(name)
    chosen = recipes.override(recipes.find(recipe), [*assignments, *([f"epochs={epochs}"] if epochs else [])])
    if weights != "none":
        raise WrongUsage(f"Recipe {recipe} starts from no weights; leave --weights {weights} out.")
    # Before anything slow: a configuration at fault should not be found after an hour of training.
    store = _store(models) if publish_it else None
    order = session.Order(data, chosen, name, runs, seed, precision, budget_s, fresh, weights)
    narrator = Narrator()
    metrics = session.carry_out(order, narrator)
    click.echo(_summary(metrics))
    click.echo(f"Report: {runs / name / 'report.html'}")
    if store is not None:
        _publish(runs / name, name, store)


@cli.command("recipes")
@click.option("--json", "as_json", is_flag=True, help="One object a recipe, with all settings.")
def list_recipes(as_json: bool) -> None:
    """List the recipes, each with what it is for."""
    from pigeonholed_training.recipes import RECIPES, settable

    if as_json:
        click.echo(json.dumps([recipe.as_dict() for recipe in RECIPES], indent=2))
        return
    for recipe in RECIPES:
        click.echo(f"{recipe.name}  {recipe.purpose}")
        settings = ", ".join(f"{key}={value}" for key, value in settable(recipe).items())
        click.echo(click.wrap_text(settings, 100, "    ", "    "))


@cli.command()
@click.argument("images", nargs=-1, required=True, type=FOLDER, metavar="IMAGE...")
@click.option("--model", metavar="NAME", help="A published model.")
@click.option("--run", type=FOLDER, help="A run folder instead.")
@click.option("--models", type=FOLDER, help=MODELS_HELP)
@click.option("--top", type=click.IntRange(min=1), default=3, show_default=True, help="Labels a picture.")
@click.option("--json", "as_json", is_flag=True, help="One object a line.")
@click.option("--grid", type=FOLDER, help="Write the first 64 pictures with their labels as a PNG.")
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
            if grid is not None and len(said) < 64 and answer.pixels is not None:
                said.append(answer)
    if grid is not None:
        _draw(said, grid)


@cli.command()
@click.argument("run", type=FOLDER)
@click.option("--name", metavar="N", help="Name in the store. [default: that of the run]")
@click.option("--models", type=FOLDER, help=MODELS_HELP)
def publish(run: Path, name: str | None, models: Path | None) -> None:
    """Publish the finished training in the folder RUN as the next version of its model."""
    from pigeonholed_training import session

    metrics = session.finished(run)
    name = name or str(metrics["name"])
    _check_name(name)
    _publish(run, name, _store(models))


def _publish(run: Path, name: str, store: Path) -> None:
    from pigeonholed_training import publishing

    bundle = publishing.publish(run / "bundle", name, store)
    click.echo(f"Published {name} version {bundle.version} into {store}.")


@contextlib.contextmanager
def _model(name: str | None, run: Path | None, models: Path | None) -> Iterator[tuple[Manifest, Classifier]]:
    """The published model, or that of a run."""
    from pigeonholed.bundle import BundleError, Manifest
    from pigeonholed.classifying import load_classifier
    from pigeonholed.store import ModelStore
    from pigeonholed_training import publishing, session

    if run is not None:
        session.finished(run)
        with publishing.serving(run / "bundle") as classifier:
            yield Manifest.model_validate_json((run / "bundle/bundle.json").read_bytes()), classifier
        return
    try:
        bundle = ModelStore(_store(models)).open(str(name))
        classifier = load_classifier(bundle)
    except BundleError as fault:
        raise Misconfigured(str(fault)) from fault
    yield bundle.manifest, classifier


def _store(models: Path | None) -> Path:
    """The store that was named, else that of the configuration, else `models/`.

    Raises:
        Misconfigured: there is a configuration and it is at fault.
    """
    from pigeonholed import config

    if models is not None:
        return models
    try:
        config.find_config()
    except config.ConfigError:
        return Path("models")
    try:
        return config.load_settings().models.dir
    except config.ConfigError as fault:
        raise Misconfigured(str(fault)) from fault


def _check_name(name: str) -> None:
    from pigeonholed.bundle import BundleError, check_labels

    try:
        check_labels([name, "another" if name.casefold() != "another" else "other"])
    except BundleError as fault:
        said = str(fault).partition(": ")[2].replace("the label", "the name")
        raise WrongUsage(f"--name cannot be used: {said}") from fault


def _summary(metrics: dict[str, Any]) -> str:
    held, accuracy = metrics["held_out"], metrics["held_out"]["accuracy"]
    methods = sorted({threshold["method"] for threshold in metrics["thresholds"]})
    took = ", ".join(f"{phase} {seconds:.1f} s" for phase, seconds in metrics["seconds"].items())
    return (
        f"{100 * accuracy['value']:.1f} % right on {accuracy['n']} held-back pictures "
        f"({100 * accuracy['lower']:.1f} to {100 * accuracy['upper']:.1f} %), {100 * held['unsure_share']:.1f} % unsure"
        f" (thresholds: {', '.join(methods)}).\nTime: {took}."
    )


def _line(answer: Any) -> str:
    if not answer.top:
        return f"{answer.path}  rejected: {answer.reason}, {answer.detail}"
    said = "  ".join(f"{label} {confidence:.4f}" for label, confidence in answer.top)
    return f"{answer.path}  {answer.outcome}  {said}"


def _draw(said: list[Any], grid: Path) -> None:
    from pigeonholed_training import predicting
    from pigeonholed_training.backend import require_train_extra

    require_train_extra()
    try:
        predicting.draw_grid(said, grid)
    except OSError as fault:
        raise Misconfigured(f"Cannot write {grid}: {fault.strerror or fault}.") from fault
