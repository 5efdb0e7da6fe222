"""The evidence that goes with a model: what it said of the pictures that judged it, and which ones it has learnt from.

Two plain files, which a spreadsheet opens and which carry no code: `predictions.csv` and `learnt.txt`.
"""

from __future__ import annotations

import csv
import io
import os
import re
import stat
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final, Literal, get_args

from pigeonholed import durable
from pigeonholed.paths import to_text
from pigeonholed.spreadsheets import bare, shielded
from pigeonholed_training.data.splitting import Part
from pigeonholed_training.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from pigeonholed_training.evaluation.judged import Judged
    from pigeonholed_training.evaluation.subject import Subject

PREDICTIONS: Final = "predictions.csv"
LEARNT: Final = "learnt.txt"

Outcome = Literal["sorted", "unsure"]

MAX_BYTES: Final = 256 << 20  # of either file: pictures by the million
_DIGITS: Final = 16  # of a SHA-256: ten million pictures share one with a probability of three in a million
_PARTS: Final = ("train", "validation", "calibration", "test")
_COLUMNS: Final = ("path", "sha256", "part", "label", "said", "confidence", "outcome", "label_probability")
_NEEDED: Final = ("sha256", "part", "label", "said", "confidence", "outcome")
_SHA256: Final = re.compile("[0-9a-f]{64}")
_START: Final = re.compile(f"[0-9a-f]{{{_DIGITS}}}")


@dataclass(frozen=True, slots=True)
class Prediction:
    """What was said of one picture whose class is known.

    Attributes:
        sha256: of its bytes, lower-case hex.
        part: of the split, as `test`.
        label: its true class.
        said: the best label.
        confidence: calibrated probability of that label.
        outcome: what the thresholds make of it.
        label_probability: calibrated probability of the true class; None where that was not kept.
        path: in the data set, as `paths.to_text` writes it; empty in a bundle.
    """

    sha256: str
    part: str
    label: str
    said: str
    confidence: float
    outcome: Outcome
    label_probability: float | None = None
    path: str = ""

    @property
    def is_right(self) -> bool:
        """Whether the best label is the true one."""
        return self.said == self.label


@dataclass(frozen=True)
class Record:
    """What is kept of a judgement.

    Attributes:
        predictions: of every picture that judged; None where an older version made the model.
        learnt: the first 16 hex digits of the SHA-256 of every picture of train, validation and calibration; None as
            above.
    """

    predictions: tuple[Prediction, ...] | None = None
    learnt: frozenset[str] | None = None

    @cached_property
    def judged(self) -> Mapping[str, Prediction]:
        """The predictions by SHA-256; empty where there are none."""
        return {prediction.sha256: prediction for prediction in self.predictions or ()}

    def has_learnt(self, sha256: str) -> bool:
        """Whether a picture had a say in which class the model calls best, as far as is known.

        Calibration pictures that judged had none, for want of a test part: a temperature changes no ranking.
        """
        if self.learnt is None or sha256[:_DIGITS] not in self.learnt:
            return False
        return sha256 not in self.judged or self.judged[sha256].part != Part.CALIBRATION.name.lower()


def of(subject: Subject, answers: Mapping[Part, Judged], learnt: Iterable[str] | None = None) -> Record:
    """What is to be kept of a judgement.

    Args:
        subject: what the model was judged by.
        answers: what it said of each part, in the order of the subject's indices.
        learnt: SHA-256 of every picture of train, validation and calibration, in hex.
    """
    starts = None if learnt is None else frozenset(sha256[:_DIGITS] for sha256 in learnt)
    return Record(tuple(_said(subject, answers[subject.judged])), starts)


def save(folder: Path, record: Record, *, paths: bool = True) -> None:
    """Puts both files of a record into `folder`, each whole or not at all.

    Raises:
        OSError: it cannot be written, or the disk is full.
    """
    if record.predictions is not None:
        durable.write_file(folder / PREDICTIONS, _as_csv(record.predictions, paths=paths))
    if record.learnt is not None:
        lines = "".join(f"{start}\n" for start in sorted(record.learnt))
        durable.write_file(folder / LEARNT, lines.encode("ascii"))


