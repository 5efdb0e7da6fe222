"""Pictures whose label is probably wrong, from what a model says that did not learn from them.

Who is a candidate, confident learning says (Northcutt et al. 2021, arXiv 1911.00068): the mean probability that the
pictures of a class get for it is that class's own measure of sureness, and a candidate is as sure as that of another
class, but not of its own.

That alone would suspect every other mistake of a mediocre model. So the model's own calibration is asked too: of
labels to which it gives a probability of 1 %, one in a hundred should turn up. Candidates are suspected, from the least
probable label on, as far as twice as many turn up as that explains, and more than chance would bring; then half of them
or more are not the model's mistakes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pigeonholed_training.evaluation.examples import example

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from pigeonholed_training.evaluation.judged import Example, Judged

    Floats = npt.NDArray[np.float32]
    Indices = npt.NDArray[np.intp]

MOST: Final = 50
SHOWN: Final = 24
EXPLAINED: Final = 0.5  # share of the suspected labels that the model's own uncertainty may explain
CHANCE: Final = 0.01  # with which at least so many turn up although all labels are right


def suspects(
    judged: Judged,
    paths: Sequence[str],
    parts: Sequence[str],
    read: Callable[[Indices], npt.NDArray[np.uint8]],
) -> tuple[list[dict[str, Any]], tuple[Example, ...]]:
    """The most suspicious labels, by what the model says of pictures that it did not learn from.

    Args:
        judged: the answers, of all such pictures: of validation, calibration and test.
        paths: of the pictures, in the same order.
        parts: the part each is from, in the same order.
        read: gives the pixels uint8 RGB [n, H, W, 3] of some of them, by their position.

    Returns:
        At most 50 rows, most suspicious first, with `path`, `part`, `label`, what is `said` instead with what
        `confidence`, and the `label_probability` that is left; and the first of them as examples.
    """
    found = ranked(judged)[:MOST]
    rows = [
        {
            "path": paths[index],
            "part": parts[index],
            "label": judged.labels[judged.targets[index]],
            "said": judged.labels[judged.predicted[index]],
            "confidence": round(float(judged.confidence[index]), 6),
            "label_probability": round(float(judged.probabilities[index, judged.targets[index]]), 6),
        }
        for index in found.tolist()
    ]
    shown = found[:SHOWN]
    pixels = read(shown) if len(shown) else ()
    examples = (
        example(judged, index, picture, paths[index]) for index, picture in zip(shown.tolist(), pixels, strict=True)
    )
    return rows, tuple(examples)


def ranked(judged: Judged) -> Indices:
    """Positions of all pictures with a suspicious label, by how much more is said than is left for the label."""
    p, targets, said = judged.probabilities, judged.targets, judged.predicted
    found = _more_than_explained(p, _doubted(p, targets, said), targets)
    margin = p[found, said[found]] - p[found, targets[found]]
    return found[np.argsort(-margin, kind="stable")]


def _doubted(p: Floats, targets: npt.NDArray[np.int32], said: Indices) -> npt.NDArray[np.bool_]:
    """Which labels would make which pictures candidates, bool [N, K]."""
    usual = np.full(p.shape[1], np.nan, np.float32)
    for label in np.unique(targets):
        # Rounded as the probabilities are: the mean of equal ones must not be larger than they.
        usual[label] = p[targets == label, label].mean(dtype=np.float64)
    # Comparisons with the NaN of a class without pictures are false: it is neither said nor doubted.
    sure = p[np.arange(len(p)), said] >= usual[said]
    return np.asarray(sure[:, None] & (p < usual))


def _more_than_explained(p: Floats, doubted: npt.NDArray[np.bool_], targets: npt.NDArray[np.int32]) -> Indices:
    """Positions of the candidates whose labels are too many to have turned up by chance."""
    from scipy.stats import poisson

    candidates = np.flatnonzero(doubted[np.arange(len(targets)), targets])
    left = p[candidates, targets[candidates]]
    order = np.argsort(left, kind="stable")
    chances = p[doubted]
    place = np.searchsorted(left[order], chances)  # of the first candidate that is no less probable
    expected = np.cumsum(np.bincount(place, chances, len(order) + 1)[:-1])
    found = np.arange(1, len(order) + 1)
    # Many rare labels that turn up by themselves are a Poisson number.
    enough = np.flatnonzero((expected <= EXPLAINED * found) & (poisson.sf(found - 1, expected) <= CHANCE))
    return candidates[order[: enough[-1] + 1 if len(enough) else 0]]
