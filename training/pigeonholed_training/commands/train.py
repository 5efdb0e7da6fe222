"""`pigeonholed-train train`: from pictures to a finished run folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pigeonholed_training.commands.options import FOLDER, MODELS_HELP, Duration, check_name, gate_options, store
from pigeonholed_training.commands.publish import publish_run
from pigeonholed_training.errors import WrongUsage

if TYPE_CHECKING:
    from pigeonholed_training.gates import Wanted


@click.command()
@click.argument("data", type=FOLDER)
@click.option(
    "--recipe",
    default="auto",
    show_default=True,
    metavar="R",
    help="A name that 'pigeonholed-train recipes' lists, or your own FILE.toml; auto looks at the pictures and picks.",
)
@click.option("--name", required=True, metavar="N", help="Name of the model and of its run folder.")
@click.option(
    "--weights",
    metavar="W",
    help="Where a network starts from: imagenet (downloaded by Keras), a FILE of such weights, or none. "
    "[default: as the recipe says]",
)
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
@click.option("--dry-run", is_flag=True, help="Print the plan and an estimate of the time; train nothing.")
@click.option("--publish", "publish_it", is_flag=True, help="Publish the result into the model store.")
@click.option("--fresh", is_flag=True, help="Forget an earlier run of that name and start over.")
@click.option("--runs", type=FOLDER, default=Path("runs"), show_default=True, help="Where run folders are made.")
@click.option("--cache", type=FOLDER, help="Where decoded pictures are kept between runs. [default: RUNS/.cache]")
@click.option("--models", type=FOLDER, help=MODELS_HELP)
@gate_options
def train(
    data: Path,
    recipe: str,
    name: str,
    weights: str | None,
    assignments: tuple[str, ...],
    epochs: int | None,
    seed: int,
    budget_s: float | None,
    precision: float,
    dry_run: bool,
    publish_it: bool,
    fresh: bool,
    runs: Path,
    cache: Path | None,
    models: Path | None,
    wanted: Wanted,
) -> None:
    """Train a model on DATA.

    DATA is a folder of class folders, a folder with train/, val/ and test/ that hold class folders, or a CSV file with
    the columns path, label and, if you like, split.

    Pictures that cannot be read are named and passed over. Everything goes into the run folder RUNS/N: settings, log,
    history.csv, TensorBoard events, curves.png, model.keras, metrics.json and report.html. After an interruption the
    same command goes on after the last finished epoch; when all is done it only reports (and publishes, with
    --publish).

    \b
      pigeonholed-train train photos/ --name cats-dogs --publish
      pigeonholed-train train photos/ --recipe small --name cats-dogs --time 30m --publish
      pigeonholed-train train photos/ --recipe probe --name cats-dogs --weights mobilenet_v2.h5
    """  # noqa: D301 (click wants the control character)
    from pigeonholed_training import recipes, session
    from pigeonholed_training.progress import Narrator
    from pigeonholed_training.recipes import looking

    check_name(name)
    if dry_run and publish_it:
        raise WrongUsage("--dry-run trains nothing that --publish could publish; leave one of them out.")
    if wanted.is_anything and not publish_it:
        raise WrongUsage("The gates --min-accuracy, --min-macro-f1 and --force are for --publish; give that too.")
    narrator = Narrator()
    if recipe == looking.AUTO:
        base = looking.decide(data, runs / name, weights, fresh=fresh, say=narrator.say)
    else:
        base = recipes.find(recipe)
    chosen = recipes.override(base, [*assignments, *([f"epochs={epochs}"] if epochs else [])])
    order = session.Order(
        data=data,
        recipe=chosen,
        name=name,
        runs=runs,
        seed=seed,
        precision=precision,
        budget_s=budget_s,
        fresh=fresh,
        weights=weights or chosen.weights,
        cache=cache,
    )
    if dry_run:
        click.echo(session.rehearse(order, narrator))
        return
    # Before anything slow: a configuration at fault should not be found after an hour of training.
    models = store(models) if publish_it else None
    metrics = session.carry_out(order, narrator)
    click.echo(_summary(metrics))
    click.echo(f"Verdict: {metrics['verdict']['level']}. {metrics['verdict']['sentence']}")
    click.echo(f"Report: {runs / name / 'report.html'}")
    if models is not None:
        publish_run(runs / name, name, models, wanted)


def _summary(metrics: dict[str, Any]) -> str:
    held, accuracy = metrics["held_out"], metrics["held_out"]["accuracy"]
    methods = sorted({threshold["method"] for threshold in metrics["thresholds"]})
    took = ", ".join(f"{phase} {seconds:.1f} s" for phase, seconds in metrics["seconds"].items())
    seen = ", ".join(
        f"{part} {100 * share['value']:.1f} % of {share['n']}" for part, share in metrics["other_parts"].items()
    )
    return (
        f"{100 * accuracy['value']:.1f} % right on {accuracy['n']} pictures of the {held['part']} part, which training "
        f"never saw ({100 * accuracy['lower']:.1f} to {100 * accuracy['upper']:.1f} %), "
        f"{100 * held['unsure_share']:.1f} % unsure (thresholds: {', '.join(methods)}).\n"
        f"For comparison: {seen}.\nTime: {took}."
    )
