"""`pigeonholed classify`: what a model says of pictures, without moving or recording anything."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pigeonholed.commands import chosen_config, config_option
from pigeonholed.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pigeonholed.decoding import Demand
    from pigeonholed.images import Decoded, Handled
    from pigeonholed.serving import Policy, Served


@click.command(name="classify")
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--model", help="Which model; needed only where there is more than one.")
@click.option("--models", "folder", type=click.Path(path_type=Path), help="A model store; no configuration is needed.")
@click.option("--top", "top_k", type=click.IntRange(min=1), default=5, show_default=True, help="How many labels.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@config_option
@click.pass_context
def command(
    ctx: click.Context,
    images: tuple[Path, ...],
    model: str | None,
    folder: Path | None,
    top_k: int,
    as_json: bool,
    config: Path | None,
) -> None:
    """Say what is on pictures, or on all pictures in folders; moves nothing, writes nothing.

    A picture that cannot be read is a result, too ("rejected", with the reason): the exit code is 0. It is 1 when a
    path does not exist.
    """
    served = _load(model, folder, chosen_config(ctx, config))
    show = _show_json if as_json else _show_text
    missing = [image for image in images if not image.exists()]
    for image in missing:
        click.echo(f"pigeonholed: there is no file {image}", err=True)
    for outcome, path in _Reader(served, top_k).classify(_files(images)):
        show(path, outcome, served)
    if missing:
        sys.exit(1)


def _load(model: str | None, folder: Path | None, config: Path | None) -> Served:
    from pigeonholed import imaging
    from pigeonholed.classifying import load_classifier
    from pigeonholed.config import load_settings
    from pigeonholed.serving import Served
    from pigeonholed.store import ModelStore

    imaging.configure()
    version: Any = "current"
    if folder is None:
        settings = load_settings(config)
        folder = settings.models.dir
        chosen = next((inbox for inbox in settings.inbox if model in (None, inbox.model)), None)
        if chosen is not None:
            model, version = chosen.model, chosen.version
    store = ModelStore(folder)
    if model is None:
        names = store.names()
        if len(names) > 1:
            raise Misconfigured(f"the store {folder} holds {', '.join(names)}; say which with --model NAME")
        model = names[0] if names else "(none)"
    bundle = store.open(model, version)
    return Served(bundle, load_classifier(bundle))


def _files(images: tuple[Path, ...]) -> Iterator[str]:
    """The named files, and what a service would take from the named folders."""
    from pigeonholed.ignoring import NameFilter

    names = NameFilter(("*",), ())
    for image in images:
        if not image.is_dir():
            if image.exists():
                yield str(image)
            continue
        for folder, subfolders, files in os.walk(image):
            subfolders[:] = sorted(name for name in subfolders if not names.prunes(name))
            yield from (os.path.join(folder, name) for name in sorted(files) if not names.ignores(name))


@dataclass(frozen=True, slots=True)
class _Reader:
    """Decodes and classifies in batches, by the code that the service uses."""

    served: Served
    top_k: int

    def classify(self, paths: Iterator[str]) -> Iterator[tuple[Handled, str]]:
        from pigeonholed.decoding import Demand
        from pigeonholed.serving import Policy

        demand = Demand(self.served.bundle.manifest.pixel_spec, 100_000_000, 500_000_000)
        policies = {"": Policy(None, self.top_k)}
        waiting: list[tuple[Handled | Decoded, str]] = []
        for path in paths:
            waiting.append((_examined(path, demand), path))
            if len(waiting) == 32:
                yield from self._flush(waiting, policies)
                waiting = []
        yield from self._flush(waiting, policies)

    def _flush(
        self, waiting: list[tuple[Handled | Decoded, str]], policies: dict[str, Policy]
    ) -> Iterator[tuple[Handled, str]]:
        from pigeonholed.images import Decoded

        decoded = [item for item, _path in waiting if isinstance(item, Decoded)]
        outcomes = iter(self.served.classify(decoded, policies) if decoded else ())
        for item, path in waiting:
            yield (next(outcomes) if isinstance(item, Decoded) else item), path


def _examined(path: str, demand: Demand) -> Handled | Decoded:
    from pigeonholed.decoding import examine
    from pigeonholed.images import Arrival, Fingerprint, ImageFile, Reason, Rejected

    arrival = Arrival(0, ImageFile("", path, 0, 0), "", "", 0.0)
    try:
        return examine(arrival, os.path.realpath(path), demand)
    except OSError as error:
        unread = Fingerprint(None, 0, 0)
        return Rejected(arrival, unread, Reason.IO_ERROR, error.strerror or str(error))


def _facts(path: str, outcome: Handled, served: Served) -> dict[str, Any]:
    from pigeonholed.images import Classified, Reason, Rejected
    from pigeonholed.paths import to_text
    from pigeonholed.placing import placement_of

    facts: dict[str, Any] = {
        "path": to_text(path),
        "outcome": "rejected",
        "reason": None,
        "label": None,
        "confidence": None,
        "top": [],
        "model": served.bundle.name,
        "version": served.bundle.version,
    }
    match outcome:
        case Classified(prediction=prediction):
            facts["outcome"] = placement_of(outcome).value
            facts["label"], facts["confidence"] = prediction.label, prediction.confidence
            facts["top"] = [{"label": label, "confidence": confidence} for label, confidence in prediction.ranked]
        case Rejected(reason=reason, detail=detail):
            facts["reason"], facts["detail"] = reason.value, detail
        case _:
            facts["reason"], facts["detail"] = Reason.IO_ERROR.value, outcome.detail
    return facts


def _show_json(path: str, outcome: Handled, served: Served) -> None:
    click.echo(json.dumps(_facts(path, outcome, served), ensure_ascii=False))


def _show_text(path: str, outcome: Handled, served: Served) -> None:
    facts = _facts(path, outcome, served)
    if facts["outcome"] == "rejected":
        click.echo(f"{facts['path']}: rejected, {facts['reason']} ({facts['detail']})")
        return
    ranked = ", ".join(f"{entry['label']} {entry['confidence']:.1%}" for entry in facts["top"])
    click.echo(f"{facts['path']}: {ranked}" + ("  (unsure)" if facts["outcome"] == "unsure" else ""))
