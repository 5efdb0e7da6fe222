"""The real program, held up: its decoders begin when a file named `gate` is in the current folder, and at its first
move to a destination after that it dies. So tests have as many claimed or planned files as they like.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from pigeonholed import imaging
from pigeonholed.disk import Disk

GATE = "gate"


def main() -> None:
    decode, rename_new = imaging.decode, Disk.rename_new

    def decode_when_told(*arguments: Any, **named: Any) -> imaging.Picture:
        while not os.path.exists(GATE):
            time.sleep(0.01)
        return decode(*arguments, **named)

    def die_instead(disk: Disk, *arguments: Any, **named: Any) -> None:
        if os.path.exists(GATE):
            os.kill(os.getpid(), signal.SIGKILL)
        rename_new(disk, *arguments, **named)

    imaging.decode = decode_when_told
    Disk.rename_new = die_instead  # type: ignore[method-assign]
    from pigeonholed.__main__ import main as run

    run()


if __name__ == "__main__":
    main()
