"""Whether a service would start here: what `pigeonholed check` looks at, one finding for each thing.

Files are really made, renamed and removed, and the models really answer; afterwards the disk is as it was.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

import sqlalchemy as sa

from pigeonholed import database, hook, listening, sqlite_file, tables
from pigeonholed.bundle import BundleError
from pigeonholed.classifying import DeviceUnavailable, find_gpu, trial
from pigeonholed.errors import Misconfigured, Unavailable, UserError
from pigeonholed.loading import options_of
from pigeonholed.locking import holder_of
from pigeonholed.output import PRIVATE, Output, OutputHeld
from pigeonholed.paths import to_text
from pigeonholed.pipeline import check_supported
from pigeonholed.store import ModelStore
from pigeonholed.surroundings import warnings_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy.engine import Engine

    from pigeonholed.settings import InboxSettings, Settings


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the answer.

    Attributes:
        what: was looked at.
        ok: a service would start with it.
        detail: what was found; of a fault also what to do.
        exit_code: of the contract; 0 where it is ok.
        warning: it is ok, but something about it asks for trouble.
    """

    what: str
    ok: bool
    detail: str
    exit_code: int = 0
    warning: bool = False


def look(settings: Settings) -> Iterator[Finding]:
    """Everything, one after another; a fault of one thing hides none of another."""
    yield _tried("configuration", partial(_configuration, settings))
    yield _tried("state", partial(_state, settings))
    yield _tried("database", partial(_database, settings))
    for inbox in settings.inbox:
        yield _tried(f"inbox {inbox.name}", partial(_inbox, settings, inbox))
    for model, version in dict.fromkeys((inbox.model, inbox.version) for inbox in settings.inbox):
        yield _tried(f"model {model}", partial(_model, settings, model, version))
    yield _tried("control", partial(listening.control, settings))
    yield _tried("metrics", partial(listening.metrics, settings))
    if settings.web.token_file is not None:
        yield _tried("web", partial(listening.token, settings))
    if settings.hook.command:
        yield _tried("hook", partial(_hook, settings))
    yield _tried("device", partial(_device, settings))
    for what, detail in warnings_of(settings):
        yield Finding(what, True, detail, warning=True)


def _hook(settings: Settings) -> str:
    hook.check(settings.hook.command)
    return f"{' '.join(settings.hook.command)} can be run"


