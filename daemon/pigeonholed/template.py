"""The path template of an inbox: which fields it may hold, and whether a text is one."""

from __future__ import annotations

import datetime as dt
from string import Formatter

FIELDS = ("label", "subdir", "name", "stem", "ext", "inbox", "date", "confidence", "model", "version")
FIELDS_SHOWN = " ".join(f"{{{field}}}" for field in FIELDS)

_WITH_FORMAT = {"date": dt.datetime(2024, 12, 31, 23, 59, tzinfo=dt.UTC), "confidence": 0.5, "version": 1}


def checked(template: str) -> str:
    """Return the template when it can be used.

    Each part between slashes stands for itself, the last one holds `{name}` or `{stem}`, and none is `.` or `..`.

    Raises:
        ValueError: it cannot; the message is the end of a sentence that begins with "must be".
    """
    if template.startswith("/"):
        raise ValueError("a relative path, below the output")
    if any(ord(character) < 32 or character == "\x7f" for character in template):
        raise ValueError("a path without control characters")
    parts = template.split("/")
    if fields := [fields_of(part) for part in parts][-1]:
        if not {"name", "stem"} & fields:
            raise ValueError("a path whose last part holds {name} or {stem}")
    else:
        raise ValueError("a path that ends in a file name: its last part holds {name} or {stem}")
    if any(part in ("", ".", "..") for part in parts):
        raise ValueError("a path without empty parts, '.' and '..'")
    return template


def fields_of(part: str) -> set[str]:
    """The fields in one part of a template.

    Raises:
        ValueError: it holds an unknown field, a format that does not work, or a brace that is left open.
    """
    try:
        pieces = list(Formatter().parse(part))
    except ValueError:
        raise ValueError("a path whose braces are closed before the next slash") from None
    fields = set()
    for _, field, spec, conversion in pieces:
        if field is None:
            continue
        if field not in FIELDS or conversion:
            raise ValueError(f"a path made of {FIELDS_SHOWN}, but {{{field}}} is none of them")
        if spec:
            _check_format(field, spec)
        fields.add(field)
    return fields


def _check_format(field: str, spec: str) -> None:
    if "{" in spec or field not in _WITH_FORMAT:
        raise ValueError(
            f"a path in which only {{date}}, {{confidence}} and {{version}} have a format, not {{{field}}}"
        )
    try:
        shown = format(_WITH_FORMAT[field], spec)
    except (ValueError, OverflowError, MemoryError):
        shown = ""
    if not shown or "/" in shown or "\0" in shown:
        raise ValueError(f'a path, and "{spec}" is no format of a file name for {{{field}}}')
