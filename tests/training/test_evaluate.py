"""`evaluate`, from outside but in this process: what it says of models, and what it leaves behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from helpers import read_tree
from pigeonholed.store import ModelStore
from pigeonholed_training import concluding, evaluating, session
from pigeonholed_training.commands.evaluate import evaluate
from pigeonholed_training.errors import TrainingError
from pigeonholed_training.progress import Narrator
from pigeonholed_training.recipes import find, override
from tiny_pictures import make_data_set, write_picture
from tiny_runs import make_run

pytestmark = [
    pytest.mark.slow,
    # TensorFlow 2.21 with NumPy 2: whenever a variable is read.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]

RECIPE = override(find("digits"), ["height=8", "width=8", "epochs=2", "batch_size=16", "learning_rate=0.01"])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data_set(tmp_path_factory.mktemp("pictures") / "data", 40)


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    session.carry_out(session.Order(data, override(RECIPE, ["shares.test=0.2"]), "tiny", runs), Narrator())
    return runs / "tiny"


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Speed is measured in its own tests; here it would only take time."""
    monkeypatch.setattr(evaluating, "speed", lambda *_, **__: [])


@pytest.fixture
def others(tmp_path: Path) -> Path:
    """Pictures of the same kind that no training here has seen."""
    for label in ("red", "blue"):
        (tmp_path / "others" / label).mkdir(parents=True)
        for number in range(100, 112):
            write_picture(tmp_path / "others" / label / f"{number}.png", label, number)
    return tmp_path / "others"


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(evaluate, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit | TrainingError):
        raise result.exception
    return result


def refused(*arguments: object) -> TrainingError:
    result = run(*arguments)
    assert isinstance(result.exception, TrainingError), result.output
    return result.exception


def metrics_in(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_bytes())
    return found


def published(data: Path, models: Path) -> Path:
    """A store with version 1 of `tiny`, which has learnt the first 20 pictures of each class of `data`."""
    ModelStore(models).publish("tiny", make_run(models.parent / "made/tiny", data) / "bundle")
    return models


def test_a_run_is_judged_again_by_what_it_held_back(trained: Path, fast: None, tmp_path: Path) -> None:
    copy = shutil.copytree(trained, tmp_path / "tiny")
    before = metrics_in(copy)
    (copy / "report.html").unlink()
    said = run(copy)
    assert said.exit_code == 0
    after = metrics_in(copy)
    same = ("held_out", "other_parts", "confidence", "selective", "thresholds", "suspects", "counts", "history")
    assert {key: after[key] for key in same} == {key: before[key] for key in same}
    assert said.output.splitlines()[-1] == f"Report: {copy / 'report.html'}"
    assert after["verdict"]["sentence"] in (copy / "report.html").read_text()
    assert (copy / "bundle/report.html").read_bytes() == (copy / "report.html").read_bytes()
    assert metrics_in(copy / "bundle") == after
    assert reference_in(copy) == reference_in(trained)
    assert reference_in(copy)["n"] == after["held_out"]["n"]
    assert not list(copy.glob(".bundle-*"))


def reference_in(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "bundle/bundle.json").read_text())["reference"]


def test_a_training_leaves_all_that_the_report_shows(trained: Path) -> None:
    found = metrics_in(trained)
    assert found["held_out"]["part"] == "test"
    assert {"verdict", "confidence", "selective", "behaviour", "suspects", "speed", "agreement", "gates"} <= set(found)
    assert {one["what"] for one in found["behaviour"]["strangers"]} >= {"noise", "pages of text"}
    assert [one["runtime"] for one in found["speed"]] == ["openvino", "keras"]
    assert len((trained / "predictions.csv").read_text().splitlines()) == found["held_out"]["n"] + 1
    parts = found["counts"].values()
    learnt = sum(one[part] for one in parts for part in ("train", "validation", "calibration"))
    assert len((trained / "learnt.txt").read_text().split()) == learnt


