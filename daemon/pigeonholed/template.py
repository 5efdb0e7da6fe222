"""The path template of an inbox: which fields it may hold, and whether a text is one."""

from __future__ import annotations

import datetime as dt
from string import Formatter

FIELDS = ("label", "subdir", "name", "stem", "ext", "inbox", "date", "confidence", "model", "version")
FIELDS_SHOWN = " ".join(f"{{{field}}}" for field in FIELDS)

_MARK = "\ue000"  # a private character that no template needs: it shows where a file name ends up
_SAMPLES = {
    **dict.fromkeys(FIELDS, "x"),
    "name": _MARK,
    "stem": _MARK,
    "date": dt.datetime(2024, 12, 31, 23, 59, tzinfo=dt.UTC),
    "confidence": 0.5,
    "version": 1,
}
_FORMATTED = ("date", "confidence", "version")


def checked(template: str) -> str:
    """Return the template when it can be used.

    It renders to a relative path without empty parts, `.` and `..`, whose last part holds `{name}` or `{stem}`. A
    format may hold slashes: `{date:%Y/%m}` makes two folders.

    Raises:
        ValueError: it cannot; the message is the end of a sentence that begins with "must be".
    """
    if any(not character.isprintable() for character in template):
        raise ValueError("a path without control characters")
    parts = _rendered(template).split("/")
    if template.startswith("/"):
        raise ValueError("a relative path, below the output")
    if _MARK not in parts[-1]:
        raise ValueError("a path that ends in a file name: its last part holds {name} or {stem}")
    if any(part in ("", ".", "..") for part in parts):
        raise ValueError("a path without empty parts, '.' and '..'")
    return template


def _rendered(template: str) -> str:
    """A sample of what the template makes."""
    try:
        pieces = list(Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"a path made of {FIELDS_SHOWN}, but its braces do not match ({error})") from None
    rendered = []
    for literal, field, spec, conversion in pieces:
        rendered.append(literal)
        if field is not None:
            if field not in FIELDS or conversion:
                raise ValueError(f"a path made of {FIELDS_SHOWN}, but {{{field}}} is none of them")
            rendered.append(_formatted(field, spec or ""))
    return "".join(rendered)


def _formatted(field: str, spec: str) -> str:
    if not spec:
        return str(_SAMPLES[field])
    if "{" in spec or field not in _FORMATTED:
        raise ValueError(
            f"a path in which only {{date}}, {{confidence}} and {{version}} have a format, not {{{field}}}"
        )
    try:
        shown = format(_SAMPLES[field], spec)
    except (ValueError, OverflowError, MemoryError):
        shown = ""
    if not shown or len(shown) > 200 or not shown.isprintable():
        raise ValueError(f'a path, but "{spec}" is no format of a file name for {{{field}}}')
    return shown
