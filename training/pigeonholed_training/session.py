"""One `train` command from pictures to a finished run folder, each step repeatable after a kill."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pigeonholed import imaging
from pigeonholed.classifying.keras import import_keras
from pigeonholed_training import metrics, runs
from pigeonholed_training.backend import quiet_libraries, require_train_extra
from pigeonholed_training.data import reading
from pigeonholed_training.data.cache import place
from pigeonholed_training.data.splitting import Part
from pigeonholed_training.errors import Misconfigured, WrongUsage
from pigeonholed_training.finishing import finish
from pigeonholed_training.fitting import course
from pigeonholed_training.fitting.job import Job
from pigeonholed_training.networks.weights import Weights, resolve
from pigeonholed_training.origin import Origin
from pigeonholed_training.recipes.recipe import Transfer
from pigeonholed_training.runs import RunFolder

if TYPE_CHECKING:
    from pathlib import Path

    from pigeonholed_training.progress import Narrator
    from pigeonholed_training.recipes import Recipe

BAD_SHOWN = 10  # bad pictures named on the terminal; the report has all


@dataclass(frozen=True, slots=True)
class Order:
    """What the user asked for.

    Attributes:
        data: folder of class folders, folder of such folders by part, or CSV file.
        recipe: with all overrides applied.
        name: of model and run.
        runs: where the run folder is made.
        seed: of split, weights, order and augmentation.
        precision: that thresholds shall promise.
        budget_s: time for training; None for no limit.
        fresh: forgets an earlier run of that name.
        weights: where the network starts from: `none`, `imagenet` or a file.
        cache: where decoded pictures are kept; None is beside the run folders.
    """

    data: Path
    recipe: Recipe
    name: str
    runs: Path
    seed: int = 0
    precision: float = 0.98
    budget_s: float | None = None
    fresh: bool = False
    weights: str = "none"
    cache: Path | None = None


class Stopwatch:
    """Seconds of each phase, in order."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = time.monotonic()

    def lap(self, phase: str) -> None:
        """The time since the last lap belongs to `phase`."""
        now = time.monotonic()
        self.seconds[phase] = round(now - self._since, 2)
        self._since = now


def carry_out(order: Order, narrator: Narrator) -> dict[str, Any]:
    """Trains, calibrates and reports into `order.runs / order.name`; the same order goes on where it was interrupted.

    Returns:
        The content of `metrics.json`.

    Raises:
        TrainingError: what the user can mend; nothing half-written is left.
    """
    watch = Stopwatch()
    run = RunFolder(order.runs / order.name)
    job = prepare(order, narrator)
    watch.lap("load")
    with run.claim():
        _settle_identity(run, job, order)
        Origin(order.data.absolute(), _cache(order).absolute(), order.weights).write(run)
        narrator.keep(run.path / runs.LOG)
        say_data(job, narrator)
        import_keras()
        watch.lap("start Keras")
        made = course.run(job, run, narrator, budget_s=order.budget_s)
        watch.lap("train")
        return finish(order, job, run, made.model, made.history, watch, narrator)


def rehearse(order: Order, narrator: Narrator) -> str:
    """What `carry_out` would do and how long that would probably take, in a few lines; no run folder is made.

    Raises:
        TrainingError: as `carry_out`.
    """
    job = prepare(order, narrator)
    say_data(job, narrator)
    return course.rehearse(job, budget_s=order.budget_s)


def prepare(order: Order, narrator: Narrator) -> Job:
    """The pictures, split, and the weights to start from; what is wrong with either is found before training."""
    require_train_extra()
    quiet_libraries()
    imaging.configure()
    recipe, cache = order.recipe, _cache(order)
    weights = _weights(order, narrator)
    pictures = reading.read(order.data, recipe.pixel_spec, cache=cache, shares=recipe.shares, narrator=narrator)
    if recipe.output == "sigmoid" and len(pictures.labels) != 2:
        twin = recipe.twin or f"{recipe.name} with --set output=softmax"
        raise WrongUsage(
            f"Recipe {recipe.name} tells two classes apart, and {order.data} has {len(pictures.labels)}; "
            f"use its twin for any number of classes, {twin}."
        )
    parts = pictures.parts(recipe.shares, order.seed)
    return Job(recipe, pictures, parts, order.seed, weights, place(cache, order.data, recipe.pixel_spec))


def _cache(order: Order) -> Path:
    return order.cache or order.runs / ".cache"


def _weights(order: Order, narrator: Narrator) -> Weights:
    """What the network starts from."""
    recipe = order.recipe
    if isinstance(recipe.network, Transfer):
        return resolve(order.weights, recipe.network.backbone, recipe.height, recipe.width, narrator.say)
    if order.weights != "none":
        raise WrongUsage(f"Recipe {recipe.name} starts from no weights; leave --weights {order.weights} out.")
    return Weights()


def _settle_identity(run: RunFolder, job: Job, order: Order) -> None:
    """Begins a run, or makes sure that the one in this folder is the same."""
    if order.fresh:
        run.forget()
    identity = job.identity()
    have = run.read_json(runs.SETTINGS)
    if have is None:
        run.write_json(runs.SETTINGS, identity)
        return
    differing = [key for key in identity if have.get(key) != identity[key]]
    if differing:
        what = ", ".join(word.replace("data_fingerprint", "the pictures").replace("_", " ") for word in differing)
        raise Misconfigured(
            f"Cannot go on in {run.path}: it holds a run with other settings ({what}). "
            "Give another --name, or --fresh to forget that run."
        )


def say_data(job: Job, narrator: Narrator) -> None:
    """What the pictures are, and what is wrong with them."""
    pictures = job.dataset
    held = [(part, len(job.indices(part))) for part in Part if part is not Part.NONE]
    counts = ", ".join(f"{count} {part.name.lower()}" for part, count in held if count)
    narrator.say(f"{len(pictures.pictures)} pictures of {len(pictures.labels)} classes: {counts}.")
    for bad in pictures.bad[:BAD_SHOWN]:
        narrator.say(f"Passed over {bad.path!a}: {bad.reason}, {bad.detail}")
    if len(pictures.bad) > BAD_SHOWN:
        narrator.say(f"Passed over {len(pictures.bad) - BAD_SHOWN} more; the report names them all.")
    for warning in metrics.warnings_about(job):
        narrator.say(f"Warning: {warning}")
