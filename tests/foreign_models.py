"""Models as users bring them: small, made by hand, each sure of the colours of `tiny_pictures`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from pigeonholed.classifying.keras import import_keras

LABELS = ("blue", "green", "red")
SIDE = 12
_GAIN = 40.0
_KNOTS = (0.6, 0.78, 0.96)  # a channel speaks for its class where its mean is about 0.78, and nowhere else


def head_weights(labels: tuple[str, ...] = LABELS) -> list[np.ndarray]:
    """Weights of two dense layers on the mean of each channel RGB, scaled to 0..1; another scaling knows nothing."""
    first = np.tile(np.eye(3, dtype=np.float32), 3)
    bias = -np.repeat(np.array(_KNOTS, np.float32), 3)
    votes = np.zeros((3, len(labels)), np.float32)
    for column, label in enumerate(labels):
        votes[("red", "green", "blue").index(label), column] = 1.0
    second = _GAIN * np.concatenate([votes, -2 * votes, votes])
    return [first, bias, second, np.zeros(len(labels), np.float32)]


def head(keras: Any, ending: str | None = "softmax", labels: tuple[str, ...] = LABELS) -> Any:
    """A sequential classifier of pixels 0..1 of any size."""
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            layers.GlobalAveragePooling2D(),
            layers.Dense(9, activation="relu"),
            layers.Dense(len(labels), activation=ending),
        ]
    )
    model.set_weights(head_weights(labels))
    return model


def classifier(side: int | None = SIDE, *, scaled: bool = False, **of_head: Any) -> Any:
    """A functional model around the head; `scaled`: it divides by 255 itself."""
    keras = import_keras()
    pixels = keras.Input((side, side, 3))
    x = keras.layers.Rescaling(1 / 255)(pixels) if scaled else pixels
    x = keras.layers.MaxPooling2D(1)(keras.layers.Dropout(0.5)(x))
    return keras.Model(pixels, head(keras, **of_head)(x, training=False))


def two_colours() -> Any:
    """One sigmoid unit that speaks for red, the second of blue and red."""
    keras = import_keras()
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((SIDE, SIDE, 3)), layers.GlobalAveragePooling2D(), layers.Dense(1, activation="sigmoid")]
    )
    model.set_weights([np.array([[12.0], [0.0], [-12.0]], np.float32), np.zeros(1, np.float32)])
    return model


def write_keras_2(path: Path, *, side: int = SIDE, preprocess: bool = False) -> None:
    """An `.h5` file as Keras 2 wrote it, with what Keras 3 does not read; `preprocess`: it divides by 255 itself."""
    import h5py

    first, bias, second, last = head_weights()
    ones = np.ones((1, 1, 3, 1), np.float32)
    zeros, plain = np.zeros(3, np.float32), np.ones(3, np.float32)
    weights: list[tuple[str, list[tuple[str, np.ndarray]]]] = [
        ("input_1", []),
        *([("tf.math.truediv", [])] if preprocess else []),
        ("depthwise", [("depthwise_kernel:0", ones)]),
        ("norm", [("gamma:0", plain), ("beta:0", zeros), ("moving_mean:0", zeros), ("moving_variance:0", plain)]),
        ("pool", []),
        ("dense", [("kernel:0", first), ("bias:0", bias)]),
        ("dense_1", [("kernel:0", second), ("bias:0", last)]),
    ]
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = "2.4.0"
        file.attrs["backend"] = "tensorflow"
        file.attrs["model_config"] = json.dumps(_keras_2_config(side, preprocess)).encode()
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [name.encode() for name, _ in weights]
        group.attrs["backend"] = "tensorflow"
        group.attrs["keras_version"] = "2.4.0"
        for name, values in weights:
            layer = group.create_group(name)
            layer.attrs["weight_names"] = [f"{name}/{variable}".encode() for variable, _ in values]
            for variable, value in values:
                layer.create_dataset(f"{name}/{variable}", data=value)


def _keras_2_config(side: int, preprocess: bool) -> dict[str, Any]:
    shape = [None, side, side, 3]

    def layer(kind: str, name: str, source: str | None, **config: Any) -> dict[str, Any]:
        constants = {"y": 255.0, "name": None} if kind == "TFOpLambda" else {}
        inbound = [] if source is None else [[[source, 0, 0, constants]]]
        if kind == "TFOpLambda":
            inbound = [[source, 0, 0, constants]]
        common = {"name": name, "trainable": True, "dtype": "float32"}
        return {"class_name": kind, "config": common | config, "name": name, "inbound_nodes": inbound}

    initial = {"class_name": "GlorotUniform", "config": {"seed": None}}
    layers = [
        {
            "class_name": "InputLayer",
            "config": {
                "batch_input_shape": shape,
                "dtype": "float32",
                "sparse": False,
                "ragged": False,
                "name": "input_1",
            },
            "name": "input_1",
            "inbound_nodes": [],
        }
    ]
    before = "input_1"
    if preprocess:
        layers.append(layer("TFOpLambda", "tf.math.truediv", before, function="math.truediv"))
        before = "tf.math.truediv"
    depthwise = {"kernel_size": [1, 1], "strides": [1, 1], "padding": "same", "data_format": "channels_last"}
    depthwise |= {
        "dilation_rate": [1, 1],
        "groups": 1,
        "activation": "linear",
        "use_bias": False,
        "depth_multiplier": 1,
    }
    dense = {"use_bias": True, "kernel_initializer": initial}
    layers += [
        layer("DepthwiseConv2D", "depthwise", before, **depthwise, depthwise_initializer=initial),
        layer(
            "BatchNormalization", "norm", "depthwise", axis=[3], momentum=0.99, epsilon=1e-7, center=True, scale=True
        ),
        layer("GlobalAveragePooling2D", "pool", "norm", data_format="channels_last"),
        layer("Dense", "dense", "pool", units=9, activation="relu", **dense),
        layer("Dense", "dense_1", "dense", units=3, activation="softmax", **dense),
    ]
    config = {
        "name": "model",
        "layers": layers,
        "input_layers": [["input_1", 0, 0]],
        "output_layers": [["dense_1", 0, 0]],
    }
    return {"class_name": "Functional", "config": config}
