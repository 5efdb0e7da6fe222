"""The memory of many threads, as glibc tells of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_ARENAS = """
import ctypes, sys, threading
from pigeonholed.allocator import share_arenas
if sys.argv[2] == "shared":
    share_arenas()
together = threading.Barrier(12)
def allocate():
    together.wait()
    held = [bytearray(50_000) for _ in range(20)]
    together.wait()
threads = [threading.Thread(target=allocate) for _ in range(12)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
file = libc.fopen(sys.argv[1].encode(), b"w")
libc.malloc_info(0, ctypes.c_void_p(file))
libc.fclose(ctypes.c_void_p(file))
"""


@pytest.mark.parametrize(("how", "least", "most"), [("shared", 1, 2), ("alone", 3, 100)])
def test_threads_share_two_arenas(tmp_path: Path, how: str, least: int, most: int) -> None:
    told = tmp_path / "arenas.xml"
    subprocess.run([sys.executable, "-c", _ARENAS, str(told), how], check=True)
    assert least <= told.read_text().count("<heap nr=") <= most
