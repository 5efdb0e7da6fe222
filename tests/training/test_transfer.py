"""Transfer as a whole: a head on features, then fine-tuning, which must earn its place."""

from __future__ import annotations

import dataclasses

import pytest

from pigeonholed.classifying.keras import import_keras
from pigeonholed_training import session
from pigeonholed_training.progress import Narrator
from pigeonholed_training.recipes import find, override
from tiny_pictures import make_data_set

pytestmark = [
    pytest.mark.slow,
    # TensorFlow 2.21 with NumPy 2: whenever a variable is read.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]

SMALL = ["backbone=mobilenet-v1-025", "height=32", "width=32", "batch_size=8", "finetune.epochs=1"]


class Listener(Narrator):
    """Keeps what was said."""

    def __init__(self) -> None:
        super().__init__()
        self.said = ""

    def say(self, message: str) -> None:
        self.said += message + "\n"


@pytest.fixture(scope="module")
def order(tmp_path_factory: pytest.TempPathFactory) -> session.Order:
    folder = tmp_path_factory.mktemp("transfer")
    make_data_set(folder / "data", 16, ("blue", "red"))
    applications = import_keras().applications
    backbone = applications.MobileNet(include_top=False, weights=None, input_shape=(32, 32, 3), alpha=0.25)
    backbone.save_weights(folder / "w.weights.h5")
    recipe = override(find("mobilenet-v2"), SMALL)
    return session.Order(
        folder / "data", recipe, "x", folder / "runs", cache=folder / "cache", weights=str(folder / "w.weights.h5")
    )


def test_fine_tuning_that_does_not_help_is_undone(order: session.Order) -> None:
    harmful = dataclasses.replace(order, recipe=override(order.recipe, ["finetune.learning_rate=0.5"]))
    listener = Listener()

    metrics = session.carry_out(harmful, listener)

    head, tuned = metrics["history"]
    assert (head["phase"], tuned["phase"]) == ("head", "finetune")
    assert tuned["validation_loss"] > head["validation_loss"]
    assert "Fine-tuning did not help" in listener.said
    assert metrics["other_parts"]["validation"]["value"] == pytest.approx(head["validation_accuracy"], abs=1e-6)


def test_a_rehearsal_estimates_both_phases_and_makes_no_run_folder(order: session.Order) -> None:
    said = session.rehearse(dataclasses.replace(order, name="y"), Listener())
    head, tuned = said.splitlines()
    assert head.startswith("head: features of 32 pictures")
    assert head.endswith("a logistic regression on them.")
    assert tuned.startswith("finetune: ")
    assert not (order.runs / "y").exists()
