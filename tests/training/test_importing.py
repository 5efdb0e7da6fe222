"""Importing from the outside: users' models go in, and the daemon gives their answers; or one sentence and no model."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from foreign_models import LABELS, SIDE, classifier, head, two_colours, write_keras_2
from pigeonholed import imaging
from pigeonholed.bundle import Bundle
from pigeonholed.classifying import DeviceUnavailable, load_classifier
from pigeonholed.classifying.keras import import_keras
from pigeonholed.store import ModelStore
from pigeonholed_training.__main__ import main
from tiny_pictures import make_data_set, write_picture

pytestmark = [
    pytest.mark.slow,
    # TensorFlow 2.21 with NumPy 2: whenever a variable is read.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]


class Said(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data_set(tmp_path_factory.mktemp("samples") / "pictures", 30)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Said]:
    monkeypatch.chdir(tmp_path)

    def call(model: str, *options: object, labels: str = ",".join(LABELS)) -> Said:
        order = ["import", model, "--name", "theirs", "--labels", labels, "--models", "models", *map(str, options)]
        monkeypatch.setattr(sys, "argv", ["pigeonholed-train", *order])
        capfd.readouterr()
        code = 0
        try:
            main()
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        return Said(code, *capfd.readouterr())

    return call


def published(said: Said) -> Bundle:
    assert (said.code, said.out) == (0, "Published theirs version 1 into models.\n"), said
    return ModelStore(Path("models")).open("theirs")


def assert_refused(said: Said, code: int, *words: str) -> None:
    assert said.code == code, said
    lines = [line for line in said.err.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1, said.err
    assert "Traceback" not in said.err
    for word in words:
        assert word in lines[0]
    assert not Path("models").exists()


def pixels_of(samples: Path) -> Any:
    spec = imaging.PixelSpec(SIDE, SIDE)
    files = [samples / label / "007.png" for label in LABELS]
    return np.stack([imaging.decode(file.read_bytes(), spec).pixels for file in files])


def served(bundle: Bundle, pixels: Any, kind: str = "openvino") -> Any:
    return load_classifier(bundle, kind=kind, device="cpu").predict(pixels)


def test_the_daemon_gives_the_answers_of_the_users_model(run, samples: Path, tmp_path: Path) -> None:
    model = classifier()
    model.save(tmp_path / "mine.keras")
    said = run("mine.keras", "--pixels", "0..1")
    bundle = published(said)
    files = [str(samples / label / "007.png") for label in LABELS]
    command = [sys.executable, "-m", "pigeonholed", "classify", *files, "--models", "models", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    expected = model.predict(pixels_of(samples) / np.float32(255), verbose=0)
    for line, row, label in zip(done.stdout.splitlines(), expected, LABELS, strict=True):
        answer = json.loads(line)
        assert (answer["label"], answer["outcome"]) == (label, "sorted")
        given = {entry["label"]: entry["confidence"] for entry in answer["top"]}
        np.testing.assert_allclose([given[name] for name in LABELS], row, atol=1e-4)
    assert (bundle.manifest.recipe, bundle.manifest.output) == ("import", "logits")


def test_it_is_said_that_the_models_code_runs_before_it_is_loaded(run, tmp_path: Path) -> None:
    (tmp_path / "mine.keras").write_bytes(b"PK, but no archive")
    said = run("mine.keras")
    assert_refused(said, 78, "damaged")
    assert "runs that model's code" in said.err.partition("Error: ")[0]


def test_samples_find_the_scaling_and_calibrate(run, samples: Path, tmp_path: Path) -> None:
    classifier().save(tmp_path / "mine.keras")
    said = run("mine.keras", "--samples", samples)
    bundle = published(said)
    (chosen,) = [line for line in said.err.splitlines() if line.startswith("* ")]
    assert chosen.split()[1:4] == ["0..1", "100.0", "%"]
    metrics = json.loads(bundle.read("metrics.json"))
    assert metrics["imported"]["pixels"] == "0..1"
    counts = metrics["counts"].values()
    fitted, judged = (sum(one[part] for one in counts) for part in ("calibration", "test"))
    assert fitted + judged == 90
    assert min(fitted, judged) > 30
    calibration = bundle.manifest.calibration
    assert (calibration.method, calibration.n, calibration.runtime) == ("temperature", fitted, "openvino")
    assert (metrics["held_out"]["n"], metrics["held_out"]["accuracy"]["value"]) == (judged, 1.0)
    assert bundle.manifest.reference.n == judged
    assert bundle.manifest.data_fingerprint == metrics["data_fingerprint"] != ""
    assert "pictures judge it" in bundle.read("report.html").decode()


def test_without_samples_nothing_uncertain_passes_and_that_is_said(run, tmp_path: Path) -> None:
    classifier(scaled=True).save(tmp_path / "mine.keras")
    said = run("mine.keras")  # it scales pixels itself, so nothing need be asked
    manifest = published(said).manifest
    assert {(one.value, one.method, one.n) for one in manifest.thresholds} == {(0.9, "best-f1", 0)}
    assert (manifest.calibration.method, manifest.calibration.temperature) == ("none", 1.0)
    assert manifest.reference is None
    assert "Nothing is calibrated without --samples" in said.err


def test_a_handful_of_samples_judges_but_does_not_calibrate(run, samples: Path, tmp_path: Path) -> None:
    make_data_set(tmp_path / "few", 5)
    classifier().save(tmp_path / "mine.keras")
    bundle = published(run("mine.keras", "--samples", "few"))
    assert bundle.manifest.calibration.method == "none"
    assert json.loads(bundle.read("metrics.json"))["held_out"]["n"] == 15


def test_a_model_that_does_not_say_its_scaling_needs_to_be_told(run, tmp_path: Path) -> None:
    classifier().save(tmp_path / "mine.keras")
    assert_refused(run("mine.keras"), 78, "--pixels (0..255, 0..1, -1..1, torch, caffe)", "--samples")


def test_scaling_twice_is_warned_of_with_the_right_rule(run, samples: Path, tmp_path: Path) -> None:
    classifier(scaled=True).save(tmp_path / "mine.keras")
    said = run("mine.keras", "--samples", samples, "--pixels", "0..1")
    assert "Warning: With --pixels 0..1" in said.err
    assert "scaled twice. With --pixels 0..255 it is right for 100.0 %" in said.err
    assert "scaled twice" in json.loads(published(said).read("metrics.json"))["warnings"][0]


def test_scaling_that_is_missing_is_warned_of(run, samples: Path, tmp_path: Path) -> None:
    classifier().save(tmp_path / "mine.keras")
    said = run("mine.keras", "--samples", samples, "--pixels", "0..255")
    assert "not scaled at all. With --pixels 0..1 it is right for 100.0 %" in said.err


def test_labels_in_the_wrong_order_are_found_out(run, samples: Path, tmp_path: Path) -> None:
    classifier().save(tmp_path / "mine.keras")
    wrong = "red,blue,green"
    hint = "with --labels blue,green,red"
    assert_refused(run("mine.keras", "--samples", samples, labels=wrong), 78, hint, "--pixels 0..1", "100.0 %")
    said = run("mine.keras", "--samples", samples, "--pixels", "0..1", labels=wrong)
    assert f"Warning: The labels seem to be in another order: {hint}" in said.err
    published(said)


def test_one_sigmoid_unit_speaks_for_the_second_label(run, samples: Path, tmp_path: Path) -> None:
    model = two_colours()
    model.save(tmp_path / "mine.keras")
    bundle = published(run("mine.keras", "--pixels", "0..1", labels="blue,red"))
    assert bundle.manifest.output == "logits"  # the sigmoid is left away
    pixels = pixels_of(samples)
    second = model.predict(pixels / np.float32(255), verbose=0)[:, 0]
    np.testing.assert_allclose(served(bundle, pixels)[:, 1], second, atol=1e-4)


def test_keras_2_files_are_read_with_what_keras_3_dropped(run, samples: Path, tmp_path: Path) -> None:
    write_keras_2(tmp_path / "old.h5", preprocess=True)
    bundle = published(run("old.h5"))  # it divides by 255 itself, by an operation that is no layer any more
    assert served(bundle, pixels_of(samples)).argmax(axis=1).tolist() == [0, 1, 2]
    write_keras_2(tmp_path / "older.hdf5")
    said = run("older.hdf5", "--samples", samples)
    assert said.code == 0, said.err
    assert "* 0..1      100.0 %" in said.err


def test_a_model_that_was_put_together_from_others_becomes_flat_and_serves_alike(run, samples, tmp_path: Path) -> None:
    keras = import_keras()
    layers = keras.layers
    pixels = keras.Input((SIDE, SIDE, 3))
    x = keras.applications.resnet50.preprocess_input(pixels)  # BGR minus a mean: operations, no layers
    undo = keras.Sequential([keras.Input((SIDE, SIDE, 3)), layers.Conv2D(3, 1, name="conv")])
    to_rgb = np.eye(3, dtype=np.float32)[::-1].reshape(1, 1, 3, 3)
    undo.set_weights([to_rgb / 255, np.array([123.68, 116.779, 103.939], np.float32) / 255])
    same = keras.Sequential([keras.Input((SIDE, SIDE, 3)), layers.Conv2D(3, 1, name="conv"), layers.RandomFlip()])
    same.set_weights(
        [np.eye(3, dtype=np.float32).reshape(1, 1, 3, 3), np.zeros(3, np.float32), *same.get_weights()[2:]]
    )
    model = keras.Model(pixels, layers.Softmax()(head(keras, None)(same(undo(x)))))
    model.save(tmp_path / "mine.keras")
    bundle = published(run("mine.keras"))
    seen = pixels_of(samples)
    expected = model.predict(seen.astype(np.float32), verbose=0)
    for kind in ("openvino", "keras"):
        np.testing.assert_allclose(served(bundle, seen, kind), expected, atol=1e-3)
    config = json.loads(keras_config(bundle))
    assert not {"Sequential", "Functional"} & {layer["class_name"] for layer in config["config"]["layers"]}


def keras_config(bundle: Bundle) -> str:
    import zipfile

    with zipfile.ZipFile(bundle.path / "model.keras") as archive:
        return archive.read("config.json").decode()


def test_probabilities_beyond_what_float32_tells_stay_calibratable(run, tmp_path: Path) -> None:
    keras = import_keras()
    model = keras.Sequential(
        [keras.Input((SIDE, SIDE, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(1, "sigmoid")]
    )
    model.set_weights([np.full((3, 1), 20.0, np.float32), np.zeros(1, np.float32)])
    model.save(tmp_path / "sure.keras")
    bundle = published(run("sure.keras", "--pixels", "0..1", labels="no,yes"))
    white = np.full((1, SIDE, SIDE, 3), 255, np.uint8)
    from pigeonholed.classifying import export

    cooled = bundle.manifest.model_copy(
        update={"calibration": bundle.manifest.calibration.model_copy(update={"temperature": 20.0})}
    )
    probability = export.load_unsealed(bundle.path, cooled, "openvino").predict(white)[0, 1]
    assert probability == pytest.approx(1 / (1 + np.exp(-60 / 20)), abs=1e-4)


@pytest.mark.parametrize("kept", ["openvino", "keras"])
def test_a_saved_model_is_served_by_openvino_alone(run, samples: Path, tmp_path: Path, kept: str) -> None:
    model = classifier()
    model.export(tmp_path / "theirs", verbose=False)
    bundle = published(run("theirs", "--samples", samples))
    assert not (bundle.path / "model.keras").exists()
    pixels = pixels_of(samples)
    if kept == "keras":
        with pytest.raises(DeviceUnavailable, match="OpenVINO alone serves"):
            load_classifier(bundle, kind="keras")
        with pytest.raises(DeviceUnavailable, match="device to auto or cpu"):
            load_classifier(bundle, device="gpu")
    else:
        assert load_classifier(bundle).runtime == "openvino"
        assert served(bundle, pixels).argmax(axis=1).tolist() == [0, 1, 2]
        assert bundle.manifest.output == "logits"


def test_a_saved_model_with_blue_first_is_given_blue_first(run, samples: Path, tmp_path: Path) -> None:
    keras = import_keras()
    model = keras.Sequential([keras.Input((SIDE, SIDE, 3)), keras.layers.Conv2D(3, 1), head(keras)])
    weights = [np.eye(3, dtype=np.float32)[::-1].reshape(1, 1, 3, 3) / 255]
    model.layers[0].set_weights([*weights, np.array([123.68, 116.779, 103.939], np.float32) / 255])
    model.export(tmp_path / "theirs", verbose=False)
    said = run("theirs", "--samples", samples)
    assert "* caffe     100.0 %" in said.err
    assert served(published(said), pixels_of(samples)).argmax(axis=1).tolist() == [0, 1, 2]


def test_a_saved_model_of_tensorflow_1_is_refused(run, tmp_path: Path) -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    classifier().export(tmp_path / "theirs", verbose=False)
    content = saved_model_pb2.SavedModel.FromString((tmp_path / "theirs/saved_model.pb").read_bytes())
    for graph in content.meta_graphs:
        graph.ClearField("object_graph_def")
    (tmp_path / "theirs/saved_model.pb").write_bytes(content.SerializeToString())
    assert_refused(run("theirs"), 78, "TensorFlow 1")
    (tmp_path / "theirs/saved_model.pb").write_bytes(b"\xff\xff")
    assert_refused(run("theirs"), 78, "saved_model.pb is damaged")


def test_a_model_of_any_size_needs_to_be_told_one_that_it_takes(run, tmp_path: Path) -> None:
    keras = import_keras()
    keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.Conv2D(3, 5),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3, "softmax"),
        ]
    ).save(tmp_path / "mine.keras")
    assert_refused(run("mine.keras"), 78, "--size HxW")
    assert_refused(run("mine.keras", "--size", "4x4", "--pixels", "0..1"), 78, "fails on pictures of 4 x 4")
    assert run("mine.keras", "--size", "wide").code == 2
    manifest = published(run("mine.keras", "--size", "10x14", "--pixels", "0..1", "--fit", "crop")).manifest
    assert (manifest.input.height, manifest.input.width, manifest.input.fit) == (10, 14, "crop")
    classifier().save(tmp_path / "fixed.keras")
    assert "12x12 only" in run("fixed.keras", "--size", "10x10").err


def shaped(
    shape: tuple[int | None, ...], units: int = 3, ending: str = "softmax", *before: Any, batch: int | None = None
):
    keras = import_keras()
    start = keras.Input(batch_shape=(batch, *shape))
    flat = [keras.layers.Flatten()] if len(shape) > 1 else []
    return keras.Sequential([start, *before, *flat, keras.layers.Dense(units, ending)])


class Own:
    """Makes a layer of the user's own code."""

    def __new__(cls) -> Any:
        keras = import_keras()

        class Doubled(keras.layers.Layer):  # type: ignore[misc, name-defined]
            def call(self, x: Any) -> Any:
                return 2 * x

        return Doubled()


