"""Networks that are written as a list of words, one layer after the other; `recipes.layers` has the language."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pigeonholed.classifying.keras import import_keras
from pigeonholed_training.recipes import layers as language

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pigeonholed_training.recipes.layers import Layer
    from pigeonholed_training.recipes.recipe import Stack

# The momentum of 0.99 that is usual forgets too slowly for runs of a few hundred steps.
_MOMENTUM = 0.9


def build(network: Stack, height: int, width: int, units: int) -> Any:
    """A scaling to 0 .. 1, the layers of `network`, and a dense layer of logits.

    Args:
        network: its words.
        height: pixels.
        width: pixels.
        units: number of logits.

    Returns:
        keras.Model: uint8 [N, height, width, 3] -> float32 [N, units].

    Raises:
        ValueError: as `recipes.layers.parse` and `follow`; a valid recipe has no such fault.
    """
    parsed = language.parse(network.layers)
    language.follow(parsed, height, width)  # before any memory is taken
    keras = import_keras()
    pixels = keras.Input((height, width, 3), dtype="uint8", name="pixels")
    x = keras.layers.Rescaling(1 / 255)(pixels)
    for word in parsed:
        for layer in _layers(keras.layers, word):
            x = layer(x)
    # In mixed precision too: the loss, and what is calibrated, is made of these numbers.
    return keras.Model(pixels, keras.layers.Dense(units, dtype="float32", name="logits")(x), name="stack")


def _layers(keras: Any, word: Layer) -> Iterator[Any]:
    """The one to three layers of Keras that a word stands for; `keras` is `keras.layers`."""
    if word.kind in ("conv", "sep-conv", "dense"):
        yield _learning(keras, word)
    elif word.kind in ("max-pool", "avg-pool"):
        pool = keras.MaxPooling2D if word.kind == "max-pool" else keras.AveragePooling2D
        yield pool(word.kernel, word.stride or word.kernel, word.padding)
    elif word.kind == "dropout":
        yield keras.Dropout(word.share)
    elif word.kind == "activation":
        yield keras.Activation(word.activation)
    elif word.kind == "batch-norm":
        yield keras.BatchNormalization(momentum=_MOMENTUM)
    else:
        plain = {
            "flatten": keras.Flatten,
            "global-pool": keras.GlobalAveragePooling2D,
            "global-max-pool": keras.GlobalMaxPooling2D,
        }
        yield plain[word.kind]()
    if word.bn:
        yield keras.BatchNormalization(momentum=_MOMENTUM)
        yield keras.Activation(word.activation)


def _learning(keras: Any, word: Layer) -> Any:
    """With batch normalisation behind it, bias and activation are left to that."""
    settings = {"use_bias": not word.bn, "activation": None if word.bn else word.activation}
    if word.kind == "dense":
        return keras.Dense(word.size, **settings)
    convolution = keras.Conv2D if word.kind == "conv" else keras.SeparableConv2D
    return convolution(word.size, word.kernel, strides=word.stride, padding=word.padding, **settings)
