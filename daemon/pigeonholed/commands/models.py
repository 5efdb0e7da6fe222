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
    from collections.abc import Iterator

    from pigeonholed.catalogue import Entry
    from pigeonholed.settings import InboxSettings
    from pigeonholed.store import ModelStore

_SWITCH_S = 300.0  # every checksum of a large model on a slow disk


@click.group(name="models", cls=Group)
def command() -> None:
    """Look after the model store."""


store_option = click.option(
    "--models", "folder", type=click.Path(path_type=Path), help="The store; default: the configuration's."
)


@command.command(name="list")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@store_option
@config_option
@click.pass_context
def list_(ctx: click.Context, names: tuple[str, ...], as_json: bool, folder: Path | None, config: Path | None) -> None:
    """List the models and their versions; the one that is served is marked.

    Of each: when it was published, how many classes it knows, how much it had right of pictures it had never seen,
    its recipe, its size, and the inboxes that it sorts. A version that is plainly damaged is named; 'models verify'
    looks closely. With --models the configuration is not read, so that no inboxes are known.

    \b
    Exit code 0: done; 78: there is no model of that name, or no configuration.

    \b
    Example:
      pigeonholed models list birds --json | jq -r 'select(.current) | .version'
    """  # noqa: D301 (\b is click's sign for lines that stay as they are)
    from pigeonholed.catalogue import entries
    from pigeonholed.config_errors import one_line

    store, inboxes = _store(folder, chosen_config(ctx, config))
    known = store.names()
    for entry in entries(store, _chosen(names, known, store), inboxes):
        if as_json:
            click.echo(json.dumps(entry.as_dict(), ensure_ascii=True))
        else:
            click.echo(one_line(_line(entry)))
    if not known and not as_json:
        click.echo(f"no models in {store.root} yet; 'pigeonholed-train train PICTURES --name N --publish' makes one")


@command.command()
@click.argument("words", metavar="[NAME [VERSION]]...", nargs=-1, shell_complete=model_names)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@store_option
@config_option
@click.pass_context
def verify(ctx: click.Context, words: tuple[str, ...], as_json: bool, folder: Path | None, config: Path | None) -> None:
    """Check every version of the named models (default: all): checksums, layers, self-test. Exit 1 if one fails.

    A number behind a name means that version only. Nothing is changed, and each version is tried in a process of its
    own, as the service tries it before it serves it.

    \b
    Exit code 0: all are sound; 1: one is not; 78: there is no such model, or no store.

    \b
    Examples:
      pigeonholed models verify
      pigeonholed models verify birds 3
    """  # noqa: D301
    from pigeonholed.errors import Misconfigured

    store, _inboxes = _store(folder, chosen_config(ctx, config))
    if not store.root.is_dir():
        raise Misconfigured(f"there is no model store {store.root}; say which with --models DIR or --config FILE")
    failed = False
    for result in _verified(store, _wanted(words, store)):
        failed = failed or not result["ok"]
        _show_verified(result, as_json=as_json)
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


def _store(folder: Path | None, config: Path | None) -> tuple[ModelStore, tuple[InboxSettings, ...]]:
    """The store, and the inboxes that are sorted by its models as far as that is known."""
    from pigeonholed.config import load_settings
    from pigeonholed.store import ModelStore

    if folder is not None:
        return ModelStore(folder), ()
    settings = load_settings(config)
    return ModelStore(settings.models.dir), tuple(settings.inbox)


def _chosen(names: tuple[str, ...], known: list[str], store: ModelStore) -> list[str]:
    from pigeonholed.errors import Misconfigured

    for name in names:
        if name not in known:
            have = f"it has {', '.join(known)}" if known else "it has none"
            raise Misconfigured(f"there is no model {name!a} in the store {store.root}: {have}")
    return list(dict.fromkeys(names)) or known


def _wanted(words: tuple[str, ...], store: ModelStore) -> dict[str, set[int] | None]:
    """By model the versions that were named; None for all of them."""
    from pigeonholed.bundle import version_of

    known = store.names()
    wanted: dict[str, set[int] | None] = {}
    name = None
    for word in words:
        version = version_of(word)
        if version is not None and name is not None and word not in known:
            wanted[name] = (wanted[name] or set()) | {version}
        else:
            name = word
            wanted.setdefault(name, None)
    return {name: wanted.get(name) for name in _chosen(tuple(wanted), known, store)}


def _verified(store: ModelStore, wanted: dict[str, set[int] | None]) -> Iterator[dict[str, Any]]:
    from pigeonholed.bundle import BundleError
    from pigeonholed.classifying import trial

    for name, versions in wanted.items():
        if versions is None:
            try:
                store.open(name)  # what a service would serve
            except BundleError as error:
                yield {"name": name, "version": None, "ok": False, "fault": str(error)}
        for version in sorted(versions) if versions is not None else store.versions(name):
            try:
                passed = trial.hold(store.open(name, version))
            except BundleError as error:
                yield {"name": name, "version": version, "ok": False, "fault": str(error)}
            else:
                told = {"runtime": passed.runtime, "device": passed.device, "fault": None}
                yield {"name": name, "version": version, "ok": True, **told}


def _show_verified(result: dict[str, Any], *, as_json: bool) -> None:
    from pigeonholed.config_errors import one_line

    if as_json:
        click.echo(json.dumps(result, ensure_ascii=True))
        return
    which = result["name"] if result["version"] is None else f"{result['name']} {result['version']}"
    said = f"ok  ({result['runtime']}, {result['device']})" if result["ok"] else f"FAILED  {result['fault']}"
    click.echo(one_line(f"{which}  {said}"))


def _line(entry: Entry) -> str:
    which = entry.name if entry.version is None else f"{entry.name} {entry.version}"
    parts = [which, "current" if entry.current else ""]
    if entry.fault is not None:
        parts.append(f"DAMAGED  {entry.fault}")
    else:
        right = "" if entry.accuracy is None else f", {entry.accuracy:.1%} right"
        parts.append(f"{entry.published_at}, {entry.labels} labels{right}, {(entry.size_bytes or 0) / 1e6:.1f} MB")
        parts.append(f"recipe {entry.recipe}" if entry.recipe else "")
    parts.append(f"sorts {', '.join(entry.inboxes)}" if entry.inboxes else "")
    return "  ".join(part for part in parts if part)
