"""What a cache of decoded pictures knows of each file, in SQLite."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from pigeonholed_training.data.decoding import Stamp

NONE: Final = -1
"""The row of a file that is no picture."""

_APPLICATION: Final = 0x70676843
_VERSION: Final = 1
_TABLES: Final = """
CREATE TABLE store (rule TEXT NOT NULL, name TEXT NOT NULL, rows INTEGER NOT NULL);
CREATE TABLE files (
    path BLOB PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL,
    row INTEGER NOT NULL, sha256 TEXT NOT NULL, reason TEXT NOT NULL, detail TEXT NOT NULL
) WITHOUT ROWID;
"""


class Damaged(Exception):
    """The index or what it points to cannot be used; the message says why."""


class Record(NamedTuple):
    """What became of a file.

    Attributes:
        stamp: of the file when it was read.
        row: of its pixels, `NONE` where it is no picture.
        sha256: of its bytes, hex; empty where it is no picture.
        reason: why it is none, of the daemon's vocabulary; empty where it is one.
        detail: the same for people.
    """

    stamp: Stamp
    row: int
    sha256: str
    reason: str = ""
    detail: str = ""

    @property
    def is_picture(self) -> bool:
        """Whether it has a row."""
        return self.row != NONE


class Index:
    """The index of one cache. Owned by the thread that opened it, under the lock of the cache.

    Attributes:
        name: what the files of pixels and thumbnails are called after.
        rows: how many rows in them are valid.
    """

    def __init__(self, connection: sqlite3.Connection, name: str, rows: int) -> None:
        self._connection = connection
        self.name = name
        self.rows = rows

    @classmethod
    def make(cls, file: Path, rule: str, name: str) -> Index:
        """Makes an empty index in the place of whatever was there.

        Raises:
            OSError, sqlite3.Error: it cannot be written.
        """
        aside = file.with_name(f"{file.name}.new")
        # The journal of another file would be played back into this one.
        for leftover in (aside, *(path.with_name(f"{path.name}-journal") for path in (aside, file))):
            leftover.unlink(missing_ok=True)
        with contextlib.closing(sqlite3.connect(aside)) as connection:
            _make_durable(connection)
            connection.executescript(
                f"BEGIN; PRAGMA application_id = {_APPLICATION}; PRAGMA user_version = {_VERSION}; {_TABLES}"
            )
            connection.execute("INSERT INTO store VALUES (?, ?, 0)", (rule, name))
            connection.commit()
        os.replace(aside, file)  # whole at any moment
        return cls.open(file, rule)

    @classmethod
    def open(cls, file: Path, rule: str) -> Index:
        """Opens the index that is there.

        Raises:
            Damaged: it is none, or of another version or rule.
            sqlite3.OperationalError: it cannot be read now.
        """
        connection = sqlite3.connect(file)
        try:
            _make_durable(connection)
            kind = (_number(connection, "application_id"), _number(connection, "user_version"))
            if kind != (_APPLICATION, _VERSION):
                raise Damaged("it is of another kind or version")
            have, name, rows = connection.execute("SELECT rule, name, rows FROM store").fetchone()
            if have != rule:
                raise Damaged("it was made by other rules")
        except (TypeError, ValueError, sqlite3.DatabaseError) as fault:
            connection.close()
            if isinstance(fault, sqlite3.OperationalError) and "no such table" not in str(fault):
                raise
            raise Damaged(str(fault)) from fault
        except BaseException:
            connection.close()
            raise
        return cls(connection, str(name), int(rows))

    def records(self) -> dict[str, Record]:
        """All that is known, by path.

        Raises:
            Damaged: it cannot be read.
        """
        query = "SELECT path, size, mtime_ns, ctime_ns, row, sha256, reason, detail FROM files"
        try:
            found = {
                os.fsdecode(path): Record((size, mtime, ctime), row, sha256, reason, detail)
                for path, size, mtime, ctime, row, sha256, reason, detail in self._connection.execute(query)
            }
            if any(not NONE <= record.row < self.rows for record in found.values()):
                raise Damaged("it points beyond its rows")
        except (TypeError, sqlite3.DatabaseError) as fault:
            raise Damaged(str(fault)) from fault
        return found

    def add(self, records: Iterable[tuple[str, Record]], rows: int) -> None:
        """Keeps what became of some files, and that there are `rows` rows now; all of it or, if it is killed, nothing.

        Raises:
            sqlite3.Error: the disk is full, or failed.
        """
        with self._connection:
            self._connection.executemany(
                "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                ((os.fsencode(path), *record.stamp, *record[1:]) for path, record in records),
            )
            self._connection.execute("UPDATE store SET rows = ?", (rows,))
        self.rows = rows

    def close(self) -> None:
        """Lets go of the file."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()


def _make_durable(connection: sqlite3.Connection) -> None:
    """A commit is on the disk when it returns; with a rollback journal, which works on every file system."""
    connection.execute("PRAGMA synchronous = FULL")


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    return int(connection.execute(f"PRAGMA {pragma}").fetchone()[0])
