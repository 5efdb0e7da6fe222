"""Which pictures teach, which judge, which calibrate: decided by content, so that it stays when files are added."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt


class Part(IntEnum):
    """What a picture is used for."""

    NONE = -1
    """For nothing; where parts are given by the source, also: not given."""
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
        if not (min(held) >= 0 and sum(held) <= 0.9 and self.calibration > 0 and self.validation > 0):
            raise ValueError(
                "the shares of validation and calibration must be above 0, that of test at least 0, and all together "
                f"at most 0.9, not {self.validation}, {self.calibration} and {self.test}"
            )

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts that get any pictures; a class needs at least as many groups of pictures."""
        held = {Part.VALIDATION: self.validation, Part.CALIBRATION: self.calibration, Part.TEST: self.test}
        return (Part.TRAIN, *(part for part, share in held.items() if share > 0))

    def of(self, part: Part) -> float:
        """The fraction held back for one part; 0 for the others."""
        held = {Part.VALIDATION: self.validation, Part.CALIBRATION: self.calibration, Part.TEST: self.test}
        return held.get(part, 0.0)


def split(
    digests: Sequence[str],
    targets: Sequence[int],
    shares: Shares,
    seed: int,
    groups: Sequence[int] | npt.NDArray[np.int32] | None = None,
    given: Sequence[int] | npt.NDArray[np.int8] | None = None,
) -> npt.NDArray[np.int8]:
    """Assigns every picture to a part.

    A hash of seed and content decides, and nothing else: a picture stays in its part whatever files are added, renamed
    or removed, unless they are of its own group. A group is never torn apart, also across classes. Only a class so
    small that a part got none of it hands over the group whose hash lies nearest.

    Args:
        digests: SHA-256 of each picture's bytes, hex.
        targets: its class.
        shares: the fractions; of what is to be split where `given` holds back some parts already.
        seed: another seed is another split.
        groups: int [N], the same number for pictures that belong together (`likeness.groups`, where equal bytes do);
            None: only equal bytes belong together.
        given: int [N] of `Part` that the source decided, `NONE` where it did not. What is given to validation,
            calibration or test stays there, and these parts get nothing else. The other pictures are split among
            training and the parts that are missing; they are left out where their group is in a given part.

    Returns:
        int8 [N] of `Part`, `NONE` for pictures left out. Every class has something in every part that was not given,
        if it has at least that many groups to split and shares none of them with another small class.
    """
    return allot(digests, targets, {part: shares.of(part) for part in shares.parts}, str(seed), groups, given)


def allot(
    digests: Sequence[str],
    targets: Sequence[int],
    fractions: Mapping[Part, float],
    seed: str,
    groups: Sequence[int] | npt.NDArray[np.int32] | None = None,
    given: Sequence[int] | npt.NDArray[np.int8] | None = None,
) -> npt.NDArray[np.int8]:
    """As `split`, with any parts held back: `fractions` says how much of each; the rest is trained on.

    Who cuts one split out of another must take another `seed`: where the test pictures were the lowest fifth, no
    picture below a fifth is left.
    """
    _, group_of = np.unique(np.asarray(digests if groups is None else groups), return_inverse=True)
    fixed = np.full(len(digests), Part.NONE, np.int8) if given is None else np.asarray(given, np.int8)
    held = fixed > Part.TRAIN
    positions = _positions(digests, group_of, seed)
    intervals = _intervals(fractions, without=frozenset(fixed[held].tolist()))
    assigned = np.full(len(positions), Part.TRAIN, np.int8)
    for part, (low, high) in intervals.items():
        assigned[(low <= positions) & (positions < high)] = part
    assigned[group_of[held]] = Part.NONE
    for target in np.unique(np.asarray(targets)):
        members = np.unique(group_of[np.asarray(targets) == target])
        _fill_empty_parts(members[assigned[members] != Part.NONE], assigned, positions, intervals)
    return np.where(held, fixed, assigned[group_of])


def _positions(digests: Sequence[str], group_of: npt.NDArray[np.intp], seed: str) -> npt.NDArray[np.float64]:
    """Where each group lies in [0, 1): that of its smallest digest.

    Not the lowest position of its members, which would draw large groups into the parts that begin at 0.
    """
    names, rank = np.unique(np.asarray(digests, np.str_), return_inverse=True)
    speaks = np.full(group_of.max(initial=-1) + 1, len(names))
    np.minimum.at(speaks, group_of, rank)
    return np.array([_position(str(names[index]), seed) for index in speaks])


def _position(digest: str, seed: str) -> float:
    """Where a content lies in [0, 1), evenly spread."""
    hashed = hashlib.sha256(f"{seed}:{digest}".encode("ascii")).digest()
    return int.from_bytes(hashed[:6], "big") / 2**48


def _intervals(fractions: Mapping[Part, float], without: frozenset[int]) -> dict[Part, tuple[float, float]]:
    """The positions that belong to each part to be filled, training first."""
    edge = 0.0
    held: dict[Part, tuple[float, float]] = {}
    for part in (Part.TEST, Part.CALIBRATION, Part.VALIDATION):
        if fractions.get(part, 0) > 0 and part not in without:
            held[part] = (edge, edge + fractions[part])
            edge += fractions[part]
    return {Part.TRAIN: (edge, 1.0)} | dict(sorted(held.items()))


def _fill_empty_parts(
    members: npt.NDArray[np.intp],
    assigned: npt.NDArray[np.int8],
    positions: npt.NDArray[np.float64],
    intervals: dict[Part, tuple[float, float]],
) -> None:
    """Gives each part that has nothing of a class one of its groups, `members`, from the part that has most of them."""
    for part, (low, high) in intervals.items():
        if (assigned[members] == part).any():
            continue
        richest = max(intervals, key=lambda other: int((assigned[members] == other).sum()))
        choice = members[assigned[members] == richest]
        if len(choice) < 2 and part is not Part.TRAIN:
            return
        if len(choice):
            assigned[choice[np.abs(positions[choice] - (low + high) / 2).argmin()]] = part
