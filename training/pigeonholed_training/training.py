"""The training loop: repeatable on a CPU, and resumable at the last finished epoch."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pigeonholed.classifying.keras import import_keras
from pigeonholed_training import runs
from pigeonholed_training.calibration import negative_log_likelihood
from pigeonholed_training.errors import Misconfigured, TrainingError
from pigeonholed_training.splitting import Part

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from pigeonholed_training.dataset import Dataset
    from pigeonholed_training.progress import Narrator
    from pigeonholed_training.recipes import Recipe
    from pigeonholed_training.runs import RunFolder

CHUNK = 256  # pictures that are judged at once


@dataclass(frozen=True, slots=True)
class Epoch:
    """One line of the history; losses are mean cross-entropies in nats."""

    epoch: int
    loss: float
    accuracy: float
    validation_loss: float
    validation_accuracy: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Job:
    """What is trained: with the same job on the same CPU the same weights come out.

    `parts` holds the `Part` of each picture, int8 [N].
    """

    recipe: Recipe
    dataset: Dataset
    parts: npt.NDArray[np.int8]
    seed: int
    weights: str = "none"

    def indices(self, part: Part) -> npt.NDArray[np.intp]:
        """Which pictures are of `part`."""
        return np.flatnonzero(self.parts == part)

    def identity(self) -> dict[str, Any]:
        """What must be the same for a run to be gone on with."""
        return {
            "recipe": {key: value for key, value in self.recipe.as_dict().items() if key != "purpose"},
            "labels": list(self.dataset.labels),
            "data_fingerprint": self.dataset.fingerprint,
            "seed": self.seed,
            "weights": self.weights,
        }


def train(
    job: Job, run: RunFolder, narrator: Narrator, *, budget_s: float | None = None
) -> tuple[Any, tuple[Epoch, ...]]:
    """Trains, or goes on where the last finished epoch left off.

    Args:
        job: what to train.
        run: a claimed folder; after each epoch it holds a checkpoint and the history.
        narrator: told of every epoch.
        budget_s: no epoch is begun that would probably end later than this after the call.

    Returns:
        The keras.Model (logits) and every epoch, also of earlier sessions.

    Raises:
        Misconfigured, Unavailable: the run folder cannot be written, or its checkpoint is damaged.
        TrainingError: the loss is no longer finite.
    """
    keras = import_keras()
    keras.utils.set_random_seed(job.seed)
    begun = time.monotonic()
    model, history = _resumed(keras, run) or (_fresh(keras, job), [])
    if 0 < len(history) < job.recipe.epochs:
        narrator.say(f"Going on after epoch {len(history)} of {job.recipe.epochs}.")
    for number in range(len(history) + 1, job.recipe.epochs + 1):
        typical_s = float(np.median([epoch.seconds for epoch in history])) if history else 0.0
        if budget_s is not None and history and time.monotonic() - begun + typical_s > budget_s:
            narrator.say(f"The time budget ends training after epoch {number - 1} of {job.recipe.epochs}.")
            break
        epoch = _one_epoch(model, job, number, narrator)
        history.append(epoch)
        _checkpoint(model, history, run)
        narrator.say(
            f"epoch {number}/{job.recipe.epochs}  loss {epoch.loss:.4f}  accuracy {epoch.accuracy:.4f}  "
            f"validation loss {epoch.validation_loss:.4f}  accuracy {epoch.validation_accuracy:.4f}  "
            f"{len(job.indices(Part.TRAIN)) / max(epoch.seconds, 1e-9):,.0f} pictures/s"
        )
    return model, tuple(history)


def bare(model: Any, recipe: Recipe, classes: int) -> Any:
    """The same network without optimiser and loss, as it is published."""
    twin = recipe.build(recipe.height, recipe.width, classes)
    twin.set_weights(model.get_weights())
    return twin


def logits_of(model: Any, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Logits, float64 [N, K], of uint8 RGB pictures [N, H, W, 3]."""
    if not len(pixels):
        return np.empty((0, int(model.output_shape[-1])))
    chunks = [pixels[start : start + CHUNK] for start in range(0, len(pixels), CHUNK)]
    rows = [np.asarray(model.predict_on_batch(chunk), np.float64) for chunk in chunks]
    return np.concatenate(rows)


