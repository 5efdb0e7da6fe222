"""Both runtimes, for real: they agree, they refuse what is wrong, and OpenVINO stays light."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundles import keras_archive, keras_config, make_bundle, probabilities, publish_tiny, solid
from pigeonholed import classifying
from pigeonholed.bundle import Bundle, BundleError, Input, Manifest, Threshold
from pigeonholed.classifying import DeviceUnavailable, export, load_classifier, selftest
from pigeonholed.classifying import keras as keras_runtime
from pigeonholed.classifying.batched import BatchedClassifier, Network, batch_sizes
from pigeonholed.store import ModelStore

# Keras 3.15 on NumPy 2.4: its own affair, and silent outside tests.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

PICTURES = np.stack([solid(200, 90, 60), solid(0, 0, 255), solid(120, 120, 120)])


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return publish_tiny(tmp_path / "models")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network with every kind of weight, and augmentation layers as a careless user would leave them in."""
    keras = keras_runtime.import_keras()
    layers = keras.layers
    keras.utils.set_random_seed(7)
    pixels = keras.Input((16, 16, 3), dtype="uint8", name="pixels")
    x = layers.Rescaling(1 / 255)(pixels)
    x = layers.RandomTranslation(0.2, 0.2)(layers.RandomFlip("horizontal")(x))
    x = layers.Conv2D(8, 3, padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(x))
    x = layers.Dropout(0.5)(layers.Flatten()(layers.MaxPooling2D()(x)))
    model = keras.Model(pixels, layers.Dense(3, name="logits")(x))
    model.get_layer("norm").moving_mean.assign(np.linspace(-0.2, 0.2, 8))
    folder = tmp_path_factory.mktemp("trained")
    model.save(folder / "model.keras")
    export.export_openvino(folder / "model.keras", folder / "export/openvino")
    return folder


def manifest_of(labels: tuple[str, ...], size: int) -> Manifest:
    thresholds = tuple(Threshold(label=label, value=0.5, method="best-f1", n=0) for label in labels)
    return Manifest(
        name="t", labels=labels, input=Input(height=size, width=size), output="logits", thresholds=thresholds
    )


@pytest.mark.parametrize("kind", ["openvino", "keras"])
def test_both_runtimes_give_the_known_probabilities(bundle: Bundle, kind: str) -> None:
    classifier = load_classifier(bundle, kind=kind, device="cpu", max_batch_size=4)
    assert (classifier.runtime, classifier.device, classifier.precision) == (kind, "cpu", "f32")
    assert (classifier.labels, classifier.batch_sizes) == (("cat", "dog"), (1, 2, 4))
    answer = classifier.predict(PICTURES)
    assert answer.dtype == np.float32
    np.testing.assert_allclose(answer, probabilities(PICTURES), atol=1e-5)


@pytest.mark.parametrize("kind", ["openvino", "keras"])
def test_answer_does_not_depend_on_the_company_in_the_batch(trained: Path, kind: str) -> None:
    classifier = export.load_unsealed(trained, manifest_of(("a", "b", "c"), 16), kind, max_batch_size=8)
    pixels = np.random.default_rng(1).integers(0, 256, (7, 16, 16, 3), dtype=np.uint8)
    together = classifier.predict(pixels)
    alone = np.concatenate([classifier.predict(pixels[at : at + 1]) for at in range(7)])
    assert np.ptp(together[:, 0]) > 0.01  # the pictures are not all the same to it
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(classifier.predict(pixels[::-1])[::-1], together, atol=1e-5)


def test_keras_and_its_openvino_export_agree(trained: Path) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (70, 16, 16, 3), dtype=np.uint8)
    assert export.agreement(trained, manifest_of(("a", "b", "c"), 16), pixels) < 1e-4


def test_export_of_another_network_does_not_agree(trained: Path, tmp_path: Path) -> None:
    staging = make_bundle(tmp_path / "s", labels=("a", "b", "c"), size=16)
    (staging / "model.keras").write_bytes((trained / "model.keras").read_bytes())
    pixels = np.random.default_rng(2).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
    assert export.agreement(staging, manifest_of(("a", "b", "c"), 16), pixels) > 0.05


def test_exported_network_has_one_input_and_one_output(trained: Path) -> None:
    text = (trained / "export/openvino/model.xml").read_text()
    assert text.count('type="Parameter"') == 1
    assert text.count('type="Result"') == 1
    assert 'element_type="f16"' not in text


