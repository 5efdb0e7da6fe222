"""Core statements, compiled once: a batch of rows then goes to the driver without a detour for each row.

SQLAlchemy would build a parameter dictionary for every row of an `executemany`; at thousands of files a second that
costs as much as the database itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from sqlalchemy.dialects import postgresql, sqlite

from pigeonholed.tables import UtcDateTime

if TYPE_CHECKING:
    import sqlalchemy as sa
    from sqlalchemy.engine import Connection, Dialect
    from sqlalchemy.sql import ClauseElement

Row = Mapping[str, Any]
_SIZES = (64, 8)  # rows in one statement; 1,024 are no faster
_PARAMETERS = 900  # SQLite before 3.32 took 999
_MOMENTS = 16  # kept as the driver takes them


def insert_of(dialect: Dialect) -> Any:
    """The `insert` of a kind of database that can say what becomes of a row that is there already."""
    return postgresql.insert if dialect.name == "postgresql" else sqlite.insert


@dataclass(frozen=True, slots=True)
class Prepared:
    """A statement as the driver takes it.

    Attributes:
        sql: with the driver's own placeholders.
        constants: values of those that are the same for every row.
        adapters: by name, what turns a Python value that is no constant into one of the driver.
        positional: whether the driver takes tuples, or dictionaries.
        pick: makes such a tuple of a row, its values in the order of the placeholders.
        many: the same for so many rows in one statement, the most first; for inserts into SQLite.
    """

    sql: str
    constants: Mapping[str, Any]
    adapters: Mapping[str, Callable[[Any], Any]]
    positional: bool
    pick: Callable[[Row], tuple[Any, ...]]
    many: tuple[tuple[int, str], ...] = ()

    @classmethod
    def compile(cls, statement: ClauseElement, dialect: Dialect, columns: Iterable[str] | None = None) -> Prepared:
        """Compile for a database; `columns` are those that an insert without values gets for each row."""
        compiled: Any = statement.compile(dialect=dialect, column_keys=None if columns is None else list(columns))
        constants, adapters = {}, {}
        for name, parameter in compiled.binds.items():
            adapter = _adapter(parameter.type, dialect)
            if not parameter.required:
                constants[name] = parameter.value if adapter is None else adapter(parameter.value)
            elif adapter is not None:
                adapters[name] = adapter
        names = tuple(compiled.positiontup or compiled.binds)
        pick = itemgetter(*names) if len(names) > 1 else lambda row: (row[names[0]],)
        sql, positional = str(compiled), compiled.positiontup is not None
        return cls(sql, constants, adapters, positional, pick, _of_many_rows(sql, len(names)) if positional else ())

    @classmethod
    def inserting(cls, table: sa.Table, dialect: Dialect, columns: Iterable[str] = ()) -> Prepared:
        """Compile what inserts rows and leaves those alone that are there; all columns where none are named."""
        names = tuple(columns) or tuple(column.name for column in table.columns)
        return cls.compile(insert_of(dialect)(table).on_conflict_do_nothing(), dialect, names)

    def execute(self, connection: Connection, rows: Iterable[Row]) -> None:
        """Run it for every row; each names every parameter that is no constant."""
        if not self.positional:
            connection.exec_driver_sql(self.sql, list(map(self._adapted, rows)))
            return
        given = map(self._adapted, rows) if self.adapters or self.constants else rows
        values = list(map(self.pick, given))
        done = 0
        for size, sql in self.many:
            while len(values) - done >= size:
                connection.exec_driver_sql(sql, tuple(chain.from_iterable(values[done : done + size])))
                done += size
        if done < len(values):
            connection.exec_driver_sql(self.sql, values[done:])

    def _adapted(self, row: Row) -> dict[str, Any]:
        """The row as the driver takes it, with the constants."""
        adapted = {**row, **self.constants}
        for name, adapter in self.adapters.items():
            if (value := adapted[name]) is not None:
                adapted[name] = adapter(value)
        return adapted


def _of_many_rows(sql: str, columns: int) -> tuple[tuple[int, str], ...]:
    """An insert of values, for many rows at once; nothing for other statements.

    At each row of an `executemany`, sqlite3 hands over to other threads and waits for them.
    """
    row = f"({', '.join('?' * columns)})"
    one = f"VALUES {row}"
    if not sql.startswith("INSERT ") or sql.count(one) != 1:
        return ()
    fitting = (size for size in _SIZES if size * columns <= _PARAMETERS)
    return tuple((size, sql.replace(one, one + f", {row}" * (size - 1))) for size in fitting)


def _adapter(kind: Any, dialect: Dialect) -> Callable[[Any], Any] | None:
    """What turns values of a type into those of the driver; None where nothing has to."""
    adapter: Callable[[Any], Any] | None = kind.dialect_impl(dialect).bind_processor(dialect)
    if adapter is not None and isinstance(kind, UtcDateTime):
        return lru_cache(_MOMENTS)(adapter)  # a batch has one moment, which would be written out for each row
    return adapter
