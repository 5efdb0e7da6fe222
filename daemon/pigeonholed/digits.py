"""The demo's pictures: the handwritten digits that scikit-learn carries, and some files that are no pictures.

The digits are the test set of the "Optical Recognition of Handwritten Digits" data (E. Alpaydin, C. Kaynak, UCI 1998):
1,797 pictures of 8x8 pixels with 17 grey levels, written by 13 people.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pigeonholed.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Iterator

BROKEN = "broken"
_ENLARGED = 8  # each pixel becomes 8x8, so that a person can see the digit


@dataclass(frozen=True, slots=True)
class Drop:
    """One file to be dropped.

    Attributes:
        path: relative to the inbox.
        data: its bytes.
        truth: the digit, or `broken`.
    """

    path: str
    data: bytes
    truth: str

    @property
    def sha256(self) -> str:
        """Lower-case hex."""
        return hashlib.sha256(self.data).hexdigest()


def digits() -> Iterator[Drop]:
    """All digits as grey PNG pictures of 64x64 pixels, in the order of the data set.

    Raises:
        Misconfigured: scikit-learn is not installed.
    """
    import cv2
    import numpy as np

    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise Misconfigured("the demo needs scikit-learn: pip install 'pigeonholed[train]'") from None
    bunch = load_digits()
    for index, (image, label) in enumerate(zip(bunch.images, bunch.target, strict=True)):
        grey = np.rint(image * (255 / 16)).astype(np.uint8).repeat(_ENLARGED, axis=0).repeat(_ENLARGED, axis=1)
        done, encoded = cv2.imencode(".png", grey)
        assert done
        yield Drop(f"digit-{index:04d}.png", encoded.tobytes(), str(label))


def broken(sample: bytes) -> list[Drop]:
    """Files that look like pictures by name and are none; `sample` is a good PNG."""
    middle = len(sample) // 2
    scrambled = sample[:41] + bytes(byte ^ 0xA5 for byte in sample[41:-12]) + sample[-12:]
    return [
        Drop("broken/cut-short.png", sample[:middle], BROKEN),
        Drop("broken/scrambled.png", scrambled, BROKEN),
        Drop("broken/empty.png", b"", BROKEN),
        Drop("broken/a-letter.jpg", b"Dear Sir or Madam,\nthis is a text, whatever my name says.\n", BROKEN),
        Drop("broken/a-document.png", b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog >>\nendobj\n%%EOF\n", BROKEN),
        Drop("broken/bomb.png", _bomb(60_000), BROKEN),
    ]


def _bomb(side: int) -> bytes:
    """A small PNG that would fill the memory if it were decoded: `side` squared white pixels."""
    row = b"\0" + b"\xff" * ((side + 7) // 8)
    packer = zlib.compressobj(9)
    body = b"".join(packer.compress(row) for _ in range(64)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