def test_batches_are_padded_to_the_warmed_sizes_only() -> None:
    seen: list[int] = []

    def infer(batch: Any) -> Any:
        seen.append(len(batch))
        return np.zeros((len(batch), 2), np.float32)

    network = Network("r", "d", "f32", infer)
    classifier = BatchedClassifier(manifest_of(("a", "b"), 8), network, batch_sizes(12), "here")
    classifier.warm()
    assert seen == [1, 2, 4, 8, 12]
    seen.clear()
    rows = [len(classifier.predict(np.zeros((n, 8, 8, 3), np.uint8))) for n in (0, 1, 3, 8, 9, 12)]
    assert rows == [0, 1, 3, 8, 9, 12]
    assert seen == [1, 4, 8, 12, 12]


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((5, 8, 8, 3), np.uint8),
        np.zeros((1, 8, 9, 3), np.uint8),
        np.zeros((1, 8, 8, 1), np.uint8),
        np.zeros((1, 8, 8, 3), np.float32),
        np.zeros((8, 8, 3), np.uint8),
    ],
)
def test_pixels_that_do_not_fit_are_an_error(bundle: Bundle, pixels: Any) -> None:
    classifier = load_classifier(bundle, kind="openvino", max_batch_size=4)
    with pytest.raises(ValueError, match="Cannot classify"):
        classifier.predict(pixels)


@pytest.mark.parametrize(
    ("largest", "sizes"), [(1, (1,)), (2, (1, 2)), (5, (1, 2, 4, 5)), (64, (1, 2, 4, 8, 16, 32, 64))]
)
def test_batch_sizes_never_double_the_work(largest: int, sizes: tuple[int, ...]) -> None:
    assert batch_sizes(largest) == sizes


def test_network_with_another_number_of_classes_is_refused(tmp_path: Path, bundle: Bundle) -> None:
    staging = make_bundle(tmp_path / "s", labels=("a", "b", "c"))
    for name in ("model.xml", "model.bin"):
        (staging / "export/openvino" / name).write_bytes(bundle.read(f"export/openvino/{name}"))
    with pytest.raises(BundleError, match="does not fit its 3 labels"):
        load_classifier(ModelStore(tmp_path / "models").publish("tiny", staging), kind="openvino")


@pytest.mark.parametrize("kind", ["openvino", "keras"])
def test_network_for_another_size_is_refused(tmp_path: Path, kind: str) -> None:
    staging = make_bundle(tmp_path / "s", size=9, manifest={"input": {"height": 8, "width": 8}})
    with pytest.raises(BundleError, match="does not take the pixels"):
        load_classifier(ModelStore(tmp_path / "models").publish("tiny", staging), kind=kind, device="cpu")


@pytest.mark.parametrize("kind", ["openvino", "keras"])
def test_damaged_network_is_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    staging = make_bundle(tmp_path / "s")
    if kind == "openvino":
        (staging / "export/openvino/model.xml").write_text("<net/>")
    else:
        config = keras_config()
        config["config"]["layers"][1]["config"]["surprise"] = 1
        (staging / "model.keras").write_bytes(keras_archive(config=config))
    with pytest.raises(BundleError) as caught:
        load_classifier(ModelStore(tmp_path / "models").publish("tiny", staging), kind=kind, device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["openvino", "keras"])
def test_forbidden_layer_is_refused_whichever_runtime_serves(tmp_path: Path, kind: str) -> None:
    staging = make_bundle(tmp_path / "s")
    config = keras_config()
    config["config"]["layers"][1]["class_name"] = "Lambda"
    (staging / "model.keras").write_bytes(keras_archive(config=config))
    with pytest.raises(BundleError, match="not on the list"):
        load_classifier(ModelStore(tmp_path / "models").publish("tiny", staging), kind=kind, device="cpu")


@pytest.mark.parametrize("wrong", ["value", "nan", "columns", "picture", "none", "json"])
def test_failing_self_test_is_refused(tmp_path: Path, wrong: str) -> None:
    staging = make_bundle(tmp_path / "s")
    expected = staging / "selftest/expected.json"
    document = json.loads(expected.read_text())
    if wrong == "value":
        document["images"][2]["probabilities"] = [0.52, 0.48]
    elif wrong == "nan":
        document["images"][0]["probabilities"] = [float("nan"), 0.5]
    elif wrong == "columns":
        document["images"][0]["probabilities"] = [1.0]
    elif wrong == "picture":
        (staging / "selftest/0.png").write_bytes(b"no picture")
    elif wrong == "none":
        document["images"] = []
    expected.write_text("{" if wrong == "json" else json.dumps(document))
    with pytest.raises(BundleError):
        load_classifier(ModelStore(tmp_path / "models").publish("tiny", staging), kind="openvino")


def test_self_test_allows_what_rounding_explains(tmp_path: Path) -> None:
    staging = make_bundle(tmp_path / "s")
    expected = staging / "selftest/expected.json"
    document = json.loads(expected.read_text())
    document["images"][2]["probabilities"] = [0.508, 0.492]
    expected.write_text(json.dumps(document))
    load_classifier(ModelStore(tmp_path / "models").publish("tiny", staging), kind="openvino")


