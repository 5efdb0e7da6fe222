"""`pigeonholed db`: the schema of the database."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pigeonholed.commands import Group, chosen_config, config_option

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

_BACKUP_S = 3600.0  # millions of rows, on a disk that is at work


@click.group(name="db", cls=Group)
def command() -> None:
    """Look after the database."""


@command.command()
@config_option
@click.pass_context
def upgrade(ctx: click.Context, config: Path | None) -> None:
    """Bring the schema to the newest version, keeping the data; makes the database if there is none."""
    from pigeonholed import database

    engine = _engine(chosen_config(ctx, config))
    before = database.current_revision(engine)
    after = database.upgrade(engine)
    click.echo(f"the schema is {after}" + ("" if before == after else f" (was {before or 'none'})"))


@command.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@config_option
@click.pass_context
def current(ctx: click.Context, as_json: bool, config: Path | None) -> None:
    """Say which schema the database has, and which one this program works with."""
    from pigeonholed import database

    engine = _engine(chosen_config(ctx, config), must_exist=True)
    have, newest = database.current_revision(engine), database.newest_revision()
    if as_json:
        click.echo(json.dumps({"current": have, "newest": newest}))
    else:
        click.echo(f"current {have or 'none'}, newest {newest}")


@command.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@config_option
@click.pass_context
def backup(ctx: click.Context, file: Path, as_json: bool, config: Path | None) -> None:
    """Write a consistent copy of the database to FILE, also while the daemon works; nothing is overwritten.

    An SQLite database becomes another SQLite file. A database on a Postgres server is written by pg_dump, which must
    be installed where the daemon runs and be as new as the server, in its custom format, for pg_restore:
    `pigeonholed db backup results.dump`, then `pg_restore --dbname=NEW results.dump`.

    Exit code 0 when FILE is complete, 69 when it could not be written; nothing is left of it then.
    """
    from pigeonholed.config import load_settings
    from pigeonholed.operations import alone
    from pigeonholed.reaching import perform

    settings = load_settings(chosen_config(ctx, config))
    # The daemon works in another folder than the one in which the name was typed.
    arguments = {"file": os.path.abspath(file)}
    answer = perform(settings, "backup", arguments, alone=alone(settings), timeout_s=_BACKUP_S)
    if as_json:
        click.echo(json.dumps(answer, ensure_ascii=True))
    else:
        click.echo(f"the database is in {file} ({answer['size_bytes']:,} bytes)")


def _engine(config: Path | None, *, must_exist: bool = False) -> Engine:
    from pigeonholed import database
    from pigeonholed.config import load_settings

    settings = load_settings(config)
    file = settings.database.file
    if file is not None and not file.exists():
        if must_exist:
            raise database.DatabaseUnavailable(f"there is no database {file} yet; 'pigeonholed db upgrade' makes it")
        file.parent.mkdir(parents=True, exist_ok=True)
    return database.connect(settings.database.url, read_only=must_exist)
