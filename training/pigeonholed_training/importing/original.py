"""The user's model as it is, whatever it is stored as: what every import asks of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from pigeonholed_training.errors import Misconfigured, WrongUsage

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt

    from pigeonholed.bundle import Input
    from pigeonholed_training.importing.rules import Rule

Ending = Literal["softmax", "sigmoid", "other"]
"""The last operation of a network."""

CHUNK = 64  # pictures that are asked about at once
_HDF5 = b"\x89HDF\r\n\x1a\n"
_HINTS = {
    ".tflite": "a TensorFlow Lite file",
    ".onnx": "an ONNX file",
    ".pt": "a PyTorch file",
    ".pth": "a PyTorch file",
    ".pb": "a bare graph; give the folder that it is in, if that is a SavedModel",
    ".json": "only the description of a network",
    ".pkl": "a pickle",
}


class Original(Protocol):
    """A loaded classifier.

    Attributes:
        kind: `keras`, `h5` or `saved_model`.
        height: of its input in pixels; None where it takes any.
        width: likewise.
        units: numbers that it gives a picture.
        ending: its last operation.
        scales_itself: whether it begins by scaling pixels; None where that cannot be seen.
        network: what its bundle will hold: `keras` and an export, or `openvino` alone.
    """

    kind: str
    height: int | None
    width: int | None
    units: int
    ending: Ending
    scales_itself: bool | None
    network: Literal["keras", "openvino"]

    def answer(self, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """What it gives, float32 [N, units], for scaled pictures float32 [N, H, W, 3]; N is at most `CHUNK`.

        Raises:
            Misconfigured: it does not take pictures of that size.
        """
        ...

    def write(self, staging: Path, wanted: Input, rule: Rule, *, bare: bool) -> None:
        """Puts the network for uint8 RGB into a bundle, as each runtime needs it. The last thing that is asked of it.

        Args:
            staging: the folder of the bundle.
            wanted: its pixels.
            rule: built into it.
            bare: without its final softmax or sigmoid.

        Raises:
            Misconfigured: it has parts that cannot be served.
        """
        ...


def load(path: Path) -> Original:
    """Loads a model, which may run code that is in it.

    Raises:
        WrongUsage: there is nothing at `path`.
        Misconfigured: it is no model, or none that classifies colour pictures.
    """
    from pigeonholed_training.importing.keras_model import KerasModel
    from pigeonholed_training.importing.saved_model import SavedModel

    kind = kind_of(path)
    return SavedModel.load(path) if kind == "saved_model" else KerasModel.load(path, kind)


def kind_of(path: Path) -> str:
    """`keras`, `h5` or `saved_model`, by content.

    Raises:
        WrongUsage: there is nothing at `path`.
        Misconfigured: it is something else.
    """
    wanted = "give a .keras file, an .h5 file of a whole model, or the folder of a SavedModel"
    if path.is_dir():
        if (path / "saved_model.pb").is_file():
            return "saved_model"
        raise Misconfigured(f"Cannot import {path}: this folder holds no saved_model.pb; {wanted}.")
    try:
        with open(path, "rb") as stream:
            head = stream.read(8)
    except FileNotFoundError as fault:
        raise WrongUsage(f"Cannot import {path}: there is no such file or folder.") from fault
    except OSError as fault:
        raise Misconfigured(f"Cannot import {path}: {fault.strerror}.") from fault
    if head == _HDF5:
        return "h5"
    if head.startswith(b"PK"):
        return "keras"
    what = _HINTS.get(path.suffix.lower(), "no model that Keras knows")
    raise Misconfigured(f"Cannot import {path}: it is {what}; {wanted}.")


def check_shapes(path: Path, inputs: Sequence[int | None], outputs: Sequence[int | None]) -> None:
    """Refuses what is no classifier of colour pictures.

    Args:
        path: for messages.
        inputs: shape of its input, batch first.
        outputs: shape of its output, batch first.

    Raises:
        Misconfigured: it is none.
    """
    if len(inputs) != 4:
        raise Misconfigured(
            f"Cannot import {path}: its input of shape {_shown(inputs)} is no picture; a classifier of pictures takes "
            "(batch, height, width, 3)."
        )
    if inputs[3] != 3:
        if inputs[1] == 3:
            fault = "it wants the channels first; convert it to channels last, (batch, height, width, 3)"
        elif inputs[3] == 1:
            fault = "it takes greyscale pictures, and pigeonholed gives colour; put a layer before it that makes grey"
        else:
            fault = "it must take the three channels of RGB last, (batch, height, width, 3)"
        raise Misconfigured(f"Cannot import {path}: {fault} (its input is {_shown(inputs)}).")
    if inputs[0] is not None:
        raise Misconfigured(
            f"Cannot import {path}: it takes exactly {inputs[0]} picture(s) at a time; save it with a batch size of "
            "None."
        )
    if len(outputs) != 2 or outputs[1] is None:
        raise Misconfigured(
            f"Cannot import {path}: its output of shape {_shown(outputs)} is not one row of numbers a picture, so it "
            "does not tell classes apart."
        )


def unanswered(path: Path, inputs: npt.NDArray[np.float32], fault: Exception) -> Misconfigured:
    """What to say where a model fails on pictures float32 [N, H, W, 3]."""
    height, width = inputs.shape[1:3]
    return Misconfigured(
        f"Cannot import {path}: it fails on pictures of {height} x {width} ({type(fault).__name__}); was it trained on "
        "another --size?"
    )


def _shown(shape: Sequence[int | None]) -> str:
    return "(" + ", ".join("any" if size is None else str(size) for size in shape) + ")"
