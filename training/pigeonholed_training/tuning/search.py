"""One `tune` command: trial after trial through the same training as `train`, each repeatable after a kill."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pigeonholed.classifying.keras import import_keras
from pigeonholed_training import runs, session
from pigeonholed_training.errors import Misconfigured, TrainingError, WrongUsage
from pigeonholed_training.fitting import course
from pigeonholed_training.networks import weights
from pigeonholed_training.recipes import settable
from pigeonholed_training.recipes.recipe import Transfer
from pigeonholed_training.runs import RunFolder
from pigeonholed_training.tuning import outcome, picture
from pigeonholed_training.tuning.space import apply, space
from pigeonholed_training.tuning.study import Pruned, Study, require_optuna
from pigeonholed_training.tuning.telling import Teller

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pigeonholed_training.fitting.job import Job
    from pigeonholed_training.fitting.plan import Epoch
    from pigeonholed_training.progress import Narrator
    from pigeonholed_training.recipes import Recipe
    from pigeonholed_training.tuning.space import Space
    from pigeonholed_training.tuning.study import Attempt

DATABASE = "tune.db"
LOG = "tune.log"
_TRIAL = "trial"  # the run folder of the trial under way


@dataclass(frozen=True, slots=True)
class Order:
    """What the user asked for.

    Attributes:
        training: what `train` would be asked for; its budget is for the whole search.
        given: the recipe as the user named it.
        base: that recipe, before any setting was changed.
        pinned: dotted keys of the settings that stay as they are.
        trials: how many shall have ended, those of earlier sessions counted.
    """

    training: session.Order
    given: str
    base: Recipe
    pinned: frozenset[str]
    trials: int = 20

    @property
    def path(self) -> Path:
        """The run folder."""
        return self.training.runs / self.training.name


def named(recipe: Recipe, changes: Sequence[str]) -> frozenset[str]:
    """The dotted keys of the settings in `KEY=VALUE`s that `override` has taken."""
    keys = [change.partition("=")[0].strip() for change in changes]
    known = settable(recipe)
    return frozenset(key if key in known else f"network.{key}" for key in keys)


def carry_out(order: Order, narrator: Narrator) -> dict[str, Any]:
    """Searches into the run folder; the same order goes on where it was interrupted.

    Returns:
        The content of `tune.json`, see `outcome.content`.

    Raises:
        TrainingError: what the user can mend; trials that have ended are kept.
    """
    require_optuna()
    run = RunFolder(order.path)
    job = session.prepare(order.training, narrator)
    found = _space(order, job)
    with run.claim():
        _settle_identity(run, job, order, found)
        narrator.keep(run.path / LOG)
        session.say_data(job, narrator)
        import_keras()
        with Study(run.path / DATABASE, found, job.seed, _warmup(job.recipe)) as study:
            _Search(order, job, run, found, study, narrator).carry_on()
            return _left_behind(order, job, run, found, study)


def _space(order: Order, job: Job) -> Space:
    """What is searched.

    Raises:
        WrongUsage: there is nothing.
    """
    has_weights = job.weights.path is not None
    found = space(job.recipe, pinned=order.pinned, has_weights=has_weights, backbones=_backbones(job))
    if found:
        return found
    if space(job.recipe, has_weights=has_weights, backbones=_backbones(job)):
        raise WrongUsage(f"There is nothing to tune: --set pins all that could be searched in {job.recipe.name}.")
    raise WrongUsage(
        f"There is nothing to tune in recipe {job.recipe.name}: it chooses its regularisation itself, and weights of "
        "one backbone only are at hand; tune a recipe such as mobilenet-v2, or have Keras fetch the ImageNet weights "
        "of other backbones first."
    )


def _backbones(job: Job) -> tuple[str, ...]:
    """Those whose ImageNet weights Keras has in its cache already, where the user lets it look there."""
    if job.weights.given != "imagenet":
        return ()
    folder, side = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models", job.recipe.height
    names = {name: one.file.format(side=side if side in one.sides else 224) for name, one in weights.PUBLISHED.items()}
    return tuple(name for name, file in names.items() if (folder / file).is_file())


def _settle_identity(run: RunFolder, job: Job, order: Order, found: Space) -> None:
    """Begins a search, or makes sure that the one in this folder is the same."""
    if order.training.fresh:
        run.forget()
    identity = job.identity() | {"search": [one.as_dict() for one in found]}
    have = run.read_json(runs.SETTINGS)
    if have is None:
        run.write_json(runs.SETTINGS, identity)
        return
    way_out = "Give another --name, or --fresh to forget that."
    if "search" not in have:
        raise Misconfigured(f"Cannot search in {run.path}: it holds a training. {way_out}")
    differing = [key for key in identity if have.get(key) != identity[key]]
    if differing:
        words = {"data_fingerprint": "the pictures", "search": "what is searched"}
        what = ", ".join(words.get(key, key) for key in differing)
        raise Misconfigured(f"Cannot go on in {run.path}: it holds a search with other settings ({what}). {way_out}")


@dataclass(frozen=True)
class _Search:
    """One sitting at a search."""

    order: Order
    job: Job
    run: RunFolder
    space: Space
    study: Study
    narrator: Narrator

    def carry_on(self) -> None:
        """Trial after trial, until there are as many as were asked for or time is up."""
        trials, budget_s = self.study.trials(), self.order.training.budget_s
        wanted = int(min(self.order.trials, self.study.most))
        with Teller.over(self.narrator, self.space, wanted, budget_s) as teller:
            teller.begin(trials)
            while len(trials) < wanted and teller.has_time_for_another(trials):
                self._one(teller)
                trials = self.study.trials()
                teller.tell(trials)
                _left_behind(self.order, self.job, self.run, self.space, self.study, picture_too=False)

    def _one(self, teller: Teller) -> None:
        """Trains one trial to its end, and puts down how it ended."""
        attempt, begun = self.study.ask(), time.monotonic()
        teller.set_out(attempt)
        job = self._job(attempt)
        folder, last = RunFolder(self.run.path / _TRIAL), _epochs(job.recipe)

        def on_epoch(epoch: Epoch) -> None:
            teller.saw(epoch)
            attempt.saw(epoch, is_last=epoch.epoch >= last)

        # Every trial begins alike, and the graphs of the one before are not kept.
        import_keras().utils.clear_session()
        try:
            with folder.claim():
                _take_over(folder, job)
                made = course.run(job, folder, teller.inner, budget_s=teller.left_s, on_epoch=on_epoch)
        except Pruned:
            attempt.gave_up("pruned", time.monotonic() - begun)
        except KeyboardInterrupt:
            attempt.put_back()
            raise
        except Exception as fault:
            if not _is_the_settings_fault(fault):
                raise
            attempt.gave_up("broke-down", time.monotonic() - begun)
        else:
            kept = _kept(job.recipe, made.history)
            attempt.done(kept.validation_loss, kept.validation_accuracy, time.monotonic() - begun)
        shutil.rmtree(folder.path, ignore_errors=True)  # a checkpoint of every trial would fill disks

    def _job(self, attempt: Attempt) -> Job:
        """The same pictures in the same parts, with the settings of one trial."""
        job, recipe = self.job, apply(self.job.recipe, self.space, attempt.values)
        network, own = recipe.network, self.job.recipe.network
        if isinstance(network, Transfer) and isinstance(own, Transfer) and network.backbone != own.backbone:
            found = weights.resolve(job.weights.given, network.backbone, recipe.height, recipe.width, self.narrator.say)
            job = replace(job, weights=found)
        return replace(job, recipe=recipe)


def _left_behind(
    order: Order, job: Job, run: RunFolder, found: Space, study: Study, *, picture_too: bool = True
) -> dict[str, Any]:
    """Writes what a search leaves, as far as it has come."""
    content = outcome.content(order, job, found, study.trials(), study.importances() if picture_too else None)
    run.write_json(outcome.JSON, content)
    if content["best"] is not None:
        run.write(outcome.RECIPE, outcome.recipe_file(content, order, job.recipe, found).encode("utf-8"))
    if picture_too and content["trials"]:
        run.writing(outcome.PICTURE, lambda path: picture.draw(content, path))
    return content


def _take_over(folder: RunFolder, job: Job) -> None:
    """What a kill left of the same trial is gone on with; what is left of another is removed."""
    identity = job.identity()
    try:
        same = folder.read_json(runs.SETTINGS) == identity
    except Misconfigured:
        same = False
    if not same:
        folder.forget()
        folder.write_json(runs.SETTINGS, identity)


def _kept(recipe: Recipe, history: tuple[Epoch, ...]) -> Epoch:
    """The epoch after which the network was as it came out: the best one with patience, else the last.

    A trial is judged by its loss, not its accuracy. The loss looks at what is said of every picture, where accuracy
    only counts them and so cannot tell most trials apart; and it is the confidences that are sorted by. Test and
    calibration pictures are not looked at: they could not judge the model of the best settings any more.
    """
    return min(history, key=lambda epoch: epoch.validation_loss) if recipe.patience else history[-1]


def _is_the_settings_fault(fault: Exception) -> bool:
    """Whether other settings might well do: the loss was no longer finite, or memory was too small for the batch."""
    # Its subclasses tell of disks and files, which would be as bad for the next trial.
    return type(fault) is TrainingError or type(fault).__name__ == "ResourceExhaustedError"


def _warmup(recipe: Recipe) -> int:
    """Epochs before a trial may be pruned: a third of them, because high rates look bad until they fall."""
    return 1 + _epochs(recipe) // 3


def _epochs(recipe: Recipe) -> int:
    """Of all phases, at most."""
    return recipe.epochs + recipe.finetune.epochs
