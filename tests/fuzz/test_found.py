"""What fuzzing and thinking like an attacker found, each as the smallest file that did it."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import time
import zlib

import pytest
from PIL import Image

import mutants
from pigeonholed import formats
from pigeonholed.exif import taken_at
from pigeonholed.images import Reason
from pigeonholed.imaging import ImagingError, PixelSpec, decode

SIGNATURE = b"\x89PNG\r\n\x1a\n"
SPEC = PixelSpec(8, 8)


def block(kind: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(*blocks: bytes, width: int = 28, height: int = 20) -> bytes:
    start = block(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return SIGNATURE + start + b"".join(blocks) + block(b"IEND")


def scanlines(width: int, height: int, filtered: int = 0) -> bytes:
    return zlib.compress(b"".join(bytes([filtered]) + bytes([50] * 3 * width) for _ in range(height)))


def reason_of(data: bytes, **options: bool) -> Reason:
    with pytest.raises(ImagingError) as caught:
        decode(data, SPEC, **options)
    assert caught.value.detail.isprintable()
    return caught.value.reason


CHILD = """
import resource, sys
from pigeonholed.imaging import ImagingError, PixelSpec, configure, decode
def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM:")).split()[1])
configure()
before = peak()
try:
    said = str(decode(sys.stdin.buffer.read(), PixelSpec(8, 8), allow_truncated=True).pixels.shape)
except ImagingError as error:
    said = error.reason.value
print(said, (peak() - before) // 1024)
"""


def taken_alone(data: bytes) -> tuple[str, int]:
    """What a process of its own says of a picture, and the MB that it took; it must live."""
    done = subprocess.run([sys.executable, "-c", CHILD], check=False, input=data, capture_output=True)
    assert done.returncode == 0, done.returncode
    said, _, mb = done.stdout.decode().strip().rpartition(" ")
    return said, int(mb)


def test_damaged_animation_does_not_crash_the_decoder() -> None:
    """OpenCV 5.0 reads beyond a buffer: the bytes of the still are damaged, then an animation begins."""
    frame = block(b"fcTL", struct.pack(">IIIIIHHBB", 0, 28, 20, 0, 0, 1, 50, 0, 0))
    animation = block(b"acTL", struct.pack(">II", 3, 0))
    data = png(animation, block(b"IDAT", bytes(26)), frame, block(b"IDAT", scanlines(28, 20, filtered=9)))
    assert taken_alone(data)[0] in {"(8, 8, 3)", "unreadable"}


def test_animation_shows_its_still() -> None:
    still = png(block(b"IDAT", scanlines(28, 20)))
    frame = block(b"fcTL", struct.pack(">IIIIIHHBB", 0, 28, 20, 0, 0, 1, 50, 0, 0))
    first = block(b"IDAT", scanlines(28, 20))
    moving = png(block(b"acTL", struct.pack(">II", 2, 0)), frame, first, frame, block(b"fdAT", b"junk"))
    assert formats.still_png(moving + b"junk") == still
    assert (decode(moving, SPEC).pixels == decode(still, SPEC).pixels).all()


@pytest.mark.parametrize("kind", [b"IEND", b"IDAT"])
def test_block_of_a_png_that_says_two_gigabytes_is_given_none(kind: bytes) -> None:
    data = png()[:33] + struct.pack(">I", 0x7FFFFFF0) + kind + b"\xaeB`\x82" + bytes(100)
    said, mb = taken_alone(data)
    assert said in {"unreadable", "truncated"}
    assert mb < 100


@pytest.mark.parametrize("kind", [b"IDAT", b"ftyp", b"IEND"])
def test_png_that_ends_without_pixels_is_not_read_beyond_its_end(kind: bytes) -> None:
    """OpenCV looks for the pixels in what follows, and makes room for all that a block there announces."""
    said, mb = taken_alone(png() + struct.pack(">I", 0x7FFFFFF0) + kind + bytes(100))
    assert said == "unreadable"
    assert mb < 100


@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_of_endless_scans_is_refused_at_once(progressive: bool) -> None:
    """A sequential picture, too, is read anew for each scan when the first of them has not all of its colours."""
    out = io.BytesIO()
    Image.new("RGB", (16, 16)).save(out, "JPEG", subsampling=0, progressive=progressive)
    data = bytearray(out.getvalue())
    frame = data.index(b"\xff\xc2" if progressive else b"\xff\xc0")
    struct.pack_into(">HH", data, frame + 5, 9000, 9000)
    scans = b"".join(b"\xff\xda\0\x08\x01" + bytes([colour, 0]) + b"\0\0\0" for colour in (1, 2, 3) * 3000)
    started_s = time.thread_time()
    assert reason_of(bytes(data[: data.index(b"\xff\xda")]) + scans + b"\xff\xd9") is Reason.UNREADABLE
    assert time.thread_time() - started_s < 0.2


def test_directories_of_a_tiff_that_share_their_bytes_are_given_up() -> None:
    """4096 directories of 4096 entries each, 4 bytes apart: a file of 70 kB took a quarter of a minute."""
    directory = struct.pack("<HHHIIHHIII", 2, 256, 3, 1, 8, 257, 3, 1, 8, 64)
    count, first = 4096, 64
    data = bytearray((b"II*\0" + struct.pack("<I", 8) + directory).ljust(first + 4 * 4096 + 12 * count + 16, b"\0"))
    for number in range(4096):
        struct.pack_into("<H", data, first + 4 * number, count)
        struct.pack_into("<I", data, first + 4 * number + 2 + 12 * count, first + 4 * number + 4)
    started_s = time.thread_time()
    with pytest.raises(formats.HeaderError):
        formats.read_header(bytes(data), formats.Format.TIFF)
    assert time.thread_time() - started_s < 2


@pytest.mark.parametrize("mark", [b"EXIF", b"EXIFII*\0\x08\0\0\0\xff\xff", b"Exif\0\0II*\0\x08\0\0\0\xff\xff"])
def test_file_of_nothing_but_marks_of_exif_is_searched_quickly(mark: bytes) -> None:
    """A megabyte of them took a minute."""
    data = mark * ((1 << 20) // len(mark))
    started_s = time.thread_time()
    assert taken_at(data) is None
    assert time.thread_time() - started_s < 1


def test_what_a_foreign_decoder_quotes_of_a_file_is_one_printable_line() -> None:
    pytest.importorskip("pillow_heif")
    data = mutants.specimens()["heif"].replace(b"clap", b"\x1bla\n")
    assert reason_of(data) is Reason.UNREADABLE
