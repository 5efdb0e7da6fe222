"""The training loop: repeatable on a CPU, kept to a budget of time, and resumable at the last finished epoch."""

from __future__ import annotations

import contextlib
import itertools
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pigeonholed.classifying.keras import import_keras
from pigeonholed_training import runs
from pigeonholed_training.errors import TrainingError
from pigeonholed_training.fitting import pace, precision
from pigeonholed_training.fitting.checkpoints import Checkpoints, State
from pigeonholed_training.fitting.learner import Learner
from pigeonholed_training.fitting.pace import Pace, Pacer, spoken
from pigeonholed_training.fitting.plan import Epoch, Fitted, Plan
from pigeonholed_training.fitting.schedule import Schedule
from pigeonholed_training.fitting.telling import telling
from pigeonholed_training.fitting.tensorboard import Board, board

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pigeonholed_training.fitting.feed import Feed
    from pigeonholed_training.progress import Narrator
    from pigeonholed_training.runs import RunFolder

    Build = Callable[[], Any]
    Judge = Callable[[Any], tuple[float, float]]
    OnEpoch = Callable[[Epoch], object]

__all__ = ["Epoch", "Fitted", "Plan", "fit"]


def fit(
    build: Build,
    feed: Feed,
    judge: Judge,
    plan: Plan,
    run: RunFolder,
    narrator: Narrator,
    *,
    seed: int,
    budget_s: float | None = None,
    before: Sequence[Epoch] = (),
    on_epoch: OnEpoch = lambda _epoch: None,
) -> Fitted:
    """Trains, or goes on where the last finished epoch left off; on a CPU to the same weights either way.

    Args:
        build: makes the keras.Model (logits) with the weights that it starts from; called again for the result.
        feed: the training batches.
        judge: a model's validation loss and accuracy.
        plan: what to do.
        run: a claimed folder; after each epoch it holds checkpoint, history and TensorBoard events.
        narrator: told how it goes.
        seed: of new weights and dropout.
        budget_s: the phase is planned to end within it, and planned anew where it goes slower than it was measured.
        before: the history of earlier phases.
        on_epoch: told of each epoch once it is kept, also of those of earlier sessions; may raise to end training.

    Raises:
        Misconfigured, Unavailable: the run folder cannot be written, or its checkpoint is damaged.
        TrainingError: a loss is no longer finite.
    """
    until = None if budget_s is None else time.monotonic() + budget_s
    import_keras().utils.set_random_seed(seed)
    checkpoints, pacer = Checkpoints(run, plan.name), Pacer()
    state = checkpoints.load()
    with precision.policy(plan.precision):
        learner = Learner(build(), plan)
    if state is None:
        state = State(steps=plan.epochs * feed.steps)
        if until is not None:
            rate = pace.measure(learner, feed, judge)
            steps = max(rate.steps_within(until - time.monotonic(), feed.steps), 1)
            state, pacer = replace(state, steps=min(steps, state.steps)), Pacer(rate)
        checkpoints.begin(state)
    elif state.history:
        _take_up(learner, checkpoints, state)
    with board(run.path / runs.TENSORBOARD, (*before, *state.history)) as events:
        session = _Session(
            learner, feed, judge, plan, run, narrator, checkpoints, events, tuple(before), seed, pacer, until, on_epoch
        )
        state = session.carry_on(state)
    return _result(build, learner, checkpoints, state, plan)


