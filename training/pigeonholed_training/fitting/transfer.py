"""Transfer: features of a frozen backbone once, a new end on them, then the last stages of both together.

A head that has learned first spares the backbone the large steps of a random one (LP-FT, Kumar and others 2022,
arXiv 2202.10054).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from pigeonholed_training import networks
from pigeonholed_training.data.splitting import Part
from pigeonholed_training.fitting import course, features, loop, probe, rehearsal
from pigeonholed_training.fitting.course import Made
from pigeonholed_training.fitting.feed import Feed
from pigeonholed_training.fitting.judging import CHUNK, judge
from pigeonholed_training.fitting.pace import spoken
from pigeonholed_training.fitting.plan import Epoch
from pigeonholed_training.networks import backbones
from pigeonholed_training.recipes.recipe import Transfer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    from pigeonholed_training.fitting.features import Features
    from pigeonholed_training.fitting.job import Job
    from pigeonholed_training.fitting.plan import Plan
    from pigeonholed_training.progress import Narrator
    from pigeonholed_training.runs import RunFolder

_TIMED = 256  # pictures whose features are timed for an estimate
_HEAD_BATCH = 64  # a head is small: larger batches would only mean fewer steps


def run(
    job: Job,
    folder: RunFolder,
    narrator: Narrator,
    until: float | None,
    on_epoch: Callable[[Epoch], object] = lambda _epoch: None,
) -> Made:
    """Head, then fine-tuning where the recipe has it; each phase resumes on its own.

    Args:
        job: what to train; its weights are a file.
        folder: the run's, claimed.
        narrator: told how it goes.
        until: reading of time.monotonic() by which to be done; None for no end.
        on_epoch: told of each epoch; see `course.run`.
    """
    model = _network(job)
    found = _features(job, model, narrator)
    history = _head(job, model, found, folder, narrator, until)
    folder.write_history(course.rows(history))
    for epoch in history:
        on_epoch(epoch)
    if not job.recipe.finetune.epochs:
        return Made(model, history)
    trained = backbones.unfreeze(model, job.recipe.finetune.layers)
    narrator.say(
        f"Fine-tuning from {trained.first} on: {trained.numbers:,} of {trained.total:,} numbers of the network learn."
    )
    fitted = loop.fit(
        _unfrozen(job, model.get_weights()),
        course.pictures(job),
        course.judged_on_pictures(job),
        _finetuning(job),
        folder,
        narrator,
        seed=job.seed,
        budget_s=course.left(until),
        before=history,
        on_epoch=on_epoch,
    )
    together = (*history, *fitted.history)
    best, before = fitted.history[fitted.kept - 1], _kept(history, job.recipe.patience)
    if job.recipe.patience and before.validation_loss < best.validation_loss:
        narrator.say(
            f"Fine-tuning did not help (validation loss {best.validation_loss:.4f}, before it "
            f"{before.validation_loss:.4f}); the network is kept as it was."
        )
        return Made(model, together)
    return Made(fitted.model, together)


def _kept(history: tuple[Epoch, ...], patience: int) -> Epoch:
    """The epoch that the head was taken from."""
    return min(history, key=lambda epoch: epoch.validation_loss) if patience else history[-1]


def rehearse(job: Job, budget_s: float | None) -> str:
    """What `run` would do and how long that would take, from a few steps of each phase; writes nothing."""
    model, recipe = _network(job), job.recipe
    some = np.arange(min(_TIMED, len(job.dataset.pictures)))
    infer = features.network(backbones.features_model(model), len(job.dataset.pictures))
    begun = time.monotonic()
    for pixels in job.dataset.chunks(some, 64):
        infer(pixels)
    total_s = (time.monotonic() - begun) / len(some) * len(job.dataset.pictures)
    what = "a logistic regression on them" if _end(job).head == "logistic" else f"{recipe.epochs} epochs on them"
    lines = [f"head: features of {len(job.dataset.pictures):,} pictures, about {spoken(total_s)}; then {what}."]
    if recipe.finetune.epochs:
        estimate = rehearsal.rehearse(
            _unfrozen(job, model.get_weights()),
            course.pictures(job),
            course.judged_on_pictures(job),
            _finetuning(job),
            seed=job.seed,
            budget_s=None if budget_s is None else max(budget_s - total_s, 1.0),
        )
        lines.append(str(estimate))
    return "\n".join(lines)


def _end(job: Job) -> Transfer:
    """The recipe's network, which is of this kind."""
    network = job.recipe.network
    assert isinstance(network, Transfer)
    return network


