"""When a picture was taken."""

from __future__ import annotations

import io
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pigeonholed.exif import taken_at

MOMENT = datetime(2021, 7, 9, 18, 4, 59)  # noqa: DTZ001 (a camera knows no zone)


def photo(form: str, when: str) -> bytes:
    image = Image.new("RGB", (8, 8), "red")
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = when
    stream = io.BytesIO()
    if form == "HEIF":
        pytest.importorskip("pillow_heif").from_pillow(image).save(stream, exif=exif.tobytes())
    else:
        image.save(stream, form, exif=exif.tobytes())
    return stream.getvalue()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "AVIF", "HEIF"])
def test_original_time_is_read_from_each_format_that_carries_it(form: str) -> None:
    assert taken_at(photo(form, "2021:07:09 18:04:59")) == MOMENT


@pytest.mark.parametrize("when", ["0000:00:00 00:00:00", "yesterday", "2021:13:40 99:00:00", ""])
def test_a_time_that_is_none_counts_as_absent(when: str) -> None:
    assert taken_at(photo("JPEG", when)) is None


def test_a_picture_without_exif_has_no_time() -> None:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "PNG")
    assert taken_at(stream.getvalue()) is None


@given(st.binary(max_size=80), st.integers(0, 200), st.integers(0, 255))
def test_a_damaged_block_never_raises(junk: bytes, at: int, value: int) -> None:
    data = bytearray(photo("JPEG", "2021:07:09 18:04:59"))
    data[at % len(data)] = value
    taken_at(bytes(data))
    taken_at(b"Exif\0\0II*\0" + junk)
