"""Which results are meant: one value for every command that lists them, exports them or puts them back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from pigeonholed.images import Placement, Reason, Status
from pigeonholed.paths import to_text
from pigeonholed.tables import images

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_PATTERN_CHARACTERS = 1000
LARGEST = (1 << 63) - 1
"""Databases take no larger number."""


class WrongSelection(ValueError):
    """What was asked for cannot be; the message is a whole sentence."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The results that answer to every condition given; without one, all that is filed.

    Attributes:
        image: the id of one.
        inbox: it came from this inbox.
        outcome: what became of it.
        reason: why it was rejected.
        label: what it was taken for.
        model: the model that said so.
        since: filed then or later; aware.
        until: filed before then; aware.
        path: a pattern for its path in the inbox, where `*` stands for anything, a slash too, and `?` for one
            character; upper and lower case differ.
        filed_only: leave out what is in flight, was put back, or has vanished.
    """

    image: int | None = None
    inbox: str | None = None
    outcome: Placement | None = None
    reason: Reason | None = None
    label: str | None = None
    model: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    path: str | None = None
    filed_only: bool = True

    def conditions(self) -> list[sa.ColumnElement[bool]]:
        """For the WHERE clause of a query on `images`, for each kind of database."""
        columns = images.c
        equal = {
            columns.id: self.image,
            columns.inbox: self.inbox,
            columns.outcome: self.outcome,
            columns.reason: self.reason,
            columns.label: self.label,
            columns.model: self.model,
            columns.status: Status.FILED if self.filed_only else None,
        }
        found: list[sa.ColumnElement[bool]] = [column == value for column, value in equal.items() if value is not None]
        if self.since is not None:
            found.append(columns.filed_at >= self.since)
        if self.until is not None:
            found.append(columns.filed_at < self.until)
        if self.path is not None:
            found.append(_like(columns.source_path, self.path))
        return found

    def as_arguments(self) -> dict[str, Any]:
        """The conditions as JSON can hold them; `from_arguments` is the inverse. `filed_only` does not travel."""
        given = {
            name: getattr(self, name) for name in ("image", "inbox", "outcome", "reason", "label", "model", "path")
        }
        given |= {name: moment.isoformat() for name in ("since", "until") if (moment := getattr(self, name))}
        return {name: value for name, value in given.items() if value is not None}

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any]) -> Selection:
        """Read what a command or a request asks for; what is no condition is left to others.

        Raises:
            WrongSelection: a value cannot be one of its kind.
        """
        return cls(
            image=number_in(arguments, "image"),
            inbox=text_in(arguments, "inbox"),
            outcome=_word(arguments, "outcome", Placement),
            reason=_word(arguments, "reason", Reason),
            label=text_in(arguments, "label"),
            model=text_in(arguments, "model"),
            since=_moment(arguments, "since"),
            until=_moment(arguments, "until"),
            path=_pattern(arguments, "path"),
        )


class _like(FunctionElement[bool]):  # noqa: N801 (it is used as a function of SQL)
    """Whether text matches a pattern of `*` and `?`; the database's own operator, so that no row comes here in vain."""

    inherit_cache = True
    type = sa.Boolean()

    def __init__(self, column: sa.ColumnElement[str], pattern: str) -> None:
        # GLOB knows `[` as well, which would be a third sign; LIKE takes upper for lower case in SQLite.
        glob = pattern.replace("[", "[[]")
        like = "".join({"*": "%", "?": "_"}.get(c, f"!{c}" if c in "!%_" else c) for c in pattern)
        super().__init__(column, sa.literal(glob), sa.literal(like))


@compiles(_like, "sqlite")
def _glob_of_sqlite(element: _like, compiler: Any, **options: Any) -> str:
    column, glob, _like_pattern = (compiler.process(clause, **options) for clause in element.clauses)
    return f"{column} GLOB {glob}"


@compiles(_like)
def _like_of_others(element: _like, compiler: Any, **options: Any) -> str:
    column, _glob, like = element.clauses
    return f"{compiler.process(column, **options)} LIKE {compiler.process(like, **options)} ESCAPE '!'"


def number_in(arguments: Mapping[str, Any], key: str) -> int | None:
    """A whole number from 1 on; None where none is given.

    Raises:
        WrongSelection: it is something else.
    """
    value = arguments.get(key)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= LARGEST:
        raise WrongSelection(f"{key} must be a whole number from 1 on, not {quoted(value)}")
    return value


def text_in(arguments: Mapping[str, Any], key: str) -> str | None:
    """A name; None where none is given.

    Raises:
        WrongSelection: it is something else.
    """
    value = arguments.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or not value.isprintable():  # no database takes half a character, nor all of them NUL
        raise WrongSelection(f"{key} must be a name, not {quoted(value)}")
    return value


def _word(arguments: Mapping[str, Any], key: str, words: Any) -> Any:
    value = text_in(arguments, key)
    if value is None:
        return None
    if value not in set(words):
        raise WrongSelection(f"there is no {key} {quoted(value)}; there are {', '.join(words)}")
    return words(value)


def _moment(arguments: Mapping[str, Any], key: str) -> datetime | None:
    value = arguments.get(key)
    if value is None:
        return None
    try:
        return datetime.fromisoformat(str(value)).astimezone(UTC)
    except (ValueError, OverflowError):  # the latter within a day of the first or the last year
        raise WrongSelection(f"{key} must be a time such as 2026-11-21T08:00:00, not {quoted(value)}") from None


def _pattern(arguments: Mapping[str, Any], key: str) -> str | None:
    value = arguments.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or not _is_storable(value) or len(value) > MOST_PATTERN_CHARACTERS:
        raise WrongSelection(
            f"{key} must be a pattern such as 2026/*.jpg of at most {MOST_PATTERN_CHARACTERS} characters, "
            f"not {quoted(value)}"
        )
    return value


def _is_storable(text: str) -> bool:
    """Whether a database takes it: no half characters, no NUL."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def pattern_of(typed: str) -> str:
    """A pattern as it was typed, as paths stand in the database: odd bytes and backslashes escaped."""
    return to_text(typed)


def quoted(value: object) -> str:
    """A value that somebody gave, as a message may show it."""
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
