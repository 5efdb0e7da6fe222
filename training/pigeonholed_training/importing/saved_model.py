"""The folder of a SavedModel: a graph without layers, which OpenVINO converts as it is and alone can serve."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pigeonholed import bundle as bundles
from pigeonholed.classifying.keras import import_keras
from pigeonholed.classifying.openvino import convert, import_openvino
from pigeonholed_training.errors import Misconfigured
from pigeonholed_training.importing.original import Ending, check_shapes, unanswered

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from pigeonholed.bundle import Input
    from pigeonholed_training.importing.rules import Rule

_ENDS: dict[str, Ending] = {"Softmax": "softmax", "SoftMax": "softmax", "Sigmoid": "sigmoid"}


class SavedModel:
    """One signature of a SavedModel; see `Original`."""

    kind = "saved_model"
    network: Literal["keras", "openvino"] = "openvino"
    scales_itself: bool | None = None

    def __init__(self, path: Path, loaded: Any, signature: Any) -> None:
        self._path = path
        self._loaded = loaded  # it holds the variables
        self._signature = signature
        ((self._name, self._spec),) = signature.structured_input_signature[1].items()
        ((_, given),) = signature.structured_outputs.items()
        _, self.height, self.width, _ = self._spec.shape.as_list()
        self.units = int(given.shape[-1])
        self.ending: Ending = _ENDS.get(_end(self._converted(_call(signature, self._name, self._spec))), "other")

    @classmethod
    def load(cls, path: Path) -> SavedModel:
        """Loads a folder.

        Raises:
            Misconfigured: of TensorFlow 1, without a signature, damaged, or no classifier of colour pictures.
        """
        import_keras()  # TensorFlow starts quietly
        import tensorflow as tf

        _refuse_the_first_tensorflow(path)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                loaded = tf.saved_model.load(str(path))
        # TensorFlow answers a damaged folder with errors of many kinds.
        except Exception as fault:
            raise Misconfigured(f"Cannot import {path}: TensorFlow cannot load it ({type(fault).__name__}).") from fault
        signatures = dict(loaded.signatures)
        signature = signatures.get("serving_default") or signatures.get("serve")
        if signature is None:
            raise Misconfigured(
                f"Cannot import {path}: it has no signature to serve; save it with model.export('FOLDER')."
            )
        inputs, outputs = signature.structured_input_signature[1], signature.structured_outputs
        if len(inputs) != 1 or len(outputs) != 1:
            raise Misconfigured(
                f"Cannot import {path}: it has {len(inputs)} inputs and {len(outputs)} outputs; a classifier of "
                "pictures has one of each."
            )
        ((_, taken),), ((_, given),) = inputs.items(), outputs.items()
        if taken.shape.rank is None or given.shape.rank is None:
            raise Misconfigured(f"Cannot import {path}: it does not say what shape its input and output have.")
        check_shapes(path, tuple(taken.shape.as_list()), tuple(given.shape.as_list()))
        return cls(path, loaded, signature)

    def answer(self, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """See `Original.answer`."""
        import tensorflow as tf

        try:
            given = self._signature(**{self._name: tf.cast(tf.constant(inputs), self._spec.dtype)})
        # Whatever its operations raise, they say that they do not take these pictures.
        except Exception as fault:
            raise unanswered(self._path, inputs, fault) from fault
        return np.asarray(next(iter(given.values())).numpy(), np.float32)

    def write(self, staging: Path, wanted: Input, rule: Rule, *, bare: bool) -> None:
        """See `Original.write`."""
        import tensorflow as tf

        signature, name, dtype = self._signature, self._name, self._spec.dtype

        def scores(pixels: Any) -> Any:
            scaled = tf.cast(pixels, tf.float32) * np.array(rule.scale, np.float32) + np.array(rule.offset, np.float32)
            ordered = tf.reverse(scaled, [-1]) if rule.bgr else scaled
            return next(iter(signature(**{name: tf.cast(ordered, dtype)}).values()))

        spec = tf.TensorSpec((None, wanted.height, wanted.width, 3), tf.uint8, name="pixels")
        network = self._converted(tf.function(scores, input_signature=[spec]).get_concrete_function())
        network.reshape([-1, wanted.height, wanted.width, 3])
        if bare:
            network = _without_end(network)
        folder = staging / bundles.OPENVINO_FOLDER
        folder.mkdir(parents=True)
        import_openvino().save_model(network, folder / "model.xml", compress_to_fp16=False)

    def _converted(self, function: Any) -> Any:
        """An OpenVINO model with one output."""
        ov = import_openvino()
        try:
            found = convert(function)
        # Not all of its failures are a RuntimeError: OpConversionFailure is none.
        except Exception as fault:
            raise Misconfigured(f"Cannot import {self._path}: {unconverted(fault)}.") from fault
        return ov.Model([found.outputs[0].get_node()], found.get_parameters(), "network")


def unconverted(fault: Exception) -> str:
    """What OpenVINO could not do, as the end of a sentence."""
    named = re.search(r"No conversion rule found for operations: (.*)", str(fault))
    if named is None:
        return "OpenVINO cannot convert it"
    augmenting = "ImageProjectiveTransform" in named[1] or "Random" in named[1]
    hint = "; leave layers that augment pictures out of what you export" if augmenting else ""
    return f"OpenVINO has no equivalent of its operations {named[1].strip()[:200]}{hint}"


def _call(signature: Any, name: str, spec: Any) -> Any:
    """A function of one position, as the converter wants it."""
    import tensorflow as tf

    def call(inputs: Any) -> Any:
        return next(iter(signature(**{name: inputs}).values()))

    return tf.function(call, input_signature=[tf.TensorSpec(spec.shape, spec.dtype)]).get_concrete_function()


def _end(network: Any) -> str:
    """The type of the last operation."""
    return str(network.outputs[0].get_node().input_value(0).get_node().get_type_name())


def _without_end(network: Any) -> Any:
    """The same network, which gives what its last operation was given."""
    last = network.outputs[0].get_node().input_value(0).get_node()
    return import_openvino().Model([last.input_value(0)], network.get_parameters(), "network")


def _refuse_the_first_tensorflow(path: Path) -> None:
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from tensorflow.core.protobuf import saved_model_pb2

    content = saved_model_pb2.SavedModel()
    try:
        content.ParseFromString((path / "saved_model.pb").read_bytes())
    except (OSError, DecodeError) as fault:
        raise Misconfigured(f"Cannot import {path}: its saved_model.pb is damaged or cannot be read.") from fault
    if not any(graph.HasField("object_graph_def") for graph in content.meta_graphs):
        raise Misconfigured(
            f"Cannot import {path}: it was saved by TensorFlow 1; load it in TensorFlow 2 where it was made, and "
            "save it from there."
        )
