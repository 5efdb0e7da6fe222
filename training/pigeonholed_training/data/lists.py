"""A CSV file that lists pictures, each with its class and perhaps with the part of the split it belongs to."""

from __future__ import annotations

import csv
import io
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pigeonholed.spreadsheets import bare
from pigeonholed_training.data.splitting import Part
from pigeonholed_training.errors import Misconfigured, WrongUsage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

PART_WORDS: Final[Mapping[str, Part]] = {
    "train": Part.TRAIN,
    "training": Part.TRAIN,
    "val": Part.VALIDATION,
    "valid": Part.VALIDATION,
    "validation": Part.VALIDATION,
    "cal": Part.CALIBRATION,
    "calibration": Part.CALIBRATION,
    "test": Part.TEST,
    "testing": Part.TEST,
}
"""What a folder or a field is called, in any case, that says which part of the split its pictures belong to."""

_PATH_COLUMNS: Final = ("path", "filename", "file", "image")
_LABEL_COLUMNS: Final = ("label", "class")
_PART_COLUMNS: Final = ("split", "part")
_DELIMITERS: Final = ",;\t"


@dataclass(frozen=True, slots=True)
class Line:
    """One picture of the list.

    Attributes:
        number: of the line in the file, from 1.
        path: relative to the folder of the list where it lies in it, else absolute.
        label: its class.
        part: None where the list leaves that open.
    """

    number: int
    path: str
    label: str
    part: Part | None


def read(file: Path) -> tuple[Line, ...]:
    """The pictures of a list, in its order; one named twice alike counts once.

    UTF-8 with or without a byte order mark; separated by commas, semicolons or tabs, whichever makes sense of the first
    line, which names the columns: path, filename, file or image; label or class; and perhaps split or part.

    Raises:
        WrongUsage: the file cannot be read, or a path leads out of its folder to nothing.
        Misconfigured: it is no such list; the message names the line.
    """
    try:
        data = file.read_bytes()
    except OSError as fault:
        raise WrongUsage(f"Cannot train on {file}: {fault.strerror}.") from fault
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        number = data.count(b"\n", 0, fault.start) + 1
        raise _fault(file, number, "it is no UTF-8 text; save the list as UTF-8") from None
    rows = _rows(file, text)
    if not rows:
        raise Misconfigured(f"Cannot train on {file}: the list is empty.")
    columns = _columns(file, *rows[0])
    lines: dict[str, Line] = {}
    for line in _lines(file, rows[1:], columns, len(rows[0][1])):
        before = lines.setdefault(line.path, line)
        if (before.label, before.part) != (line.label, line.part):
            what = "class" if before.label != line.label else "split"
            raise _fault(file, line.number, f"{line.path!a} has another {what} than in line {before.number}")
    return tuple(lines.values())


def _fault(file: Path, number: int, what: str) -> Misconfigured:
    return Misconfigured(f"Cannot train on {file}, line {number}: {what}.")


def _rows(file: Path, text: str) -> list[tuple[int, list[str]]]:
    """The fields of each line that has any, with its number; by the delimiter that makes sense of the first."""
    tried = [list(_parsed(file, text, delimiter, 1)) for delimiter in _DELIMITERS]
    heads = [{name.strip().casefold() for name in rows[0][1]} if rows else set() for rows in tried]
    fitting = [
        delimiter
        for delimiter, head in zip(_DELIMITERS, heads, strict=True)
        if head & {*_PATH_COLUMNS} and head & {*_LABEL_COLUMNS}
    ]
    widest = max(range(len(heads)), key=lambda index: len(heads[index]))
    return list(_parsed(file, text, fitting[0] if fitting else _DELIMITERS[widest]))


def _parsed(file: Path, text: str, delimiter: str, most: int | None = None) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    count = 0
    try:
        for row in reader:
            if any(field.strip() for field in row):
                yield reader.line_num, row
                count += 1
                if count == most:
                    return
    except csv.Error as fault:
        raise _fault(file, reader.line_num, f"it cannot be read as CSV ({fault})") from fault


def _columns(file: Path, number: int, head: Sequence[str]) -> tuple[int, int, int | None]:
    """Where path, label and part stand in each line."""
    names = [name.strip().casefold() for name in head]

    def position(known: tuple[str, ...]) -> int | None:
        return next((names.index(name) for name in known if name in names), None)

    path, label = position(_PATH_COLUMNS), position(_LABEL_COLUMNS)
    if path is None or label is None:
        missing = _PATH_COLUMNS if path is None else _LABEL_COLUMNS
        have = ", ".join(ascii(name.strip()[:40]) for name in head[:6])
        raise _fault(file, number, f"there must be a column {' or '.join(missing)}, and the first line has {have}")
    return path, label, position(_PART_COLUMNS)


def _lines(
    file: Path, rows: Sequence[tuple[int, list[str]]], columns: tuple[int, int, int | None], width: int
) -> Iterator[Line]:
    root = os.path.abspath(file.parent)
    at_path, at_label, at_part = columns
    for number, row in rows:
        if len(row) != width:
            raise _fault(file, number, f"it has {len(row)} field(s), and the first line has {width}")
        path, label = bare(row[at_path].strip()), bare(row[at_label].strip())
        if not path or "\0" in path:
            raise _fault(file, number, "the path is empty" if not path else "the path holds a NUL")
        if not label:
            raise _fault(file, number, "the class is empty")
        word = "" if at_part is None else row[at_part].strip()
        if word and word.casefold() not in PART_WORDS:
            raise _fault(file, number, f"the split is {word[:40]!a}, which is none of {', '.join(PART_WORDS)}")
        yield Line(number, _placed(file, root, path, number), label, PART_WORDS.get(word.casefold()))


def _placed(file: Path, root: str, path: str, number: int) -> str:
    whole = os.path.normpath(os.path.join(root, path))
    inside = os.path.join(root, "")
    if whole.startswith(inside):
        return whole[len(inside) :]
    if not os.path.exists(whole):
        # A picture that went missing is passed over like a broken one; a wrong prefix is wrong for all of them.
        raise WrongUsage(f"Cannot train on {file}, line {number}: there is no file {whole}.")
    return whole
