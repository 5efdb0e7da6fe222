"""The phases that a recipe goes through, from pictures to a network that is done."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pigeonholed_training import networks
from pigeonholed_training.data.splitting import Part
from pigeonholed_training.fitting import feed, loop, precision, rehearsal
from pigeonholed_training.fitting.judging import CHUNK, judge
from pigeonholed_training.fitting.plan import Epoch, Plan
from pigeonholed_training.recipes.recipe import Transfer

if TYPE_CHECKING:
    from collections.abc import Callable

    from pigeonholed_training.fitting.job import Job
    from pigeonholed_training.fitting.rehearsal import Estimate
    from pigeonholed_training.progress import Narrator
    from pigeonholed_training.runs import RunFolder


@dataclass(frozen=True)
class Made:
    """What came out: keras.Model in float32 giving logits, and every epoch of every phase."""

    model: Any
    history: tuple[Epoch, ...]


def run(
    job: Job,
    folder: RunFolder,
    narrator: Narrator,
    *,
    budget_s: float | None = None,
    on_epoch: Callable[[Epoch], object] = lambda _epoch: None,
) -> Made:
    """Trains as the recipe says, or goes on where the last finished epoch left off.

    Args:
        job: what to train.
        folder: the run's, claimed.
        narrator: told how it goes.
        budget_s: all phases together are planned to end within it.
        on_epoch: told of each epoch of every phase, also of those of earlier sessions; may raise to end training.

    Raises:
        TrainingError: see `loop.fit`, `features.compute` and `networks.build`.
    """
    until = None if budget_s is None else time.monotonic() + budget_s
    if _starts_from_elsewhere(job):
        from pigeonholed_training.fitting import transfer

        return transfer.run(job, folder, narrator, until, on_epoch)
    if isinstance(job.recipe.network, Transfer):
        narrator.say(
            f"Recipe {job.recipe.name} starts from no weights here: the whole network learns from the beginning, which "
            "takes many pictures and long. Give --weights imagenet or a file to learn from few."
        )
    fitted = loop.fit(
        whole(job),
        pictures(job),
        judged_on_pictures(job),
        plan_of(job),
        folder,
        narrator,
        seed=job.seed,
        budget_s=left(until),
        on_epoch=on_epoch,
    )
    return Made(fitted.model, fitted.history)


def rehearse(job: Job, *, budget_s: float | None = None) -> str:
    """What `run` would do, from a few steps that are timed; writes nothing into a run folder."""
    if _starts_from_elsewhere(job):
        from pigeonholed_training.fitting import transfer

        return transfer.rehearse(job, budget_s)
    estimate: Estimate = rehearsal.rehearse(
        whole(job), pictures(job), judged_on_pictures(job), plan_of(job), seed=job.seed, budget_s=budget_s
    )
    return str(estimate)


def plan_of(job: Job, **changes: Any) -> Plan:
    """The recipe as a plan for one phase over the whole network, with `changes`."""
    recipe, train = job.recipe, job.indices(Part.TRAIN)
    balanced = recipe.class_weights == "balanced"
    values: dict[str, Any] = {
        "name": "train",
        "output": recipe.output,
        "epochs": recipe.epochs,
        "learning_rate": recipe.learning_rate,
        "optimiser": recipe.optimiser,
        "momentum": recipe.momentum,
        "weight_decay": recipe.weight_decay,
        "schedule": recipe.schedule,
        "warmup_epochs": recipe.warmup_epochs,
        "label_smoothing": recipe.label_smoothing,
        "ema": recipe.ema,
        "patience": recipe.patience,
        "class_weights": feed.balanced(job.dataset.targets[train], len(job.dataset.labels)) if balanced else None,
        "clip_norm": recipe.clip_norm,
        "precision": precision.choose(recipe.mixed_precision),
    }
    return Plan(**(values | changes))


def pictures(job: Job) -> feed.Feed:
    """The training pictures, augmented."""
    recipe, dataset = job.recipe, job.dataset
    train = job.indices(Part.TRAIN)
    return feed.Feed(dataset.read, dataset.targets, train, recipe.batch_size, recipe.augmentation, job.seed)


def judged_on_pictures(job: Job) -> Callable[[Any], tuple[float, float]]:
    """Loss and accuracy of a network on the validation pictures."""
    held, dataset = job.indices(Part.VALIDATION), job.dataset
    return lambda model: judge(model, dataset.chunks(held, CHUNK), dataset.targets[held])


def whole(job: Job) -> Callable[[], Any]:
    """Makes the network, all of which learns."""

    def build() -> Any:
        model = networks.build(job.recipe, len(job.dataset.labels), job.weights)
        if isinstance(job.recipe.network, Transfer):
            from pigeonholed_training.networks import backbones

            backbones.thaw(model)
        return model

    return build


def left(until: float | None) -> float | None:
    """Seconds until a reading of time.monotonic(); None where there is no end."""
    return None if until is None else max(until - time.monotonic(), 0.0)


def rows(history: tuple[Epoch, ...]) -> list[dict[str, Any]]:
    """The history as lines of `history.csv`."""
    return [asdict(epoch) for epoch in history]


def _starts_from_elsewhere(job: Job) -> bool:
    return isinstance(job.recipe.network, Transfer) and job.weights.path is not None
