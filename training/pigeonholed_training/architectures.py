"""Networks: each takes uint8 RGB pictures, scales them itself and gives one logit a class.

Only layers of the serving allow-list: no Lambda, no custom class. Keras is imported when a network is made.
"""

from __future__ import annotations

from typing import Any


def small_digits(height: int, width: int, classes: int) -> Any:
    """A convolutional network of three blocks (16, 32, 64 filters), 34,000 weights at 32x32.

    Args:
        height: pixels.
        width: pixels.
        classes: number of logits.

    Returns:
        keras.Model: uint8 [N, height, width, 3] -> float32 logits [N, classes].
    """
    import keras
    from keras import layers

    pixels = keras.Input((height, width, 3), dtype="uint8", name="pixels")
    x = layers.Rescaling(1 / 255)(pixels)
    for filters in (16, 32, 64):
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        # The momentum of 0.99 that is usual forgets too slowly for runs of a few hundred steps.
        x = layers.BatchNormalization(momentum=0.9)(x)
        x = layers.ReLU()(x)
        x = layers.MaxPooling2D()(x)
    x = layers.Flatten()(x)
    x = layers.Dropout(0.3)(x)
    return keras.Model(pixels, layers.Dense(classes, name="logits")(x), name="digits")
