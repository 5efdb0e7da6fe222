"""Results as text: CSV for spreadsheets and everything else, JSON lines for programs."""

from __future__ import annotations

import csv
import io
import json
from typing import IO, TYPE_CHECKING, Any, Protocol

from pigeonholed.exporting import Kind, iso_of
from pigeonholed.log_lines import escaped
from pigeonholed.spreadsheets import shielded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pigeonholed.exporting import Cells, Column


class Table(Protocol):
    """Takes rows, and makes a file of them."""

    def write(self, rows: Sequence[Cells]) -> None:
        """Take rows."""

    def close(self) -> None:
        """Write what is left."""


class CsvTable:
    """RFC 4180 in UTF-8, with a header; what is not known is empty, times are ISO 8601 in UTC.

    Text that a spreadsheet would take for a formula gets an apostrophe in front (`spreadsheets.bare` takes it off).

    Args:
        stream: binary.
        columns: of each row.
        for_eyes: a terminal shows it: characters that it would obey are escaped.
    """

    def __init__(self, stream: IO[bytes], columns: Sequence[Column], *, for_eyes: bool = False) -> None:
        self._stream = stream
        self._columns = columns
        self._for_eyes = for_eyes
        self._write([[column.name for column in columns]])

    def write(self, rows: Sequence[Cells]) -> None:
        """Write rows."""
        kinds = [column.kind for column in self._columns]
        self._write([[_cell(value, kind) for value, kind in zip(row, kinds, strict=True)] for row in rows])

    def close(self) -> None:
        """Nothing is left."""

    def _write(self, rows: list[list[Any]]) -> None:
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\r\n").writerows(rows)
        shown = text.getvalue()
        if self._for_eyes:
            shown = "".join(c if c.isprintable() or c == "\n" else escaped(c) for c in shown.replace("\r\n", "\n"))
        self._stream.write(shown.encode("utf-8", "backslashreplace"))


class JsonLinesTable:
    """One JSON object a row, in ASCII; what is not known is null, times are ISO 8601 in UTC.

    Args:
        stream: binary.
        columns: of each row.
    """

    def __init__(self, stream: IO[bytes], columns: Sequence[Column]) -> None:
        self._stream = stream
        self._names = [column.name for column in columns]
        self._times = [index for index, column in enumerate(columns) if column.kind is Kind.TIME]

    def write(self, rows: Sequence[Cells]) -> None:
        """Write rows."""
        lines = []
        for row in rows:
            cells = list(row)
            for index in self._times:
                cells[index] = None if cells[index] is None else iso_of(cells[index])
            lines.append(json.dumps(dict(zip(self._names, cells, strict=True)), ensure_ascii=True))
        self._stream.write("".join(f"{line}\n" for line in lines).encode("ascii"))

    def close(self) -> None:
        """Nothing is left."""


def _cell(value: Any, kind: Kind) -> Any:
    if value is None:
        return None
    if kind is Kind.TIME:
        return iso_of(value)
    return shielded(value) if kind in {Kind.TEXT, Kind.WORD} else value
