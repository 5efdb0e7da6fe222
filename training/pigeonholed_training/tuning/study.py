"""The memory of a search: an Optuna study in a SQLite file, on the disk after every step of it.

What is tried next depends on nothing but the seed and the trials that have ended. A search that was killed therefore
tries what it would have tried, and neither a trial nor a random number is drawn twice.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import math
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from pigeonholed_training.errors import Misconfigured, Unavailable
from pigeonholed_training.tuning.space import Choice
from pigeonholed_training.tuning.trial import Trial

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pigeonholed_training.fitting.plan import Epoch
    from pigeonholed_training.tuning.space import Range, Space, Value
    from pigeonholed_training.tuning.trial import Ended

_RANDOM = 8  # trials before the sampler has seen enough to go by
_UNPRUNED = 4  # trials that are done before one may be pruned
_TELLING = 8  # trials that are done before importances say anything
_KILLS = 3  # after which a trial is not tried again: its batches may be too large for this machine


class Pruned(Exception):
    """The trial is worse than most were after as many epochs; there is no use in going on with it."""


def require_optuna() -> None:
    """Finds out before any work whether Optuna is there.

    Raises:
        Unavailable: it is not; the message says how to install it.
    """
    if importlib.util.find_spec("optuna") is None:
        raise Unavailable("optuna is not installed; install it with: pip install 'pigeonholed[train]'")


class Study:
    """What was tried, and what to try next. Used as a context, so that the file is closed.

    Args:
        path: the SQLite file; made if missing.
        space: what may change; the same as when the file was made.
        seed: of everything that is drawn.
        warmup: epochs that a trial is left alone for.

    Raises:
        Misconfigured: the file is damaged or holds something else.
        Unavailable: the disk is full.
    """

    def __init__(self, path: Path, space: Space, seed: int, warmup: int) -> None:
        import optuna
        from sqlalchemy import URL

        self._path, self._space, self._seed = path, space, seed
        self._among = {one.name: _distribution(one.among) for one in space}
        self._own = {one.name: one.own for one in space}
        optuna.logging.set_verbosity(optuna.logging.ERROR)  # it would tell of every trial in its own words
        with self._told():
            url = URL.create("sqlite", database=str(path.absolute())).render_as_string()
            self._storage = optuna.storages.RDBStorage(url)
            # The median of the others after as many epochs. Hyperband would give most trials a few epochs only, which
            # says little here: the learning rate falls over the whole of a training, and losses fall with it.
            pruner = optuna.pruners.MedianPruner(n_startup_trials=_UNPRUNED, n_warmup_steps=warmup)
            self._study = optuna.create_study(
                storage=self._storage, study_name="tune", direction="minimize", pruner=pruner, load_if_exists=True
            )
            self._take_up()

    def __enter__(self) -> Study:
        return self

    def __exit__(self, *_: object) -> None:
        self._storage.remove_session()
        self._storage.engine.dispose()

    @property
    def most(self) -> float:
        """How many different trials there can be; infinite where anything is a range."""
        choices = [len(one.among.values) if isinstance(one.among, Choice) else math.inf for one in self._space]
        return math.prod(choices)

    def trials(self) -> tuple[Trial, ...]:
        """Those that have ended, in order."""
        import optuna

        states = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
        with self._told():
            ended = self._study.get_trials(deepcopy=False, states=states)
        return tuple(self._read(number, one) for number, one in enumerate(ended, start=1))

    def ask(self) -> Attempt:
        """Begins the next trial; the first is the recipe as it is."""
        import optuna

        with self._told():
            ended = self.trials()
            seed = int(np.random.SeedSequence([self._seed, len(ended)]).generate_state(1)[0])
            self._study.sampler = optuna.samplers.TPESampler(
                seed=seed, n_startup_trials=_RANDOM, constant_liar=False  # nobody else is trying anything meanwhile
            )  # fmt: skip
            if not self._study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.WAITING,)):
                untried = self._untried(ended)
                if untried is not None:
                    self._study.enqueue_trial(untried)
            return Attempt(self, self._study.ask(self._among), len(ended) + 1, self._space)

    def importances(self) -> dict[str, float] | None:
        """How much each thing matters for the loss, as shares of 1; None where too little was tried to say.

        PED-ANOVA: S. Watanabe and others, 2023, arXiv 2304.10255.
        """
        import optuna

        if sum(trial.loss is not None for trial in self.trials()) < _TELLING:
            return None
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        with self._told(), contextlib.suppress(ValueError, RuntimeError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = optuna.importance.get_param_importances(self._study, evaluator=evaluator)
            return {name: round(float(share), 4) for name, share in found.items()}
        return None

    def tell(self, trial: Any, ended: Ended, loss: float | None, seconds: float, accuracy: float | None) -> None:
        """Puts down how a trial ended."""
        import optuna

        with self._told():
            for key, value in (("seconds", round(seconds, 2)), ("accuracy", accuracy), ("ended", ended)):
                trial.set_user_attr(key, value)
            if loss is None:
                self._study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            else:
                self._study.tell(trial, loss)

    def report(self, trial: Any, step: int, loss: float) -> bool:
        """Puts down the loss after an epoch; says whether the trial is worse than most."""
        with self._told():
            trial.report(loss, step)
            return bool(trial.should_prune())

    def put_back(self, trial: Any) -> None:
        """Has a trial that the user interrupted tried again, first of all."""
        with self._told():
            left = self._study.get_trials(deepcopy=False)[trial.number]
            self._put_back(left, left.user_attrs.get("kills", 0))

    def _take_up(self) -> None:
        """What a kill left running has failed, and is first to be tried again; so is the recipe, if nothing was."""
        import optuna

        states = optuna.trial.TrialState
        for left in self._study.get_trials(states=(states.RUNNING,)):
            self._put_back(left, kills=left.user_attrs.get("kills", 0) + 1)
        alive = self._study.get_trials(deepcopy=False, states=(states.WAITING, states.COMPLETE, states.PRUNED))
        if not alive:
            self._study.enqueue_trial(self._own)

    def _put_back(self, left: Any, kills: int) -> None:
        """Ends a trial that came to no end, and has it tried again unless it kills whoever tries it."""
        import optuna

        if kills >= _KILLS and left.params:
            self.tell(optuna.Trial(self._study, left._trial_id), "broke-down", None, 0.0, None)
            return
        self._study.tell(left.number, state=optuna.trial.TrialState.FAIL)
        values = left.system_attrs.get("fixed_params") or left.params
        self._study.enqueue_trial(values, user_attrs={"kills": kills})

    def _untried(self, ended: tuple[Trial, ...]) -> dict[str, Value] | None:
        """Where there are only choices, a combination that was not tried; a sampler would try some of them twice."""
        if math.isinf(self.most):
            return None
        tried = [trial.values for trial in ended]
        names = [one.name for one in self._space]
        choices = [one.among.values for one in self._space if isinstance(one.among, Choice)]
        combined = (dict(zip(names, values, strict=True)) for values in itertools.product(*choices))
        return next((values for values in combined if values not in tried), None)

    def _read(self, number: int, one: Any) -> Trial:
        said = one.user_attrs
        losses = tuple(one.intermediate_values[step] for step in sorted(one.intermediate_values))
        values = {dimension.name: dimension.rounded(one.params[dimension.name]) for dimension in self._space}
        # Optuna takes the last loss that was seen of a trial that was pruned for its result.
        loss = one.value if said["ended"] == "done" else None
        return Trial(number, values, said["ended"], loss, said["accuracy"], losses, said["seconds"])

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Turns what Optuna and SQLAlchemy raise into one sentence."""
        from optuna.exceptions import StorageInternalError
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except (SQLAlchemyError, StorageInternalError, RuntimeError) as fault:  # the last: a schema of other versions
            said = str(getattr(fault.__cause__ or fault, "orig", None) or fault).splitlines()[0]
            if "full" in said or "locked" in said:
                raise Unavailable(
                    f"Cannot write {self._path}: {said}; mend that, and the same command goes on from there."
                ) from fault
            raise Misconfigured(f"Cannot read {self._path}: {said}. Start over with --fresh.") from fault


