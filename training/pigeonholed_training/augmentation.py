"""Small random changes of training pictures: one affine warp a picture does the work of five layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Batch = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How far a training picture is moved at most; everything zero leaves it alone.

    Attributes:
        rotate_deg: either way, degrees.
        shift: either way in both directions, as a fraction of the side.
        zoom: larger or smaller by this fraction.
        shear_deg: either way, degrees.
        flip: mirrors every other picture, left to right.
    """

    rotate_deg: float = 0.0
    shift: float = 0.0
    zoom: float = 0.0
    shear_deg: float = 0.0
    flip: bool = False

    def apply(self, batch: Batch, rng: np.random.Generator) -> Batch:
        """Warped copies of uint8 RGB pictures [N, H, W, 3]; the rim is repeated outwards.

        The same state of `rng` gives the same pictures.
        """
        if self == Augmentation():
            return batch
        height, width = batch.shape[1:3]
        warped = np.empty_like(batch)
        for index, matrix in enumerate(self.matrices(len(batch), height, width, rng)):
            warped[index] = cv2.warpAffine(
                batch[index], matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
            )
        return warped

    def matrices(self, count: int, height: int, width: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
        """Affine maps [count, 2, 3] about the centre: mirror, zoom, shear, rotate, then shift, as one matrix each."""
        draw = rng.uniform(-1.0, 1.0, (count, 5))
        angle, slant = np.radians(self.rotate_deg * draw[:, 0]), np.tan(np.radians(self.shear_deg * draw[:, 1]))
        scale = 1.0 + self.zoom * draw[:, 2]
        mirror = np.where(self.flip & (rng.random(count) < 0.5), -1.0, 1.0)
        linear = np.empty((count, 2, 2))
        linear[:, 0, 0] = np.cos(angle) * scale * mirror
        linear[:, 1, 0] = np.sin(angle) * scale * mirror
        linear[:, 0, 1] = scale * (np.cos(angle) * slant - np.sin(angle))
        linear[:, 1, 1] = scale * (np.sin(angle) * slant + np.cos(angle))
        centre = np.array([(width - 1) / 2, (height - 1) / 2])
        offset = centre - linear @ centre + self.shift * draw[:, 3:5] * np.array([width, height])
        return np.concatenate([linear, offset[:, :, None]], axis=2)
