"""One way to see a picture: the bytes of a file become uint8 RGB of the size a bundle wants.

Training, evaluation, the daemon and the page all decode here, so the model is served what it was trained on. The order
is fixed: look at the header, refuse what is too large or cut short, decode (a JPEG at a reduced scale where that loses
nothing), cut, resize by area, put upright, pad.
"""

from __future__ import annotations

import importlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import cv2
import numpy as np

from pigeonholed.formats import (
    Alpha,
    Format,
    Header,
    HeaderError,
    announced_pixels,
    boxes_are_complete,
    describe,
    is_start_of_a_picture,
    read_header,
    sniff,
    still_png,
)
from pigeonholed.images import Reason

if TYPE_CHECKING:
    from typing import Any

    import numpy.typing as npt

    from pigeonholed.images import Pixels

    Raster = npt.NDArray[Any]
    """Pixels on their way: uint8 or uint16; grey (rows, columns), or BGR or BGRA with a third axis."""

Fit = Literal["stretch", "crop", "pad"]
"""How a picture of another shape meets the wanted size: distorted, cut to its centre, or with black borders."""

_MANY_SCANS: Final = 20
_SCANNED_PIXELS: Final = 2_000_000_000
_OPENCV_PIXELS: Final = 1 << 30  # OpenCV's own limits: over them it would raise
_OPENCV_SIDE: Final = 1 << 20
_COLOUR: Final = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
_REDUCED: Final = {
    1: _COLOUR,
    2: cv2.IMREAD_REDUCED_COLOR_2 | cv2.IMREAD_IGNORE_ORIENTATION,
    4: cv2.IMREAD_REDUCED_COLOR_4 | cv2.IMREAD_IGNORE_ORIENTATION,
    8: cv2.IMREAD_REDUCED_COLOR_8 | cv2.IMREAD_IGNORE_ORIENTATION,
}


@dataclass(frozen=True, slots=True)
class PixelSpec:
    """The pixels that a bundle wants.

    Attributes:
        height: pixels, at least 1.
        width: pixels, at least 1.
        fit: what happens to a picture of another shape.
    """

    height: int
    width: int
    fit: Fit = "stretch"

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1 or self.fit not in {"stretch", "crop", "pad"}:
            raise ValueError(f"{self.height} x {self.width} pixels with fit {self.fit!r} is no picture size")


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture.

    Attributes:
        pixels: uint8 RGB of the wanted size, shape (height, width, 3), C-contiguous, owned by nobody else.
        width: of the original in pixels, upright.
        height: of the original in pixels, upright.
    """

    pixels: Pixels
    width: int
    height: int


class ImagingError(Exception):
    """A file that gives no picture.

    Attributes:
        reason: UNREADABLE, TRUNCATED, UNSUPPORTED, TOO_LARGE or EMPTY.
        detail: one sentence for people.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def configure() -> None:
    """Make OpenCV quiet and single-threaded for this process; parallelism is the caller's one knob.

    libjpeg and libpng inside OpenCV still write a line to stderr about some damaged files; they offer no switch.
    """
    cv2.setNumThreads(1)
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def decode(data: bytes, spec: PixelSpec, *, max_pixels: int = 100_000_000, allow_truncated: bool = False) -> Picture:
    """Decode a picture file to the pixels that a bundle wants.

    JPEG, PNG, WebP, BMP, TIFF and GIF (the first frame or page of several); HEIF and AVIF with the extra `heif`. The
    EXIF orientation is applied, transparency shows white, 16 bits become the upper 8, CMYK becomes RGB without a
    colour profile. Shrinking averages over areas, growing interpolates linearly. `crop` cuts to the centre, `pad` adds
    black. Thread-safe; OpenCV releases the GIL.

    Args:
        data: the whole file.
        spec: the pixels wanted.
        max_pixels: a header that announces more is refused before any pixel is decoded.
        allow_truncated: decode what there is of a picture that is cut short, where the decoder can.

    Raises:
        ImagingError: and nothing else, whatever the bytes are.
    """
    if not data:
        raise ImagingError(Reason.EMPTY, "the file has no bytes")
    form = sniff(data[:64])
    if form is None:
        raise _unsupported(data)
    if form is Format.HEIF or form is Format.AVIF:
        stored, orientation = _decode_with_extra(data, form, max_pixels, allow_truncated)
        alpha, (height, width) = Alpha.STRAIGHT, stored.shape[:2]
    else:
        header = _checked_header(data, form, max_pixels, allow_truncated)
        width, height, orientation = header.width, header.height, header.orientation
        stored, alpha = _decode_stored(data, header, spec), header.alpha
        if form is Format.TIFF:  # OpenCV puts every TIFF upright, whatever it is told
            width, height = (height, width) if orientation > 4 else (width, height)
            orientation = 1
    pixels = _fit(stored, alpha, orientation, spec)
    if orientation > 4:
        width, height = height, width
    return Picture(pixels, width, height)


