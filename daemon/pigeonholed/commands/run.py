"""`pigeonholed run`: the service."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pigeonholed.commands import chosen_config, config_option

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from pigeonholed.service import Service


@click.command(name="run")
@click.option("--once", is_flag=True, help="File everything that is there at start, then end.")
@click.option("--no-upgrade", is_flag=True, help="Refuse a database of an older version instead of upgrading it.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="Overrides [log].level.")
@click.option("--log-format", type=click.Choice(["auto", "console", "json"]), help="Overrides [log].format.")
@config_option
@click.pass_context
def command(
    ctx: click.Context,
    once: bool,
    no_upgrade: bool,
    log_level: str | None,
    log_format: str | None,
    config: Path | None,
) -> None:
    """Watch the inboxes and file every picture that arrives.

    TERM and INT stop the intake, finish what is in flight and end with exit code 0; a second one ends at once, which
    is safe: the next start takes up whatever was in flight.

    With --once it exits 0 when all was filed (a rejected picture is filed too), and 1 when a file was still changing
    and had to be left.
    """
    from pigeonholed import logs
    from pigeonholed.config import load_settings
    from pigeonholed.pipeline import build

    overrides = {"log.level": log_level, "log.format": log_format}
    settings = load_settings(chosen_config(ctx, config), overrides=overrides)
    logs.configure(settings.log.format, settings.log.level)
    stop = threading.Event()
    wake = _end_on_signals(stop)
    with build(settings, stop=stop, once=once, may_upgrade=not no_upgrade) as service:
        wake.append(service.end)
        service.run()
        left = service.claiming.left if once and hasattr(service.claiming, "left") else []
    if once:
        click.echo(f"{service.reporter.filed} files filed" + _shares(service), err=True)
    if left:
        shown = ", ".join(left[:5]) + (f" and {len(left) - 5} more" if len(left) > 5 else "")
        click.echo(f"pigeonholed: still changing and left where they are: {shown}", err=True)
        sys.exit(1)


def _shares(service: Service) -> str:
    counts = [f"{count} {placement}" for placement, count in sorted(service.reporter.placements.items())]
    return f": {', '.join(counts)}" if counts else ""


def _end_on_signals(stop: threading.Event) -> list[Callable[[], None]]:
    """Let TERM and INT set `stop`; what is put into the list is called then, too."""
    also: list[Callable[[], None]] = []

    def end(number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            os._exit(128 + number)  # nothing needs tidying: a kill at any moment is safe
        stop.set()
        for action in also:
            action()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGIO, signal.SIG_IGN)  # of the leases that tell whether a file is being written to
    return also
