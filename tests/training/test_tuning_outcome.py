"""What a search leaves: a recipe file that reads back, words, and a picture of anything that can have happened."""

from __future__ import annotations

import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pigeonholed_training import session
from pigeonholed_training.recipes import Recipe, find, override
from pigeonholed_training.tuning import outcome, picture
from pigeonholed_training.tuning.search import Order
from pigeonholed_training.tuning.space import apply, space
from pigeonholed_training.tuning.trial import Ended, Trial

CHANGES = ("epochs=7",)


def an_order(given: str, **training: Any) -> Order:
    base = find(given)
    asked = session.Order(Path("my data"), override(base, CHANGES), "found", Path("runs"), **training)
    return Order(asked, given, base, frozenset({"epochs"}))


def a_job(recipe: Recipe) -> Any:
    dataset = SimpleNamespace(fingerprint="f" * 64)
    weights = SimpleNamespace(given="none")
    return SimpleNamespace(recipe=recipe, dataset=dataset, weights=weights, seed=0, indices=lambda _part: np.arange(40))


def trials(*ends: tuple[Ended, float | None], **values: Any) -> list[Trial]:
    """The first with the recipe's own values, the others with `values`."""
    own = {one.name: one.own for one in space(find("cifar"))}
    return [
        Trial(
            number,
            own if number == 1 else own | values,
            ended,
            loss,
            loss and 0.9,
            (1.0,) * (ended != "broke-down"),
            2.0,
        )
        for number, (ended, loss) in enumerate(ends, start=1)
    ]


def found_by(order: Order, tried: list[Trial], importances: dict[str, float] | None = None) -> dict[str, Any]:
    recipe = order.training.recipe
    return outcome.content(order, a_job(recipe), space(recipe), tried, importances)


def written(order: Order, tried: list[Trial]) -> str:
    recipe = order.training.recipe
    return outcome.recipe_file(found_by(order, tried), order, recipe, space(recipe))


BETTER = trials(("done", 0.5), ("done", 0.4), learning_rate=0.002, dropout=0.25)


def test_a_recipe_that_comes_along_is_named_and_only_changes_are_written(tmp_path: Path) -> None:
    order = an_order("cifar")
    text = written(order, BETTER)
    values = tomllib.loads(text)
    assert {key for key in values if key != "network"} == {"like", "name", "purpose", "learning_rate", "epochs"}
    assert (values["like"], values["name"], values["epochs"], list(values["network"])) == (
        "cifar",
        "found",
        7,
        ["layers"],
    )
    (tmp_path / "best.toml").write_text(text, encoding="utf-8")
    wanted = apply(order.training.recipe, space(order.training.recipe), BETTER[1].values)
    as_read = find(str(tmp_path / "best.toml"))
    assert as_read.model_copy(update={"name": "", "purpose": ""}) == wanted.model_copy(
        update={"name": "", "purpose": ""}
    )


def test_the_file_says_where_it_comes_from_and_what_it_is_worth() -> None:
    comments = [line for line in written(an_order("cifar"), BETTER).splitlines() if line.startswith("# ")]
    assert comments[0] == "# Made by 'pigeonholed-train tune' from recipe 'cifar' on 'my data', seed 0."
    assert "trial 2 of 2, learning_rate 0.002, dropout 0.25" in comments[1]
    assert "0.4000, 90.0 % of 40 pictures right; the recipe as it is: 0.5000" in comments[2]


def test_a_recipe_like_ones_own_file_stands_alone(tmp_path: Path) -> None:
    own = tmp_path / "mine.toml"
    own.write_text('like = "cifar"\nclip_norm = 2.0\n', encoding="utf-8")
    order = an_order(str(own))
    text = written(order, BETTER)
    own.unlink()
    (tmp_path / "best.toml").write_text(text, encoding="utf-8")
    tuned = find(str(tmp_path / "best.toml"))
    assert (tuned.name, tuned.clip_norm, tuned.learning_rate, tuned.epochs) == ("found", 2.0, 0.002, 7)


def test_an_unbeaten_recipe_is_said_to_be_so() -> None:
    order = an_order("cifar")
    found = found_by(order, trials(("done", 0.4), ("done", 0.5), ("pruned", None)))
    said = outcome.summary(found, order)
    assert said.startswith("None of 3 trials was better than the recipe as it is: validation loss 0.4000")
    assert "Trials: 2 done, 1 pruned, 6 s." in said
    assert tomllib.loads(written(order, trials(("done", 0.4)))).keys() == {"like", "name", "purpose", "epochs"}


def test_a_search_without_any_result_says_so() -> None:
    order = an_order("cifar")
    found = found_by(order, trials(("broke-down", None)))
    assert (found["best"], found["next"]) == (None, None)
    assert outcome.summary(found, order).startswith("No trial came to its end")


def test_a_recipe_that_broke_down_itself_is_not_compared_with() -> None:
    order = an_order("cifar")
    said = outcome.summary(found_by(order, trials(("broke-down", None), ("done", 0.4), learning_rate=0.002)), order)
    assert "of 40 pictures right." in said


def test_the_next_command_repeats_what_is_not_usual() -> None:
    order = an_order("cifar", seed=2, cache=Path("pixels"))
    assert outcome.next_command(order) == (
        "pigeonholed-train train 'my data' --recipe runs/found/best.toml --name found-best --seed 2 --cache pixels"
    )
    assert "--weights some.h5" in outcome.next_command(an_order("mobilenet-v2", weights="some.h5"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ends", "importances"),
    [
        ([("done", 0.5)], None),
        ([("broke-down", None)], None),
        ([("broke-down", None), ("pruned", None), ("done", 0.5), ("done", 90.0)], {"dropout": 0.7}),
        ([("done", 0.0), ("done", 0.0)], None),
    ],
)
def test_anything_that_can_happen_can_be_drawn(
    ends: list[tuple[Ended, float | None]], importances: dict[str, float] | None, tmp_path: Path
) -> None:
    order = an_order("cifar")
    found = found_by(order, trials(*ends, learning_rate=0.002), importances) | {"name": "$x$ <b>"}
    picture.draw(found, tmp_path / "search.png")
    assert (tmp_path / "search.png").read_bytes().startswith(b"\x89PNG")


def test_one_trial_gone_astray_does_not_press_the_others_flat() -> None:
    points = [picture._point(trial.as_dict(), 2) for trial in trials(("done", 0.5), ("done", 0.4), ("done", 90.0))]
    lowest, highest = picture._limits(points)
    assert 0.3 < lowest < 0.4
    assert 0.5 < highest < 0.6
