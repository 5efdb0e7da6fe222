from __future__ import annotations

import hashlib

import numpy as np
import pytest

from pigeonholed_training.splitting import Part, Shares, split

SHARES = Shares(validation=0.1, calibration=0.2, test=0.1)


def digests(count: int, salt: str = "") -> list[str]:
    return [hashlib.sha256(f"{salt}{number}".encode()).hexdigest() for number in range(count)]


def test_a_picture_stays_in_its_part_when_files_are_added() -> None:
    few, many = digests(400), digests(400) + digests(900, "new")
    before = split(few, [0, 1] * 200, SHARES, 7)
    after = split(many, [0, 1] * 650, SHARES, 7)
    assert np.array_equal(before, after[:400])


def test_order_and_names_do_not_matter() -> None:
    given = digests(100)
    straight = split(given, [0] * 100, SHARES, 1)
    assert np.array_equal(split(given[::-1], [0] * 100, SHARES, 1), straight[::-1])


def test_identical_bytes_never_straddle_parts_even_across_classes() -> None:
    once = digests(200)
    parts = split(once + once, [0] * 200 + [1] * 200, SHARES, 3)
    assert np.array_equal(parts[:200], parts[200:])


def test_another_seed_is_another_split() -> None:
    given = digests(200)
    assert not np.array_equal(split(given, [0] * 200, SHARES, 1), split(given, [0] * 200, SHARES, 2))


def test_every_class_is_split_by_the_shares() -> None:
    targets = [0] * 3000 + [1] * 3000
    parts = split(digests(6000), targets, SHARES, 0)
    for target in (0, 1):
        mine = parts[np.array(targets) == target]
        assert [np.mean(mine == part) for part in Part] == pytest.approx([0.6, 0.1, 0.2, 0.1], abs=0.03)


@pytest.mark.parametrize("seed", range(20))
def test_the_smallest_class_has_some_in_every_part(seed: int) -> None:
    parts = split(digests(4) + digests(50, "b"), [0] * 4 + [1] * 50, SHARES, seed)
    assert set(parts[:4].tolist()) == set(Part)


def test_without_a_test_share_nothing_is_tested() -> None:
    assert Part.TEST not in split(digests(300), [0] * 300, Shares(0.1, 0.2), 0)


@pytest.mark.parametrize("shares", [(0.0, 0.2, 0.0), (0.1, 0.0, 0.0), (0.4, 0.4, 0.2), (0.1, 0.2, -0.1)])
def test_shares_that_leave_a_part_empty_are_refused(shares: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="shares"):
        Shares(*shares)
