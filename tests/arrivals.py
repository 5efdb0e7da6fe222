"""Pictures that arrive while a daemon works."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from running import Workspace, picture


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


def drop_some(workspace: Workspace, moments: random.Random, number: int) -> int:
    """A burst of files: names that clash, unless their first owners stay; sub-folders, pictures that are none.

    Returns how many; those whose name is still in the inbox are left out. `number` is that of the first picture.
    """
    dropped = 0
    names = 10**9 if workspace.variant.inbox_keeps else 60
    for serial in range(number, number + moments.randint(1, 12)):
        name = f"{moments.choice(['', 'a/', 'a/b/'])}{moments.randrange(names)}.png"
        if serial % 10 == 9:
            data = moments.choice([b"no picture %d", b"\x89PNG\r\n\x1a\nbroken %d"]) % serial
        else:
            data = picture(moments.choice([40, 120, 220]), 60, moments.choice([40, 120, 220]), serial)
        dropped += workspace.drop(name, data)
    return dropped