def batches(job: Job, epoch: int) -> Iterator[tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]]:
    """The augmented batches of one epoch, decided by seed and epoch alone, so that resuming repeats them.

    All have the same size, because a graph is compiled for each shape: the last is filled up from the beginning.
    """
    rng = np.random.default_rng([job.seed, epoch])
    order = rng.permutation(job.indices(Part.TRAIN))
    size = job.recipe.batch_size
    order = np.resize(order, -(-len(order) // size) * size)
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        yield job.recipe.augmentation.apply(job.dataset.pixels[chosen], rng), job.dataset.targets[chosen]


def steps_of(job: Job) -> int:
    """Batches an epoch."""
    return -(-len(job.indices(Part.TRAIN)) // job.recipe.batch_size)


def _fresh(keras: Any, job: Job) -> Any:
    model = job.recipe.build(job.recipe.height, job.recipe.width, len(job.dataset.labels))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(_optimiser(keras, job), loss, metrics=["accuracy"])
    return model


def _optimiser(keras: Any, job: Job) -> Any:
    recipe, steps = job.recipe, steps_of(job)
    rate: Any = recipe.learning_rate
    if recipe.schedule == "cosine":
        warmup = min(round(recipe.warmup_epochs * steps), recipe.epochs * steps - 1)
        rate = keras.optimizers.schedules.CosineDecay(
            0.0 if warmup else rate,
            recipe.epochs * steps - warmup,
            warmup_target=rate if warmup else None,
            warmup_steps=warmup,
        )
    if recipe.optimiser == "sgd":
        return keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay)
    return keras.optimizers.AdamW(rate, weight_decay=recipe.weight_decay)


def _one_epoch(model: Any, job: Job, number: int, narrator: Narrator) -> Epoch:
    begun = time.monotonic()
    _reseed(model, job.seed, number)
    sums = np.zeros(2)
    with narrator.steps(f"epoch {number}/{job.recipe.epochs}", steps_of(job)) as step:
        for index, (pixels, targets) in enumerate(batches(job, number), start=1):
            said = model.train_on_batch(pixels, targets, return_dict=True)  # of this batch alone
            sums += float(said["loss"]), float(said["accuracy"])
            step.at(index, f"loss {sums[0] / index:.3f}  accuracy {sums[1] / index:.3f}")
    loss, accuracy = sums / steps_of(job)
    if not np.isfinite(loss):
        raise TrainingError(
            f"Training broke down in epoch {number}: the loss is no longer finite. "
            f"Try a lower rate: --set learning_rate={job.recipe.learning_rate / 3:.2g} --fresh"
        )
    held = job.indices(Part.VALIDATION)
    logits, targets = logits_of(model, job.dataset.pixels[held]), job.dataset.targets[held]
    return Epoch(
        epoch=number,
        loss=round(float(loss), 6),
        accuracy=round(float(accuracy), 6),
        validation_loss=round(negative_log_likelihood(logits, targets), 6),
        validation_accuracy=round(float((logits.argmax(axis=1) == targets).mean()), 6),
        seconds=round(time.monotonic() - begun, 3),
    )


def _reseed(model: Any, seed: int, epoch: int) -> None:
    """Sets the state of dropout, which Keras leaves out of checkpoints, by seed and epoch alone."""
    rng = np.random.default_rng([seed, epoch, 1])
    for variable in model.variables:
        if variable.path.endswith("seed_generator_state"):
            variable.assign(rng.integers(0, 2**31, variable.shape))


def _checkpoint(model: Any, history: list[Epoch], run: RunFolder) -> None:
    """The weights first, then the state that names them: a kill in between leaves the epoch before."""
    name = f"{runs.CHECKPOINTS}/epoch-{len(history):04d}.keras"
    run.writing(name, model.save)
    rows = [asdict(epoch) for epoch in history]
    run.write_json(runs.STATE, {"checkpoint": name, "history": rows})
    run.write_history(rows)
    for old in (run.path / runs.CHECKPOINTS).glob("*.keras"):
        if old != run.path / name:
            old.unlink(missing_ok=True)


def _resumed(keras: Any, run: RunFolder) -> tuple[Any, list[Epoch]] | None:
    """Model and history of the last finished epoch; None where none was finished."""
    state = run.read_json(runs.STATE)
    if state is None:
        return None
    path = run.path / str(state.get("checkpoint"))
    try:
        history = [Epoch(**row) for row in state["history"]]
        model = keras.saving.load_model(path, safe_mode=True)
    except Exception as fault:  # whatever a damaged archive makes Keras raise
        raise Misconfigured(f"Cannot go on from the checkpoint {path}: {fault}. Start over with --fresh.") from fault
    return model, history
