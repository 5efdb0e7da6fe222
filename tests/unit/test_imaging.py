"""One way to see a picture: every kind of file, every way to be broken."""

from __future__ import annotations

import csv
import io
import json
import struct
import subprocess
import sys
import tarfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from pigeonholed.images import Reason
from pigeonholed.imaging import Fit, ImagingError, Picture, PixelSpec, configure, decode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WIDTH, HEIGHT = 48, 32
AS_IT_IS = PixelSpec(HEIGHT, WIDTH)
ODD = Path(__file__).parents[3] / "shared" / "data" / "odd-images.tar"


@pytest.fixture(autouse=True)
def _quiet_opencv() -> Iterator[None]:
    level, threads = cv2.utils.logging.getLogLevel(), cv2.getNumThreads()
    configure()
    yield
    cv2.utils.logging.setLogLevel(level)
    cv2.setNumThreads(threads)


def scene() -> Image.Image:
    """Four coloured corners and a gradient: no two orientations of it look alike."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[:16, :24], pixels[:16, 24:], pixels[16:, :24] = (230, 20, 20), (20, 230, 20), (20, 20, 230)
    pixels[16:, 24:] = np.linspace(40, 220, 24).astype(np.uint8)[None, :, None]
    return Image.fromarray(pixels)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)  # type: ignore[arg-type]
    return out.getvalue()


def pixels_of(data: bytes, spec: PixelSpec = AS_IT_IS) -> np.ndarray:
    return decode(data, spec).pixels.astype(int)


def reason_of(data: bytes, spec: PixelSpec = AS_IT_IS, **options: object) -> Reason | Picture:
    try:
        return decode(data, spec, **options)  # type: ignore[arg-type]
    except ImagingError as error:
        return error.reason


NOISE = cv2.GaussianBlur(np.random.default_rng(3).integers(0, 256, (90, 120, 3), dtype=np.uint8), (0, 0), 2)
SMOOTH = Image.fromarray(NOISE)
FILES = {
    "jpeg": encoded(SMOOTH, "JPEG"),
    "progressive": encoded(SMOOTH, "JPEG", progressive=True),
    "png": encoded(SMOOTH, "PNG"),
    "webp": encoded(SMOOTH, "WEBP"),
    "webp lossless": encoded(SMOOTH, "WEBP", lossless=True),
    "bmp": encoded(SMOOTH, "BMP"),
    "tiff": encoded(SMOOTH, "TIFF"),
    "tiff lzw": encoded(SMOOTH, "TIFF", compression="tiff_lzw"),
    "gif": encoded(SMOOTH, "GIF"),
    "gif animated": encoded(SMOOTH, "GIF", save_all=True, append_images=[ImageOps.flip(SMOOTH)]),
    "tiff pages": encoded(SMOOTH, "TIFF", save_all=True, append_images=[ImageOps.flip(SMOOTH)]),
}


# ---- what a picture looks like


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
def test_every_orientation_gives_what_the_upright_picture_gives(form: str, orientation: int, fit: Fit) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if form == "WEBP" else {"quality": 100, "subsampling": 0} if form == "JPEG" else {}
    data = encoded(scene(), form, exif=exif, **options)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    spec = PixelSpec(20, 17, fit)
    picture = decode(data, spec)
    assert (picture.width, picture.height) == upright.size
    expected = pixels_of(encoded(upright.convert("RGB"), "PNG"), spec)
    assert np.abs(picture.pixels - expected).max() <= (12 if form == "JPEG" else 1)


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF"])
def test_lossless_colours_arrive_unchanged_as_rgb(form: str) -> None:
    picture = decode(encoded(scene(), form), AS_IT_IS)
    assert np.array_equal(picture.pixels, np.asarray(scene()))
    assert picture.pixels.dtype == np.uint8
    assert picture.pixels.flags.c_contiguous


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "JPEG", "GIF"])
def test_grey_becomes_three_equal_channels(form: str) -> None:
    pixels = pixels_of(encoded(scene().convert("L"), form))
    assert np.ptp(pixels, axis=2).max() == 0
    assert np.abs(pixels[..., 0] - np.asarray(scene().convert("L"))).max() <= (8 if form == "JPEG" else 0)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_keep_their_upper_eight(form: str) -> None:
    deep = (np.arange(WIDTH * HEIGHT).reshape(HEIGHT, WIDTH) * 42).astype(np.uint16)
    assert np.array_equal(pixels_of(encoded(Image.fromarray(deep), form))[..., 0], deep >> 8)


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF"])
def test_transparency_shows_white(form: str) -> None:
    see_through = scene().copy()
    alpha = np.full((HEIGHT, WIDTH), 255, np.uint8)
    alpha[:16, :24], alpha[:16, 24:] = 0, 128
    see_through.putalpha(Image.fromarray(alpha))
    pixels = pixels_of(encoded(see_through, form, **({"lossless": True} if form == "WEBP" else {})))
    assert (pixels[4, 4] == 255).all()
    assert np.abs(pixels[4, 40] - (20 * 128 / 255 + 127, 230 * 128 / 255 + 127, 20 * 128 / 255 + 127)).max() <= 1
    assert (pixels[28, 4] == (20, 20, 230)).all()


def test_sixteen_bits_with_alpha_keep_their_upper_eight_on_white() -> None:
    deep = np.zeros((HEIGHT, WIDTH, 4), np.uint16)
    deep[...] = (0x20FF, 0x40FF, 0x60FF, 0xFFFF)
    deep[:8, :, 3] = 0
    pixels = pixels_of(cv2.imencode(".png", deep)[1].tobytes())
    assert (pixels[4] == 255).all()
    assert (pixels[20] == (0x60, 0x40, 0x20)).all()


def test_hidden_colours_do_not_tint_what_is_shrunk() -> None:
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[:, ::2] = (0, 0, 0, 255)
    pixels[:, 1::2] = (255, 0, 0, 0)  # red that nobody sees
    small = pixels_of(encoded(Image.fromarray(pixels), "PNG"), PixelSpec(8, 8))
    assert np.ptp(small, axis=2).max() <= 1
    assert abs(small.mean() - 127.5) < 2


@pytest.mark.parametrize("form", ["PNG", "GIF"])
def test_palette_with_a_transparent_entry_shows_white_there(form: str) -> None:
    palette = scene().quantize(8)
    pixels = pixels_of(encoded(palette, form, transparency=palette.getpixel((2, 2))))
    assert (pixels[2, 2] == 255).all()
    assert np.abs(pixels[28, 2] - (20, 20, 230)).max() <= 1


@pytest.mark.parametrize(("mode", "key"), [("L", 20), ("RGB", (230, 20, 20))])
def test_colour_declared_transparent_shows_white(mode: str, key: object) -> None:
    image = Image.new(mode, (WIDTH, HEIGHT), key)  # type: ignore[arg-type]
    image.paste(Image.new(mode, (10, 10)))
    pixels = pixels_of(encoded(image, "PNG", transparency=key))
    assert (pixels[20, 20] == 255).all()
    assert (pixels[5, 5] == 0).all()


@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_cmyk_becomes_rgb(form: str) -> None:
    assert np.abs(pixels_of(encoded(scene().convert("CMYK"), form)) - np.asarray(scene())).mean() < 6


@pytest.mark.parametrize("form", ["GIF", "TIFF", "WEBP", "PNG"])
def test_first_of_several_pictures_counts(form: str) -> None:
    options = {"lossless": True} if form == "WEBP" else {}
    several = encoded(scene(), form, save_all=True, append_images=[ImageOps.mirror(scene())], **options)
    assert np.array_equal(pixels_of(several), pixels_of(encoded(scene(), form, **options)))


# ---- resizing


def test_shrinking_averages_areas() -> None:
    checks = np.indices((64, 64)).sum(0) % 2 * 255
    small = pixels_of(encoded(Image.fromarray(checks.astype(np.uint8)), "PNG"), PixelSpec(8, 8))
    assert np.abs(small - 127.5).max() <= 1


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (100, 1), (1, 100)])
@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
def test_tiny_and_thin_pictures_fill_the_wanted_size(size: tuple[int, int], fit: Fit) -> None:
    picture = decode(encoded(Image.new("RGB", size, (9, 99, 199)), "PNG"), PixelSpec(16, 24, fit))
    assert picture.pixels.shape == (16, 24, 3)
    assert (picture.width, picture.height) == size
    shown = picture.pixels.reshape(-1, 3)
    assert (shown[shown.any(axis=1)] == (9, 99, 199)).all()
    assert fit == "pad" or shown.all()


def test_crop_keeps_the_centre_and_pad_keeps_everything() -> None:
    wide = Image.new("RGB", (90, 30), (255, 0, 0))
    wide.paste((0, 255, 0), (30, 0, 60, 30))
    data = encoded(wide, "PNG")
    assert (pixels_of(data, PixelSpec(30, 30, "crop")) == (0, 255, 0)).all()
    padded = pixels_of(data, PixelSpec(30, 30, "pad"))
    assert (padded[:10] == 0).all()
    assert (padded[20:] == 0).all()
    assert (padded[15, 15] == (0, 255, 0)).all()
    assert (padded[15, 2] == (255, 0, 0)).all()


@pytest.mark.parametrize(("side", "flag"), [(100, 2), (50, 4), (25, 8), (101, 1)])
def test_large_jpeg_is_decoded_reduced_and_looks_the_same(
    side: int, flag: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = Image.fromarray(cv2.resize(NOISE, (500, 400), interpolation=cv2.INTER_CUBIC))
    data = encoded(large, "JPEG", quality=95)
    full = cv2.resize(cv2.imdecode(np.frombuffer(data, np.uint8), 1), (side, side), interpolation=cv2.INTER_AREA)
    used, genuine = [], cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", lambda buffer, flags: used.append(flags) or genuine(buffer, flags))
    pixels = pixels_of(data, PixelSpec(side, side))
    reduced = {1: 0, 2: 16, 4: 32, 8: 64}[flag]
    assert [flags & 112 for flags in used] == [reduced]
    assert np.abs(pixels - full[..., ::-1]).mean() < 1.5


def test_picture_size_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="no picture size"):
        PixelSpec(0, 4)


# ---- what is refused, and as what


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("percent", [1, 10, 30, 50, 70, 90, 99])
def test_file_that_is_cut_is_truncated(name: str, percent: int) -> None:
    assert reason_of(FILES[name][: len(FILES[name]) * percent // 100]) is Reason.TRUNCATED


@pytest.mark.parametrize("name", ["jpeg", "progressive"])
@pytest.mark.parametrize("lost", [1, 2, 3])
def test_jpeg_without_its_end_marker_is_truncated(name: str, lost: int) -> None:
    assert reason_of(FILES[name][:-lost]) is Reason.TRUNCATED


# Not among them: zeros are pixels in an uncompressed file and valid code in WebP, so nothing in those can tell.
@pytest.mark.parametrize("name", ["jpeg", "progressive", "png", "gif", "gif animated", "tiff lzw"])
def test_cut_file_padded_with_zeros_to_its_length_gives_no_picture(name: str) -> None:
    cut = FILES[name][: len(FILES[name]) // 2]
    assert isinstance(reason_of(cut + bytes(len(cut))), Reason)


@pytest.mark.parametrize("name", FILES)
def test_data_after_the_end_does_no_harm(name: str) -> None:
    assert np.array_equal(pixels_of(FILES[name] + b"more data" * 50), pixels_of(FILES[name]))


def test_cut_jpeg_is_decoded_as_far_as_it_goes_where_allowed() -> None:
    spec = PixelSpec(90, 120)
    whole, half = decode(FILES["jpeg"], spec).pixels, FILES["jpeg"][: len(FILES["jpeg"]) * 7 // 10]
    picture = decode(half, spec, allow_truncated=True)
    assert (picture.width, picture.height) == (120, 90)
    assert np.abs(picture.pixels[:16].astype(int) - whole[:16]).max() <= 2
    assert not np.array_equal(picture.pixels, whole)


@pytest.mark.parametrize("name", FILES)
def test_cut_file_that_cannot_be_decoded_is_truncated_even_where_allowed(name: str) -> None:
    assert reason_of(FILES[name][:30], allow_truncated=True) is Reason.TRUNCATED


def test_missing_part_never_shows_the_picture_before() -> None:
    spec = PixelSpec(96, 96)
    cut = encoded(Image.new("RGB", (96, 96), (0, 0, 255)), "JPEG")[:-60]
    alone = decode(cut, spec, allow_truncated=True).pixels
    for _ in range(20):
        decode(encoded(Image.new("RGB", (96, 96), (255, 0, 0)), "JPEG"), spec)
        assert np.array_equal(decode(cut, spec, allow_truncated=True).pixels, alone)


@pytest.mark.parametrize(
    ("data", "reason", "said"),
    [
        (b"", Reason.EMPTY, "no bytes"),
        (b"hello, I am no picture", Reason.UNSUPPORTED, "text"),
        (b"%PDF-1.4 ...", Reason.UNSUPPORTED, "PDF"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", Reason.UNSUPPORTED, "SVG"),
        (b"PK\x03\x04" + bytes(40), Reason.UNSUPPORTED, "ZIP"),
        (bytes(4096), Reason.UNSUPPORTED, "zero bytes"),
        (b"\xff\xd8\xff\xd9", Reason.UNREADABLE, "no picture data"),
        (b"\x89PNG\r\n", Reason.TRUNCATED, "first bytes"),
        (b"RIFF\x10\0\0\0WE", Reason.TRUNCATED, "first bytes"),
        (b"BM\x10\0", Reason.TRUNCATED, "first bytes"),
        (b"BMW", Reason.TRUNCATED, "first bytes"),
    ],
)
def test_refusal_says_what_is_wrong(data: bytes, reason: Reason, said: str) -> None:
    with pytest.raises(ImagingError, match=said) as error:
        decode(data, AS_IT_IS)
    assert error.value.reason is reason


def test_heif_without_the_extra_is_unsupported_and_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImagingError, match=r"HEIF needs the extra: pip install pigeonholed\[heif\]") as error:
        decode(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", AS_IT_IS)
    assert error.value.reason is Reason.UNSUPPORTED


def heif_encoded(image: Image.Image, **options: object) -> bytes:
    out = io.BytesIO()
    pytest.importorskip("pillow_heif").from_pillow(image).save(out, quality=90, **options)
    return out.getvalue()


def avif_encoded(image: Image.Image, **options: object) -> bytes:
    return encoded(image, "AVIF", quality=90, **options)


EXTRA = pytest.mark.parametrize("make", [heif_encoded, avif_encoded], ids=["heif", "avif"])


def announcing(data: bytes, width: int, height: int) -> bytes:
    """The same file with another size in its header."""
    at = data.index(b"ispe") + 8
    return data[:at] + struct.pack(">II", width, height) + data[at + 8 :]


@EXTRA
def test_heif_and_avif_are_seen_as_the_same_picture_in_another_format_is(make: Callable[..., bytes]) -> None:
    large = scene().resize((WIDTH * 4, HEIGHT * 4))
    for image in (large, large.convert("L")):
        for spec in (AS_IT_IS, PixelSpec(9, 9, "crop"), PixelSpec(30, 80, "pad")):
            seen, wanted = decode(make(image), spec), decode(encoded(image, "PNG"), spec)
            assert (seen.width, seen.height) == (wanted.width, wanted.height)
            assert np.abs(seen.pixels.astype(int) - wanted.pixels).mean() < 4


@EXTRA
def test_transparency_of_heif_and_avif_is_white(make: Callable[..., bytes]) -> None:
    image = Image.new("RGBA", (WIDTH, HEIGHT), (200, 0, 0, 0))
    image.paste((200, 0, 0, 255), (0, 0, WIDTH // 2, HEIGHT))
    pixels = pixels_of(make(image))
    assert np.abs(pixels[16, 4] - (200, 0, 0)).max() < 12
    assert np.abs(pixels[16, -4] - 255).max() < 12


@EXTRA
@pytest.mark.parametrize("orientation", range(1, 9))
def test_heif_and_avif_come_upright(make: Callable[..., bytes], orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = decode(make(scene(), exif=exif.tobytes()), AS_IT_IS)
    upright = decode(encoded(scene(), "PNG", exif=exif), AS_IT_IS)
    assert (turned.width, turned.height) == (upright.width, upright.height)
    assert np.abs(turned.pixels.astype(int) - upright.pixels).mean() < 6


def test_deep_grey_heif_keeps_its_upper_eight_bits() -> None:
    """Pillow would cut what is over 255."""
    pixels = pixels_of(heif_encoded(Image.fromarray(np.full((HEIGHT, WIDTH), 30_000, np.uint16))))
    assert np.abs(pixels - 30_000 // 256).max() <= 2


def test_tiles_of_heif_are_put_together() -> None:
    image = scene().resize((200, 150))
    tiled, whole = pixels_of(heif_encoded(image, tile_size=64)), pixels_of(encoded(image, "PNG"))
    assert np.abs(tiled - whole).mean() < 4


@EXTRA
def test_heif_and_avif_that_are_too_large_or_cut_or_damaged_are_refused(make: Callable[..., bytes]) -> None:
    data = make(SMOOTH)
    assert reason_of(data, max_pixels=90 * 120 - 1) is Reason.TOO_LARGE
    for size in (1 << 20, 1 << 31 - 1):
        assert reason_of(announcing(data, size, size)) is Reason.TOO_LARGE
    assert reason_of(announcing(data, 0, 0)) is Reason.UNREADABLE
    content = data.index(b"mdat") - 4
    for end in (len(data) - 1, len(data) // 2, content + 9, content, int.from_bytes(data[:4], "big")):
        assert reason_of(data[:end]) is Reason.TRUNCATED
        assert reason_of(data[:end], allow_truncated=True) in {Reason.TRUNCATED, Reason.UNREADABLE} or end > content
    damaged = data[: content + 8] + b"\xa5" * (len(data) - content - 8)
    assert reason_of(damaged) is Reason.UNREADABLE


def test_avif_without_a_pillow_that_knows_it_is_unsupported(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pillow_heif")
    monkeypatch.setattr("PIL.AvifImagePlugin.SUPPORTED", False)
    with pytest.raises(ImagingError, match="built without AVIF") as error:
        decode(b"\0\0\0\x18ftypavif\0\0\0\0mif1avif\0\0\0\x0cmeta1234", AS_IT_IS)
    assert error.value.reason is Reason.UNSUPPORTED


def test_heif_beyond_memory_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    heif = pytest.importorskip("pillow_heif")
    data = heif_encoded(SMOOTH)

    def fail(_file: object) -> object:
        raise MemoryError

    monkeypatch.setattr(heif, "open_heif", fail)
    assert reason_of(data) is Reason.TOO_LARGE


@pytest.mark.parametrize("name", ["png", "webp lossless", "tiff lzw", "gif"])
def test_damaged_content_with_its_end_in_place_is_unreadable(name: str) -> None:
    data = bytearray(FILES[name])
    middle = len(data) // 2
    data[middle : middle + 200] = b"\xa5" * 200
    assert reason_of(bytes(data)) is not Reason.TRUNCATED
    if name == "png":  # the only one of them with a checksum
        assert reason_of(bytes(data)) is Reason.UNREADABLE


# ---- bombs


def bombs() -> dict[str, bytes]:
    """Small files that announce very many pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    jpeg = bytearray(FILES["jpeg"])
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 65_500, 65_500)
    return {
        "png": b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"x") + chunk(b"IEND", b""),
        "jpeg": bytes(jpeg),
        "gif": b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + FILES["gif"][10:],
        "bmp": FILES["bmp"][:18] + struct.pack("<ii", 1 << 30, -(1 << 30)) + FILES["bmp"][26:],
        "webp": b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff\xff\x3f" * 2,
    }


