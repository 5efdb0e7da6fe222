"""One set of settings that a search has tried, as plain values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pigeonholed_training.tuning.space import Value

Ended = Literal["done", "pruned", "broke-down"]


@dataclass(frozen=True, slots=True)
class Trial:
    """A trial that has ended.

    Attributes:
        number: counted from 1; the first is the recipe as it is.
        values: by the name of their dimension.
        ended: `pruned` as soon as it was worse than most; `broke-down` where the loss was no longer finite, or memory
            did not suffice.
        loss: of the validation pictures, in nats, by the network that it made; None unless it is done.
        accuracy: likewise.
        losses: of the validation pictures after each epoch.
        seconds: that it took.
    """

    number: int
    values: Mapping[str, Value]
    ended: Ended
    loss: float | None
    accuracy: float | None
    losses: tuple[float, ...]
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {"losses": list(self.losses)}


def best(trials: Sequence[Trial]) -> Trial | None:
    """The one with the lowest loss, the earliest of those; None while none is done."""
    done = [trial for trial in trials if trial.loss is not None]
    return min(done, key=lambda trial: (trial.loss, trial.number), default=None)
