"""`pigeonholed-train tune`: searches better settings for a recipe."""

from __future__ import annotations

import json
from pathlib import Path

import click

from pigeonholed_training.commands.options import FOLDER, Duration, check_name


@click.command(short_help="Search settings of a recipe that suit the pictures.")
@click.argument("data", type=FOLDER)
@click.option("--recipe", required=True, metavar="R", help="Where to start from; a name, or your own FILE.toml.")
@click.option("--name", required=True, metavar="N", help="Name of the run folder, and of the recipe that is found.")
@click.option(
    "--trials",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    metavar="COUNT",
    help="Trials in all; those of earlier sessions count.",
)
@click.option("--time", "budget_s", type=Duration(), metavar="T", help="Time for trials, such as 90s, 10m or 1.5h.")
@click.option("--weights", metavar="W", help="Where a network starts from, as in train. [default: as the recipe says]")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Change a setting; it is then left so.")
@click.option("--epochs", type=click.IntRange(min=1), metavar="E", help="Passes over the pictures a trial.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, metavar="S", help="Repeats a search.")
@click.option("--fresh", is_flag=True, help="Forget an earlier search of that name and start over.")
@click.option("--runs", type=FOLDER, default=Path("runs"), show_default=True, help="Where run folders are made.")
@click.option("--cache", type=FOLDER, help="Where decoded pictures are kept between runs. [default: RUNS/.cache]")
@click.option("--json", "as_json", is_flag=True, help="Print everything that was found as JSON.")
def tune(
    data: Path,
    recipe: str,
    name: str,
    trials: int,
    budget_s: float | None,
    weights: str | None,
    assignments: tuple[str, ...],
    epochs: int | None,
    seed: int,
    fresh: bool,
    runs: Path,
    cache: Path | None,
    as_json: bool,
) -> None:
    """Search settings of a recipe that suit the pictures in DATA better.

    A trial is a whole training: the first with the recipe as it is, the others with other rates, weight decay, batch
    size, dropout and strength of augmentation, chosen by what the trials before came to. Trials that fall behind are
    ended early. What counts is the loss on the validation pictures; those of the test part are not looked at.

    The run folder gets best.toml, a recipe of your own that train takes; search.png, a picture of the search; and
    tune.json. After an interruption the same command goes on where it was, and with more --trials it goes on from its
    end.

    \b
      pigeonholed-train tune photos/ --recipe small --name search --trials 30 --time 4h
      pigeonholed-train train photos/ --recipe runs/search/best.toml --name cats-dogs
    """  # noqa: D301 (click wants the control character)
    from pigeonholed_training import recipes, session
    from pigeonholed_training.progress import Narrator
    from pigeonholed_training.tuning import outcome, search

    check_name(name)
    base = recipes.find(recipe)
    changed = [*assignments, *([f"epochs={epochs}"] if epochs else [])]
    chosen = recipes.override(base, changed)
    training = session.Order(
        data=data,
        recipe=chosen,
        name=name,
        runs=runs,
        seed=seed,
        budget_s=budget_s,
        fresh=fresh,
        weights=weights or chosen.weights,
        cache=cache,
    )
    order = search.Order(training, recipe, base, search.named(chosen, changed), trials)
    found = search.carry_out(order, Narrator())
    click.echo(json.dumps(found, indent=2, ensure_ascii=False) if as_json else outcome.summary(found, order))