@pytest.mark.parametrize("name", ["png", "jpeg", "gif", "bmp", "webp"])
def test_too_many_pixels_are_refused_before_any_is_decoded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    assert reason_of(bombs()[name]) is Reason.TOO_LARGE


@pytest.mark.parametrize("name", ["jpeg", "gif", "bmp", "webp"])
def test_more_pixels_than_the_decoder_takes_are_refused_whatever_the_limit(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    assert reason_of(bombs()[name], max_pixels=10**20) is Reason.TOO_LARGE


def test_limit_on_pixels_is_exact() -> None:
    assert reason_of(FILES["png"], max_pixels=90 * 120 - 1) is Reason.TOO_LARGE
    assert isinstance(reason_of(FILES["png"], max_pixels=90 * 120), Picture)


def test_progressive_jpeg_of_endless_scans_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    data = bytearray(FILES["progressive"])
    frame = data.index(b"\xff\xc2")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 9_000, 9_000)
    scan = data.rindex(b"\xff\xda")
    assert reason_of(bytes(data[:scan] + data[scan:-2] * 40 + b"\xff\xd9")) is Reason.UNREADABLE


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), Reason.TOO_LARGE),
        (cv2.error("OutOfMemoryError: Failed to allocate"), Reason.TOO_LARGE),
        (cv2.error("anything else"), Reason.UNREADABLE),
    ],
)
def test_failure_of_the_decoder_becomes_a_reason(
    error: Exception, reason: Reason, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(cv2, "imdecode", fail)
    assert reason_of(FILES["png"]) is reason


# ---- any bytes whatever


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(sorted(FILES)),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=12),
    in_header=st.booleans(),
    allow=st.booleans(),
)
def test_mutated_files_give_a_picture_or_a_reason(
    name: str, changes: list[tuple[float, int]], in_header: bool, allow: bool
) -> None:
    data = bytearray(FILES[name])
    span = 200 if in_header else len(data) - 1
    for where, value in changes:
        data[int(where * span)] = value
    got = reason_of(bytes(data), max_pixels=1_000_000, allow_truncated=allow)
    assert isinstance(got, Reason) or got.pixels.shape == (HEIGHT, WIDTH, 3)


