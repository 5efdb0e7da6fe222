"""What is said while an epoch goes on: loss, accuracy, rate and the time that is left."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING

from pigeonholed_training.fitting.pace import spoken

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pigeonholed_training.progress import Narrator, Step

SILENCE_S = 30.0  # off a terminal, a long epoch says how it goes this often


class Teller:
    """Tells of one epoch, step by step.

    Args:
        bar: where there is a terminal.
        narrator: said a line to now and then, where there is none.
        name: of the epoch.
        steps: of this epoch.
        batch_size: pictures a step.
        later_steps: of the epochs after this one.
        judging_s: seconds that all validations to come will take.
    """

    def __init__(
        self,
        bar: Step,
        narrator: Narrator,
        name: str,
        steps: int,
        batch_size: int,
        *,
        later_steps: int = 0,
        judging_s: float = 0.0,
    ) -> None:
        self._bar, self._narrator, self._name = bar, narrator, name
        self._steps, self._batch_size = steps, batch_size
        self._later_steps, self._judging_s = later_steps, judging_s
        self._begun = self._first = self._said = time.monotonic()
        self._shown = sys.stderr.isatty()

    @property
    def begun(self) -> float:
        """When the epoch began, a reading of time.monotonic()."""
        return self._begun

    def step_s(self, done: int) -> float:
        """Seconds a step; without the first, in which the graph may be built, where there are others."""
        now = time.monotonic()
        return max((now - self._first) / (done - 1) if done > 1 else (now - self._begun) / done, 1e-6)

    def tell(self, done: int, loss: float, accuracy: float) -> None:
        """After `done` steps (1, 2, ...), with the means so far."""
        now = time.monotonic()
        if done == 1:
            self._first = now
        if not self._shown and now - self._said < SILENCE_S:
            return
        step_s = self.step_s(done)
        left_s = (self._steps - done + self._later_steps) * step_s + self._judging_s
        note = (
            f"loss {loss:.4f}  accuracy {accuracy:.4f}  "
            f"{self._batch_size / step_s:,.0f} pictures/s  {spoken(left_s)} left"
        )
        self._bar.at(done, note)
        if not self._shown:
            self._said = now
            self._narrator.say(f"{self._name}  step {done}/{self._steps}  {note}")


@contextlib.contextmanager
def telling(
    narrator: Narrator, name: str, steps: int, batch_size: int, *, later_steps: int, judging_s: float
) -> Iterator[Teller]:
    """A teller with its bar."""
    with narrator.steps(name, steps) as bar:
        yield Teller(bar, narrator, name, steps, batch_size, later_steps=later_steps, judging_s=judging_s)
