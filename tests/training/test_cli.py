"""The commands from the outside, as far as no network has to be trained for it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from bundles import make_bundle
from pigeonholed_training import backend, durations
from pigeonholed_training.__main__ import main
from tiny_pictures import make_data_set


class Said(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    for name in ("PIGEONHOLED_CONFIG", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))

    def call(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["pigeonholed-train", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        return Said(code, *capsys.readouterr())

    return call


def assert_one_clear_error(said: Said, code: int, *words: str) -> None:
    assert said.code == code, said
    assert "Traceback" not in said.err
    for word in words:
        assert word in said.err
    assert said.out == ""


def test_a_bare_command_prints_help(run) -> None:
    said = run()
    assert said.code == 0
    assert {"train", "recipes", "predict", "publish"} <= set(said.out.split())


@pytest.mark.parametrize("command", ["train", "recipes", "predict", "publish"])
def test_every_command_has_help(run, command: str) -> None:
    said = run(command, "--help")
    assert said.code == 0
    assert "Usage: pigeonholed-train " + command in said.out


def test_recipes_are_listed_for_people_and_as_json(run) -> None:
    assert "handwritten digits" in run("recipes").out
    digits = next(one for one in json.loads(run("recipes", "--json").out) if one["name"] == "digits")
    assert digits["epochs"] > 0


@pytest.mark.parametrize(
    ("options", "code", "word"),
    [
        (["--recipe", "digit", "--name", "x"], 2, "did you mean digits?"),
        (["--recipe", "digits", "--name", "a/b"], 2, "--name cannot be used: the name 'a/b' holds"),
        (["--recipe", "digits", "--name", "x", "--set", "epoch=3"], 2, "did you mean epochs?"),
        (["--recipe", "digits", "--name", "x", "--weights", "imagenet"], 2, "--weights imagenet"),
        (["--recipe", "digits", "--name", "x", "--time", "soon"], 2, "such as 90s, 10m or 1.5h"),
        (["--recipe", "digits", "--name", "x", "--precision", "1"], 2, "--precision"),
        (["--recipe", "digits"], 2, "--name"),
    ],
)
def test_a_mistyped_order_is_refused_before_anything_is_made(run, tmp_path: Path, options, code, word) -> None:
    make_data_set(tmp_path / "data", 3)
    assert_one_clear_error(run("train", "data", *options), code, word)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("data", "code"), [("missing", 2), ("empty", 78), ("lonely", 78)])
def test_an_unusable_data_set_leaves_no_run_folder(run, tmp_path: Path, data: str, code: int) -> None:
    (tmp_path / "empty").mkdir()
    make_data_set(tmp_path / "lonely", 5, ("red",))
    said = run("train", data, "--recipe", "digits", "--name", "x")
    assert_one_clear_error(said, code, f"Cannot train on {data}")
    assert not (tmp_path / "runs").exists()


def test_a_recipe_for_two_classes_names_its_twin_for_more(run, tmp_path: Path) -> None:
    make_data_set(tmp_path / "data", 4)
    said = run("train", "data", "--recipe", "binary-256", "--name", "x", "--set", "height=64", "--set", "width=64")
    assert_one_clear_error(said, 2, "tells two classes apart", "has 3", "binary-256-softmax")
    assert not (tmp_path / "runs/x").exists()


def test_an_unwritable_run_folder_is_told(run, tmp_path: Path) -> None:
    make_data_set(tmp_path / "data", 4)
    (tmp_path / "runs").write_bytes(b"a file")
    said = run("train", "data", "--recipe", "digits", "--name", "x")
    assert_one_clear_error(said, 78, "runs/.cache", "--runs")
    said = run("train", "data", "--recipe", "digits", "--name", "x", "--cache", "cache")
    assert_one_clear_error(said, 78, "Cannot write runs/x", "--runs")


def test_a_faulty_configuration_is_found_before_training(run, tmp_path: Path) -> None:
    make_data_set(tmp_path / "data", 4)
    (tmp_path / "pigeonholed.toml").write_text("[models]\ndri = 'x'\n")
    said = run("train", "data", "--recipe", "digits", "--name", "x", "--publish")
    assert_one_clear_error(said, 78, "dri")
    assert not (tmp_path / "runs").exists()


def test_a_missing_extra_is_named_with_its_remedy(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_data_set(tmp_path / "data", 4)
    find = backend.importlib.util.find_spec
    monkeypatch.setattr(backend.importlib.util, "find_spec", lambda name: None if name == "sklearn" else find(name))
    said = run("train", "data", "--recipe", "digits", "--name", "x")
    assert_one_clear_error(said, 69, "pip install 'pigeonholed[train]'")


def test_publishing_what_was_not_trained_is_refused(run, tmp_path: Path) -> None:
    assert_one_clear_error(run("publish", "nowhere"), 78, "nowhere holds no finished training")
    assert not (tmp_path / "models").exists()


def test_predicting_needs_one_model_and_real_paths(run, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"")
    assert_one_clear_error(run("predict", "x.png"), 2, "--model NAME or --run RUN")
    assert_one_clear_error(run("predict", "gone.png", "--model", "m"), 2, "gone.png")
    assert_one_clear_error(run("predict", "x.png", "--model", "m"), 78, "There is no model 'm'")


def test_a_published_model_answers_in_the_words_of_classify(run, tmp_path: Path) -> None:
    make_bundle(tmp_path / "staging", ("red", "blue"), publish_into=tmp_path / "models", name="tiny")
    make_data_set(tmp_path / "new", 1, ("blue", "red"))
    (tmp_path / "new/red/broken.png").write_bytes(b"x")
    said = run("predict", "new", "--model", "tiny", "--json", "--grid", "grid.png")
    assert said.code == 0, said.err
    answers = {one["path"]: one for one in map(json.loads, said.out.splitlines())}
    assert answers["new/blue/000.png"]["label"] == "blue"
    assert answers["new/red/000.png"]["top"][0]["confidence"] == answers["new/red/000.png"]["confidence"] > 0.9
    assert answers["new/red/000.png"]["outcome"] == "sorted"
    assert answers["new/red/broken.png"] == {
        "path": "new/red/broken.png",
        "outcome": "rejected",
        "reason": "unsupported",
        "label": None,
        "confidence": None,
        "top": [],
    }
    assert (tmp_path / "grid.png").read_bytes().startswith(b"\x89PNG")


def test_the_store_of_the_configuration_is_used(run, tmp_path: Path) -> None:
    make_bundle(tmp_path / "staging", ("red", "blue"), publish_into=tmp_path / "elsewhere", name="tiny")
    (tmp_path / "pigeonholed.toml").write_text(
        "[models]\ndir = 'elsewhere'\n[[inbox]]\npath = 'in'\noutput = 'out'\nmodel = 'tiny'\n"
    )
    make_data_set(tmp_path / "new", 1, ("red",))
    said = run("predict", "new", "--model", "tiny")
    assert said.code == 0, said.err
    assert said.out.startswith("new/red/000.png  sorted  red 0.9")


@pytest.mark.parametrize(("text", "expected"), [("90", 90), ("90s", 90), ("10m", 600), ("1.5h", 5400)])
def test_durations_are_read_as_people_write_them(text: str, expected: float) -> None:
    assert durations.seconds(text) == expected
