"""The settings of a recipe by their dotted keys: listed, changed from the command line, written as TOML."""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING, Any

from pigeonholed_training.errors import WrongUsage
from pigeonholed_training.recipes import reading, wording
from pigeonholed_training.recipes.reading import Faulty

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pigeonholed_training.recipes.recipe import Recipe

_FIXED = ("name", "purpose", "twin", "network.kind")
_WIDE = 100  # columns from which on a list gets a line for each item


def settable(recipe: Recipe) -> dict[str, Any]:
    """The dotted keys that `override` knows, with their values; lists for tuples."""
    return {key: value for key, value in _flat(_of_use(recipe)).items() if key not in _FIXED}


def override(recipe: Recipe, assignments: Sequence[str]) -> Recipe:
    """The recipe with every `KEY=VALUE` applied, such as `learning_rate=0.001` or `augmentation.flip=true`.

    `network.` may be left out of a key. A value is read as TOML would, and as text without quotes where it is none;
    items of a list may also just be separated by commas. All are applied before the result is judged, so that their
    order does not matter.

    Raises:
        WrongUsage: no such key (the message names the nearest), or a value that does not fit.
    """
    values, known = recipe.as_dict(), settable(recipe)
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise WrongUsage(f"--set {_shown(assignment)} must be KEY=VALUE, such as epochs=20.")
        full = next((name for name in (key.strip(), f"network.{key.strip()}") if name in known), None)
        if full is None:
            end = wording.nearest(key.strip(), list(known))
            raise WrongUsage(wording.ended(f"Recipe {recipe.name} has no setting {key.strip()!a}{end}"))
        table, _, last = full.rpartition(".")
        (values[table] if table else values)[last] = _value(text.strip(), known[full])
    try:
        return reading.checked(values)
    except Faulty as fault:
        subject = f"Recipe {recipe.name} with " + " ".join(f"--set {_shown(assignment)}" for assignment in assignments)
        raise WrongUsage(wording.sentence(subject, fault.clauses)) from fault


def as_toml(recipe: Recipe) -> str:
    """Every setting, as a file that `find` reads; without the name, which is then the file's."""
    values = {key: value for key, value in _of_use(recipe).items() if key not in ("name", "twin")}
    tables = {key: values.pop(key) for key in list(values) if isinstance(values[key], dict)}
    lines = [f"{key} = {_written(value)}" for key, value in values.items()]
    for name, table in tables.items():
        lines += ["", f"[{name}]", *(f"{key} = {_written(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


def _of_use(recipe: Recipe) -> dict[str, Any]:
    """Plain values without the table that means nothing to a network of that kind."""
    values = recipe.as_dict()
    if recipe.network.kind != "transfer":
        del values["finetune"]
    return values


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


def _value(text: str, present: object) -> object:
    """What `text` stands for, at a place that holds `present`."""
    read = _scalar(text)
    if isinstance(present, str):
        return read if isinstance(read, str) else text
    if isinstance(present, bool) and text.casefold() in ("true", "false"):
        return text.casefold() == "true"
    if isinstance(present, list) and not isinstance(read, list):
        inner = text.removeprefix("[").removesuffix("]")
        return [_scalar(item.strip()) for item in inner.split(",") if item.strip()]
    return read


def _scalar(text: str) -> object:
    try:
        read = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        read = {}
    if read.keys() == {"value"}:  # a line break could have smuggled in others
        return read["value"]
    try:
        return float(text)  # such as .5, which TOML does not know
    except ValueError:
        return text


def _shown(assignment: str) -> str:
    """On one line, cut to a readable length, and free of bytes that no terminal takes."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in assignment)
    return text if len(text) <= _WIDE else f"{text[:_WIDE]}..."


def _written(value: object) -> str:
    """A value as TOML; JSON writes scalars and lists alike."""
    if isinstance(value, list):
        items = [_written(item) for item in value]
        line = f"[{', '.join(items)}]"
        return line if len(line) <= _WIDE else "[\n" + "".join(f"    {item},\n" for item in items) + "]"
    return json.dumps(value, ensure_ascii=False)
