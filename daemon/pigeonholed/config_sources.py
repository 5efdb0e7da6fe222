"""Where the values of the configuration come from: flags over environment over file, each remembering its origin."""

from __future__ import annotations

import os
import re
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pigeonholed.config_errors import ConfigError, Fault, Location, dotted, model_of, shown
from pigeonholed.settings import Tables

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic.fields import FieldInfo

PREFIX = "PIGEONHOLED__"

_MOST_BYTES = 1 << 20  # of a file: a thousand inboxes with every key need half of that
_MOST_LINE_BYTES = 10_000  # Python's reader takes the square of the dots in a key; ten thousand are a second

_PLACE = re.compile(r"(?P<what>.*) \(at line (?P<line>\d+), column (?P<column>\d+)\)", re.DOTALL)
_HEADER = re.compile(r"\s*\[(?P<array>\[)?\s*(?P<name>[A-Za-z0-9_.-]+)\s*\]")
_KEY = re.compile(r"\s*(?P<name>[A-Za-z0-9_.-]+|\"[^\"]*\"|'[^']*')\s*=")


class Sources:
    """The merged values as given, and for each the words that tell a user where it stands.

    Attributes:
        table: nested tables and lists, the union of all sources; nothing in it is checked yet.
        faults: what could not be merged.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.faults: list[Fault] = []
        text = _read(file)
        self.table: dict[str, Any] = _parsed(file, text)
        self._lines = _lines_of(text)
        self._origins: dict[Location, str] = {}

    def add_environment(self, environ: Mapping[str, str]) -> None:
        """Lay the variables `PIGEONHOLED__A__B` over the values."""
        for variable in sorted(name for name in environ if name.startswith(PREFIX)):
            location = _location(variable.removeprefix(PREFIX).lower().split("__"))
            self._place(location, _meant(environ[variable], location), f"environment {variable[:200]}")

    def add_overrides(self, overrides: Mapping[str, object]) -> None:
        """Lay values of flags, by dotted key, over the values; None stands for a flag that was not given."""
        for key, value in overrides.items():
            if value is not None:
                self._place(_location(key.split(".")), value, "option")

    def given(self, location: Location) -> object:
        """The value as it was given, None where there is none."""
        value: Any = self.table
        for key in location:
            try:
                value = value[key]
            except (KeyError, IndexError, TypeError):
                return None
        return value

    def origin(self, location: Location) -> str:
        """Where a value was given: an environment variable, an option, or the file and, where known, the line."""
        for length in range(len(location), 0, -1):
            if origin := self._origins.get(location[:length]):
                return origin
            if line := self._lines.get(location[:length]):
                return f"{self.file}:{line}"
        return str(self.file)

    def _place(self, location: Location, value: object, origin: str) -> None:
        holder: Any = self.table
        for key, following in pairwise(location):
            fresh: Any = [] if isinstance(following, int) else {}
            if isinstance(holder, list) and isinstance(key, int) and key == len(holder):
                holder.append(fresh)
            elif isinstance(holder, dict):
                holder.setdefault(key, fresh)
            holder = holder[key] if _holds(holder, key) else None
        last = location[-1]
        if isinstance(holder, list) and isinstance(last, int) and last == len(holder):
            holder.append(value)
        elif _holds(holder, last) or isinstance(holder, dict):
            holder[last] = value
        else:
            self.faults.append(Fault(origin, dotted(location), shown(value, str(last)), _unplaceable(location)))
            return
        self._origins[location] = origin


def _holds(holder: object, key: str | int) -> bool:
    if isinstance(holder, list):
        return isinstance(key, int) and key < len(holder)
    return isinstance(holder, dict) and key in holder


def _unplaceable(location: Location) -> str:
    if location[0] == "inbox":
        return "names no inbox: inboxes are counted from 0 without a gap"
    return f"does not fit the other values, because {dotted(location[:-1])} is no table"


def _location(keys: list[str]) -> Location:
    in_list = keys[0] == "inbox"
    return tuple(int(key) if in_list and key.isascii() and key.isdigit() and len(key) < 10 else key for key in keys)


def _meant(text: str, location: Location) -> object:
    """The TOML value that a variable holds; its bare text where it is none or where only text is expected."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):  # no TOML, or a number of thousands of digits
        return text
    value = parsed["value"]
    field = field_at(location)
    expects_text = field is not None and field.annotation in (str, Path, Path | None)
    return text if len(parsed) > 1 or (expects_text and not isinstance(value, str)) else value


def field_at(location: Location) -> FieldInfo | None:
    """The field of the settings that a location leads to, or that holds it; None for an unknown key."""
    model: Any = Tables
    field = None
    for key in location:
        if isinstance(key, int):
            continue
        if model is None or key not in model.model_fields:
            return None
        field = model.model_fields[key]
        model = model_of(field)
    return field


def _read(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            data = stream.read(_MOST_BYTES + 1)
    except IsADirectoryError:
        raise ConfigError([Fault(str(file), "", None, "is a folder; name the file in it")]) from None
    except FileNotFoundError:
        problem = "there is no such file; name another one, or make one with 'pigeonholed init DIR'"
        raise ConfigError([Fault(str(file), "", None, problem)]) from None
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or str(error)
        raise ConfigError([Fault(str(file), "", None, f"cannot be read: {cause}")]) from error
    if len(data) > _MOST_BYTES:
        raise ConfigError([Fault(str(file), "", None, f"is no configuration: it has more than {_MOST_BYTES} bytes")])
    for number, written in enumerate(data.split(b"\n"), 1):
        if len(written) > _MOST_LINE_BYTES:
            problem = f"is too long: a line has at most {_MOST_LINE_BYTES} bytes; a list may be of several lines"
            raise ConfigError([Fault(f"{file}:{number}", "", None, problem)])
    try:
        return data.decode("utf-8-sig")  # editors of Windows put a mark in front
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError([Fault(f"{file}:{line}", "", None, "is no UTF-8 text; save it as UTF-8")]) from None


def _parsed(file: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        match = _PLACE.fullmatch(str(error))
        what, place = (match["what"], f":{match['line']}:{match['column']}") if match else (str(error), "")
        told = f"is not valid TOML: {what[:1].lower()}{what[1:]}"
        where = f" (line {match['line']}, column {match['column']})" if match else ""
        raise ConfigError([Fault(f"{file}{place}", "", None, told + where)]) from None
    except RecursionError:
        raise ConfigError([Fault(str(file), "", None, "is not usable: values are nested too deeply")]) from None
    except ValueError:  # Python reads no number of thousands of digits
        raise ConfigError(
            [Fault(str(file), "", None, "is not usable: it holds a number with too many digits")]
        ) from None


def _lines_of(text: str) -> dict[Location, int]:
    """The line of each key, by a plain look at the text: good enough to point a finger, never to decide."""
    lines: dict[Location, int] = {}
    table: Location = ()
    counts: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            table = tuple(header["name"].split("."))
            if header["array"]:
                position = counts[header["name"]] = counts.get(header["name"], -1) + 1
                table = (*table, position)
            lines.setdefault(table, number)
        elif key := _KEY.match(line):
            name = key["name"]
            keys = (name[1:-1],) if name[0] in "\"'" else tuple(name.split("."))
            lines.setdefault((*table, *keys), number)
    return lines


def state_of(path: Path) -> str:
    """Why no configuration is found at a path, in brackets; empty when there simply is none."""
    try:
        os.stat(path)
    except PermissionError:
        return " (no permission to look)"
    except (OSError, ValueError):
        return ""
    return " (no file)"
