"""What is on the disk and what is in the database, side by side in a temporary database that spills to the disk.

A million files and rows are compared by joins in there, in little memory, and the daemon's database is asked only for
its rows by their ids, once.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from pigeonholed import company_survey
from pigeonholed.images import IN_FLIGHT, Status
from pigeonholed.output import PRIVATE
from pigeonholed.paths import to_text
from pigeonholed.snapshot import pages
from pigeonholed.tables import images

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from sqlalchemy.engine import Connection

_BATCH = 1000
_CACHE_KIB = 64 * 1024
ELSEWHERE = -1
"""The output of rows whose inbox is not configured, so that nobody knows it."""
ASIDE = -2
"""The output of rows whose inbox has another one than those that are looked at."""

_COMPANION = ("id", "output", "inbox", "picture", "place", "part", "source", "destination")
_TABLES = """
    CREATE TABLE entries (output INTEGER, path TEXT, size INTEGER, regular INTEGER);
    CREATE TABLE rows (id INTEGER, output INTEGER, inbox TEXT, destination TEXT, status TEXT, outcome TEXT,
                       size INTEGER, sha256 TEXT, arrival TEXT);
    CREATE TABLE flying (id INTEGER, inbox TEXT, path TEXT, status TEXT, token TEXT, arrival TEXT);
    CREATE TABLE lost (id INTEGER, inbox TEXT, path TEXT, detail TEXT);
    CREATE TABLE orphans (output INTEGER, path TEXT, size INTEGER, sha256 TEXT, taken INTEGER DEFAULT 0);
    CREATE TABLE companions (id INTEGER, output INTEGER, inbox TEXT, picture TEXT, place TEXT, part INTEGER,
                             source TEXT, destination TEXT);
    CREATE TABLE known (output INTEGER, path TEXT);
    CREATE TABLE elsewhere (id INTEGER PRIMARY KEY, found TEXT);
"""
_INDICES = """
    CREATE INDEX entries_by_path ON entries (output, path);
    CREATE INDEX rows_by_place ON rows (destination, output);
    CREATE INDEX known_by_path ON known (path, output);
    CREATE INDEX companions_by_id ON companions (id);
    INSERT INTO orphans (output, path, size)
        SELECT output, path, size FROM entries e
        WHERE regular AND NOT EXISTS (
            SELECT 1 FROM rows r WHERE r.destination = e.path AND r.output IN (e.output, -1))
        AND NOT EXISTS (SELECT 1 FROM known k WHERE k.path = e.path AND k.output IN (e.output, -1));
    CREATE INDEX orphans_by_path ON orphans (output, path);
    CREATE INDEX orphans_by_size ON orphans (output, size);
    CREATE INDEX orphans_by_hash ON orphans (output, sha256);
