"""`.keras` and `.h5` files: Keras loads them, and their layers become the network of a bundle."""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pigeonholed import bundle as bundles
from pigeonholed.bundle import BundleError
from pigeonholed.classifying import export
from pigeonholed.classifying.keras import import_keras
from pigeonholed_training.errors import Misconfigured, TrainingError
from pigeonholed_training.importing import graph
from pigeonholed_training.importing.mending import foreign_classes, mended
from pigeonholed_training.importing.original import Ending, check_shapes, unanswered
from pigeonholed_training.importing.saved_model import unconverted

if TYPE_CHECKING:
    import numpy.typing as npt

    from pigeonholed.bundle import Input
    from pigeonholed_training.importing.rules import Rule

_OTHER_WAY = "save it with model.export('FOLDER') where it was made, and import that folder"


class KerasModel:
    """A model of Keras' own layers; see `Original`."""

    network: Literal["keras", "openvino"] = "keras"

    def __init__(self, path: Path, kind: str, model: Any) -> None:
        self.kind = kind
        self._path = path
        self._model = model
        _, self.height, self.width, _ = model.input_shape
        self.units = int(model.output_shape[-1])
        self.ending: Ending = graph.ending_of(model)
        takes_integers = "int" in str(model.inputs[0].dtype)
        self.scales_itself: bool | None = True if takes_integers or graph.begins_by_scaling(model) else None

    @classmethod
    def load(cls, path: Path, kind: str) -> KerasModel:
        """Loads a file.

        Raises:
            Misconfigured: weights alone, layers that are not of Keras, damage, or no classifier of colour pictures.
        """
        keras = import_keras()
        description = _description(path, kind)
        with warnings.catch_warnings(), tempfile.TemporaryDirectory(prefix="pigeonholed-") as folder:
            warnings.simplefilter("ignore")  # of how its maker built it, which is too late to change
            try:
                # Safe mode keeps Keras from running code for layers (Lambda) that could not be served anyway.
                model = keras.saving.load_model(
                    _readable(path, kind, description, Path(folder)), compile=False, safe_mode=True
                )
            # Keras answers a file that it cannot read with whatever its layers raise.
            except Exception as fault:
                raise _unloadable(path, json.loads(mended(description)), keras, fault) from fault
        _check(path, model, keras)
        return cls(path, kind, model)

    def answer(self, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """See `Original.answer`."""
        try:
            given = import_keras().tree.flatten(self._model.predict_on_batch(inputs))
        # Whatever its layers raise, they say that they do not take these pictures.
        except Exception as fault:
            raise unanswered(self._path, inputs, fault) from fault
        return np.asarray(given[0], np.float32)

    def write(self, staging: Path, wanted: Input, rule: Rule, *, bare: bool) -> None:
        """See `Original.write`."""
        keras = import_keras()
        try:
            network = graph.for_bundle(keras, self._model, wanted, rule, bare=bare)
            network.save(staging / bundles.KERAS_MODEL)
        except graph.Unsupported as fault:
            raise Misconfigured(f"Cannot import {self._path}: {fault}; {_OTHER_WAY}.") from fault
        except (ValueError, TypeError) as fault:
            size = f"{wanted.height} x {wanted.width}"
            said = str(fault).strip().splitlines()[0].strip(" .")
            raise Misconfigured(f"Cannot import {self._path} for pictures of {size}: {said[:200]}.") from fault
        try:
            export.export_openvino(staging / bundles.KERAS_MODEL, staging / bundles.OPENVINO_FOLDER)
        except BundleError as fault:
            said = str(fault).partition(": ")[2].strip(" .")
            raise Misconfigured(
                f"Cannot import {self._path}: the daemon would refuse its network, because {said}; {_OTHER_WAY}."
            ) from fault
        except Exception as fault:  # OpenVINO's OpConversionFailure is no RuntimeError
            raise Misconfigured(f"Cannot import {self._path}: {unconverted(fault)}.") from fault


def _description(path: Path, kind: str) -> str:
    """The JSON text that describes the network in a file."""
    try:
        text = _text_of_keras(path) if kind == "keras" else _text_of_h5(path)
        json.loads(text)
    except KeyError as fault:
        raise Misconfigured(
            f"Cannot import {path}: it holds weights only, without the network that they belong to; save the whole "
            "model with model.save('NAME.keras')."
        ) from fault
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, RuntimeError, NotImplementedError) as fault:
        raise Misconfigured(f"Cannot import {path}: it is damaged, or no model that Keras saved.") from fault
    return text


def _text_of_keras(path: Path) -> str:
    with zipfile.ZipFile(path) as archive:
        if "config.json" not in archive.namelist():
            raise ValueError("some other archive")
        return archive.read("config.json").decode("utf-8")


def _text_of_h5(path: Path) -> str:
    import h5py  # type: ignore[import-untyped]

    with h5py.File(path, "r") as file:
        text = file.attrs["model_config"]
    return text.decode("utf-8") if isinstance(text, bytes) else str(text)


def _readable(path: Path, kind: str, description: str, folder: Path) -> Path:
    """A file that Keras 3 reads: the user's own, or a mended copy in `folder`; the ending says the format to Keras."""
    better = mended(description)
    is_changed = kind == "h5" and better != json.dumps(json.loads(description))
    if path.suffix.lower() == f".{kind}" and not is_changed:
        return path
    copy = folder / f"model.{kind}"
    shutil.copyfile(path, copy)
    if is_changed:
        import h5py

        with h5py.File(copy, "r+") as file:
            file.attrs["model_config"] = better
    return copy


def _unloadable(path: Path, document: Any, keras: Any, fault: Exception) -> TrainingError:
    """What to say where Keras gave up."""
    foreign = foreign_classes(document, keras.layers)
    if foreign:
        named = ", ".join(ascii(name[:60]) for name in foreign[:4])
        return Misconfigured(
            f"Cannot import {path}: it has parts that are code of their own ({named}), and a bundle holds none; "
            f"{_OTHER_WAY}."
        )
    said = (str(fault).strip().splitlines() or [type(fault).__name__])[0].strip(" .")
    return Misconfigured(
        f"Cannot import {path}: Keras {keras.__version__} cannot load it ({said[:200]}); {_OTHER_WAY}."
    )


def _check(path: Path, model: Any, keras: Any) -> None:
    """Refuses what is no classifier with one input and one output made of layers."""
    if not isinstance(model, keras.Sequential | keras.models.Model) or not graph.is_made_of_layers(model):
        raise Misconfigured(
            f"Cannot import {path}: it is no network of Keras layers with a fixed input (a class of its own, or never "
            f"built); {_OTHER_WAY}."
        )
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise Misconfigured(
            f"Cannot import {path}: it has {len(model.inputs)} inputs and {len(model.outputs)} outputs; a classifier "
            "of pictures has one of each."
        )
    check_shapes(path, tuple(model.inputs[0].shape), tuple(model.outputs[0].shape))
