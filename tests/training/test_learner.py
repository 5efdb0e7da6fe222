"""Single steps of the optimisers; TensorFlow is imported here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pigeonholed.classifying.keras import import_keras
from pigeonholed_training.fitting import precision
from pigeonholed_training.fitting.learner import Learner
from pigeonholed_training.fitting.plan import Plan
from tiny_fitting import PICTURES, TARGETS, network

pytestmark = [
    pytest.mark.slow,
    # TensorFlow 2.21 with NumPy 2: whenever a variable is read.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]

PLAN = Plan("train", "softmax", epochs=1, learning_rate=0.1)


def steps(plan: Plan, rate: float = 0.1, units: int = 2, targets: np.ndarray = TARGETS) -> tuple[Learner, list[Any]]:
    """A learner after one step, and how far each of its trained weights went."""
    learner = Learner(network(units), plan)
    before = [np.array(variable) for variable in learner.model.trainable_variables]
    learner.learn(PICTURES[:16], targets[:16], rate)
    after = [np.array(variable) for variable in learner.model.trainable_variables]
    return learner, [new - old for new, old in zip(after, before, strict=True)]


def test_gradients_are_clipped_all_together() -> None:
    _, went = steps(replace(PLAN, optimiser="sgd", momentum=0.0, clip_norm=0.01), rate=1.0)
    assert np.sqrt(sum((one**2).sum() for one in went)) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("optimiser", ["adam", "adamw", "sgd"])
def test_weights_decay_and_biases_and_scales_do_not(optimiser: Any) -> None:
    # Classes that count nothing have no gradient: what moves is decay alone.
    idle = replace(PLAN, optimiser=optimiser, class_weights=(0.0, 0.0), weight_decay=0.5)
    learner, went = steps(idle)
    for variable, moved in zip(learner.model.trainable_variables, went, strict=True):
        kept = 1 - 0.1 * 0.5 if len(variable.shape) > 1 else 1.0
        before = np.array(variable) - moved
        assert np.allclose(np.array(variable), kept * before, atol=1e-7), variable.path


def test_a_class_counts_by_its_weight() -> None:
    learner = Learner(network(), replace(PLAN, class_weights=(0.0, 3.0)))
    first, second = (learner.learn(PICTURES[:16], np.full(16, target, np.int32), 0.0)[0] for target in (0, 1))
    assert (first, second > 0) == (0.0, True)


def test_a_single_logit_above_nought_is_the_second_class() -> None:
    leaning = network(1)
    leaning.layers[-1].set_weights([np.zeros((4, 1)), np.array([0.2])])
    learner = Learner(leaning, replace(PLAN, output="sigmoid"))
    shares = [learner.learn(PICTURES[:16], np.full(16, target, np.int32), 0.0)[1] for target in (0, 1)]
    assert shares == [0.0, 1.0]


def test_smoothed_labels_keep_the_loss_of_a_sure_network_up() -> None:
    sure = network(1)
    sure.layers[-1].bias.assign([60.0])
    ones = np.ones(16, np.int32)
    plan = replace(PLAN, output="sigmoid")
    assert Learner(sure, plan).learn(PICTURES[:16], ones, 0.0) == (pytest.approx(0.0, abs=1e-6), 1.0)
    assert Learner(sure, replace(plan, label_smoothing=0.1)).learn(PICTURES[:16], ones, 0.0)[0] > 1.0


def test_what_was_put_down_is_taken_up_again() -> None:
    plan = replace(PLAN, ema=0.9, weight_decay=0.1)
    first, _ = steps(plan)
    second = Learner(network(), plan)
    second.put(first.arrays())
    for learner in (first, second):
        learner.reseed(0, 1)
        learner.learn(PICTURES[16:32], TARGETS[16:32], 0.05)
    one, other = first.arrays(), second.arrays()
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[name], other[name]) for name in one)
    assert int(one["steps"]) == 2


def test_half_precision_scales_its_losses_and_takes_them_up_again() -> None:
    with precision.policy("mixed_float16"):
        first, _ = steps(PLAN)
        second = Learner(network(), PLAN)
    assert import_keras().config.dtype_policy().name == "float32"
    second.put(first.arrays())
    one, other = first.arrays(), second.arrays()
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[name], other[name]) for name in one)
    assert len(one) > 2 * len(first.model.weights)
