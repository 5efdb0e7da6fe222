"""Errors that a user can cause or mend: one clear sentence, and the exit code of the contract."""

from __future__ import annotations

from typing import ClassVar


class UserError(Exception):
    """The message is shown as it is, without a traceback."""

    exit_code: ClassVar[int] = 1


class Unavailable(UserError):
    """Something needed is not there now: database, device, port, a lock that another process holds."""

    exit_code = 69


class Spent(Unavailable):
    """Threads of this process hang for ever: only a new one is rid of them, so it ends, and systemd starts another."""


class Misconfigured(UserError):
    """What the configuration asks for cannot be: folders, models."""

    exit_code = 78