# ---- before a pixel is decoded


def _unsupported(data: bytes) -> ImagingError:
    if is_start_of_a_picture(data):
        return ImagingError(Reason.TRUNCATED, "the file ends inside the first bytes of a picture")
    return ImagingError(
        Reason.UNSUPPORTED,
        f"the content is {describe(data[:256])}; JPEG, PNG, WebP, BMP, TIFF and GIF pictures are decoded",
    )


def _checked_header(data: bytes, form: Format, max_pixels: int, allow_truncated: bool) -> Header:
    name = form.upper()
    try:
        header = read_header(data, form)
    except HeaderError as error:
        reason = Reason.TRUNCATED if error.truncated else Reason.UNREADABLE
        raise ImagingError(reason, f"the {name} picture cannot be decoded: {error}") from None
    pixels = header.width * header.height
    if pixels > max_pixels:
        raise _too_large(header.width, header.height, f"max_pixels = {max_pixels}")
    if pixels > _OPENCV_PIXELS or max(header.width, header.height) > _OPENCV_SIDE:
        raise _too_large(header.width, header.height, "the decoder takes")
    # A cut PNG gives no part of a picture in any case, and libpng would make room for all that it announces.
    if not header.complete and (form is Format.PNG or not allow_truncated):
        raise ImagingError(Reason.TRUNCATED, f"the end of the {name} picture is missing")
    # A few kilobytes of empty scans over a large frame would keep a decoder busy for minutes.
    if header.scans > _MANY_SCANS and header.scans * pixels > _SCANNED_PIXELS:
        raise ImagingError(Reason.UNREADABLE, f"the JPEG picture has {header.scans} scans, more than any real one")
    return header


def _too_large(width: int, height: int, limit: str) -> ImagingError:
    return ImagingError(Reason.TOO_LARGE, f"{width} x {height} pixels are more than {limit}")


# ---- decoding


