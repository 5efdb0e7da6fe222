"""Recipes: how models are made, listed by name, changed by settings, written by users as TOML files."""

from pigeonholed_training.recipes.catalogue import all_recipes, find
from pigeonholed_training.recipes.recipe import Recipe
from pigeonholed_training.recipes.settings import override, settable

__all__ = ["Recipe", "all_recipes", "find", "override", "settable"]
