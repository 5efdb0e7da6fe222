"""What follows the training itself: export, calibration, judgement, report; all of it repeatable after a kill."""

from __future__ import annotations

import secrets
import shutil
from typing import TYPE_CHECKING, Any

from pigeonholed import bundle as bundles
from pigeonholed_training import concluding, metrics, publishing, runs
from pigeonholed_training.data.splitting import Part
from pigeonholed_training.errors import Unavailable
from pigeonholed_training.evaluation import record, subject
from pigeonholed_training.evaluation.assessing import assess
from pigeonholed_training.evaluation.reference import reference
from pigeonholed_training.evaluation.speed import speed
from pigeonholed_training.reporting import curves

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pigeonholed_training.fitting.job import Job
    from pigeonholed_training.fitting.plan import Epoch
    from pigeonholed_training.progress import Narrator
    from pigeonholed_training.runs import RunFolder
    from pigeonholed_training.session import Order, Stopwatch


def finish(
    order: Order, job: Job, run: RunFolder, model: Any, history: Sequence[Epoch], watch: Stopwatch, narrator: Narrator
) -> dict[str, Any]:
    """Bundle, curves, metrics and report of a trained network. Made aside and renamed: a kill leaves the run as it was.

    Returns:
        The content of `metrics.json`.

    Raises:
        TrainingError: the export disagrees with the network or does not load; the disk is full.
    """
    aside = run.path / f".{runs.BUNDLE}-{secrets.token_hex(4)}"
    for left in run.path.glob(f".{runs.BUNDLE}-*"):
        shutil.rmtree(left, ignore_errors=True)
    try:
        narrator.say("Exporting, calibrating and comparing the runtimes.")
        made = publishing.assemble(aside, order.name, job, model, order.precision)
        watch.lap("export and calibrate")
        narrator.say("Judging the model.")
        judged_by = subject.held_back(job.dataset, job.parts, job.seed)
        with publishing.serving(aside) as classifier:
            found = assess(classifier, made.manifest, judged_by, seed=job.seed)
        sections = found.metrics | {"speed": speed(aside, made.manifest, seconds=concluding.SPEED_S)}
        watch.lap("judge")
        run.writing(runs.CURVES, lambda path: curves.draw(history, path))
        content = metrics.collect(order.name, order.precision, job, made, history, sections)
        content["seconds"] = watch.seconds
        run.writing(runs.MODEL, lambda path: shutil.copyfile(aside / bundles.KERAS_MODEL, path))
        kept = record.of(judged_by, found.answers, _learnt(job))
        record.save(run.path, kept)
        record.save(aside, kept, paths=False)  # where pictures lie is nobody else's business
        kept_for_later = {"reference": reference(found.answers, judged_by.judged)}
        content = concluding.of_bundle(aside, made.manifest.model_copy(update=kept_for_later), content, found.examples)
        concluding.bring_out(aside, run)
        shutil.rmtree(run.path / runs.BUNDLE, ignore_errors=True)
        aside.rename(run.path / runs.BUNDLE)
    except OSError as fault:
        raise Unavailable(
            f"Cannot finish the run in {run.path}: {fault.strerror or fault}; the training is kept, and the same "
            "command finishes it."
        ) from fault
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return content


def _learnt(job: Job) -> Iterator[str]:
    """SHA-256 of every picture that had a say in what the model is."""
    for part in (Part.TRAIN, Part.VALIDATION, Part.CALIBRATION):
        for index in job.indices(part):
            yield job.dataset.pictures[index].sha256
