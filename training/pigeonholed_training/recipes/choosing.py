"""Which recipe suits a data set, and why, in a sentence or two; `recipes.looking` does the looking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

TINY: Final = 40
"""Pixels of the shorter side up to which pictures are for the networks of 32x32."""

_SIGN: Final = 64  # pixels up to which a single sign loses nothing at 32x32
_TENS_OF_THOUSANDS: Final = 10_000
_TEACHES_STAGES: Final = 5_000  # pictures from which on teaching the network itself is worth its time
_WEAK: Final = 200  # pictures below which nothing from scratch is any good
_RARE: Final = 20  # pictures of a class
_LONG: Final = 10_000  # pictures that keep a few cores busy for long
_HAS_RECIPE: Final = ("mobilenet-v2", "efficientnetv2-b0", "mobilenetv3-small", "resnet50", "vgg16")
_HEAVY: Final = ("resnet50", "vgg16")  # not taught on a CPU unless somebody asks for it


@dataclass(frozen=True, slots=True)
class Look:
    """What is known of data and machine before anything is decoded.

    Attributes:
        pictures: files to learn from.
        classes: how many.
        smallest: files of the smallest class.
        side: pixels of the shorter side, the median of a sample; 0 where no header could be read.
        is_grey: nine in ten have no colours.
        has_sign_labels: every class is named by a letter, or by a number of one or two digits.
        backbone: whose weights are at hand; empty where there are none.
        asked: the user named these weights.
        cores: that this process may use.
        has_gpu: there is one that training would use.
    """

    pictures: int
    classes: int
    smallest: int
    side: int
    is_grey: bool = False
    has_sign_labels: bool = False
    backbone: str = ""
    asked: bool = False
    cores: int = 2
    has_gpu: bool = False

    @property
    def is_tiny(self) -> bool:
        """Whether the pictures are about the size of CIFAR-10's."""
        return 0 < self.side <= TINY

    @property
    def shows_signs(self) -> bool:
        """Whether they are small grey pictures of letters or digits."""
        return self.has_sign_labels and self.is_grey and 0 < self.side <= _SIGN


@dataclass(frozen=True, slots=True)
class Choice:
    """A recipe that comes along.

    Attributes:
        recipe: its name.
        why: sentences for the user, with what would be better where something would.
        assignments: settings of it to change, as `--set` takes them.
    """

    recipe: str
    why: str
    assignments: tuple[str, ...] = ()


def choose(look: Look) -> Choice:
    """The recipe for what was seen; the same for the same look, always.

    The rules follow what was measured on two cores (docs/training.md, "What to expect").
    """
    own = _own(look)
    needs_none = look.shows_signs or (look.is_tiny and look.pictures >= _TENS_OF_THOUSANDS)
    choice = _transfer(look) if look.backbone and (look.asked or not needs_none) else own
    said = [choice.why]
    if needs_none and choice is not own:
        said.append(f"For pictures of this kind {own.recipe} needs no weights, and may well be better.")
    return Choice(choice.recipe, " ".join(said + _cautions(look)), choice.assignments)


def _own(look: Look) -> Choice:
    """What to train from scratch."""
    if look.shows_signs:
        return Choice("digits", f"{_seen(look)}, grey and named like letters or digits; it never mirrors them.")
    return _tiny(look) if look.is_tiny else _photos(look)


def _transfer(look: Look) -> Choice:
    """Weights are at hand: a regression on features first, more teaching where there is enough to teach with."""
    at_hand = f"{_seen(look)}, and there are ImageNet weights of {look.backbone}"
    teachable = look.backbone in _HAS_RECIPE and (look.has_gpu or look.backbone not in _HEAVY)
    if look.pictures > _TEACHES_STAGES and teachable:
        why = f"{at_hand}; so many can teach the network itself something. The quick one is probe."
        return Choice(look.backbone, why)
    more = f" To be tried next, with more time: {look.backbone}." if teachable else ""
    if look.pictures > _TEACHES_STAGES:
        why = f"{at_hand}, a network that is better not taught any further on this machine."
    else:
        why = f"{at_hand}: with so many pictures that is hard to beat, and takes minutes.{more}"
    own_backbone = () if look.backbone == "mobilenet-v2" else (f"backbone={look.backbone}",)
    return Choice("probe", why, own_backbone)


def _tiny(look: Look) -> Choice:
    if look.pictures < _TENS_OF_THOUSANDS:
        why = f"{_seen(look)}, too few for the larger networks of that size."
        return Choice("cifar", f"{why} {_with_weights()}")
    mirrored = " If they must not be mirrored: --set augmentation.flip=false." if look.has_sign_labels else ""
    if look.has_gpu:
        return Choice("best", f"{_seen(look)}, and there is a GPU.{mirrored}")
    return Choice("fast", f"{_seen(look)}. With a GPU, or a night, it would be best.{mirrored}")


def _photos(look: Look) -> Choice:
    mirrored = " If they must not be mirrored: --set augmentation.flip=false." if look.has_sign_labels else ""
    return Choice("small", f"{_seen(look)}, and no weights to start from. {_with_weights()}{mirrored}")


def _with_weights() -> str:
    return (
        "With ImageNet weights it would be probe, quicker and on photos far better: "
        "--weights imagenet fetches them, --weights FILE takes a file."
    )


def _cautions(look: Look) -> list[str]:
    """What the user should not expect."""
    said = []
    if not look.backbone and look.pictures < _WEAK:
        said.append(f"Warning: {look.pictures} pictures are very few to learn from without weights; expect little.")
    elif look.smallest < _RARE:
        said.append(f"Warning: the smallest class has only {look.smallest}; the model will be weak in it.")
    if not look.has_gpu and look.pictures > _LONG and look.cores <= 4:
        said.append(f"On {_count(look.cores, 'core')} that takes a while; --dry-run says how long, --time limits it.")
    return said


def _seen(look: Look) -> str:
    pictures = f"{_count(look.pictures, 'picture')} of {_count(look.classes, 'class')}"
    return f"{pictures}, their shorter side about {look.side} pixels" if look.side else pictures


def _count(number: int, noun: str) -> str:
    ending = "" if number == 1 else ("es" if noun.endswith("s") else "s")
    return f"{number:,} {noun}{ending}"
