"""What a search may change in a recipe, and how far: every suggestion comes down to `--set KEY=VALUE`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pigeonholed_training.networks.backbones import BACKBONES
from pigeonholed_training.recipes import layers as language
from pigeonholed_training.recipes import override, settable
from pigeonholed_training.recipes.recipe import Stack, Transfer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from pigeonholed_training.recipes import Recipe

Value = float | int | str

_DIGITS = 3  # that count: a setting of more is noise, and hard to read
_DECAYS = (0.0, 1e-3, 1e-2, 1e-1)  # for a recipe that has no weight decay, whose neighbourhood has no scale
# The strengths of `Augmentation`, and what each may grow to.
STRENGTHS = {
    "rotate_deg": 180.0,
    "shift": 0.5,
    "zoom": 0.9,
    "crop": 0.9,
    "stretch": 0.9,
    "shear_deg": 60.0,
    "brightness": 1.0,
    "contrast": 1.0,
    "saturation": 1.0,
    "cutout": 0.9,
}


@dataclass(frozen=True, slots=True)
class Range:
    """Any number between two; `log`: as many between 1 and 10 as between 10 and 100."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few values."""

    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Dimension:
    """One thing that a search changes.

    Attributes:
        name: the setting; or a word for several that are changed together.
        own: what the recipe has; it is within `among`.
        among: what may be suggested.
        keys: the settings that it stands for.
        assign: the assignments, as `override` takes them, of a value.
        times: whether a value is a factor of what the recipe has.
    """

    name: str
    own: Value
    among: Range | Choice
    keys: tuple[str, ...]
    assign: Callable[[Value], tuple[str, ...]]
    times: bool = False

    def rounded(self, value: Value) -> Value:
        """A suggestion as it is used: to a few digits, but for the recipe's own value."""
        if isinstance(self.among, Choice) or value == self.own:
            return value
        return float(f"{value:.{_DIGITS}g}")

    def shown(self, value: Value) -> str:
        """Such as `learning_rate 0.002` or `augmentation x0.5`."""
        return f"{self.name} {'x' if self.times else ''}{f'{value:g}' if isinstance(value, float) else value}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        among = self.among
        limits: dict[str, Any]
        if isinstance(among, Choice):
            limits = {"choices": list(among.values)}
        else:
            limits = {"low": among.low, "high": among.high, "log": among.log}
        return {"name": self.name, "own": self.own, "times": self.times, **limits}


Space = tuple[Dimension, ...]


def space(
    recipe: Recipe, *, pinned: Collection[str] = (), has_weights: bool = False, backbones: Sequence[str] = ()
) -> Space:
    """Everything worth changing in `recipe`; empty where there is nothing.

    Args:
        recipe: with all overrides applied.
        pinned: dotted keys of settings that stay as they are.
        has_weights: whether the network starts from weights.
        backbones: those whose weights are at hand, for a recipe that only learns an end on features.
    """
    phases = _Phases.of(recipe, has_weights)
    if phases.whole or phases.finetune:
        found = [dimension for make in _MAKERS for dimension in make(recipe, phases)]
    else:
        found = list(_backbone(recipe, backbones))
    return tuple(dimension for dimension in found if not set(dimension.keys) & set(pinned))


def assignments(space: Space, values: Mapping[str, Value]) -> tuple[str, ...]:
    """What makes a recipe one with `values` by name; nothing for those that the recipe has itself."""
    changed = (dimension for dimension in space if values.get(dimension.name, dimension.own) != dimension.own)
    return tuple(one for dimension in changed for one in dimension.assign(values[dimension.name]))


def apply(recipe: Recipe, space: Space, values: Mapping[str, Value]) -> Recipe:
    """The recipe with `values` by name."""
    return override(recipe, assignments(space, values))


def shown(space: Space, values: Mapping[str, Value]) -> str:
    """The values that differ from the recipe's, to read."""
    said = [one.shown(values[one.name]) for one in space if values.get(one.name, one.own) != one.own]
    return ", ".join(said) or "the recipe as it is"


@dataclass(frozen=True, slots=True)
class _Phases:
    """Which phases learn step by step, and so listen to rates: the main one, fine-tuning; and whether on pictures."""

    whole: bool
    finetune: bool
    pictures: bool

    @classmethod
    def of(cls, recipe: Recipe, has_weights: bool) -> _Phases:
        network = recipe.network
        if not (isinstance(network, Transfer) and has_weights):
            return cls(True, False, True)
        finetune = recipe.finetune.epochs > 0
        return cls(network.head == "dense", finetune, finetune)


@dataclass(frozen=True, slots=True)
class _Rule:
    """How one setting may change: `among` gives the neighbourhood of its value."""

    key: str
    among: Callable[[Any], Range | Choice]
    applies: Callable[[_Phases], bool] = lambda _phases: True

    def __call__(self, recipe: Recipe, phases: _Phases) -> Iterator[Dimension]:
        known = settable(recipe)
        if self.key in known and self.applies(phases):
            yield _plain(self.key, known[self.key], self.among(known[self.key]))


