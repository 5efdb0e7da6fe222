"""`pigeonholed check`: whether a service would start here, and what it would start with."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pigeonholed.commands import chosen_config, config_option

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pigeonholed.checking import Finding


@click.command(name="check")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@config_option
@click.pass_context
def command(ctx: click.Context, as_json: bool, config: Path | None) -> None:
    """Check configuration, folders, database, models and device; one line each.

    Files are really made, renamed and removed in the folders, and the models really answer; afterwards the disk is as
    it was. Run it as the user of the service: permissions are part of what is checked. It may run beside a service.

    \b
      ok    nothing to do
      warn  a service starts, but this asks for trouble
      FAIL  a service does not start; the line says what to do

    With --json each object has "what", "ok", "detail", "exit_code" and "warning"; faults of the configuration are
    objects, too.

    \b
    Exit codes:
      0   all is well, or there are warnings only
      78  the configuration: files, folders, models
      69  something is not available now: database, port, GPU
    Of several faults the first decides.

    \b
    Example:
      sudo -u pigeonholed pigeonholed check --config /etc/pigeonholed/pigeonholed.toml
    """  # noqa: D301 (click wants the control character)
    from pigeonholed.config_errors import one_line

    worst = 0
    for finding in _findings(chosen_config(ctx, config), as_json=as_json):
        worst = worst or finding.exit_code
        if as_json:
            click.echo(json.dumps(asdict(finding)))
        else:
            verdict = "FAIL" if not finding.ok else "warn" if finding.warning else "ok  "
            click.echo(one_line(f"{verdict}  {finding.what}: {finding.detail}"))
    sys.exit(worst)


def _findings(config: Path | None, *, as_json: bool) -> Iterator[Finding]:
    """All of them; without --json, faults of the configuration are told as every command tells them."""
    from pigeonholed.checking import Finding, look
    from pigeonholed.config import ConfigError, load_settings

    try:
        settings = load_settings(config)
    except ConfigError as error:
        if not as_json:
            raise
        for fault in error.faults:
            yield Finding("configuration", False, str(fault), error.exit_code)
        return
    yield from look(settings)