def read(folder: Path) -> Record:
    """What `folder` holds of a record; a file that is not there is None, for older versions wrote none.

    Raises:
        Misconfigured: a file is damaged, over-large or no regular file.
    """
    predictions, learnt = _text(folder / PREDICTIONS), _text(folder / LEARNT)
    return Record(
        None if predictions is None else tuple(_predictions(folder / PREDICTIONS, predictions)),
        None if learnt is None else frozenset(_starts(folder / LEARNT, learnt)),
    )


def _said(subject: Subject, judged: Judged) -> Iterator[Prediction]:
    pictures = [subject.dataset.pictures[index] for index in subject.parts[subject.judged]]
    true = judged.probabilities[range(len(judged)), judged.targets]
    rows = zip(pictures, judged.targets, judged.predicted, judged.confidence, judged.passes, true, strict=True)
    for picture, target, best, confidence, passes, of_label in rows:
        yield Prediction(
            sha256=picture.sha256,
            part=subject.judged.name.lower(),
            label=judged.labels[target],
            said=judged.labels[best],
            confidence=float(confidence),
            outcome="sorted" if passes else "unsure",
            label_probability=float(of_label),
            path=to_text(picture.path),
        )


def _as_csv(predictions: Iterable[Prediction], *, paths: bool) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS if paths else _COLUMNS[1:])
    for one in predictions:
        own = "" if one.label_probability is None else f"{one.label_probability:.6f}"
        path, label, said = map(shielded, (one.path, one.label, one.said))
        row = (path, one.sha256, one.part, label, said, f"{one.confidence:.6f}", one.outcome, own)
        writer.writerow(row if paths else row[1:])
    return text.getvalue().encode("utf-8")


def _text(path: Path) -> str | None:
    try:
        # O_NONBLOCK: opening a pipe must not wait for its other end.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as stream:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise _fault(path, "it is no regular file")
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as fault:
        raise _fault(path, str(fault.strerror)) from fault
    if len(data) > MAX_BYTES:
        raise _fault(path, f"it is larger than {MAX_BYTES >> 20} MiB")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as fault:
        raise _fault(path, "it is no text in UTF-8") from fault


def _predictions(path: Path, text: str) -> Iterable[Prediction]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        missing = [column for column in _NEEDED if column not in (reader.fieldnames or ())]
        if missing:
            raise _fault(path, f"its first line does not name the column {missing[0]}")
        for row in reader:
            try:
                yield _prediction(row)
            except (KeyError, TypeError, ValueError) as fault:
                raise _fault(path, f"line {reader.line_num} is not one that this program writes") from fault
    except csv.Error as fault:
        raise _fault(path, f"line {reader.line_num}: {fault}") from fault


def _prediction(row: Mapping[str, str]) -> Prediction:
    """One line.

    Raises:
        KeyError, TypeError, ValueError: it is none that we wrote.
    """
    own = row.get("label_probability")
    found = Prediction(
        sha256=row["sha256"],
        part=row["part"],
        label=bare(row["label"] or ""),
        said=bare(row["said"] or ""),
        confidence=_share(row["confidence"]),
        outcome="sorted" if row["outcome"] == "sorted" else "unsure",
        label_probability=_share(own) if own else None,
        path=bare(row.get("path") or ""),
    )
    whole = _SHA256.fullmatch(found.sha256) and found.label and found.said
    if not (whole and found.part in _PARTS and row["outcome"] in get_args(Outcome) and None not in row):
        raise ValueError
    return found


def _share(text: str) -> float:
    value = float(text)
    if not 0.0 <= value <= 1.0:  # NaN is neither
        raise ValueError
    return value


def _starts(path: Path, text: str) -> Iterable[str]:
    for number, line in enumerate(text.splitlines(), 1):
        if not _START.fullmatch(line):
            raise _fault(path, f"line {number} is not {_DIGITS} hex digits")
        yield line


def _fault(path: Path, what: str) -> Misconfigured:
    return Misconfigured(f"Cannot read {path}: {what}.")
