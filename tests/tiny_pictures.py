"""Tiny data sets for the tests of training: pictures of one colour with noise, one colour a class."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

COLOURS = {"blue": (200, 60, 40), "green": (50, 190, 60), "red": (30, 60, 210)}  # OpenCV's order


def make_data_set(folder: Path, count: int = 30, labels: tuple[str, ...] = tuple(COLOURS)) -> Path:
    """`count` different 12x12 PNG pictures in a folder for each label."""
    for label in labels:
        (folder / label).mkdir(parents=True)
        for number in range(count):
            write_picture(folder / label / f"{number:03d}.png", label, number)
    return folder


def write_picture(path: Path, label: str, number: int) -> None:
    """The picture of that number; every number gives other bytes."""
    rng = np.random.default_rng([list(COLOURS).index(label), number])
    noise = rng.integers(-30, 31, (12, 12, 3))
    pixels = np.clip(np.array(COLOURS[label]) + noise, 0, 255).astype(np.uint8)
    assert cv2.imwrite(str(path), pixels)
