"""`pigeonholed models`: the model store."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pigeonholed.commands import Group, chosen_config, config_option
from pigeonholed.completion import model_names

if TYPE_CHECKING:
    from pigeonholed.store import ModelStore

_SWITCH_S = 300.0  # every checksum of a large model on a slow disk


@click.group(name="models", cls=Group)
def command() -> None:
    """Look after the model store."""


store_option = click.option(
    "--models", "folder", type=click.Path(path_type=Path), help="The store; default: the configuration's."
)


@command.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@store_option
@config_option
@click.pass_context
def list_(ctx: click.Context, as_json: bool, folder: Path | None, config: Path | None) -> None:
    """List the models and their versions; the one that is served is marked."""
    store = _store(folder, chosen_config(ctx, config))
    names = store.names()
    for name in names:
        current = store.current(name)
        for version in store.versions(name):
            if as_json:
                click.echo(json.dumps({"name": name, "version": version, "current": version == current}))
            else:
                click.echo(f"{name} {version}{'  current' if version == current else ''}")
    if not names and not as_json:
        click.echo(f"no models in {store.root} yet; 'pigeonholed-train train PICTURES --name N --publish' makes one")


@command.command()
@click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=model_names)
@store_option
@config_option
@click.pass_context
def verify(ctx: click.Context, names: tuple[str, ...], folder: Path | None, config: Path | None) -> None:
    """Check every version of the named models (default: all): checksums, layers, self-test. Exit 1 if one fails."""
    from pigeonholed.bundle import BundleError
    from pigeonholed.classifying import trial
    from pigeonholed.config_errors import one_line
    from pigeonholed.errors import Misconfigured

    store = _store(folder, chosen_config(ctx, config))
    failed = False
    if not store.root.is_dir():
        raise Misconfigured(f"there is no model store {store.root}; say which with --models DIR or --config FILE")
    for name in names or store.names():
        versions = store.versions(name)
        try:
            store.open(name)  # what a service would serve
        except BundleError as error:
            failed = True
            click.echo(one_line(f"{name}  FAILED  {error}"))
        for version in versions:
            try:
                passed = trial.hold(store.open(name, version))
            except BundleError as error:
                failed = True
                click.echo(one_line(f"{name} {version}  FAILED  {error}"))
            else:
                click.echo(f"{name} {version}  ok  ({passed.runtime}, {passed.device})")
    if failed:
        sys.exit(1)


@command.command()
@click.argument("name", shell_complete=model_names)
@click.argument("version", type=click.IntRange(min=1))
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@config_option
@click.pass_context
def use(ctx: click.Context, name: str, version: int, as_json: bool, config: Path | None) -> None:
    """Make a version of a model the current one; a running daemon serves it within seconds, dropping nothing.

    A damaged version is refused and changes nothing. An inbox whose version is pinned in the configuration keeps it.
    """
    _switch(chosen_config(ctx, config), "use", {"name": name, "version": version}, as_json=as_json)


@command.command()
@click.argument("name", shell_complete=model_names)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@config_option
@click.pass_context
def rollback(ctx: click.Context, name: str, as_json: bool, config: Path | None) -> None:
    """Make the version before the current one of a model the current one."""
    _switch(chosen_config(ctx, config), "rollback", {"name": name}, as_json=as_json)


def _switch(config: Path | None, request: str, arguments: dict[str, Any], *, as_json: bool) -> None:
    from pigeonholed.config import load_settings
    from pigeonholed.operations import alone
    from pigeonholed.reaching import perform

    settings = load_settings(config)
    answer = perform(settings, request, arguments, alone=alone(settings), timeout_s=_SWITCH_S)
    if as_json:
        click.echo(json.dumps(answer, ensure_ascii=True))
    else:
        click.echo(f"version {answer['version']} of {answer['name']} is the current one")


def _store(folder: Path | None, config: Path | None) -> ModelStore:
    from pigeonholed.config import load_settings
    from pigeonholed.store import ModelStore

    return ModelStore(folder if folder is not None else load_settings(config).models.dir)
