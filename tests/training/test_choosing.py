"""`--recipe auto`: which recipe for which situation, what is looked at, and what a run that is there keeps."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import sys
from pathlib import Path
from typing import NamedTuple

import cv2
import h5py
import numpy as np
import pytest

from pigeonholed_training.__main__ import main
from pigeonholed_training.data import sources
from pigeonholed_training.errors import Misconfigured, TrainingError
from pigeonholed_training.networks.weights import PUBLISHED
from pigeonholed_training.recipes import all_recipes, find, looking, override
from pigeonholed_training.recipes.choosing import Look, choose
from pigeonholed_training.recipes.looking import decide, look
from tiny_pictures import make_data_set

PHOTOS = Look(pictures=2_000, classes=3, smallest=600, side=400)
TINY = Look(pictures=50_000, classes=10, smallest=5_000, side=32)
DIGITS = Look(pictures=1_800, classes=10, smallest=170, side=28, is_grey=True, has_sign_labels=True)
WEIGHTS = "mobilenet-v2"


@pytest.mark.parametrize(
    ("situation", "changes", "recipe", "words"),
    [
        # photos
        (PHOTOS, {}, "small", ["2,000 pictures of 3 classes", "about 400 pixels", "it would be probe", "--weights"]),
        (PHOTOS, {"backbone": WEIGHTS}, "probe", ["weights of mobilenet-v2", "with more time: mobilenet-v2"]),
        (PHOTOS, {"backbone": WEIGHTS, "pictures": 8_000}, "mobilenet-v2", ["The quick one is probe"]),
        (PHOTOS, {"backbone": WEIGHTS, "pictures": 5_000}, "probe", []),
        (PHOTOS, {"backbone": WEIGHTS, "pictures": 5_001}, "mobilenet-v2", []),
        (PHOTOS, {"pictures": 150, "smallest": 50}, "small", ["Warning: 150 pictures are very few"]),
        (PHOTOS, {"pictures": 200, "smallest": 50}, "small", []),
        (PHOTOS, {"pictures": 150, "smallest": 50, "backbone": WEIGHTS}, "probe", []),
        (PHOTOS, {"smallest": 7, "backbone": WEIGHTS}, "probe", ["Warning: the smallest class has only 7"]),
        (PHOTOS, {"side": 0}, "small", []),
        (PHOTOS, {"side": 41, "pictures": 50_000}, "small", []),
        (PHOTOS, {"has_sign_labels": True}, "small", ["--set augmentation.flip=false"]),
        # tiny ones
        (TINY, {}, "fast", ["With a GPU, or a night, it would be best", "On 2 cores that takes a while", "--time"]),
        (TINY, {"cores": 16}, "fast", []),
        (TINY, {"has_gpu": True}, "best", ["there is a GPU"]),
        (TINY, {"pictures": 10_000}, "fast", []),
        (TINY, {"pictures": 9_999}, "cifar", ["it would be probe"]),
        (TINY, {"side": 40}, "fast", []),
        (TINY, {"has_sign_labels": True}, "fast", ["--set augmentation.flip=false"]),
        (TINY, {"backbone": WEIGHTS}, "fast", []),
        (TINY, {"backbone": WEIGHTS, "pictures": 3_000}, "probe", []),
        (TINY, {"backbone": WEIGHTS, "asked": True}, "mobilenet-v2", ["fast needs no weights"]),
        # signs
        (DIGITS, {}, "digits", ["never mirrors"]),
        (DIGITS, {"pictures": 60_000}, "digits", []),
        (DIGITS, {"backbone": WEIGHTS}, "digits", []),
        (DIGITS, {"backbone": WEIGHTS, "asked": True}, "probe", ["digits needs no weights"]),
        (DIGITS, {"is_grey": False}, "cifar", []),
        (DIGITS, {"side": 300}, "small", []),
        # weights of another network
        (PHOTOS, {"backbone": "resnet50"}, "probe", ["weights of resnet50"]),
        (PHOTOS, {"backbone": "resnet50", "pictures": 8_000}, "probe", ["better not taught any further"]),
        (PHOTOS, {"backbone": "resnet50", "pictures": 8_000, "has_gpu": True}, "resnet50", []),
        (PHOTOS, {"backbone": "efficientnetv2-b0", "pictures": 8_000}, "efficientnetv2-b0", []),
        (PHOTOS, {"backbone": "mobilenet-v1-025", "pictures": 8_000, "has_gpu": True}, "probe", []),
    ],
)
def test_each_situation_has_its_recipe_and_a_reason(
    situation: Look, changes: dict[str, object], recipe: str, words: list[str]
) -> None:
    choice = choose(dataclasses.replace(situation, **changes))
    assert choice.recipe == recipe, choice.why
    for word in words:
        assert word in choice.why
    warned = any("Warning" in word for word in words)
    assert ("Warning" in choice.why) == warned
    slow = not changes.get("has_gpu") and changes.get("cores", 2) == 2
    assert ("takes a while" in choice.why) == (slow and dataclasses.replace(situation, **changes).pictures > 10_000)


@pytest.mark.parametrize("backbone", PUBLISHED)
@pytest.mark.parametrize("pictures", [1_000, 100_000])
@pytest.mark.parametrize("has_gpu", [False, True])
def test_whatever_weights_are_at_hand_the_recipe_takes_just_them(backbone: str, pictures: int, has_gpu: bool) -> None:
    choice = choose(dataclasses.replace(PHOTOS, backbone=backbone, pictures=pictures, has_gpu=has_gpu))
    recipe = override(find(choice.recipe), choice.assignments)
    assert recipe.network.kind == "transfer"
    assert recipe.network.backbone == backbone
    assert recipe.weights == "imagenet"


def test_no_recipe_that_needs_weights_is_chosen_without_any() -> None:
    named = {recipe.name: recipe for recipe in all_recipes()}
    for situation in (PHOTOS, TINY, DIGITS):
        for gpu in (False, True):
            assert named[choose(dataclasses.replace(situation, has_gpu=gpu)).recipe].weights == "none"


# ---- looking


@pytest.fixture(autouse=True)
def keras_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keras' folder, empty; and no GPU, whatever the machine has."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setattr(looking, "find_gpu", lambda: None)
    return tmp_path / "keras"


def write(path: Path, height: int, width: int, channels: int = 3) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((height, width, channels), 90, np.uint8))


def weights_of(backbone: str, path: Path, *, top: bool = False) -> Path:
    """A file with as many numbers as the network has, and nothing else in common with it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count = PUBLISHED[backbone].with_top if top else PUBLISHED[backbone].numbers
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = ["conv"]
        file.create_dataset("conv/kernel", shape=(count,), dtype="f4")
    return path


