"""The self-test of a bundle: a few small pictures, and the probabilities that were seen when it was published."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pigeonholed import bundle as bundles
from pigeonholed import durable, formats, sealing
from pigeonholed.bundle import BundleError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from pigeonholed.bundle import Bundle
    from pigeonholed.classifying import Classifier

TOLERANCE = 0.01
"""The most that a probability may differ from what was seen at publishing."""

MAX_IMAGES = 64


class _Image(BaseModel):
    model_config = ConfigDict(frozen=True)
    file: str
    probabilities: tuple[float, ...]


class _Expected(BaseModel):
    """The content of `selftest/expected.json`."""

    model_config = ConfigDict(frozen=True)
    images: tuple[_Image, ...] = Field(min_length=1, max_length=MAX_IMAGES)


def write(folder: Path, pixels: npt.NDArray[np.uint8], probabilities: npt.NDArray[np.float32]) -> None:
    """Writes the self-test of a bundle that is being made.

    Args:
        folder: becomes `selftest/`; made if missing.
        pixels: uint8 RGB [N, H, W, 3], N from 1 to 64, at the bundle's size.
        probabilities: float [N, K], calibrated, as the runtime that serves gave them.

    Raises:
        ValueError: the two differ in length, or there are none or too many.
    """
    if not 1 <= len(pixels) == len(probabilities) <= MAX_IMAGES:
        raise ValueError(f"a self-test has 1 to {MAX_IMAGES} pictures with a row of probabilities each")
    folder.mkdir(parents=True, exist_ok=True)
    images = []
    for index, (picture, row) in enumerate(zip(pixels, probabilities, strict=True)):
        name = f"{index:02d}.png"
        encoded = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1]
        durable.write_file(folder / name, encoded.tobytes())
        images.append({"file": name, "probabilities": [round(float(value), 7) for value in row]})
    document = json.dumps({"images": images}, indent=1) + "\n"
    durable.write_file(folder / "expected.json", document.encode("utf-8"))


def check(bundle: Bundle, classifier: Classifier) -> float:
    """Runs the self-test of `bundle` on `classifier`.

    Returns:
        The largest difference of a probability, at most `TOLERANCE`.

    Raises:
        BundleError: the test cannot be read, or the answers are not finite or differ by more.
    """
    pixels, expected = _read(bundle)
    largest = classifier.batch_sizes[-1]
    answers = np.concatenate([classifier.predict(pixels[at : at + largest]) for at in range(0, len(pixels), largest)])
    difference = float(np.abs(answers - expected).max())
    if not difference <= TOLERANCE:  # NaN is no pass
        raise BundleError(
            f"The model at {bundle.path} fails its self-test with {classifier.runtime} in {classifier.precision}: "
            f"a probability is off by {difference:.3f} where {TOLERANCE} is allowed."
        )
    return difference


def _read(bundle: Bundle) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Pictures [N, H, W, 3] and expected probabilities [N, K] of a bundle."""
    try:
        expected = _Expected.model_validate_json(bundle.read(bundles.EXPECTED, limit=sealing.MAX_TEXT_BYTES))
    except ValidationError as fault:
        raise BundleError(f"Cannot use the model at {bundle.path}: {bundles.EXPECTED} is not valid.") from fault
    wanted = bundle.manifest.input
    pictures = []
    for image in expected.images:
        name = f"{bundles.SELFTEST}/{image.file}"
        # Decoded directly: these are the very pixels of the bundle's size, with nothing left to fit.
        data = bundle.read(name, limit=sealing.MAX_TEXT_BYTES)
        # Looked at before it is decoded: a few bytes can claim to be a picture that fills all memory.
        fits = formats.dimensions(data) == (wanted.width, wanted.height)
        plain = fits and formats.sniff(data[:64]) is formats.Format.PNG
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB) if plain else None
        if picture is None or picture.shape != (wanted.height, wanted.width, 3):
            raise BundleError(
                f"Cannot use the model at {bundle.path}: {name} is no picture of {wanted.width} x {wanted.height}."
            )
        if len(image.probabilities) != len(bundle.labels):
            raise BundleError(f"Cannot use the model at {bundle.path}: {bundles.EXPECTED} does not fit its labels.")
        pictures.append(picture.astype(np.uint8))
    return np.stack(pictures), np.array([image.probabilities for image in expected.images], np.float32)
