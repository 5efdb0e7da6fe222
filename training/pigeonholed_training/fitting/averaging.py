"""A running average of the weights, which generalises better than the last of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

EVERY = 4  # steps; reading all weights after each would cost more and change nothing that can be measured


class Average:
    """Exponential moving average of all weights, those of batch normalisation included.

    The statistics of batch normalisation are such averages themselves. Averaged along with the weights, they lag
    behind by the same time, and so fit the averaged network (timm's ModelEma does the same).

    Args:
        decay: share that is kept a step; less in the beginning, `(1 + t) / (10 + t)` after `t` steps, so that the
            first weights are forgotten soon (as in tf.train.ExponentialMovingAverage).
        weights: where it begins; copied.
    """

    def __init__(self, decay: float, weights: Sequence[npt.NDArray[Any]]) -> None:
        self._decay = decay
        self.weights = [np.array(weight) for weight in weights]

    def update(self, weights: Sequence[Any], step: int, steps: int) -> None:
        """Takes in the weights as they are after `step` steps, for the `steps` since the last update."""
        kept = np.float32(min(self._decay, (1 + step) / (10 + step)) ** steps)
        for average, weight in zip(self.weights, weights, strict=True):
            # A whole number is a counter, which no average suits.
            share = 1 - kept if np.issubdtype(average.dtype, np.floating) else 1
            np.add(average, share * (np.asarray(weight) - average), out=average)
