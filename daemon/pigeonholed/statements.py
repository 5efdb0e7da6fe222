"""Core statements, compiled once: a batch of rows then goes to the driver without a detour for each row.

SQLAlchemy would build a parameter dictionary for every row of an `executemany`; at thousands of files a second that
costs as much as the database itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy.dialects import postgresql, sqlite

if TYPE_CHECKING:
    import sqlalchemy as sa
    from sqlalchemy.engine import Connection, Dialect
    from sqlalchemy.sql import ClauseElement

Row = Mapping[str, Any]


def insert_of(dialect: Dialect) -> Any:
    """The `insert` of a kind of database that can say what becomes of a row that is there already."""
    return postgresql.insert if dialect.name == "postgresql" else sqlite.insert


@dataclass(frozen=True, slots=True)
class Prepared:
    """A statement as the driver takes it.

    Attributes:
        sql: with the driver's own placeholders.
        names: of the parameters, in order.
        constants: values of those that are the same for every row.
        adapt: by name, what turns a Python value into one of the driver.
        positional: whether the driver takes tuples, or dictionaries.
    """

    sql: str
    names: tuple[str, ...]
    constants: Mapping[str, Any]
    adapt: Mapping[str, Callable[[Any], Any]]
    positional: bool

    @classmethod
    def compile(cls, statement: ClauseElement, dialect: Dialect, columns: Iterable[str] | None = None) -> Prepared:
        """Compile for a database; `columns` are those that an insert without values gets for each row."""
        compiled: Any = statement.compile(dialect=dialect, column_keys=None if columns is None else list(columns))
        names = tuple(compiled.positiontup or compiled.binds)
        adapt = {}
        for name, parameter in compiled.binds.items():
            adapter = parameter.type.dialect_impl(dialect).bind_processor(dialect)
            if adapter is not None:
                adapt[name] = adapter
        given = {name: parameter.value for name, parameter in compiled.binds.items() if not parameter.required}
        constants = {name: adapt[name](value) if name in adapt else value for name, value in given.items()}
        return cls(str(compiled), names, constants, adapt, compiled.positiontup is not None)

    @classmethod
    def inserting(cls, table: sa.Table, dialect: Dialect, columns: Iterable[str] = ()) -> Prepared:
        """Compile what inserts rows and leaves those alone that are there; all columns where none are named."""
        names = tuple(columns) or tuple(column.name for column in table.columns)
        return cls.compile(insert_of(dialect)(table).on_conflict_do_nothing(), dialect, names)

    def execute(self, connection: Connection, rows: Iterable[Row]) -> None:
        """Run it for every row; each names every parameter that is no constant."""
        values = [self._values(row) for row in rows]
        if self.positional:
            connection.exec_driver_sql(self.sql, [tuple(row) for row in values])
        else:
            connection.exec_driver_sql(self.sql, [dict(zip(self.names, row, strict=True)) for row in values])

    def _values(self, row: Row) -> list[Any]:
        constants, adapt = self.constants, self.adapt
        values = []
        for name in self.names:
            if name in constants:
                values.append(constants[name])
            elif name in adapt and row[name] is not None:
                values.append(adapt[name](row[name]))
            else:
                values.append(row[name])
        return values
