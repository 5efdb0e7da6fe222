r"""The words of which a `stack` network is written, one layer a word, from pictures to the last layer but one.

    conv N          N filters over 3x3 pixels, then relu
    sep-conv N      the same as a depthwise-separable convolution: far fewer weights
    max-pool [K]    the largest of each KxK pixels, 2x2 unless said
    avg-pool [K]    their mean
    dense N         N units, then relu
    batch-norm      batch normalisation
    dropout P       drops a share P of the numbers while training
    flatten         from a map of pixels to a list of numbers; `dense` needs that or
    global-pool     the mean of each map; global-max-pool: its largest
    relu            an activation alone; also gelu, silu and others

After a word may stand, in any order: `kernel 5` or `kernel 5x3` (height x width), `stride 2`, `same` (the picture is
padded and keeps its size) or `valid` (it is not, and shrinks; as in Keras this is what happens unless said), `bn`
(batch normalisation between layer and activation; the layer then has no bias), and an activation, `linear` for none.
So "conv 32 same bn gelu" is a convolution, batch normalisation and GELU. The first layer of all is always a scaling of
pixels to 0 .. 1, and the last a dense layer with one logit a class; neither is written down.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pigeonholed_training.recipes.wording import nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MOST_WEIGHTS = 500_000_000
MOST_NUMBERS = 64_000_000  # of one picture between two layers: 256 MB in f32
MOST_UNITS = 65_536  # what `classifying.allowlist` lets a published network have

ACTIVATIONS = ("relu", "gelu", "silu", "mish", "elu", "selu", "leaky-relu", "relu6", "tanh", "sigmoid", "linear")
_CONV = frozenset({"kernel", "stride", "padding", "bn", "activation"})
_POOL = frozenset({"kernel", "stride", "padding"})
_OPTIONS: dict[str, frozenset[str]] = {
    "conv": _CONV,
    "sep-conv": _CONV,
    "max-pool": _POOL,
    "avg-pool": _POOL,
    "dense": frozenset({"bn", "activation"}),
    "batch-norm": frozenset(),
    "dropout": frozenset(),
    "flatten": frozenset(),
    "global-pool": frozenset(),
    "global-max-pool": frozenset(),
}
_ON_MAPS = frozenset({"conv", "sep-conv", "max-pool", "avg-pool", "global-pool", "global-max-pool", "flatten"})

Shape = tuple[int, ...]
"""(height, width, channels) of a map of pixels, or (numbers,) once it is flat."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One word, read.

    Attributes:
        text: as it was written.
        place: its number in the list, from 1.
        kind: `conv`, `max-pool`, ...; `activation` where one stands alone.
        size: filters or units; 0 where there are none.
        share: of `dropout`.
        kernel: (height, width) of a convolution or pool, in pixels.
        stride: pixels in both directions; 0 is as wide as the kernel, for pools.
        padding: `same` or `valid`.
        bn: whether batch normalisation stands before the activation.
        activation: one of `ACTIVATIONS`, as Keras spells it.
    """

    text: str
    place: int
    kind: str
    size: int = 0
    share: float = 0.0
    kernel: tuple[int, int] = (3, 3)
    stride: int = 1
    padding: str = "valid"
    bn: bool = False
    activation: str = "linear"

    def fault(self, problem: str) -> ValueError:
        """What is wrong with it, as part of a sentence."""
        return ValueError(f"layer {self.place}, {self.text[:60]!a}: {problem}")


def parse(words: Sequence[str]) -> tuple[Layer, ...]:
    """The layers that `words` describe.

    Raises:
        ValueError: a word is unknown, lacks its number or has one that cannot be; the message is one clause that names
            word and place and, where one is close, the word that was meant.
    """
    return tuple(_layer(text, place) for place, text in enumerate(words, start=1))


def follow(layers: Iterable[Layer], height: int, width: int) -> tuple[Shape, int]:
    """Shape behind the last of `layers` and number of weights in all of them, before any memory is taken.

    Raises:
        ValueError: a layer cannot stand where it stands, the picture has become smaller than what a layer takes, the
            end is not flat, or the network would be too large for any machine; one clause.
    """
    shape: Shape = (height, width, 3)
    weights = 0
    for layer in layers:
        was, shape = shape, _shape_after(layer, shape)
        more = _weights(layer, was)
        weights += more
        if weights > MOST_WEIGHTS:
            raise layer.fault(
                f"with its {more:,} weights for {_shown(was)} the network would have {weights:,}, and {MOST_WEIGHTS:,} "
                "are the most; put more pooling or global-pool before it"
            )
        if math.prod(shape) > MOST_NUMBERS:
            raise layer.fault(f"it would give {math.prod(shape):,} numbers a picture; {MOST_NUMBERS:,} are the most")
    if len(shape) != 1:
        raise ValueError("the layers must come to flatten or global-pool; after them only dense layers follow")
    return shape, weights


def _layer(text: str, place: int) -> Layer:
    words = text.casefold().split()
    head = words[0] if words else ""
    layer = Layer(text, place, head)
    if head in ACTIVATIONS and len(words) == 1:
        return replace(layer, kind="activation", activation=head.replace("-", "_"))
    if head not in _OPTIONS:
        known = [*_OPTIONS, *ACTIVATIONS]
        raise layer.fault(f"there is no layer {head!a}{nearest(head, known)}")
    if head in ("conv", "sep-conv", "dense"):
        layer = replace(layer, size=_number(layer, words[1:], "filters" if head != "dense" else "units", MOST_UNITS))
        layer = replace(layer, activation="relu")
        rest = words[2:]
    elif head == "dropout":
        layer, rest = replace(layer, share=_share(layer, words[1:])), words[2:]
    elif head in ("max-pool", "avg-pool"):
        layer, rest = replace(layer, kernel=(2, 2), stride=0), words[1:]
        if rest and rest[0][0].isdigit():
            rest = ["kernel", *rest]
    else:
        rest = words[1:]
    return _with_options(layer, rest)


def _with_options(layer: Layer, words: list[str]) -> Layer:
    """The layer with what stands after its name and number."""
    allowed = _OPTIONS[layer.kind]
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        if word == "kernel" and word in allowed:
            layer = replace(layer, kernel=_kernel(layer, waiting))
            waiting.pop(0)
        elif word == "stride" and word in allowed:
            layer = replace(layer, stride=_number(layer, waiting, "pixels after stride", 64))
            waiting.pop(0)
        elif word in ("same", "valid") and "padding" in allowed:
            layer = replace(layer, padding=word)
        elif word == "bn" and word in allowed:
            layer = replace(layer, bn=True)
        elif word in ACTIVATIONS and "activation" in allowed:
            layer = replace(layer, activation=word.replace("-", "_"))
        else:
            spelled = {"padding": ("same", "valid"), "activation": ACTIVATIONS}
            known = [one for option in sorted(allowed) for one in spelled.get(option, (option,))]
            meant = nearest(word, known) if known else "; nothing may follow there"
            raise layer.fault(f"{word!a} cannot stand after {layer.kind}{meant}")
    return layer


def _number(layer: Layer, words: list[str], what: str, most: int) -> int:
    """The whole number that `words` begin with."""
    if words and re.fullmatch("[0-9]{1,9}", words[0]) and 1 <= int(words[0]) <= most:
        return int(words[0])
    given = f", not {words[0]!a}" if words else ""
    raise layer.fault(f"{layer.kind} needs a number of {what} from 1 to {most:,}{given}")


def _share(layer: Layer, words: list[str]) -> float:
    if words and re.fullmatch(r"0?\.[0-9]+|0", words[0]):
        return float(words[0])
    given = f", not {words[0]!a}" if words else ""
    raise layer.fault(f"dropout needs a share from 0 to below 1, such as dropout 0.25{given}")


def _kernel(layer: Layer, words: list[str]) -> tuple[int, int]:
    match = re.fullmatch("([0-9]{1,2})(?:x([0-9]{1,2}))?", words[0]) if words else None
    kernel = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if min(kernel) < 1:
        given = f", not {words[0]!a}" if words else ""
        raise layer.fault(f"a kernel is one number of pixels or two, such as 3 or 3x3{given}")
    return kernel


def _shape_after(layer: Layer, shape: Shape) -> Shape:
    if layer.kind in _ON_MAPS and len(shape) != 3:
        raise layer.fault(f"{layer.kind} works on maps of pixels and cannot stand after flatten or global-pool")
    if layer.kind == "dense":
        if len(shape) != 1:
            raise layer.fault("dense needs flatten or global-pool before it")
        return (layer.size,)
    if layer.kind == "flatten":
        return (math.prod(shape),)
    if layer.kind in ("global-pool", "global-max-pool"):
        return (shape[2],)
    if layer.kind not in _ON_MAPS:
        return shape
    strides = (layer.stride, layer.stride) if layer.stride else layer.kernel
    if layer.padding == "same":
        height, width = (-(-side // stride) for side, stride in zip(shape[:2], strides, strict=True))
    else:
        height, width = (
            (side - kernel) // stride + 1 for side, kernel, stride in zip(shape[:2], layer.kernel, strides, strict=True)
        )
    if min(height, width) < 1:
        raise layer.fault(
            f"it takes {layer.kernel[0]}x{layer.kernel[1]} pixels, and of the picture only {shape[0]}x{shape[1]} are "
            "left there; give larger pictures (height, width), fewer layers, or the word same"
        )
    return height, width, layer.size or shape[2]


def _weights(layer: Layer, shape: Shape) -> int:
    """Of one layer that is given `shape`; batch normalisation has four a channel."""
    taken, size = shape[-1], layer.size
    if layer.kind == "batch-norm":
        return 4 * taken
    each = size * (4 if layer.bn else 1)
    if layer.kind == "conv":
        return math.prod(layer.kernel) * taken * size + each
    if layer.kind == "sep-conv":
        return math.prod(layer.kernel) * taken + taken * size + each
    return taken * size + each if layer.kind == "dense" else 0


def _shown(shape: Shape) -> str:
    return f"{shape[0]:,} numbers" if len(shape) == 1 else f"{shape[0]}x{shape[1]}x{shape[2]} numbers"
