"""Keras on any of its backends, on the GPU where there is one; TensorFlow is imported here and nowhere else."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pigeonholed.bundle import BundleError
from pigeonholed.classifying import allowlist
from pigeonholed.classifying.batched import Network

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from pigeonholed.bundle import Input


_GREETINGS = (b"I0000", b"WARNING: All log messages before absl::InitializeLog()")


def import_keras() -> Any:
    """The `keras` package, with a quiet TensorFlow below unless the environment chooses another backend."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "keras" in sys.modules:
        import keras

        return keras
    with _without_greetings():
        import keras

        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            tf.config.list_physical_devices()  # the last greeting comes with the first look for devices
    return keras


@contextlib.contextmanager
def _without_greetings() -> Iterator[None]:
    """Keeps what TensorFlow says of itself at every start off stderr; all else is passed on afterwards.

    Its native code writes to the descriptor before its log level is in force, so no setting reaches those lines.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            caught.seek(0)
            for line in caught:
                if not line.startswith(_GREETINGS):
                    os.write(2, line)


def load(data: bytes, wanted: Input, where: Path, *, device: str = "cpu") -> Network:
    """Loads a `.keras` file and compiles one function from it.

    Args:
        data: content of `model.keras`.
        wanted: the input that the network must have.
        where: the bundle, for messages.
        device: `cpu`, or `gpu`: the first GPU if TensorFlow finds one (see the result), else the CPU.

    Raises:
        BundleError: not in our allow-list, refused by Keras, or its input does not fit the manifest.
    """
    keras = import_keras()
    found = _prepare_device(keras, device)
    model = load_model(data, where)
    shape = getattr(model, "input_shape", None)
    if not isinstance(shape, tuple) or shape[1:] != (wanted.height, wanted.width, 3):
        raise BundleError(f"The Keras network at {where} does not take the pixels that its manifest says.")
    if keras.backend.backend() != "tensorflow":
        return Network("keras", found, "f32", lambda batch: _run_eagerly(keras, model, batch))
    function = compiled(model, wanted)
    return Network("keras", found, "f32", lambda batch: np.asarray(function(batch), np.float32))


def load_model(data: bytes, where: Path) -> Any:
    """A `keras.Model` from the bytes of a `.keras` file, after our own check of them.

    The file that Keras opens is a private copy of the very bytes that were checked.

    Raises:
        BundleError: not in our allow-list, or refused by Keras.
    """
    allowlist.check(data, where)
    allowlist.check_weights(data, where)
    keras = import_keras()
    with tempfile.TemporaryDirectory(prefix="pigeonholed-") as folder:
        path = Path(folder, "model.keras")
        path.write_bytes(data)
        try:
            return keras.saving.load_model(path, compile=False, safe_mode=True)
        # Keras answers a malformed file with whatever its layers raise; each of them means the same to us.
        except Exception as fault:
            raise BundleError(f"Keras cannot load the network at {where}: {type(fault).__name__}.") from fault


def compiled(model: Any, wanted: Input) -> Any:
    """One `tf.function` of a model: uint8 [N, H, W, 3] -> scores [N, K]; traced once, for every N.

    `training=False` is not left to Keras: a network with augmentation layers would otherwise run those when it is
    called directly, and move the statistics of its batch normalisation.
    """
    import tensorflow as tf

    pixels = tf.TensorSpec((None, wanted.height, wanted.width, 3), tf.uint8, name="pixels")
    return tf.function(lambda batch: model(batch, training=False), input_signature=[pixels])


def _run_eagerly(keras: Any, model: Any, batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Other backends: the plain call."""
    return np.asarray(keras.ops.convert_to_numpy(model(batch, training=False)), np.float32)


def _prepare_device(keras: Any, device: str) -> str:
    """Chooses what TensorFlow sees, and returns the device that it will use."""
    if keras.backend.backend() != "tensorflow":
        return device
    import tensorflow as tf

    found = tf.config.list_physical_devices("GPU")
    # Both calls are refused once TensorFlow has started on its devices: a second model in the same process.
    with contextlib.suppress(RuntimeError):
        if device == "cpu":
            tf.config.set_visible_devices([], "GPU")
        for gpu in found if device == "gpu" else []:
            tf.config.experimental.set_memory_growth(gpu, True)  # else it takes all memory at once
    return "gpu" if found and device == "gpu" else "cpu"
