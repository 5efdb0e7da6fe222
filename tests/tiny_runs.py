"""Finished runs without training: hand-made bundles with the evidence that a training leaves beside them.

The network tells colours apart (see `bundles`), so that with the labels in their places it is right of every picture of
`tiny_pictures`, and with two of them swapped it is wrong of those two. What the record says may be something else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bundles import make_bundle
from pigeonholed_training.evaluation import record
from pigeonholed_training.evaluation.record import Prediction, Record


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def predictions_of(
    data: Path, labels: Iterable[str], numbers: Iterable[int], wrong: Iterable[int] = (), part: str = "test"
) -> list[Prediction]:
    """Of the pictures of those numbers of each class; of the numbers in `wrong` another class is said."""
    labels, numbers, wrong = list(labels), list(numbers), set(wrong)
    return [
        Prediction(
            sha256=sha256_of(data / path),
            part=part,
            label=label,
            said=labels[(place + (number in wrong)) % len(labels)],
            confidence=0.9,
            outcome="unsure" if number % 10 == 9 else "sorted",
            label_probability=0.1 if number in wrong else 0.9,
            path=path,
        )
        for place, label in enumerate(labels)
        for number in numbers
        for path in (f"{label}/{number:03d}.png",)
    ]


def make_run(
    folder: Path,
    data: Path,
    labels: tuple[str, ...] = ("red", "blue"),
    *,
    judged: Iterable[int] = range(20, 40),
    learnt: Iterable[int] = range(20),
    wrong: Iterable[int] = (),
    part: str = "test",
    held_out: dict[str, Any] | None = None,
) -> Path:
    """A run folder that says of itself what the arguments say.

    Args:
        folder: made; its name is that of the model.
        data: of `tiny_pictures.make_data_set`.
        labels: of the network, in the places of red, blue and green.
        judged: numbers of the pictures of each class that judged it.
        learnt: of those that it learnt from.
        wrong: of those of which it said another class, by its record.
        part: that judged.
        held_out: keys that replace those of this section of `metrics.json`.
    """
    make_bundle(folder / "bundle", labels, name=folder.name)
    predictions = predictions_of(data, labels, judged, wrong, part)
    starts = frozenset(one.sha256[:16] for one in predictions_of(data, labels, learnt))
    for place, paths in ((folder, True), (folder / "bundle", False)):
        record.save(place, Record(tuple(predictions), starts), paths=paths)
    right = sum(one.is_right for one in predictions)
    share = {"value": round(right / max(1, len(predictions)), 6), "lower": 0.0, "upper": 1.0, "right": right}
    section = {"n": len(predictions), "part": part, "accuracy": share | {"n": len(predictions)}, "macro_f1": 0.75}
    metrics = {"name": folder.name, "held_out": section | (held_out or {})}
    for place in (folder, folder / "bundle"):
        (place / "metrics.json").write_text(json.dumps(metrics))
    (folder / "origin.json").write_text(json.dumps({"data": str(data.absolute()), "cache": "", "weights": "none"}))
    return folder
