"""Networks of convolution groups: their structure, what they may be given, and that bundles can hold them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pydantic import ValidationError

from pigeonholed import bundle as bundles
from pigeonholed.bundle import Input, Manifest, Threshold
from pigeonholed.classifying import allowlist, export
from pigeonholed.classifying.keras import import_keras
from pigeonholed_training.networks import groups
from pigeonholed_training.recipes import find, override
from pigeonholed_training.recipes.recipe import Groups

if TYPE_CHECKING:
    from pathlib import Path

# TensorFlow 2.21 with NumPy 2: whenever a variable is read.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

PLAIN = Groups(widths=(4, 8), logit_scale=0.125)
RESIDUAL = Groups(widths=(4, 8), depth=3, residual=True, stem=6, stem_kernel=3, stem_stride=2, pool="mean", dropout=0.2)


def names(model: Any) -> list[str]:
    """Classes of its layers, in order, without the input."""
    return [type(layer).__name__ for layer in model.layers[1:]]


def pixels(count: int, height: int, width: int) -> Any:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)


def test_a_plain_network_is_stem_groups_of_two_convolutions_the_largest_of_each_map_and_logits() -> None:
    found = names(groups.build(PLAIN, 16, 20, 3))
    group = ["Conv2D", "MaxPooling2D", "BatchNormalization", "Activation", "Conv2D", "BatchNormalization", "Activation"]
    assert found == ["Rescaling", "Conv2D", "Activation", *group, *group, "GlobalMaxPooling2D", "Rescaling", "Dense"]


def test_each_group_halves_the_sides_and_has_its_own_width() -> None:
    model = groups.build(PLAIN, 17, 20, 3)
    pools = [layer.output.shape[1:] for layer in model.layers if type(layer).__name__ == "MaxPooling2D"]
    assert pools == [(8, 10, 4), (4, 5, 8)]


def test_a_residual_network_adds_around_all_but_the_first_convolution_of_a_group() -> None:
    model = groups.build(RESIDUAL, 32, 32, 2)
    found = names(model)
    assert found.count("Conv2D") == 1 + 2 * 3
    assert found.count("Add") == 2
    assert found[-3:] == ["GlobalAveragePooling2D", "Dropout", "Dense"]
    assert model.layers[2].output.shape == (None, 16, 16, 6)


def test_at_the_start_a_residual_group_gives_what_its_first_convolution_gives() -> None:
    model = groups.build(RESIDUAL, 32, 32, 2)
    keras = import_keras()
    for add in (layer for layer in model.layers if type(layer).__name__ == "Add"):
        before, branch = keras.Model(model.input, add.input)(pixels(2, 32, 32), training=False)
        assert np.abs(np.asarray(before)).max() > 0
        assert not np.asarray(branch).any()


def test_only_a_residual_network_has_scales_in_its_normalisation() -> None:
    for network, scaled in ((PLAIN, False), (RESIDUAL, True)):
        layers = groups.build(network, 16, 16, 2).layers
        assert {layer.scale for layer in layers if type(layer).__name__ == "BatchNormalization"} == {scaled}


def test_the_scale_of_the_logits_shortens_what_they_are_made_of() -> None:
    keras = import_keras()
    model = groups.build(PLAIN, 16, 16, 3)
    logits = model.get_layer("logits")
    pooled, shortened = keras.Model(model.input, [model.layers[-3].output, logits.input])(pixels(2, 16, 16))
    np.testing.assert_allclose(np.asarray(shortened), np.asarray(pooled) * 0.125, rtol=1e-6)


def test_pictures_come_to_about_zero_mean_and_unit_deviation() -> None:
    keras = import_keras()
    model = groups.build(PLAIN, 16, 16, 3)
    scaled = keras.Model(model.input, model.layers[1].output)(
        np.array([0, 122, 255], np.uint8).repeat(256).reshape(3, 16, 16, 1).repeat(3, axis=3)
    )
    np.testing.assert_allclose(np.asarray(scaled)[:, 0, 0, 0], [-1.92, 0, 2.08], atol=0.01)


def test_mixed_precision_leaves_the_logits_exact() -> None:
    keras = import_keras()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = groups.build(RESIDUAL, 32, 32, 2)
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.layers[2].compute_dtype == "bfloat16"
    assert (model.get_layer("logits").compute_dtype, model.output.dtype) == ("float32", "float32")


def test_the_same_seed_gives_the_same_network() -> None:
    keras = import_keras()
    answers = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        answers.append(np.asarray(groups.build(PLAIN, 16, 16, 3)(pixels(1, 16, 16), training=False)))
    np.testing.assert_array_equal(answers[0], answers[1])
    assert (answers[0] != answers[2]).any()


def test_pictures_too_small_for_its_groups_are_refused_with_the_size_that_is_needed() -> None:
    network = Groups(widths=(4, 4, 4), stem_stride=2, stem_kernel=3)
    with pytest.raises(ValueError, match="at least 15x15 pixels, not 14x40; give larger ones"):
        network.check(14, 40)
    network.check(15, 15)
    assert groups.build(network, 15, 15, 2).output_shape == (None, 2)


def test_residual_needs_a_second_convolution() -> None:
    with pytest.raises(ValidationError, match="residual needs a depth of at least 2"):
        Groups(widths=(4,), depth=1, residual=True)
    assert names(groups.build(Groups(widths=(4,), depth=1), 8, 8, 2)).count("Conv2D") == 2


@pytest.mark.parametrize("name", ["fast", "best"])
def test_recipes_of_groups_fit_their_pictures(name: str) -> None:
    recipe = find(name)
    assert isinstance(recipe.network, Groups)
    with pytest.raises(Exception, match="pictures of at least"):
        override(recipe, ["height=7"])


@pytest.mark.slow
@pytest.mark.parametrize("network", [PLAIN, RESIDUAL], ids=["plain", "residual"])
def test_a_bundle_may_hold_it_and_answers_alike_in_both_runtimes(network: Groups, tmp_path: Path) -> None:
    keras = import_keras()
    keras.utils.set_random_seed(5)
    model = groups.build(network, 32, 36, 3)
    for weight in model.weights:  # those of zero and one would hide a fault
        weight.assign(np.random.default_rng(1).uniform(0.1, 0.5, weight.shape))
    file = tmp_path / bundles.KERAS_MODEL
    model.save(file)
    allowlist.check(file.read_bytes(), tmp_path)
    allowlist.check_weights(file.read_bytes(), tmp_path)
    export.export_openvino(file, tmp_path / bundles.OPENVINO_FOLDER)
    manifest = Manifest(
        name="x",
        labels=("a", "b", "c"),
        input=Input(height=32, width=36, fit="stretch"),
        output="logits",
        thresholds=tuple(Threshold(label=label, value=0.0, method="best-f1", n=0) for label in "abc"),
        data_fingerprint="",
        recipe="x",
        seed=0,
        versions={},
        created_at="2026-01-01T00:00:00+00:00",
    )
    given = pixels(3, 32, 36)
    served = export.load_unsealed(tmp_path, manifest, "openvino", max_batch_size=3).predict(given)
    here = bundles.calibrate(np.asarray(model(given, training=False)), "logits", 1.0)
    np.testing.assert_allclose(served, here, atol=1e-4)
