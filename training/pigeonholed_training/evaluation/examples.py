"""Which pictures to show: a sample, the worst errors, the least certain, and those of the pairs most often confused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pigeonholed_training.evaluation.asking import balanced
from pigeonholed_training.evaluation.judged import Example

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from pigeonholed.bundle import Threshold
    from pigeonholed_training.evaluation.judged import Judged

    Pixels = npt.NDArray[np.uint8]
    Indices = npt.NDArray[np.intp]

SHOWN = 24  # of a kind
PAIRS, OF_A_PAIR = 4, 6
SAID = 3  # labels a picture


def telling(
    judged: Judged, read: Callable[[Indices], Pixels], paths: Sequence[str], seed: int
) -> dict[str, tuple[Example, ...]]:
    """Pictures under the names `sample`, `worst`, `least_certain` and `confused`; empty kinds are left out.

    Args:
        judged: what was said of the pictures.
        read: gives the pixels uint8 RGB [n, H, W, 3] of some of them, by their position in `judged`.
        paths: of the pictures, in the order of `judged`.
        seed: of the sample.
    """
    kinds = {
        "sample": _sample(judged, seed),
        "worst": _worst(judged),
        "least_certain": _least_certain(judged),
        "confused": _confused(judged),
    }
    found = {}
    for kind, indices in kinds.items():
        if len(indices):
            pixels = read(indices)
            found[kind] = tuple(
                example(judged, int(index), picture, paths[index])
                for index, picture in zip(indices, pixels, strict=True)
            )
    return found


def example(judged: Judged, index: int, pixels: Pixels, note: str) -> Example:
    """One judged picture as something to show."""
    return unlabelled(
        judged.labels,
        judged.probabilities[index],
        judged.thresholds,
        pixels,
        note,
        label=judged.labels[judged.targets[index]],
    )


def unlabelled(
    labels: Sequence[str],
    probabilities: npt.NDArray[np.floating[Any]],
    thresholds: Sequence[Threshold],
    pixels: Pixels,
    note: str,
    *,
    label: str | None = None,
) -> Example:
    """A picture as something to show, from its probabilities, float [K]; without a true class unless one is given."""
    order = np.argsort(-probabilities, kind="stable")[:SAID]
    best = int(order[0])
    return Example(
        pixels=pixels,
        label=label,
        said=tuple((labels[one], float(probabilities[one])) for one in order),
        outcome="sorted" if probabilities[best] >= thresholds[best].value else "unsure",
        note=note,
    )


def _sample(judged: Judged, seed: int) -> Indices:
    """As many of each class as there is room for, in the order of the classes."""
    chosen = balanced(judged.targets, SHOWN, seed)
    return chosen[np.argsort(judged.targets[chosen], kind="stable")]


def _worst(judged: Judged) -> Indices:
    """Wrong, and the surer the worse."""
    wrong = np.flatnonzero(~judged.right)
    return wrong[np.argsort(-judged.confidence[wrong], kind="stable")][:SHOWN]


def _least_certain(judged: Judged) -> Indices:
    return np.argsort(judged.confidence, kind="stable")[:SHOWN]


def _confused(judged: Judged) -> Indices:
    """The surest mistakes of the pairs (true, said) that are confused most often."""
    wrong = np.flatnonzero(~judged.right)
    if not len(wrong):
        return wrong
    said = np.stack([judged.targets[wrong], judged.predicted[wrong]], axis=1)
    _, pair, counts = np.unique(said, axis=0, return_inverse=True, return_counts=True)
    found = []
    for most in np.argsort(-counts, kind="stable")[:PAIRS]:
        mine = wrong[pair == most]
        found.append(mine[np.argsort(-judged.confidence[mine], kind="stable")][:OF_A_PAIR])
    return np.concatenate(found)
