"""Real photos and real weights, where they lie beside the project."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from pigeonholed_training import session
from pigeonholed_training.progress import Narrator
from pigeonholed_training.recipes import find, override

pytestmark = [
    pytest.mark.slow,
    # TensorFlow 2.21 with NumPy 2: whenever a variable is read.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]

DATA = Path(__file__).parents[2].parent / "shared/data"
WEIGHTS = DATA / "weights/mobilenet_2_5_128_no_top.from-tflite-quant.h5"


def unpacked(archive: str, into: Path) -> Path:
    if not (DATA / archive).exists():
        pytest.skip(f"../shared/data/{archive} is not there")
    with tarfile.open(DATA / archive) as pictures:
        pictures.extractall(into, filter="data")
    return into


def test_a_probe_on_small_real_weights_tells_cats_dogs_and_pandas_apart(tmp_path: Path) -> None:
    data = unpacked("animals-train.tar", tmp_path / "pictures") / "animals"
    recipe = override(find("probe"), ["backbone=mobilenet-v1-025", "height=128", "width=128"])
    order = session.Order(data, recipe, "x", tmp_path / "runs", weights=str(WEIGHTS))

    metrics = session.carry_out(order, Narrator())

    assert metrics["held_out"]["part"] == "test"
    assert metrics["held_out"]["accuracy"]["value"] >= 0.85  # chance is 0.35
    assert metrics["counts"]["panda"]["test"] > 50
