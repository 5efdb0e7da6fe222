"""The same pictures as a worse camera, a dark room or a careless hand would have made them: spot checks.

Changes are made to what the network sees, so they are harder than the same done to a large picture that is then
shrunk. What matters to whoever sorts is that wrong answers become unsure ones, not that there are none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np

from pigeonholed_training.evaluation.asking import answers
from pigeonholed_training.evaluation.examples import example
from pigeonholed_training.evaluation.figures import share

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    from pigeonholed.classifying import Classifier
    from pigeonholed_training.evaluation.judged import Example, Judged

    Pixels = npt.NDArray[np.uint8]

CLEAN: Final = "as it is"
_DARK: Final = 0.4  # of the light
_QUALITY: Final = 30
_NOISE: Final = 20.0  # grey levels, standard deviation


def robustness(
    classifier: Classifier, judged: Judged, pixels: Pixels, targets: npt.NDArray[np.int32], *, seed: int = 0
) -> tuple[list[dict[str, Any]], tuple[Example, ...]]:
    """Accuracy, share of unsure and mean confidence on the same pictures in every form; the first row is unchanged.

    Nine times as many pictures are asked about as were given.

    Args:
        classifier: the model as it is served.
        judged: of the same model; gives labels and thresholds.
        pixels: pictures that judge, uint8 RGB [N, H, W, 3], at least one.
        targets: their true classes, int32 [N].
        seed: of the noise.

    Returns:
        A row for each form, with `sorted` as in `held_out`: how much of what would be sorted is right; and one picture
        in all forms.
    """
    rows: list[dict[str, Any]] = []
    examples: list[Example] = []
    shown: int | None = None
    for what, changed in forms(pixels, seed):
        said = answers(classifier, judged, changed, targets)
        right, passes = said.right, said.passes
        shown = _ordinary(said) if shown is None else shown
        rows.append(
            {
                "what": what,
                "accuracy": share(int(right.sum()), len(said)),
                "sorted": share(int((right & passes).sum()), int(passes.sum())),
                "unsure_share": round(float(1 - passes.mean()), 6),
                "mean_confidence": round(float(said.confidence.mean()), 6),
            }
        )
        examples.append(example(said, shown, changed[shown], what))
    return rows, tuple(examples)


def forms(pixels: Pixels, seed: int) -> Iterator[tuple[str, Pixels]]:
    """The pictures uint8 [N, H, W, 3] in each form, with its name; the shape stays."""
    height, width = pixels.shape[1:3]
    rng = np.random.default_rng(seed)
    yield CLEAN, pixels
    yield f"JPEG of quality {_QUALITY}", _each(pixels, _as_jpeg)
    sigma = max(0.8, min(height, width) / 80)
    yield "blurred", _each(pixels, lambda picture: cv2.GaussianBlur(picture, (0, 0), sigma))
    yield "dark", _each(pixels, lambda picture: cv2.convertScaleAbs(picture, alpha=_DARK))
    yield "turned by 90 degrees", _each(pixels, _turned)
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), 15, 1)
    border = cv2.BORDER_REFLECT_101
    yield (
        "turned by 15 degrees",
        _each(pixels, lambda picture: cv2.warpAffine(picture, matrix, (width, height), borderMode=border)),
    )
    yield (
        "grey",
        _each(pixels, lambda picture: cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)),
    )
    yield "half the resolution", _each(pixels, _coarser)
    yield "noisy", _each(pixels, lambda picture: _noisy(picture, rng))


def _each(pixels: Pixels, change: Callable[[Pixels], Any]) -> Pixels:
    changed = np.empty_like(pixels)
    for index, picture in enumerate(pixels):
        changed[index] = change(picture)
    return changed


def _as_jpeg(picture: Pixels) -> Any:
    _, data = cv2.imencode(".jpg", picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))[:, :, ::-1]


def _turned(picture: Pixels) -> Any:
    """A quarter to the right, and brought to the old shape: a photo whose camera did not say which way was up."""
    height, width = picture.shape[:2]
    turned = cv2.rotate(picture, cv2.ROTATE_90_CLOCKWISE)
    return turned if height == width else cv2.resize(turned, (width, height), interpolation=cv2.INTER_AREA)


def _coarser(picture: Pixels) -> Any:
    height, width = picture.shape[:2]
    small = cv2.resize(picture, (max(1, width // 2), max(1, height // 2)), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def _noisy(picture: Pixels, rng: np.random.Generator) -> Any:
    noise = rng.standard_normal(picture.shape, np.float32)
    return np.clip(np.rint(picture + _NOISE * noise), 0, 255).astype(np.uint8)


def _ordinary(said: Judged) -> int:
    """A picture that is right with the confidence that is usual for those; the first where none is right."""
    right = np.flatnonzero(said.right)
    if not len(right):
        return 0
    return int(right[np.argsort(said.confidence[right], kind="stable")[len(right) // 2]])
