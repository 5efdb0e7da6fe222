"""From the text of a recipe file to a recipe, with every fault told at once."""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from pigeonholed_training.recipes import wording
from pigeonholed_training.recipes.recipe import Groups, Recipe, Stack, Transfer

if TYPE_CHECKING:
    from collections.abc import Mapping

Table = dict[str, Any]


class Faulty(Exception):
    """Faults of a recipe, each a clause; who knows where it comes from makes a sentence of them."""

    def __init__(self, clauses: list[str]) -> None:
        super().__init__("; ".join(clauses))
        self.clauses = clauses


def table(text: str) -> Table:
    """What a TOML text holds.

    Raises:
        Faulty: it is no TOML.
    """
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as fault:
        raise Faulty([f"it is no valid TOML: {str(fault).rstrip('.')}"]) from fault


def checked(values: Mapping[str, Any]) -> Recipe:
    """The recipe that plain values describe, types taken strictly: `epochs = "3"` is a fault.

    Raises:
        Faulty: something is unknown, missing or cannot be; every fault is told.
    """
    try:
        # As JSON, where strict types still take a list for a tuple. TOML's dates become text, which fits nowhere.
        return Recipe.model_validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as error:
        kind = values["network"].get("kind") if isinstance(values.get("network"), dict) else None
        raise Faulty(wording.faults(error, keys(kind))) from error


def inherited(parent: Mapping[str, Any], own: Mapping[str, Any]) -> Table:
    """The parent's values with the own ones over them, table by table; a network of another kind replaces the whole."""
    merged = dict(parent)
    for key, value in own.items():
        below = merged.get(key)
        is_other = key == "network" and isinstance(value, dict) and value.get("kind") not in (None, _kind(below))
        merged[key] = inherited(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
        if is_other:
            merged[key] = value
    return merged


def keys(kind: str | None = None) -> list[str]:
    """Every dotted key that a recipe with a network of that kind may have; without one, those of all kinds."""
    networks = {"stack": Stack, "groups": Groups, "transfer": Transfer}
    chosen: list[Any] = [networks[kind]] if kind in networks else list(networks.values())
    found: list[str] = []
    for name, field in Recipe.model_fields.items():
        values: list[Any] = chosen if name == "network" else [field.annotation]
        for value in values:
            # Models of pydantic and plain dataclasses are tables, all else is a setting.
            inner = getattr(value, "model_fields", None) or getattr(value, "__dataclass_fields__", None)
            found += [f"{name}.{key}" for key in inner] if inner else [name]
    return list(dict.fromkeys(found))


def _kind(network: object) -> object:
    return network.get("kind") if isinstance(network, dict) else None
