"""How a log event is written, as JSON or for people: one line of valid Unicode without control characters."""

from __future__ import annotations

import json
import math
import numbers
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable

    from structlog.typing import EventDict

_BARE = re.compile(r"[^\s\"'=\\{}\[\]]+")
_COLOURS = {"debug": "2", "info": "32", "warning": "33", "error": "31", "critical": "31;1"}
_DEEPEST = 6


@dataclass(frozen=True, slots=True)
class Stamp:
    """Puts the time first."""

    now: Callable[[], dt.datetime]

    def __call__(self, _logger: object, _method: str, event: EventDict) -> EventDict:
        """Return the event with `timestamp`, UTC, in ISO 8601."""
        stamp = self.now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return {"timestamp": stamp, **event}


def as_json(_logger: object, _method: str, event: EventDict) -> str:
    """Time, level and name, then the facts in the order in which they were given."""
    first = {key: event.pop(key) for key in ("timestamp", "level", "event") if key in event}
    return _as_text({**first, **event})


@dataclass(frozen=True, slots=True)
class Console:
    """`TIME level   event_name  key=value key="two words"`."""

    colours: bool

    def __call__(self, _logger: object, _method: str, event: EventDict) -> str:
        """Return the line."""
        stamp = event.pop("timestamp", None)
        level = str(event.pop("level", "info"))
        name = _word(event.pop("event", ""))
        parts = [self._painted("2", stamp)] if stamp else []
        parts += [self._painted(_COLOURS.get(level, "0"), f"{level:<7}"), self._painted("1", name)]
        parts += [f"{self._painted('36', _word(key))}={_word(value)}" for key, value in event.items()]
        return " ".join(parts)

    def _painted(self, colour: str, text: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self.colours else text


def _word(value: object) -> str:
    """A value as it stands where nothing in it could mislead, else in the notation of JSON."""
    plain = _plain(value)
    if isinstance(plain, str) and plain.isprintable() and _BARE.fullmatch(plain):
        return plain
    return _as_text(plain)


def _as_text(value: object) -> str:
    text = json.dumps(_plain(value), ensure_ascii=False)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else escaped(c) for c in text)


def escaped(character: str) -> str:
    """A character in the notation of JSON, in ASCII."""
    return "\\u007f" if character == "\x7f" else json.dumps(character)[1:-1]


def _plain(value: object, depth: int = 0) -> Any:
    """The value in the types of JSON, its text valid Unicode; what fits none of them as its `str`."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, numbers.Integral):  # numpy's as well
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else str(value)
    if depth < _DEEPEST and isinstance(value, dict):
        return {_valid(_shown(key)): _plain(item, depth + 1) for key, item in value.items()}
    if depth < _DEEPEST and isinstance(value, list | tuple | set | frozenset):
        return [_plain(item, depth + 1) for item in value]
    return _valid(_shown(value))


def _shown(value: object) -> str:
    try:
        return os.fsdecode(value) if isinstance(value, bytes) else str(value)
    except Exception:  # an object that cannot show itself must not stop the work that is logged
        return f"<{type(value).__name__}>"


def _valid(text: str) -> str:
    r"""The text with each byte that is no UTF-8 as `\xNN`, as the database writes it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        try:
            return os.fsencode(text).decode("utf-8", "backslashreplace")
        except UnicodeEncodeError:
            return text.encode("utf-8", "backslashreplace").decode()
    return text
