"""What commands ask of the one writer: the same code in a running daemon and, where none runs, in the command."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from pigeonholed import database
from pigeonholed.errors import Unavailable, UserError
from pigeonholed.images import Placement, Reason
from pigeonholed.paths import to_text
from pigeonholed.records import open_records
from pigeonholed.writer import Stopped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import Engine

    from pigeonholed.ledger import Filed, Ledger
    from pigeonholed.returning import Holds, Returned, Returner
    from pigeonholed.settings import Settings
    from pigeonholed.store import ModelStore

Arguments = Mapping[str, Any]

_MOVES_FILES = frozenset({"undo", "retry"})
_LARGEST = (1 << 63) - 1
"""Databases take no larger number."""


class BadRequest(UserError):
    """A request that makes no sense; exit code 2, as any wrong usage."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Operations:
    """One method a request; each takes and returns what JSON can hold.

    Attributes:
        ledger: the rows.
        returner: puts files back.
        holds: what is passed over.
        store: the models.
        engine: the database itself, for backups.
        on_change: called when inboxes or models have something new to look at.
        status: what the daemon knows of itself; None without one.
        reload: asks the daemon to read its configuration again; None without one.
        on_fault: told of a fault of the machine that broke off a move of files, which has to be taken up again.
    """

    ledger: Ledger
    returner: Returner
    holds: Holds
    store: ModelStore
    engine: Engine
    on_change: Callable[[], None] = lambda: None
    status: Callable[[], dict[str, Any]] | None = None
    reload: Callable[[], None] | None = None
    on_fault: Callable[[Exception], None] = lambda _error: None
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, request: str, arguments: Arguments) -> Any:
        """Carry out a request.

        Raises:
            UserError: it cannot be done; the message says why.
        """
        known: dict[str, Callable[[Arguments], Any]] = {
            "status": self._status,
            "undo": self._undo,
            "release": self._release,
            "rejected": self._rejected,
            "retry": self._retry,
            "use": self._use,
            "rollback": self._rollback,
            "backup": self._backup,
            "reload": self._reload,
        }
        if request not in known:
            raise BadRequest(f"there is no request {request[:80]!a}; there are {', '.join(known)}")
        if request == "status":
            return self._status(arguments)
        with self._turn:  # one at a time: requests come from several connections
            try:
                return known[request](arguments)
            except (OSError, sa.exc.DBAPIError) as error:
                if request in _MOVES_FILES:
                    self.on_fault(error)
                raise _broken_off(error) from error
            except Stopped as error:
                raise _broken_off(error) from error

    def _status(self, _arguments: Arguments) -> dict[str, Any]:
        if self.status is None:
            raise UserError("no daemon is running")
        return self.status()

    def _undo(self, arguments: Arguments) -> dict[str, Any]:
        last, image = _number(arguments, "last"), _number(arguments, "image")
        since = _moment(arguments, "since")
        if sum(given is not None for given in (last, image, since)) != 1:
            raise BadRequest("say what to undo: the last N, what was filed since a time, or one image")
        files = self.ledger.filed(last=last, since=since, image=image)
        if image is not None and not files:
            raise UserError(f"image {image} is not filed, so there is nothing to undo")
        return _told(self.returner.put_back(files, hold=True))

    def _release(self, _arguments: Arguments) -> dict[str, Any]:
        self.ledger.release()
        count = self.holds.clear()
        self.on_change()
        return {"released": count}

    def _rejected(self, arguments: Arguments) -> list[dict[str, Any]]:
        return [_shown(file) for file in self._refused(arguments)]

    def _retry(self, arguments: Arguments) -> dict[str, Any]:
        returned = self.returner.put_back(self._refused(arguments), hold=False)
        self.on_change()
        return _told(returned)

    def _refused(self, arguments: Arguments) -> list[Filed]:
        reason = _text(arguments, "reason")
        if reason is not None and reason not in set(Reason):
            raise BadRequest(f"there is no reason {reason!a}; there are {', '.join(Reason)}")
        return self.ledger.filed(
            image=_number(arguments, "image"),
            placement=Placement.REJECTED,
            reason=None if reason is None else Reason(reason),
            inbox=_text(arguments, "inbox"),
        )

    def _use(self, arguments: Arguments) -> dict[str, Any]:
        name, version = arguments.get("name"), _number(arguments, "version")
        if not isinstance(name, str) or version is None:
            raise BadRequest("say which model and which version")
        self.store.open(name, version)  # a damaged version is refused before anything points to it
        self.store.use(name, version)
        self.on_change()
        return {"name": name, "version": version}

    def _rollback(self, arguments: Arguments) -> dict[str, Any]:
        name = arguments.get("name")
        if not isinstance(name, str):
            raise BadRequest("say which model")
        current = self.store.current(name)
        older = [version for version in self.store.versions(name) if current is not None and version < current]
        if not older:
            raise UserError(f"the model {name} has no version before {current or 'the current one'} to go back to")
        return self._use({"name": name, "version": older[-1]})

    def _backup(self, arguments: Arguments) -> dict[str, Any]:
        file = arguments.get("file")
        if not isinstance(file, str) or not os.path.isabs(file) or "\0" in file:
            raise BadRequest("say where to write the backup, as an absolute path")
        size = database.backup(self.engine, Path(file))
        return {"file": file, "size_bytes": size}

    def _reload(self, _arguments: Arguments) -> dict[str, Any]:
        if self.reload is None:
            raise UserError("no daemon is running, so there is nothing to reload")
        self.reload()
        return {"reloading": True}


def alone(settings: Settings) -> Callable[[str, Arguments], Any]:
    """Operations for a command that holds the state lock itself, because no daemon runs."""

    def answer(request: str, arguments: Arguments) -> Any:
        with _opened(settings) as operations:
            return operations.answer(request, arguments)

    return answer


@contextmanager
def _opened(settings: Settings) -> Iterator[Operations]:
    with open_records(settings) as records:
        yield Operations(records.ledger, records.returner, records.holds, records.store, records.engine)


def _broken_off(error: Exception) -> Unavailable:
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) else getattr(error, "strerror", None) or error
    return Unavailable(f"the system failed: {cause}; no file is lost by it, and what was begun will be taken up again")


def _number(arguments: Arguments, key: str) -> int | None:
    value = arguments.get(key)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _LARGEST:
        raise BadRequest(f"{key} must be a whole number from 1 on, not {_quoted(value)}")
    return value


def _text(arguments: Arguments, key: str) -> str | None:
    value = arguments.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or not value.isprintable():  # no database takes half a character, nor all of them NUL
        raise BadRequest(f"{key} must be a name, not {_quoted(value)}")
    return value


def _moment(arguments: Arguments, key: str) -> datetime | None:
    value = arguments.get(key)
    if value is None:
        return None
    try:
        return datetime.fromisoformat(str(value)).astimezone(UTC)
    except (ValueError, OverflowError):  # the latter within a day of the first or the last year
        raise BadRequest(f"{key} must be a time such as 2026-11-21T08:00:00, not {_quoted(value)}") from None


def _quoted(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def _told(returned: Returned) -> dict[str, Any]:
    return {"back": returned.back, "refused": list(returned.refused)}


def _shown(file: Filed) -> dict[str, Any]:
    return {
        "image": file.id,
        "inbox": file.hold.inbox,
        "path": to_text(file.hold.path),
        "destination": to_text(file.destination) or None,
        "reason": file.reason,
        "detail": file.detail,
        "size_bytes": file.hold.size,
    }