def test_threads_see_what_one_thread_sees() -> None:
    work = [*FILES.values()] * 8
    alone = [decode(data, AS_IT_IS).pixels for data in work]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda data: decode(data, AS_IT_IS).pixels, work))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


CHILD = """
import json, sys, tarfile, time
from pigeonholed.imaging import ImagingError, PixelSpec, configure, decode
configure()
seen = []
with tarfile.open(sys.argv[1]) as tar:
    for member in tar:
        if not member.isfile() or member.name.endswith("MANIFEST.tsv"):
            continue
        data = tar.extractfile(member).read()
        start = time.process_time()  # of the processor: a busy machine makes no picture slow
        try:
            picture = decode(data, PixelSpec(32, 32))
            result = [picture.width, picture.height]
        except ImagingError as error:
            result = error.reason.value
        seen.append([member.name.removeprefix("odd/"), result, time.process_time() - start])
# Not ru_maxrss: that still remembers the size of the process that this one was forked from.
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM:"))
print(json.dumps({"seen": seen, "kib": int(peak.split()[1])}))
"""


@pytest.mark.slow
@pytest.mark.skipif(not ODD.exists(), reason=f"the corpus of odd files is not at {ODD.name} in ../shared/data")
def test_odd_files_of_public_test_suites_are_judged_as_others_judge_them() -> None:
    # In a child, so that a crash or a hang is a failure of this test and the memory measured is its own.
    done = subprocess.run([sys.executable, "-c", CHILD, str(ODD)], capture_output=True, timeout=200, check=True)
    report = json.loads(done.stdout)
    with tarfile.open(ODD) as tar:
        manifest = tar.extractfile("odd/MANIFEST.tsv")
        assert manifest is not None
        lines = manifest.read().decode().splitlines()
    judged = {line[0]: line for line in csv.reader(lines[1:], delimiter="\t", quoting=csv.QUOTE_NONE)}
    assert {name for name, _, _ in report["seen"]} == set(judged)
    assert report["kib"] < 400 * 1024
    assert max(seconds for _, _, seconds in report["seen"]) < 1.0
    for name, result, _ in report["seen"]:
        _, _, _, magic, pillow, opencv, _, both = judged[name]
        if both == "ok/ok" and magic in {"jpg", "png", "webp", "bmp", "tif", "gif"}:
            assert isinstance(result, list), (name, result)
            assert "x".join(map(str, sorted(result))) == "x".join(sorted(opencv.split("x"), key=int)), name
        elif isinstance(result, list) and magic not in {
            "avif",
            "avis",
            "heic",
            "mif1",
            "mif3",
        }:  # the extra decodes more than OpenCV
            # OpenCV also refuses an animation for what is wrong with the frames that we leave out.
            assert opencv != "None" or both == "made" or "apng" in name, (name, result)
        if "!huge" in pillow and magic in {"jpg", "png", "bmp"}:
            assert result == Reason.TOO_LARGE, name
