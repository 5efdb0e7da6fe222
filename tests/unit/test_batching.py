"""Batches: full, on time, and never waiting for nothing."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from helpers import FakeClock
from pigeonholed.batching import Flush, batches
from pigeonholed.channel import Channel


class _Script(Channel[int]):
    """A channel whose `get` plays a list: groups, or seconds that pass without one."""

    def __init__(self, script: Sequence[Sequence[int] | float], clock: FakeClock, upstream: int = 0) -> None:
        super().__init__(1000)
        self.script = list(script)
        self.clock = clock
        self.upstream = upstream
        self.waits: list[float | None] = []

    def __len__(self) -> int:
        return len(self.script[0]) if self.script and not isinstance(self.script[0], float) else 0

    def get(self, timeout_s: float | None = None) -> Sequence[int] | None:
        self.waits.append(timeout_s)
        if not self.script:
            return None
        step = self.script.pop(0)
        if isinstance(step, float):
            passes = step if timeout_s is None else min(step, timeout_s)
            self.clock.advance(passes)
            if timeout_s is not None and step > timeout_s:
                self.script.insert(0, step - timeout_s)
            return ()
        self.upstream -= len(step)
        return step


def _run(script: Sequence[Sequence[int] | float], *, upstream: int = 0, most: int = 4, wait_s: float = 0.5) -> object:
    clock = FakeClock()
    channel = _Script(script, clock, upstream)
    made = batches(channel, max_size=most, max_wait_s=wait_s, on_its_way=lambda: channel.upstream, clock=clock)
    return [(batch, flush.value) for batch, flush in made]


def test_lone_picture_goes_at_once() -> None:
    channel = _Script([[1]], FakeClock(), 1)
    first = next(batches(channel, max_size=4, max_wait_s=100.0, on_its_way=lambda: channel.upstream))
    assert first == ([1], Flush.IDLE)
    assert channel.waits == [None]  # it waited for the first picture only


def test_full_batch_goes_though_more_is_on_its_way() -> None:
    assert _run([[1, 2], [3, 4], [5]], upstream=100) == [([1, 2, 3, 4], "full"), ([5], "drain")]


def test_large_group_is_cut_and_nothing_is_lost() -> None:
    assert _run([list(range(9))], upstream=100) == [
        ([0, 1, 2, 3], "full"),
        ([4, 5, 6, 7], "full"),
        ([8], "drain"),
    ]


def test_batch_waits_for_what_is_on_its_way_but_not_longer_than_it_may() -> None:
    assert _run([[1], 0.2, [2], 0.2, 5.0, [3]], upstream=3) == [([1, 2], "timeout"), ([3], "idle")]


def test_first_picture_of_each_batch_starts_the_wait_anew() -> None:
    assert _run([[1], 0.5, 9.0, [2], 0.4, [3], 0.1, 9.0], upstream=10) == [([1], "timeout"), ([2, 3], "timeout")]


def test_batch_goes_as_soon_as_nothing_more_is_on_its_way() -> None:
    clock = FakeClock()
    channel = _Script([[1], 0.1], clock, 2)
    made = batches(channel, max_size=4, max_wait_s=50.0, on_its_way=lambda: channel.upstream, clock=clock)
    original = channel.get

    def get(timeout_s: float | None = None) -> Sequence[int] | None:
        group = original(timeout_s)
        if group == ():
            channel.upstream = 0  # the other picture was refused, and its decoder woke us
        return group

    channel.get = get  # type: ignore[method-assign]
    assert next(made) == ([1], Flush.IDLE)
    assert clock.now_s < 1001


def test_closed_channel_gives_up_what_is_left() -> None:
    channel: Channel[int] = Channel(10)
    channel.put([1, 2])
    channel.close()
    assert list(batches(channel, max_size=4, max_wait_s=60.0, on_its_way=lambda: 5)) == [([1, 2], Flush.DRAIN)]


def test_empty_channel_that_closes_gives_no_batch() -> None:
    channel: Channel[int] = Channel(10)
    channel.close()
    assert list(batches(channel, max_size=4, max_wait_s=60.0, on_its_way=lambda: 0)) == []


@given(
    st.lists(
        st.one_of(st.integers(1, 7), st.floats(0.01, 2.0)),
        max_size=30,
    ),
    st.integers(1, 5),
    st.integers(0, 5),
)
def test_each_item_is_in_one_batch_in_order_and_no_batch_is_too_large(
    steps: list[int | float], most: int, more_upstream: int
) -> None:
    script: list[Sequence[int] | float] = []
    number = 0
    for step in steps:
        if isinstance(step, float):
            script.append(step)
        else:
            script.append(list(range(number, number + step)))
            number += step
    clock = FakeClock()
    channel = _Script(script, clock, number + more_upstream)
    made = list(batches(channel, max_size=most, max_wait_s=0.5, on_its_way=lambda: channel.upstream, clock=clock))
    assert [item for batch, _ in made for item in batch] == list(range(number))
    assert all(0 < len(batch) <= most for batch, _ in made)
    assert all((len(batch) == most) >= (flush is Flush.FULL) for batch, flush in made)
