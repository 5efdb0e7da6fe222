"""Probes: empty files of our own, with which renames are tried before files of others depend on them."""

from __future__ import annotations

import contextlib
import os
import re
import secrets

PROBE = re.compile(r"\.pigeonholed-[0-9a-f]{16}\.probe")
"""The names of all probes, whoever made them."""


def new_token() -> str:
    """What tells a probe, or a batch that begins with one, from all others."""
    return secrets.token_hex(8)


def probe_name(token: str) -> str:
    """The name of the probe of a token."""
    return f".pigeonholed-{token}.probe"


def make_probe(path: str) -> None:
    """Make one.

    Raises:
        OSError: as `open(2)`.
    """
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def discard(*paths: str) -> None:
    """Remove our own, wherever it is by now. A disk that fails is asked twice; what stays all the same goes later."""
    for path in paths:
        for _ in range(2):
            with contextlib.suppress(OSError):
                os.unlink(path)
                break


def remove_probe(path: str, folder: int | None = None) -> None:
    """Remove one that a process which died has left, in a folder that is open; what has bytes is not ours."""
    with contextlib.suppress(OSError):
        if os.stat(path, dir_fd=folder, follow_symlinks=False).st_size == 0:
            os.unlink(path, dir_fd=folder)


def remove_probes(folder: str) -> None:
    """Remove all that processes which died have left in an inbox."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if PROBE.fullmatch(entry.name):
                remove_probe(entry.path)