"""


class Survey:
    """Both sides, for a while. Owned by one thread.

    Args:
        outputs: the output folders; a number stands for each, which is its place in this list.
        on_seen: told how many more files or rows have been taken in.
    """

    def __init__(self, outputs: Sequence[str], on_seen: Callable[[int], Any] = lambda _count: None) -> None:
        self.outputs = outputs
        self._on_seen = on_seen
        # Without a name SQLite makes a temporary file, which is gone with the connection, however that ends.
        self._scratch = sqlite3.connect("", isolation_level=None)
        self._scratch.executescript(f"PRAGMA cache_size = -{_CACHE_KIB}; PRAGMA journal_mode = OFF; {_TABLES}")
        self.unreadable: list[tuple[int, str, str]] = []
        self.unconfigured: dict[str, int] = {}
        self.last_id = 0

    def close(self) -> None:
        """Forget everything."""
        self._scratch.close()

    def walk(self) -> int:
        """Take in every file below the outputs, but for the work folders; returns how many.

        To be done before the rows are read: whatever is filed meanwhile has its row by then.
        """
        for number, root in enumerate(self.outputs):
            self._take("entries", ((number, *entry) for entry in self._below(number, root)))
        return int(self._one("SELECT count(*) FROM entries", ()))

    def read(self, connection: Connection, inboxes: Mapping[str, int]) -> None:
        """Take in the rows, and join the two.

        Args:
            connection: a snapshot of the database.
            inboxes: by name, the number of their output, or `ASIDE`; what is not in here is not configured.
        """
        columns = images.c
        names = (
            columns.id,
            columns.inbox,
            columns.source_path,
            columns.destination,
            columns.status,
            columns.outcome,
            columns.size_bytes,
            columns.sha256,
            columns.arrival,
            columns.token,
            columns.detail,
        )
        wanted = [status.value for status in (*IN_FLIGHT, Status.FILED, Status.LOST)]
        for page in pages(connection, sa.select(*names).where(columns.status.in_(wanted)), size=_BATCH):
            self._take_rows(page, inboxes)
            self.last_id = page[-1].id
            self._on_seen(len(page))
        self._read_companions(connection, inboxes)
        self._scratch.executescript(_INDICES)

    def _read_companions(self, connection: Connection, inboxes: Mapping[str, int]) -> None:
        """Take in the sidecars, and where files are that are being filed anew: they explain files, too."""
        left = ((inboxes.get(inbox, ELSEWHERE), path) for inbox, path in company_survey.left_by_moves(connection))
        self._take("known", left)
        for page in company_survey.read(connection):
            for _number, group in groupby(page, key=lambda row: row["id"]):
                parts = [row | {"output": inboxes.get(row["inbox"], ELSEWHERE)} for row in group]
                output, planned = parts[0]["output"], company_survey.places(parts, parts[0]["place"])
                if parts[0]["status"] == Status.PLANNED:
                    self._take("known", ((output, path) for path in planned))
                else:
                    self._take("companions", (tuple(part[name] for name in _COMPANION) for part in parts))
                self._take("known", ((output, part["destination"]) for part in parts))

    def filed(self, inbox: str | None) -> Iterator[dict[str, Any]]:
        """Each filed row of a known output beside what is in its place, by place and the newest first.

        Args:
            inbox: rows of this one only.
        """
        return self._ask(
            "SELECT r.*, e.size AS found_size, e.regular FROM rows r "
            "LEFT JOIN entries e ON e.output = r.output AND e.path = r.destination "
            "WHERE r.status = 'filed' AND r.output >= 0 AND (?1 IS NULL OR r.inbox = ?1) "
            "ORDER BY r.output, r.destination, r.id DESC",
            (inbox,),
        )

    def count_filed(self, inbox: str | None) -> int:
        """How many `filed` will give."""
        return int(self._one("SELECT count(*) FROM rows WHERE status = 'filed' AND output >= 0 "
                             "AND (?1 IS NULL OR inbox = ?1)", (inbox,)))  # fmt: skip

    def flying(self, inbox: str | None) -> Iterator[dict[str, Any]]:
        """The rows that are not finished."""
        return self._ask("SELECT * FROM flying WHERE ?1 IS NULL OR inbox = ?1 ORDER BY id", (inbox,))

    def lost(self, inbox: str | None) -> Iterator[dict[str, Any]]:
        """The rows that say that their file is lost."""
        return self._ask("SELECT * FROM lost WHERE ?1 IS NULL OR inbox = ?1 ORDER BY id", (inbox,))

    def orphans(self) -> Iterator[dict[str, Any]]:
        """The files that no row explains and that `claim_orphan` did not give away, by place."""
        return self._ask("SELECT output, path, size FROM orphans WHERE NOT taken ORDER BY output, path")

    def odd(self) -> Iterator[dict[str, Any]]:
        """What is no regular file and that no row speaks of."""
        return self._ask(
            "SELECT output, path FROM entries e WHERE NOT regular AND NOT EXISTS ("
            "SELECT 1 FROM rows r WHERE r.destination = e.path AND r.output IN (e.output, -1)) AND NOT EXISTS ("
            "SELECT 1 FROM known k WHERE k.path = e.path AND k.output IN (e.output, -1)) ORDER BY output, path"
        )

    def claim_orphan(
        self, output: int, size: int, sha256: str, name: str, hash_of: Callable[[str], str | None]
    ) -> str | None:
        """A file of that content that no row explains, given away once; one of the same name rather than another.

        Args:
            output: below which.
            size: in bytes.
            sha256: of its content.
            name: last part of the path that it had.
            hash_of: reads a file, by its path as in the database; None where that cannot be.
        """
        unread = "SELECT path FROM orphans WHERE output = ? AND size = ? AND sha256 IS NULL"
        for row in list(self._ask(unread, (output, size))):
            found = hash_of(row["path"]) or ""
            self._scratch.execute(
                "UPDATE orphans SET sha256 = ? WHERE output = ? AND path = ?", (found, output, row["path"])
            )
        same = "SELECT path FROM orphans WHERE output = ? AND sha256 = ? AND NOT taken LIMIT 100"
        paths = [row["path"] for row in self._ask(same, (output, sha256))]
        if not paths:
            return None
        path = next((path for path in paths if path.rpartition("/")[2] == name), paths[0])
        self._scratch.execute("UPDATE orphans SET taken = 1 WHERE output = ? AND path = ?", (output, path))
        return str(path)

    def claim_place(self, output: int, path: str) -> bool:
        """Whether a file that no row explains, and that was not given away, is at a path; it is, from now on."""
        query = "UPDATE orphans SET taken = 1 WHERE output = ? AND path = ? AND NOT taken"
        return self._scratch.execute(query, (output, path)).rowcount > 0

    def note_elsewhere(self, image: int, found: str | None) -> None:
        """A picture is not in its place; where it was found, if it was."""
        self._scratch.execute("INSERT OR REPLACE INTO elsewhere VALUES (?, ?)", (image, found))

    def companions_missing(self, inbox: str | None) -> Iterator[dict[str, Any]]:
        """The sidecars that were not in their places, of pictures that are somewhere; `found`: not in their own."""
        return self._ask(
            "SELECT c.*, m.found FROM companions c LEFT JOIN elsewhere m ON m.id = c.id "
            "WHERE c.output >= 0 AND (?1 IS NULL OR c.inbox = ?1) AND (m.id IS NULL OR m.found IS NOT NULL) "
            "AND NOT EXISTS (SELECT 1 FROM entries e WHERE e.output = c.output AND e.path = c.destination AND regular) "
            "ORDER BY c.id, c.part",
            (inbox,),
        )

    def companions_of(self, image: int) -> list[dict[str, Any]]:
        """All sidecars of a picture."""
        return list(self._ask("SELECT * FROM companions WHERE id = ? ORDER BY part", (image,)))

    def is_filed(self, output: int, destination: str, outcome: str) -> bool:
        """Whether a row says that there is something of that outcome there, or will be."""
        return bool(
            self._one(
                "SELECT EXISTS (SELECT 1 FROM rows WHERE destination = ? AND output IN (?, -1) AND outcome = ?)",
                (destination, output, outcome),
            )
        )

    def is_flying(self, arrival: str) -> bool:
        """Whether a file in a work folder is of a row that is not finished."""
        return bool(self._one("SELECT EXISTS (SELECT 1 FROM flying WHERE arrival = ?)", (arrival,)))

    def _take_rows(self, page: Sequence[sa.Row[Any]], inboxes: Mapping[str, int]) -> None:
        page = [row for row in page if inboxes.get(row.inbox) != ASIDE]
        for row in page:
            if row.inbox not in inboxes and row.status == Status.FILED and row.destination is not None:
                self.unconfigured[row.inbox] = self.unconfigured.get(row.inbox, 0) + 1
        self._take(
            "rows",
            (
                (r.id, inboxes.get(r.inbox, ELSEWHERE), r.inbox, r.destination, r.status, r.outcome, r.size_bytes,
                 r.sha256, r.arrival)
                for r in page
                if r.destination is not None and r.status in {Status.FILED, Status.PLANNED}
            ),
        )  # fmt: skip
        self._take(
            "flying",
            ((r.id, r.inbox, r.source_path, r.status, r.token, r.arrival) for r in page if r.status in IN_FLIGHT),
        )
        self._take("lost", ((r.id, r.inbox, r.source_path, r.detail) for r in page if r.status == Status.LOST))

    def _take(self, table: str, rows: Iterable[tuple[Any, ...]]) -> None:
        rows = iter(rows)
        while batch := list(islice(rows, _BATCH)):
            marks = ", ".join("?" * len(batch[0]))
            columns = "(output, path, size, regular)" if table == "entries" else ""
            self._scratch.execute("BEGIN")
            self._scratch.executemany(f"INSERT INTO {table} {columns} VALUES ({marks})", batch)  # noqa: S608 (ours)
            self._scratch.execute("COMMIT")

    def _below(self, number: int, root: str) -> Iterator[tuple[str, int, bool]]:
        """Every entry below a folder that is no folder: path, size, whether it is a regular file."""
        folders = [""]
        while folders:
            folder = folders.pop()
            seen = 0
            try:
                with os.scandir(os.path.join(root, folder)) as entries:
                    for entry in entries:
                        path = f"{folder}/{entry.name}" if folder else entry.name
                        if entry.is_dir(follow_symlinks=False):
                            if path != PRIVATE:
                                folders.append(path)
                            continue
                        try:
                            status = entry.stat(follow_symlinks=False)
                        except FileNotFoundError:
                            continue
                        seen += 1
                        if seen % _BATCH == 0:
                            self._on_seen(_BATCH)
                        yield to_text(path), status.st_size, stat.S_ISREG(status.st_mode)
            except FileNotFoundError:
                continue  # moved or removed meanwhile
            except OSError as error:
                self.unreadable.append((number, to_text(folder), error.strerror or str(error)))
            self._on_seen(seen % _BATCH)

    def _ask(self, query: str, values: tuple[Any, ...] = ()) -> Iterator[dict[str, Any]]:
        cursor = self._scratch.execute(query, values)
        names = [column[0] for column in cursor.description]
        while rows := cursor.fetchmany(_BATCH):
            for row in rows:
                yield dict(zip(names, row, strict=True))

    def _one(self, query: str, values: tuple[Any, ...]) -> Any:
        return self._scratch.execute(query, values).fetchone()[0]
