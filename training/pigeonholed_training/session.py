"""One `train` command from pictures to a finished run folder, each step repeatable after a kill."""

from __future__ import annotations

import secrets
import shutil
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pigeonholed import bundle as bundles
from pigeonholed import imaging
from pigeonholed.classifying.keras import import_keras
from pigeonholed_training import curves, dataset, publishing, report, runs
from pigeonholed_training.backend import quiet_libraries, require_train_extra
from pigeonholed_training.errors import Misconfigured, Unavailable
from pigeonholed_training.evaluation import evaluate
from pigeonholed_training.runs import RunFolder
from pigeonholed_training.splitting import Part
from pigeonholed_training.training import Epoch, Job, bare, train

if TYPE_CHECKING:
    from pathlib import Path

    from pigeonholed_training.progress import Narrator
    from pigeonholed_training.recipes import Recipe

BAD_SHOWN = 10  # bad pictures named on the terminal; the report has all


@dataclass(frozen=True, slots=True)
class Order:
    """What the user asked for.

    Attributes:
        data: folder of class folders.
        recipe: with all overrides applied.
        name: of model and run.
        runs: where the run folder is made.
        seed: of split, weights, order and augmentation.
        precision: that thresholds shall promise.
        budget_s: training ends after the last epoch that fits; None for no limit.
        fresh: forgets an earlier run of that name.
        weights: where a network starts from; `none` is the only one that today's recipes know.
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
    require_train_extra()
    quiet_libraries()
    imaging.configure()
    watch = Stopwatch()
    run = RunFolder(order.runs / order.name)
    pictures = _load(order, narrator)
    watch.lap("load")
    parts = pictures.parts(order.recipe.shares, order.seed)
    job = Job(order.recipe, pictures, parts, order.seed, order.weights)
    with run.claim():
        _settle_identity(run, job, order)
        narrator.keep(run.path / runs.LOG)
        _say_data(job, narrator)
        import_keras()
        watch.lap("start Keras")
        model, history = train(job, run, narrator, budget_s=order.budget_s)
        watch.lap("train")
        narrator.say("Exporting, calibrating and comparing the runtimes.")
        return _finish(order, job, run, bare(model, job.recipe, len(pictures.labels)), history, watch)


def _load(order: Order, narrator: Narrator) -> dataset.Dataset:
    with narrator.steps(f"reading {order.data.name}", 1) as step:
        return dataset.load(
            order.data,
            order.recipe.pixel_spec,
            needed=len(order.recipe.shares.parts),
            on_picture=lambda done, total: step.at(done, total=total),
        )


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


def _say_data(job: Job, narrator: Narrator) -> None:
    pictures = job.dataset
    counts = ", ".join(f"{len(job.indices(part))} {part.name.lower()}" for part in job.recipe.shares.parts)
    narrator.say(f"{len(pictures.pictures)} pictures of {len(pictures.labels)} classes: {counts}.")
    for bad in pictures.bad[:BAD_SHOWN]:
        narrator.say(f"Passed over {bad.path!a}: {bad.reason}, {bad.detail}")
    if len(pictures.bad) > BAD_SHOWN:
        narrator.say(f"Passed over {len(pictures.bad) - BAD_SHOWN} more; the report names them all.")
    for warning in warnings_about(job):
        narrator.say(f"Warning: {warning}")


def warnings_about(job: Job) -> list[str]:
    """What a reader of the numbers should know about the pictures, in plain words."""
    pictures, found = job.dataset, []
    if pictures.contradictions:
        found.append(
            f"{len(pictures.contradictions)} pictures are in more than one class, byte for byte; "
            f"no model can get those right (first: {pictures.contradictions[0]!a})."
        )
    if pictures.copies:
        found.append(f"{len(pictures.copies)} pictures are copies of others in their class and count once.")
    if pictures.bad:
        found.append(f"{len(pictures.bad)} files could not be used.")
    sizes = np.bincount(pictures.targets, minlength=len(pictures.labels))
    if sizes.max() >= 5 * sizes.min():
        small, large = pictures.labels[int(sizes.argmin())], pictures.labels[int(sizes.argmax())]
        found.append(f"The classes are uneven: {sizes.min()} of {small!a} and {sizes.max()} of {large!a}.")
    return found


def _finish(
    order: Order, job: Job, run: RunFolder, model: Any, history: tuple[Epoch, ...], watch: Stopwatch
) -> dict[str, Any]:
    """Calibration, bundle, curves and report. Made aside and renamed: a kill leaves the run as it was."""
    aside = run.path / f".{runs.BUNDLE}-{secrets.token_hex(4)}"
    for left in run.path.glob(f".{runs.BUNDLE}-*"):
        shutil.rmtree(left, ignore_errors=True)
    try:
        proven = publishing.assemble(aside, order.name, job, model, order.precision)
        watch.lap("export and calibrate")
        run.writing(runs.CURVES, lambda path: curves.draw(history, path))
        watch.lap("curves")
        metrics = _metrics(order, job, proven, history) | {"seconds": watch.seconds}
        page = report.render(metrics, (run.path / runs.CURVES).read_bytes()).encode("utf-8")
        run.write(runs.REPORT, page)
        run.write_json(runs.METRICS, metrics)
        run.writing(runs.MODEL, lambda path: shutil.copyfile(aside / bundles.KERAS_MODEL, path))
        summary = {key: metrics["held_out"][key] for key in ("n", "part", "accuracy", "macro_f1", "unsure_share")}
        manifest = proven.manifest.model_copy(update={"metrics": summary})
        (aside / bundles.MANIFEST).write_bytes(manifest.to_json())
        shutil.copyfile(run.path / runs.METRICS, aside / bundles.METRICS)
        (aside / bundles.REPORT).write_bytes(page)
        shutil.rmtree(run.path / runs.BUNDLE, ignore_errors=True)
        aside.rename(run.path / runs.BUNDLE)
    except OSError as fault:
        raise Unavailable(
            f"Cannot finish the run in {run.path}: {fault.strerror or fault}; the training is kept, and the same "
            "command finishes it."
        ) from fault
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return metrics


def _metrics(order: Order, job: Job, proven: publishing.Proven, history: tuple[Epoch, ...]) -> dict[str, Any]:
    """The content of `metrics.json`."""
    pictures, manifest = job.dataset, proven.manifest
    part = Part(int(job.parts[proven.judged[0]]))
    held = evaluate(pictures.labels, proven.served, pictures.targets[proven.judged], manifest.thresholds)
    counts = {
        label: {
            part.name.lower(): int((pictures.targets[job.indices(part)] == index).sum())
            for part in job.recipe.shares.parts
        }
        for index, label in enumerate(pictures.labels)
    }
    return {
        "name": order.name,
        "recipe": order.recipe.name,
        "seed": order.seed,
        "created_at": manifest.created_at,
        "data_fingerprint": pictures.fingerprint,
        "labels": list(pictures.labels),
        "counts": counts,
        "warnings": warnings_about(job),
        "bad": [asdict(bad) for bad in pictures.bad],
        "history": [asdict(epoch) for epoch in history],
        "held_out": held | {"part": part.name.lower(), "note": _note(part)},
        "calibration": manifest.calibration.model_dump() | {"nll_before": round(proven.nll_before, 6)},
        "precision_target": order.precision,
        "thresholds": [threshold.model_dump() for threshold in manifest.thresholds],
        "agreement": proven.agreement,
        "versions": manifest.versions,
    }


def _note(part: Part) -> str:
    if part is Part.TEST:
        return "They served nothing else."
    return (
        "Temperature and thresholds were fitted on these same pictures: that cannot change which class is best, but "
        "the shares after thresholds are a little kind."
    )


def finished(path: Path) -> dict[str, Any]:
    """The metrics of a finished run.

    Raises:
        Misconfigured: there is no finished run at `path`.
    """
    metrics = RunFolder(path).read_json(runs.METRICS)
    if metrics is None or not (path / runs.BUNDLE).is_dir():
        raise Misconfigured(f"{path} holds no finished training; make one with 'pigeonholed-train train'.")
    return metrics
