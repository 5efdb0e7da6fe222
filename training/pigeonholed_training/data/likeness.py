"""Which pictures show the same: copies that were saved anew, resized, mirrored, slightly cropped or recoloured.

Two pictures are compared by the correlation of their gradients. Grey levels themselves would not do: much of any two
photos is a bright sky over dark ground, but their edges agree in the same picture only. Gradients are weighed as the
cosine transform weighs its terms by frequency, so the signs of its lowest terms make a hash under which near-duplicates
lie close; pictures that agree in enough of it are compared, all others never meet.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final, NamedTuple

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    Thumbnails = npt.NDArray[np.uint8]
    Indices = npt.NDArray[np.int64]
    Hashes = npt.NDArray[np.uint64]

_SIDE: Final = 16
_ALIKE: Final = 0.85
"""Correlation from which on photos count as the same: on CIFAR-10 all that reach it are, while that of any two
different pictures is 0.00 +- 0.09."""
_SIGMAS: Final = 8.0  # above what is usual between pictures of this data set
_ALIKE_AT_MOST: Final = 0.9995  # what is saved anew at the same size keeps this much
_STRICTER: Final = (0.93, 0.96, 0.98, 0.99, 0.995, 0.999, np.inf)
_SAMPLE: Final = 8192  # pairs that show what is usual
_BITS_APART: Final = 16  # of 64; more than near-duplicates differ in
_NEIGHBOURS: Final = 16  # compared with each picture in each table; bounds time and memory where all is alike
_FLAT: Final = 1.5  # grey levels: RMS gradient below which there is nothing to see
_FRAME: Final = 2  # pixels of a thumbnail at its edge that must not decide alone: many a picture has a frame
_CHUNK: Final = 1 << 12  # pairs compared at a time
_CLOSER: Final = 1.1  # a picture of which 5 % was cut off at each side


class Pairs(NamedTuple):
    """Pictures that show the same, each pair once.

    Attributes:
        first: int64 [P], index of the one.
        second: int64 [P], of the other; larger than `first`.
        distance: float32 [P], 0 for the very same thumbnail, growing to 0.15: one less the correlation of gradients.
    """

    first: Indices
    second: Indices
    distance: npt.NDArray[np.float32]


def groups(digests: Sequence[str], thumbnails: Thumbnails) -> npt.NDArray[np.int32]:
    """Gives the same number to pictures with the same bytes, and to near-duplicates (see `pairs`).

    Args:
        digests: of each picture's bytes.
        thumbnails: uint8 [N, 256], the picture squeezed to 16x16 in grey, row by row.

    Returns:
        int32 [N]: the index of the first picture of the group.
    """
    _, firsts, same = np.unique(np.asarray(digests, np.str_), return_index=True, return_inverse=True)
    near = pairs(thumbnails[firsts])
    every = np.arange(len(digests))
    return joined(
        len(digests),
        np.concatenate([every, firsts[near.first]]),
        np.concatenate([firsts[same], firsts[near.second]]),
    )


def pairs(thumbnails: Thumbnails) -> Pairs:
    """Finds near-duplicates, in time and memory that grow with the number of pictures, not with its square.

    What has no contours (a black frame, a wall) is like nothing. Where all pictures are alike, as handwritten digits
    are, or whatever passes before a fixed camera, only what is much more alike than usual counts; and so it is where a
    good part of them are.

    Args:
        thumbnails: uint8 [N, 256], the picture squeezed to 16x16 in grey, row by row.
    """
    seen = np.flatnonzero(_energy(thumbnails) >= _FLAT**2)
    first, second, likeness = _alike(thumbnails[seen])
    kept = _without_crowds(len(seen), first, second, likeness)
    first, second, likeness = first[kept], second[kept], likeness[kept]
    order = np.lexsort((second, first))
    return Pairs(seen[first[order]], seen[second[order]], np.maximum(1 - likeness[order], 0).astype(np.float32))


def joined(count: int, first: Indices, second: Indices) -> npt.NDArray[np.int32]:
    """int32 [count]: for each of `count` things the smallest index of all that pairs connect it with."""
    parents = list(range(count))

    def root(index: int) -> int:
        while parents[index] != index:
            parents[index] = index = parents[parents[index]]
        return index

    for one, other in zip(first.tolist(), second.tolist(), strict=True):
        low, high = sorted((root(one), root(other)))
        parents[high] = low
    return np.array([root(index) for index in range(count)], np.int32)


def _variants(thumbnails: Thumbnails) -> Iterator[Thumbnails]:
    """The pictures as they are, mirrored, and closer by."""
    squares = thumbnails.reshape(-1, _SIDE, _SIDE)
    yield thumbnails
    yield np.ascontiguousarray(squares[:, :, ::-1]).reshape(-1, _SIDE * _SIDE)
    middle = (_SIDE - 1) / 2
    matrix = np.array([[1 / _CLOSER, 0, middle - middle / _CLOSER], [0, 1 / _CLOSER, middle - middle / _CLOSER]])
    closer = np.empty_like(squares)
    for square, target in zip(squares, closer, strict=True):
        cv2.warpAffine(square, matrix, (_SIDE, _SIDE), target, cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    yield closer.reshape(-1, _SIDE * _SIDE)


def _alike(thumbnails: Thumbnails) -> tuple[Indices, Indices, npt.NDArray[np.float32]]:
    """The pairs that are alike enough, each once, and their likeness."""
    count = len(thumbnails)
    enough = _enough(thumbnails)
    hashes = _hashes(thumbnails)
    found = [(np.zeros(0, np.int64), np.zeros(0, np.float32))]
    for variant in _variants(thumbnails):
        first, second = _candidates(_hashes(variant), hashes)
        likeness = _likeness(variant, first, thumbnails, second, enough)
        good = likeness >= enough
        first, second = first[good], second[good]
        found.append((np.minimum(first, second) * count + np.maximum(first, second), likeness[good]))
    codes, likeness = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.lexsort((-likeness, codes))
    codes, likeness = codes[order], likeness[order]
    once = np.diff(codes, prepend=-1) != 0
    return codes[once] // max(count, 1), codes[once] % max(count, 1), likeness[once]


def _hashes(thumbnails: Thumbnails) -> Hashes:
    """uint64 [N]: the signs of the 64 lowest terms of the cosine transform, without the constant one."""
    places = np.arange(_SIDE)
    waves = np.cos(np.pi * np.outer(places, 2 * places + 1) / (2 * _SIDE)).astype(np.float32)
    terms = sorted((u + v, abs(u - v), u, v) for u in range(_SIDE) for v in range(_SIDE) if u + v)[:64]
    basis = np.stack([np.outer(waves[u], waves[v]).ravel() for _, _, u, v in terms], axis=1)
    # Rounding must not give pictures of equal halves random signs: half a grey level in all is as good as nothing.
    parts = [part.astype(np.float32) @ basis > 0.5 for part in _chunks(thumbnails)]
    return np.packbits(np.concatenate(parts), axis=1).view(np.uint64).ravel() if parts else np.zeros(0, np.uint64)


def _chunks(thumbnails: Thumbnails) -> list[Thumbnails]:
    return [thumbnails[start : start + _CHUNK] for start in range(0, len(thumbnails), _CHUNK)]


def _candidates(asking: Hashes, hashes: Hashes) -> tuple[Indices, Indices]:
    """Pairs (index of `asking`, index of `hashes`) that agree in two of eight bytes, and are not far in the others."""
    count = len(hashes)
    found = np.zeros(0, np.int64)
    for pair in itertools.combinations(range(8), 2):
        turned, asked = _turned(hashes, pair), _turned(asking, pair)
        order = np.argsort(turned, kind="stable")
        codes = [index * count + order[place] for index, place in _neighbours(asked, turned[order])]
        found = np.sort(np.concatenate([found, *codes]))  # np.unique hashes, which takes ten times as long here
        found = found[np.diff(found, prepend=-1) != 0]
    first, second = found // max(count, 1), found % max(count, 1)
    return first[first != second], second[first != second]


def _neighbours(asked: Hashes, ordered: Hashes) -> Iterator[tuple[Indices, Indices]]:
    """Pairs (index of `asked`, index of `ordered`) with the same 16 bits foremost and few others apart."""
    at = np.searchsorted(ordered, asked)
    for direction in (1, -1):
        index = np.arange(len(asked))
        place = at if direction == 1 else at - 1
        for _ in range(_NEIGHBOURS):
            inside = (place >= 0) & (place < len(ordered))
            index, place = index[inside], place[inside]
            apart = ordered[place] ^ asked[index]
            inside = apart >> np.uint64(48) == 0  # what is sorted and has left the 16 bits will not come back
            close = inside & (np.bitwise_count(apart) <= _BITS_APART)
            yield index[close], place[close]
            index, place = index[inside], place[inside] + direction


def _turned(hashes: Hashes, pair: tuple[int, ...]) -> Hashes:
    """The hashes with two of their bytes foremost, so that sorting brings those together that agree in them."""
    order = [byte for byte in range(8) if byte not in pair] + list(pair)
    return np.ascontiguousarray(hashes.view(np.uint8).reshape(-1, 8)[:, order]).view(np.dtype("<u8")).ravel()


def _gradients(thumbnails: Thumbnails, margin: int) -> npt.NDArray[np.float32]:
    """float32 [N, G]: differences of neighbouring pixels, without `margin` pixels at each edge."""
    squares = thumbnails.reshape(-1, _SIDE, _SIDE)[:, margin : _SIDE - margin, margin : _SIDE - margin]
    squares = squares.astype(np.float32)
    across, down = squares[:, :, 1:] - squares[:, :, :-1], squares[:, 1:] - squares[:, :-1]
    size = across[0].size if len(squares) else 0
    return np.concatenate([across.reshape(len(squares), size), down.reshape(len(squares), size)], axis=1)


def _energy(thumbnails: Thumbnails) -> npt.NDArray[np.float64]:
    """The mean square of the gradients, float64 [N]."""
    parts = [np.square(_gradients(part, 0)).mean(axis=1) for part in _chunks(thumbnails)]
    return np.concatenate([np.zeros(0), *parts])


def _enough(thumbnails: Thumbnails) -> float:
    """The correlation from which on pictures of this data set count as the same.

    Correlations are spread evenly after Fisher's z transform; median and median deviation do not see copies.
    """
    count = len(thumbnails)
    if count < 16:
        return _ALIKE
    rng = np.random.default_rng(0)
    first = rng.integers(count, size=_SAMPLE)
    second = (first + rng.integers(1, count, size=_SAMPLE)) % count
    usual, _ = _correlation(thumbnails[first], thumbnails[second], 0)
    z = np.arctanh(np.clip(usual, -1, 0.99999))
    middle = np.median(z)
    spread = 1.4826 * np.median(np.abs(z - middle))
    return float(np.clip(np.tanh(middle + _SIGMAS * spread), _ALIKE, _ALIKE_AT_MOST))


def _likeness(
    one: Thumbnails, first: Indices, other: Thumbnails, second: Indices, enough: float
) -> npt.NDArray[np.float32]:
    """The correlation of gradients, float32 [P]: of whole pictures, or of what is inside where that differs."""
    parts = [np.zeros(0, np.float32)]
    for start in range(0, len(first), _CHUNK):
        left, right = one[first[start : start + _CHUNK]], other[second[start : start + _CHUNK]]
        likeness, _ = _correlation(left, right, 0)
        good = np.flatnonzero(likeness >= enough)
        inner, inside = _correlation(left[good], right[good], _FRAME)
        framed = (inner < enough - 0.05) & (inside >= _FLAT**2)
        likeness[good[framed]] = inner[framed]
        parts.append(likeness)
    return np.concatenate(parts)


def _correlation(
    left: Thumbnails, right: Thumbnails, margin: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Correlation of the gradients of each pair, and their mean square in the geometric mean of both; float32 [P]."""
    one, other = _gradients(left, margin), _gradients(right, margin)
    product, mine, its = (np.einsum("pg,pg->p", *two) for two in ((one, other), (one, one), (other, other)))
    energy = np.sqrt(mine * its)
    return product / np.maximum(energy, 1), energy / one.shape[1]


def _without_crowds(
    count: int, first: Indices, second: Indices, likeness: npt.NDArray[np.float32]
) -> npt.NDArray[np.bool_]:
    """Which pairs stay when groups that hold too much of a data set are held together by stricter likeness only."""
    limit = max(4, min(count // 8, 64))
    kept = np.ones(len(first), np.bool_)
    for stricter in _STRICTER:
        numbers = joined(count, first[kept], second[kept])
        crowded = np.bincount(numbers, minlength=count)[numbers] > limit
        kept &= ~crowded[first] | (likeness >= stricter)
    return kept
