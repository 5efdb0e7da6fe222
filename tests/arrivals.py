"""Pictures that keep arriving while a daemon works."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager


@contextmanager
def arriving(drop: Callable[[int], object], rate_per_s: float) -> Iterator[None]:
    """While the block runs, another thread calls `drop` with 0, 1, 2, …: so often a second, however long each takes.

    Args:
        drop: puts the picture of this number where it belongs. What it raises ends the arrivals, and is raised at the
            end of the block.
        rate_per_s: what could not be dropped in time follows at once.
    """
    done = threading.Event()

    def drop_all() -> None:
        started_s = time.monotonic()
        serial = 0
        while not done.wait(max(0.0, started_s + serial / rate_per_s - time.monotonic())):
            drop(serial)
            serial += 1

    with ThreadPoolExecutor(1, "arrivals") as pool:
        dropping = pool.submit(drop_all)
        try:
            yield
        finally:
            done.set()
            dropping.result()
