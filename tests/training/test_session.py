"""A whole training on tiny pictures; TensorFlow is imported here and one run serves many claims."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from click.testing import CliRunner

from pigeonholed.bundle import Bundle, Manifest
from pigeonholed.classifying import load_classifier
from pigeonholed.classifying.keras import load_model
from pigeonholed.store import ModelStore
from pigeonholed_training import publishing, releasing, session
from pigeonholed_training.cli import cli
from pigeonholed_training.errors import Misconfigured, TrainingError
from pigeonholed_training.progress import Narrator
from pigeonholed_training.recipes import find, override
from tiny_pictures import make_data_set, write_picture

pytestmark = [
    pytest.mark.slow,
    # TensorFlow 2.21 with NumPy 2: whenever a variable is read.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]

RECIPE = override(find("digits"), ["height=8", "width=8", "epochs=3", "batch_size=16", "learning_rate=0.01"])


class Listener(Narrator):
    """Keeps what was said; stops the training, as a kill would, after a line with `fatal` in it."""

    def __init__(self, fatal: str = "nothing says this") -> None:
        super().__init__()
        self.lines: list[str] = []
        self._fatal = fatal

    def say(self, message: str) -> None:
        super().say(message)
        self.lines.append(message)
        if self._fatal in message:
            raise KeyboardInterrupt


class Trained(NamedTuple):
    order: session.Order
    metrics: dict[str, Any]
    lines: list[str]

    @property
    def run(self) -> Path:
        return self.order.runs / self.order.name


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_data_set(tmp_path_factory.mktemp("pictures") / "data", 40)
    (folder / "red/broken <b>.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    order = session.Order(data, RECIPE, "tiny", tmp_path_factory.mktemp("runs"))
    listener = Listener()
    return Trained(order, session.carry_out(order, listener), listener.lines)


def weights(run: Path) -> list[np.ndarray]:

    return load_model((run / "model.keras").read_bytes(), run).get_weights()


def without_times(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def test_the_run_folder_is_complete(trained: Trained) -> None:
    names = {path.name for path in trained.run.iterdir()}
    assert names == {
        *("settings.json", "train.log", "history.csv", "model.keras", "curves.png", "metrics.json", "report.html"),
        *("bundle", "checkpoints", "tensorboard", ".lock", "origin.json", "predictions.csv", "learnt.txt"),
    }
    with open(trained.run / "history.csv", newline="") as stream:
        assert [row["epoch"] for row in csv.DictReader(stream)] == ["1", "2", "3"]
    assert json.loads((trained.run / "metrics.json").read_text()) == trained.metrics
    assert (trained.run / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "epoch 3/3" in (trained.run / "train.log").read_text()


def test_bad_pictures_are_listed_and_the_rest_is_learnt(trained: Trained) -> None:
    assert [bad["path"] for bad in trained.metrics["bad"]] == ["red/broken <b>.png"]
    assert any("Passed over 'red/broken <b>.png'" in line for line in trained.lines)
    assert trained.metrics["held_out"]["accuracy"]["value"] == 1.0


def test_the_report_needs_nothing_else_and_escapes_what_users_name(trained: Trained) -> None:
    page = (trained.run / "report.html").read_text()
    assert "broken &lt;b&gt;.png" in page
    assert "broken <b>" not in page
    assert 'src="data:image/' in page
    assert "<svg" in page
    assert not re.search(r"""(src|href)=["']?(https?:|/)""", page)
    assert trained.metrics["verdict"]["sentence"] in page


def test_the_bundle_says_what_it_is(trained: Trained, tmp_path: Path) -> None:
    bundle = releasing.publish(trained.run / "bundle", "tiny", tmp_path / "models")
    manifest = Bundle.open(bundle.path).manifest
    assert manifest.labels == ("blue", "green", "red")
    assert (manifest.input.height, manifest.output, manifest.recipe, manifest.seed) == (8, "logits", "digits", 0)
    assert manifest.data_fingerprint == trained.metrics["data_fingerprint"]
    calibration = manifest.calibration
    assert (calibration.method, calibration.runtime, calibration.precision) == ("temperature", "openvino", "f32")
    assert calibration.n == sum(row["calibration"] for row in trained.metrics["counts"].values())
    assert manifest.metrics["accuracy"]["value"] == 1.0
    assert {"python", "keras", "openvino"} <= manifest.versions.keys()
    assert ModelStore(tmp_path / "models").current("tiny") == 1