def _decode_stored(data: bytes, header: Header, spec: PixelSpec) -> Raster:
    """Decode to what OpenCV makes of it: grey, BGR or BGRA, 8 or 16 bits, a JPEG perhaps at a reduced scale."""
    flags, factor = _COLOUR, 1
    if header.format is Format.JPEG:
        factor = _reduction(header, spec)
        flags = _REDUCED[factor]
    elif header.alpha is not Alpha.NONE:
        flags = cv2.IMREAD_UNCHANGED
    # A cut JPEG is decoded as far as it goes once it ends as one must, and libjpeg fills the rest with grey; the other
    # decoders take no part of a picture, whatever is done.
    whole = data + b"\xff\xd9" if header.format is Format.JPEG and not header.complete else data
    if header.animated:  # OpenCV's own reader of animations (5.0) crashes the process where one is damaged
        whole = still_png(data)
    try:
        stored = cv2.imdecode(np.frombuffer(whole, np.uint8), flags)
    except MemoryError:
        raise _too_large(header.width, header.height, "memory holds") from None
    except cv2.error as error:
        if "OutOfMemory" in str(error) or "Insufficient memory" in str(error):
            raise _too_large(header.width, header.height, "memory holds") from None
        stored = None
    size = {-(-header.width // factor), -(-header.height // factor)}  # a set: a TIFF comes turned already
    return _keyed(_checked(stored, header, size), header.transparent_grey)


def _checked(stored: Raster | None, header: Header, size: set[int]) -> Raster:
    """Refuse what the decoder could not do, and pixels of a kind or size that the header did not announce."""
    name, reason = header.format.upper(), Reason.UNREADABLE if header.complete else Reason.TRUNCATED
    if stored is None:
        what = "its content is damaged or of a kind that is not decoded" if header.complete else "its end is missing"
        raise ImagingError(reason, f"the {name} picture cannot be decoded: {what}")
    channels = stored.shape[2] if stored.ndim == 3 else 1
    if stored.dtype not in (np.uint8, np.uint16) or channels not in {1, 3, 4}:
        raise ImagingError(
            reason, f"the {name} picture has {channels} channels of {stored.dtype}, which is not decoded"
        )
    if set(stored.shape[:2]) != size:
        raise ImagingError(reason, f"the {name} picture is not of the size that its header says")
    return stored


def _reduction(header: Header, spec: PixelSpec) -> int:
    """Choose the largest of libjpeg's scales that keeps twice the wanted pixels for the area resize to average.

    Measured against a full decode: mean difference 0.25 of 255 at a quarter, and three to four times faster.
    """
    turned = header.orientation > 4
    across = header.width / (spec.height if turned else spec.width)
    down = header.height / (spec.width if turned else spec.height)
    ratio = max(across, down) if spec.fit == "pad" else min(across, down)
    return 8 if ratio >= 16 else 4 if ratio >= 8 else 2 if ratio >= 4 else 1


def _keyed(stored: Raster, transparent_grey: int | None) -> Raster:
    """Turn the grey value that means transparent, which OpenCV leaves to its callers, into an alpha channel."""
    if transparent_grey is None or stored.ndim != 2:
        return stored
    alpha = np.where(stored == transparent_grey, 0, np.iinfo(stored.dtype).max).astype(stored.dtype)
    return np.dstack([stored, stored, stored, alpha])


def _decode_with_extra(data: bytes, form: Format, max_pixels: int, allow_truncated: bool) -> tuple[Raster, int]:
    """Decode HEIF or AVIF, where the extra is installed, to what `_decode_stored` gives, and its orientation."""
    name = form.upper()
    opener = _opener_of_extra(form)
    complete = boxes_are_complete(len(data), lambda pos, size: data[pos : pos + size])
    if not complete and not allow_truncated:
        raise ImagingError(Reason.TRUNCATED, f"the end of the {name} picture is missing")
    try:
        image = opener(io.BytesIO(data))
        width, height = image.size
        if width * height > max_pixels:
            raise _too_large(width, height, f"max_pixels = {max_pixels}")
        if form is Format.HEIF:  # whose decoder turns it
            return _raster(image.to_pillow()), 1
        orientation = image.getexif().get(0x0112, 1)
        return _raster(image), orientation if orientation in range(1, 9) else 1
    except ImagingError:
        raise
    except MemoryError:
        raise ImagingError(Reason.TOO_LARGE, f"the {name} picture is more than memory holds") from None
    except Exception as error:  # two foreign decoders, whose exceptions are not documented
        if (pixels := announced_pixels(data)) > max_pixels:
            raise ImagingError(Reason.TOO_LARGE, f"{pixels} pixels are more than max_pixels = {max_pixels}") from None
        # What they say may quote the file, and be long.
        said = "".join(character if character.isprintable() else " " for character in str(error))[:200].strip()
        whole = complete and any(box in data for box in (b"mdat", b"idat", b"mini"))  # some of which holds the pixels
        reason = Reason.UNREADABLE if whole else Reason.TRUNCATED
        raise ImagingError(reason, f"the {name} picture cannot be decoded: {said}") from None


def _opener_of_extra(form: Format) -> Any:
    """What opens HEIF or AVIF, in this thread and no other: parallelism is the caller's."""
    try:
        # By name: absent without the extra, and needed for such files only.
        heif: Any = importlib.import_module("pillow_heif")
        avif: Any = importlib.import_module("PIL.AvifImagePlugin")
        if form is Format.HEIF:
            heif.options.DECODE_THREADS = 1
            return heif.open_heif
        if avif.SUPPORTED:
            avif.DEFAULT_MAX_THREADS = 1
            return avif.AvifImageFile
    except ImportError:
        detail = f"decoding {form.upper()} needs the extra: pip install pigeonholed[heif]"
        raise ImagingError(Reason.UNSUPPORTED, detail) from None
    raise ImagingError(Reason.UNSUPPORTED, "the Pillow that is installed was built without AVIF")


def _raster(image: Any) -> Raster:
    """The pixels of a Pillow image, as OpenCV would hand them over."""
    if image.mode == "L" or image.mode.startswith("I;16"):
        return np.asarray(image)
    if image.mode == "RGB":
        return cv2.cvtColor(np.asarray(image), cv2.COLOR_RGB2BGR)
    return cv2.cvtColor(np.asarray(image.convert("RGBA")), cv2.COLOR_RGBA2BGRA)


# ---- from what was stored to what is wanted


def _fit(stored: Raster, alpha: Alpha, orientation: int, spec: PixelSpec) -> Pixels:
    """Cut, resize, flatten, put upright and pad; the picture is turned last, when it is small."""
    width, height = (spec.height, spec.width) if orientation > 4 else (spec.width, spec.height)
    if spec.fit == "crop":
        stored = _centre(stored, width, height)
    elif spec.fit == "pad":
        scale = min(width / stored.shape[1], height / stored.shape[0])
        width, height = max(1, round(stored.shape[1] * scale)), max(1, round(stored.shape[0] * scale))
    if stored.dtype == np.uint16:
        stored = (stored >> 8).astype(np.uint8)
    if stored.ndim == 3 and stored.shape[2] == 4 and alpha is Alpha.STRAIGHT:
        # Averaging colours that nobody sees would tint the edges, so they are weighted by their alpha first.
        stored = cv2.cvtColor(stored, cv2.COLOR_RGBA2mRGBA)
    pixels = _upright(_to_rgb(_resize(stored, width, height)), orientation)
    return _padded(pixels, spec) if spec.fit == "pad" else np.ascontiguousarray(pixels)


def _centre(stored: Raster, width: int, height: int) -> Raster:
    """Cut the largest centred part of the wanted shape; what is left over is even, so mirrored twins match."""
    rows, columns = stored.shape[:2]
    keep_columns = min(columns, max(1, round(rows * width / height)))
    keep_rows = min(rows, max(1, round(columns * height / width)))
    left, top = (columns - keep_columns) // 2, (rows - keep_rows) // 2
    return stored[top : rows - top, left : columns - left]


def _resize(stored: Raster, width: int, height: int) -> Raster:
    """Average over areas where it shrinks, interpolate linearly where it grows."""
    rows, columns = stored.shape[:2]
    if rows > height or columns > width:
        small = (min(columns, width), min(rows, height))
        stored = cv2.resize(stored, small, interpolation=cv2.INTER_AREA)
    if stored.shape[0] < height or stored.shape[1] < width:
        stored = cv2.resize(stored, (width, height), interpolation=cv2.INTER_LINEAR)
    return stored


def _to_rgb(pixels: Raster) -> Raster:
    """Make RGB of grey, BGR or premultiplied BGRA, the last on white."""
    if pixels.ndim == 2:
        return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    if pixels.shape[2] == 3:
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    white = cv2.cvtColor(255 - pixels[..., 3], cv2.COLOR_GRAY2RGB)
    return cv2.add(cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGB), white)


def _upright(pixels: Raster, orientation: int) -> Raster:
    """Undo an EXIF orientation (TIFF 6.0, tag 274), as a view."""
    if orientation > 4:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in {3, 4, 7, 8}:
        pixels = pixels[::-1]
    if orientation in {2, 3, 6, 7}:
        pixels = pixels[:, ::-1]
    return pixels


def _padded(pixels: Raster, spec: PixelSpec) -> Raster:
    """Centre on black."""
    canvas = np.zeros((spec.height, spec.width, 3), np.uint8)
    rows, columns = pixels.shape[:2]
    top, left = (spec.height - rows) // 2, (spec.width - columns) // 2
    canvas[top : top + rows, left : left + columns] = pixels
    return canvas
