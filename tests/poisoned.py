"""The real program with decoders that some files kill, in the daemon and in its decoding processes alike.

A file says in its last bytes what it does: see `ending`. It tells stderr when it is decoded, and by which process.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import time
from typing import Any

import numpy as np

from pigeonholed import confined, imaging, isolation

CONFINED = "--confined"
GATE = "gate"  # in the current folder; a decoding process may look for a file, though it can open none
_MARK = b"\n%does: "


def ending(does: str) -> bytes:
    """What goes behind a picture so that decoding it does that; decoders ignore it."""
    return _MARK + does.encode()


def main() -> None:
    decode = imaging.decode

    def decode_or_die(data: bytes, *more: Any, **named: Any) -> imaging.Picture:
        head, mark, does = bytes(data).rpartition(_MARK)
        if mark:
            os.write(2, b"decode %s %d\n" % (does, os.getpid()))
            _do(does.decode())
        return decode(head if mark else data, *more, **named)

    imaging.decode = decode_or_die
    isolation.command = lambda: [sys.executable, __file__, CONFINED]
    if sys.argv[1:2] == [CONFINED]:
        del sys.argv[1]
        confined.main()
    else:
        from pigeonholed.__main__ import main as run

        run()


def _do(does: str) -> None:
    match does:
        case "abort":
            os.abort()
        case "segfault":
            ctypes.string_at(0)
        case "hang":
            while True:
                time.sleep(60)
        case "wait":
            while not os.path.exists(GATE):
                time.sleep(0.01)
        case "eat":
            if resource.getrlimit(resource.RLIMIT_NOFILE) != (0, 0):  # the daemon
                os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does where memory runs out
            np.empty(8 << 30, np.uint8)


if __name__ == "__main__":
    main()
