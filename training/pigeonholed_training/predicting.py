"""What a model says of single pictures and folders, through the code that serves."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pigeonholed import imaging
from pigeonholed.images import Placement
from pigeonholed.paths import to_text
from pigeonholed_training.errors import WrongUsage
from pigeonholed_training.publishing import CHUNK

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from pigeonholed.bundle import Manifest
    from pigeonholed.classifying import Classifier
    from pigeonholed.images import Pixels


@dataclass(frozen=True)
class Answer:
    """One picture: what was said of it, or why nothing could be.

    Attributes:
        path: as it was given, or below the folder that was given.
        outcome: `sorted`, `unsure` or `rejected`.
        reason: why it was rejected, else None.
        detail: the same in words, else None.
        top: (label, calibrated probability), best first; empty for a rejected one.
        pixels: what the network saw, None for a rejected one.
    """

    path: str
    outcome: str
    reason: str | None
    detail: str | None
    top: tuple[tuple[str, float], ...]
    pixels: Pixels | None

    def as_dict(self) -> dict[str, Any]:
        """The fields that `pigeonholed classify --json` has too."""
        best = self.top[0] if self.top else (None, None)
        return {
            "path": to_text(self.path),
            "outcome": self.outcome,
            "reason": self.reason,
            "label": best[0],
            "confidence": best[1],
            "top": [{"label": label, "confidence": confidence} for label, confidence in self.top],
        }


def pictures_of(paths: Iterable[Path]) -> list[str]:
    """Files as they are given; of folders every file below that is not hidden, sorted.

    Raises:
        WrongUsage: a path does not exist.
    """
    found: list[str] = []
    for path in paths:
        if path.is_dir():
            for where, folders, names in os.walk(path):
                folders[:] = sorted(name for name in folders if name[0] != ".")
                found += [os.path.join(where, name) for name in sorted(names) if name[0] != "."]
        elif path.exists():
            found.append(str(path))
        else:
            raise WrongUsage(f"Cannot predict {path}: there is no such file or folder.")
    return found


def answers(paths: Sequence[str], manifest: Manifest, classifier: Classifier, top_k: int) -> Iterator[Answer]:
    """An answer for each path, in order."""
    for start in range(0, len(paths), CHUNK):
        yield from _answer_chunk(paths[start : start + CHUNK], manifest, classifier, top_k)


def _answer_chunk(paths: Sequence[str], manifest: Manifest, classifier: Classifier, top_k: int) -> Iterator[Answer]:
    decoded = [_decoded(path, manifest.pixel_spec) for path in paths]
    good = [one for one in decoded if not isinstance(one, Answer)]
    rows = iter(classifier.predict(np.stack(good))) if good else iter(())
    for path, one in zip(paths, decoded, strict=True):
        if isinstance(one, Answer):
            yield one
            continue
        row = next(rows)
        order = np.argsort(-row, kind="stable")[:top_k]
        top = tuple((manifest.labels[index], float(row[index])) for index in order)
        passes = top[0][1] >= manifest.thresholds[int(order[0])].value
        yield Answer(path, str(Placement.SORTED if passes else Placement.UNSURE), None, None, top, one)


def _decoded(path: str, spec: imaging.PixelSpec) -> Pixels | Answer:
    try:
        with open(path, "rb") as stream:
            return imaging.decode(stream.read(), spec).pixels
    except imaging.ImagingError as fault:
        return Answer(path, str(Placement.REJECTED), str(fault.reason), fault.detail, (), None)
    except OSError as fault:
        return Answer(path, str(Placement.REJECTED), "io-error", str(fault.strerror), (), None)


def draw_grid(said: Sequence[Answer], path: Path, *, most: int = 64) -> None:
    """A PNG of the first pictures, each with its label and confidence.

    Raises:
        OSError: `path` cannot be written.
    """
    from matplotlib.figure import Figure

    shown = [answer for answer in said if answer.pixels is not None][:most]
    columns = min(8, max(1, len(shown)))
    rows = max(1, -(-len(shown) // columns))
    figure = Figure(figsize=(1.6 * columns, 1.9 * rows), layout="constrained")
    for index, answer in enumerate(shown):
        axes = figure.add_subplot(rows, columns, index + 1)
        axes.imshow(np.asarray(answer.pixels))
        axes.set_axis_off()
        colour = "tab:green" if answer.outcome == Placement.SORTED else "tab:orange"
        label, confidence = answer.top[0]
        axes.set_title(f"{label.replace('$', chr(92) + '$')} {confidence:.2f}", fontsize=9, color=colour)
    figure.savefig(path, format="png", dpi=110)
