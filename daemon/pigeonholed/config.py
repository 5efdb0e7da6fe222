"""The configuration: found, merged from flag, environment, file and default, checked, and every path made absolute."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from pigeonholed import database_url
from pigeonholed.config_checks import check_size, check_together, faults_of
from pigeonholed.config_errors import ConfigError, Fault
from pigeonholed.config_sources import Sources, state_of
from pigeonholed.settings import MOST_PATH_BYTES, Address, DatabaseSettings, InboxSettings, Settings, Tables

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PACKAGED", "Address", "ConfigError", "Fault", "InboxSettings", "Settings", "find_config", "load_settings"]

FILE_NAME = "pigeonholed.toml"
PACKAGED = Path("/etc/pigeonholed")
PACKAGED_STATE = Path("/var/lib/pigeonholed")


def find_config(explicit: Path | None = None, environ: Mapping[str, str] = os.environ, cwd: Path | None = None) -> Path:
    """Find the configuration file; the result is absolute.

    In order: `explicit`, `$PIGEONHOLED_CONFIG`, `./pigeonholed.toml`, `$XDG_CONFIG_HOME/pigeonholed/` (else
    `~/.config/pigeonholed/`), `/etc/pigeonholed/`. The first two are returned without looking: a file that was named
    and is not there is a fault of `load_settings`, and never a reason to take another one.

    Raises:
        ConfigError: there is none; it names all the places.
    """
    here = Path.cwd() if cwd is None else cwd
    named = explicit or environ.get("PIGEONHOLED_CONFIG")
    if named:
        return here / os.path.expanduser(named)
    user = environ.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(user):  # the XDG specification: a relative one is to be ignored
        user = os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".config")
    places = [here / FILE_NAME, Path(user, "pigeonholed", FILE_NAME), PACKAGED / FILE_NAME]
    for place in places:
        if os.path.isfile(place):
            return place
    looked = ", ".join(f"{place}{state_of(place)}" for place in places)
    problem = f"no configuration found at {looked}: name one with --config, or make one with 'pigeonholed init DIR'"
    raise ConfigError([Fault("", "", None, problem)])


def load_settings(
    explicit: Path | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    overrides: Mapping[str, object] | None = None,
    cwd: Path | None = None,
) -> Settings:
    """Read the configuration; every path in the result is absolute.

    Precedence: `overrides` (dotted keys such as "log.format", a value None counts as not given), then the variables
    `PIGEONHOLED__A__B`, then the file, then the default. Relative paths mean the same wherever they were given: inbox,
    output and token file are below the file's folder, database, models and socket below the state folder. Nothing on
    disk is changed, and nothing but the file needs to exist.

    Raises:
        ConfigError: it holds every fault at once.
    """
    file = find_config(explicit, environ, cwd)
    sources = Sources(file)
    sources.add_environment(environ)
    sources.add_overrides(overrides or {})
    check_size(sources)
    resolved = _resolved(sources.table, file.parent)
    settings = None
    faults = list(sources.faults)
    try:
        settings = Settings(**dict(Tables.model_validate(resolved)), source=file)
    except ValidationError as error:
        faults += faults_of(error, sources)
    faults += check_together(resolved, sources)
    if faults or settings is None:
        raise ConfigError(faults)
    return settings


def _resolved(table: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A copy with every path absolute and the defaults that depend on the folder filled in; what is wrong stays."""
    result: dict[str, Any] = {key: dict(value) if isinstance(value, dict) else value for key, value in table.items()}
    default_state = PACKAGED_STATE if folder == PACKAGED else Path()
    state = _below(folder, _section(result, "state").setdefault("dir", default_state))
    _section(result, "state")["dir"] = state
    base = state if isinstance(state, Path) else folder
    for name, key, default in [("models", "dir", "models"), ("control", "socket", "pigeonholed.sock")]:
        section = _section(result, name)
        section[key] = _below(base, section.get(key, default))
    database = _section(result, "database")
    url = database.get("url", DatabaseSettings.model_fields["url"].default)
    database["url"] = database_url.absolute(url, base) if isinstance(url, str) else url
    web = _section(result, "web")
    web["token_file"] = _below(folder, web.get("token_file", ""))
    hook = _section(result, "hook")
    if isinstance(command := hook.get("command"), list) and command:
        hook["command"] = [_program(folder, command[0]), *command[1:]]
    if isinstance(inboxes := result.get("inbox"), list):
        result["inbox"] = [_resolved_inbox(inbox, folder) for inbox in inboxes]
    return result


def _section(table: dict[str, Any], name: str) -> dict[str, Any]:
    """The section, made when it is missing; one of a wrong type is left to be refused, and a blank stands in."""
    section = table.setdefault(name, {})
    return section if isinstance(section, dict) else {}


def _resolved_inbox(inbox: object, folder: Path) -> object:
    if not isinstance(inbox, dict):
        return inbox
    result = dict(inbox)
    for key in ("path", "output"):
        if key in result:
            result[key] = _below(folder, result[key])
    if isinstance(path := result.get("path"), Path):
        result.setdefault("name", os.path.basename(os.path.normpath(path)))
    return result


def _program(folder: Path, given: object) -> object:
    """A program that is named by a path is found from the folder of the file; one without is looked for in $PATH."""
    found = _below(folder, given) if isinstance(given, str) and os.sep in given else given
    return str(found) if isinstance(found, Path) else found


def _below(folder: Path, given: object) -> object:
    """The path made absolute; what is no path stays as it is, to be refused."""
    if not isinstance(given, str | Path) or not str(given) or "\0" in str(given) or len(str(given)) > MOST_PATH_BYTES:
        return given
    return folder / os.path.expanduser(given)