REFUSED: dict[str, tuple[Callable[[], Any], tuple[str, ...]]] = {
    "greyscale": (lambda: shaped((8, 8, 1)), ("greyscale", "(any, 8, 8, 1)")),
    "channels-first": (lambda: shaped((3, 8, 8)), ("channels first",)),
    "no-picture": (lambda: shaped((192,)), ("is no picture",)),
    "one-batch-size": (lambda: shaped((8, 8, 3), batch=2), ("exactly 2 picture(s)", "batch size of None")),
    "too-many-outputs": (lambda: shaped((8, 8, 3), 4), ("gives 4 numbers", "--labels names 3")),
    "one-output": (lambda: shaped((8, 8, 3), 1, "sigmoid"), ("tells two classes apart", "names 3")),
    "softmax-of-one": (lambda: shaped((8, 8, 3), 1), ("is 1 for every picture",)),
    "multi-label": (lambda: shaped((8, 8, 3), 3, "sigmoid"), ("do not exclude each other",)),
    "own-layer": (lambda: shaped((8, 8, 3), 3, "softmax", Own()), ("'Doubled'", "model.export")),
    "lambda": (
        lambda: shaped((8, 8, 3), 3, "softmax", import_keras().layers.Lambda(lambda x: x)),
        ("'Lambda'", "model.export"),
    ),
    "unlisted-layer": (
        lambda: shaped((8, 8, 3), 3, "softmax", import_keras().layers.Conv2DTranspose(2, 2)),
        ("Conv2DTranspose' is not on the list", "model.export"),
    ),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_cannot_be_served_is_refused_in_one_sentence(run, tmp_path: Path, fault: str) -> None:
    make, words = REFUSED[fault]
    make().save(tmp_path / "mine.keras")
    assert_refused(run("mine.keras", "--pixels", "0..1"), 78, "Cannot import mine.keras", *words)


def test_an_own_layer_in_an_h5_file_is_named_too(run, tmp_path: Path) -> None:
    write_keras_2(tmp_path / "old.h5")
    import h5py

    with h5py.File(tmp_path / "old.h5", "r+") as file:
        config = json.loads(file.attrs["model_config"])
        config["config"]["layers"][1]["class_name"] = "Attention3000"
        file.attrs["model_config"] = json.dumps(config)
    assert_refused(run("old.h5"), 78, "'Attention3000'")


def test_weights_alone_are_no_model(run, tmp_path: Path) -> None:
    classifier().save_weights(tmp_path / "mine.weights.h5")
    assert_refused(run("mine.weights.h5"), 78, "holds weights only", "model.save('NAME.keras')")


def test_what_is_no_model_is_refused_before_keras_starts(run, tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"something")
    (tmp_path / "a.keras").write_bytes(b"something")
    (tmp_path / "folder").mkdir()
    assert_refused(run("gone.keras"), 2, "no such file or folder")
    assert_refused(run("a.onnx"), 78, "ONNX")
    assert_refused(run("a.keras"), 78, "no model that Keras knows")
    said = run("folder")
    assert_refused(said, 78, "no saved_model.pb")
    assert "runs that model's code" not in said.err


def test_an_output_kind_that_is_not_true_is_refused(run, tmp_path: Path) -> None:
    classifier().save(tmp_path / "shares.keras")
    classifier(ending=None).save(tmp_path / "logits.keras")
    pixels = ("--pixels", "0..1")
    assert_refused(run("shares.keras", "--output", "logits", *pixels), 78, "look like softmax")
    assert_refused(run("logits.keras", "--output", "softmax", *pixels), 78, "look like logits")
    assert published(run("logits.keras", *pixels)).manifest.output == "logits"


def test_samples_of_other_classes_are_refused_before_the_model_is_loaded(run, tmp_path: Path) -> None:
    make_data_set(tmp_path / "pictures", 4, ("blue", "red"))
    classifier().save(tmp_path / "mine.keras")
    (tmp_path / "pictures/red").rename(tmp_path / "pictures/rot")
    said = run("mine.keras", "--samples", "pictures")
    assert_refused(said, 78, "'rot' is none of the labels (blue, green, red)")
    assert "runs that model's code" not in said.err
    assert_refused(run("mine.keras", "--samples", "nowhere"), 2, "nowhere")


def test_samples_may_lack_classes_and_hold_broken_files(run, tmp_path: Path) -> None:
    make_data_set(tmp_path / "pictures", 25, ("blue", "red"))
    (tmp_path / "pictures/red/broken.png").write_bytes(b"x")
    classifier().save(tmp_path / "mine.keras")
    said = run("mine.keras", "--samples", "pictures")
    assert "50 samples of 2 classes; 1 files could not be used." in said.err
    assert json.loads(published(said).read("metrics.json"))["bad"][0]["path"] == "red/broken.png"


def test_a_store_that_cannot_be_written_is_found_before_the_model_is_loaded(run, tmp_path: Path) -> None:
    classifier().save(tmp_path / "mine.keras")
    (tmp_path / "file").write_bytes(b"")
    said = run("mine.keras", "--models", "file/models")
    assert_refused(said, 78, "Cannot publish into file/models: it is no folder")
    assert "runs that model's code" not in said.err


def test_a_bundle_that_disagrees_with_the_model_is_not_published(run, tmp_path: Path, monkeypatch) -> None:
    from pigeonholed_training.importing import keras_model

    classifier(scaled=True).save(tmp_path / "mine.keras")
    honest = keras_model.KerasModel.answer
    monkeypatch.setattr(keras_model.KerasModel, "answer", lambda self, inputs: honest(self, inputs)[:, ::-1])
    said = run("mine.keras")
    assert (said.code, said.out) == (1, "")
    assert "differ by up to" in said.err
    assert not Path("models").exists()


def test_a_failing_import_leaves_the_live_version(run, samples: Path, tmp_path: Path) -> None:
    classifier().save(tmp_path / "mine.keras")
    before = published(run("mine.keras", "--pixels", "0..1"))
    assert run("mine.keras", "--samples", samples, labels="red,blue,green").code == 78
    store = ModelStore(Path("models"))
    assert (store.versions("theirs"), store.open("theirs").digest) == ([1], before.digest)


def test_the_self_test_is_of_the_samples(run, samples: Path, tmp_path: Path) -> None:
    shutil.copytree(samples, tmp_path / "pictures")
    write_picture(tmp_path / "pictures/red/more.png", "red", 99)
    classifier().save(tmp_path / "mine.keras")
    bundle = published(run("mine.keras", "--samples", "pictures"))
    images = json.loads(bundle.read("selftest/expected.json"))["images"]
    assert len(images) == 8
    assert [int(np.argmax(one["probabilities"])) for one in images[:3]] == [0, 1, 2]
