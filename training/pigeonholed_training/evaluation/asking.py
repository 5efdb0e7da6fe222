"""Asking a classifier about any number of pictures, and how many it can be asked about in reasonable time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import numpy as np

from pigeonholed_training.evaluation.judged import Judged

if TYPE_CHECKING:
    import numpy.typing as npt

    from pigeonholed.classifying import Classifier
    from pigeonholed_training.data.dataset import Dataset

    Pixels = npt.NDArray[np.uint8]

MOST: Final = 256  # pictures that behaviour is tried on: more would say little more
LEAST: Final = 32  # of fewer, no share would mean anything
_ASKED: Final = (
    13  # times each of them is asked about, changed in some way or other, by everything that tries behaviour
)


def ask(classifier: Classifier, pixels: Pixels) -> npt.NDArray[np.float32]:
    """Calibrated probabilities, float32 [N, K], of uint8 RGB [N, H, W, 3], any N; as `Classifier.predict` in pieces."""
    size = classifier.batch_sizes[-1]
    rows = [classifier.predict(pixels[start : start + size]) for start in range(0, len(pixels), size)]
    return np.concatenate(rows) if rows else np.empty((0, len(classifier.labels)), np.float32)


def ask_about(classifier: Classifier, dataset: Dataset, indices: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
    """As `ask`, of pictures of a data set, which are never all in memory."""
    rows = [classifier.predict(pixels) for pixels in dataset.chunks(indices, classifier.batch_sizes[-1])]
    return np.concatenate(rows) if rows else np.empty((0, len(classifier.labels)), np.float32)


def answers(classifier: Classifier, judged: Judged, pixels: Pixels, targets: npt.NDArray[np.int32]) -> Judged:
    """What is said of made or changed pictures, under the labels and thresholds of `judged`.

    Args:
        classifier: the model as it is served.
        judged: of the same model.
        pixels: uint8 RGB [N, H, W, 3].
        targets: true classes, int32 [N]; -1 for a picture of no class, of which nothing said is right.
    """
    # No finite answer is no confidence; one such picture must not make a mean of all of them unreadable.
    probabilities = np.nan_to_num(ask(classifier, pixels), nan=0.0)
    return Judged(judged.labels, targets, probabilities, judged.thresholds, judged.temperature)


def affordable(classifier: Classifier, pixels: Pixels, seconds: float = 5.0) -> int:
    """How many pictures behaviour can be tried on in about `seconds`: a power of two from 32 to 256.

    Args:
        classifier: the model as it is served; it is timed on one batch, twice.
        pixels: uint8 RGB [N, H, W, 3], N at least 1; a full batch of them makes the best estimate.
        seconds: for blends, strangers and robustness together.
    """
    batch = pixels[: classifier.batch_sizes[-1]]
    took = []
    for _ in range(2):
        start = time.perf_counter()
        classifier.predict(batch)
        took.append(time.perf_counter() - start)
    fit = seconds * len(batch) / max(min(took), 1e-9) / _ASKED
    return int(np.clip(2 ** np.floor(np.log2(max(fit, 1))), LEAST, MOST))


def balanced(targets: npt.NDArray[np.int32], count: int, seed: int) -> npt.NDArray[np.intp]:
    """Positions of at most `count` pictures, sorted; as many of each class as there is room for, else drawn by lot."""
    shuffled = np.random.default_rng(seed).permutation(len(targets))
    turn = np.empty(len(targets), np.intp)
    for target in np.unique(targets):
        mine = shuffled[targets[shuffled] == target]
        turn[mine] = np.arange(len(mine))
    # The first of every class, then the second of every class, and so on.
    return np.sort(shuffled[np.argsort(turn[shuffled], kind="stable")][:count])