class Attempt:
    """A trial under way.

    Attributes:
        number: counted from 1, over those that came to an end.
        values: what it tries, by the name of each dimension.
    """

    def __init__(self, study: Study, trial: Any, number: int, space: Space) -> None:
        self._study, self._trial = study, trial
        self.number = number
        self.values: dict[str, Value] = {one.name: one.rounded(trial.params[one.name]) for one in space}

    def saw(self, epoch: Epoch, *, is_last: bool = False) -> None:
        """Puts down an epoch.

        Raises:
            Pruned: the trial is worse than most. The last epoch never says so: the trial is as good as done.
        """
        if self._study.report(self._trial, epoch.epoch, epoch.validation_loss) and not is_last:
            raise Pruned

    def done(self, loss: float, accuracy: float, seconds: float) -> None:
        """It came to its end."""
        self._study.tell(self._trial, "done", loss, seconds, accuracy)

    def gave_up(self, ended: Ended, seconds: float) -> None:
        """It came to none."""
        self._study.tell(self._trial, ended, None, seconds, None)

    def put_back(self) -> None:
        """It was interrupted, and is the next to be tried."""
        self._study.put_back(self._trial)


def _distribution(among: Range | Choice) -> Any:
    """As Optuna has it."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if isinstance(among, Choice):
        return CategoricalDistribution(among.values)
    return FloatDistribution(among.low, among.high, log=among.log)
