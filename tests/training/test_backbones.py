"""Backbones: scaled as Keras does it, frozen when frozen, and the same in every runtime."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pigeonholed import bundle
from pigeonholed.classifying import openvino
from pigeonholed.classifying.export import export_openvino
from pigeonholed.classifying.keras import import_keras
from pigeonholed_training.errors import Misconfigured, WrongUsage
from pigeonholed_training.networks import backbones
from pigeonholed_training.networks.backbones import BACKBONES, Backbone, Trainable
from pigeonholed_training.networks.weights import PUBLISHED
from pigeonholed_training.recipes.recipe import Transfer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),
]

SIDE = 40  # pixels: small, and not a size that any of them was trained at
SMALL = "mobilenet-v1-025"
BN = "BatchNormalization"


def transfer(backbone: str, **settings: Any) -> Transfer:
    return Transfer.model_validate({"backbone": backbone, "dense": (8,), "dropout": 0.25} | settings)


def pictures(count: int = 4, side: int = SIDE) -> np.ndarray:
    """Noise with every value of a pixel in it."""
    return np.random.default_rng(5).integers(0, 256, (count, side, side, 3), np.uint8)


def stir(model: Any) -> None:
    """Gives normalisation the statistics of some pictures, so that a network with random weights has much to say."""
    norms = [layer for layer in backbones._base_of(model).layers if type(layer).__name__ == BN]
    for layer in norms:
        layer.momentum, layer.trainable = 0.0, True
    model(pictures(8), training=True)
    for layer in norms:
        layer.momentum, layer.trainable = 0.99, False


@pytest.fixture(scope="module", params=sorted(BACKBONES))
def built(request: pytest.FixtureRequest) -> Any:
    """Each backbone, built once for the claims about all; none of them changes it."""
    import_keras().utils.set_random_seed(0)
    model = backbones.build(transfer(request.param), SIDE, SIDE, 3)
    stir(model)
    return model


@pytest.fixture
def small() -> Any:
    """The smallest backbone, to be changed."""
    import_keras().utils.set_random_seed(0)
    model = backbones.build(transfer(SMALL), SIDE, SIDE, 3)
    stir(model)
    return model


@pytest.fixture
def half_precision() -> Iterator[None]:
    policies = import_keras().config
    before = policies.dtype_policy()
    policies.set_dtype_policy("mixed_bfloat16")
    yield
    policies.set_dtype_policy(before)


def name_of(model: Any) -> str:
    name: str = backbones._base_of(model).name
    return name


def learn(model: Any, steps: int = 2) -> dict[str, bool]:
    """Trains for a few steps; which layers of backbone and end are different then."""
    keras = import_keras()
    layers = [*backbones._base_of(model).layers, *(layer for layer in model.layers if layer.name not in BACKBONES)]
    before = {layer.name: layer.get_weights() for layer in layers if layer.weights}
    model.compile(
        keras.optimizers.SGD(0.5), keras.losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=True
    )
    for _ in range(steps):
        model.train_on_batch(pictures(8), np.arange(8) % 3)
    after = {layer.name: layer.get_weights() for layer in layers if layer.weights}
    return {
        name: any(not np.array_equal(old, new) for old, new in zip(before[name], after[name], strict=True))
        for name in before
    }


# ---- each of them


def test_pixels_are_scaled_as_keras_scales_them(built: Any) -> None:
    keras = import_keras()
    mode = {"signed": "tf", "caffe": "caffe", "standard": "torch"}[BACKBONES[name_of(built)].scaling]
    expected = keras.applications.imagenet_utils.preprocess_input(pictures().astype(np.float32), mode=mode)
    base = backbones._base_of(built)
    last = built.layers[[layer.name for layer in built.layers].index(base.name) - 1]
    scaled = np.asarray(keras.Model(built.input, last.output)(pictures()))
    assert scaled.dtype == np.float32
    assert np.abs(scaled - expected).max() <= (0 if mode == "caffe" else 5e-7)


@pytest.mark.parametrize("name", ["efficientnetv2-b0", "mobilenetv3-small"])
def test_scaling_that_keras_builds_into_a_network_is_the_one_left_out_of_ours(name: str) -> None:
    keras = import_keras()
    theirs = getattr(keras.applications, BACKBONES[name].function)(
        weights=None, include_top=False, input_shape=(SIDE, SIDE, 3)
    )
    stem = next(index for index, layer in enumerate(theirs.layers) if layer.weights)
    expected = np.asarray(keras.Model(theirs.input, theirs.layers[stem - 1].output)(pictures()))
    pixels = keras.Input((SIDE, SIDE, 3), dtype="uint8")
    ours = keras.Model(pixels, backbones._scaled(keras, BACKBONES[name].scaling, pixels))
    assert np.abs(np.asarray(ours(pictures())) - expected).max() < 1e-6


def test_backbone_is_the_network_that_keras_publishes_weights_for(built: Any) -> None:
    name = name_of(built)
    assert backbones._base_of(built).count_params() == PUBLISHED[name].numbers
    assert backbones.features_model(built).output_shape == (None, BACKBONES[name].features)


# The others are published, and compared, in test_every_recipe.
@pytest.mark.parametrize("built", [SMALL, "mobilenetv3-small", "vgg16"], indirect=True)
def test_published_network_says_the_same_in_both_runtimes(built: Any, tmp_path: Path) -> None:
    built.save(tmp_path / "model.keras")
    expected = np.asarray(built(pictures(), training=False))
    assert (expected.dtype, expected.shape) == (np.float32, (4, 3))
    assert expected.std(axis=0).min() > 1e-4
    export_openvino(tmp_path / "model.keras", tmp_path)  # from the file, past the allow-list
    xml, weights = ((tmp_path / name).read_bytes() for name in ("model.xml", "model.bin"))
    served = openvino.load(xml, weights, bundle.Input(height=SIDE, width=SIDE), tmp_path)
    assert served.infer(pictures()) == pytest.approx(expected, abs=1e-3, rel=1e-3)


def test_backbone_in_training_is_as_in_inference(built: Any) -> None:
    backbones.unfreeze(built, "all")
    features = backbones.features_model(built)
    trained = np.asarray(features(pictures(), training=True))
    backbones.freeze(built)
    assert np.array_equal(trained, np.asarray(features(pictures(), training=False)))


def test_nothing_but_the_end_learns_at_first(built: Any) -> None:
    assert {variable.path.split("/")[-2] for variable in built.trainable_variables} == {"dense_1", "logits"}
    assert backbones.freeze(built).first == ""


def test_its_last_stage_is_unfrozen_unless_another_is_named(built: Any) -> None:
    base, backbone = backbones._base_of(built), BACKBONES[name_of(built)]
    said = backbones.unfreeze(built)
    learning = [layer.name for layer in base.layers if layer.trainable and layer.weights]
    whole = backbones.unfreeze(built, "all")
    backbones.freeze(built)
    assert said.first.startswith(backbone.finetuned)
    assert learning
    assert 0.05 < said.numbers / said.total < 0.9
    assert said.numbers < whole.numbers < whole.total
    assert not [name for name in learning if type(base.get_layer(name)).__name__ == BN]


def test_every_stage_is_a_place_to_begin_and_each_leaves_less_to_learn(built: Any) -> None:
    backbone = BACKBONES[name_of(built)]
    numbers = [backbones.unfreeze(built, stage).numbers for stage in backbone.stages]
    backbones.freeze(built)
    assert numbers == sorted(numbers, reverse=True)
    assert len(set(numbers)) == len(numbers)
    assert backbone.finetuned in backbone.stages


# ---- the smallest stands for all


def test_training_with_a_frozen_backbone_changes_the_end_alone(small: Any) -> None:
    assert {name for name, changed in learn(small).items() if changed} == {"dense_1", "logits"}


def test_fine_tuning_changes_what_is_unfrozen_but_no_statistics(small: Any) -> None:
    said = backbones.unfreeze(small, "conv_dw_12")
    changed = {name for name, yes in learn(small).items() if yes}
    assert said.first == "conv_dw_12"
    assert changed == {"dense_1", "logits", "conv_dw_12", "conv_pw_12", "conv_dw_13", "conv_pw_13"}


def test_without_weights_all_of_it_can_learn(small: Any) -> None:
    said = backbones.thaw(small)
    changed = learn(small)
    assert all(changed.values())
    assert said == Trainable("conv1", said.numbers, said.total)


def test_loaded_checkpoint_is_frozen_as_it_was_and_can_be_unfrozen_further(small: Any, tmp_path: Path) -> None:
    backbones.unfreeze(small, "conv_dw_12")
    small.save(tmp_path / "model.keras")
    loaded = import_keras().saving.load_model(tmp_path / "model.keras", compile=False)
    assert len(loaded.trainable_variables) == len(small.trainable_variables)
    more = backbones.unfreeze(loaded, "conv_dw_6")
    assert len(loaded.trainable_variables) > len(small.trainable_variables)
    assert more.first == "conv_dw_6"


@pytest.mark.parametrize(("layers", "first"), [("0.1", "conv_dw_13"), ("1", "conv1"), ("conv_pw_1", "conv_pw_1")])
def test_place_to_begin_is_a_fraction_or_a_name(layers: str, first: str, small: Any) -> None:
    # 0.1 of 54 layers with weights is five: depthwise and pointwise, normalisation of each, and that before them.
    said = backbones.unfreeze(small, layers)
    assert said.first == {"conv_dw_13": "conv_pw_12_bn"}.get(first, first)


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ("conv_dw_21", r"did you mean conv_dw_\d+\?$"),
        ("cnv_dw_12", r"did you mean conv_dw_12\?$"),
        ("xyz", "there are: conv1, "),
    ],
)
def test_wrong_name_is_told_with_the_nearest(layers: str, said: str, small: Any) -> None:
    with pytest.raises(WrongUsage, match=said):
        backbones.unfreeze(small, layers)


@pytest.mark.parametrize("layers", ["0", "1.5", "-1", "nan"])
def test_fraction_must_be_one(layers: str, small: Any) -> None:
    with pytest.raises(WrongUsage, match="above 0 and at most 1"):
        backbones.unfreeze(small, layers)


def test_end_trained_on_features_works_in_the_whole_network(small: Any) -> None:
    keras = import_keras()
    keras.utils.set_random_seed(9)
    head = backbones.head_model(transfer(SMALL), 3)
    features = np.asarray(backbones.features_model(small)(pictures()))
    assert features.shape == (4, 256)
    expected = np.asarray(head(features))
    assert np.abs(np.asarray(small(pictures())) - expected).max() > 1e-3
    backbones.put_head(small, head)
    assert np.asarray(small(pictures())) == pytest.approx(expected, abs=1e-5)


def test_linear_end_is_set_as_numbers() -> None:
    model = backbones.build(transfer(SMALL, dense=()), SIDE, SIDE, 3)
    rng = np.random.default_rng(1)
    kernel, bias = rng.normal(size=(256, 3)).astype(np.float32), rng.normal(size=3).astype(np.float32)
    backbones.put_linear(model, kernel, bias)
    features = np.asarray(backbones.features_model(model)(pictures()))
    assert np.asarray(model(pictures())) == pytest.approx(features @ kernel + bias, abs=1e-4)


def test_dropout_comes_before_each_dense_layer_and_none_without_it() -> None:
    def kinds(**settings: Any) -> list[str]:
        return [type(layer).__name__ for layer in backbones.head_model(transfer(SMALL, **settings), 2).layers[1:]]

    assert kinds(dense=(8, 4)) == ["Dropout", "Dense", "Dropout", "Dense", "Dropout", "Dense"]
    assert kinds(dense=(), dropout=0.0) == ["Dense"]


def test_scaling_features_and_logits_stay_exact_in_half_precision(half_precision: None) -> None:
    model = backbones.build(transfer("resnet50"), 32, 32, 3)
    types = {layer.name: layer.compute_dtype for layer in model.layers}
    exact = {"scale", "to_bgr", "pool", "logits"}
    assert {types.pop(name) for name in exact} == {"float32"}
    assert types["resnet50"] == types["dense_1"] == "bfloat16"
    assert {variable.dtype for variable in model.weights} == {"float32"}


def test_pictures_too_small_are_refused() -> None:
    with pytest.raises(Misconfigured, match="at least 32x32 pixels, not 31x64"):
        backbones.build(transfer(SMALL), 31, 64, 2)


def test_recipes_know_the_same_backbones() -> None:
    field = Transfer.model_json_schema()["properties"]["backbone"]
    assert set(field["enum"]) == set(BACKBONES) == set(PUBLISHED)
    assert all(isinstance(backbone, Backbone) for backbone in BACKBONES.values())
