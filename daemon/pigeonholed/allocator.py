"""How the C library keeps memory for the threads of a process that runs for years."""

from __future__ import annotations

import ctypes

_M_ARENA_MAX = -8  # <malloc.h> of glibc
_ARENAS = 2


def share_arenas() -> None:
    """Let all threads of this process share two pools of memory; other C libraries than glibc do as they like.

    By itself glibc gives each new thread a pool of its own, up to eight a processor, and what is freed in one is of
    no use to the others. A pipeline that is built anew has new threads: its process grew and shrank by a tenth.
    To be called before threads are started.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_ARENA_MAX, _ARENAS)
