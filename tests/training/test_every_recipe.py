"""Every recipe learns for a few steps, and the daemon sorts by what it made."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from pigeonholed.classifying.keras import import_keras
from pigeonholed_training import finishing, releasing, session
from pigeonholed_training.networks.backbones import BACKBONES
from pigeonholed_training.progress import Narrator
from pigeonholed_training.recipes import Recipe, all_recipes, override
from pigeonholed_training.recipes.recipe import Transfer
from running import Workspace, picture
from tiny_pictures import make_data_set

pytestmark = [
    pytest.mark.slow,
    # TensorFlow 2.21 with NumPy 2: whenever a variable is read.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]

NAMES = [recipe.name for recipe in all_recipes()]
INBOX = """
[[inbox]]
name = "{name}"
path = "inboxes/{name}"
output = "sorted/{name}"
model = "{name}"
settle_s = 0.0
"""


class Silent(Narrator):
    def say(self, message: str) -> None:
        pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipes")
    make_data_set(folder / "data", 12, ("blue", "red"))
    return folder


def in_short(recipe: Recipe) -> Recipe:
    """The same network, on smaller pictures where it would be slow, for one epoch a phase."""
    # At the rates that suit long trainings two or three steps would only throw a network out of balance.
    changes = ["epochs=1", "batch_size=8", "patience=0", "learning_rate=0.001"]
    if isinstance(recipe.network, Transfer):
        changes += ["height=32", "width=32"]
        if recipe.name == "probe":
            changes += ["backbone=mobilenet-v1-025"]
        if recipe.network.head == "dense" or recipe.finetune.epochs:
            changes += ["finetune.epochs=1"]
    elif recipe.height > 96:
        changes += ["height=96", "width=96"]
    return override(recipe, changes)


def weighty(recipe: Recipe) -> bool:
    return isinstance(recipe.network, Transfer)


def weights_for(recipe: Recipe, folder: Path) -> str:
    """A file as `--weights` takes it, with random numbers; made by Keras itself and not by our code."""
    if not isinstance(recipe.network, Transfer):
        return "none"
    backbone = BACKBONES[recipe.network.backbone]
    file = folder / f"{recipe.network.backbone}.weights.h5"
    if not file.exists():
        function = getattr(import_keras().applications, backbone.function)
        function(include_top=False, weights=None, input_shape=(32, 32, 3), **dict(backbone.options)).save_weights(file)
    return str(file)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_learns_and_publishes(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finishing, "speed", lambda *_, **__: [])  # the large ones take long to load once more
    recipe = next(recipe for recipe in all_recipes() if recipe.name == name)
    short = in_short(recipe)
    order = session.Order(
        data=folder / "data",
        recipe=short,
        name=name,
        runs=folder / "runs",
        cache=folder / "cache",
        weights=weights_for(short, folder),
    )

    metrics = session.carry_out(order, Silent())

    assert np.isfinite([epoch["validation_loss"] for epoch in metrics["history"]]).all()
    phases = {epoch["phase"] for epoch in metrics["history"]}
    assert phases == ({"head", *(["finetune"] if short.finetune.epochs else [])} if weighty(recipe) else {"train"})
    releasing.publish(folder / "runs" / name / "bundle", name, folder / "models")
    shutil.rmtree(folder / "runs" / name)


def test_the_daemon_sorts_by_each(folder: Path) -> None:
    published = sorted(path.name for path in (folder / "models").iterdir())
    assert published == sorted(NAMES)
    workspace = Workspace(folder)
    workspace.config.write_text("".join(INBOX.format(name=name) for name in NAMES))
    for name in NAMES:
        (folder / "inboxes" / name).mkdir(parents=True)
        (folder / "inboxes" / name / "x.png").write_bytes(picture(220, 30, 40, seed=1))

    done = workspace.run("run", "--once", timeout_s=120)

    assert done.returncode == 0, done.stderr
    for name in NAMES:
        found = [path for path in (folder / "sorted" / name).rglob("x.png") if ".pigeonholed" not in path.parts]
        assert len(found) == 1, name
        assert found[0].parent.name in ("blue", "red"), name
    assert workspace.filed() == len(NAMES)
