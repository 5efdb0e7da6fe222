"""`pigeonholed run`: the service."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pigeonholed.commands import chosen_config, config_option

if TYPE_CHECKING:
    from pigeonholed.service import Service
    from pigeonholed.settings import Settings


@click.command(name="run")
@click.option("--once", is_flag=True, help="File everything that is there at start, then end.")
@click.option("--dry-run", is_flag=True, help="Say what would become of what is there now; changes nothing.")
@click.option("--json", "as_json", is_flag=True, help="With --dry-run: one JSON object a line.")
@click.option("--no-upgrade", is_flag=True, help="Refuse a database of an older version instead of upgrading it.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="Overrides [log].level.")
@click.option("--log-format", type=click.Choice(["auto", "console", "json"]), help="Overrides [log].format.")
@config_option
@click.pass_context
def command(
    ctx: click.Context,
    once: bool,
    dry_run: bool,
    as_json: bool,
    no_upgrade: bool,
    log_level: str | None,
    log_format: str | None,
    config: Path | None,
) -> None:
    """Watch the inboxes and file every picture that arrives.

    TERM and INT stop the intake, finish what is in flight and end with exit code 0; a second one ends at once, which
    is safe: the next start takes up whatever was in flight. HUP reads configuration and models again, and keeps the
    old ones if the new are faulty.

    With --once it exits 0 when all was filed (a rejected picture is filed too), and 1 when a file was still changing
    and had to be left.
    """
    from pigeonholed import logs, systemd
    from pigeonholed.allocator import share_arenas
    from pigeonholed.config import load_settings
    from pigeonholed.config_errors import one_line
    from pigeonholed.paths import to_text
    from pigeonholed.supervising import Supervisor

    overrides = {"log.level": log_level, "log.format": log_format}

    def load() -> Settings:
        return load_settings(chosen_config(ctx, config), overrides=overrides)

    settings = load()
    logs.configure(settings.log.format, settings.log.level)
    if dry_run:
        _rehearse(settings, as_json=as_json)
        return
    systemd.show_stacks_at_abort()
    share_arenas()
    service = Supervisor(load, once=once, may_upgrade=not no_upgrade).run(settings)
    if service is None:
        return
    left = service.left() if once else []
    if once:
        click.echo(f"{service.reporter.filed} files filed" + _shares(service), err=True)
    if left:
        shown = ", ".join(one_line(to_text(path)) for path in left[:5])
        shown += f" and {len(left) - 5} more" if len(left) > 5 else ""
        click.echo(f"pigeonholed: still changing and left where they are: {shown}", err=True)
        sys.exit(1)


def _shares(service: Service) -> str:
    counts = [f"{count} {placement}" for placement, count in sorted(service.reporter.placements.items())]
    return f": {', '.join(counts)}" if counts else ""


def _rehearse(settings: Settings, *, as_json: bool) -> None:
    from pigeonholed.config_errors import one_line
    from pigeonholed.rehearsing import dry_run

    for entry in dry_run(settings):
        if as_json:
            click.echo(json.dumps(entry, ensure_ascii=True))
            continue
        why = entry["reason"] or (entry["label"] and f"{entry['label']} {entry['confidence']:.1%}") or entry["outcome"]
        click.echo(one_line(f"{entry['inbox']}/{entry['path']} → {entry['destination'] or 'stays'}  ({why})"))
