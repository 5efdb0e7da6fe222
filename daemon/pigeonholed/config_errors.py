"""Faults in the configuration, told all at once: which file, which key, what it says, and what is allowed."""

from __future__ import annotations

import datetime as dt
import difflib
import json
import re
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from pydantic import BaseModel

from pigeonholed import database_url
from pigeonholed.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic.fields import FieldInfo

Location = tuple[str | int, ...]
"""Keys and list positions from the root of the configuration to a value."""

_SECRET_KEY = re.compile(r"(?i)passw|pwd|secret|token(?!_file$)|credential")
_SHOWN_CHARACTERS = 120
_SHOWN_DEPTH = 20
_REDACTED_CHARACTERS = 10_000


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong.

    Attributes:
        source: the file, with its line where known, or the environment variable or option.
        key: dotted key, empty where the fault is of the whole file.
        given: the value as it may be shown (passwords redacted), None where there is none.
        problem: what is wrong and what is allowed, as the rest of the sentence.
        nearest: the key or word that was probably meant.
    """

    source: str
    key: str
    given: str | None
    problem: str
    nearest: str | None = None

    def __str__(self) -> str:
        key = _cut(self.key)
        subject = f"{key} = {self.given}" if self.given is not None else key
        hint = f"; did you mean {self.nearest}?" if self.nearest else ""
        return one_line(": ".join(part for part in (self.source, subject, self.problem + hint) if part))


class ConfigError(Misconfigured):
    """The configuration cannot be used; `str()` tells every fault, one a line."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__(self.faults)

    def __str__(self) -> str:
        if len(self.faults) == 1:
            return str(self.faults[0])
        return "\n  ".join([f"{len(self.faults)} faults in the configuration:", *map(str, self.faults)])


def one_line(text: str) -> str:
    """Text without control characters and lone surrogates, so that it is one line of valid UTF-8."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def dotted(location: Location) -> str:
    """A location as a user writes it: `inbox.0.path`."""
    return ".".join(map(str, location))


def shown(value: object, key: str = "", depth: int = 0) -> str:
    """A value in the notation of TOML, cut to a readable length, without passwords."""
    if _SECRET_KEY.search(key):
        return '"***"'
    if isinstance(value, dict | list | tuple):
        text = _nested(value, depth)
    elif isinstance(value, str | Path):
        text = _quoted(str(value))
    elif isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, dt.date | dt.time):
        text = value.isoformat()
    elif isinstance(value, int) and value.bit_length() > _SHOWN_CHARACTERS * 3:  # Python may refuse to write it out
        text = "(a very large number)"
    else:
        text = str(value)
    return _cut(text)


def _nested(value: dict[Any, object] | list[object] | tuple[object, ...], depth: int) -> str:
    """No more of it than will be shown: it may be as wide and as deep as a file is long."""
    if depth > _SHOWN_DEPTH:
        return "…"
    if isinstance(value, dict):
        pairs = islice(value.items(), _SHOWN_CHARACTERS)
        return "{" + ", ".join(f"{_cut(str(name))} = {shown(item, str(name), depth + 1)}" for name, item in pairs) + "}"
    return "[" + ", ".join(shown(item, depth=depth + 1) for item in islice(value, _SHOWN_CHARACTERS)) + "]"


def _quoted(text: str) -> str:
    """Cut only after its password is covered, and so not shown at all where looking for that would take long."""
    if len(text) > _REDACTED_CHARACTERS:
        return f"(a text of {len(text)} characters)"
    return json.dumps(database_url.redacted(text), ensure_ascii=False)


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


def allowed(field: FieldInfo) -> str:
    """What a field may hold, as the rest of the sentence "must be ..."."""
    if field.description:
        return field.description
    words = words_of(field)
    if words:
        quoted = [f'"{word}"' for word in words]
        return " or ".join([", ".join(quoted[:-1]), quoted[-1]]) if len(quoted) > 1 else quoted[0]
    return "a table of keys" if model_of(field) else "text"


def words_of(field: FieldInfo) -> tuple[str, ...]:
    """The fixed words that a field accepts."""
    if get_origin(field.annotation) is Literal:
        return get_args(field.annotation)
    return tuple(word for part in get_args(field.annotation) if get_origin(part) is Literal for word in get_args(part))


def model_of(field: FieldInfo) -> type[BaseModel] | None:
    """The section behind a field, or behind each item of it."""
    for candidate in (field.annotation, *get_args(field.annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def nearest(word: object, words: Iterable[str]) -> str | None:
    """The one of `words` that `word` was probably meant to be."""
    by_fold = {candidate.casefold(): candidate for candidate in words}
    fold = str(word).casefold().replace("-", "_")
    found = by_fold.get(fold) or by_fold.get(str(word).casefold())
    if found is None:
        close = difflib.get_close_matches(fold, by_fold, n=1, cutoff=0.7)
        found = by_fold[close[0]] if close else None
    return found
