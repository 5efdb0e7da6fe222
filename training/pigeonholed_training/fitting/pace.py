"""How long training takes, from a few steps that are timed; and how much of it fits into a budget."""

from __future__ import annotations

import contextlib
import itertools
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from pigeonholed_training.fitting.feed import Batch, Feed
    from pigeonholed_training.fitting.learner import Learner

TIMED_STEPS = 12
TIMED_S = 8.0  # no further step is timed after that
RESERVE = 0.03  # share of the time that is left for what goes slower than it was measured
SHORTEST = 0.1  # of an epoch; a shorter last one is not worth its validation


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds of one step, and of judging the validation pictures once."""

    step_s: float
    judge_s: float

    def seconds(self, steps: int, epoch_steps: int) -> float:
        """How long `steps` take, judging after every `epoch_steps` of them and after the last."""
        return steps * self.step_s + -(-steps // epoch_steps) * self.judge_s

    def steps_within(self, left_s: float, epoch_steps: int) -> int:
        """How many steps fit, with a reserve: whole epochs and, if it is worth it, part of one; 0 if none fits."""
        whole, rest_s = divmod(max(left_s, 0.0) * (1 - RESERVE), self.seconds(epoch_steps, epoch_steps))
        part = max(int((rest_s - self.judge_s) / self.step_s), 0)
        if whole and part < SHORTEST * epoch_steps:
            part = 0
        return int(whole) * epoch_steps + min(part, epoch_steps)


class Pacer:
    """The pace of a session, which the last few epochs tell."""

    def __init__(self, measured: Pace | None = None) -> None:
        self._paces = [] if measured is None else [measured]

    def saw(self, pace: Pace) -> None:
        """Takes in one more epoch."""
        self._paces = [*self._paces[-4:], pace]

    @property
    def pace(self) -> Pace | None:
        """The median, which one epoch that was disturbed does not move; None while nothing is known."""
        if not self._paces:
            return None
        step_s = statistics.median(pace.step_s for pace in self._paces)
        return Pace(step_s, statistics.median(pace.judge_s for pace in self._paces))


def measure(learner: Learner, feed: Feed, judge: Callable[[Any], object]) -> Pace:
    """Times a few steps and one validation. Afterwards the learner is as it was, so that results do not change."""
    kept = learner.arrays()
    seconds: list[float] = []
    begun = time.monotonic()
    with contextlib.closing(_endless(feed)) as batches:
        last = time.monotonic()
        for rows, targets in itertools.islice(batches, 1 + TIMED_STEPS):  # the first step builds the graph
            learner.learn(rows, targets, 0.0)
            seconds.append(time.monotonic() - last)
            last = time.monotonic()
            if len(seconds) > 2 and last - begun > TIMED_S:
                break
    with learner.judged() as model:
        judge_s = _timed(judge, model)
        if judge_s < TIMED_S:  # the first time builds the other graph
            judge_s = _timed(judge, model)
    learner.put(kept)
    return Pace(max(statistics.fmean(seconds[1:]), 1e-6), judge_s)


def spoken(seconds: float) -> str:
    """A duration to read: `40 s`, `12 min`, `3 h 05 min`."""
    whole = round(max(seconds, 0.0))
    if whole < 90:
        return f"{whole} s"
    minutes = round(whole / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def _endless(feed: Feed) -> Generator[Batch, None, None]:
    """The batches of an epoch that is never learnt from, again and again."""
    while True:
        yield from feed.batches(0)


def _timed(judge: Callable[[Any], object], model: Any) -> float:
    begun = time.monotonic()
    judge(model)
    return time.monotonic() - begun
