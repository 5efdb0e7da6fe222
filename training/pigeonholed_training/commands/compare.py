"""`pigeonholed-train compare`: runs and published versions side by side, on the same pictures."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from pigeonholed_training.commands.options import FOLDER, MODELS_HELP, store
from pigeonholed_training.errors import WrongUsage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from rich.table import Table

    from pigeonholed_training.comparing import Compared
    from pigeonholed_training.evaluation.comparison import Side


@click.command(short_help="Put models side by side on the same pictures.")
@click.argument("models_at", nargs=-1, required=True, metavar="A B [C]...")
@click.option("--data", type=FOLDER, metavar="DIR", help="Let every model classify these pictures.")
@click.option("--models", type=FOLDER, help=MODELS_HELP)
@click.option("--json", "as_json", is_flag=True, help="Everything as one object.")
def compare(models_at: tuple[str, ...], data: Path | None, models: Path | None, as_json: bool) -> None:
    """Put models side by side on the very same pictures, and say whether the difference could be chance.

    Each of A, B, C is a run folder, a published model NAME (its current version) or NAME/VERSION.

    Without --data the pictures are those that judged all of them when they were trained. With --data DIR every model
    classifies the pictures in DIR: class folders, the test part of a split data set, or a CSV file. Pictures that any
    of the models has learnt from are left out.

    \b
      pigeonholed-train compare animals/1 runs/animals
      pigeonholed-train compare animals/1 animals/2 animals/3 --data new-photos/
    """  # noqa: D301 (click wants the control character)
    from pigeonholed_training import comparing, entrants
    from pigeonholed_training.backend import quiet_libraries, require_train_extra
    from pigeonholed_training.progress import Narrator

    if len(models_at) < 2:
        raise WrongUsage(f"There is nothing to compare {models_at[0]} with; name a second run or model.")
    require_train_extra()
    quiet_libraries()
    root = store(models)
    found = [entrants.find(text, root) for text in models_at]
    compared = comparing.on_records(found) if data is None else comparing.on_pictures(found, data, Narrator())
    if as_json:
        click.echo(json.dumps(compared.as_dict(), ensure_ascii=True, indent=2))
    else:
        _tell(compared)


def _tell(compared: Compared) -> None:
    from rich.console import Console

    console = Console(highlight=False, markup=False)  # 80 columns where nobody says how many there are
    sides, count = compared.comparison.sides, compared.comparison.n
    letters = [chr(ord("A") + index) for index in range(len(sides))]
    for letter, side in zip(letters, sides, strict=True):
        console.print(f"{letter}  {side.title}", soft_wrap=True)
    console.print(f"\nOn the same {count} pictures", _table(letters, _SIDE, sides), sep="\n")
    console.print("\nEach by itself", _table(letters, _ABOUT, compared.models), "", sep="\n")
    pairs = zip(compared.comparison.pairs, letters[1:], strict=True)
    for line in [*(replace(pair, first="A", other=other).sentence for pair, other in pairs), *compared.notes]:
        console.print(line)


def _table(letters: Sequence[str], rows: Mapping[str, Callable[[Any], str]], values: Sequence[Any]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    for letter in letters:
        table.add_column(letter, justify="right")
    for name, said in rows.items():
        table.add_row(name, *(said(value) for value in values))
    return table


def _percent(share: Mapping[str, Any]) -> str:
    return "-" if share["value"] is None else f"{100 * share['value']:.1f} %"


def _interval(side: Side) -> str:
    return f"{100 * side.accuracy['lower']:.1f} to {100 * side.accuracy['upper']:.1f} %"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _judged(about: Mapping[str, Any]) -> str:
    n, accuracy = about["judged"]["n"], about["judged"]["accuracy"]
    return "-" if n is None or accuracy is None else f"{100 * accuracy:.1f} % of {n:.0f}"


_SIDE: dict[str, Callable[[Any], str]] = {
    "right": lambda side: _percent(side.accuracy),
    "  95 % interval": _interval,
    "macro F1": lambda side: f"{side.macro_f1:.3f}",
    "unsure": lambda side: f"{100 * side.unsure_share:.1f} %",
    "right of what is sorted": lambda side: _percent(side.sorted),
    "log loss": lambda side: _number(side.nll, ".3f"),
}

_ABOUT: dict[str, Callable[[Any], str]] = {
    "right when it was trained": _judged,
    "adaptive ECE": lambda about: _number(about["adaptive_ece"], ".3f"),
    "recipe": lambda about: about["recipe"] or "-",
    "pixels": lambda about: "{}x{}".format(*about["pixels"]),
    "classes": lambda about: str(len(about["labels"])),
    "network on the disk": lambda about: f"{about['served_bytes'] / 1e6:.1f} MB",
    "pictures a second": lambda about: _number(about["pictures_per_s"], ",.0f"),
    "made": lambda about: about["created_at"][:16].replace("T", " ") or "-",
}
