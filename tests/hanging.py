"""The real program, whose finisher stands still for as long as there is a file named `hang` in the current folder, and
which is thought to be stuck after a second of that. A file named `kernel` makes it look held by the kernel.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from pigeonholed import progress
from pigeonholed.finishing import Finisher

HANG = "hang"
KERNEL = "kernel"


def main() -> None:
    turn, task = Finisher.turn, progress.Progress.task

    def turn_when_allowed(finisher: Finisher, *arguments: Any) -> None:
        while os.path.exists(HANG):
            time.sleep(0.01)
        turn(finisher, *arguments)

    def impatient(all_of_them: progress.Progress, what: str, _limit_s: float = 0, **more: Any) -> progress.Task:
        return task(all_of_them, what, 1.0, **more)

    def held(_thread_id: int) -> bool:
        return os.path.exists(KERNEL)

    Finisher.turn = turn_when_allowed  # type: ignore[method-assign]
    progress.Progress.task = impatient  # type: ignore[method-assign]
    defaults: dict[str, Callable[..., Any]] = progress.Task.__init__.__kwdefaults__
    defaults["held"] = held
    from pigeonholed.__main__ import main as run

    run()


if __name__ == "__main__":
    main()