def _tried(what: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(what, True, look())
    except UserError as error:
        return Finding(what, False, str(error), error.exit_code)
    except BundleError as error:
        return Finding(what, False, str(error), Misconfigured.exit_code)
    except DeviceUnavailable as error:
        return Finding(what, False, str(error), Unavailable.exit_code)
    except OSError as error:
        where = f": {to_text(error.filename)}" if isinstance(error.filename, str) else ""
        return Finding(what, False, f"{error.strerror}{where}; let this user use it", Misconfigured.exit_code)


def _configuration(settings: Settings) -> str:
    check_supported(settings)
    return f"{settings.source} is valid"


def _state(settings: Settings) -> str:
    folder = settings.state.dir
    there = next(place for place in (folder, *folder.parents) if place.exists())
    try:
        tempfile.TemporaryFile(dir=there).close()
        holder = holder_of(settings.state.lock_file)
    except OSError as error:
        raise Misconfigured(
            f"cannot use the state folder {folder}: {error.strerror}; "
            "let this user write to it, or choose another in [state].dir"
        ) from None
    if there != folder:
        return f"{folder} will be made"
    if holder is not None:
        return f"{folder}, served by process {holder} now"
    return f"{folder} can be written, nobody serves it now"


def _database(settings: Settings) -> str:
    file = settings.database.file
    if file is not None:
        if file.parent != settings.state.dir or file.parent.exists():  # that one is made at the start
            sqlite_file.check_place(file)
        if not file.exists():
            return f"{file} will be made"
        if not file.is_file():
            raise database.DatabaseUnavailable(
                f"cannot use the database {file}: a folder, or something else that is no file, is there; "
                "move it away, or name another in [database].url"
            )
        writer = holder_of(sqlite_file.lock_path(file))
        if writer is not None and writer != holder_of(settings.state.lock_file):
            raise database.DatabaseUnavailable(sqlite_file.occupied(file, writer))
    with _opened(settings) as engine:
        shown = database.shown_of(engine)
        try:
            database.check_not_newer(engine)
            risk = "" if database.is_durable(engine) else "; it runs with fsync = off: a power cut loses results"
            have, newest = database.current_revision(engine), database.newest_revision()
        except database.DatabaseUnavailable as error:
            remedy = "move it away, or name another in [database].url" if file else "see to the server, or to the URL"
            raise database.DatabaseUnavailable(f"{error}; {remedy}") from None
    if have == newest:
        return f"{shown} answers, schema {have}{risk}"
    return f"{shown} answers; its schema {have or 'none'} will be upgraded to {newest}{risk}"


@contextlib.contextmanager
def _opened(settings: Settings) -> Iterator[Engine]:
    """The database, to be read."""
    file = settings.database.file
    if file is None or os.path.exists(f"{file}-wal"):
        engine = database.connect(settings.database.url, read_only=True)
    else:  # nobody writes, so no log is to be read; opened in the usual way, files of ours would stay beside it
        query = {"mode": "ro", "immutable": "1", "uri": "true"}
        engine = sa.create_engine(sa.URL.create("sqlite", database=f"file:{quote(str(file))}", query=query))
    try:
        yield engine
    finally:
        engine.dispose()


def _identity(settings: Settings) -> str | None:
    """Who our database is; None where it is still to be made, or cannot say: that is told elsewhere."""
    if settings.database.file is not None and not settings.database.file.is_file():
        return None
    with contextlib.suppress(UserError, sa.exc.DBAPIError), _opened(settings) as engine:
        return database.identity_of(engine)
    return None


def _was_seen(settings: Settings, inbox: str) -> bool:
    """Whether a service has seen an inbox before; it then waits for one that is missing."""
    if settings.database.file is not None and not settings.database.file.is_file():
        return False
    with contextlib.suppress(UserError, sa.exc.DBAPIError), _opened(settings) as engine, engine.connect() as connection:
        query = sa.select(tables.inboxes.c.name).where(tables.inboxes.c.name == inbox)
        return connection.scalar(query) is not None
    return False


def _inbox(settings: Settings, inbox: InboxSettings) -> str:
    if not inbox.path.is_dir():
        if inbox.create and not os.path.lexists(inbox.path):
            return f"{inbox.path} will be made"
        if _was_seen(settings, inbox.name):
            raise Unavailable(
                f"the folder {inbox.path} is away, and was there before; mount it again, or take it out of the "
                "configuration; a service that runs waits for it"
            )
        raise Misconfigured(f"the folder {inbox.path} does not exist; make it, or say create = true")
    _readable(inbox.path)
    if inbox.action == "none":
        return f"{inbox.path}, files stay where they are, and only get rows"
    assert inbox.output is not None
    identity = _identity(settings)
    made = _missing(inbox.output)
    try:
        output = Output.open(inbox.output, identity)
    except OutputHeld as held:
        return f"{inbox.path} → {inbox.output} ({held})"
    except UserError:
        _unmake(made)
        raise
    try:
        if identity is None and os.path.exists(os.path.join(output.private, "owner")):
            raise Misconfigured(
                f"the output {inbox.output} belongs to another database, and ours is not made yet: choose another "
                "output folder, or name the database that made this one in [database].url"
            )
        how = "can be moved" if output.check_source(str(inbox.path)) else "must be copied to another mount"
        if inbox.hostile or inbox.action == "copy":
            how = "are copied"
        left = len(output.batch_folders())
        waiting = f"; {left} batches of an earlier run will be taken up at the start" if left else ""
        return f"{inbox.path} → {inbox.output}, files {how}; {output.free_bytes() / 1e9:.1f} GB free{waiting}"
    finally:
        _unmake(made)
        output.close()


def _readable(folder: Path) -> None:
    try:
        with os.scandir(folder) as entries:
            next(entries, None)
    except OSError as error:
        raise Misconfigured(
            f"cannot read the inbox {folder}: {error.strerror}; let this user list that folder (chmod u+rwx)"
        ) from None


def _missing(output: Path) -> list[Path]:
    """What opening an output will make, innermost first."""
    private = output / PRIVATE
    wanted = [private / "owner", private / "lock", private, output, *output.parents]
    return [path for path in wanted if not os.path.lexists(path)]


def _unmake(made: list[Path]) -> None:
    """Leave nothing behind: what root makes would be in the way of a service that is not root."""
    for path in made:
        with contextlib.suppress(OSError):
            if path.name in ("owner", "lock"):
                path.unlink()
            else:
                path.rmdir()


def _model(settings: Settings, model: str, version: int | Literal["current"]) -> str:
    store = ModelStore(settings.models.dir)
    try:
        bundle = store.open(model, version)
        passed = trial.hold(bundle, **options_of(settings))
    except BundleError as error:
        fault = str(error).rstrip(".")
        if ";" in fault:  # it says itself what to do
            raise
        remedy = f"choose another version with 'pigeonholed models use {model} VERSION', or publish it again"
        if not store.versions(model):
            remedy = f"publish one with 'pigeonholed-train train DATA --name {model} --publish', or name another"
        raise BundleError(f"{fault}; {remedy}") from None
    return (
        f"version {bundle.version}, {len(bundle.labels)} labels, self-test passed "
        f"({passed.runtime}, {passed.device}, {passed.precision})"
    )


def _device(settings: Settings) -> str:
    gpu = find_gpu()
    if gpu:
        return f"GPU: {gpu}"
    if settings.runtime.device == "gpu":
        raise Unavailable(
            'there is no GPU that can be used, and [runtime].device = "gpu" asks for one; install its driver and '
            'pigeonholed[gpu], or say device = "auto"'
        )
    return f"no GPU, {os.cpu_count()} CPUs"
