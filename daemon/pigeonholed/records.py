"""What every writer opens: database, ledger, output folders, holds. A daemon keeps them, a command borrows them."""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from pigeonholed import database, sqlite_file
from pigeonholed.amendments import Amendments
from pigeonholed.delivery import Delivery
from pigeonholed.errors import Misconfigured, Unavailable
from pigeonholed.holding import Holds
from pigeonholed.known_contents import KnownContents
from pigeonholed.ledger import Ledger
from pigeonholed.locking import COMMAND
from pigeonholed.mending import Mender
from pigeonholed.output import PRIVATE, Output
from pigeonholed.owning import owner_of
from pigeonholed.placing import Placer
from pigeonholed.probing import Probed
from pigeonholed.refiling import Refiler
from pigeonholed.refilings import Refilings
from pigeonholed.returning import Returner
from pigeonholed.served_models import ServedModels
from pigeonholed.store import ModelStore
from pigeonholed.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
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
        contents: what is filed, for inboxes that set duplicates aside.
        outputs: by inbox; several may have the same.
        deliveries: by inbox.
        holds: what is passed over.
        returner: puts files back.
        refilings: the rows of results that are made anew.
        refiler: moves files within their outputs.
        store: the models.
        served: which of their versions have served.
        mender: brings rows into line with the disk.
    """

    engine: Engine
    ledger: Ledger
    contents: KnownContents
    outputs: dict[str, Output]
    deliveries: dict[str, Delivery]
    holds: Holds
    returner: Returner
    refilings: Refilings
    refiler: Refiler
    store: ModelStore
    served: ServedModels
    mender: Mender


@contextmanager
def open_records(
    settings: Settings,
    *,
    stop: threading.Event | None = None,
    serving: bool = False,
    may_upgrade: bool = True,
    on_retry: Callable[[Exception], None] = lambda _error: None,
) -> Iterator[Records]:
    """Open everything that files and rows are changed through.

    Args:
        settings: which database and folders.
        stop: set when the process should end.
        serving: wait for what is away, for as long as that takes, instead of failing.
        may_upgrade: an older database is upgraded rather than refused.
        on_retry: called with the error each time that a change could not be written and is about to be tried again.

    Raises:
        UserError: something is missing, held by another process, or cannot be used.
    """
    stop = stop or threading.Event()
    with ExitStack() as stack:
        engine = _open_database(settings, stop, stack, serving=serving, may_upgrade=may_upgrade)
        writer = Writer(engine, patience_s=None if serving else _PATIENCE_S, stop=stop, on_retry=on_retry)
        writer.start()
        stack.callback(writer.stop)
        writer.begin()  # before the ledger looks for the last id: nobody else gives out any from now on
        ledger, contents, refilings = Ledger(engine, writer), KnownContents(engine, writer), Refilings(engine, writer)
        check_inboxes(settings, ledger, serving=serving)
        outputs = _open_outputs(settings, ledger, stack)
        deliveries = {inbox.name: _delivery(inbox, outputs[inbox.name], ledger, stack) for inbox in settings.inbox}
        holds = Holds(ledger.holds())
        returner = Returner(ledger, deliveries, holds)
        returner.resume()
        refiler = Refiler(refilings, deliveries)
        refiler.resume()
        store = ModelStore(settings.models.dir)
        served = ServedModels(engine, writer)
        by_folder = {output.root: output for output in outputs.values()}
        mender = Mender(ledger, Amendments(engine, writer), served, by_folder, settings.inbox, store)
        yield Records(
            engine, ledger, contents, outputs, deliveries, holds, returner, refilings, refiler, store, served, mender
        )


def _open_database(
    settings: Settings, stop: threading.Event, stack: ExitStack, *, serving: bool, may_upgrade: bool
) -> Engine:
    if settings.database.file is not None:
        sqlite_file.check_place(settings.database.file)
        lock = sqlite_file.lock(settings.database.file, purpose="" if serving else COMMAND)
        stack.callback(lock.release)
    engine = database.connect(settings.database.url)
    stack.callback(engine.dispose)
    waits = serving and settings.database.file is None
    database.wait_for(engine, stop, patience_s=None if waits else 0.0)
    database.prepare(engine, may_upgrade=may_upgrade)
    if not database.is_durable(engine):
        log.warning(
            "database_not_durable", because="the server runs with fsync = off", risk="a power cut loses results"
        )
    return engine


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
    opened: dict[Path, Output] = {}
    outputs: dict[str, Output] = {}
    for inbox in settings.inbox:
        root = _output_root(inbox, settings, ledger)
        if root not in opened:
            opened[root] = Output.open(root, ledger.identity)
            stack.callback(opened[root].close)
        outputs[inbox.name] = opened[root]
    return outputs


def _output_root(inbox: InboxSettings, settings: Settings, ledger: Ledger) -> Path:
    """The output of an inbox. One whose files stay has no use for it, unless files went there before.

    Those are put back from there, and those on their way are filed. Else none is made: the state folder stands in.
    """
    if inbox.output is not None:
        with suppress(OSError):
            if inbox.action != "none" or owner_of(os.path.join(inbox.output, PRIVATE)) == ledger.identity:
                return inbox.output
    return settings.state.dir


def _delivery(inbox: InboxSettings, output: Output, ledger: Ledger, stack: ExitStack) -> Delivery:
    custody = Probed(inbox, output, ledger)
    stack.callback(custody.close)
    nowhere = output.root != str(inbox.output)
    sets_aside = inbox.duplicates == "set-aside"
    return Delivery(str(inbox.path), output, Placer(inbox.template), custody, nowhere, sets_aside)
