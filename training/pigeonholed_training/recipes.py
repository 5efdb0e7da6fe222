"""Recipes: how a model is made, as plain values that can be listed, changed and compared."""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pigeonholed.imaging import PixelSpec
from pigeonholed_training import architectures
from pigeonholed_training.augmentation import Augmentation
from pigeonholed_training.errors import WrongUsage
from pigeonholed_training.splitting import Shares

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides how a model is made, besides data and seed.

    Attributes:
        name: what `--recipe` calls it.
        purpose: what it is for, in one line.
        build: (height, width, classes) -> keras.Model from uint8 pictures to logits.
        height: pixels that the network takes.
        width: pixels.
        fit: how a picture of another shape is brought to that size.
        augmentation: changes of the training pictures.
        optimiser: `adamw` or `sgd` (with Nesterov momentum 0.9).
        learning_rate: the highest of the schedule.
        weight_decay: decoupled, a step.
        schedule: `cosine` falls to 0 over all epochs, `constant` does not fall.
        warmup_epochs: epochs over which the rate rises from 0.
        epochs: passes over the training pictures.
        batch_size: pictures a step.
        shares: how the pictures are split.
    """

    name: str
    purpose: str
    build: Callable[[int, int, int], Any] = field(repr=False)
    height: int
    width: int
    fit: Literal["stretch", "crop", "pad"] = "stretch"
    augmentation: Augmentation = field(default_factory=Augmentation)
    optimiser: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-3
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_epochs: float = 1.0
    epochs: int = 20
    batch_size: int = 32
    shares: Shares = field(default_factory=Shares)

    def __post_init__(self) -> None:
        for name in ("height", "width", "epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be above 0, not {self.learning_rate}")
        if min(self.weight_decay, self.warmup_epochs) < 0:
            raise ValueError("weight_decay and warmup_epochs must not be negative")

    @property
    def pixel_spec(self) -> PixelSpec:
        """The pixels that `imaging.decode` shall make."""
        return PixelSpec(height=self.height, width=self.width, fit=self.fit)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; the network by its function's name."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values["build"] = self.build.__name__
        values["augmentation"] = dataclasses.asdict(self.augmentation)
        values["shares"] = dataclasses.asdict(self.shares)
        return values


RECIPES: tuple[Recipe, ...] = (
    Recipe(
        name="digits",
        purpose="small pictures of one sign, such as handwritten digits; trains in seconds on a CPU",
        build=architectures.small_digits,
        height=32,
        width=32,
        augmentation=Augmentation(rotate_deg=12.0, shift=0.08, zoom=0.1, shear_deg=5.0),
        learning_rate=3e-3,
        epochs=16,
        batch_size=32,
        # Generous to calibration: 0.98 is certified by 203 accepted pictures without an error, 385 with two.
        shares=Shares(validation=0.08, calibration=0.30),
    ),
)


def find(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        WrongUsage: there is none; the message names the nearest.
    """
    known = {recipe.name: recipe for recipe in RECIPES}
    if name not in known:
        raise WrongUsage(f"There is no recipe {name!a}{_nearest(name, list(known))}.")
    return known[name]


def override(recipe: Recipe, assignments: Sequence[str]) -> Recipe:
    """The recipe with `KEY=VALUE` applied, such as `learning_rate=0.001` or `augmentation.flip=true`.

    Raises:
        WrongUsage: no such key (the message names the nearest), or a value that does not fit.
    """
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise WrongUsage(f"--set {assignment} must be KEY=VALUE, such as epochs=20.")
        try:
            recipe = _with(recipe, key.strip().split("."), text.strip())
        except KeyError as fault:
            raise WrongUsage(
                f"Recipe {recipe.name} has no setting {key!a}{_nearest(key, list(settable(recipe)))}."
            ) from fault
        except ValueError as fault:
            raise WrongUsage(f"--set {assignment}: {fault}.") from fault
    return recipe


def settable(value: Any, prefix: str = "") -> dict[str, Any]:
    """The dotted keys that `override` knows, with their values."""
    found: dict[str, Any] = {}
    for one in dataclasses.fields(value):
        inner = getattr(value, one.name)
        if dataclasses.is_dataclass(inner):
            found |= settable(inner, f"{prefix}{one.name}.")
        elif one.name not in ("name", "purpose", "build"):
            found[prefix + one.name] = inner
    return found


_WORDS = {"fit": ("stretch", "crop", "pad"), "optimiser": ("adamw", "sgd"), "schedule": ("cosine", "constant")}


def _with(value: Any, keys: list[str], text: str) -> Any:
    """A copy of the frozen `value` where the field that `keys` leads to is read from `text`."""
    if keys[0] not in {key.split(".")[0] for key in settable(value)}:
        raise KeyError(keys[0])
    inner = getattr(value, keys[0])
    if dataclasses.is_dataclass(inner) != (len(keys) > 1):
        raise KeyError(keys[0])
    new = _with(inner, keys[1:], text) if len(keys) > 1 else _parsed(keys[0], text, type(inner))
    return dataclasses.replace(value, **{keys[0]: new})


def _parsed(key: str, text: str, kind: type) -> Any:
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError("the value must be true or false")
        return text.lower() == "true"
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError as fault:
            raise ValueError(f"the value must be {'a whole number' if kind is int else 'a number'}") from fault
    if text not in _WORDS[key]:
        raise ValueError(f"the value must be one of {', '.join(_WORDS[key])}")
    return text


def _nearest(given: str, known: list[str]) -> str:
    """How a message about a wrong name ends."""
    close = difflib.get_close_matches(given, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else f"; there are: {', '.join(known)}"
