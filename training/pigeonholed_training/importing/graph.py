"""The layers of a loaded Keras model, laid out anew: flat, behind the pixels of a bundle, perhaps without its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pigeonholed_training.importing.rules import swap_channels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pigeonholed.bundle import Input
    from pigeonholed_training.importing.original import Ending
    from pigeonholed_training.importing.rules import Rule

_ENDS: dict[str, Ending] = {"softmax": "softmax", "sigmoid": "sigmoid"}
_LEARNT = ("Conv2D", "DepthwiseConv2D", "SeparableConv2D", "Dense")  # where pixels have become features
_SCALING = ("Rescaling", "Normalization", "TrueDivide", "Subtract", "Add", "GetItem")  # the last: BGR of RGB


class Unsupported(Exception):
    """The network has a part that no bundle can hold; the message is the rest of a sentence."""


def is_made_of_layers(model: Any) -> bool:
    """Whether its parts are known to Keras as a graph, and its input has been fixed."""
    return type(model).__name__ in ("Sequential", "Functional", "Model") and bool(getattr(model, "inputs", None))


def ending_of(model: Any) -> Ending:
    """The last operation of a model."""
    last = _last(model)
    if _ends_by_itself(last):
        return _ENDS[_word(last)]
    activation = getattr(getattr(last, "activation", None), "__name__", "")
    return _ENDS.get(activation, "other")


def begins_by_scaling(model: Any) -> bool:
    """Whether pixels are scaled or normalised before the first layer that was learnt."""
    for operation in _operations(model):
        if type(operation).__name__ in _LEARNT:
            return False
        if type(operation).__name__ in _SCALING:
            return True
    return False


def for_bundle(keras: Any, model: Any, wanted: Input, rule: Rule, *, bare: bool) -> Any:
    """A functional model from uint8 RGB [N, H, W, 3] to the scores of `model`, in one level.

    The layers are those of `model`, and one of them is changed where `bare` asks for it: `model` is not to be used
    afterwards.

    Args:
        keras: the package.
        model: functional or sequential, with one input and one output.
        wanted: the pixels.
        rule: how they are scaled first.
        bare: without the final softmax or sigmoid.

    Raises:
        Unsupported: it has an operation that is no layer.
        ValueError: it does not take pictures of that size.
    """
    last: Any = _last(model) if bare else None
    if bare and not _ends_by_itself(last):
        last.activation = keras.activations.linear
    pixels = keras.Input((wanted.height, wanted.width, 3), dtype="uint8", name="pixels")
    scores = _Layout(keras, last).through(model, rule.layers(keras, pixels))
    return keras.Model(pixels, scores, name="imported")


class _Layout:
    """Calls each layer of a model once more, in a graph without nesting.

    Args:
        keras: the package.
        last: an operation; it is passed by where it is nothing but an activation.
    """

    def __init__(self, keras: Any, last: Any) -> None:
        self._keras = keras
        self._last = last
        self._names: dict[str, Any] = {"pixels": None, "scale_pixels": None, "to_bgr": None}

    def through(self, model: Any, x: Any) -> Any:
        """What `model` makes of the symbolic tensor `x`."""
        if type(model).__name__ == "Sequential":
            for layer in model.layers:
                x = self._step(layer)(x)
            return x
        # What Keras itself clones models with; there is no public way to walk a graph.
        return self._keras.tree.flatten(model._run_through_graph([x], operation_fn=self._step))[0]

    def _step(self, operation: Any) -> Callable[..., Any]:
        if _is_model(operation):
            if len(operation.inputs) != 1 or len(operation.outputs) != 1:
                raise Unsupported(f"its part {operation.name!a} has several inputs or outputs")
            return lambda x, **_: self.through(operation, x)
        if operation is self._last and _ends_by_itself(operation):
            return lambda x, **_: x
        if isinstance(operation, self._keras.layers.Layer):
            self._name_apart(operation)
            step: Callable[..., Any] = operation
            return step
        return self._as_layer(operation)

    def _name_apart(self, layer: Any) -> None:
        """Layers of different nested models may share a name; in one level they must not."""
        if self._names.setdefault(layer.name, layer) is not layer:
            number = 1
            while f"{layer.name}_{number}" in self._names:
                number += 1
            layer.name = f"{layer.name}_{number}"
            self._names[layer.name] = layer

    def _as_layer(self, operation: Any) -> Callable[..., Any]:
        """Arithmetic with a constant, as `preprocess_input` leaves it behind, by layers that a bundle may hold."""
        kind, name = type(operation).__name__, operation.name

        def call(x: Any, *others: Any, **options: Any) -> Any:
            if kind == "GetItem" and len(others) == 1 and _channel(others[0]) is not None:
                return _Channel(x, _channel(others[0]))
            if kind == "Stack" and _is_reversed(x):
                return swap_channels(self._keras, x[0].of, name)
            if len(others) == 1 and not isinstance(others[0], self._keras.KerasTensor):
                return self._rescaling(name, kind, np.asarray(others[0], float))(x)
            if kind in ("Add", "Multiply", "Subtract") and len(others) == 1:
                return operation(x, *others, **options)  # of two tensors: the allow-list has these
            raise Unsupported(f"its operation {name!a} ({kind}) is no layer")

        return call

    def _rescaling(self, name: str, kind: str, number: Any) -> Any:
        if number.size not in (1, 3):
            raise Unsupported(f"its operation {name!a} ({kind}) is no layer")
        one, zero = np.ones_like(number), np.zeros_like(number)
        arithmetic = {
            "TrueDivide": (1.0 / number if number.all() else one, zero),
            "Divide": (1.0 / number if number.all() else one, zero),
            "Multiply": (number, zero),
            "Add": (one, number),
            "Subtract": (one, -number),
        }
        if kind not in arithmetic:
            raise Unsupported(f"its operation {name!a} ({kind}) is no layer")
        scale, offset = (part.reshape(-1).tolist() for part in arithmetic[kind])
        plain = number.size == 1
        return self._keras.layers.Rescaling(
            scale[0] if plain else scale, offset[0] if plain else offset, name=f"{name}_constant"
        )


@dataclass(frozen=True)
class _Channel:
    """One channel of a picture, on its way to be stacked in another order."""

    of: Any
    number: Any


def _channel(key: Any) -> int | None:
    """The number in `x[..., number]`."""
    is_one = isinstance(key, tuple | list) and len(key) == 2 and key[0] is Ellipsis and isinstance(key[1], int)
    return key[1] if is_one else None


def _is_reversed(parts: Any) -> bool:
    """Whether these are the channels of one picture in the order BGR."""
    if not isinstance(parts, tuple | list) or not all(isinstance(part, _Channel) for part in parts):
        return False
    return [part.number for part in parts] == [2, 1, 0] and all(part.of is parts[0].of for part in parts)


def _is_model(operation: Any) -> bool:
    return type(operation).__name__ in ("Functional", "Sequential", "Model") and hasattr(operation, "layers")


def _last(model: Any) -> Any:
    """The operation that makes the output, inside nested models too."""
    operation = model.layers[-1] if type(model).__name__ == "Sequential" else model.outputs[0]._keras_history.operation
    return _last(operation) if _is_model(operation) else operation


def _operations(model: Any) -> Iterator[Any]:
    """All operations, in the order in which they run."""
    for operation in model.layers if type(model).__name__ == "Sequential" else model.operations:
        if _is_model(operation):
            yield from _operations(operation)
        else:
            yield operation


def _word(operation: Any) -> str:
    """The function that a bare activation is."""
    if type(operation).__name__ == "Activation":
        return str(getattr(operation.activation, "__name__", ""))
    return type(operation).__name__.lower()


def _ends_by_itself(operation: Any) -> bool:
    """Whether an operation is nothing but a softmax or sigmoid, as a layer or a function."""
    return type(operation).__name__ in ("Activation", "Softmax", "Sigmoid") and _word(operation) in _ENDS
