"""Which pictures several models can be compared on: those that each was judged on, or those of a data set."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from pigeonholed import imaging
from pigeonholed_training.data import sources
from pigeonholed_training.data.splitting import Part
from pigeonholed_training.errors import Misconfigured, TrainingError
from pigeonholed_training.evaluation.comparison import Comparison, Heard, common_labels, compare, shared_pictures

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pigeonholed_training.entrants import Entrant
    from pigeonholed_training.evaluation.record import Prediction
    from pigeonholed_training.progress import Narrator

FEW: Final = 20
"""With fewer pictures than this nothing can be told that a person would not see better."""


@dataclass(frozen=True, slots=True)
class Compared:
    """A comparison, and what a reader should know about it.

    Attributes:
        comparison: of the models, in the order given.
        models: each by itself, as plain values for JSON.
        notes: in plain words.
    """

    comparison: Comparison
    models: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        found = self.comparison
        return {
            "pictures": found.n,
            "labels": list(found.labels),
            "models": [about | asdict(side) for about, side in zip(self.models, found.sides, strict=True)],
            "pairs": [pair.as_dict() for pair in found.pairs],
            "notes": list(self.notes),
        }


def on_records(entrants: Sequence[Entrant]) -> Compared:
    """Compares models on the pictures that every one of them was judged on.

    Raises:
        Misconfigured: a model has no record, they have no class in common, or too few such pictures.
    """
    labels = _labels(entrants)
    for one in entrants:
        if one.record.predictions is None:
            raise Misconfigured(
                f"Cannot compare {one.title} without pictures: it does not say what it was judged on; give pictures "
                "that it has not learnt from, with --data DIR."
            )
    every = [_heard(one, one.record.judged) for one in entrants]
    shared = shared_pictures(every)
    unlearnt = [sha256 for sha256 in shared if not _learnt_by_any(entrants, sha256)]
    if len(unlearnt) < FEW:
        raise Misconfigured(
            f"Cannot compare {_named(entrants)}: only {len(unlearnt)} picture(s) judged every one of them and taught "
            "none; give pictures that none has learnt from, with --data DIR."
        )
    heard = [_heard(one, {sha256: one.record.judged[sha256] for sha256 in unlearnt}) for one in entrants]
    notes = [*_notes(entrants, labels), *_left_out(len(shared) - len(unlearnt))]
    if any(one.record.judged[unlearnt[0]].part == Part.CALIBRATION.name.lower() for one in entrants):
        notes.append(
            "Some of these pictures calibrated a model: that cannot change which class it calls best, but its share of "
            "unsure ones is a little kind."
        )
    return Compared(compare(heard), tuple(about(one) for one in entrants), tuple(notes))


def on_pictures(entrants: Sequence[Entrant], data: Path, narrator: Narrator) -> Compared:
    """Lets every model classify the same pictures: the test part of `data`, or all where it has none.

    Args:
        entrants: the models, each of which gets the pixels it wants.
        data: folder of class folders, folder of such folders by part, or CSV file.
        narrator: shows how far it has come.

    Raises:
        TrainingError: there is no such data set; no class is common to it and the models; no picture is left; a model
            does not load.
    """
    imaging.configure()
    try:
        listing = sources.find(data)
    except TrainingError as fault:
        raise type(fault)(str(fault).replace("Cannot train on", "Cannot compare on", 1)) from fault
    labels = _labels(entrants)
    test = [entry for entry in listing.entries if entry.part is Part.TEST] or listing.entries
    pictures = [(entry.path, listing.labels[entry.target]) for entry in test]
    known = [(path, label) for path, label in pictures if label in labels]
    if not known:
        raise Misconfigured(
            f"Cannot compare on {data}: its classes {_few(listing.labels)} are none that the models know, "
            f"{_few(labels)}; give its folders those names."
        )
    learnt: set[str] = set()

    def skip(sha256: str) -> bool:
        if _learnt_by_any(entrants, sha256):
            learnt.add(sha256)
        return sha256 in learnt

    heard = []
    for one in entrants:
        with narrator.steps(f"asking {one.title}", len(known)) as step:
            heard.append(_heard(one, one.ask(listing.root, known, skip=skip, on_picture=step.at)))
    notes = [*_notes(entrants, labels), *_left_out(len(learnt))]
    if len(known) < len(pictures):
        notes.append(f"{len(pictures) - len(known)} pictures are of classes that not every model knows; left out.")
    found = compare(heard)
    if not found.n:
        raise Misconfigured(f"Cannot compare on {data}: no picture is left. {' '.join(notes)}".rstrip())
    return Compared(found, tuple(about(one) for one in entrants), tuple(notes))


def about(entrant: Entrant) -> dict[str, Any]:
    """A model by itself, as plain values for JSON; None for what its version did not write down."""
    timed = entrant.metrics.get("speed")
    speeds = [one for one in timed if isinstance(one, dict)] if isinstance(timed, list) else []
    served = [one.get("pictures_per_s") for one in speeds if one.get("runtime") == "openvino"]
    return {
        "title": entrant.title,
        "recipe": entrant.manifest.recipe,
        "created_at": entrant.manifest.created_at,
        "pixels": [entrant.manifest.input.height, entrant.manifest.input.width],
        "labels": list(entrant.labels),
        "judged": {
            "n": entrant.number("held_out", "accuracy", "n"),
            "accuracy": entrant.number("held_out", "accuracy", "value"),
        },
        "adaptive_ece": entrant.number("confidence", "after", "adaptive_ece"),
        "served_bytes": entrant.served_bytes,
        "pictures_per_s": max((speed for speed in served if isinstance(speed, int | float)), default=None),
    }


def _labels(entrants: Sequence[Entrant]) -> tuple[str, ...]:
    labels = common_labels([one.labels for one in entrants])
    if not labels:
        first, other = entrants[0], next(one for one in entrants if not set(one.labels) & set(entrants[0].labels))
        raise Misconfigured(
            f"Cannot compare {first.title} and {other.title}: they have no class in common; one knows "
            f"{_few(first.labels)}, the other {_few(other.labels)}."
        )
    return labels


def _heard(entrant: Entrant, predictions: Mapping[str, Prediction]) -> Heard:
    return Heard(entrant.title, entrant.labels, predictions)


def _learnt_by_any(entrants: Sequence[Entrant], sha256: str) -> bool:
    return any(one.record.has_learnt(sha256) for one in entrants)


def _notes(entrants: Sequence[Entrant], labels: Sequence[str]) -> list[str]:
    notes = []
    if any(set(one.labels) != set(labels) for one in entrants):
        notes.append(
            f"The models have different classes; compared are pictures of the common ones, {_few(labels)}. Any other "
            "answer counts as wrong."
        )
    silent = [one.title for one in entrants if one.record.learnt is None]
    if silent:
        notes.append(
            f"{' and '.join(silent)} {'does' if len(silent) == 1 else 'do'} not say what was learnt from: where these "
            "pictures are among it, the comparison is too kind."
        )
    return notes


def _left_out(count: int) -> list[str]:
    if not count:
        return []
    return [
        f"{count} picture{' is' if count == 1 else 's are'} left out, because one of the models has learnt from it."
    ]


def _named(entrants: Sequence[Entrant]) -> str:
    *first, last = [one.title for one in entrants]
    return f"{', '.join(first)} and {last}"


def _few(labels: Sequence[str]) -> str:
    return ", ".join(labels[:5]) + (f" and {len(labels) - 5} more" if len(labels) > 5 else "")
