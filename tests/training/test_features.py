"""Features: computed once for each picture and network, whatever happens in between."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pigeonholed.classifying.keras import import_keras
from pigeonholed_training.errors import Misconfigured, Unavailable
from pigeonholed_training.fitting import features
from pigeonholed_training.fitting.features import Features, compute

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

COUNT, SIDE, SIZE = 1300, 8, 5


class Source:
    """Pictures that note which of them were read."""

    def __init__(self, count: int = COUNT) -> None:
        self.pixels = np.random.default_rng(4).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)
        self.keys = [hashlib.sha256(picture.tobytes()).hexdigest() for picture in self.pixels]
        self.asked: list[int] = []
        self.fails_after = count

    def read(self, indices: np.ndarray) -> np.ndarray:
        self.asked += indices.tolist()
        if len(self.asked) > self.fails_after:
            raise KeyboardInterrupt
        return self.pixels[indices]


def network(seed: int = 1) -> Any:
    """A small network from pixels to features."""
    keras = import_keras()
    keras.utils.set_random_seed(seed)
    pixels = keras.Input((SIDE, SIDE, 3), dtype="uint8", name="pixels")
    x = keras.layers.Rescaling(1 / 127.5, -1.0)(pixels)
    x = keras.layers.Conv2D(SIZE, 3, activation="relu")(x)
    return keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(x))


@pytest.fixture(scope="module")
def model() -> Any:
    return network()


@pytest.fixture(scope="module")
def infer(model: Any) -> Any:
    return features.network(model, 1000)


@pytest.fixture(autouse=True)
def compiled_once(infer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same network through OpenVINO for every test."""
    monkeypatch.setattr(features, "network", lambda _model, _count: infer)


def everything(found: Features) -> np.ndarray:
    return found.read(np.arange(len(found.where)))


def test_features_are_those_that_keras_computes(model: Any, tmp_path: Path) -> None:
    source = Source()
    found = everything(compute(model, source.read, source.keys, tmp_path / "new"))
    assert (found.shape, found.dtype) == ((COUNT, SIZE), np.float32)
    assert found == pytest.approx(np.asarray(model(source.pixels)), abs=1e-5)


def test_some_are_read_in_the_order_asked_for(model: Any, tmp_path: Path) -> None:
    source = Source()
    found = compute(model, source.read, source.keys, tmp_path)
    some = np.array([7, 1299, 7, 0])
    assert np.array_equal(found.read(some), everything(found)[some])


def test_second_time_nothing_is_read(model: Any, tmp_path: Path) -> None:
    source = Source()
    first = everything(compute(model, source.read, source.keys, tmp_path))
    source.asked.clear()
    told: list[tuple[int, int]] = []
    again = compute(model, source.read, source.keys, tmp_path, on_done=lambda *at: told.append(at))
    assert np.array_equal(everything(again), first)
    assert (source.asked, told) == ([], [])


def test_only_pictures_that_are_new_are_computed(model: Any, tmp_path: Path) -> None:
    source = Source()
    compute(model, lambda some: source.pixels[some + 100], source.keys[100:], tmp_path)
    found = compute(model, source.read, source.keys, tmp_path)
    assert source.asked == list(range(100))
    assert everything(found) == pytest.approx(np.asarray(model(source.pixels)), abs=1e-5)


def test_same_bytes_are_computed_once(model: Any, tmp_path: Path) -> None:
    source = Source(10)
    source.pixels = np.tile(source.pixels, (2, 1, 1, 1))
    source.fails_after = 20
    found = everything(compute(model, source.read, source.keys * 2, tmp_path))
    assert len(source.asked) == 10
    assert np.array_equal(found[:10], found[10:])


def test_killed_training_goes_on_where_it_was(model: Any, tmp_path: Path) -> None:
    source = Source()
    source.fails_after = 800
    with pytest.raises(KeyboardInterrupt):
        compute(model, source.read, source.keys, tmp_path)
    source.asked, source.fails_after = [], COUNT
    found = compute(model, source.read, source.keys, tmp_path)
    assert source.asked == list(range(512, COUNT))
    assert everything(found) == pytest.approx(np.asarray(model(source.pixels)), abs=1e-5)


