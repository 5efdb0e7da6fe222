"""What a search leaves: `tune.json` with everything, `best.toml` to train with, and the few lines that are printed."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

from pigeonholed_training.data.splitting import Part
from pigeonholed_training.fitting.pace import spoken
from pigeonholed_training.recipes import catalogue, settings
from pigeonholed_training.tuning import trial as trials_
from pigeonholed_training.tuning.space import apply, shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pigeonholed_training.fitting.job import Job
    from pigeonholed_training.recipes import Recipe
    from pigeonholed_training.tuning.search import Order
    from pigeonholed_training.tuning.space import Space
    from pigeonholed_training.tuning.trial import Trial

JSON = "tune.json"
RECIPE = "best.toml"
PICTURE = "search.png"


def content(
    order: Order, job: Job, space: Space, trials: Sequence[Trial], importances: Mapping[str, float] | None
) -> dict[str, Any]:
    """Plain values for JSON.

    Args:
        order: what was asked for.
        job: of the recipe as it is.
        space: what was searched.
        trials: those that have ended.
        importances: how much each thing matters, as shares of 1; None where that cannot be said.
    """
    top = trials_.best(trials)
    return {
        "name": order.training.name,
        "recipe": order.given,
        "data": str(order.training.data),
        "weights": job.weights.given,
        "seed": job.seed,
        "data_fingerprint": job.dataset.fingerprint,
        "validation_pictures": len(job.indices(Part.VALIDATION)),
        "wanted": order.trials,
        "space": [one.as_dict() for one in space],
        "trials": [one.as_dict() | {"changes": shown(space, one.values)} for one in trials],
        "best": top and top.number,
        "importances": importances,
        "seconds": round(sum(one.seconds for one in trials), 2),
        "next": next_command(order) if top else None,
    }


def next_command(order: Order) -> str:
    """How to train with what was found; under another name, because the search has its folder to itself."""
    training = order.training
    words = ["pigeonholed-train", "train", str(training.data), "--recipe", str(order.path / RECIPE)]
    words += ["--name", f"{training.name}-best"]
    if training.weights != order.base.weights:
        words += ["--weights", training.weights]
    if training.seed:
        words += ["--seed", str(training.seed)]
    if str(training.runs) != "runs":
        words += ["--runs", str(training.runs)]
    if training.cache is not None:
        words += ["--cache", str(training.cache)]
    return shlex.join(words)


def recipe_file(found: Mapping[str, Any], order: Order, recipe: Recipe, space: Space) -> str:
    """The best recipe as a file for `train --recipe`.

    It says what differs from a recipe that comes along. One's own file may be changed or moved: what is like that
    stands here as a whole.

    Args:
        found: what `content` gave, with a best trial.
        order: what was asked for.
        recipe: as it was searched from.
        space: what was searched.
    """
    tuned = apply(recipe, space, _numbered(found, found["best"])["values"])
    comes_along = order.given in catalogue.NAMES
    said = {"name": order.training.name[:100], "purpose": f"{order.base.name}, tuned"}
    values = {"like": order.given, **said} if comes_along else said
    head = "\n".join(f"# {line}" for line in (*_origin(found), *verdict(found)))
    first = "\n".join(f"{key} = {_written(value)}" for key, value in values.items())
    if not comes_along:
        rest = "\n".join(line for line in settings.as_toml(tuned).splitlines() if not line.startswith("purpose = "))
        return f"{head}\n{first}\n{rest}\n"
    top, tables = _differing(tuned.as_dict(), order.base.as_dict())
    lines = [f"{key} = {_written(value)}" for key, value in top.items()]
    for name, table in tables.items():
        lines += ["", f"[{name}]", *(f"{key} = {_written(value)}" for key, value in table.items())]
    return "\n".join([head, first, *lines]) + "\n"


def summary(found: Mapping[str, Any], order: Order) -> str:
    """The result in a few lines."""
    if found["best"] is None:
        return "No trial came to its end, so there is no result; the same command goes on, and tune.json has them all."
    ended = [trial["ended"] for trial in found["trials"]]
    counts = ", ".join(
        f"{ended.count(key)} {what}"
        for key, what in (("done", "done"), ("pruned", "pruned"), ("broke-down", "broken down"))
        if key in ended
    )
    return "\n".join(
        [
            *verdict(found),
            f"Trials: {counts}, {spoken(found['seconds'])}. Recipe and picture: {order.path / RECIPE}, "
            f"{order.path / PICTURE}",
            f"Next: {found['next']}",
        ]
    )


def verdict(found: Mapping[str, Any]) -> list[str]:
    """Two or three sentences: the best trial, the recipe beside it, and how far to believe that."""
    best, own = _numbered(found, found["best"]), found["trials"][0]
    count = found["validation_pictures"]
    if best["number"] == own["number"]:
        figures = f"validation loss {_figures(best)} of {count} pictures right"
        return [f"None of {len(found['trials'])} trials was better than the recipe as it is: {figures}."]
    beside = f"; the recipe as it is: {_figures(own)}" if own["loss"] is not None else ""
    return [
        f"Best is trial {best['number']} of {len(found['trials'])}, {best['changes']}.",
        f"Validation loss {_figures(best)} of {count} pictures right{beside}.",
        "The best of many looks better on those pictures than it is; what it is worth, train tells by others.",
    ]


def _origin(found: Mapping[str, Any]) -> list[str]:
    """Where a recipe file comes from; on one line each, whatever folders are called."""
    of = f"recipe {found['recipe']!a} on {found['data']!a}, seed {found['seed']}"
    return [f"Made by 'pigeonholed-train tune' from {of}."]


def _figures(trial: Mapping[str, Any]) -> str:
    return f"{trial['loss']:.4f}, {100 * trial['accuracy']:.1f} %"


def _numbered(found: Mapping[str, Any], number: int) -> dict[str, Any]:
    trial: dict[str, Any] = found["trials"][number - 1]
    return trial


def _differing(tuned: Mapping[str, Any], base: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """What differs: settings, and tables of settings."""
    skipped = ("name", "purpose", "twin")
    changed = {key: value for key, value in tuned.items() if value != base[key] and key not in skipped}
    tables = {
        name: {key: value for key, value in table.items() if value != base[name].get(key)}
        for name, table in changed.items()
        if isinstance(table, dict)
    }
    return {key: value for key, value in changed.items() if key not in tables}, tables


def _written(value: object) -> str:
    """A value as TOML, which writes scalars and lists as JSON does."""
    return json.dumps(value, ensure_ascii=False)
