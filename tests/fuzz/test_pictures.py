"""Whatever is dropped: a picture of the wanted size or a reason, in bounded time and memory, and the process lives."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from soaking import SEED, cases, soak

HERE = Path(__file__).parent


def faults(first: int, last: int, progress: Path) -> list[str]:
    """The faults among the broken pictures FIRST to LAST; to take the process down is one, and the rest follows."""
    found: list[str] = []
    path = os.pathsep.join([str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    while first < last:
        progress.write_bytes(first.to_bytes(8, "little"))
        done = subprocess.run(
            [sys.executable, HERE / "decoding.py", str(first), str(last), progress],
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # libpng and libjpeg tell theirs there
            text=True,
            env=os.environ | {"PYTHONPATH": path},
        )
        found += done.stdout.splitlines()
        if done.returncode == 0:
            break
        seed = int.from_bytes(progress.read_bytes(), "little")
        found.append(f"{seed}: it ended the process ({done.returncode})")
        first = seed + 1
    return found


def test_broken_pictures_give_pixels_or_a_reason(tmp_path: Path) -> None:
    assert faults(0, 4000, tmp_path / "progress") == []


@soak
@pytest.mark.timeout(0)
def test_a_million_broken_pictures_give_pixels_or_a_reason(tmp_path: Path) -> None:
    first, count = 1_000_000 + SEED, cases(1_000_000)
    found = faults(first, first + count, tmp_path / "progress")
    print(f"{count} broken pictures from {first} on, {len(found)} faults")
    assert found == []
