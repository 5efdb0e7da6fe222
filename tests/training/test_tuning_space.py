"""What a search may change, and that all of it are settings that `--set` takes."""

from __future__ import annotations

import pytest

from pigeonholed_training.fitting.augmentation import Augmentation
from pigeonholed_training.recipes import Recipe, all_recipes, find, override
from pigeonholed_training.recipes.recipe import Stack
from pigeonholed_training.tuning.space import STRENGTHS, Choice, Range, Space, apply, assignments, shown, space

OTHERS = ("vgg16", "resnet50")


def whole(recipe: Recipe) -> Space:
    return space(recipe, has_weights=recipe.weights != "none", backbones=OTHERS)


def names(found: Space) -> set[str]:
    return {one.name for one in found}


@pytest.mark.parametrize("recipe", all_recipes(), ids=lambda recipe: recipe.name)
def test_every_recipe_can_be_tuned_and_lies_in_its_own_space(recipe: Recipe) -> None:
    found = whole(recipe)
    own = {one.name: one.own for one in found}
    assert found
    assert assignments(found, own) == ()
    assert apply(recipe, found, own) == recipe
    assert shown(found, own) == "the recipe as it is"
    for one in found:
        if isinstance(one.among, Choice):
            assert one.own in one.among.values
            assert len(one.among.values) > 1
        else:
            assert one.among.low <= one.own <= one.among.high


@pytest.mark.parametrize("recipe", all_recipes(), ids=lambda recipe: recipe.name)
def test_the_ends_of_every_range_make_recipes_that_differ(recipe: Recipe) -> None:
    found = whole(recipe)
    for one in found:
        ends = one.among.values if isinstance(one.among, Choice) else (one.among.low, one.among.high)
        for value in ends:
            tuned = apply(recipe, found, {one.name: one.rounded(value)})
            assert (tuned == recipe) == (value == one.own), (one.name, value)


def test_every_strength_of_augmentation_is_known() -> None:
    fields = Augmentation.model_fields.items()
    assert {name for name, field in fields if field.annotation is float} == set(STRENGTHS)


def test_augmentation_grows_and_shrinks_as_one_and_stays_within_its_limits() -> None:
    recipe = override(find("small"), ["augmentation.crop=0.8"])
    tuned = apply(recipe, space(recipe), {"augmentation": 2.0}).augmentation
    assert (tuned.crop, tuned.rotate_deg, tuned.saturation) == (0.9, 20.0, 0.6)
    assert (tuned.cutout, tuned.flip) == (0.0, True)


def test_dropout_of_a_stack_changes_in_proportion() -> None:
    recipe = find("cifar")
    tuned = apply(recipe, space(recipe), {"dropout": 0.25}).network
    assert isinstance(tuned, Stack)
    assert [word for word in tuned.layers if word.startswith("dropout")] == [
        "dropout 0.1",
        "dropout 0.15",
        "dropout 0.25",
    ]
    assert isinstance(apply(recipe, space(recipe), {"dropout": 0.0}).network, Stack)


def test_rates_are_searched_by_orders_of_magnitude() -> None:
    among = next(one.among for one in space(find("small")) if one.name == "learning_rate")
    assert isinstance(among, Range)
    assert among.log


def test_a_recipe_without_weight_decay_may_get_some() -> None:
    among = next(one.among for one in space(find("cifar")) if one.name == "weight_decay")
    assert isinstance(among, Choice)
    assert among.values[0] == 0.0


def test_labels_are_smoothed_a_little_at_most() -> None:
    among = next(one.among for one in space(find("small")) if one.name == "label_smoothing")
    assert among == Range(0.0, 0.05)


def test_what_is_pinned_stays() -> None:
    recipe = find("cifar")
    assert names(space(recipe)) - names(space(recipe, pinned={"batch_size", "network.layers"})) == {
        "batch_size",
        "dropout",
    }
    assert "augmentation" not in names(space(find("small"), pinned={"augmentation.crop"}))


def test_transfer_tunes_what_its_phases_listen_to() -> None:
    finetuned = names(space(find("mobilenet-v2"), has_weights=True))
    assert {"finetune.learning_rate", "finetune.layers", "augmentation"} <= finetuned
    assert "learning_rate" not in finetuned  # its head is a logistic regression
    head = names(space(find("resnet50"), has_weights=True))
    assert "learning_rate" in head
    assert not head & {"finetune.learning_rate", "finetune.layers", "augmentation"}
    assert "learning_rate" in names(space(find("mobilenet-v2"), has_weights=False))


def test_finetuning_begins_at_stages_around_the_usual_one() -> None:
    one = next(one for one in space(find("mobilenet-v2"), has_weights=True) if one.name == "finetune.layers")
    assert (one.own, one.among) == ("block_13", Choice(("block_7", "block_10", "block_13", "block_16")))


def test_a_probe_has_its_backbone_alone_and_only_where_there_are_others() -> None:
    assert space(find("probe"), has_weights=True) == ()
    assert space(find("probe"), has_weights=True, backbones=("mobilenet-v2",)) == ()
    (one,) = space(find("probe"), has_weights=True, backbones=("vgg16",))
    assert (one.name, one.among) == ("backbone", Choice(("mobilenet-v2", "vgg16")))


def test_suggestions_are_rounded_to_what_people_read() -> None:
    found = {one.name: one for one in space(override(find("small"), ["learning_rate=0.0123456"]))}
    rate, batch = found["learning_rate"], found["batch_size"]
    assert (rate.rounded(0.0123456), rate.rounded(0.0234567), batch.rounded(128)) == (0.0123456, 0.0235, 128)
    assert rate.shown(0.0235) == "learning_rate 0.0235"
    assert found["augmentation"].shown(0.5) == "augmentation x0.5"
