"""Which pictures teach, which judge, which calibrate: decided by content, so that it stays when files are added."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt


class Part(IntEnum):
    """What a picture is used for."""

    TRAIN = 0
    VALIDATION = 1
    CALIBRATION = 2
    TEST = 3


@dataclass(frozen=True, slots=True)
class Shares:
    """The fraction of the pictures held back for each purpose; the rest is trained on."""

    validation: float = 0.10
    calibration: float = 0.20
    test: float = 0.0

    def __post_init__(self) -> None:
        held = (self.validation, self.calibration, self.test)
        if min(held) < 0 or sum(held) > 0.9 or not self.calibration > 0 or not self.validation > 0:
            raise ValueError(
                "the shares of validation and calibration must be above 0, that of test at least 0, and all together "
                f"at most 0.9, not {self.validation}, {self.calibration} and {self.test}"
            )

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts that get any pictures; a class needs at least as many different pictures."""
        held = {Part.VALIDATION: self.validation, Part.CALIBRATION: self.calibration, Part.TEST: self.test}
        return (Part.TRAIN, *(part for part, share in held.items() if share > 0))


def split(digests: Sequence[str], targets: Sequence[int], shares: Shares, seed: int) -> npt.NDArray[np.int8]:
    """Assigns every picture to a part.

    A hash of seed and content decides, and nothing else: a picture stays in its part whatever files are added,
    renamed or removed, and identical bytes are always together, also across classes. Only a class so small that a
    part got none of it hands over the picture whose hash lies nearest.

    Args:
        digests: SHA-256 of each picture's bytes, hex.
        targets: its class.
        shares: the fractions.
        seed: another seed is another split.

    Returns:
        int8 [N] of `Part`. With at least `len(shares.parts)` different pictures in a class every part has some of it,
        unless the same bytes are in several small classes.
    """
    positions = {digest: _position(digest, seed) for digest in set(digests)}
    assigned = {digest: _part_at(position, shares) for digest, position in positions.items()}
    by_class: dict[int, set[str]] = defaultdict(set)
    for digest, target in zip(digests, targets, strict=True):
        by_class[target].add(digest)
    for target in sorted(by_class):
        _fill_empty_parts(by_class[target], assigned, positions, shares)
    return np.array([assigned[digest] for digest in digests], np.int8)


def _position(digest: str, seed: int) -> float:
    """Where a content lies in [0, 1), evenly spread."""
    hashed = hashlib.sha256(f"{seed}:{digest}".encode("ascii")).digest()
    return int.from_bytes(hashed[:6], "big") / 2**48


def _interval(part: Part, shares: Shares) -> tuple[float, float]:
    edges = np.cumsum([0.0, shares.test, shares.calibration, shares.validation])
    if part is Part.TRAIN:
        return float(edges[3]), 1.0
    index = {Part.TEST: 0, Part.CALIBRATION: 1, Part.VALIDATION: 2}[part]
    return float(edges[index]), float(edges[index + 1])


def _part_at(position: float, shares: Shares) -> Part:
    for part in (Part.TEST, Part.CALIBRATION, Part.VALIDATION):
        if position < _interval(part, shares)[1]:
            return part
    return Part.TRAIN


def _fill_empty_parts(
    members: set[str], assigned: dict[str, Part], positions: dict[str, float], shares: Shares
) -> None:
    """Gives each part that has nothing of a class one picture from the part that has most of it."""
    for part in shares.parts:
        if any(assigned[digest] is part for digest in members):
            continue
        held = {other: [digest for digest in members if assigned[digest] is other] for other in shares.parts}
        richest = max(shares.parts, key=lambda other: len(held[other]))
        if len(held[richest]) < 2:
            return
        low, high = _interval(part, shares)
        nearest = min(held[richest], key=lambda digest: (abs(positions[digest] - (low + high) / 2), digest))
        assigned[nearest] = part
