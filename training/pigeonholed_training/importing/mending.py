"""What Keras 2 wrote into its files and Keras 3 does not read: put right before Keras sees it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


def mended(text: str) -> str:
    """The description of a network, JSON, as Keras 3 reads it.

    - `DepthwiseConv2D` has no `groups` any more; files of Teachable Machine, among many, have it (it is always 1).
    - `tf.math.truediv` and the like, which `preprocess_input` left in a network, were layers of a kind that is gone
      (`TFOpLambda`); with a plain number they are a `Rescaling`.
    """
    document = json.loads(text)
    for node in nodes(document):
        if node["class_name"] == "DepthwiseConv2D":
            node["config"].pop("groups", None)
        if node["class_name"] == "TFOpLambda":
            _mend_operation(node)
    return json.dumps(document)


def foreign_classes(document: Any, known: Any) -> list[str]:
    """Names of layers in a network's description that are not of Keras.

    Args:
        document: the parsed description.
        known: what has the layers of Keras as attributes.
    """
    found = []
    for node in nodes(document):
        name = str(node["class_name"])
        own = node.get("registered_name") not in (None, name) or (
            isinstance(node.get("module"), str) and not node["module"].startswith("keras")
        )
        is_layer = "inbound_nodes" in node or ("name" in node["config"] and "dtype" in node["config"])
        gone = (
            is_layer
            and not hasattr(known, name.rpartition(">")[2])
            and name not in ("Functional", "Model", "Sequential")
        )
        if (own or gone or name in ("Lambda", "TFSMLayer")) and name not in found:
            found.append(name)
    return found


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Every serialised object in a JSON document that has a class and a configuration."""
    stack = [value]
    while stack:
        one = stack.pop()
        if isinstance(one, dict):
            if isinstance(one.get("config"), dict) and "class_name" in one:
                yield one
            stack.extend(reversed(list(one.values())))
        elif isinstance(one, list):
            stack.extend(reversed(one))


def _mend_operation(node: dict[str, Any]) -> None:
    """`x / number`, `x * number`, `x + number`, `x - number` and a cast become a `Rescaling`; others stay."""
    inbound = node.get("inbound_nodes") or []
    if len(inbound) != 1 or not inbound[0]:
        return
    source = inbound[0][0] if isinstance(inbound[0][0], list) else inbound[0]
    if len(source) != 4:
        return
    function = node["config"].get("function")
    number = source[3].get("bias" if function == "nn.bias_add" else "y")
    scale: Any
    offset: Any
    if function == "cast":
        scale, offset = 1.0, 0.0
    elif not isinstance(number, int | float | list):
        return
    elif function == "math.truediv" and isinstance(number, int | float):
        scale, offset = 1.0 / number, 0.0
    elif function in ("math.multiply", "__operators__.mul") and isinstance(number, int | float):
        scale, offset = float(number), 0.0
    elif function == "math.subtract" and isinstance(number, int | float):
        scale, offset = 1.0, -float(number)
    elif function in ("__operators__.add", "math.add", "nn.bias_add"):
        scale, offset = 1.0, number
    else:
        return
    node["class_name"] = "Rescaling"
    # Without the dtype that is written there: that of a cast would be that of its input.
    node["config"] = {"name": node["config"]["name"], "scale": scale, "offset": offset}
    # Keras 3 reads the form that layers have, with one more pair of brackets than functions had.
    node["inbound_nodes"] = [[[*source[:3], {}]]]
