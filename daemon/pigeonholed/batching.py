"""Batches for a model: as full as the flow allows, never waiting for pictures that are not on their way."""

from __future__ import annotations

import time
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pigeonholed.channel import Channel

T = TypeVar("T")


class Flush(StrEnum):
    """Why a batch was closed."""

    FULL = "full"
    TIMEOUT = "timeout"  # more was on its way, but the oldest has waited max_wait_s
    IDLE = "idle"  # nothing more is on its way
    DRAIN = "drain"  # the channel was closed
    MODEL_CHANGE = "model_change"  # the model was switched


def batches(
    channel: Channel[T],
    *,
    max_size: int,
    max_wait_s: float,
    on_its_way: Callable[[], int],
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[tuple[list[T], Flush]]:
    """Regroup what comes out of a channel, until it is closed and empty; every item is in exactly one batch.

    Args:
        channel: what to regroup. Its producers call `wake` when something left the flow without coming out here.
        max_size: items in a batch at most.
        max_wait_s: how long the first item of a batch waits for company.
        on_its_way: how many items are still upstream of the channel; with none, a batch goes at once.
        clock: monotonic seconds.
    """
    waiting: list[T] = []
    deadline = 0.0
    while True:
        if len(waiting) >= max_size:
            yield waiting[:max_size], Flush.FULL
            waiting = waiting[max_size:]
            deadline = clock() + max_wait_s
            continue
        if waiting and not len(channel):
            if not on_its_way():
                # Counted down only after the put, so zero means that everything has come out.
                if not len(channel):
                    yield waiting, Flush.IDLE
                    waiting = []
                    continue
            elif clock() >= deadline:
                yield waiting, Flush.TIMEOUT
                waiting = []
                continue
        group = channel.get(max(0.0, deadline - clock()) if waiting else None)
        if group is None:
            if waiting:
                yield waiting, Flush.DRAIN
            return
        if group and not waiting:
            deadline = clock() + max_wait_s
        waiting.extend(group)
