"""What is said while a search goes on: a line a trial, a bar on a terminal; and whether time is left for another."""

from __future__ import annotations

import contextlib
import statistics
import sys
import time
from typing import TYPE_CHECKING

from pigeonholed_training.fitting.pace import spoken
from pigeonholed_training.progress import Narrator, Step
from pigeonholed_training.tuning.space import shown
from pigeonholed_training.tuning.trial import best

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pigeonholed_training.fitting.plan import Epoch
    from pigeonholed_training.tuning.space import Space
    from pigeonholed_training.tuning.study import Attempt
    from pigeonholed_training.tuning.trial import Trial

_SILENCE_S = 60.0  # off a terminal, a long trial says how it goes this often


class Teller:
    """Tells of one sitting.

    Args:
        bar: over the trials, where there is a terminal.
        narrator: told a line a trial.
        space: what is searched.
        wanted: trials.
        budget_s: for all of them; None for no limit.

    Attributes:
        inner: what the training of a trial is told to.
    """

    def __init__(self, bar: Step, narrator: Narrator, space: Space, wanted: int, budget_s: float | None) -> None:
        self._bar, self._narrator, self._space, self._wanted = bar, narrator, space, wanted
        self._until = None if budget_s is None else time.monotonic() + budget_s
        self._said, self._done, self._number = time.monotonic(), 0, 0
        self.inner: Narrator = _Inner(self)

    @classmethod
    @contextlib.contextmanager
    def over(cls, narrator: Narrator, space: Space, wanted: int, budget_s: float | None) -> Iterator[Teller]:
        """A teller with its bar."""
        with narrator.steps("trials", wanted) as bar:
            yield cls(bar, narrator, space, wanted, budget_s)

    @property
    def left_s(self) -> float | None:
        """Seconds of the budget that are left; None for no limit."""
        return None if self._until is None else max(self._until - time.monotonic(), 0.0)

    def begin(self, trials: Sequence[Trial]) -> None:
        """Says what is there already."""
        self._done = len(trials)
        top = best(trials)
        if top is not None:
            self._narrator.say(
                f"Going on after {len(trials)} trials; the best so far is trial {top.number} with validation loss "
                f"{top.loss:.4f}."
            )

    def set_out(self, attempt: Attempt) -> None:
        """A trial begins."""
        self._number = attempt.number
        self.note("")

    def saw(self, epoch: Epoch) -> None:
        """An epoch of a trial ended."""
        self.note(f"epoch {epoch.epoch}, validation loss {epoch.validation_loss:.4f}")
        if not sys.stderr.isatty() and time.monotonic() - self._said > _SILENCE_S:
            self._say(
                f"trial {self._number}/{self._wanted}  epoch {epoch.epoch}  validation loss {epoch.validation_loss:.4f}"
            )

    def note(self, what: str) -> None:
        """Something to stand beside the bar."""
        self._bar.at(self._done, f"trial {self._number}  {what}")

    def tell(self, trials: Sequence[Trial]) -> None:
        """The last of `trials` has ended."""
        self._done = len(trials)
        trial, top = trials[-1], best(trials)
        so_far = f"best {top.loss:.4f} (trial {top.number})" if top else "no best yet"
        self._say(
            f"trial {trial.number}/{self._wanted}  {_ending(trial)}  {spoken(trial.seconds)}  {so_far}"
            f"{self._ahead(trials)}: {shown(self._space, trial.values)}"
        )
        self.note("")

    def has_time_for_another(self, trials: Sequence[Trial]) -> bool:
        """Whether a trial such as those that were done would end in time; the first of all always may try."""
        left_s, done = self.left_s, [trial.seconds for trial in trials if trial.ended == "done"]
        if left_s is None or not trials:
            return True
        expected_s = statistics.median(done) if done else 0.0
        if left_s > expected_s:
            return True
        self._narrator.say(f"The time budget ends the search: another trial would take about {spoken(expected_s)}.")
        return False

    def _ahead(self, trials: Sequence[Trial]) -> str:
        """How long the rest will probably take; trials that were pruned make it shorter."""
        missing = self._wanted - len(trials)
        ahead_s = missing * statistics.fmean(trial.seconds for trial in trials)
        left_s = self.left_s
        ahead_s = ahead_s if left_s is None else min(ahead_s, left_s)
        return f"  {spoken(ahead_s)} left" if missing else ""

    def _say(self, line: str) -> None:
        self._said = time.monotonic()
        self._narrator.say(line)


class _Inner(Narrator):
    """Takes what a single training would say: its bars become a note beside that of the search, its lines nothing."""

    def __init__(self, teller: Teller) -> None:
        super().__init__()
        self._teller = teller

    def say(self, message: str) -> None:
        """Each epoch is told by the search itself, and all of them are in its files."""

    @contextlib.contextmanager
    def steps(self, what: str, total: int) -> Iterator[Step]:
        """A note instead of a bar."""
        yield _Note(self._teller, what, total)


class _Note(Step):
    """The handle of such a note."""

    def __init__(self, teller: Teller, what: str, total: int) -> None:
        super().__init__(None, None)
        self._teller, self._what, self._total = teller, what, total

    def at(self, done: int, note: str = "", total: int | None = None) -> None:
        """Says how far it is."""
        self._teller.note(f"{self._what}  {done}/{total or self._total}  {note}".rstrip())


def _ending(trial: Trial) -> str:
    if trial.ended == "done":
        return f"validation loss {trial.loss:.4f}  accuracy {trial.accuracy:.4f}"
    if trial.ended == "broke-down" or not trial.losses:
        return "broke down"
    return f"pruned after epoch {len(trial.losses)} at validation loss {trial.losses[-1]:.4f}"
