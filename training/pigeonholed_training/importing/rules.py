"""How pixels were scaled for a network before it was trained: the rule that an import builds into it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

Numbers = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Rule:
    """Each channel of RGB is multiplied and moved; then the channels are perhaps put in the order BGR.

    Attributes:
        name: as `--pixels` has it.
        scale: of red, green and blue.
        offset: added after that.
        bgr: whether the network wants blue first.
        meaning: in a few words.
    """

    name: str
    scale: Numbers
    offset: Numbers
    bgr: bool
    meaning: str

    def apply(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """What the network is given for pixels uint8 RGB [N, H, W, 3]."""
        scaled = pixels * np.array(self.scale, np.float32) + np.array(self.offset, np.float32)
        return np.ascontiguousarray(scaled[..., ::-1] if self.bgr else scaled, np.float32)

    def layers(self, keras: Any, pixels: Any) -> Any:
        """The same as layers on a symbolic uint8 tensor."""
        scaled = keras.layers.Rescaling(list(self.scale), list(self.offset), name="scale_pixels")(pixels)
        return swap_channels(keras, scaled, "to_bgr") if self.bgr else scaled


def swap_channels(keras: Any, x: Any, name: str) -> Any:
    """RGB becomes BGR by a frozen 1x1 convolution, which unlike a slice is a layer."""
    swap = keras.layers.Conv2D(3, 1, use_bias=False, name=name)
    y = swap(x)
    swap.set_weights([np.eye(3, dtype=np.float32)[::-1].reshape(1, 1, 3, 3)])
    swap.trainable = False
    return y


def _standardised(mean: Numbers, deviation: Numbers) -> Rule:
    """Mean 0 and deviation 1 of ImageNet's pixels, which are given for 0..1."""
    red, green, blue = deviation
    return Rule(
        name="torch",
        scale=(1 / (255 * red), 1 / (255 * green), 1 / (255 * blue)),
        offset=(-mean[0] / red, -mean[1] / green, -mean[2] / blue),
        bgr=False,
        meaning="mean and deviation of ImageNet",
    )


_ONES = (1.0, 1.0, 1.0)
_ZEROS = (0.0, 0.0, 0.0)

# The last two as in keras.applications.imagenet_utils.preprocess_input, modes torch and caffe.
RULES = (
    Rule("0..255", _ONES, _ZEROS, False, "as they are; the model scales them itself"),
    Rule("0..1", (1 / 255,) * 3, _ZEROS, False, "divided by 255"),
    Rule("-1..1", (1 / 127.5,) * 3, (-1.0,) * 3, False, "divided by 127.5, minus 1"),
    _standardised((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    Rule("caffe", _ONES, (-123.68, -116.779, -103.939), True, "blue first, minus the mean of ImageNet"),
)
NAMES = tuple(rule.name for rule in RULES)


def named(name: str) -> Rule:
    """The rule of that name, one of `NAMES`."""
    return next(rule for rule in RULES if rule.name == name)