def test_written_self_test_passes_on_the_network_that_it_was_taken_from(tmp_path: Path) -> None:
    staging = make_bundle(tmp_path / "s")
    for path in (staging / "selftest").iterdir():
        path.unlink()
    pixels = np.random.default_rng(3).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    selftest.write(staging / "selftest", pixels, probabilities(pixels))
    bundle = ModelStore(tmp_path / "models").publish("tiny", staging)
    classifier = load_classifier(bundle, kind="openvino", max_batch_size=2)
    assert selftest.check(bundle, classifier) < 1e-5


def test_temperature_of_the_manifest_is_applied(tmp_path: Path) -> None:
    bundle = publish_tiny(
        tmp_path / "models", manifest={"calibration": {"method": "temperature", "temperature": 1.001}}
    )
    plain = publish_tiny(tmp_path / "models")
    picture = PICTURES[:1]
    cooler = load_classifier(bundle, kind="openvino").predict(picture)[0, 0]
    assert 1e-7 < load_classifier(plain, kind="openvino").predict(picture)[0, 0] - cooler < 1e-3


@pytest.mark.parametrize(
    ("kind", "device", "gpu", "chosen"),
    [
        ("auto", "auto", "H200", ("keras", "gpu")),
        ("auto", "auto", None, ("openvino", "cpu")),
        ("auto", "cpu", "H200", ("openvino", "cpu")),
        ("auto", "gpu", "H200", ("keras", "gpu")),
        ("keras", "auto", "H200", ("keras", "gpu")),
        ("keras", "auto", None, ("keras", "cpu")),
        ("keras", "cpu", "H200", ("keras", "cpu")),
        ("openvino", "auto", "H200", ("openvino", "cpu")),
        ("auto", "gpu", None, None),
        ("keras", "gpu", None, None),
        ("openvino", "gpu", "H200", None),
    ],
)
def test_runtime_is_chosen_as_the_contract_says(
    monkeypatch: pytest.MonkeyPatch, kind: str, device: str, gpu: str | None, chosen: tuple[str, str] | None
) -> None:
    monkeypatch.setattr(classifying, "find_gpu", lambda: gpu)
    if chosen is None:
        with pytest.raises(DeviceUnavailable):
            classifying._choose(kind, device)
    else:
        assert classifying._choose(kind, device) == chosen


def test_without_openvino_keras_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifying, "find_gpu", lambda: None)
    monkeypatch.setattr(classifying, "find_spec", lambda name: None)
    assert classifying._choose("auto", "auto") == ("keras", "cpu")


def test_precision_that_is_served_is_the_one_that_is_told(bundle: Bundle) -> None:
    for asked in ("auto", "f32"):
        assert load_classifier(bundle, kind="openvino", precision=asked).precision == "f32"
    assert load_classifier(bundle, kind="openvino", precision="bf16").precision in ("bf16", "f32")
    with pytest.raises(DeviceUnavailable, match="f32 only"):
        load_classifier(bundle, kind="keras", device="cpu", precision="bf16")


LIGHT = """
import json, sys, threading, time
import cv2, numpy, sqlalchemy
from pathlib import Path
from pigeonholed.classifying import load_classifier
from pigeonholed.store import ModelStore

store = ModelStore(Path(sys.argv[1]))
started = time.perf_counter()
classifier = load_classifier(store.open("tiny"), device="cpu")
loading_s = time.perf_counter() - started
classifier.predict(numpy.zeros((3, 8, 8, 3), numpy.uint8))
print(json.dumps({
    "runtime": classifier.runtime,
    "heavy": sorted({name.split(".")[0] for name in sys.modules} & {"tensorflow", "keras", "torch", "jax", "h5py"}),
    "telemetry": sys.modules.get("openvino_telemetry") is not None,
    "threads": threading.active_count(),
    "loading_s": loading_s,
    # The highest of this program: what getrusage tells includes the process that started it.
    "resident_mb": int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024,
}))
"""


def test_openvino_serves_without_tensorflow_light_and_quickly(bundle: Bundle, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", LIGHT, str(bundle.path.parent.parent)]
    home = {"HOME": str(tmp_path / "home"), "PATH": ""}
    (tmp_path / "home").mkdir()
    done = subprocess.run(command, capture_output=True, check=True, text=True, env=home)
    facts = json.loads(done.stdout)
    assert (facts["runtime"], facts["heavy"], facts["telemetry"]) == ("openvino", [], False)
    assert facts["threads"] == 1
    assert facts["resident_mb"] < 250
    assert facts["loading_s"] < 2
    assert done.stderr == ""
    assert list((tmp_path / "home").iterdir()) == []


def test_keras_starts_without_a_word_on_stderr(bundle: Bundle) -> None:
    script = LIGHT.replace('device="cpu"', 'device="cpu", kind="keras"')
    command = [sys.executable, "-c", script, str(bundle.path.parent.parent)]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    assert json.loads(done.stdout)["runtime"] == "keras"
    assert done.stderr == ""
