"""Networks of convolution groups: each halves the picture's sides, then thinks about what is left.

A stem; then, for each width, a convolution with max pooling and `depth - 1` convolutions more, 3x3, batch normalisation
and an activation after each; last a pooling over the whole map and a dense layer of logits.

Without `residual` it is the network of K. Jordan, "94% on CIFAR-10 in 3.29 Seconds" (arXiv 2404.00498, 2024), section
3.1: plain groups, batch normalisation without scales, the largest of each map, and logits made smaller before the
softmax, which lets rates be high. Its whitened stem, identity-like filters at the start and GELU are left out: over
whole trainings they gained less here than the same time spent on more epochs, and GELU takes twice the time on a CPU.
With `residual` each group after its pooling is a block of K. He and others, "Deep Residual Learning for Image
Recognition" (arXiv 1512.03385, 2015), whose last scale begins at zero (Goyal and others, arXiv 1706.02677, section
5.1), so that at first each group does no more than its first convolution.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pigeonholed.classifying.keras import import_keras

if TYPE_CHECKING:
    from pigeonholed_training.recipes.recipe import Groups

# The momentum of 0.99 that is usual forgets too slowly for runs of a few thousand steps.
_MOMENTUM = 0.9
# About what pictures of all kinds have: mean 0.48 and deviation 0.25 of a range of 0 .. 1.
_MEAN, _DEVIATION = 0.48, 0.25


def build(network: Groups, height: int, width: int, units: int) -> Any:
    """A scaling to about zero mean and unit deviation, the stem, the groups, and a dense layer of logits.

    Args:
        network: widths, depth and the rest; its `check` has let the picture's size pass.
        height: pixels.
        width: pixels.
        units: number of logits.

    Returns:
        keras.Model: uint8 [N, height, width, 3] -> float32 [N, units].
    """
    keras = import_keras()
    layers = keras.layers
    pixels = keras.Input((height, width, 3), dtype="uint8", name="pixels")
    x = layers.Rescaling(1 / (255 * _DEVIATION), offset=-_MEAN / _DEVIATION)(pixels)
    # Not normalised: that costs as much time as the convolution, on the largest map of all.
    x = _convolution(layers, network.stem, network.stem_kernel, network.stem_stride, use_bias=True)(x)
    x = layers.Activation(network.activation)(x)
    for filters in network.widths:
        x = _group(layers, network, x, filters)
    x = layers.GlobalMaxPooling2D()(x) if network.pool == "max" else layers.GlobalAveragePooling2D()(x)
    if network.dropout:
        x = layers.Dropout(network.dropout)(x)
    if network.logit_scale != 1:
        x = layers.Rescaling(network.logit_scale)(x)
    # In mixed precision too: the loss, and what is calibrated, is made of these numbers.
    return keras.Model(pixels, layers.Dense(units, dtype="float32", name="logits")(x), name="groups")


def _group(layers: Any, network: Groups, x: Any, filters: int) -> Any:
    """Half the sides, `filters` channels."""
    x = _convolution(layers, filters)(x)
    x = layers.MaxPooling2D()(x)  # before what follows: the same result as after it, for a quarter of the work
    x = _normalised(layers, network, x)
    before = x
    for number in range(1, network.depth):
        x = _convolution(layers, filters)(x)
        if network.residual and number == network.depth - 1:
            x = layers.BatchNormalization(momentum=_MOMENTUM, gamma_initializer="zeros")(x)
            return layers.Activation(network.activation)(layers.Add()([before, x]))
        x = _normalised(layers, network, x)
    return x


def _convolution(layers: Any, filters: int, kernel: int = 3, stride: int = 1, *, use_bias: bool = False) -> Any:
    return layers.Conv2D(
        filters, kernel, strides=stride, padding="same", use_bias=use_bias, kernel_initializer="he_normal"
    )


def _normalised(layers: Any, network: Groups, x: Any) -> Any:
    """Batch normalisation and the activation."""
    # Where nothing is added to a branch, ReLU and the next normalisation make its scale superfluous.
    x = layers.BatchNormalization(momentum=_MOMENTUM, scale=network.residual)(x)
    return layers.Activation(network.activation)(x)