def test_the_bundle_says_what_was_said_of_the_pictures_that_judged_it(trained: Trained) -> None:
    with open(trained.run / "predictions.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    reference = Manifest.model_validate_json((trained.run / "bundle/bundle.json").read_bytes()).reference
    assert reference is not None
    assert (reference.n, {reference.part}) == (len(rows), {row["part"] for row in rows})
    assert reference.labels == tuple(sum(row["said"] == label for row in rows) for label in ("blue", "green", "red"))
    assert reference.unsure == sum(row["outcome"] == "unsure" for row in rows)
    below = [sum(float(row["confidence"]) < level for row in rows) for level in reference.levels]
    assert list(reference.below) == below


def test_too_few_pictures_for_a_promise_still_sort(trained: Trained) -> None:
    assert {threshold["method"] for threshold in trained.metrics["thresholds"]} == {"best-f1"}
    assert trained.metrics["held_out"]["unsure_share"] <= 0.05


def test_both_runtimes_agree(trained: Trained, tmp_path: Path) -> None:

    assert trained.metrics["agreement"]["largest_difference"] < 0.001
    bundle = releasing.publish(trained.run / "bundle", "tiny", tmp_path / "models")
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
    openvino, keras = (
        load_classifier(bundle, kind=kind, device="cpu").predict(pixels) for kind in ("openvino", "keras")
    )
    assert np.abs(openvino - keras).max() < 0.001


def test_a_disagreeing_export_is_refused(trained: Trained) -> None:
    served = np.array([[0.9, 0.1]], np.float32)
    with pytest.raises(TrainingError, match=r"differ by up to 0\.050"):
        publishing._agreement(served, np.array([[0.85, 0.15]]))
    with pytest.raises(TrainingError, match="disagrees"):
        publishing._agreement(served, np.array([[np.nan, np.nan]]))


def test_an_interrupted_training_goes_on_to_the_same_end(trained: Trained, tmp_path: Path) -> None:
    order = dataclasses.replace(trained.order, runs=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        session.carry_out(order, Listener(fatal="epoch 1/3"))
    assert not (tmp_path / "tiny/metrics.json").exists()
    listener = Listener()
    metrics = session.carry_out(order, listener)
    assert "Going on after epoch 1 of 3." in listener.lines
    assert not any(line.startswith("epoch 1/3") for line in listener.lines)
    assert without_times(metrics["history"]) == without_times(trained.metrics["history"])
    for resumed, straight in zip(weights(tmp_path / "tiny"), weights(trained.run), strict=True):
        assert np.array_equal(resumed, straight)


def test_a_rehearsal_says_what_would_be_done_and_makes_no_run_folder(trained: Trained, tmp_path: Path) -> None:
    said = session.rehearse(dataclasses.replace(trained.order, runs=tmp_path), Listener())
    assert re.search(r"train: [\d,]+ weights, .* 67 pictures in 5 steps of 16; 3 epochs, about .* in all", said), said
    assert not (tmp_path / "tiny").exists()


def test_another_seed_is_another_model(trained: Trained, tmp_path: Path) -> None:
    order = dataclasses.replace(trained.order, runs=tmp_path, seed=1)
    assert without_times(session.carry_out(order, Listener())["history"]) != without_times(trained.metrics["history"])


def test_a_finished_run_is_not_trained_again(trained: Trained) -> None:
    listener = Listener()
    again = session.carry_out(trained.order, listener)
    assert not any(line.startswith("epoch ") for line in listener.lines)
    assert again["history"] == trained.metrics["history"]
    assert again["thresholds"] == trained.metrics["thresholds"]


def test_other_settings_in_the_same_folder_are_refused(trained: Trained) -> None:
    order = dataclasses.replace(trained.order, recipe=override(RECIPE, ["epochs=4"]))
    with pytest.raises(Misconfigured, match=r"other settings \(recipe\).*--fresh"):
        session.carry_out(order, Listener())


def test_pictures_added_since_are_noticed(trained: Trained, tmp_path: Path) -> None:
    more = make_data_set(tmp_path / "data", 40)
    write_picture(more / "red/new.png", "red", 1000)
    with pytest.raises(Misconfigured, match="the pictures"):
        session.carry_out(dataclasses.replace(trained.order, data=more), Listener())


def test_a_damaged_checkpoint_is_told_with_the_way_out(trained: Trained, tmp_path: Path) -> None:
    order = dataclasses.replace(trained.order, runs=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        session.carry_out(order, Listener(fatal="epoch 1/3"))
    (tmp_path / "tiny/checkpoints/train-0001.npz").write_bytes(b"damaged")
    with pytest.raises(Misconfigured, match="--fresh"):
        session.carry_out(order, Listener())


def test_a_time_budget_ends_training_early_with_a_whole_model(trained: Trained, tmp_path: Path) -> None:
    order = dataclasses.replace(trained.order, runs=tmp_path, budget_s=1e-6)
    metrics = session.carry_out(order, Listener())
    assert len(metrics["history"]) == 1
    assert (tmp_path / "tiny/bundle/bundle.json").exists()


def test_a_run_is_published_and_predicts_from_the_command_line(trained: Trained, tmp_path: Path) -> None:

    models = tmp_path / "models"
    said = CliRunner().invoke(cli, ["publish", str(trained.run), "--models", str(models), "--name", "other"])
    assert said.exit_code == 0, said.output
    assert "Published other version 1" in said.output
    write_picture(tmp_path / "x.png", "green", 777)
    for source in (["--model", "other", "--models", str(models)], ["--run", str(trained.run)]):
        said = CliRunner().invoke(cli, ["predict", str(tmp_path / "x.png"), *source, "--json"])
        assert json.loads(said.output)["label"] == "green", said.output
