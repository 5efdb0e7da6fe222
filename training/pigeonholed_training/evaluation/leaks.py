"""Whether pictures that judge were learnt from: the same bytes, or nearly the same picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pigeonholed_training.data import likeness

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

SHOWN: Final = 10  # pairs


@dataclass(frozen=True)
class Seen:
    """Pictures by what they are recognised by, all in the same order.

    Attributes:
        paths: what a person knows them by.
        digests: SHA-256 of their bytes, in hex.
        thumbnails: uint8 [N, 256] (`data.decoding.thumbnail_of`), or None where they are not at hand.
    """

    paths: Sequence[str]
    digests: Sequence[str]
    thumbnails: npt.NDArray[np.uint8] | None


def leaks(judged: Seen, learnt: Seen) -> dict[str, Any]:
    """How many of the judged pictures are among the learnt ones.

    Returns:
        `checked`, `seen` (the same bytes), `alike` (not the same bytes, but nearly the same picture; None where there
        are no thumbnails to compare) and `examples`: pairs of paths, judged and learnt, same bytes first.
    """
    place = {digest: index for index, digest in reversed(list(enumerate(learnt.digests)))}
    same = [(index, place[digest]) for index, digest in enumerate(judged.digests) if digest in place]
    near = _near(judged, learnt, {index for index, _ in same})
    examples = [[judged.paths[mine], learnt.paths[its]] for mine, its in [*same, *(near or [])][:SHOWN]]
    return {
        "checked": len(judged.digests),
        "seen": len(same),
        "alike": None if near is None else len(near),
        "examples": examples,
    }


def _near(judged: Seen, learnt: Seen, same: set[int]) -> list[tuple[int, int]] | None:
    """For each judged picture, but for those in `same`, that is nearly a learnt one: the learnt one closest to it."""
    if judged.thumbnails is None or learnt.thumbnails is None:
        return None
    # What has the same bytes would only be a crowd here, and crowds are held to a stricter likeness.
    left = np.array([index for index in range(len(judged.digests)) if index not in same], np.int64)
    _, once = np.unique(np.asarray(learnt.digests, np.str_), return_index=True)
    pairs = likeness.pairs(np.concatenate([judged.thumbnails[left], learnt.thumbnails[once]]))
    across = (pairs.first < len(left)) & (pairs.second >= len(left))  # the first is always the smaller
    mine, its, distance = pairs.first[across], pairs.second[across] - len(left), pairs.distance[across]
    closest = np.lexsort((distance, mine))
    found = closest[np.diff(mine[closest], prepend=-1) != 0]
    return sorted((int(left[mine[one]]), int(once[its[one]])) for one in found)