def _plain(key: str, own: Value, among: Range | Choice) -> Dimension:
    """One setting, under its own name."""
    name = key.removeprefix("network.")
    return Dimension(name, own, among, (key,), lambda value: (f"{key}={value}",))


def _around(factor: float, most: float) -> Callable[[float], Range]:
    """From so many times less to so many times more."""
    return lambda own: Range(own / factor, max(own, min(own * factor, most)), log=True)


def _up_to(most: float) -> Callable[[float], Range]:
    return lambda own: Range(0.0, max(own, most))


def _decay(own: float) -> Range | Choice:
    return _around(10.0, 0.5)(own) if own else Choice(_DECAYS)


def _halved_or_doubled(own: int) -> Choice:
    return Choice(tuple(sorted({max(own // 2, 1), own, own * 2})))


def _dropout(recipe: Recipe, _phases: _Phases) -> Iterator[Dimension]:
    """Of a stack, whose dropout stands among its layers: all of it in proportion, told by the last."""
    if not isinstance(recipe.network, Stack):
        return
    words = recipe.network.layers
    shares = [layer.share for layer in language.parse(words) if layer.kind == "dropout" and layer.share]
    if not shares:
        return

    def assign(value: Value) -> tuple[str, ...]:
        factor = float(value) / shares[-1]
        changed = [_with_dropout(layer, factor) for layer in language.parse(words)]
        return (f"network.layers={json.dumps(changed)}",)

    yield Dimension("dropout", shares[-1], Range(0.0, max(0.6, shares[-1])), ("network.layers",), assign)


def _with_dropout(layer: language.Layer, factor: float) -> str:
    """The layer's word, its share multiplied if it is one of dropout."""
    return f"dropout {round(min(layer.share * factor, 0.9), 3):g}" if layer.kind == "dropout" else layer.text


def _augmentation(recipe: Recipe, phases: _Phases) -> Iterator[Dimension]:
    """All strengths by one factor, which a search of a few dozen trials finds.

    A search over each would need hundreds, for no better result: E. Cubuk and others, "RandAugment", 2019,
    arXiv 1909.13719, section 4.
    """
    own = {key: getattr(recipe.augmentation, key) for key in STRENGTHS}
    on = {key: strength for key, strength in own.items() if strength}
    if not on or not phases.pictures:
        return

    def assign(factor: Value) -> tuple[str, ...]:
        return tuple(
            f"augmentation.{key}={min(strength * float(factor), max(STRENGTHS[key], strength)):.{_DIGITS}g}"
            for key, strength in on.items()
        )

    keys = tuple(f"augmentation.{key}" for key in on)
    yield Dimension("augmentation", 1.0, Range(0.0, 2.0), keys, assign, times=True)


def _stages(recipe: Recipe, phases: _Phases) -> Iterator[Dimension]:
    """Where fine-tuning begins: at the usual stage of the backbone, a few before it, or a few after."""
    network, own = recipe.network, recipe.finetune.layers
    if not (isinstance(network, Transfer) and phases.finetune):
        return
    backbone = BACKBONES[network.backbone]
    usual, step = backbone.stages.index(backbone.finetuned), max(len(backbone.stages) // 6, 1)
    places = (usual + offset * step for offset in (-2, -1, 0, 1))
    names = [backbone.stages[place] for place in places if 0 <= place < len(backbone.stages)]
    own = own or backbone.finetuned
    yield _plain("finetune.layers", own, Choice(tuple(dict.fromkeys([*names, own]))))


def _backbone(recipe: Recipe, backbones: Sequence[str]) -> Iterator[Dimension]:
    """A logistic regression chooses its regularisation itself; what is left is whose features it sees."""
    network = recipe.network
    if isinstance(network, Transfer) and len({network.backbone, *backbones}) > 1:
        names = tuple(dict.fromkeys([network.backbone, *backbones]))
        yield _plain("network.backbone", network.backbone, Choice(names))


_MAKERS: tuple[Callable[[Recipe, _Phases], Iterator[Dimension]], ...] = (
    _Rule("learning_rate", _around(8.0, 1000.0), lambda phases: phases.whole),
    _Rule("finetune.learning_rate", _around(8.0, 1000.0), lambda phases: phases.finetune),
    _stages,
    _Rule("weight_decay", _decay),
    _Rule("batch_size", _halved_or_doubled),
    _Rule("label_smoothing", _up_to(0.05)),
    _Rule("network.dropout", _up_to(0.6)),
    _dropout,
    _augmentation,
)
"""One line for each thing that is searched; in the order in which they are shown."""
