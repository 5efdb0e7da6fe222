"""The parts of an import that need no network: labels, scalings, trials on answers that are made up."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pigeonholed_training.commands import import_ as command
from pigeonholed_training.errors import Misconfigured, WrongUsage
from pigeonholed_training.importing import rules, trying
from pigeonholed_training.importing.naming import labels_of
from pigeonholed_training.importing.outputs import Meaning

SOFTMAX = Meaning("softmax", bare=True)


@pytest.mark.parametrize(
    "content",
    [
        "cat\ndog\n\n",
        "\ufeffcat\r\ndog\r\n",
        "0 cat\n1 dog\n",
        '["cat", "dog"]',
        '{"cat": 0, "dog": 1}',
        '{"dog": 1, "cat": 0}',
        '{"1": "dog", "0": "cat"}',
    ],
)
def test_labels_are_read_as_people_write_them_down(tmp_path: Path, content: str) -> None:
    (tmp_path / "labels").write_text(content, encoding="utf-8")
    assert labels_of(str(tmp_path / "labels")) == ("cat", "dog")


def test_labels_on_the_command_line_keep_their_order() -> None:
    assert labels_of("dog, cat,a b") == ("dog", "cat", "a b")


@pytest.mark.parametrize("content", ['{"cat": 1, "dog": 2}', "[1, 2]", "[", '{"a": "b"}', '{"cat": 0, "dog": 0}'])
def test_labels_of_another_form_are_refused_with_the_right_ones(tmp_path: Path, content: str) -> None:
    (tmp_path / "labels").write_text(content)
    with pytest.raises(Misconfigured, match="one label a line, a JSON list"):
        labels_of(str(tmp_path / "labels"))


def test_labels_that_cannot_be_folders_or_are_no_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"the label '\.\.' begins with"):
        labels_of("cat,..")
    with pytest.raises(WrongUsage, match="no such file"):
        labels_of("labels.txt")
    (tmp_path / "one").write_text("cat\n")
    with pytest.raises(Misconfigured, match="1 labels"):
        labels_of(str(tmp_path / "one"))


def test_the_command_offers_every_rule() -> None:
    assert command.RULES == rules.NAMES


@pytest.mark.parametrize(("rule", "mode"), [("-1..1", "tf"), ("torch", "torch"), ("caffe", "caffe")])
def test_rules_are_those_of_keras_applications(rule: str, mode: str) -> None:
    from pigeonholed.classifying.keras import import_keras

    keras = import_keras()
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 6, 3), np.uint8)
    expected = keras.applications.imagenet_utils.preprocess_input(pixels.astype(np.float32), mode=mode)
    np.testing.assert_allclose(rules.named(rule).apply(pixels), expected, atol=1e-4)


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
@pytest.mark.parametrize("rule", rules.NAMES)
def test_layers_of_a_rule_do_what_the_rule_does(rule: str) -> None:
    from pigeonholed.classifying.keras import import_keras

    keras = import_keras()
    symbolic = keras.Input((5, 6, 3), dtype="uint8")
    model = keras.Model(symbolic, rules.named(rule).layers(keras, symbolic))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 6, 3), np.uint8)
    np.testing.assert_allclose(model(pixels), rules.named(rule).apply(pixels), atol=1e-4)


TARGETS = np.repeat([0, 1, 2], 20).astype(np.int32)


def answers_of(said: np.ndarray, sure: float = 0.9) -> np.ndarray:
    """Probabilities of a model that says these classes."""
    rows = np.full((len(said), 3), (1 - sure) / 2, np.float32)
    rows[np.arange(len(said)), said] = sure
    return rows


def trials(**said: np.ndarray) -> trying.Trials:
    """What each rule led to; rules that are not named say the first class always."""
    given = {rule: answers_of(np.zeros(60, int)) for rule in rules.NAMES}
    given |= {name.replace("_to_", ".."): answers_of(classes) for name, classes in said.items()}
    return trying.judge(given, SOFTMAX, TARGETS, 3)


RANDOM = np.random.default_rng(3).permutation(TARGETS)
NAMES = ("a", "b", "c")


def test_the_most_accurate_rule_is_the_best_and_of_equals_the_likeliest() -> None:
    assert trials(torch=TARGETS).best.rule == "torch"
    tied = trying.judge({"0..1": answers_of(TARGETS, 0.6), "torch": answers_of(TARGETS, 0.9)}, SOFTMAX, TARGETS, 3)
    assert tied.best.rule == "torch"


def test_what_says_always_the_same_is_at_chance_however_uneven_the_classes() -> None:
    uneven = np.array([0] * 54 + [1] * 6, np.int32)
    always = trying.judge({"torch": answers_of(np.zeros(60, int))}, SOFTMAX, uneven, 3)
    assert always.best.accuracy == 0.9
    assert always.best.is_chance
    knows = uneven.copy()
    knows[50:55] = [1, 1, 1, 1, 0]  # no better than 90 %, and yet it knows the rare class
    found = trying.judge({"torch": answers_of(knows)}, SOFTMAX, uneven, 3)
    assert found.best.accuracy < 0.95
    assert not found.best.is_chance


def test_six_of_six_are_knowledge() -> None:
    few = np.array([0, 0, 0, 1, 1, 1], np.int32)
    assert not trying.judge({"torch": answers_of(few)}, SOFTMAX, few, 3).best.is_chance


def test_no_warning_where_the_chosen_rule_knows_something() -> None:
    half = np.where(np.arange(60) % 2 == 0, TARGETS, 0)
    assert trying.warnings_about(trials(torch=TARGETS, caffe=half), "caffe", NAMES, None) == []


def test_two_labels_of_many_that_are_swapped_are_noticed() -> None:
    twisted = np.array([0, 2, 1])[TARGETS]
    (said,) = trying.warnings_about(trials(torch=twisted), "torch", NAMES, None)
    assert "with --labels a,c,b the model would be right for 100.0 % of the samples instead of 33.3 %" in said


def test_the_order_that_is_named_is_that_of_the_outputs() -> None:
    turned = np.array([1, 2, 0])[TARGETS]  # output 1 is said of a, output 2 of b, output 0 of c
    (said,) = trying.warnings_about(trials(torch=turned), "torch", NAMES, None)
    assert "--labels c,a,b" in said


def test_luck_is_not_taken_for_another_order() -> None:
    (said,) = trying.warnings_about(trials(torch=RANDOM), "torch", NAMES, None)
    assert "chance level" in said
    assert "no other scaling" in said


def test_an_answer_that_is_not_finite_is_wrong_and_no_crash() -> None:
    given = answers_of(TARGETS)
    given[TARGETS > 0] = np.nan
    assert trying.judge({"torch": given}, SOFTMAX, TARGETS, 3).best.right == 20


def test_a_table_marks_the_chosen_rule_and_chance() -> None:
    lines = trials(torch=TARGETS).table("torch")
    assert len(lines) == 1 + len(rules.NAMES)
    (chosen,) = [line for line in lines if line.startswith("*")]
    assert "torch" in chosen
    assert not chosen.endswith("chance")
    assert lines[1].endswith("chance")


def test_trials_can_be_written_as_json() -> None:
    from dataclasses import asdict

    assert json.loads(json.dumps(asdict(trials().best)))["n"] == 60
