"""A data set at a glance: some pictures of each class side by side, as a PNG."""

from __future__ import annotations

import os
import random
import warnings
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np

from pigeonholed import imaging
from pigeonholed_training.data.lists import PART_WORDS
from pigeonholed_training.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from pigeonholed_training.data.findings import ClassSummary, Report
    from pigeonholed_training.data.inspecting import Inspected

_CELL: Final = 112  # pixels
_GAP: Final = 6  # pixels between pictures
_HEAD: Final = 30  # pixels above each class, for its name
_MARGIN: Final = 16
_COLUMNS: Final = 10
_ROWS: Final = 40  # classes
_LETTERS: Final = 28
_DPI: Final = 100
_INK: Final = "#1f2933"
_PALE: Final = "#7b8794"


def draw(report: Report, path: Path, seed: int = 0) -> None:
    """Draws up to 10 pictures of each of the first 40 classes, chosen at random, with names and counts.

    Args:
        report: of the data set.
        path: of the PNG; replaces what is there.
        seed: another seed is another choice.

    Raises:
        Misconfigured: `path` cannot be written.
    """
    shown = report.classes[:_ROWS]
    columns = max(1, min(_COLUMNS, max((one.usable for one in shown), default=1)))
    width = 2 * _MARGIN + columns * (_CELL + _GAP) - _GAP
    width = max(width, 520)
    height = 2 * _MARGIN + _HEAD + len(shown) * (_HEAD + _CELL + _GAP)
    canvas = np.full((height, width, 3), 255, np.uint8)
    members = _members(report)
    for row, one in enumerate(shown):
        top = _top(row)
        for column, pixels in enumerate(_pictures(report, members.get(row, []), columns, f"{seed}:{one.label}")):
            left = _MARGIN + column * (_CELL + _GAP)
            down, right = (_CELL - pixels.shape[0]) // 2, (_CELL - pixels.shape[1]) // 2
            canvas[top : top + _CELL, left : left + _CELL] = 244
            canvas[top + down : top + down + pixels.shape[0], left + right : left + right + pixels.shape[1]] = pixels
    try:
        _write(canvas, _texts(report, shown), path)
    except OSError as fault:
        raise Misconfigured(f"Cannot write {path}: {fault.strerror or fault}.") from fault


def _top(row: int) -> int:
    """Where the pictures of a class begin, in pixels from above."""
    return _MARGIN + _HEAD + row * (_HEAD + _CELL + _GAP) + _HEAD


def _members(report: Report) -> dict[int, list[Inspected]]:
    """The pictures of each class, by its number."""
    members: dict[int, list[Inspected]] = {}
    for file in report.files:
        if file.is_picture:
            members.setdefault(file.target, []).append(file)
    return members


def _pictures(report: Report, files: Sequence[Inspected], count: int, seed: str) -> list[npt.NDArray[np.uint8]]:
    """uint8 RGB pictures with a longer side of `_CELL`."""
    chosen = random.Random(seed).sample(files, min(count, len(files)))  # noqa: S311 (no secret)
    pictures = []
    for file in sorted(chosen, key=lambda file: file.path):
        scale = _CELL / max(file.width, file.height)
        height, width = (max(1, round(side * scale)) for side in (file.height, file.width))
        try:
            with open(os.path.join(report.root, file.path), "rb") as stream:
                data = stream.read()
            if scale <= 1:
                pictures.append(imaging.decode(data, imaging.PixelSpec(height=height, width=width)).pixels)
            else:  # a small picture shows its pixels
                small = imaging.decode(data, imaging.PixelSpec(height=file.height, width=file.width)).pixels
                grown = cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST)
                pictures.append(np.asarray(grown, np.uint8))
        except (OSError, imaging.ImagingError):
            continue  # gone or changed since it was looked at
    return pictures


def _texts(report: Report, shown: Sequence[ClassSummary]) -> list[tuple[int, int, str, dict[str, Any]]]:
    """(x, y, words, style) in pixels from the upper left."""
    total = sum(one.usable for one in report.classes)
    more = f", the first {len(shown)} shown" if len(shown) < len(report.classes) else ""
    folder, name = os.path.split(os.path.abspath(report.data))
    if name.casefold() in PART_WORDS:  # every data set has a folder 'train'
        name = f"{os.path.basename(folder)}/{name}"
    heading = f"{name}: {total:,} pictures in {len(report.classes)} classes{more}"
    texts = [(_MARGIN, _MARGIN + 12, heading, {"size": 13, "weight": "bold", "color": _INK})]
    for row, one in enumerate(shown):
        y = _top(row) - 12
        texts.append((_MARGIN, y, _short(one.label), {"size": 11, "weight": "bold", "color": _INK}))
        size = f"usually {one.widths[1]}x{one.heights[1]} pixels" if one.usable else "nothing that can be decoded"
        count = f"{one.usable:,} picture{'' if one.usable == 1 else 's'}, {size}"
        texts.append((-_MARGIN, y, count, {"size": 9.5, "color": _PALE}))
    return texts


def _short(label: str) -> str:
    """Beside it must be room for the count."""
    return label if len(label) <= _LETTERS else f"{label[: _LETTERS - 1]}…"


def _write(canvas: npt.NDArray[np.uint8], texts: Sequence[tuple[int, int, str, dict[str, Any]]], path: Path) -> None:
    """Puts the words over the pictures; a negative x is measured from the right edge."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a font cache being made, a letter that the font lacks
        from matplotlib.figure import Figure

        height, width = canvas.shape[:2]
        figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
        figure.figimage(canvas)
        for x, y, words, style in texts:
            side = "left" if x >= 0 else "right"
            place = (x if x >= 0 else width + x) / width
            words = "".join(char if char.isprintable() else "?" for char in words)  # noqa: PLW2901
            figure.text(place, 1 - y / height, words, ha=side, va="center", parse_math=False, **style)
        figure.savefig(path, format="png", dpi=_DPI)
