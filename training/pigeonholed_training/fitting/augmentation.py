"""Small random changes of training pictures: one affine warp a picture does the work of five layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    import numpy.typing as npt

    Batch = npt.NDArray[np.uint8]

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Fraction = Annotated[float, Field(ge=0.0, le=0.9)]

_BORDERS = {"repeat": cv2.BORDER_REPLICATE, "reflect": cv2.BORDER_REFLECT_101}
_GREY = 127.5  # contrast turns about it, cut-outs are filled with it
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, for RGB


class Augmentation(BaseModel):
    """How far a training picture is changed at most; everything zero leaves it alone.

    Every amount is drawn evenly from its range, for each picture anew.

    Attributes:
        rotate_deg: either way, degrees.
        shift: either way in both directions, as a fraction of the side; by whole pixels where nothing else moves
            them, so that small pictures stay sharp.
        zoom: larger or smaller by this fraction.
        crop: a window of at least `1 - crop` of each side, anywhere in the picture, becomes the whole.
        stretch: the ratio of width to height grows or shrinks by this fraction.
        shear_deg: either way, degrees.
        flip: mirrors every other picture, left to right.
        alternate: with `flip`, a picture is mirrored in every second epoch instead of at random, so that no epoch
            shows what the one before showed (Jordan, "94% on CIFAR-10 in 3.29 Seconds", 2024, section 3.6).
        border: what lies beyond the rim: its last pixels again (`repeat`) or a mirror image (`reflect`).
        brightness: lighter or darker by this fraction of the range.
        contrast: this fraction more or less, about mid-grey.
        saturation: this fraction more or less colour; 1 goes down to grey.
        cutout: side of a square that is painted grey, as a fraction of the shorter side of the picture.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rotate_deg: Annotated[float, Field(ge=0.0, le=180.0)] = 0.0
    shift: Fraction = 0.0
    zoom: Fraction = 0.0
    crop: Fraction = 0.0
    stretch: Fraction = 0.0
    shear_deg: Annotated[float, Field(ge=0.0, le=60.0)] = 0.0
    flip: bool = False
    alternate: bool = False
    border: Literal["repeat", "reflect"] = "repeat"
    brightness: Share = 0.0
    contrast: Share = 0.0
    saturation: Share = 0.0
    cutout: Share = 0.0

    def apply(self, batch: Batch, rng: np.random.Generator, mirrored: npt.NDArray[np.bool_] | None = None) -> Batch:
        """Changed copies of uint8 RGB pictures [N, H, W, 3]; where nothing is asked for, the batch itself.

        The same state of `rng` gives the same pictures.

        Args:
            batch: the pictures; they are left as they are.
            rng: where the draws come from.
            mirrored: which ones are flipped, bool [N]; drawn from `rng` where it is None.
        """
        if not self.changes:
            return batch
        if mirrored is None:
            mirrored = rng.random(len(batch)) < 0.5
        mirrored = mirrored & self.flip
        count, height, width, _ = batch.shape
        if self._bends:
            batch = self._warped(batch, self.matrices(mirrored, height, width, rng))
        elif self.shift or self.flip:
            batch = self._slid(batch, mirrored, self._slides(count, height, width, rng))
        if self.brightness or self.contrast or self.saturation:
            batch = _recoloured(batch, self._colours(count, rng))
        return self._cut(batch, rng) if self.cutout else batch

    @property
    def changes(self) -> bool:
        """Whether anything is asked for."""
        return any(bool(value) for name, value in self if name not in ("border", "alternate"))

    @property
    def _bends(self) -> bool:
        """Whether pixels come to lie between pixels."""
        return any((self.rotate_deg, self.zoom, self.crop, self.stretch, self.shear_deg))

    def matrices(
        self, mirrored: npt.NDArray[np.bool_], height: int, width: int, rng: np.random.Generator
    ) -> npt.NDArray[np.float64]:
        """Affine maps [N, 2, 3] about the centre: mirror, zoom, shear, rotate, then shift, as one matrix each."""
        draw = rng.uniform(-1.0, 1.0, (len(mirrored), 9))
        angle, slant = np.radians(self.rotate_deg * draw[:, 0]), np.tan(np.radians(self.shear_deg * draw[:, 1]))
        larger = 1.0 / (1.0 - self.crop * (draw[:, 6] + 1.0) / 2.0)
        scale = (1.0 + self.zoom * draw[:, 2]) * larger
        wider = (1.0 + self.stretch) ** (draw[:, 5] / 2.0)
        across, down = scale * wider * np.where(mirrored, -1.0, 1.0), scale / wider
        linear = np.empty((len(mirrored), 2, 2))
        linear[:, 0, 0] = np.cos(angle) * across
        linear[:, 1, 0] = np.sin(angle) * across
        linear[:, 0, 1] = down * (np.cos(angle) * slant - np.sin(angle))
        linear[:, 1, 1] = down * (np.sin(angle) * slant + np.cos(angle))
        room = self.shift * draw[:, 3:5] + (larger[:, None] - 1.0) / 2.0 * draw[:, 7:9]
        centre = np.array([(width - 1) / 2, (height - 1) / 2])
        offset = centre - linear @ centre + room * np.array([width, height])
        return np.concatenate([linear, offset[:, :, None]], axis=2)

    def _warped(self, batch: Batch, matrices: npt.NDArray[np.float64]) -> Batch:
        size, border = (batch.shape[2], batch.shape[1]), _BORDERS[self.border]
        warped = np.empty_like(batch)
        for index, matrix in enumerate(matrices):
            cv2.warpAffine(batch[index], matrix, size, dst=warped[index], flags=cv2.INTER_LINEAR, borderMode=border)
        return warped

    def _slides(self, count: int, height: int, width: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """Whole pixels down and to the right, [count, 2], each amount within the limit as likely as any other."""
        limits = np.floor(self.shift * np.array([height, width]) + 1e-9).astype(int)
        return rng.integers(-limits, limits + 1, (count, 2))

    def _slid(self, batch: Batch, mirrored: npt.NDArray[np.bool_], slides: npt.NDArray[np.int64]) -> Batch:
        height, width = batch.shape[1:3]
        rim = np.abs(slides).max(axis=0, initial=0)
        padded = np.pad(
            batch,
            ((0, 0), (rim[0], rim[0]), (rim[1], rim[1]), (0, 0)),
            mode="edge" if self.border == "repeat" else "reflect",
        )
        slid = np.empty_like(batch)
        for index, (top, left) in enumerate((rim - slides).tolist()):
            window = padded[index, top : top + height, left : left + width]
            slid[index] = window[:, ::-1] if mirrored[index] else window
        return slid

    def _colours(self, count: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
        """Affine maps of RGB, [count, 3, 4]: saturation, contrast about mid-grey, then brightness, as one each."""
        draw = rng.uniform(-1.0, 1.0, (count, 3))
        colour, contrast = 1.0 + self.saturation * draw[:, 2], 1.0 + self.contrast * draw[:, 1]
        lifted = 255.0 * self.brightness * draw[:, 0] + _GREY * (1.0 - contrast)
        maps = np.empty((count, 3, 4))
        maps[:, :, :3] = colour[:, None, None] * np.eye(3) + (1.0 - colour)[:, None, None] * _LUMA
        maps[:, :, :3] *= contrast[:, None, None]
        maps[:, :, 3] = lifted[:, None]
        return maps

    def _cut(self, batch: Batch, rng: np.random.Generator) -> Batch:
        """Paints a grey square into each picture, all of it inside."""
        height, width = batch.shape[1:3]
        side = round(self.cutout * min(height, width))
        corners = rng.integers(0, (height - side + 1, width - side + 1), (len(batch), 2))
        painted = batch.copy()
        for index, (top, left) in enumerate(corners.tolist()):
            painted[index, top : top + side, left : left + side] = round(_GREY)
        return painted


def _recoloured(batch: Batch, maps: npt.NDArray[np.float64]) -> Batch:
    recoloured = np.empty_like(batch)
    for index, colours in enumerate(maps):
        cv2.transform(batch[index], colours, dst=recoloured[index])
    return recoloured
