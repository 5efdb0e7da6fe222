"""What a file is, how large it is and whether its end is there, by content."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

from pigeonholed.formats import (
    Format,
    HeaderError,
    announced_pixels,
    boxes_are_complete,
    describe,
    dimensions,
    end_is_missing,
    read_header,
    sniff,
)

SIZE = (37, 23)


def encoded(form: str, size: tuple[int, int] = SIZE, **options: object) -> bytes:
    noise = np.random.default_rng(7).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).save(out, form, **options)  # type: ignore[arg-type]
    return out.getvalue()


def missing(data: bytes) -> bool:
    return end_is_missing(data[:64], data[-64:], len(data))


def judged(data: bytes, form: Format) -> str:
    try:
        return "complete" if read_header(data, form).complete else "truncated"
    except HeaderError as error:
        return "truncated" if error.truncated else "damaged"


FILES = {
    "jpeg": encoded("JPEG"),
    "progressive": encoded("JPEG", progressive=True),
    "png": encoded("PNG"),
    "webp lossy": encoded("WEBP"),
    "webp lossless": encoded("WEBP", lossless=True),
    "webp extended": encoded("WEBP", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"),
    "bmp": encoded("BMP"),
    "tiff": encoded("TIFF"),
    "tiff lzw": encoded("TIFF", compression="tiff_lzw"),
    "big tiff": encoded("TIFF", big_tiff=True),
    "gif": encoded("GIF"),
}


@pytest.mark.parametrize("name", FILES)
def test_format_and_dimensions_come_from_the_content(name: str) -> None:
    data = FILES[name]
    assert sniff(data[:64]) == {"progressive": "jpeg", "big tiff": "tiff"}.get(name, name.split(maxsplit=1)[0])
    assert dimensions(data) == SIZE
    form = sniff(data)
    assert form is not None
    header = read_header(data, form)
    assert (header.width, header.height, header.complete) == (*SIZE, True)


@pytest.mark.parametrize("size", [(1, 1), (255, 256), (300, 5), (700, 1)])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_dimensions_of_one_or_more_than_one_byte_are_read(form: str, size: tuple[int, int]) -> None:
    assert dimensions(encoded(form, size)) == size


def test_wide_extended_webp_has_its_dimensions_read() -> None:
    head = b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + (69_999).to_bytes(3, "little") + (131_071).to_bytes(3, "little")
    assert dimensions(head) == (70_000, 131_072)


@pytest.mark.parametrize("name", ["png", "webp lossy", "bmp", "gif", "jpeg"])
def test_dimensions_need_only_the_beginning_of_a_file(name: str) -> None:
    assert dimensions(FILES[name][:700]) == SIZE


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"BMW is a car, and this is a letter about it", "text"),
        ("Grüße".encode() * 20, "text"),
        (b"%PDF-1.7\n%\xe2\xe3", "a PDF document"),
        (b"<?xml version='1.0'?>\n<svg xmlns='x'/>", "an SVG drawing"),
        (b"\xef\xbb\xbf<!DOCTYPE html><p>404", "a web page"),
        (b"PK\x03\x04\x14\0", "a ZIP archive or an office document"),
        (bytes(64), "nothing but zero bytes"),
        (b"RIFF\x10\0\0\0WAVEfmt ", "nothing that is known here"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isomiso2", "nothing that is known here"),
        (b"\x80\x81\x82\x83\x84\x85\x86", "nothing that is known here"),
    ],
)
def test_content_that_is_no_picture_is_named(data: bytes, said: str) -> None:
    assert sniff(data[:64]) is None
    assert dimensions(data) is None
    assert not missing(data)
    assert describe(data) == said


@pytest.mark.parametrize(
    ("brands", "form"),
    [
        (b"heic\0\0\0\0mif1heic", Format.HEIF),
        (b"mif1\0\0\0\0mif1avif", Format.AVIF),
        (b"avis\0\0\0\0msf1avif", Format.AVIF),
        (b"mif1\0\0\0\0mif1heic", Format.HEIF),
    ],
)
def test_heif_and_avif_are_told_apart_by_their_brands(brands: bytes, form: Format) -> None:
    data = struct.pack(">I", 8 + len(brands)) + b"ftyp" + brands
    assert sniff(data) is form
    assert dimensions(data) is None
    assert not missing(data)


def test_iso_boxes_are_complete_unless_the_last_one_is_cut() -> None:
    def complete(data: bytes) -> bool:
        return boxes_are_complete(len(data), lambda at, count: data[at : at + count])

    start, large = b"\0\0\0\x0cftypheic", b"\0\0\0\1mdat" + struct.pack(">Q", 24) + bytes(8)
    data = start + b"\0\0\0\x0cmeta1234" + b"\0\0\0\x10mdat12345678"
    assert complete(data)
    assert not any(complete(data[:end]) for end in range(24))  # nor where it ends behind its first box
    assert not any(complete(data[:end]) for end in range(32, len(data)))
    assert complete(start + b"\0\0\0\0mdat1234")
    assert complete(data + large)
    assert not complete((data + large)[:-1])
    assert complete(data + start * 30_000)  # what could cost time without end is not walked to its own


def test_pixels_that_a_heif_file_announces_are_the_most_of_its_images() -> None:
    def ispe(width: int, height: int) -> bytes:
        return b"\0\0\0\x14ispe" + struct.pack(">III", 0, width, height)

    assert announced_pixels(b"") == 0
    assert announced_pixels(ispe(3, 4) + ispe(500, 600) + ispe(1, 2)) == 300_000
    assert announced_pixels(ispe(3, 4) + ispe(500, 600)[:-1]) == 12


@pytest.mark.parametrize("name", FILES)
def test_whole_file_is_not_waited_for(name: str) -> None:
    assert not missing(FILES[name])


@pytest.mark.parametrize("name", [name for name in FILES if "tiff" not in name])
@pytest.mark.parametrize("percent", [10, 50, 99])
def test_file_without_its_end_is_waited_for(name: str, percent: int) -> None:
    assert missing(FILES[name][: len(FILES[name]) * percent // 100])


def test_tiff_whose_directory_has_not_arrived_is_waited_for() -> None:
    data = FILES["tiff lzw"]  # libtiff writes the directory behind the pixels
    assert missing(data[: len(data) // 2])


@pytest.mark.parametrize("name", ["jpeg", "png", "gif", "bmp", "webp lossy", "tiff"])
def test_zero_padding_and_short_junk_after_the_end_are_tolerated(name: str) -> None:
    assert not missing(FILES[name] + bytes(32))
    assert not missing(FILES[name] + b"junk" * 8)


def test_end_of_an_empty_file_is_not_missing() -> None:
    assert not end_is_missing(b"", b"", 0)


@pytest.mark.parametrize("name", FILES)
def test_header_of_a_file_cut_anywhere_is_never_complete(name: str) -> None:
    data = FILES[name]
    form = sniff(data)
    assert form is not None
    for length in [*range(18, min(700, len(data))), *range(700, len(data), 31), *range(len(data) - 40, len(data))]:
        assert judged(data[:length], form) == "truncated", length


def test_end_marker_of_an_embedded_thumbnail_does_not_complete_a_cut_jpeg() -> None:
    exif = Image.Exif()
    exif[0x010E] = "x\xff\xd9y".encode("latin-1")
    data = encoded("JPEG", exif=exif)
    assert data.index(b"\xff\xd9") < 200
    assert read_header(data, Format.JPEG).complete
    assert not read_header(data[:-2], Format.JPEG).complete


def test_jpeg_with_rubbish_and_fill_bytes_between_segments_is_read() -> None:
    data = FILES["jpeg"]
    cut = 20  # behind the JFIF segment
    assert data[cut : cut + 2] == b"\xff\xdb"
    odd = data[:cut] + b"rubbish" + b"\xff" * 9 + data[cut:]
    assert dimensions(odd) == SIZE
    assert read_header(odd, Format.JPEG).complete


def test_file_of_nothing_but_tiny_blocks_is_given_up() -> None:
    with pytest.raises(HeaderError, match="too many segments"):
        read_header(b"\xff\xd8\xff" + b"\xff" * 1_000_000, Format.JPEG)
    gif = b"GIF89a\1\0\1\0\0\0\0" + b"\x21\xfe" + b"\1x" * 4_100_000
    with pytest.raises(HeaderError, match="too many blocks"):
        read_header(gif, Format.GIF)


def test_orientation_that_is_nonsense_means_upright() -> None:
    for value in (0, 9, 60_000):
        exif = Image.Exif()
        exif[0x0112] = value
        for form in ("JPEG", "PNG", "WEBP"):
            data = encoded(form, exif=exif)
            known = sniff(data)
            assert known is not None
            assert read_header(data, known).orientation == 1


def test_png_whose_blocks_do_not_fit_but_whose_end_is_there_is_damaged_not_cut() -> None:
    data = bytearray(FILES["png"])
    data[33:37] = b"\x7f\xff\xff\xff"  # the length of the second block
    with pytest.raises(HeaderError) as error:
        read_header(bytes(data), Format.PNG)
    assert not error.value.truncated


def test_wrong_size_field_of_a_bitmap_is_not_believed() -> None:
    data = bytearray(FILES["bmp"])
    data[2:6] = b"\xff\xff\xff\x0f"
    assert not missing(bytes(data))
    assert read_header(bytes(data), Format.BMP).complete


def test_directory_chain_of_a_tiff_that_bites_its_tail_ends() -> None:
    data = bytearray(FILES["tiff"])
    (first,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, first)
    struct.pack_into("<I", data, first + 2 + 12 * count, first)
    assert read_header(bytes(data), Format.TIFF).complete
