"""Models side by side, wherever they are, on pictures that none of them has learnt from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pigeonholed.store import ModelStore
from pigeonholed_training import entrants
from pigeonholed_training.commands.compare import compare
from pigeonholed_training.errors import Misconfigured, TrainingError, WrongUsage
from pigeonholed_training.evaluation.record import LEARNT, PREDICTIONS
from tiny_pictures import make_data_set
from tiny_runs import make_run

SWAPPED = ("blue", "red")  # a network that is wrong of every picture


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data_set(tmp_path_factory.mktemp("pictures") / "data", 40, ("red", "blue"))


@pytest.fixture
def place(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a run that is right of 30 of 40 pictures, and `tiny` in a store: of 38, then of 40."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("PIGEONHOLED_CONFIG", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    make_run(tmp_path / "runs/mine", data, wrong=range(20, 25))
    for wrong in ([20], []):
        shutil.rmtree(tmp_path / "made", ignore_errors=True)
        ModelStore(tmp_path / "models").publish("tiny", make_run(tmp_path / "made", data, wrong=wrong) / "bundle")
    return tmp_path


def call(*arguments: object) -> Result:
    return CliRunner().invoke(compare, [str(one) for one in arguments])


def told(*arguments: object) -> dict[str, Any]:
    said = call(*arguments, "--json")
    assert said.exit_code == 0, said.output
    found: dict[str, Any] = json.loads(said.stdout)
    return found


def refused(*arguments: object) -> str:
    said = call(*arguments)
    assert isinstance(said.exception, TrainingError), said.exception
    assert said.stdout == ""
    return str(said.exception)


def accuracies(found: dict[str, Any]) -> list[int]:
    return [model["accuracy"]["right"] for model in found["models"]]


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("tiny", "tiny/2"),
        ("tiny/1", "tiny/1"),
        ("tiny@1", "tiny/1"),
        ("runs/mine", "runs/mine"),
        ("models/tiny/1", "tiny/1"),
    ],
)
def test_a_model_is_named_by_its_run_or_by_name_and_version(place: Path, text: str, title: str) -> None:
    assert entrants.find(text, place / "models").title == title


@pytest.mark.parametrize("text", ["tin", "runs/other", "runs", "tiny/x", "../tiny", "mine@1"])
def test_what_is_no_model_is_told_with_what_there_is(place: Path, text: str) -> None:
    with pytest.raises(Misconfigured, match=r"neither a folder with a finished .* which has tiny\."):
        entrants.find(text, Path("models"))


def test_a_version_that_is_not_there_is_told_with_those_that_are(place: Path) -> None:
    with pytest.raises(Misconfigured, match=r"no version 7 .* it has 1, 2"):
        entrants.find("tiny/7", Path("models"))


def test_runs_and_versions_are_compared_on_what_judged_them_all(place: Path) -> None:
    found = told("runs/mine", "tiny", "tiny/1")
    assert found["pictures"] == 40
    assert accuracies(found) == [30, 40, 38]
    assert [pair["other"] for pair in found["pairs"]] == ["tiny/2", "tiny/1"]
    assert found["pairs"][0]["says"] == (
        "tiny/2 is right on 10 more of 40 pictures than runs/mine; that is more than chance would give (p = 0.002)."
    )
    assert found["notes"] == []


def test_the_table_can_be_read_at_eighty_columns(place: Path) -> None:
    said = call("runs/mine", "tiny", "tiny/1")
    assert said.exit_code == 0, said.output
    lines = said.stdout.splitlines()
    assert lines[:3] == ["A  runs/mine", "B  tiny/2", "C  tiny/1"]
    rows = {line[:26].strip(): line[26:].split() for line in lines if line[:26].strip()}
    assert max(map(len, lines)) <= 80
    assert rows["right"] == ["75.0", "%", "100.0", "%", "95.0", "%"]
    assert "On the same 40 pictures" in said.stdout
    assert "C is right on 8 more of 40 pictures than A; that is more than chance would give" in said.stdout


def test_pictures_that_any_has_learnt_from_are_left_out(place: Path, data: Path) -> None:
    make_run(place / "runs/other", data, judged=range(15, 40), learnt=range(15))
    make_run(place / "runs/third", data, judged=range(15, 40), learnt=range(10))
    found = told("runs/other", "runs/third")
    assert (found["pictures"], found["notes"]) == (50, [])
    make_run(place / "runs/leaky", data, judged=range(15, 40), learnt=range(20))  # its test part has what it learnt
    assert told("runs/other", "runs/leaky")["pictures"] == 40
    make_run(place / "runs/taught", data, judged=range(35), learnt=range(35, 40))
    found = told("runs/other", "runs/taught", "--data", data)
    assert found["pictures"] == 40  # 15 to 34; the others taught one or the other
    assert found["notes"] == ["40 pictures are left out, because one of the models has learnt from it."]


def test_too_few_common_pictures_ask_for_others(place: Path, data: Path) -> None:
    make_run(place / "runs/other", data, judged=[20, 21], learnt=())
    said = refused("tiny", "runs/other")
    assert "Cannot compare tiny/2 and runs/other: only 4 picture(s) judged every one of them" in said
    assert "--data DIR" in said


def test_a_model_without_a_record_asks_for_pictures(place: Path) -> None:
    (place / "runs/mine" / PREDICTIONS).unlink()
    said = refused("runs/mine", "tiny")
    assert "runs/mine without pictures: it does not say what it was judged on" in said
    assert "--data DIR" in said


def test_calibration_pictures_may_judge_and_that_is_told(place: Path, data: Path) -> None:
    for name in ("a", "b"):
        make_run(place / name, data, learnt=range(40), part="calibration")
    found = told("a", "b")
    assert found["pictures"] == 40
    assert "calibrated a model" in found["notes"][0]


def test_every_model_is_asked_about_pictures_that_are_given(place: Path, data: Path) -> None:
    make_run(place / "runs/wrong", data, SWAPPED, learnt=())
    found = told("tiny", "runs/wrong", "--data", data)
    assert found["pictures"] == 40  # tiny has learnt from the other half
    assert accuracies(found) == [40, 0]
    assert found["models"][1]["nll"] > found["models"][0]["nll"]
    assert "40 pictures are left out" in found["notes"][0]


def test_each_model_gets_the_pixels_that_it_wants(place: Path, data: Path) -> None:
    from bundles import make_bundle

    make_bundle(place / "large", ("red", "blue"), 16, place / "models", name="large", threshold=1.0)
    found = told("tiny", "large", "--data", data)
    assert accuracies(found) == [40, 40]
    assert [model["pixels"] for model in found["models"]] == [[8, 8], [16, 16]]
    assert [model["unsure_share"] for model in found["models"]] == [0, 1]  # and each its own thresholds
    assert "large/1 does not say what was learnt from" in found["notes"][0]


def test_the_test_part_of_a_split_data_set_is_taken(place: Path, data: Path) -> None:
    new = place / "split"
    make_data_set(new / "train", 50, ("red", "blue"))
    make_data_set(new / "test", 25, ("red", "blue"))
    for label in ("red", "blue"):
        for number in range(25):
            kept = new / "train" / label / f"{number + 20:03d}.png"
            kept.rename(new / "test" / label / f"{number:03d}.png")
    assert told("tiny", "tiny/1", "--data", new)["pictures"] == 50


def test_a_list_and_files_that_are_no_pictures_will_do(place: Path, data: Path) -> None:
    lines = [f"{label}/{number:03d}.png,{label}\n" for label in ("red", "blue") for number in range(20, 25)]
    own = shutil.copytree(data, place / "own")
    (own / "red/020.png").write_bytes(b"no picture")
    (own / "list.csv").write_text("path,label\n" + "".join(lines))
    assert told("tiny", "tiny/1", "--data", own / "list.csv")["pictures"] == 9


def test_models_with_other_classes_are_compared_on_common_ones_and_that_is_told(place: Path) -> None:
    more = make_data_set(place / "more", 40)
    make_run(place / "runs/more", more, ("red", "blue", "green"), learnt=())
    found = told("tiny", "runs/more")
    assert (found["labels"], found["pictures"]) == (["red", "blue"], 40)
    assert "different classes; compared are pictures of the common ones, red, blue" in found["notes"][0]
    found = told("tiny", "runs/more", "--data", more)
    assert "40 pictures are of classes that not every model knows" in found["notes"][-1]


def test_nothing_in_common_is_one_sentence(place: Path, data: Path) -> None:
    from bundles import make_bundle

    make_bundle(place / "cows", ("cow", "pig"), 8, place / "models", name="farm")
    said = refused("tiny", "farm", "--data", data)
    assert "tiny/2 and farm/1: they have no class in common; one knows red, blue, the other cow, pig." in said
    said = refused("farm", "farm", "--data", data)
    assert "its classes blue, red are none that the models know, cow, pig" in said


def test_what_is_left_when_all_was_learnt_is_told(place: Path, data: Path) -> None:
    make_run(place / "runs/all", data, judged=(), learnt=range(40))
    said = refused("tiny", "runs/all", "--data", data)
    assert "no picture is left. 80 pictures are left out" in said


def test_mistakes_of_the_command_line_are_told(place: Path) -> None:
    assert isinstance(call("tiny").exception, WrongUsage)
    assert "Cannot compare on nowhere" in refused("tiny", "tiny/1", "--data", "nowhere")


def test_a_damaged_version_cannot_be_compared(place: Path) -> None:
    (place / "models/tiny/1" / LEARNT).write_text("damaged")
    assert "learnt.txt does not match its checksum" in refused("tiny/1", "tiny/2")


def test_metrics_of_an_older_version_lack_what_is_new(place: Path) -> None:
    path = place / "runs/mine/metrics.json"
    path.write_text(json.dumps({"name": "mine", "speed": None, "held_out": None}))
    assert told("runs/mine", "tiny")["models"][0]["judged"] == {"n": None, "accuracy": None}
    assert call("runs/mine", "tiny").exit_code == 0
    path.write_text(json.dumps({"confidence": {"after": {"adaptive_ece": 0.0123}}, "speed": [
        {"runtime": "keras", "pictures_per_s": 9.0}, {"runtime": "openvino", "pictures_per_s": 5.0}]}))  # fmt: skip
    found = told("runs/mine", "tiny")["models"][0]
    assert (found["adaptive_ece"], found["pictures_per_s"]) == (0.0123, 5.0)
