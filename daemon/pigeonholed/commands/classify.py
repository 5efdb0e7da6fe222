"""`pigeonholed classify`: what a model says of pictures, without moving or recording anything."""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pigeonholed.commands import chosen_config, config_option
from pigeonholed.completion import model_names
from pigeonholed.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pigeonholed.images import Handled
    from pigeonholed.serving import Served


@click.command(name="classify")
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, type=click.Path(readable=False, path_type=Path))
@click.option("--model", shell_complete=model_names, help="Which model; needed only where there is more than one.")
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

    A picture that cannot be decoded is a result, too ("rejected", with the reason): the exit code is 0. It is 1 when a
    path does not exist, is no file and no folder, or may not be read.
    """
    served = _load(model, folder, chosen_config(ctx, config))
    show = _show_json if as_json else _show_text
    finder = _Finder()
    for outcome, path in _looked_at(served, top_k, finder.find(images)):
        show(path, outcome, served)
    if finder.failed:
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
        if not names:
            raise Misconfigured(
                f"there is no model in the store {folder}; "
                "'pigeonholed-train train PICTURES --name N --publish' makes one"
            )
        if len(names) > 1:
            raise Misconfigured(f"the store {folder} holds {', '.join(names)}; say which with --model NAME")
        model = names[0]
    bundle = store.open(model, version)
    return Served(bundle, load_classifier(bundle))


@dataclass(slots=True)
class _Finder:
    """The named files, and what a service would take from the named folders; tells what cannot be had.

    Attributes:
        failed: whether there was such a thing.
    """

    failed: bool = False

    def find(self, images: tuple[Path, ...]) -> Iterator[str]:
        for image in map(str, images):
            try:
                mode = os.stat(image).st_mode
            except OSError as error:
                self._deny(error)
                continue
            if stat.S_ISDIR(mode):
                yield from filter(self._readable, self._walk(image))
            elif not stat.S_ISREG(mode):
                self._fail(image, "it is no regular file")
            elif self._readable(image):
                yield image

    def _walk(self, image: str) -> Iterator[str]:
        from pigeonholed.ignoring import NameFilter

        names = NameFilter(("*",), ())
        for folder, subfolders, files in os.walk(image, onerror=self._deny):
            subfolders[:] = sorted(name for name in subfolders if not names.prunes(name))
            for name in sorted(files):
                path = os.path.join(folder, name)
                if not names.ignores(name) and os.path.isfile(path) and not os.path.islink(path):
                    yield path

    def _readable(self, path: str) -> bool:
        if not os.access(path, os.R_OK):
            self._deny(PermissionError(errno.EACCES, os.strerror(errno.EACCES), path))
            return False
        return True

    def _deny(self, error: OSError) -> None:
        self._fail(error.filename, error.strerror or str(error))

    def _fail(self, path: str, fault: str) -> None:
        from pigeonholed.config_errors import one_line
        from pigeonholed.paths import to_text

        self.failed = True
        click.echo(f"pigeonholed: cannot read {one_line(to_text(path))}: {fault}", err=True)


def _looked_at(served: Served, top_k: int, paths: Iterator[str]) -> Iterator[tuple[Handled, str]]:
    from pigeonholed.decoding import Demand
    from pigeonholed.images import ImageFile
    from pigeonholed.looking import Looker
    from pigeonholed.serving import Policy

    looker = Looker(served, Demand(served.spec, 100_000_000, 500_000_000), Policy(None, top_k))
    return looker.look((ImageFile("", path, 0, 0), path) for path in paths)


def _facts(path: str, outcome: Handled, served: Served) -> dict[str, Any]:
    from pigeonholed.images import Classified, Reason, Rejected, Withdrawn
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
        case Withdrawn(detail=detail):
            facts["reason"], facts["detail"] = Reason.IO_ERROR.value, detail
    return facts


def _show_json(path: str, outcome: Handled, served: Served) -> None:
    click.echo(json.dumps(_facts(path, outcome, served), ensure_ascii=True))


def _show_text(path: str, outcome: Handled, served: Served) -> None:
    from pigeonholed.config_errors import one_line

    facts = _facts(path, outcome, served)
    shown = one_line(facts["path"])
    if facts["outcome"] == "rejected":
        click.echo(one_line(f"{shown}: rejected, {facts['reason']} ({facts['detail']})"))
        return
    ranked = ", ".join(f"{entry['label']} {entry['confidence']:.1%}" for entry in facts["top"])
    click.echo(f"{shown}: {ranked}" + ("  (unsure)" if facts["outcome"] == "unsure" else ""))
