from __future__ import annotations

import json

import pytest

from pigeonholed_training.errors import WrongUsage
from pigeonholed_training.recipes import RECIPES, find, override, settable


def test_a_setting_is_changed_and_the_recipe_itself_is_not() -> None:
    changed = override(find("digits"), ["epochs=3", "augmentation.flip=true", "shares.test=0.1", "optimiser=sgd"])
    assert (changed.epochs, changed.augmentation.flip, changed.shares.test, changed.optimiser) == (3, True, 0.1, "sgd")
    assert find("digits").augmentation.flip is False


def test_every_setting_can_be_set_to_what_it_is() -> None:
    for recipe in RECIPES:
        assert override(recipe, [f"{key}={value}" for key, value in settable(recipe).items()]) == recipe


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("epoch=3", "did you mean epochs?"),
        ("augmentation.flop=true", "did you mean augmentation.flip?"),
        ("epochs", "KEY=VALUE"),
        ("epochs=0", "at least 1"),
        ("epochs=1.5", "a whole number"),
        ("learning_rate=fast", "a number"),
        ("learning_rate=nan", "above 0"),
        ("augmentation.flip=1", "true or false"),
        ("optimiser=adam2", "one of adamw, sgd"),
        ("shares.test=0.9", "shares"),
        ("augmentation=3", "no setting"),
        ("epochs.x=3", "no setting"),
        ("build=evil", "no setting"),
    ],
)
def test_a_wrong_setting_is_explained(assignment: str, said: str) -> None:
    with pytest.raises(WrongUsage, match=said.replace("?", r"\?")):
        override(find("digits"), [assignment])


def test_an_unknown_recipe_gets_the_nearest_name() -> None:
    with pytest.raises(WrongUsage, match=r"did you mean digits\?"):
        find("digit")


def test_a_recipe_is_plain_json() -> None:
    for recipe in RECIPES:
        assert json.loads(json.dumps(recipe.as_dict()))["name"] == recipe.name
