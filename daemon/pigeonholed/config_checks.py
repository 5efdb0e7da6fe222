"""What is wrong with the values of the configuration, each by itself and all together."""

from __future__ import annotations

import os
from itertools import combinations, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pigeonholed import database_url
from pigeonholed.config_errors import ConfigError, Fault, Location, allowed, dotted, model_of, nearest, shown, words_of
from pigeonholed.config_sources import field_at
from pigeonholed.labels import folded
from pigeonholed.settings import MOST_PATH_BYTES, Address, Tables

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

    from pigeonholed.config_sources import Sources

_Identity = tuple[int, int]  # device and inode
_MOST_FAULTS = 100  # of a kind that are told: nobody reads more
_MOST_INBOXES = 1000


def faults_of(error: ValidationError, sources: Sources) -> list[Fault]:
    """Put the findings of pydantic into words; several about one value become one fault."""
    found: dict[Location, Fault] = {}
    details = error.errors(include_url=False)
    for detail in details[:_MOST_FAULTS]:
        location = _of_field(detail["loc"])
        if location not in found:
            found[location] = _fault(detail, location, sources)
    left = len(details) - _MOST_FAULTS
    return [*found.values(), *([Fault(str(sources.file), "", None, f"has {left} more faults")] if left > 0 else [])]


def _of_field(location: Location) -> Location:
    """The part of pydantic's location that leads to a field: without list items of a value and branches of a union."""
    for length in range(1, len(location) + 1):
        field = field_at(location[:length])
        if field is None or (model_of(field) is None):
            return location[:length]
    return location


def _fault(detail: ErrorDetails, location: Location, sources: Sources) -> Fault:
    given = sources.given(location)
    key = str(location[-1])
    origin = sources.origin(location)
    field = field_at(location)
    if detail["type"] == "extra_forbidden" or field is None:
        return _unknown_key(location, origin, shown(given, key))
    if detail["type"] == "missing":
        if key == "name":  # its default comes from a path that is missing or wrong, which is told by itself
            return Fault(origin, dotted(location), None, "is missing, because there is no path to take it from")
        return Fault(origin, dotted(location), None, f"is missing: it must be {allowed(field)}")
    if key == "name" and given is None:
        inbox = sources.given((*location[:-1], "path"))
        why = f"gives the inbox no usable name, because a name must be {_told(detail, allowed(field))}; add name = ..."
        return Fault(sources.origin((*location[:-1], "path")), dotted((*location[:-1], "path")), shown(inbox), why)
    if model_of(field):
        return Fault(origin, dotted(location), shown(given, key), f"must be {_table_shown(location)}")
    hint = nearest(given, words_of(field)) if isinstance(given, str) else None
    hint = f'"{hint}"' if hint else None
    return Fault(origin, dotted(location), shown(given, key), f"must be {_told(detail, allowed(field))}", hint)


def _told(detail: ErrorDetails, otherwise: str) -> str:
    """The words of our own validators, which know more than the description of the field."""
    error = detail.get("ctx", {}).get("error")
    return str(error) if isinstance(error, ValueError) else otherwise


def _table_shown(location: Location) -> str:
    if location[0] == "inbox":
        return "tables, each under its own [[inbox]] in double brackets"
    return f"a table: [{dotted(location)}] with keys below it"


def _unknown_key(location: Location, origin: str, given: str) -> Fault:
    holder = field_at(location[:-1]) if len(location) > 1 else None
    model = (model_of(holder) if holder else None) or Tables
    names = list(model.model_fields)
    hint = _elsewhere(str(location[-1]))
    if hint is None and (close := nearest(location[-1], names)):
        hint = f'"{close}"'
    return Fault(origin, dotted(location), given, f"unknown key; allowed here are {', '.join(names)}", hint)


def _elsewhere(key: str) -> str | None:
    """Tell of a key that exists, but in another table."""
    for name, field in Tables.model_fields.items():
        section = model_of(field)
        if section and key in section.model_fields:
            return f'"{key}" in {"[[inbox]]" if name == "inbox" else f"[{name}]"}'
    return None


def check_size(sources: Sources) -> None:
    """Look at nothing of a configuration that has too many inboxes: each alone costs time and may be at fault.

    Raises:
        ConfigError: it has.
    """
    inboxes = sources.table.get("inbox")
    if isinstance(inboxes, list) and len(inboxes) > _MOST_INBOXES:
        problem = f"there are {len(inboxes)} inboxes, and at most {_MOST_INBOXES} are served by one service"
        raise ConfigError([*sources.faults, Fault(str(sources.file), "inbox", None, problem)])


def check_together(resolved: dict[str, Any], sources: Sources) -> list[Fault]:
    """Find the faults that only several values show together; values that are wrong by themselves are passed over."""
    inboxes = [inbox for inbox in _inboxes(resolved) if isinstance(inbox[1], dict)]
    faults = []
    if not resolved.get("inbox"):
        problem = "there is no inbox: add [[inbox]] with path, output and model"
        faults.append(Fault(str(sources.file), "inbox", None, problem))
    faults += islice(_without_output(inboxes, sources), _MOST_FAULTS)
    faults += islice(_twin_names(inboxes, sources), _MOST_FAULTS)
    faults += islice(_overlaps(_places(resolved, inboxes, sources.file), sources), _MOST_FAULTS)
    faults += _open_web(resolved, sources)
    return faults


def _inboxes(resolved: dict[str, Any]) -> list[tuple[int, Any]]:
    inboxes = resolved.get("inbox")
    return list(enumerate(inboxes)) if isinstance(inboxes, list) else []


