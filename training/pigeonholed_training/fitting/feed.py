"""Batches for training, made ahead of time in threads."""

from __future__ import annotations

import collections
import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from pigeonholed_training.fitting.augmentation import Augmentation

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    import numpy.typing as npt

    Batch = tuple[npt.NDArray[Any], npt.NDArray[np.int32]]

MOST_WORKERS = 8

# Each kind of draw has numbers of its own; the lists they stand in have one length, because a shorter one that is
# filled up with zeros would give the same numbers.
_ORDER, _PICTURES, _SIDES = 1, 2, 3


class Feed:
    """The batches of each epoch, decided by seed and epoch alone: not by the workers, nor by what came before.

    All batches have the same size, because a graph is compiled for each shape: the last is filled up from the
    beginning, and fewer pictures than one batch are one smaller batch.

    Args:
        read: indices int [n] -> new array [n, ...], the rows of the data set; called from several threads.
        targets: int [N], the class of every row of the data set.
        indices: int [M], the rows that are learnt from; at least one.
        batch_size: rows a step.
        augmentation: changes of pictures, uint8 RGB [n, H, W, 3]; none where rows are anything else.
        seed: of order and changes.
        workers: threads that make batches; 0 is one for each processor, eight at most.
    """

    def __init__(
        self,
        read: Callable[[npt.NDArray[np.intp]], npt.NDArray[Any]],
        targets: npt.NDArray[np.int32],
        indices: npt.NDArray[np.intp],
        batch_size: int,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        workers: int = 0,
    ) -> None:
        self._read, self._targets, self._indices = read, targets, indices
        self._augmentation, self._seed = augmentation or Augmentation(), seed
        self._workers = workers or min(len(os.sched_getaffinity(0)), MOST_WORKERS)
        self.pictures = len(indices)
        self.batch_size = min(batch_size, len(indices))
        self.steps = -(-len(indices) // self.batch_size)
        # Which side a picture shows in even epochs, where sides alternate.
        self._sides = np.random.default_rng([_SIDES, seed, 0, 0]).random(len(targets)) < 0.5

    def batches(self, epoch: int) -> Generator[Batch, None, None]:
        """Rows [B, ...] and their targets int32 [B], `steps` times.

        Batches are made ahead, one more than there are workers. What goes wrong in a worker is raised here. Closing
        the generator waits for the workers.
        """
        order = np.random.default_rng([_ORDER, self._seed, epoch, 0]).permutation(self._indices)
        order = np.resize(order, self.steps * self.batch_size).reshape(self.steps, self.batch_size)
        waiting: collections.deque[Future[Batch]] = collections.deque()
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="feed")
        try:
            for number, chosen in enumerate(order):
                waiting.append(pool.submit(self._batch, epoch, number, chosen))
                if len(waiting) > self._workers + 1:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _batch(self, epoch: int, number: int, chosen: npt.NDArray[np.intp]) -> Batch:
        """A generator of its own for each batch: which worker makes it, and when, changes nothing."""
        rng = np.random.default_rng([_PICTURES, self._seed, epoch, number])
        turned = self._sides[chosen] ^ bool(epoch % 2) if self._augmentation.alternate else None
        return self._augmentation.apply(self._read(chosen), rng, turned), self._targets[chosen].astype(
            np.int32, copy=False
        )


def balanced(targets: npt.NDArray[np.int32], classes: int) -> tuple[float, ...]:
    """A weight for each class, such that all classes together weigh the same and a row weighs 1 on average.

    Args:
        targets: int [M], the classes of the rows that are learnt from.
        classes: how many there are; one without rows weighs 0.
    """
    counts = np.bincount(targets, minlength=classes)
    weights = np.where(counts > 0, len(targets) / (np.count_nonzero(counts) * np.maximum(counts, 1)), 0.0)
    return tuple(float(weight) for weight in weights)
