"""Pictures on the page, each with what was said of it."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from pigeonholed_training.reporting.markup import Html, join, name, tag
from pigeonholed_training.reporting.words import percent

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from pigeonholed_training.evaluation.judged import Example

SIDE = 96  # pixels of the longer side
QUALITY = 78  # of JPEG
SMALL = SIDE // 2  # a picture up to this size is shown with its pixels as squares
SHOWN = 24  # pictures in a gallery
WORTH_SAYING = 0.005  # a probability below this is left out


def gallery(examples: Sequence[Example], *, shown: int = SHOWN) -> Html:
    """Some pictures with the best answers, whether these are right, and what becomes of the picture."""
    return tag("div", *(card(example) for example in examples[:shown]), class_="gallery")


def card(example: Example) -> Html:
    """One picture."""
    said = [one for index, one in enumerate(example.said[:3]) if index == 0 or one[1] >= WORTH_SAYING]
    answers = join(_answer(label, share, _kind(example, label, index)) for index, (label, share) in enumerate(said))
    return tag("figure", image(example.pixels, _described(example)), tag("figcaption", answers, *_footer(example)))


def image(pixels: npt.NDArray[np.uint8], described: str) -> Html:
    """A thumbnail as an element of the page."""
    height, width = thumbnail_size(*pixels.shape[:2])
    data = base64.b64encode(thumbnail(pixels)).decode("ascii")
    return Html(
        tag("img", src=f"data:image/jpeg;base64,{data}", width=width, height=height, alt=described)[: -len("</img>")]
    )


def thumbnail_size(height: int, width: int) -> tuple[int, int]:
    """Height and width in pixels of what is shown of a picture of this size."""
    longest = max(height, width)
    scale = SIDE // longest if longest <= SMALL else SIDE / longest
    return max(1, round(height * scale)), max(1, round(width * scale))


def thumbnail(pixels: npt.NDArray[np.uint8]) -> bytes:
    """A JPEG with the longer side near 96 pixels, its pixels as whole squares where they are few.

    Args:
        pixels: uint8 RGB [H, W, 3].
    """
    height, width = pixels.shape[:2]
    rows, columns = thumbnail_size(height, width)
    larger = cv2.INTER_NEAREST if max(height, width) <= SMALL else cv2.INTER_CUBIC
    how = cv2.INTER_AREA if rows < height else larger
    resized = cv2.resize(np.ascontiguousarray(pixels), (columns, rows), interpolation=how)
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(resized, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return encoded.tobytes()


def _answer(label: str, share: float, kind: str) -> Html:
    """A label with its probability, on a bar as long as that."""
    bar = tag("i", style=f"width:{100.0 * share:.0f}%")
    return tag("div", bar, name(label, 22), tag("b", percent(share, 0)), class_=f"answer {kind}")


def _kind(example: Example, label: str, rank: int) -> str:
    """Green for the true class wherever it stands, red for another one that comes first."""
    if label == example.label:
        return "right"
    return "open" if example.label is None or rank else "wrong"


def _footer(example: Example) -> list[Html]:
    """The true class where it was missed, whether the picture is sorted, and where it is from."""
    lines = []
    if example.is_right is False and example.label is not None:
        lines.append(tag("div", "✗ is ", name(example.label, 22), class_="truth"))
    if example.outcome == "unsure":
        lines.append(tag("div", "set aside", class_="note"))
    elif example.label is None:
        lines.append(tag("div", "sorted", class_="note"))
    if example.note:
        lines.append(tag("div", name(example.note, 34), class_="note"))
    return lines


def _described(example: Example) -> str:
    """For those who cannot see the picture."""
    label, share = example.said[0]
    truth: Any = "" if example.label is None else f", is {example.label[:60]}"
    return f"said {label[:60]} {percent(share, 0)}{truth}"