def _without_output(inboxes: list[tuple[int, Any]], sources: Sources) -> Iterator[Fault]:
    for index, inbox in inboxes:
        if inbox.get("output", "") == "" and inbox.get("action") != "none":
            location: Location = ("inbox", index, "output")
            problem = 'is missing: it must be a path; only action = "none" needs no output'
            yield Fault(
                sources.origin(location),
                dotted(location),
                shown(sources.given(location), "output") if "output" in inbox else None,
                problem,
            )


def _twin_names(inboxes: list[tuple[int, Any]], sources: Sources) -> Iterator[Fault]:
    seen: dict[str, int] = {}
    for index, inbox in inboxes:
        name = inbox.get("name")
        if not isinstance(name, str):
            continue
        first = seen.setdefault(folded(name), index)
        if first != index:
            problem = f"is the name of inbox.{first} too, and names must be unique: give one of them another name"
            yield Fault(sources.origin(("inbox", index, "name")), f"inbox.{index}.name", shown(name), problem)


class _Place(NamedTuple):
    location: Location
    what: str
    path: str  # symbolic links resolved
    identity: _Identity | None
    holders: frozenset[str | _Identity]  # itself and every folder above it

    @classmethod
    def of(cls, location: Location, what: str, path: str) -> _Place:
        real = os.path.realpath(path)
        return cls(location, what, real, _identity(real), _holders(real))

    def is_within(self, outer: _Place) -> bool:
        return outer.path in self.holders or outer.identity in self.holders


def _places(resolved: dict[str, Any], inboxes: list[tuple[int, Any]], file: Path) -> list[_Place]:
    """Every path of the configuration that is usable, the inboxes among them, in the order in which they are told."""
    found: list[tuple[Location, str, object]] = []
    for index, inbox in inboxes:
        found.append((("inbox", index, "path"), "inbox", inbox.get("path")))
        found.append((("inbox", index, "output"), "output", inbox.get("output")))
    for section, key, what in [
        ("state", "dir", "state folder"),
        ("models", "dir", "model store"),
        ("control", "socket", "socket"),
        ("web", "token_file", "token file"),
    ]:
        found.append(((section, key), what, _value(resolved, section, key)))
    url = _value(resolved, "database", "url")
    found.append((("database", "url"), "database", database_url.file_of(url) if isinstance(url, str) else None))
    found.append(((), "configuration file", file))
    return [_Place.of(at, what, str(path)) for at, what, path in found if isinstance(path, Path) and _is_short(path)]


def _is_short(path: Path) -> bool:
    """A path that is too long for the system is refused elsewhere."""
    return len(os.fsencode(path)) <= MOST_PATH_BYTES and "\0" not in str(path)


def _value(resolved: dict[str, Any], section: str, key: str) -> object:
    table = resolved.get(section)
    return table.get(key) if isinstance(table, dict) else None


def _overlaps(places: list[_Place], sources: Sources) -> Iterator[Fault]:
    inboxes = [place for place in places if place.what == "inbox"]
    outputs = [place for place in places if place.what == "output"]
    for first, second in combinations(inboxes, 2):
        if second.is_within(first) or first.is_within(second):
            yield _overlap(second, first, sources, "inboxes must not overlap")
    for inbox in inboxes:
        for output in outputs:
            if output.is_within(inbox):
                yield _overlap(output, inbox, sources, "an output must be outside every inbox")
            elif inbox.is_within(output):
                yield _overlap(inbox, output, sources, "an inbox must be outside every output")
        told: list[_Place] = []  # what lies in a folder that is told already needs no line of its own
        for place in places:
            if place.what in ("inbox", "output") or any(map(place.is_within, told)):
                continue
            if place.is_within(inbox):
                told.append(place)
                yield _overlap(place, inbox, sources, f"the {place.what} must be outside every inbox")


def _overlap(inner: _Place, outer: _Place, sources: Sources, rule: str) -> Fault:
    """Blame the inner place; where it has no key of its own, or a default, the outer one is named as well."""
    relation = "is the same folder as" if inner.path == outer.path else "lies inside"
    given = sources.given(inner.location) if inner.location else None
    told = shown(given) if given is not None else None
    at = dotted(inner.location) or f"the {inner.what} {inner.path}"
    where = "" if not inner.location else f" ({inner.path})"
    problem = f"{relation} {dotted(outer.location)} {outer.path}{where}: {rule}"
    return Fault(sources.origin(inner.location), at, told, problem)


def is_within(inner: str, outer: str) -> bool:
    """Whether the folder `outer` is `inner` or holds it; both are absolute, without symbolic links.

    Folders that are one and the same under two names (a bind mount, a disk that ignores case) count as the same.
    """
    holders = _holders(inner)
    return outer in holders or _identity(outer) in holders


def _holders(path: str) -> frozenset[str | _Identity]:
    folders = [path, *map(str, Path(path).parents)]
    return frozenset([*folders, *filter(None, map(_identity, folders))])


def _identity(path: str) -> _Identity | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if found.st_ino else None


def _open_web(resolved: dict[str, Any], sources: Sources) -> Iterator[Fault]:
    listen = _value(resolved, "web", "listen")
    if not isinstance(listen, str | Address) or _value(resolved, "web", "token_file"):
        return
    try:
        address = Address.parse(str(listen))
    except ValueError:
        return
    if not address.is_loopback:
        problem = "is open to other machines, which needs web.token_file, a file that holds the access token"
        yield Fault(sources.origin(("web", "listen")), "web.listen", shown(str(listen)), problem)
