"""Pictures with as much detail at every scale as photos have, so that likeness can be told; each a few kilobytes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt


def photo(number: int, side: int = 96) -> npt.NDArray[np.uint8]:
    """uint8 [side, side]: the grey picture of that number, unlike all others."""
    rng = np.random.default_rng(number)
    picture = np.zeros((side, side), np.float32)
    for cells in (2, 4, 8, 16, 32):
        noise = rng.normal(size=(cells, cells)).astype(np.float32) / cells
        picture += cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC)
    scaled = 128 + 45 * picture / picture.std()
    return np.clip(scaled, 0, 255).astype(np.uint8)


def write_photo(path: Path, number: int, side: int = 96, *, grey: bool = False, quality: int = 90) -> Path:
    """The picture of that number as a file of the kind that its name says; its folder is made."""
    pixels = photo(number, side)
    if not grey:
        pixels = np.clip(pixels[..., None] * np.array([0.9, 1.0, 0.7]), 0, 255).astype(np.uint8)
    done, data = cv2.imencode(path.suffix, pixels, [cv2.IMWRITE_JPEG_QUALITY, quality] if path.suffix == ".jpg" else [])
    assert done
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.tobytes())
    return path
