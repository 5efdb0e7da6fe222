"""File names as text: what the database, the logs and JSON may hold, and back without loss.

Inside the daemon a path is a `str` as `os.fsdecode` gives it: bytes that are no UTF-8 are lone surrogates, which
neither SQLite nor JSON nor a terminal accepts. The text of a path is the same under every locale.
"""

from __future__ import annotations

import os
import re

_ESCAPE = re.compile(rb"\\(\\|x[0-9a-f]{2})")


def to_text(path: str) -> str:
    r"""Write a path as valid Unicode: a byte that is no UTF-8 becomes `\xNN`, a backslash `\\`.

    The inverse is `from_text`, for every path.
    """
    if path.isascii() and "\\" not in path:
        return path
    return os.fsencode(path).replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")


def from_text(text: str) -> str:
    r"""Read a path back that `to_text` wrote."""
    if text.isascii() and "\\" not in text:
        return text
    raw = _ESCAPE.sub(lambda match: _unescaped(match.group(1)), text.encode())
    return os.fsdecode(raw)


def _unescaped(escape: bytes) -> bytes:
    return b"\\" if escape == b"\\" else bytes([int(escape[1:], 16)])