def test_a_run_whose_pictures_are_others_now_is_refused(trained: Path, tmp_path: Path, data: Path) -> None:
    copy = shutil.copytree(trained, tmp_path / "tiny")
    other = make_data_set(tmp_path / "data", 20)
    origin = json.loads((copy / "origin.json").read_bytes())
    (copy / "origin.json").write_text(json.dumps(origin | {"data": str(other), "cache": str(tmp_path / "cache")}))
    before = read_tree(copy)
    fault = refused(copy)
    assert (fault.exit_code, "not those that it was trained on" in str(fault)) == (78, True)
    assert read_tree(copy) == before
    (copy / "origin.json").unlink()
    assert "does not say where its pictures are" in str(refused(copy))


def test_a_disk_that_fills_up_leaves_the_run_as_it_was(
    trained: Path, fast: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(trained, tmp_path / "tiny")
    before = read_tree(copy)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(concluding, "of_bundle", full)
    fault = refused(copy)
    assert (fault.exit_code, "No space left" in str(fault)) == (69, True)
    assert read_tree(copy) == before


def test_a_published_model_is_judged_by_other_pictures(fast: None, data: Path, others: Path, tmp_path: Path) -> None:
    models = published(data, tmp_path / "models")
    before = read_tree(models)
    said = run("tiny", others, "--models", models, "--out", tmp_path / "out")
    assert said.exit_code == 0
    found = metrics_in(tmp_path / "out")
    assert (found["held_out"]["n"], found["held_out"]["accuracy"]["value"]) == (24, 1.0)
    assert found["leaks"] == {"checked": 24, "seen": 0, "alike": None, "examples": []}
    assert (tmp_path / "out/report.html").is_file()
    assert len((tmp_path / "out/predictions.csv").read_text().splitlines()) == 25
    assert read_tree(models) == before


def test_a_model_that_is_judged_by_what_it_learnt_is_told(fast: None, data: Path, tmp_path: Path) -> None:
    models = published(data, tmp_path / "models")
    shutil.copytree(data, tmp_path / "two", ignore=shutil.ignore_patterns("green"))
    said = run("tiny/1", tmp_path / "two", "--models", models, "--out", tmp_path / "out", "--json")
    found = json.loads(said.stdout)
    assert found["leaks"]["seen"] == 40
    assert found["verdict"]["level"] == "bad"
    assert "learnt from" in found["verdict"]["sentence"]


def test_a_runs_own_pictures_are_told_even_when_they_are_saved_anew(
    trained: Path, fast: None, data: Path, tmp_path: Path
) -> None:
    import cv2

    for path in data.rglob("*.png"):
        (tmp_path / "again" / path.parent.name).mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(tmp_path / "again" / path.parent.name / f"{path.stem}.bmp"), cv2.imread(str(path)))
    found = json.loads(run(trained, tmp_path / "again", "--out", tmp_path / "out", "--json").stdout)
    assert found["leaks"]["seen"] == 0
    assert found["leaks"]["alike"] is not None


def test_strangers_of_the_users_own_are_shown(fast: None, data: Path, others: Path, tmp_path: Path) -> None:
    models = published(data, tmp_path / "models")
    (tmp_path / "empty scenes").mkdir()
    fault = refused(
        "tiny", others, "--models", models, "--out", tmp_path / "out", "--strangers", tmp_path / "empty scenes"
    )
    assert (fault.exit_code, "no picture that can be read" in str(fault)) == (78, True)
    write_picture(tmp_path / "empty scenes/1.png", "green", 1)
    run("tiny", others, "--models", models, "--out", tmp_path / "out", "--strangers", tmp_path / "empty scenes")
    (own,) = [one for one in metrics_in(tmp_path / "out")["behaviour"]["strangers"] if one["what"] == "empty scenes"]
    assert own["n"] == 1


def test_what_cannot_be_judged_is_one_sentence(data: Path, tmp_path: Path) -> None:
    models = published(data, tmp_path / "models")
    fault = refused("tiny", data, "--models", models, "--out", tmp_path / "out")
    assert (fault.exit_code, "does not know their class 'green'" in str(fault)) == (78, True)
    assert (refused("tiny", "--models", models).exit_code, refused("none", data, "--models", models).exit_code) == (
        2,
        78,
    )
    assert "--out is for pictures" in str(refused(make_run(tmp_path / "run", data), "--out", tmp_path / "out"))
    assert not (tmp_path / "out").exists()
