"""What every writer opens: database, ledger, output folders, holds. A daemon keeps them, a command borrows them."""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from pigeonholed import database
from pigeonholed.errors import Misconfigured, Unavailable
from pigeonholed.filesystems import NETWORK, type_of
from pigeonholed.finishing import Delivery
from pigeonholed.ledger import Ledger
from pigeonholed.output import Output
from pigeonholed.placing import Placer
from pigeonholed.probing import Probed
from pigeonholed.returning import Holds, Returner
from pigeonholed.store import ModelStore
from pigeonholed.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy.engine import Engine

    from pigeonholed.settings import InboxSettings, Settings

log = structlog.get_logger()

_PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True)
class Records:
    """Open records; whoever opens them holds the state lock.

    Attributes:
        engine: the database.
        ledger: its rows.
        outputs: by folder.
        deliveries: by inbox.
        holds: what is passed over.
        returner: puts files back.
        store: the models.
    """

    engine: Engine
    ledger: Ledger
    outputs: dict[str, Output]
    deliveries: dict[str, Delivery]
    holds: Holds
    returner: Returner
    store: ModelStore


@contextmanager
def open_records(
    settings: Settings, *, stop: threading.Event | None = None, serving: bool = False, may_upgrade: bool = True
) -> Iterator[Records]:
    """Open everything that files and rows are changed through.

    Args:
        settings: which database and folders.
        stop: set when the process should end.
        serving: wait for what is away, for as long as that takes, instead of failing.
        may_upgrade: an older database is upgraded rather than refused.

    Raises:
        UserError: something is missing, held by another process, or cannot be used.
    """
    stop = stop or threading.Event()
    with ExitStack() as stack:
        engine, ledger = _open_database(settings, stop, stack, serving=serving, may_upgrade=may_upgrade)
        check_inboxes(settings, ledger, serving=serving)
        outputs = _open_outputs(settings, ledger, stack)
        deliveries = {
            inbox.name: _delivery(inbox, outputs[str(inbox.output)], ledger, stack) for inbox in settings.inbox
        }
        holds = Holds(ledger.holds())
        returner = Returner(ledger, deliveries, holds)
        returner.resume()
        yield Records(engine, ledger, outputs, deliveries, holds, returner, ModelStore(settings.models.dir))


def _open_database(
    settings: Settings, stop: threading.Event, stack: ExitStack, *, serving: bool, may_upgrade: bool
) -> tuple[Engine, Ledger]:
    if settings.database.file is not None:
        check_place(settings.database.file)
    engine = database.connect(settings.database.url)
    stack.callback(engine.dispose)
    waits = serving and settings.database.file is None
    database.wait_for(engine, stop, patience_s=None if waits else 0.0)
    database.prepare(engine, may_upgrade=may_upgrade)
    writer = Writer(engine, patience_s=None if serving else _PATIENCE_S, stop=stop)
    writer.start()
    stack.callback(writer.stop)
    return engine, Ledger(engine, writer)


def check_place(file: Path) -> None:
    """Say what is wrong with the place of an SQLite file, of which SQLite says only that it cannot open it.

    Raises:
        DatabaseUnavailable: this user cannot write there, or SQLite cannot work there.
    """
    folder = file.parent
    if not folder.is_dir():
        fault = f"the folder {folder} does not exist; make it, or name another in [database].url"
    elif not os.access(folder, os.W_OK | os.X_OK):
        fault = f"the folder {folder} cannot be written to; let this user write to it, SQLite keeps its journal there"
    elif file.exists() and not os.access(file, os.R_OK | os.W_OK):
        fault = "the file cannot be written to; let this user write to it"
    elif (kind := type_of(str(folder))) in NETWORK:
        fault = f"SQLite's locks and log do not work on a network file system ({kind}); keep it on a local disk"
    else:
        return
    raise database.DatabaseUnavailable(f"cannot use the database {file}: {fault}")


def check_inboxes(settings: Settings, ledger: Ledger, *, serving: bool) -> None:
    """A missing inbox that was seen before is waited for (its mount may be away); one that never was is a mistake."""
    known = ledger.known_inboxes()
    for inbox in settings.inbox:
        if os.path.isdir(inbox.path):
            ledger.remember_inbox(inbox.name, str(inbox.path))
        elif inbox.name in known:
            if not serving:
                raise Unavailable(f"the inbox {inbox.path} is missing; mount it again, or take it out of the settings")
            log.warning("inbox_missing", inbox=inbox.name, path=str(inbox.path))
        elif inbox.create:
            os.makedirs(inbox.path, exist_ok=True)
            ledger.remember_inbox(inbox.name, str(inbox.path))
        else:
            raise Misconfigured(
                f"the inbox {inbox.path} does not exist; make that folder, "
                f"or say create = true for the inbox {inbox.name}"
            )


def _open_outputs(settings: Settings, ledger: Ledger, stack: ExitStack) -> dict[str, Output]:
    outputs: dict[str, Output] = {}
    for inbox in settings.inbox:
        if str(inbox.output) not in outputs:
            output = Output.open(inbox.output, ledger.identity)
            stack.callback(output.close)
            outputs[str(inbox.output)] = output
    return outputs


def _delivery(inbox: InboxSettings, output: Output, ledger: Ledger, stack: ExitStack) -> Delivery:
    custody = Probed(inbox, output, ledger)
    stack.callback(custody.close)
    return Delivery(str(inbox.path), output, Placer(inbox.template), custody, inbox.duplicates == "set-aside")
