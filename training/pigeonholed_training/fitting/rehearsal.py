"""What a training would be like, for `--dry-run`."""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pigeonholed.classifying.keras import import_keras
from pigeonholed_training.fitting import pace, precision
from pigeonholed_training.fitting.learner import Learner
from pigeonholed_training.fitting.pace import spoken

if TYPE_CHECKING:
    from collections.abc import Callable

    from pigeonholed_training.fitting.feed import Feed
    from pigeonholed_training.fitting.plan import Plan


@dataclass(frozen=True, slots=True)
class Estimate:
    """Sizes and times of one phase.

    Attributes:
        plan: of the phase.
        weights: numbers in the network.
        trained: of them, those that are trained.
        pictures: that are learnt from.
        batch_size: pictures a step.
        epoch_steps: steps of a whole epoch.
        steps: of the phase; fewer than planned where a budget ends it.
        epoch_s: seconds of a whole epoch, validation and all.
        total_s: seconds of the phase.
        memory_bytes: the most that this process has held, steps included.
    """

    plan: Plan
    weights: int
    trained: int
    pictures: int
    batch_size: int
    epoch_steps: int
    steps: int
    epoch_s: float
    total_s: float
    memory_bytes: int

    @property
    def epochs(self) -> float:
        """Passes over the pictures; no whole number where the last is cut short."""
        return self.steps / self.epoch_steps

    def __str__(self) -> str:
        shortened = self.steps < self.plan.epochs * self.epoch_steps
        return (
            f"{self.plan.name}: {self.weights:,} weights, {self.trained:,} of them trained, in {self.plan.precision}; "
            f"{self.pictures:,} pictures in {self.epoch_steps:,} steps of {self.batch_size}; "
            f"{self.epochs:.3g} epochs{f' of {self.plan.epochs}, for the time budget' if shortened else ''}, "
            f"about {spoken(self.epoch_s)} each and {spoken(self.total_s)} in all; "
            f"memory {self.memory_bytes / 2**20:,.0f} MiB so far."
        )


def rehearse(
    build: Callable[[], Any],
    feed: Feed,
    judge: Callable[[Any], object],
    plan: Plan,
    *,
    seed: int,
    budget_s: float | None = None,
) -> Estimate:
    """Times a few steps of what `loop.fit` would do; writes nothing."""
    begun = time.monotonic()
    import_keras().utils.set_random_seed(seed)
    with precision.policy(plan.precision):
        learner = Learner(build(), plan)
    rate = pace.measure(learner, feed, judge)
    start_s, steps = time.monotonic() - begun, plan.epochs * feed.steps
    if budget_s is not None:
        steps = min(steps, max(rate.steps_within(budget_s - start_s, feed.steps), 1))
    trained = sum(int(np.prod(variable.shape)) for variable in learner.model.trainable_variables)
    return Estimate(
        plan=plan,
        weights=learner.model.count_params(),
        trained=trained,
        pictures=feed.pictures,
        batch_size=feed.batch_size,
        epoch_steps=feed.steps,
        steps=steps,
        epoch_s=rate.seconds(feed.steps, feed.steps),
        total_s=start_s + rate.seconds(steps, feed.steps),
        memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )
