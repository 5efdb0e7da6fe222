from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from bundles import make_bundle
from pigeonholed.bundle import BundleError, Manifest
from pigeonholed.classifying import export
from pigeonholed_training.evaluation import speed as module
from pigeonholed_training.evaluation.speed import speed

if TYPE_CHECKING:
    import numpy.typing as npt


class Scripted:
    """Takes, by its own clock, the next of some times for each batch of four; a second for one picture, but first 3."""

    runtime, device, precision, batch_sizes = "openvino", "cpu", "f32", (1, 2, 4)

    def __init__(self, batches: list[float]) -> None:
        self.now = 0.0
        self._batches = iter(batches)
        self.asked: list[int] = []

    def perf_counter(self) -> float:
        return self.now

    def load(self, *_: Any, **__: Any) -> Scripted:
        self.now += 7.0
        return self

    def predict(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        self.asked.append(len(pixels))
        alone = 1.0 if self.asked.count(1) > 1 else 3.0
        self.now += alone if len(pixels) == 1 else next(self._batches)
        return np.zeros((len(pixels), 2), np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "bundle")


def manifest(folder: Path) -> Manifest:
    return Manifest.model_validate_json((folder / "bundle.json").read_bytes())


def test_every_runtime_that_is_installed_is_measured(folder: Path) -> None:
    rows = speed(folder, manifest(folder), seconds=0.02, batch=8)
    assert [row["runtime"] for row in rows] == ["openvino", "keras"]
    for row in rows:
        assert row["precision"] == "f32"
        assert row["batch"] == 8
        assert row["pictures_per_s"] > 10
        assert 0 < row["ms_alone"] < 1000
        assert row["load_s"] > 0


def test_the_fastest_batch_counts_and_the_middle_single_picture(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted = Scripted([5.0, 2.0, 4.0, 99.0])
    monkeypatch.setattr(module, "time", scripted)
    monkeypatch.setattr(module, "find_spec", lambda name: name == "openvino" or None)
    monkeypatch.setattr(export, "load_unsealed", scripted.load)
    (row,) = speed(folder, manifest(folder), seconds=20, batch=4)
    assert (row["pictures_per_s"], row["ms_alone"], row["load_s"]) == (2.0, 1000.0, 7.0)
    assert scripted.asked == [4, 4, 4] + [1] * 8


def test_a_slow_model_is_asked_for_one_batch_and_five_pictures(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted = Scripted([600.0])
    monkeypatch.setattr(module, "time", scripted)
    monkeypatch.setattr(module, "find_spec", lambda name: name == "openvino" or None)
    monkeypatch.setattr(export, "load_unsealed", scripted.load)
    speed(folder, manifest(folder), seconds=1, batch=4)
    assert scripted.asked == [4] + [1] * 5


def test_a_bundle_whose_network_cannot_be_loaded_is_an_error(folder: Path) -> None:
    (folder / "export/openvino/model.xml").write_bytes(b"<net/>")
    with pytest.raises(BundleError, match="OpenVINO"):
        speed(folder, manifest(folder), seconds=0.01)
