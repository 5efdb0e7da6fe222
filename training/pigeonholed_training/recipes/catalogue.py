"""The recipes that come along, and those that users write themselves."""

from __future__ import annotations

import importlib.resources
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pigeonholed_training.errors import Misconfigured, WrongUsage
from pigeonholed_training.recipes import reading, wording
from pigeonholed_training.recipes.reading import Faulty

if TYPE_CHECKING:
    from pigeonholed_training.recipes.reading import Table
    from pigeonholed_training.recipes.recipe import Recipe

NAMES = (
    "probe",
    "mobilenet-v2",
    "efficientnetv2-b0",
    "mobilenetv3-small",
    "resnet50",
    "vgg16",
    "small",
    "fast",
    "best",
    "cifar",
    "binary-256",
    "binary-256-softmax",
    "augmented-150",
    "augmented-150-softmax",
    "shear-64",
    "shear-64-softmax",
    "digits",
)
"""In the order of listing: what most people want comes first."""


def all_recipes() -> tuple[Recipe, ...]:
    """Every recipe that comes along, in the order of listing; the files are read once."""
    return tuple(_builtin(name) for name in NAMES)


def find(name: str) -> Recipe:
    """The recipe of that name; a name that ends in `.toml` is a file of one's own.

    An own file holds settings as `pigeonholed-train recipes NAME` prints them. `like = "NAME"` takes all that it
    leaves out from another recipe, or file beside it; its name is that of the file unless it says otherwise.

    Raises:
        WrongUsage: there is no such recipe (the message names the nearest) or file.
        Misconfigured: the file cannot be used; every fault is told.
    """
    if _is_file(name):
        return _own(Path(name), ())
    if name not in NAMES:
        own = "; a file of your own must end in .toml" if Path(name).is_file() else ""
        raise WrongUsage(wording.ended(f"There is no recipe {name!a}{own or wording.nearest(name, NAMES)}"))
    return _builtin(name)


def comment(name: str) -> str:
    """What the file of a recipe that comes along says first: what it is and where it comes from; lines with `#`."""
    lines = _text(name).splitlines() if name in NAMES else []
    count = next((index for index, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return "\n".join(lines[:count])


def _is_file(name: str) -> bool:
    return name.casefold().endswith(".toml")


@cache
def _builtin(name: str) -> Recipe:
    values = reading.table(_text(name))
    like = values.pop("like", None)
    return reading.checked(values if like is None else _below(_builtin(like), values, name))


def _text(name: str) -> str:
    folder = importlib.resources.files("pigeonholed_training.recipes")
    return folder.joinpath("builtin", f"{name}.toml").read_text(encoding="utf-8")


def _own(path: Path, children: tuple[Path, ...]) -> Recipe:
    """The recipe in a file that `children` inherit from, the first being the one that the user named."""
    subject = f"The recipe {str(path)!a} cannot be used"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as fault:
        raise WrongUsage(f"There is no recipe file {str(path)!a}{_wanted_by(children)}.") from fault
    except OSError as fault:
        raise Misconfigured(f"{subject}: it cannot be read: {fault.strerror or fault}.") from fault
    except ValueError as fault:  # a NUL in the path, or bytes that are no UTF-8
        raise Misconfigured(f"{subject}: it is no text in UTF-8.") from fault
    try:
        values = reading.table(text)
        parent = _parent(values.pop("like", None), path, children)
        name = path.stem.encode("utf-8", "backslashreplace").decode("utf-8")
        return reading.checked({"name": name, **values} if parent is None else _below(parent, values, name))
    except Faulty as fault:
        raise Misconfigured(wording.sentence(subject, fault.clauses)) from fault


def _parent(like: object, path: Path, children: tuple[Path, ...]) -> Recipe | None:
    if like is None:
        return None
    if not isinstance(like, str):
        raise Faulty([f"like must be the name of a recipe, or of a file that ends in .toml, not {wording.shown(like)}"])
    if not _is_file(like):
        if like not in NAMES:
            raise Faulty([f"like: there is no recipe {like!a}{wording.nearest(like, NAMES)}"])
        return _builtin(like)
    way = (*children, path.resolve())
    other = path.parent / like
    if other.resolve() in way:
        circle = " -> ".join(one.name for one in (*way, other))
        raise Faulty([f"recipes inherit from each other in a circle, {circle}"])
    return _own(other, way)


def _below(parent: Recipe, values: Table, name: str) -> Table:
    """The settings of `parent` but for its name and what is said of it, with `values` over them."""
    said = {"name": name, "purpose": f"own recipe, like {parent.name}", "twin": ""}
    return reading.inherited(parent.as_dict() | said, values)


def _wanted_by(children: tuple[Path, ...]) -> str:
    return f", which {children[-1].name!a} wants to be like" if children else ""
