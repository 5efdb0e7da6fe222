"""Networks: each takes uint8 RGB pictures, scales them itself and gives logits.

Only layers of the serving allow-list: no Lambda, no custom class. Keras is imported when a network is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pigeonholed_training.errors import WrongUsage
from pigeonholed_training.recipes.recipe import Groups, Stack

if TYPE_CHECKING:
    from pigeonholed_training.networks.weights import Weights
    from pigeonholed_training.recipes.recipe import Recipe


def build(recipe: Recipe, classes: int, weights: Weights | str = "none") -> Any:
    """The network of a recipe, in the global dtype policy but for its last layer, which is float32.

    Args:
        recipe: what to build.
        classes: how many there are.
        weights: where a `transfer` network starts from: what `weights.resolve` gave, or what it takes.

    Returns:
        keras.Model: uint8 [N, height, width, 3] -> float32 logits [N, classes], or [N, 1] for `sigmoid`: the logit of
        the second of two classes.

    Raises:
        WrongUsage: weights are given to a network that starts from none.
        TrainingError: the weights cannot be had; see `networks.backbones`.
    """
    network, units = recipe.network, recipe.units(classes)
    if isinstance(network, Stack | Groups):
        given = weights if isinstance(weights, str) else weights.given
        if given != "none":
            raise WrongUsage(f"Recipe {recipe.name} starts from no weights; leave --weights {given} out.")
        if isinstance(network, Stack):
            from pigeonholed_training.networks import stack

            return stack.build(network, recipe.height, recipe.width, units)
        from pigeonholed_training.networks import groups

        return groups.build(network, recipe.height, recipe.width, units)
    from pigeonholed_training.networks import backbones

    return backbones.build(network, recipe.height, recipe.width, units, weights)