def seen(data: Path, weights: str | None = None) -> Look:
    return look(sources.find(data), weights)


def test_files_and_classes_are_counted_and_the_machine_is_looked_at(tmp_path: Path) -> None:
    data = make_data_set(tmp_path / "data", 6)
    for number in range(4):
        (data / f"red/{number:03d}.png").unlink()
    found = seen(data)
    assert (found.pictures, found.classes, found.smallest, found.side) == (14, 3, 2, 12)
    assert (found.is_grey, found.has_sign_labels, found.backbone, found.asked) == (False, False, "", False)
    assert (found.cores, found.has_gpu) == (len(os.sched_getaffinity(0)), False)


def test_what_is_held_back_for_the_test_is_not_counted(tmp_path: Path) -> None:
    make_data_set(tmp_path / "data/train", 5)
    make_data_set(tmp_path / "data/test", 9)
    assert (seen(tmp_path / "data").pictures, seen(tmp_path / "data").smallest) == (15, 5)


def test_the_typical_shorter_side_counts_and_no_picture_is_decoded(tmp_path: Path, monkeypatch) -> None:
    for number, (height, width) in enumerate([(30, 900), (60, 50), (3000, 2000)]):
        write(tmp_path / f"data/a/{number}.png", height, width)
    (tmp_path / "data/b").mkdir()
    (tmp_path / "data/b/text.png").write_bytes(b"no picture")
    (tmp_path / "data/b/empty.png").write_bytes(b"")
    monkeypatch.setattr(cv2, "imdecode", None)
    assert seen(tmp_path / "data").side == 50


def test_a_file_that_waits_for_a_writer_is_not_waited_for(tmp_path: Path) -> None:
    data = make_data_set(tmp_path / "data", 2)
    os.mkfifo(data / "red/pipe.png")
    assert seen(data).side == 12


