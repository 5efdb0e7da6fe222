"""Pictures of no class: a model that must choose among its classes should at least not be sure.

Those made here are nothing that a camera sees, or a page of text, so they are the easy part of the question; pictures
of the user's own that belong to no class are the telling part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np

from pigeonholed_training.evaluation.asking import MOST, answers
from pigeonholed_training.evaluation.examples import unlabelled

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy.typing as npt

    from pigeonholed.classifying import Classifier
    from pigeonholed_training.evaluation.judged import Example, Judged

    Pixels = npt.NDArray[np.uint8]
    Generator = np.random.Generator

EACH: Final = 64  # of a kind, at most
SHOWN: Final = 6  # of the user's own; of those made here the surest one
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz     .,"


def strangers(
    classifier: Classifier,
    judged: Judged,
    pixels: Pixels,
    *,
    given: Mapping[str, Pixels] | None = None,
    seed: int = 0,
) -> tuple[list[dict[str, Any]], tuple[Example, ...]]:
    """How sure the model is of pictures of no class, and how many of them would be sorted.

    `auroc` is the probability that a judged picture gets more confidence than a stranger: 1 tells them apart, 0.5 does
    not, below that strangers are what it is surest of. In all about one and a half times as many pictures are asked
    about as were given.

    Args:
        classifier: the model as it is served.
        judged: what it said of pictures that do have a class, at least one.
        pixels: some of these, uint8 RGB [N, H, W, 3]; they give size and, shuffled, one kind of strangers.
        given: strangers of the user's own under a name, in the same size; the first 256 of each are used.
        seed: of what is made.

    Returns:
        A row for each kind, and the surest of each as examples.
    """
    from sklearn.metrics import roc_auc_score

    rows: list[dict[str, Any]] = []
    examples: list[Example] = []
    own = {name: mine[:MOST] for name, mine in (given or {}).items() if len(mine)}
    for what, pictures in (*made(pixels, min(EACH, max(8, len(pixels) // 4)), seed), *own.items()):
        said = answers(classifier, judged, pictures, np.full(len(pictures), -1, np.int32))
        known = np.repeat([1, 0], [len(judged), len(said)])
        rows.append(
            {
                "what": what,
                "n": len(said),
                "mean_confidence": round(float(said.confidence.mean()), 6),
                "sorted_share": round(float(said.passes.mean()), 6),
                "auroc": round(float(roc_auc_score(known, np.concatenate([judged.confidence, said.confidence]))), 6),
            }
        )
        surest = np.argsort(-said.confidence, kind="stable")[: SHOWN if what in own else 1]
        examples += [
            unlabelled(judged.labels, said.probabilities[one], judged.thresholds, pictures[one], what)
            for one in surest.tolist()
        ]
    return rows, tuple(examples)


def made(pixels: Pixels, count: int, seed: int) -> Iterator[tuple[str, Pixels]]:
    """Kinds of strangers with their names, uint8 [count, H, W, 3] each; `pixels` [N, H, W, 3] gives their size."""
    rng = np.random.default_rng(seed)
    shape = (count, *pixels.shape[1:])
    yield "noise", rng.integers(0, 256, shape, np.uint8)
    yield "one colour", np.broadcast_to(rng.integers(0, 256, (count, 1, 1, 3), np.uint8), shape)
    yield "gradients", _gradients(rng, shape)
    yield "checkerboards", _checkerboards(rng, shape)
    yield "pages of text", np.stack([_page(rng, *shape[1:3]) for _ in range(count)])
    yield "shuffled pixels", _shuffled(rng, pixels[rng.integers(len(pixels), size=count)])


def _gradients(rng: Generator, shape: tuple[int, ...]) -> Pixels:
    """From one colour to another, in any direction."""
    count, height, width, _ = shape
    angle = rng.uniform(0, 2 * np.pi, (count, 1, 1))
    down, across = np.linspace(-0.5, 0.5, height)[:, None], np.linspace(-0.5, 0.5, width)
    way = np.sin(angle) * down + np.cos(angle) * across
    way = (way / (2 * np.abs(way).max(axis=(1, 2), keepdims=True)) + 0.5)[..., None]
    start, end = rng.integers(0, 256, (2, count, 1, 1, 3))
    return np.asarray(np.rint(start + way * (end - start)), np.uint8)


def _checkerboards(rng: Generator, shape: tuple[int, ...]) -> Pixels:
    """Of two colours, from fine to coarse."""
    count, height, width, _ = shape
    sides = rng.integers(1, max(2, min(height, width) // 3), (count, 1, 1))
    odd = (np.arange(height)[:, None] // sides + np.arange(width) // sides) % 2
    first, second = rng.integers(0, 256, (2, count, 1, 1, 3), np.uint8)
    return np.asarray(np.where(odd[..., None], first, second), np.uint8)


def _page(rng: Generator, height: int, width: int) -> Pixels:
    """Dark letters on pale paper."""
    page = np.full((height, width, 3), rng.integers(215, 256), np.uint8)
    line = int(rng.integers(8, max(9, height // 8)))
    ink = (int(rng.integers(0, 80)),) * 3
    for bottom in range(line, height, line):
        text = "".join(rng.choice(list(_LETTERS), 2 * width // line + 2))
        cv2.putText(page, text, (2, bottom), cv2.FONT_HERSHEY_SIMPLEX, line / 36, ink, 1, cv2.LINE_AA)
    return page


def _shuffled(rng: Generator, pictures: Pixels) -> Pixels:
    """The same pixels in any order: the colours of a class without its shapes."""
    points = pictures.reshape(len(pictures), -1, 3)
    return np.stack([picture[rng.permutation(len(picture))] for picture in points]).reshape(pictures.shape)
