"""`pigeonholed-train recipes`: what there is to choose from, and one of them as a file to start from."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pigeonholed_training.recipes import Recipe


@click.command(short_help="List the recipes, or show one.")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="One object a recipe, with all settings.")
def recipes(name: str | None, as_json: bool) -> None:
    """List the recipes, or show the one called NAME as a file that you can save and edit.

    \b
      pigeonholed-train recipes
      pigeonholed-train recipes cifar > mine.toml
      pigeonholed-train train photos/ --recipe mine.toml --name photos

    A file of your own may be as short as two lines, such as like = "cifar" and epochs = 40; whatever it leaves out is
    taken from that recipe. A single setting is changed more quickly by --set, as in --set epochs=40.

    The layers of a network of kind stack are words such as "conv 32 same bn", "sep-conv 64", "max-pool", "avg-pool 3",
    "batch-norm", "dropout 0.25", "flatten", "global-pool" and "dense 256". After conv, sep-conv and pools may stand
    "kernel 5", "stride 2" and "same"; after conv, sep-conv and dense "bn" and an activation such as "gelu".
    """  # noqa: D301 (click wants the control character)
    from pigeonholed_training.recipes import all_recipes, find

    if name is not None:
        recipe = find(name)
        click.echo(json.dumps(_plain(recipe), indent=2) if as_json else _file(recipe), nl=as_json)
    elif as_json:
        click.echo(json.dumps([_plain(recipe) for recipe in all_recipes()], indent=2))
    else:
        _list(all_recipes())


def _plain(recipe: Recipe) -> dict[str, Any]:
    return recipe.as_dict() | {"needs": _needs(recipe)}


def _needs(recipe: Recipe) -> str:
    """What a user must have for it, in a few words; empty where any pictures will do."""
    if recipe.output == "sigmoid":
        return "exactly 2 classes"
    return "ImageNet weights" if recipe.weights == "imagenet" else ""


def _list(known: Sequence[Recipe]) -> None:
    from rich.console import Console
    from rich.table import Table

    rows = [(one.name, one.purpose, f"{one.height}x{one.width}", _needs(one)) for one in known]
    console = Console(highlight=False)
    if not console.is_terminal:  # one line each, for grep and cut
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        for row in rows:
            cells = [cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)]
            click.echo("  ".join(cells).rstrip())
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title, whole in (("recipe", True), ("what it is for", False), ("pixels", True), ("needs", True)):
        table.add_column(title, no_wrap=whole)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    click.echo("\n'pigeonholed-train recipes NAME' shows one with all its settings, as a file to save and edit.")


def _file(recipe: Recipe) -> str:
    from pigeonholed_training.recipes import catalogue, settings

    use = "# To make it yours, save it as FILE.toml, change it, and train with --recipe FILE.toml."
    head = [line for line in (catalogue.comment(recipe.name), use) if line]
    return "\n".join([*head, "", settings.as_toml(recipe)])
