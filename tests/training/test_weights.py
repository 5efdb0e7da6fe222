"""Weights of backbones: what can be used, and one sentence about what cannot, before anything slow."""

from __future__ import annotations

import shutil
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pigeonholed.classifying.keras import import_keras
from pigeonholed_training.errors import Misconfigured, TrainingError, Unavailable
from pigeonholed_training.networks import weights as weight_files
from pigeonholed_training.networks.backbones import BACKBONES
from pigeonholed_training.networks.weights import PUBLISHED, Weights, load, resolve

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

DATA = Path(__file__).resolve().parents[3] / "shared/data/weights"
SMALL = "mobilenet-v1-025"
OFFICIAL = "mobilenet_2_5_128_tf_no_top.h5"


def numbers(path: Path, count: int, **more: int) -> Path:
    """A file of weights as Keras 2 wrote them, of `count` zeros and no real network."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = ["conv"]
        file.create_dataset("conv/kernel", data=np.zeros(count, np.float32))
        for name, size in more.items():
            file.create_dataset(f"{name}/values", data=np.zeros(size, np.float32))
    return path


def backbone(seed: int) -> Any:
    """MobileNet v1 as `keras.applications` makes it, with random weights."""
    keras = import_keras()
    keras.utils.set_random_seed(seed)
    return keras.applications.MobileNet(input_shape=(32, 32, 3), alpha=0.25, include_top=False, weights=None)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, dict[str, Path]]:
    """A backbone, and the three kinds of file that may hold its weights."""
    folder, model = tmp_path_factory.mktemp("weights"), backbone(1)
    model.save_weights(folder / "new.weights.h5")
    model.save(folder / "whole.keras")
    with h5py.File(folder / "old.h5", "w") as file:
        file.attrs["layer_names"] = [layer.name for layer in model.layers]
        for layer in model.layers:
            group = file.create_group(layer.name)
            group.attrs["weight_names"] = [variable.name for variable in layer.weights]
            for variable in layer.weights:
                group[variable.name] = variable.numpy()
    return model, {name: folder / name for name in ("new.weights.h5", "whole.keras", "old.h5")}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keras' folder of downloaded weights, empty."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    return tmp_path / "keras/models"


@pytest.fixture
def fetching(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[str, str], None]], None]:
    """Puts something in the place of the network."""
    import_keras()
    from keras.src.utils import file_utils

    def replace(answer: Callable[[str, str], None]) -> None:
        monkeypatch.setattr(file_utils, "urlretrieve", lambda address, path, _progress: answer(address, path))

    return replace


def offline(address: str, path: str) -> None:
    raise urllib.error.URLError(OSError(-3, "Temporary failure in name resolution"))


def refusal(given: Path | str, backbone: str = SMALL) -> str:
    with pytest.raises(TrainingError) as caught:
        resolve(str(given), backbone, 128, 128)
    said = str(caught.value)
    assert "\n" not in said
    return said


# ---- what is given


def test_none_is_no_file() -> None:
    assert resolve("none", SMALL, 128, 128) == Weights("none", None, "none")


@pytest.mark.parametrize("kind", ["new.weights.h5", "whole.keras", "old.h5"])
def test_each_kind_of_file_gives_the_same_network(kind: str, saved: tuple[Any, dict[str, Path]]) -> None:
    model, files = saved
    weights, other = resolve(str(files[kind]), SMALL, 32, 32), backbone(2)
    load(other, weights, SMALL)
    for ours, theirs in zip(other.get_weights(), model.get_weights(), strict=True):
        assert np.array_equal(ours, theirs)


def test_kind_is_told_by_content_not_by_name(saved: tuple[Any, dict[str, Path]], tmp_path: Path) -> None:
    model, files = saved
    for number, path in enumerate(files.values()):
        odd = tmp_path / f"weights-{number}.bin"
        shutil.copy(path, odd)
        other = backbone(2)
        load(other, resolve(str(odd), SMALL, 32, 32), SMALL)
        assert np.array_equal(other.get_weights()[0], model.get_weights()[0])


def test_digest_is_of_the_content(tmp_path: Path) -> None:
    one, same = (numbers(tmp_path / name, PUBLISHED[SMALL].numbers) for name in ("a.h5", "b.h5"))
    shutil.copy(one, same)
    first = resolve(str(one), SMALL, 128, 128)
    assert (len(first.digest), first.path) == (64, one)
    assert resolve(str(same), SMALL, 128, 128).digest == first.digest
    with h5py.File(same, "r+") as file:
        file["conv/kernel"][0] = 1
    assert resolve(str(same), SMALL, 128, 128).digest != first.digest


def test_what_an_optimiser_left_in_the_file_does_not_count(tmp_path: Path) -> None:
    resolve(str(numbers(tmp_path / "w.h5", PUBLISHED[SMALL].numbers, optimizer_weights=99)), SMALL, 128, 128)


# ---- what cannot be used


def test_missing_file_and_misspelt_word_are_told_apart_from_nothing_else(tmp_path: Path) -> None:
    for given in (tmp_path / "none.h5", "imagnet"):
        said = refusal(given)
        assert str(given) in said
        assert "none, imagenet, or an existing file" in said


def test_folder_is_no_file(tmp_path: Path) -> None:
    assert "Is a directory" in refusal(tmp_path)


def test_text_is_no_weights(tmp_path: Path) -> None:
    (tmp_path / "w.h5").write_text("<html>404</html>")
    assert "neither HDF5 nor a .keras file" in refusal(tmp_path / "w.h5")


@pytest.mark.parametrize("kind", ["new.weights.h5", "whole.keras", "old.h5"])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_file_cut_short_is_refused(kind: str, share: float, saved: tuple[Any, dict[str, Path]], tmp_path: Path) -> None:
    data = saved[1][kind].read_bytes()
    (tmp_path / kind).write_bytes(data[: int(share * len(data))])
    assert "damaged or cut short" in refusal(tmp_path / kind)


def test_weights_of_another_backbone_are_named(tmp_path: Path) -> None:
    path = numbers(tmp_path / "w.h5", PUBLISHED[SMALL].numbers)
    assert "those of mobilenet-v1-025, not of vgg16" in refusal(path, "vgg16")


def test_weights_with_top_are_told_from_those_without(tmp_path: Path) -> None:
    said = refusal(numbers(tmp_path / "w.h5", PUBLISHED["mobilenet-v2"].with_top), "mobilenet-v2")
    assert "with its ImageNet classes" in said
    assert "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5" in said


def test_weights_of_something_else_are_counted(tmp_path: Path) -> None:
    assert "218,544 numbers, the file 1,000" in refusal(numbers(tmp_path / "w.h5", 1000))


def test_right_count_in_wrong_shapes_is_refused(tmp_path: Path) -> None:
    weights = resolve(str(numbers(tmp_path / "w.h5", PUBLISHED[SMALL].numbers)), SMALL, 32, 32)
    with pytest.raises(Misconfigured, match="do not fit mobilenet-v1-025"):
        load(backbone(1), weights, SMALL)


def test_number_that_is_not_finite_is_refused(saved: tuple[Any, dict[str, Path]], tmp_path: Path) -> None:
    path = tmp_path / "w.h5"
    shutil.copy(saved[1]["old.h5"], path)
    with h5py.File(path, "r+") as file:
        file["conv1/kernel"][0, 0, 0, 0] = np.nan
    with pytest.raises(Misconfigured, match="not finite"):
        load(backbone(1), resolve(str(path), SMALL, 32, 32), SMALL)


def test_link_out_of_the_file_is_not_followed(tmp_path: Path) -> None:
    numbers(tmp_path / "other.h5", PUBLISHED[SMALL].numbers)
    path = numbers(tmp_path / "w.h5", 1)
    with h5py.File(path, "r+") as file:
        del file["conv"]
        file["conv"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/conv")
    assert "do not fit" in refusal(path)


# ---- ImageNet


def test_official_file_in_the_cache_serves_without_a_network(
    cache: Path, fetching: Callable[[Callable[[str, str], None]], None]
) -> None:
    fetching(offline)
    cache.mkdir(parents=True)
    numbers(cache / OFFICIAL, PUBLISHED[SMALL].numbers)
    assert resolve("imagenet", SMALL, 128, 128).path == cache / OFFICIAL


def test_offline_is_one_sentence_that_says_what_to_fetch_and_nothing_else_is_printed(
    cache: Path, fetching: Callable[[Callable[[str, str], None]], None], capfd: pytest.CaptureFixture[str]
) -> None:
    fetching(offline)
    with pytest.raises(Unavailable) as caught:
        resolve("imagenet", "vgg16", 224, 224)
    said = str(caught.value)
    assert "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5" in said
    assert "name resolution" in said
    assert "--weights FILE" in said
    assert "\n" not in said
    assert capfd.readouterr() == ("", "")
    assert list(cache.iterdir()) == []


def test_download_is_announced_and_kept_under_its_official_name(
    cache: Path, fetching: Callable[[Callable[[str, str], None]], None], capfd: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    fetching(lambda _address, path: numbers(Path(path), PUBLISHED[SMALL].numbers) and None)
    found = resolve("imagenet", SMALL, 128, 128, said.append)
    assert found.path == cache / OFFICIAL
    assert [path.name for path in cache.iterdir()] == [OFFICIAL]
    assert len(said) == 1
    assert said[0].endswith(f"/mobilenet/{OFFICIAL}")
    assert capfd.readouterr() == ("", "")


def test_download_that_is_killed_leaves_nothing_that_looks_whole_and_is_begun_again(
    cache: Path, fetching: Callable[[Callable[[str, str], None]], None]
) -> None:
    def killed(_address: str, path: str) -> None:
        Path(path).write_bytes(b"\x89HDF")
        raise SystemExit  # which Keras does not clean up after

    fetching(killed)
    with pytest.raises(SystemExit):
        resolve("imagenet", SMALL, 128, 128)
    assert not (cache / OFFICIAL).exists()
    fetching(lambda _address, path: numbers(Path(path), PUBLISHED[SMALL].numbers) and None)
    assert resolve("imagenet", SMALL, 128, 128).path == cache / OFFICIAL


def test_cached_file_with_another_sum_than_the_official_is_fetched_anew(
    cache: Path, fetching: Callable[[Callable[[str, str], None]], None]
) -> None:
    fetching(offline)
    cache.mkdir(parents=True)
    numbers(cache / "efficientnetv2-b0_notop.h5", 10)
    with pytest.raises(Unavailable, match=r"efficientnetv2-b0_notop\.h5"):
        resolve("imagenet", "efficientnetv2-b0", 224, 224)


def test_folder_for_the_cache_that_cannot_be_made_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "file"))
    assert "Cannot fetch" in refusal("imagenet")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_file_and_size_are_those_of_keras_itself(name: str, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    keras = import_keras()
    from keras.src.utils import file_utils

    asked: list[tuple[str, str]] = []
    monkeypatch.setattr(
        file_utils, "get_file", lambda _file, address, file_hash="", **_more: asked.append((address, file_hash))
    )
    monkeypatch.setattr(keras.Model, "load_weights", lambda _model, _path: None)
    side = 128 if name == SMALL else 224
    model = getattr(keras.applications, BACKBONES[name].function)(
        weights="imagenet", include_top=False, input_shape=(side, side, 3), **dict(BACKBONES[name].options)
    )
    assert model.count_params() == PUBLISHED[name].numbers
    fetched: list[tuple[str, str]] = []

    def fetch(address: str, _name: str, _cache: Path, md5: str) -> str:
        fetched.append((address, md5))
        raise OSError("offline")

    monkeypatch.setattr(weight_files, "_fetch", fetch)
    with pytest.raises(Unavailable, match="offline"):
        resolve("imagenet", name, side, side)
    assert fetched == asked


# ---- real weights


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mobilenet-v2", "mobilenet_v2_1.0_224_no_top.from-tflite-quant.h5"),
        (SMALL, "mobilenet_2_5_128_no_top.from-tflite-quant.h5"),
    ],
)
def test_weights_at_hand_load(name: str, file: str) -> None:
    if not (DATA / file).is_file():
        pytest.skip(f"../shared/data/weights/{file} is not there")
    weights, backbone = resolve(str(DATA / file), name, 128, 128), BACKBONES[name]
    make = getattr(import_keras().applications, backbone.function)
    model = make(weights=None, include_top=False, input_shape=(128, 128, 3), **dict(backbone.options))
    before = model.get_weights()
    load(model, weights, name)
    assert all(not np.array_equal(old, new) for old, new in zip(before, model.get_weights(), strict=True))
    other = "vgg16" if name == SMALL else SMALL
    with pytest.raises(Misconfigured, match=f"those of {name}, not of {other}"):
        resolve(str(DATA / file), other, 128, 128)
