"""`pigeonholed status`: what the daemon is doing, or what was recorded where none runs."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pigeonholed.commands import chosen_config, config_option
from pigeonholed.locking import holder_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from pigeonholed.settings import Settings

Facts = dict[str, Any]

_ANSWERS_WITHIN_S = 5.0
_EVERY_S = 1.0


@click.command(name="status")
@click.option("--watch", "-w", is_flag=True, help="Refresh each second until Ctrl-C; off a terminal, a line a second.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object; with --watch one each second.")
@config_option
@click.pass_context
def command(ctx: click.Context, watch: bool, as_json: bool, config: Path | None) -> None:
    """Show queue, oldest wait, rate, time to the end, counts and last errors of the running daemon.

    Counts are since its start. Where no daemon runs, it says so and shows what the database has recorded; the exit
    code is 0 then, too.
    """
    from rich.console import Console

    from pigeonholed.config import load_settings

    settings = load_settings(chosen_config(ctx, config))
    # Off a terminal rich knows no width, and would cut what a script or a log should have whole.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    if not watch:
        _show_once(console, look(settings), as_json=as_json)
    elif as_json or not console.is_terminal:
        follow(_Looking(settings).look, lambda facts: _print_line(facts, as_json=as_json))
    else:
        _watch(console, _Looking(settings))


def follow(
    look: Callable[[], Facts], show: Callable[[Facts], None], pause: Callable[[float], None] = time.sleep
) -> None:
    """Look and show, once a second, until Ctrl-C."""
    with suppress(KeyboardInterrupt):
        while True:
            show(look())
            pause(_EVERY_S)


def look(settings: Settings) -> Facts:
    """What the daemon says, else what the database says.

    Raises:
        UserError: a daemon is there but cannot be reached, or the database cannot be read.
    """
    from pigeonholed.control import NoDaemon

    try:
        return _told(settings)
    except NoDaemon:
        return recorded(settings)


def recorded(settings: Settings) -> Facts:
    """The counts in the database, read without changing anything.

    Raises:
        DatabaseUnavailable: it cannot be read.
    """
    from pigeonholed.paths import to_text

    inboxes = {inbox.name: _empty(inbox.name, to_text(str(inbox.path))) for inbox in settings.inbox}
    for name, status, outcome, count, last_filed_at in _groups(settings):
        facts = inboxes.setdefault(name, _empty(name, None))
        if status == "filed":
            facts["filed"] += count
            facts[outcome] += count
            facts["last_filed_at"] = max(facts["last_filed_at"] or "", last_filed_at)
        elif status in {"claimed", "ingested", "planned"}:
            facts["in_flight"] += count
        elif status in {"returned", "lost"}:
            facts[status] += count
    return {
        "running": False,
        "holder": holder_of(settings.state.lock_file),
        "socket": to_text(str(settings.control.socket)),
        "inboxes": list(inboxes.values()),
    }


def _told(settings: Settings) -> Facts:
    from pigeonholed.control import ask

    facts: Facts = ask(settings.control.socket, "status", {}, timeout_s=_ANSWERS_WITHIN_S)
    return {"running": True} | facts


def _empty(name: str, path: str | None) -> Facts:
    counts = ("filed", "sorted", "unsure", "rejected", "duplicate", "in_flight", "returned", "lost")
    return {"name": name, "path": path, **dict.fromkeys(counts, 0), "last_filed_at": None}


def _groups(settings: Settings) -> list[tuple[str, str, str, int, str]]:
    """Inbox, status, outcome, how many, and when the last of them was filed (ISO 8601, "" where none was)."""
    import sqlalchemy as sa

    from pigeonholed import database
    from pigeonholed.tables import images

    file = settings.database.file
    if file is not None and not file.exists():
        return []
    engine = database.connect(settings.database.url, read_only=True)
    by = (images.c.inbox, images.c.status, images.c.outcome)
    query = sa.select(*by, sa.func.count(), sa.func.max(images.c.filed_at)).group_by(*by)
    try:
        if database.current_revision(engine) is None:
            return []
        with engine.connect() as connection:
            rows = connection.execute(query).all()
    except sa.exc.DBAPIError as error:
        raise database.unavailable(engine, error) from error
    finally:
        engine.dispose()
    return [(inbox, status, outcome, count, _iso(last)) for inbox, status, outcome, count, last in rows]


def _iso(moment: datetime | None) -> str:
    if moment is None:
        return ""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class _Looking:
    """Looks again and again: faults of a moment are shown rather than raised, and the database is asked but once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._recorded: Facts | None = None

    def look(self) -> Facts:
        from pigeonholed.control import NoDaemon
        from pigeonholed.errors import UserError

        try:
            facts = _told(self._settings)
        except NoDaemon:
            return self._without_daemon()
        except UserError as error:
            return {"running": None, "error": str(error)}
        self._recorded = None  # it will have changed when this daemon is gone
        return facts

    def _without_daemon(self) -> Facts:
        from pigeonholed.errors import UserError

        try:
            self._recorded = self._recorded or recorded(self._settings)
        except UserError as error:
            return {"running": None, "error": str(error)}
        return self._recorded | {"holder": holder_of(self._settings.state.lock_file)}


def _show_once(console: Console, facts: Facts, *, as_json: bool) -> None:
    from pigeonholed.status_view import render

    if as_json:
        click.echo(json.dumps(facts, ensure_ascii=True))
    else:
        console.print(render(facts, unicode=_draws(console)))


def _print_line(facts: Facts, *, as_json: bool) -> None:
    from pigeonholed.status_view import line_of

    click.echo(json.dumps(facts, ensure_ascii=True) if as_json else f"{time.strftime('%H:%M:%S')}  {line_of(facts)}")


def _watch(console: Console, looking: _Looking) -> None:
    from rich.live import Live

    from pigeonholed.status_view import render

    with Live(console=console, auto_refresh=False) as live:
        follow(looking.look, lambda facts: live.update(render(facts, unicode=_draws(console)), refresh=True))


def _draws(console: Console) -> bool:
    """Whether the terminal can show more than ASCII."""
    return console.encoding.lower().startswith("utf") and os.environ.get("TERM") != "dumb"
