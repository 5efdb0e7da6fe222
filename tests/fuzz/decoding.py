"""Decodes broken pictures FIRST to LAST in a process of its own, which a decoder may take down: see `test_pictures`."""

from __future__ import annotations

import mmap
import random
import signal
import sys
import warnings
from pathlib import Path

import mutants
from pigeonholed import formats, imaging
from pigeonholed.exif import taken_at
from pigeonholed.images import Reason

CPU_S = 3.0
"""Of one picture; the slowest whole one takes a hundredth of that. More is a hang, which ends the process."""
MEMORY_KB = 500_000
"""More than that above the start is no longer in proportion to `MAX_PIXELS`; looked at after each 50 pictures."""
MAX_PIXELS = 4_000_000
REASONS = {Reason.UNREADABLE, Reason.TRUNCATED, Reason.UNSUPPORTED, Reason.TOO_LARGE, Reason.EMPTY}
FITS: tuple[imaging.Fit, ...] = ("stretch", "crop", "pad")


def fault_of(seed: int) -> str | None:
    """What is wrong with how the broken picture of that number is taken; None where nothing is."""
    data = mutants.mutant(seed)
    rng = random.Random(seed)
    spec = imaging.PixelSpec(rng.choice((1, 9, 64)), rng.choice((1, 8, 50)), rng.choice(FITS))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            formats.sniff(data[:64])
            formats.end_is_missing(data[:64], data[-64:], len(data))
            formats.dimensions(data[: rng.randrange(len(data) + 1)])
            taken_at(data)
            return _decoded(data, spec, allow_truncated=rng.random() < 0.3)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _decoded(data: bytes, spec: imaging.PixelSpec, *, allow_truncated: bool) -> str | None:
    try:
        picture = imaging.decode(data, spec, max_pixels=MAX_PIXELS, allow_truncated=allow_truncated)
    except imaging.ImagingError as error:
        said = error.detail.isprintable() and len(error.detail) < 500
        return None if error.reason in REASONS and said else f"it says {error.reason}: {error.detail!r}"
    pixels = picture.pixels
    good = pixels.shape == (spec.height, spec.width, 3) and pixels.dtype == "uint8" and pixels.flags.c_contiguous
    fits = 0 < picture.width * picture.height <= MAX_PIXELS
    return None if good and fits else f"{pixels.shape} {pixels.dtype} of {picture.width} x {picture.height}"


def peak_kb() -> int:
    """The most memory that this process ever had; not of `getrusage`, which remembers who started it."""
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(peak.split()[1])


def main(first: int, last: int, progress: Path) -> None:
    """Write each number before its picture is decoded, and each fault to stdout."""
    imaging.configure()
    mutants.specimens()
    most_kb = peak_kb()
    with progress.open("r+b") as file, mmap.mmap(file.fileno(), 8) as place:
        for seed in range(first, last):
            place[:8] = seed.to_bytes(8, "little")
            signal.setitimer(signal.ITIMER_VIRTUAL, CPU_S)
            fault = fault_of(seed)
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            if fault:
                print(f"{seed}: {fault}", flush=True)
            if seed % 50 == 0 or seed == last - 1:
                most_kb, before_kb = peak_kb(), most_kb
                if most_kb - before_kb > MEMORY_KB:
                    print(f"{seed}: this or one of the 50 before took {most_kb - before_kb} kB", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