def test_a_header_behind_a_large_preview_is_found(tmp_path: Path) -> None:
    data = make_data_set(tmp_path / "data", 1, ("blue", "red"))
    done, encoded = cv2.imencode(".jpg", np.zeros((70, 90, 3), np.uint8))
    assert done
    profile = b"\xff\xe2\xff\xff" + bytes(65_533)
    for label in ("blue", "red"):
        jpeg = encoded.tobytes()
        (data / label / "000.png").write_bytes(jpeg[:2] + 3 * profile + jpeg[2:])
    assert seen(data).side == 70


def test_only_a_sample_of_a_large_set_is_opened_and_always_the_same(tmp_path: Path, monkeypatch) -> None:
    data = make_data_set(tmp_path / "data", 20)
    opened: list[str] = []
    real = looking._header
    monkeypatch.setattr(looking, "_SAMPLE", 7)
    monkeypatch.setattr(looking, "_header", lambda root, path: opened.append(path) or real(root, path))
    assert seen(data) == seen(data)
    assert len(opened) == 14
    assert opened[:7] == opened[7:]


@pytest.mark.parametrize("ending", ["png", "jpg"])
@pytest.mark.parametrize(
    ("labels", "channels", "recipe"), [("01", 1, "digits"), ("ab", 1, "digits"), ("01", 3, "cifar")]
)
def test_grey_pictures_named_like_signs_are_told_from_their_headers(
    tmp_path: Path, ending: str, labels: str, channels: int, recipe: str
) -> None:
    for label in labels:
        for number in range(3):
            write(tmp_path / f"data/{label}/{number}.{ending}", 28, 20, channels)
    found = seen(tmp_path / "data")
    assert found.is_grey == (channels == 1)
    assert found.has_sign_labels
    assert choose(found).recipe == recipe


# ---- weights at hand


@pytest.mark.parametrize("backbone", ["mobilenet-v2", "mobilenetv3-small", "mobilenet-v1-025"])
def test_a_file_of_weights_is_known_by_its_content(tmp_path: Path, backbone: str) -> None:
    data = make_data_set(tmp_path / "data", 2)
    found = seen(data, str(weights_of(backbone, tmp_path / "some.h5")))
    assert (found.backbone, found.asked) == (backbone, True)


def test_a_file_that_is_no_weights_is_told(tmp_path: Path) -> None:
    data = make_data_set(tmp_path / "data", 2)
    (tmp_path / "some.h5").write_bytes(b"text")
    for name, words in (("some.h5", "neither HDF5 nor"), ("gone.h5", "There is no file of weights")):
        with pytest.raises(Misconfigured, match=words):
            seen(data, str(tmp_path / name))


def test_imagenet_is_taken_at_its_word_and_none_too(tmp_path: Path, keras_home: Path) -> None:
    data = make_data_set(tmp_path / "data", 2)
    cache_of("mobilenet-v2", keras_home)
    assert (seen(data, "imagenet").backbone, seen(data, "imagenet").asked) == ("mobilenet-v2", True)
    assert (seen(data, "none").backbone, seen(data, "none").asked) == ("", False)


def cache_of(backbone: str, keras_home: Path) -> Path:
    return weights_of(backbone, keras_home / "models" / PUBLISHED[backbone].file.format(side=224))


def test_weights_that_keras_fetched_before_are_found_the_best_first(
    tmp_path: Path, keras_home: Path, monkeypatch
) -> None:
    data = make_data_set(tmp_path / "data", 2)
    file = cache_of("mobilenetv3-small", keras_home)
    assert seen(data).backbone == "", "its sum is not the official one"
    md5 = hashlib.md5(file.read_bytes()).hexdigest()
    official = dataclasses.replace(PUBLISHED["mobilenetv3-small"], md5=md5)
    monkeypatch.setitem(PUBLISHED, "mobilenetv3-small", official)
    assert (seen(data).backbone, seen(data).asked) == ("mobilenetv3-small", False)
    cache_of("mobilenet-v2", keras_home)
    assert seen(data).backbone == "mobilenet-v2"


def test_half_a_download_is_no_weights(tmp_path: Path, keras_home: Path) -> None:
    data = make_data_set(tmp_path / "data", 2)
    file = cache_of("mobilenet-v2", keras_home)
    file.write_bytes(file.read_bytes()[:5000])
    assert seen(data).backbone == ""


# ---- runs


def begin(run: Path, recipe_changes: list[str], name: str = "shear-64") -> None:
    """What a training leaves of its recipe."""
    run.mkdir(parents=True)
    plain = override(find(name), recipe_changes).as_dict()
    del plain["purpose"], plain["twin"]
    (run / "settings.json").write_text(json.dumps({"recipe": plain}))


