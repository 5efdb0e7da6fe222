"""The language of layers, read and followed without Keras; then the networks themselves, built and exported once."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from pigeonholed import bundle as bundles
from pigeonholed.bundle import Input, Manifest, Threshold
from pigeonholed.classifying import export
from pigeonholed.classifying.keras import import_keras
from pigeonholed_training import networks
from pigeonholed_training.errors import WrongUsage
from pigeonholed_training.recipes import all_recipes, find, override
from pigeonholed_training.recipes.layers import ACTIVATIONS, MOST_WEIGHTS, follow, parse
from pigeonholed_training.recipes.recipe import Recipe, Stack

# TensorFlow 2.21 with NumPy 2: whenever a variable is read.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

LABELS = ("a", "b", "c")
# Every kind of layer and activation, and every option of each.
EVERYTHING = (
    "conv 4 kernel 5x3 stride 2 same bn leaky-relu",
    "sep-conv 4 kernel 2 valid gelu",
    "Sep-Conv 4 bn silu same",
    "max-pool 3x2 stride 1 same",
    "avg-pool 2 same",
    "avg-pool stride 1",
    "batch-norm",
    *ACTIVATIONS,
    "dropout 0.25",
    "max-pool",
    "flatten",
    "dense 8 bn mish",
    "dense 8 linear",
    "dropout 0",
)


def fault(words: tuple[str, ...] | list[str], height: int = 32, width: int = 32) -> str:
    with pytest.raises(ValueError) as caught:
        follow(parse(words), height, width)
    return str(caught.value)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("cnov 16", "layer 2, 'cnov 16': there is no layer 'cnov'; did you mean conv?"),
        ("maxpool", "did you mean max-pool?"),
        ("max_pool", "did you mean max-pool?"),
        ("batchnorm", "did you mean batch-norm?"),
        ("zzzzzz", "there are: conv, sep-conv"),
        ("", "there is no layer ''"),
        ("conv", "conv needs a number of filters from 1 to 65,536"),
        ("conv relu", "not 'relu'"),
        ("conv 0", "not '0'"),
        ("conv -3", "not '-3'"),
        ("conv 1.5", "not '1.5'"),
        ("conv 99999", "not '99999'"),
        ("conv 16 rely", "'rely' cannot stand after conv; did you mean relu?"),
        ("conv 16 3x3", "'3x3' cannot stand after conv"),
        ("conv 16 kernel", "a kernel is one number of pixels or two"),
        ("conv 16 kernel 0", "not '0'"),
        ("conv 16 kernel 3x0", "not '3x0'"),
        ("conv 16 stride", "conv needs a number of pixels after stride"),
        ("dense 8 same", "'same' cannot stand after dense"),
        ("dropout", "dropout needs a share"),
        ("dropout 1", "not '1'"),
        ("dropout 1.5", "not '1.5'"),
        ("dropout -0.1", "not '-0.1'"),
        ("dropout nan", "not 'nan'"),
        ("flatten 3", "'3' cannot stand after flatten; nothing may follow there"),
        ("relu 3", "there is no layer 'relu'"),
        ("dense 8", "dense needs flatten or global-pool before it"),
        ("max-pool 33", "it takes 33x33 pixels, and of the picture only 32x32 are left there"),
    ],
)
def test_a_word_that_cannot_be_is_named_with_its_place_and_what_was_meant(word: str, said: str) -> None:
    text = fault(["batch-norm", word, "flatten"])
    assert text.startswith("layer 2, ")
    assert said in text


@pytest.mark.parametrize("word", ["conv 8", "max-pool", "flatten", "global-pool"])
def test_what_works_on_maps_cannot_stand_after_flatten(word: str) -> None:
    assert "cannot stand after flatten" in fault(["flatten", word])


@pytest.mark.parametrize("words", [[], ["conv 8"], ["dropout 0.5"]])
def test_layers_must_come_to_an_end_that_is_flat(words: list[str]) -> None:
    assert "flatten or global-pool" in fault(words)


def test_pooling_more_than_the_picture_has_is_one_clear_sentence() -> None:
    words = ["max-pool"] * 6 + ["flatten"]
    assert fault(words, 64, 33).startswith("layer 6, 'max-pool': it takes 2x2 pixels, and of the picture only 2x1 are")
    with pytest.raises(WrongUsage, match="Recipe binary-256 with --set height=16: layer 5, 'conv 16': it takes 3x3"):
        override(find("binary-256"), ["height=16"])


def test_networks_too_large_for_any_machine_are_refused_before_memory_is_taken() -> None:
    assert (
        "layer 2, 'dense 65536': with its 51,539,673,088 weights for 786,432 numbers the network would have"
        in fault(["flatten", "dense 65536"], 512, 512)
    )
    assert "numbers a picture" in fault(["conv 65536 same", "global-pool"], 512, 512)
    edge = MOST_WEIGHTS // 65_536
    assert follow(parse(["global-pool", f"dense {edge - 5}", "dense 65536"]), 8, 8)[1] < MOST_WEIGHTS
    assert "weights" in fault(["global-pool", f"dense {edge}", "dense 65536"], 8, 8)


@pytest.mark.parametrize(
    ("word", "numbers"),
    [
        ("conv 4", 3 * 5 * 4),
        ("conv 4 same", 5 * 7 * 4),
        ("conv 4 stride 2", 2 * 3 * 4),
        ("conv 4 stride 2 same", 3 * 4 * 4),
        ("conv 4 kernel 1x7", 5 * 1 * 4),
        ("max-pool", 2 * 3 * 3),
        ("max-pool same", 3 * 4 * 3),
        ("max-pool 3 stride 1", 3 * 5 * 3),
        ("avg-pool 5x7", 3),
        ("batch-norm", 5 * 7 * 3),
    ],
)
def test_a_picture_of_5x7_becomes(word: str, numbers: int) -> None:
    assert follow(parse([word, "flatten"]), 5, 7)[0] == (numbers,)


class Built(NamedTuple):
    recipe: Recipe
    model: Any
    difference: float


def small(recipe: Recipe) -> Recipe:
    """The same layers on as few pixels as they bear, with narrow dense layers: quick, and every layer is there."""
    side = next(side for side in range(8, 300) if bears(recipe, side))
    assert isinstance(recipe.network, Stack)
    words = [word if not word.startswith("dense") else "dense 16" for word in recipe.network.layers]
    return override(recipe, [f"height={side}", f"width={side + 1}", f"layers={','.join(words)}"])


def bears(recipe: Recipe, side: int) -> bool:
    try:
        return bool(override(recipe, [f"height={side}", f"width={side + 1}"]))
    except WrongUsage:
        return False


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Built]:
    """Every stack recipe, and one with all layers there are: built, saved, exported and compared."""
    import_keras().utils.set_random_seed(3)
    everything = find("cifar").model_copy(update={"name": "everything", "network": Stack(layers=EVERYTHING)})
    twins = {recipe.twin for recipe in all_recipes()}  # they differ in the number of logits alone
    stacks = [one for one in all_recipes() if isinstance(one.network, Stack) and one.name not in twins]
    found = {}
    for recipe in (*map(small, stacks), everything):
        folder = tmp_path_factory.mktemp(recipe.name)
        labels = LABELS[: 2 if recipe.output == "sigmoid" else 3]
        model = networks.build(recipe, len(labels))
        public = published(model, recipe)
        public.save(folder / bundles.KERAS_MODEL)
        export.export_openvino(folder / bundles.KERAS_MODEL, folder / bundles.OPENVINO_FOLDER)
        found[recipe.name] = Built(recipe, model, difference(recipe, labels, public, folder))
    return found


def published(model: Any, recipe: Recipe) -> Any:
    """As bundles hold it: a single logit is made a probability."""
    if recipe.output == "softmax":
        return model
    keras = import_keras()
    return keras.Model(model.input, keras.layers.Activation("sigmoid")(model.output))


def difference(recipe: Recipe, labels: tuple[str, ...], model: Any, folder: Path) -> float:
    """The largest between the probabilities of the network in memory and of its export."""
    manifest = Manifest(
        name="x",
        labels=labels,
        input=Input(height=recipe.height, width=recipe.width, fit=recipe.fit),
        output="logits" if recipe.output == "softmax" else "sigmoid",
        thresholds=tuple(Threshold(label=label, value=0.0, method="best-f1", n=0) for label in labels),
        data_fingerprint="",
        recipe=recipe.name,
        seed=0,
        versions={},
        created_at="2026-01-01T00:00:00+00:00",
    )
    pixels = np.random.default_rng(0).integers(0, 256, (3, recipe.height, recipe.width, 3), np.uint8)
    classifier = export.load_unsealed(folder, manifest, "openvino", max_batch_size=len(pixels))
    expected = bundles.calibrate(np.asarray(model(pixels, training=False)), manifest.output, 1.0)
    return float(np.abs(classifier.predict(pixels) - expected).max())


@pytest.mark.slow
def test_every_stack_is_allowed_in_a_bundle_and_answers_alike_in_both_runtimes(built: dict[str, Built]) -> None:
    assert {"digits", "cifar", "binary-256", "augmented-150", "shear-64", "everything"} <= set(built)
    for one in built.values():
        assert one.difference < 1e-4, one.recipe.name


@pytest.mark.slow
def test_what_was_followed_is_what_keras_makes(built: dict[str, Built]) -> None:
    for one in built.values():
        network = one.recipe.network
        assert isinstance(network, Stack)
        shape, weights = follow(parse(network.layers), one.recipe.height, one.recipe.width)
        logits = one.model.get_layer("logits")
        assert logits.input.shape[1:] == shape
        assert one.model.count_params() - logits.count_params() == weights


@pytest.mark.slow
def test_a_network_takes_pixels_as_they_are_and_gives_float_logits(built: dict[str, Built]) -> None:
    for one in built.values():
        assert one.model.input.dtype == "uint8"
        assert one.model.output.dtype == "float32"
        assert one.model.output_shape == (None, 1 if one.recipe.output == "sigmoid" else 3)


@pytest.mark.slow
def test_padding_and_stride_are_those_of_the_words(built: dict[str, Built]) -> None:
    first, second, third = (layer for layer in built["everything"].model.layers if "conv" in layer.name)
    assert (first.kernel_size, first.strides, first.padding, first.use_bias) == ((5, 3), (2, 2), "same", False)
    assert (second.kernel_size, second.padding, second.use_bias) == ((2, 2), "valid", True)
    assert (third.kernel_size, third.padding, third.use_bias) == ((3, 3), "same", False)


@pytest.mark.slow
def test_global_pools_take_mean_and_maximum() -> None:
    for word, layer in (("global-pool", "GlobalAveragePooling2D"), ("global-max-pool", "GlobalMaxPooling2D")):
        recipe = override(find("cifar"), [f"layers={word}"])
        assert layer in [type(one).__name__ for one in networks.build(recipe, 3).layers]


@pytest.mark.slow
def test_mixed_precision_leaves_the_logits_exact() -> None:
    keras = import_keras()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = networks.build(small(find("digits")), 3)
    finally:
        keras.config.set_dtype_policy("float32")
    convolution = next(layer for layer in model.layers if "conv" in layer.name)
    assert convolution.compute_dtype == "bfloat16"
    assert (model.get_layer("logits").compute_dtype, model.output.dtype) == ("float32", "float32")


def test_weights_are_refused_by_networks_that_start_from_none() -> None:
    with pytest.raises(WrongUsage, match="Recipe cifar starts from no weights; leave --weights imagenet out"):
        networks.build(find("cifar"), 3, "imagenet")
