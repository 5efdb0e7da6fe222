"""Pictures of two classes laid over each other: an honest model shares its confidence between those two.

The pictures are mixed as light is, pixel by pixel. What goes to third classes is confidence without a cause.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np

from pigeonholed_training.evaluation.asking import answers
from pigeonholed_training.evaluation.examples import unlabelled

if TYPE_CHECKING:
    import numpy.typing as npt

    from pigeonholed.classifying import Classifier
    from pigeonholed_training.evaluation.judged import Example, Judged

    Pixels = npt.NDArray[np.uint8]
    Targets = npt.NDArray[np.int32]

SHARE: Final = 0.6  # of the first picture
LADDER: Final = (0.9, 0.75, 0.5, 0.25, 0.1)  # for one pair: does confidence follow the share?
PAIRS: Final = 6  # of classes, each in both orders
LEAST: Final = 8  # blends of a pair
MOST: Final = 32


def blends(
    classifier: Classifier, judged: Judged, pixels: Pixels, targets: Targets, *, seed: int = 0
) -> tuple[list[dict[str, Any]], tuple[Example, ...]]:
    """How the confidence is shared between the two classes of blended pictures.

    Every pair of classes is tried in both orders, 60 % of the first; beyond six pairs those that are confused most
    often, then any. The first pair is tried with other shares too. In all about twice as many pictures are asked about
    as were given, or eight for each row where those are few.

    Args:
        classifier: the model as it is served.
        judged: of the same model; says which pairs it confuses.
        pixels: pictures to blend, uint8 RGB [N, H, W, 3].
        targets: their true classes, int32 [N]; classes without a picture are left out.
        seed: of the choice of pictures.

    Returns:
        A row each for pair and share with the mean probability of the `first` class, of the `second` and of all the
        `rest`, and the mean confidence: near 1 the model does not share, whatever the means of the two are, but takes
        every blend for the one or the other. And an example of each.
    """
    rng = np.random.default_rng(seed)
    pairs = _pairs(judged, np.unique(targets), rng)
    mixes = [(*order, SHARE) for pair in pairs for order in (pair, pair[::-1])]
    mixes += [(*pair, share) for pair in pairs[:1] for share in LADDER]
    each = min(MOST, max(LEAST, 2 * len(pixels) // max(1, len(mixes))))
    rows, examples = [], []
    for first, second, share in mixes:
        one, other = (rng.choice(np.flatnonzero(targets == target), each) for target in (first, second))
        mixed = blended(pixels[one], pixels[other], share)
        said = answers(classifier, judged, mixed, np.full(each, -1, np.int32))
        names = judged.labels[first], judged.labels[second]
        p_first, p_second = (float(said.probabilities[:, target].mean()) for target in (first, second))
        rows.append(
            {
                "first": names[0],
                "second": names[1],
                "share": share,
                "p_first": round(p_first, 6),
                "p_second": round(p_second, 6),
                "p_rest": round(max(0.0, float(said.probabilities.sum(axis=1).mean()) - p_first - p_second), 6),
                "mean_confidence": round(float(said.confidence.mean()), 6),
                "n": each,
            }
        )
        note = f"{100 * share:.0f} % {names[0]} + {100 - 100 * share:.0f} % {names[1]}"
        examples.append(unlabelled(judged.labels, said.probabilities[0], judged.thresholds, mixed[0], note))
    return rows, tuple(examples)


def blended(first: Pixels, second: Pixels, share: float) -> Pixels:
    """`share` of each first picture and the rest of each second one, uint8 [N, H, W, 3] as they are."""
    flat = len(first), -1  # OpenCV takes pictures of four channels at most, but rows of any length
    mixed = cv2.addWeighted(first.reshape(flat), share, second.reshape(flat), 1 - share, 0)
    return np.asarray(mixed, np.uint8).reshape(first.shape)


def _pairs(judged: Judged, present: npt.NDArray[np.int32], rng: np.random.Generator) -> list[tuple[int, int]]:
    """The pairs of classes that are confused most often, in either direction; by lot where that says nothing."""
    confusion = np.zeros((len(judged.labels),) * 2, int)
    np.add.at(confusion, (judged.targets, judged.predicted), 1)
    pairs = np.array(list(combinations(present.tolist(), 2)), int).reshape(-1, 2)
    rng.shuffle(pairs)
    confused = confusion[pairs[:, 0], pairs[:, 1]] + confusion[pairs[:, 1], pairs[:, 0]]
    chosen = pairs[np.argsort(-confused, kind="stable")][:PAIRS]
    return [(int(first), int(second)) for first, second in chosen]