@pytest.mark.parametrize(("ending", "more"), [(".f32", 3000), (".sha256", 70), (".f32", -8), (".sha256", -33)])
def test_half_written_end_is_computed_again(ending: str, more: int, model: Any, tmp_path: Path) -> None:
    source = Source(600)
    first = everything(compute(model, source.read, source.keys, tmp_path))
    file = next(tmp_path.glob(f"*{ending}"))
    data = file.read_bytes()
    file.write_bytes(data + b"x" * more if more > 0 else data[:more])
    source.asked.clear()
    again = everything(compute(model, source.read, source.keys, tmp_path))
    assert np.array_equal(again, first)
    assert len(source.asked) == (0 if more > 0 else {-8: 1, -33: 2}[more])


def test_other_weights_or_another_way_to_see_make_other_features(model: Any, tmp_path: Path) -> None:
    source = Source(10)
    for other, seen_as in ((model, ""), (network(2), ""), (model, "crop")):
        source.asked.clear()
        compute(other, source.read, source.keys, tmp_path, seen_as=seen_as)
        assert len(source.asked) == 10
    assert len(list(tmp_path.glob("*.f32"))) == 3


def test_progress_is_told_up_to_the_end(model: Any, tmp_path: Path) -> None:
    source, told = Source(150), list[tuple[int, int]]()
    compute(model, source.read, source.keys, tmp_path, on_done=lambda *at: told.append(at))
    assert told == [(64, 150), (128, 150), (150, 150)]


def test_full_disk_is_told_before_anything_is_computed(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(10, 10, 0))
    source = Source(10)
    with pytest.raises(Unavailable, match="make room"):
        compute(model, source.read, source.keys, tmp_path)
    assert source.asked == []


def test_disk_that_fills_up_is_one_sentence_and_nothing_is_lost(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, kept = Source(), features._Store.append

    def fill_up(self: Any, rows: Any, keys: bytes) -> None:
        kept(self, rows, keys)
        monkeypatch.setattr(features._Store, "append", full)

    def full(self: Any, rows: Any, keys: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(features._Store, "append", fill_up)
    with pytest.raises(Unavailable, match="No space left on device; make room"):
        compute(model, source.read, source.keys, tmp_path)
    monkeypatch.setattr(features._Store, "append", kept)
    source.asked.clear()
    compute(model, source.read, source.keys, tmp_path)
    assert source.asked == list(range(512, COUNT))


def test_folder_that_cannot_be_made_is_one_sentence(model: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Misconfigured, match=r"Cannot keep features in .*: Not a directory"):
        compute(model, Source(1).read, Source(1).keys, tmp_path / "file/cache")


def test_features_that_are_not_finite_are_not_kept(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "network", lambda _model, _count: lambda pixels: np.full((len(pixels), SIZE), np.inf))
    with pytest.raises(Misconfigured, match="not finite"):
        compute(model, Source(5).read, Source(5).keys, tmp_path)
    assert next(tmp_path.glob("*.f32")).stat().st_size == 0


def test_second_training_waits_for_the_first_and_says_so(model: Any, tmp_path: Path) -> None:
    source = Source(10)
    first = compute(model, source.read, source.keys, tmp_path)
    waiting, done = threading.Event(), list[Features]()
    with open(next(tmp_path.glob("*.lock"))) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = threading.Thread(
            target=lambda: done.append(
                compute(model, source.read, source.keys, tmp_path, say=lambda said: waiting.set())
            )
        )
        second.start()
        assert waiting.wait(30)
        assert done == []
    second.join(30)
    assert np.array_equal(everything(done[0]), everything(first))


def test_what_openvino_does_not_know_goes_through_keras(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from pigeonholed.bundle import BundleError

    def refuse(*_given: Any) -> None:
        raise BundleError("no equivalent")

    monkeypatch.undo()
    monkeypatch.setattr(features, "export_openvino", refuse)
    pixels = Source(3).pixels
    assert features.network(model, 1000)(pixels) == pytest.approx(np.asarray(model(pixels)), abs=1e-6)