@dataclass(frozen=True)
class _Session:
    """One sitting at a phase; `until` is a reading of time.monotonic()."""

    learner: Learner
    feed: Feed
    judge: Judge
    plan: Plan
    run: RunFolder
    narrator: Narrator
    checkpoints: Checkpoints
    events: Board
    before: tuple[Epoch, ...]
    seed: int
    pacer: Pacer
    until: float | None
    on_epoch: OnEpoch

    def carry_on(self, state: State) -> State:
        """Epoch by epoch to the end of the plan."""
        if state.history:
            self._write_history(state)  # a kill may have come before it was written
            for epoch in state.history:
                self.on_epoch(epoch)
            if not self._is_over(state):
                self.narrator.say(f"Going on after {self._named(state, 0).replace('/', ' of ')}.")
        while not self._is_over(state):
            state = self._shortened(self._one_epoch(state))
            if self._patience_is_over(state):
                self.narrator.say(
                    f"The validation loss was lowest after {self.plan.prefix}epoch {state.best}; training ends."
                )
        return state

    def _is_over(self, state: State) -> bool:
        done = len(state.history) * self.feed.steps
        return bool(state.history) and (done >= state.steps or self._patience_is_over(state))

    def _patience_is_over(self, state: State) -> bool:
        return 0 < self.plan.patience <= len(state.history) - state.best

    def _one_epoch(self, state: State) -> State:
        begun = time.monotonic()
        loss, accuracy, rate, step_s = self._learnt(state)
        judging = time.monotonic()
        with self.learner.judged() as model:
            validation_loss, validation_accuracy = self.judge(model)
        self._must_be_finite(validation_loss, state)
        epoch = Epoch(
            epoch=len(self.before) + len(state.history) + 1,
            loss=round(loss, 6),
            accuracy=round(accuracy, 6),
            validation_loss=round(validation_loss, 6),
            validation_accuracy=round(validation_accuracy, 6),
            seconds=round(time.monotonic() - begun, 3),
            learning_rate=float(f"{rate:.6g}"),
            phase=self.plan.name,
        )
        state = self._kept(state.after(epoch))
        self.pacer.saw(Pace(step_s, time.monotonic() - judging))
        self._tell(epoch, state, step_s)
        self.on_epoch(epoch)
        return state

    def _learnt(self, state: State) -> tuple[float, float, float, float]:
        """Learns from the batches of the next epoch: mean loss, mean accuracy, last rate, seconds a step."""
        number, first = len(state.history) + 1, len(state.history) * self.feed.steps
        steps, plan, rate, sums = min(self.feed.steps, state.steps - first), self.plan, 0.0, np.zeros(2)
        schedule = Schedule.over(plan.schedule, plan.learning_rate, state.steps, plan.warmup_epochs / plan.epochs)
        self.learner.reseed(self.seed, number)
        later, known = state.steps - first - steps, self.pacer.pace
        judging_s = known.judge_s * (1 + -(-later // self.feed.steps)) if known else 0.0
        with (
            telling(
                self.narrator,
                self._named(state, 1),
                steps,
                self.feed.batch_size,
                later_steps=later,
                judging_s=judging_s,
            ) as teller,
            contextlib.closing(self.feed.batches(number)) as batches,
        ):
            for index, (rows, targets) in enumerate(itertools.islice(batches, steps)):
                rate = schedule.rate(first + index)
                said = self.learner.learn(rows, targets, rate)
                self._must_be_finite(said[0], state)
                sums += said
                teller.tell(index + 1, *(sums / (index + 1)))
            step_s = teller.step_s(steps)
        loss, accuracy = sums / steps
        return float(loss), float(accuracy), rate, step_s

    def _kept(self, state: State) -> State:
        """Checkpoint, history and events of an epoch; the checkpoint first, because the others are made from it."""
        best = self.learner.weights() if self.plan.patience and state.best == len(state.history) else None
        state = self.checkpoints.save(state, self.learner.arrays(), best)
        self._write_history(state)
        self.events.add(state.history[-1])
        return state

    def _write_history(self, state: State) -> None:
        self.run.write_history([asdict(epoch) for epoch in (*self.before, *state.history)])

    def _tell(self, epoch: Epoch, state: State, step_s: float) -> None:
        left = state.steps - len(state.history) * self.feed.steps
        known = self.pacer.pace or Pace(step_s, 0.0)
        self.narrator.say(
            f"{self._named(state, 0)}  loss {epoch.loss:.4f}  accuracy {epoch.accuracy:.4f}  "
            f"validation loss {epoch.validation_loss:.4f}  accuracy {epoch.validation_accuracy:.4f}  "
            f"{self.feed.batch_size / step_s:,.0f} pictures/s"
            + (f"  {spoken(known.seconds(left, self.feed.steps))} left" if left > 0 else "")
        )

    def _shortened(self, state: State) -> State:
        """The state with as many steps as will probably fit, where those that are planned will not.

        The schedule is stretched over the new number: the rate still ends near 0.
        """
        done, known, size = len(state.history) * self.feed.steps, self.pacer.pace, self.feed.steps
        if self.until is None or known is None or self._is_over(state):
            return state
        left_s = self.until - time.monotonic()
        if known.seconds(state.steps - done, size) <= left_s:
            return state
        shorter = replace(state, steps=done + known.steps_within(left_s, size))
        if shorter.steps >= state.steps:
            return state
        last, planned = -(-shorter.steps // size), -(-state.steps // size)
        ends = f"ends training after {self.plan.prefix}epoch {last} of {planned}"
        self.narrator.say(f"The time budget {ends if last < planned else f'cuts epoch {last} short'}.")
        self.checkpoints.begin(shorter)
        return shorter

    def _must_be_finite(self, loss: float, state: State) -> None:
        if not np.isfinite(loss):
            raise TrainingError(
                f"Training broke down in {self.plan.prefix}epoch {len(state.history) + 1}: the loss is no longer "
                f"finite. Try a lower rate: --set learning_rate={self.plan.learning_rate / 3:.2g} --fresh"
            )

    def _named(self, state: State, ahead: int) -> str:
        """`epoch 3/10`: the last one that is done, or so many after it."""
        return f"{self.plan.prefix}epoch {len(state.history) + ahead}/{-(-state.steps // self.feed.steps)}"


def _take_up(learner: Learner, checkpoints: Checkpoints, state: State) -> None:
    """Puts the learner where the last finished epoch left it."""
    try:
        learner.put(checkpoints.arrays(state.checkpoint))
    except ValueError as fault:
        raise checkpoints.refused(state.checkpoint, fault) from fault


def _result(build: Build, learner: Learner, checkpoints: Checkpoints, state: State, plan: Plan) -> Fitted:
    """A network in full precision and without optimiser, with the weights that are kept."""
    kept, weights = len(state.history), learner.weights()
    if plan.patience:
        kept, arrays = state.best, checkpoints.arrays(state.best_checkpoint)
        weights = [arrays[name] for name in sorted(arrays)]
    model = _bare(build, learner, plan)
    try:
        model.set_weights(weights)
    except ValueError as fault:
        raise checkpoints.refused(state.best_checkpoint, fault) from fault
    return Fitted(model, state.history, kept)


def _bare(build: Build, learner: Learner, plan: Plan) -> Any:
    """The network in full precision, not compiled; a new one is only built where it was trained in another."""
    if plan.precision == precision.FULL:
        return import_keras().Model(learner.model.input, learner.model.output, name=learner.model.name)
    with precision.policy(precision.FULL):
        return build()