def _network(job: Job) -> Any:
    """The whole network with a frozen backbone and a new end, in float32."""
    from pigeonholed.classifying.keras import import_keras

    import_keras().utils.set_random_seed(job.seed)
    return networks.build(job.recipe, len(job.dataset.labels), job.weights)


def _features(job: Job, model: Any, narrator: Narrator) -> Features:
    keys = [picture.sha256 for picture in job.dataset.pictures]
    begun = time.monotonic()
    with narrator.steps("features", len(keys)) as step:
        found = features.compute(
            backbones.features_model(model),
            job.dataset.read,
            keys,
            job.cache,
            on_done=lambda done, total: step.at(done, total=total),
            say=narrator.say,
        )
    narrator.say(f"Features of {len(keys):,} pictures: {spoken(time.monotonic() - begun)}.")
    return found


def _head(
    job: Job, model: Any, found: Features, folder: RunFolder, narrator: Narrator, until: float | None
) -> tuple[Epoch, ...]:
    """Trains the new end on features and puts it into `model`."""
    if _end(job).head == "logistic":
        return (_logistic(job, model, found, narrator),)
    train, held, targets = job.indices(Part.TRAIN), job.indices(Part.VALIDATION), job.dataset.targets
    fitted = loop.fit(
        lambda: backbones.head_model(_end(job), job.units),
        Feed(found.read, targets, train, max(_HEAD_BATCH, job.recipe.batch_size), seed=job.seed),
        lambda head: judge(head, _chunks(found, held), targets[held]),
        course.plan_of(job, name="head", precision="float32"),
        folder,
        narrator,
        seed=job.seed,
        budget_s=course.left(until),
    )
    backbones.put_head(model, fitted.model)
    return fitted.history


def _logistic(job: Job, model: Any, found: Features, narrator: Narrator) -> Epoch:
    """A regularised logistic regression; told as one epoch."""
    begun, train, targets = time.monotonic(), job.indices(Part.TRAIN), job.dataset.targets
    head = probe.fit_head(
        lambda some: found.read(train[some]),
        targets[train],
        job.dataset.groups[train],
        seed=job.seed,
        balanced=job.recipe.class_weights == "balanced",
        on_tried=lambda one: narrator.say(
            f"head  C {one.c:.2g}: loss {one.loss:.4f}  accuracy {one.accuracy:.4f} in cross-validation"
        ),
    )
    kernel, bias = head.of(job.units)
    backbones.put_linear(model, kernel, bias)
    end = backbones.head_model(_end(job), job.units)
    end.get_layer("logits").set_weights([kernel, bias])
    said = {part: judge(end, _chunks(found, where), targets[where]) for part, where in _judged(job).items()}
    epoch = Epoch(
        epoch=1,
        loss=round(said[Part.TRAIN][0], 6),
        accuracy=round(said[Part.TRAIN][1], 6),
        validation_loss=round(said[Part.VALIDATION][0], 6),
        validation_accuracy=round(said[Part.VALIDATION][1], 6),
        seconds=round(time.monotonic() - begun, 3),
        phase="head",
    )
    narrator.say(
        f"head  loss {epoch.loss:.4f}  accuracy {epoch.accuracy:.4f}  validation loss {epoch.validation_loss:.4f}  "
        f"accuracy {epoch.validation_accuracy:.4f}"
    )
    return epoch


def _judged(job: Job) -> dict[Part, npt.NDArray[np.intp]]:
    return {part: job.indices(part) for part in (Part.TRAIN, Part.VALIDATION)}


def _chunks(found: Features, indices: npt.NDArray[np.intp]) -> Iterator[npt.NDArray[np.float32]]:
    for start in range(0, len(indices), CHUNK):
        yield found.read(indices[start : start + CHUNK])


def _finetuning(job: Job) -> Plan:
    tuning = job.recipe.finetune
    return course.plan_of(job, name="finetune", epochs=tuning.epochs, learning_rate=tuning.learning_rate)


def _unfrozen(job: Job, weights: list[npt.NDArray[Any]]) -> Callable[[], Any]:
    """Makes the network as the head left it, with its last stages free to learn."""

    def build() -> Any:
        # Random weights would be overwritten; none need to be read from the file again.
        model = backbones.build(_end(job), job.recipe.height, job.recipe.width, job.units)
        model.set_weights(weights)
        backbones.unfreeze(model, job.recipe.finetune.layers)
        return model

    return build
