"""Broken pictures without end: small valid ones of every format, changed in a way that one number decides."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable
from functools import cache

import cv2
import numpy as np
from PIL import Image, ImageOps

INTERESTING = (0, 1, 2, 7, 8, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
FOREIGN = (
    b"", b"\0" * 64, b"%PDF-1.7\n", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"<!doctype html><script>",
    b"PK\x03\x04", b"\x7fELF", b"BM", b"RIFF", b"\xff\xd8\xff", b"GIF89a", b"II*\0", b"MM\0+\0\x08\0\0",
    b"\0\0\0\x18ftypavif", b"Exif\0\0II*\0",
)  # fmt: skip


def _saved(image: Image.Image, form: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)  # type: ignore[arg-type]
    return out.getvalue()


def _encoded(suffix: str, pixels: np.ndarray, *flags: int) -> bytes:
    done, data = cv2.imencode(suffix, pixels, flags)
    assert done
    return data.tobytes()


@cache
def specimens() -> dict[str, bytes]:
    """A valid picture of each kind, a few hundred bytes each."""
    noise = np.random.default_rng(5).integers(0, 256, (20, 28, 3), np.uint8)
    colour = Image.fromarray(cv2.GaussianBlur(noise, (0, 0), 2))
    alpha = colour.copy()
    alpha.putalpha(Image.linear_gradient("L").resize(colour.size))
    grey, palette, second = colour.convert("L"), colour.convert("P"), ImageOps.flip(colour)
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8769)[0x9003] = "2021:07:09 18:04:59"
    frames: dict[str, object] = {"save_all": True, "append_images": [second, colour]}
    deep = np.asarray(colour).astype(np.uint16) * 257
    return {
        "jpeg": _saved(colour, "JPEG", exif=exif),
        "jpeg progressive": _saved(colour, "JPEG", progressive=True),
        "jpeg grey": _saved(grey, "JPEG"),
        "jpeg cmyk": _saved(colour.convert("CMYK"), "JPEG"),
        "jpeg restarts": _saved(colour, "JPEG", restart_marker_blocks=1),
        "png": _saved(colour, "PNG", exif=exif),
        "png alpha": _saved(alpha, "PNG"),
        "png palette": _saved(palette, "PNG", transparency=3),
        "png grey key": _saved(grey, "PNG", transparency=9),
        "png deep": _encoded(".png", deep),
        "png one bit": _saved(colour.convert("1"), "PNG"),
        "png animated": _saved(colour, "PNG", duration=20, **frames),
        "webp": _saved(colour, "WEBP"),
        "webp lossless": _saved(alpha, "WEBP", lossless=True),
        "webp extended": _saved(alpha, "WEBP", exif=exif),
        "webp animated": _saved(colour, "WEBP", duration=20, **frames),
        "bmp": _saved(colour, "BMP"),
        "bmp palette": _saved(palette, "BMP"),
        "bmp alpha": _encoded(".bmp", np.asarray(alpha)),
        "tiff": _saved(colour, "TIFF", exif=exif),
        "tiff lzw": _saved(colour, "TIFF", compression="tiff_lzw"),
        "tiff deflate": _saved(alpha, "TIFF", compression="tiff_adobe_deflate"),
        "tiff jpeg": _saved(colour, "TIFF", compression="jpeg"),
        "tiff packbits": _saved(grey, "TIFF", compression="packbits"),
        "tiff fax": _saved(colour.convert("1"), "TIFF", compression="group4"),
        "tiff deep": _encoded(".tiff", deep),
        "tiff float": _encoded(".tiff", np.asarray(colour).astype(np.float32)),
        "tiff pages": _saved(colour, "TIFF", **frames),
        "tiff big": _saved(colour, "TIFF", big_tiff=True),
        "gif": _saved(palette, "GIF"),
        "gif animated": _saved(colour, "GIF", duration=20, transparency=2, **frames),
        "avif": _saved(colour, "AVIF"),
    } | _heif(colour)


def _heif(colour: Image.Image) -> dict[str, bytes]:
    """One more where the extra is installed."""
    try:
        import pillow_heif
    except ImportError:
        return {}
    out = io.BytesIO()
    pillow_heif.from_pillow(colour).save(out)
    return {"heif": out.getvalue()}


def mutant(seed: int) -> bytes:
    """The broken picture of that number: always the same bytes."""
    rng = random.Random(seed)
    names = list(specimens())
    data = specimens()[rng.choice(names)]
    if rng.random() < 0.35:
        data = rng.choice(_STRUCTURED)(data, rng)
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3, 8))):
        data = rng.choice(_BLIND)(data, rng)
    return data


# ---- changes that know nothing of formats


def _spot(data: bytes, rng: random.Random) -> int:
    """A place in the data, half of the time near its beginning, where the headers are."""
    return rng.randrange(min(len(data), 64) if rng.random() < 0.5 else len(data)) if data else 0


def _flip(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5, 20)) if data else 0):
        changed[_spot(data, rng)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _number(data: bytes, rng: random.Random) -> bytes:
    width, at = rng.choice((1, 2, 4, 8)), _spot(data, rng)
    value = rng.choice((*INTERESTING, rng.getrandbits(64), len(data), len(data) - at)) % (1 << (8 * width))
    return data[:at] + value.to_bytes(width, rng.choice(("little", "big"))) + data[at + width :]


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: _spot(data, rng)]


def _removed(data: bytes, rng: random.Random) -> bytes:
    at = _spot(data, rng)
    return data[:at] + data[at + rng.choice((1, 2, 4, 16, 100)) :]


def _repeated(data: bytes, rng: random.Random) -> bytes:
    at, length = _spot(data, rng), rng.choice((1, 4, 12, 60, 300))
    return data[:at] + data[at : at + length] * rng.choice((2, 3, 40)) + data[at + length :]


def _inserted(data: bytes, rng: random.Random) -> bytes:
    at = _spot(data, rng)
    return data[:at] + rng.choice((*FOREIGN, rng.randbytes(rng.randrange(1, 40)))) + data[at:]


def _spliced(data: bytes, rng: random.Random) -> bytes:
    other = specimens()[rng.choice(list(specimens()))]
    return data[: _spot(data, rng)] + other[_spot(other, rng) :]


def _polyglot(data: bytes, rng: random.Random) -> bytes:
    other = rng.choice((*FOREIGN, *specimens().values()))
    return data + other if rng.random() < 0.5 else other + data


def _zeroed(data: bytes, rng: random.Random) -> bytes:
    at = _spot(data, rng)
    return data[:at] + bytes(len(data) - at)


# ---- changes that keep the container whole, so that decoders believe it


def _structured(data: bytes, rng: random.Random) -> bytes:
    if data.startswith(b"\x89PNG"):
        return _png(data, rng)
    if data.startswith(b"RIFF"):
        return _riff(data, rng)
    if data.startswith(b"\xff\xd8"):
        return _jpeg(data, rng)
    return _number(data, rng)


def _png(data: bytes, rng: random.Random) -> bytes:
    """Chunks changed, doubled, dropped or moved, with checksums that are right."""
    chunks, at = [], 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    chunks = _shuffled(chunks, rng)
    if rng.random() < 0.2:
        extra = rng.choice((b"tRNS", b"eXIf", b"acTL", b"fcTL", b"fdAT", b"PLTE", b"iCCP", b"zTXt", b"IDAT", b"gAMA"))
        chunks.insert(rng.randrange(len(chunks) + 1), (extra, rng.randbytes(rng.choice((0, 2, 8, 26, 300)))))
    out = bytearray(data[:8])
    for kind, body in chunks:
        out += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return bytes(out)


def _riff(data: bytes, rng: random.Random) -> bytes:
    """The same for WebP, with lengths that are right."""
    chunks, at = [], 12
    while at + 8 <= len(data):
        (length,) = struct.unpack_from("<I", data, at + 4)
        chunks.append((data[at : at + 4], data[at + 8 : at + 8 + length]))
        at += 8 + length + (length & 1)
    body = b"".join(
        kind + struct.pack("<I", len(part)) + part + b"\0" * (len(part) & 1) for kind, part in _shuffled(chunks, rng)
    )
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def _jpeg(data: bytes, rng: random.Random) -> bytes:
    """The same for the segments of a JPEG; the scans stay one piece at the end."""
    segments, at = [], 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        (length,) = struct.unpack_from(">H", data, at + 2)
        segments.append((data[at : at + 2], data[at + 4 : at + 2 + length]))
        at += 2 + length
    head = b"".join(mark + struct.pack(">H", len(body) + 2) + body for mark, body in _shuffled(segments, rng))
    scans = data[at:] if rng.random() < 0.8 else data[at:].removesuffix(b"\xff\xd9") * rng.choice((2, 30))
    return b"\xff\xd8" + head + scans


def _shuffled(parts: list[tuple[bytes, bytes]], rng: random.Random) -> list[tuple[bytes, bytes]]:
    if not parts:
        return parts
    at = rng.randrange(len(parts))
    kind, body = parts[at]
    match rng.randrange(4):
        case 0:
            parts[at] = (kind, rng.choice((_flip, _number, _number, _cut, _repeated))(body, rng))
        case 1:
            parts.insert(rng.randrange(len(parts) + 1), parts[at])
        case 2:
            del parts[at]
        case 3:
            parts.append(parts.pop(at))
    return parts


_BLIND: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _flip, _flip, _number, _number, _number, _cut, _removed, _repeated, _inserted, _spliced, _polyglot, _zeroed,
)  # fmt: skip
_STRUCTURED: tuple[Callable[[bytes, random.Random], bytes], ...] = (_structured,)
