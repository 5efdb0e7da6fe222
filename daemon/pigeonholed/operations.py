"""What commands ask of the one writer: the same code in a running daemon and, where none runs, in the command."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from pigeonholed import database
from pigeonholed.errors import Unavailable, UserError
from pigeonholed.images import Placement
from pigeonholed.reclassifying import Wanted
from pigeonholed.records import open_records
from pigeonholed.results import LARGEST, Selection, WrongSelection, number_in, quoted, text_in
from pigeonholed.writer import Stopped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import Engine

    from pigeonholed.holding import Holds
    from pigeonholed.ledger import Ledger
    from pigeonholed.mending import Mender
    from pigeonholed.reclassifying import Reclassifier
    from pigeonholed.returning import Returner
    from pigeonholed.settings import Settings
    from pigeonholed.store import ModelStore

Arguments = Mapping[str, Any]

_MOVES_FILES = frozenset({"undo", "retry", "reclassify"})
_PAGE = 1024
_REFUSED_SHOWN = 1000
"""So many files that stay are named one by one; the answer must be of a size that a command takes."""


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
        reclassifier: looks again at what is filed.
        mender: brings rows into line with the disk.
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
    reclassifier: Reclassifier
    mender: Mender
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
            "retry": self._retry,
            "use": self._use,
            "rollback": self._rollback,
            "backup": self._backup,
            "reclassify": self._reclassify,
            "mend": self._mend,
            "reload": self._reload,
        }
        if request not in known:
            raise BadRequest(f"there is no request {request[:80]!a}; there are {', '.join(known)}")
        if request == "status":
            return self._status(arguments)
        if request == "reclassify":  # loading may take minutes, in which others have turns
            self.reclassifier.prepare(_wanted(arguments))
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
        last, selection = _number(arguments, "last"), _selection(arguments)
        if sum(given is not None for given in (last, selection.image, selection.since)) != 1:
            raise BadRequest("say what to undo: the last N, what was filed since a time, or one image")
        told = self._put_back(selection, most=last, hold=True)
        if selection.image is not None and not told["back"] and not told["refused"]:
            raise UserError(f"image {selection.image} is not filed, so there is nothing to undo")
        return told

    def _put_back(self, selection: Selection, *, most: int | None, hold: bool) -> dict[str, Any]:
        """Put results back, the newest first, a page of them in memory at a time."""
        back, left, before = 0, most, None
        refused: list[str] = []
        unnamed = 0
        while left is None or left > 0:
            page = self.ledger.filed(selection, before=before, most=_PAGE if left is None else min(_PAGE, left))
            if not page:
                break
            returned = self.returner.put_back(page, hold=hold)
            back += returned.back
            room = _REFUSED_SHOWN - len(refused)
            refused += returned.refused[:room]
            unnamed += max(0, len(returned.refused) - room)
            before = page[-1].id
            left = None if left is None else left - len(page)
        if unnamed:
            refused.append(f"and {unnamed} more, for which the log or another try tells why")
        return {"back": back, "refused": refused}

    def _release(self, _arguments: Arguments) -> dict[str, Any]:
        self.ledger.release()
        count = self.holds.clear()
        self.on_change()
        return {"released": count}

    def _retry(self, arguments: Arguments) -> dict[str, Any]:
        selection = replace(_selection(arguments), outcome=Placement.REJECTED)
        told = self._put_back(selection, most=_number(arguments, "limit"), hold=False)
        self.on_change()
        return told

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

    def _reclassify(self, arguments: Arguments) -> dict[str, Any]:
        return self.reclassifier.page(_wanted(arguments))

    def _mend(self, arguments: Arguments) -> dict[str, Any]:
        given, since = arguments.get("items"), arguments.get("since")
        if not isinstance(given, list) or not all(isinstance(item, dict) for item in given):
            raise BadRequest("say what is to be mended, as a list of findings")
        if type(since) is not int or not 0 <= since <= LARGEST:
            raise BadRequest("say up to which id the rows were known when it was found")
        try:
            items = [self.mender.item(item) for item in given]
        except ValueError as error:
            raise BadRequest(str(error)) from None
        told = self.mender.mend(items, since)
        return {"told": [list(answer) for answer in told], "last_id": self.ledger.last_id}

    def _reload(self, _arguments: Arguments) -> dict[str, Any]:
        if self.reload is None:
            raise UserError("no daemon is running, so there is nothing to reload")
        self.reload()
        return {"reloading": True}


def alone(settings: Settings) -> Callable[[str, Arguments], Any]:
    """Operations for a command that holds the state lock itself, because no daemon runs."""

    def answer(request: str, arguments: Arguments) -> Any:
        with opened(settings) as operations:
            return operations.answer(request, arguments)

    return answer


@contextmanager
def opened(settings: Settings) -> Iterator[Operations]:
    """The same for several requests, one after another."""
    from pigeonholed.metrics import Metrics
    from pigeonholed.pipeline import reclassifier_of  # which wires operations, too

    with open_records(settings) as records:
        reclassifier = reclassifier_of(settings, records, Metrics(process=False))
        try:
            yield Operations(
                records.ledger,
                records.returner,
                records.holds,
                records.store,
                records.engine,
                reclassifier,
                records.mender,
            )
        finally:
            reclassifier.close()  # what it has begun ends before the records are closed


def _broken_off(error: Exception) -> Unavailable:
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) else getattr(error, "strerror", None) or error
    return Unavailable(f"the system failed: {cause}; no file is lost by it, and what was begun will be taken up again")


def _wanted(arguments: Arguments) -> Wanted:
    inbox, only = _text(arguments, "inbox"), _text(arguments, "only")
    if inbox is None:
        raise BadRequest("say whose pictures are to be looked at again: the name of an inbox")
    if only not in (None, Placement.SORTED, Placement.UNSURE):
        raise BadRequest(f"only must be sorted or unsure, not {quoted(only)}")
    return Wanted(
        inbox,
        _text(arguments, "model"),
        _number(arguments, "version"),
        None if only is None else Placement(only),
        everything=_flag(arguments, "all"),
        dry_run=_flag(arguments, "dry_run"),
        after=_number(arguments, "after") or 0,
        through=_number(arguments, "through"),
    )


def _flag(arguments: Arguments, key: str) -> bool:
    value = arguments.get(key, False)
    if not isinstance(value, bool):
        raise BadRequest(f"{key} must be true or false, not {quoted(value)}")
    return value


def _number(arguments: Arguments, key: str) -> int | None:
    try:
        return number_in(arguments, key)
    except WrongSelection as error:
        raise BadRequest(str(error)) from None


def _text(arguments: Arguments, key: str) -> str | None:
    try:
        return text_in(arguments, key)
    except WrongSelection as error:
        raise BadRequest(str(error)) from None


def _selection(arguments: Arguments) -> Selection:
    try:
        return Selection.from_arguments(arguments)
    except WrongSelection as error:
        raise BadRequest(str(error)) from None
