from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given as over
from hypothesis import settings
from hypothesis import strategies as st

from pigeonholed_training.data.splitting import Part, Shares, split

SHARES = Shares(validation=0.1, calibration=0.2, test=0.1)
USED = [part for part in Part if part is not Part.NONE]


def digests(count: int, salt: str = "") -> list[str]:
    return [hashlib.sha256(f"{salt}{number}".encode()).hexdigest() for number in range(count)]


def test_a_picture_stays_in_its_part_when_files_are_added() -> None:
    few, many = digests(400), digests(400) + digests(900, "new")
    before = split(few, [0, 1] * 200, SHARES, 7)
    after = split(many, [0, 1] * 650, SHARES, 7)
    assert np.array_equal(before, after[:400])


def test_order_and_names_do_not_matter() -> None:
    known = digests(100)
    straight = split(known, [0] * 100, SHARES, 1)
    assert np.array_equal(split(known[::-1], [0] * 100, SHARES, 1), straight[::-1])


def test_identical_bytes_never_straddle_parts_even_across_classes() -> None:
    once = digests(200)
    parts = split(once + once, [0] * 200 + [1] * 200, SHARES, 3)
    assert np.array_equal(parts[:200], parts[200:])


def test_another_seed_is_another_split() -> None:
    known = digests(200)
    assert not np.array_equal(split(known, [0] * 200, SHARES, 1), split(known, [0] * 200, SHARES, 2))


def test_every_class_is_split_by_the_shares() -> None:
    targets = [0] * 3000 + [1] * 3000
    parts = split(digests(6000), targets, SHARES, 0)
    for target in (0, 1):
        mine = parts[np.array(targets) == target]
        assert [np.mean(mine == part) for part in USED] == pytest.approx([0.6, 0.1, 0.2, 0.1], abs=0.03)


@pytest.mark.parametrize("seed", range(20))
def test_the_smallest_class_has_some_in_every_part(seed: int) -> None:
    parts = split(digests(4) + digests(50, "b"), [0] * 4 + [1] * 50, SHARES, seed)
    assert set(parts[:4].tolist()) == set(USED)


def test_without_a_test_share_nothing_is_tested() -> None:
    assert Part.TEST not in split(digests(300), [0] * 300, Shares(0.1, 0.2), 0)


def test_nothing_is_split_into_nothing() -> None:
    assert split([], [], SHARES, 0).shape == (0,)


nan = float("nan")


@pytest.mark.parametrize(
    "shares", [(0.0, 0.2, 0.0), (0.1, 0.0, 0.0), (0.4, 0.4, 0.2), (0.1, 0.2, -0.1), (nan, 0.2, 0.0), (0.1, 0.2, nan)]
)
def test_shares_that_leave_a_part_empty_are_refused(shares: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="shares"):
        Shares(*shares)


@settings(max_examples=50, deadline=None)
@over(st.lists(st.integers(0, 15), min_size=1, max_size=60), st.integers(0, 5), st.data())
def test_a_group_never_straddles_whatever_else_is_there(numbers: list[int], seed: int, data: st.DataObject) -> None:
    targets = data.draw(st.lists(st.integers(0, 2), min_size=len(numbers), max_size=len(numbers)))
    parts = split(digests(len(numbers)), targets, SHARES, seed, groups=numbers)
    assert Part.NONE not in parts
    for number in set(numbers):
        assert len({part for part, mine in zip(parts.tolist(), numbers, strict=True) if mine == number}) == 1


@settings(max_examples=30, deadline=None)
@over(st.lists(st.integers(0, 400), max_size=60), st.integers(0, 5))
def test_adding_to_other_groups_moves_nothing(added: list[int], seed: int) -> None:
    grouped = [number // 3 for number in range(600)]
    before = split(digests(600), [0] * 600, SHARES, seed, groups=grouped)
    more = [1000 + number for number in added]
    after = split(digests(600) + digests(len(more), "new"), [0] * (600 + len(more)), SHARES, seed, grouped + more)
    assert np.array_equal(before, after[:600])


def test_the_numbers_of_the_groups_do_not_matter() -> None:
    numbers = [number // 4 for number in range(200)]
    renamed = [77 - number for number in numbers]
    targets = [0, 1] * 100
    assert np.array_equal(
        split(digests(200), targets, SHARES, 0, numbers), split(digests(200), targets, SHARES, 0, renamed)
    )


@pytest.mark.parametrize("seed", range(10))
def test_a_class_with_a_group_for_each_part_has_some_in_every_part(seed: int) -> None:
    numbers = [0] * 30 + [1, 1, 2, 3]
    assert set(split(digests(34), [0] * 34, SHARES, seed, groups=numbers).tolist()) == set(USED)


@pytest.mark.parametrize("seed", range(10))
def test_a_class_with_fewer_groups_than_parts_is_trained_on_first(seed: int) -> None:
    assert Part.TRAIN in split(digests(10), [0] * 10, SHARES, seed, groups=[0] * 5 + [1] * 5)
    assert Part.TRAIN in split(digests(5), [0] * 5, SHARES, seed, groups=[0] * 5)


@settings(max_examples=50, deadline=None)
@over(st.lists(st.tuples(st.integers(0, 12), st.sampled_from([*Part])), min_size=1, max_size=50), st.integers(0, 5))
def test_given_parts_are_kept_and_nothing_of_their_groups_is_learned(
    members: list[tuple[int, Part]], seed: int
) -> None:
    numbers, fixed = [number for number, _ in members], [part for _, part in members]
    parts = split(digests(len(members)), [0] * len(members), SHARES, seed, numbers, fixed)
    held = {number for number, part in members if part > Part.TRAIN}
    for (number, was), part in zip(members, parts.tolist(), strict=True):
        if was > Part.TRAIN:
            assert part == was
        elif number in held:
            assert part == Part.NONE
        else:
            assert part == Part.TRAIN or (part != Part.NONE and part not in fixed)


def test_parts_that_were_not_given_are_cut_from_what_was_given_to_training() -> None:
    fixed = [Part.TRAIN] * 3000 + [Part.TEST] * 500
    parts = split(digests(3500), [0] * 3500, SHARES, 0, given=fixed)
    assert set(parts[3000:].tolist()) == {Part.TEST}
    shares = [np.mean(parts[:3000] == part) for part in USED]
    assert shares == pytest.approx([0.7, 0.1, 0.2, 0.0], abs=0.03)


def test_a_part_given_in_full_gets_nothing_else_even_where_a_class_has_none_of_it() -> None:
    fixed = [Part.TRAIN] * 40 + [Part.VALIDATION] * 5
    parts = split(digests(45), [0, 1] * 20 + [0] * 5, SHARES, 0, given=fixed)
    assert Part.VALIDATION not in parts[:40]


def test_where_nothing_is_given_it_is_as_without() -> None:
    targets = [0, 1] * 50
    plain = split(digests(100), targets, SHARES, 0)
    assert np.array_equal(plain, split(digests(100), targets, SHARES, 0, given=[Part.NONE] * 100))


def test_large_groups_are_not_drawn_into_a_part() -> None:
    groups = np.arange(20_000) // 20
    digests = [hashlib.sha256(f"{number}".encode()).hexdigest() for number in range(len(groups))]
    parts = split(digests, [0] * len(groups), Shares(0.1, 0.1, 0.1), 0, groups=groups)
    for part in (Part.VALIDATION, Part.CALIBRATION, Part.TEST):
        assert 0.07 < (parts == part).mean() < 0.13  # three standard deviations of 1,000 groups