def test_a_run_that_is_there_keeps_its_recipe_whatever_the_data_have_become(tmp_path: Path) -> None:
    begin(tmp_path / "runs/x", ["epochs=7"])
    said: list[str] = []
    kept = decide(tmp_path / "gone", tmp_path / "runs/x", None, say=said.append)
    assert kept == override(find("shear-64"), ["epochs=7"])
    assert len(said) == 1
    assert "Recipe shear-64, as the run in" in said[0]


def test_a_run_with_a_recipe_of_ones_own_keeps_that_too(tmp_path: Path) -> None:
    begin(tmp_path / "runs/x", [])
    settings = tmp_path / "runs/x/settings.json"
    settings.write_text(settings.read_text().replace('"shear-64"', '"mine"'))
    assert decide(tmp_path, tmp_path / "runs/x", None).name == "mine"


def test_fresh_chooses_anew(tmp_path: Path) -> None:
    begin(tmp_path / "runs/x", [])
    data = make_data_set(tmp_path / "data", 3)
    assert decide(data, tmp_path / "runs/x", None, fresh=True).name == "cifar"


def test_a_run_whose_recipe_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "runs/x").mkdir(parents=True)
    (tmp_path / "runs/x/settings.json").write_text('{"recipe": {"name": "x", "network": 3}}')
    with pytest.raises(TrainingError, match="--fresh"):
        decide(tmp_path, tmp_path / "runs/x", None)


def test_the_choice_is_said_with_what_is_changed_of_it(tmp_path: Path) -> None:
    data = make_data_set(tmp_path / "data", 3)
    said: list[str] = []
    file = weights_of("mobilenetv3-small", tmp_path / "some.h5")
    chosen = decide(data, tmp_path / "runs/x", str(file), say=said.append)
    assert (chosen.name, chosen.network.backbone) == ("probe", "mobilenetv3-small")
    assert said[0].startswith("Recipe probe with --set backbone=mobilenetv3-small: 9 pictures of 3 classes")


# ---- the command


class Said(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    from pigeonholed_training import session

    orders: list[session.Order] = []

    def rehearse(order: session.Order, narrator: object) -> str:
        orders.append(order)
        return "the plan"

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(session, "rehearse", rehearse)

    def call(*arguments: str) -> tuple[Said, list[session.Order]]:
        monkeypatch.setattr(sys, "argv", ["pigeonholed-train", "train", *arguments, "--dry-run"])
        code = 0
        try:
            main()
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        return Said(code, *capsys.readouterr()), orders

    return call


@pytest.mark.parametrize("recipe", [[], ["--recipe", "auto"]])
def test_train_chooses_where_no_recipe_is_named(train, tmp_path: Path, recipe: list[str]) -> None:
    make_data_set(tmp_path / "data", 3)
    said, orders = train("data", "--name", "x", *recipe, "--set", "batch_size=9", "--epochs", "2")
    assert said.code == 0, said
    assert orders[0].recipe == override(find("cifar"), ["batch_size=9", "epochs=2"])
    assert orders[0].weights == "none"
    assert said.err.startswith("Recipe cifar: 9 pictures of 3 classes, their shorter side about 12 pixels")
    assert said.out == "the plan\n"


def test_train_hands_the_weights_on(train, tmp_path: Path) -> None:
    make_data_set(tmp_path / "data", 3)
    file = weights_of("mobilenet-v2", tmp_path / "some.h5")
    _, orders = train("data", "--name", "x", "--weights", str(file))
    assert (orders[0].recipe.name, orders[0].weights) == ("probe", str(file))


def test_the_same_command_goes_on_with_the_recipe_of_its_run(train, tmp_path: Path) -> None:
    begin(tmp_path / "runs/x", ["epochs=7"])
    make_data_set(tmp_path / "data", 3)
    said, orders = train("data", "--name", "x", "--epochs", "7")
    assert orders[0].recipe == override(find("shear-64"), ["epochs=7"])
    assert "as the run in runs/x began" in said.err


def test_no_data_is_told_before_anything_else(train, tmp_path: Path) -> None:
    said, orders = train("gone", "--name", "x")
    assert (said.code, orders) == (2, [])
    assert "Cannot train on gone" in said.err
