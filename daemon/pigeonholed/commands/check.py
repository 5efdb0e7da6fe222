"""`pigeonholed check`: whether a service would start here, and what it would start with."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pigeonholed.commands import chosen_config, config_option

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pigeonholed.settings import InboxSettings, Settings


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the answer."""

    what: str
    ok: bool
    detail: str
    exit_code: int = 0


@click.command(name="check")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@config_option
@click.pass_context
def command(ctx: click.Context, as_json: bool, config: Path | None) -> None:
    """Check configuration, folders, database, models and device; one line each.

    Files are really made, renamed and removed in the folders, and the models really answer. Exit code 0 when all is
    well, else that of the first fault: 78 for the configuration, 69 for something that is not available now.
    """
    from pigeonholed.config import load_settings
    from pigeonholed.config_errors import one_line

    settings = load_settings(chosen_config(ctx, config))
    worst = 0
    for finding in _findings(settings):
        worst = worst or finding.exit_code
        if as_json:
            click.echo(json.dumps(asdict(finding)))
        else:
            click.echo(one_line(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.what}: {finding.detail}"))
    sys.exit(worst)


def _findings(settings: Settings) -> Iterator[Finding]:
    yield Finding("configuration", True, f"{settings.source} is valid")
    yield _tried("state", lambda: _state(settings))
    yield _tried("database", lambda: _database(settings))
    for inbox in settings.inbox:
        yield _tried(f"inbox {inbox.name}", lambda inbox=inbox: _inbox(settings, inbox))  # type: ignore[misc]
    for model, version in dict.fromkeys((inbox.model, inbox.version) for inbox in settings.inbox):
        yield _tried(f"model {model}", lambda model=model, version=version: _model(settings, model, version))  # type: ignore[misc]
    yield _tried("metrics", lambda: _metrics(settings))
    if settings.hook.command:
        yield _tried("hook", lambda: _hook(settings))
    yield _tried("device", _device)


def _tried(what: str, look: Callable[[], str]) -> Finding:
    from pigeonholed.bundle import BundleError
    from pigeonholed.classifying import DeviceUnavailable
    from pigeonholed.errors import Misconfigured, Unavailable, UserError

    try:
        return Finding(what, True, look())
    except UserError as error:
        return Finding(what, False, str(error), error.exit_code)
    except BundleError as error:
        return Finding(what, False, str(error), Misconfigured.exit_code)
    except DeviceUnavailable as error:
        return Finding(what, False, str(error), Unavailable.exit_code)
    except OSError as error:
        return Finding(what, False, f"{error.strerror}: {error.filename}", Misconfigured.exit_code)


def _state(settings: Settings) -> str:
    from pigeonholed.errors import Misconfigured

    folder = settings.state.dir
    there = next(place for place in (folder, *folder.parents) if place.exists())
    try:
        tempfile.TemporaryFile(dir=there).close()
        holder = _holder(settings)
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


def _holder(settings: Settings) -> str | None:
    """Which process serves the state folder; makes no lock file, for one of root's would be in a service's way."""
    from pigeonholed.locking import Held, Lock

    file = settings.state.dir / "pigeonholed.lock"
    if file.exists():
        try:
            Lock.take(str(file)).release()
        except Held as held:
            return held.holder or "unknown"
    return None


def _database(settings: Settings) -> str:
    from pigeonholed import database
    from pigeonholed.records import check_place

    file = settings.database.file
    shown = file if file is not None else "the server"
    if file is not None:
        if file.parent != settings.state.dir or file.parent.exists():  # that one is made at the start
            check_place(file)
        if not file.exists():
            return f"{file} will be made"
    engine = database.connect(settings.database.url, read_only=True)
    database.check_not_newer(engine)
    have, newest = database.current_revision(engine), database.newest_revision()
    if have == newest:
        return f"{shown} answers, schema {have}"
    return f"{shown} answers; its schema {have or 'none'} will be upgraded to {newest}"


def _inbox(settings: Settings, inbox: InboxSettings) -> str:
    from pigeonholed import database
    from pigeonholed.errors import Misconfigured
    from pigeonholed.output import Output, OutputHeld

    if not inbox.path.is_dir():
        if inbox.create:
            return f"{inbox.path} will be made"
        raise Misconfigured(f"the folder {inbox.path} does not exist; make it, or say create = true")
    if inbox.action == "none":
        if not os.access(inbox.path, os.R_OK | os.X_OK):
            raise Misconfigured(f"cannot read the inbox {inbox.path}: let this user look into that folder")
        return f"{inbox.path}, files stay where they are, and only get rows"
    assert inbox.output is not None
    file = settings.database.file
    known = file is None or file.exists()
    engine = database.connect(settings.database.url, read_only=True) if known else None
    identity = None if engine is None else database.identity_of(engine)
    made = _missing(inbox.output)
    try:
        output = Output.open(inbox.output, identity)
    except OutputHeld as held:
        return f"{inbox.path} → {inbox.output} ({held})"
    try:
        how = "can be moved" if output.check_source(str(inbox.path)) else "must be copied to another mount"
        if inbox.hostile or inbox.action == "copy":
            how = "are copied"
        return f"{inbox.path} → {inbox.output}, files {how}; {output.free_bytes() / 1e9:.1f} GB free"
    finally:
        _unmake(made)
        output.close()


def _missing(output: Path) -> list[Path]:
    """What opening an output will make, innermost first."""
    from pigeonholed.output import PRIVATE

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


def _model(settings: Settings, model: str, version: int | str) -> str:
    from pigeonholed.classifying import trial
    from pigeonholed.store import ModelStore

    bundle = ModelStore(settings.models.dir).open(model, version)  # type: ignore[arg-type]
    runtime = settings.runtime
    passed = trial.hold(
        bundle,
        kind=runtime.kind,
        device=runtime.device,
        precision=runtime.precision,
        max_batch_size=settings.batching.max_batch_size,
    )
    return (
        f"version {bundle.version}, {len(bundle.labels)} labels, self-test passed "
        f"({passed.runtime}, {passed.device}, {passed.precision})"
    )


def _metrics(settings: Settings) -> str:
    from pigeonholed.errors import Unavailable

    listen = settings.metrics.listen
    if listen is None:
        return "not served"
    if (holder := _holder(settings)) is not None:
        return f"{listen}, served by process {holder} now"
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    try:
        socket.create_server((listen.host, listen.port), family=family).close()
    except OSError as error:
        raise Unavailable(
            f"cannot listen on {listen}: {os.strerror(error.errno) if error.errno else error}; "
            'choose another address in [metrics].listen, or "" for none'
        ) from None
    return f"{listen} is free"


def _hook(settings: Settings) -> str:
    from pigeonholed import hook

    hook.check(settings.hook.command)
    return f"{' '.join(settings.hook.command)} can be run"


def _device() -> str:
    from pigeonholed.classifying import find_gpu

    gpu = find_gpu()
    return f"GPU: {gpu}" if gpu else f"no GPU, {os.cpu_count()} CPUs"
