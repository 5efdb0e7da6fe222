"""The address of the database: which forms are served, and how one is shown and made absolute."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote

ALLOWED = '"sqlite:///FILE" or "postgresql+psycopg://USER@HOST/NAME"'

_SQLITE = re.compile(r"sqlite(?:\+pysqlite)?:///(?P<file>[^?]+)(?P<query>\?.*)?", re.DOTALL)
_POSTGRES = re.compile(
    r"postgresql(?:\+psycopg)?://(?P<rest>(?:.*@)?(?P<host>\[[^\]]*\]|[^:/?@\[\]]*)(?::[0-9]{1,5})?(?P<name>/[^/?]+)?(?:\?.*)?)",
    re.DOTALL,
)
# Greedy up to the last @, so that a password that itself holds @ or / is covered whole.
_USER_AND_PASSWORD = re.compile(r"(?P<before>(?:^|://)[^:/@\s]*):(?!//).*@", re.DOTALL)
_SECRET_PARAMETER = re.compile(r"(?i)(password|passwd|pwd|secret|token)=[^&\s]*")


def checked(url: str) -> str:
    """The URL in the form that SQLAlchemy gets; a plain `postgresql://` is given the driver that we install.

    Raises:
        ValueError: it is no database that we serve; the message is the end of a sentence beginning "must be".
    """
    if any(ord(character) < 32 for character in unquote(url)):
        raise ValueError(f"a database URL without control characters: {ALLOWED}")
    if match := _POSTGRES.fullmatch(url):
        if not (match["host"] or match["name"]):
            raise ValueError("a database URL that names a host and a database: postgresql+psycopg://USER@HOST/NAME")
        return f"postgresql+psycopg://{match['rest']}"
    match = _SQLITE.fullmatch(url)
    if match is None or match["file"] == ":memory:" or match["file"].startswith("file:"):
        raise ValueError(f"a database URL: {ALLOWED}")
    return url


def file_of(url: str) -> Path | None:
    """The file of an SQLite database, None for another one; percent-escapes are read as SQLAlchemy reads them."""
    match = _SQLITE.fullmatch(url)
    return Path(unquote(match["file"], errors="surrogateescape")) if match else None


def absolute(url: str, folder: Path) -> str:
    """The same URL with the file of an SQLite database resolved against `folder`."""
    match = _SQLITE.fullmatch(url)
    if match is None or match["file"] == ":memory:" or match["file"].startswith(("/", "file:")):
        return url
    name = os.path.expanduser(match["file"])
    if not name.startswith("/"):
        # `?` and `%` mean something in a URL; in the name of our own folder they mean themselves.
        name = f"{str(folder).replace('%', '%25').replace('?', '%3F').rstrip('/')}/{name}"
    return f"sqlite:///{name}{match['query'] or ''}"


def redacted(text: str) -> str:
    """Text that may be or hold a URL, without passwords."""
    return _SECRET_PARAMETER.sub(r"\1=***", _USER_AND_PASSWORD.sub(r"\g<before>:***@", text))
