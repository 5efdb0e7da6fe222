"""The bounded queue between two stages."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from pigeonholed.channel import Channel, Closed


def _start(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def _blocked(thread: threading.Thread) -> bool:
    thread.join(0.05)
    return thread.is_alive()


def test_groups_come_out_in_order_and_whole() -> None:
    channel: Channel[int] = Channel(10)
    channel.put([1, 2])
    channel.put([3])
    assert [channel.get(), channel.get()] == [[1, 2], [3]]


def test_length_counts_items_not_groups() -> None:
    channel: Channel[int] = Channel(10)
    channel.put([1, 2])
    channel.put([3])
    assert len(channel) == 3
    channel.get()
    assert len(channel) == 1


def test_empty_group_is_not_put() -> None:
    channel: Channel[int] = Channel(10)
    channel.put([])
    assert channel.get(0) == ()


def test_put_blocks_beyond_the_capacity_until_there_is_room() -> None:
    channel: Channel[int] = Channel(3)
    channel.put([1, 2])
    thread = _start(lambda: channel.put([3, 4]))
    assert _blocked(thread)
    assert len(channel) == 2
    channel.get()
    thread.join(5)
    assert not thread.is_alive()
    assert channel.get() == [3, 4]


def test_group_larger_than_the_capacity_passes_alone() -> None:
    channel: Channel[int] = Channel(2)
    channel.put([1, 2, 3])
    assert channel.get() == [1, 2, 3]


def test_close_lets_what_waits_come_out_and_then_ends() -> None:
    channel: Channel[int] = Channel(10)
    channel.put([1])
    channel.close()
    assert list(channel) == [[1]]
    assert channel.get() is None


def test_closed_channel_takes_nothing() -> None:
    channel: Channel[int] = Channel(10)
    channel.close()
    with pytest.raises(Closed):
        channel.put([1])


def test_close_frees_a_consumer_that_waits() -> None:
    channel: Channel[int] = Channel(10)
    got: list[object] = []
    thread = _start(lambda: got.append(channel.get()))
    assert _blocked(thread)
    channel.close()
    thread.join(5)
    assert got == [None]


def test_abort_drops_what_waits_and_frees_a_blocked_producer() -> None:
    channel: Channel[int] = Channel(1)
    channel.put([1])
    refused: list[bool] = []

    def produce() -> None:
        with pytest.raises(Closed):
            channel.put([2])
        refused.append(True)

    thread = _start(produce)
    assert _blocked(thread)
    channel.abort()
    thread.join(5)
    assert refused == [True]
    assert len(channel) == 0
    assert channel.get() is None


def test_wake_gives_a_waiting_consumer_an_empty_group() -> None:
    channel: Channel[int] = Channel(10)
    got: list[object] = []
    thread = _start(lambda: got.append(channel.get()))
    assert _blocked(thread)
    channel.wake()
    thread.join(5)
    assert got == [()]


def test_wake_before_the_wait_is_not_lost_and_takes_no_room() -> None:
    channel: Channel[int] = Channel(1)
    channel.wake()
    channel.wake()
    assert len(channel) == 0
    channel.put([1])
    assert [channel.get(0), channel.get(0), channel.get(0)] == [(), [1], ()]


def test_iteration_passes_over_wakes() -> None:
    channel: Channel[int] = Channel(10)
    channel.wake()
    channel.put([1])
    channel.close()
    assert list(channel) == [[1]]


def test_many_producers_and_consumers_pass_each_item_once() -> None:
    channel: Channel[int] = Channel(7)
    out: list[int] = []
    lock = threading.Lock()

    def produce(start: int) -> None:
        for number in range(start, start + 300, 3):
            channel.put([number, number + 1, number + 2])

    def consume() -> None:
        for group in channel:
            with lock:
                out.extend(group)

    consumers = [_start(consume) for _ in range(3)]
    producers = [_start(lambda start=start: produce(start)) for start in (0, 300, 600)]  # type: ignore[misc]
    for thread in producers:
        thread.join(10)
    channel.close()
    for thread in consumers:
        thread.join(10)
    assert sorted(out) == list(range(900))
