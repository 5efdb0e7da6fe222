"""`pigeonholed-train dataset export`: what people corrected in sorted pictures, as training data."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from pigeonholed_training.commands.options import FOLDER
from pigeonholed_training.errors import TrainingError, WrongUsage

if TYPE_CHECKING:
    from pathlib import Path

    from pigeonholed_training.data.exporting import Tally
    from pigeonholed_training.data.reviews import Wanted

_SHOWN: Final = 20  # pictures left out that are named to people
_EVERY: Final = 20  # pictures between two moves of the bar


@click.command()
@click.argument("out", type=FOLDER, metavar="DIR|FILE.csv")
@click.option("--config", "-c", type=FOLDER, help="Configuration file of the service. [default: looked for as it does]")
@click.option("--inbox", "inboxes", multiple=True, metavar="NAME", help="Only from this inbox; may be repeated.")
@click.option("--model", metavar="NAME", help="Only what this model sorted.")
@click.option(
    "--since", metavar="TIME", help="Only what was reviewed since then, such as 2026-11-21T08:00 (local time)."
)
@click.option("--copy/--link", "copy", default=True, show_default=True, help="Copies, or hard links that take no room.")
@click.option(
    "--include",
    type=click.Choice(["sorted"]),
    help="Also what nobody reviewed, if the model was sure. It then learns from itself, its mistakes included.",
)
@click.option(
    "--confidence",
    type=click.FloatRange(0, 1),
    default=0.99,
    show_default=True,
    metavar="X",
    help="How sure, for --include sorted.",
)
@click.option("--json", "as_json", is_flag=True, help="What came of it, as one object.")
def export(
    out: Path,
    config: Path | None,
    inboxes: tuple[str, ...],
    model: str | None,
    since: str | None,
    copy: bool,
    include: str | None,
    confidence: float,
    as_json: bool,
) -> None:
    """Take the pictures that people confirmed or corrected, to train on.

    Into a folder go class folders with the pictures in them; into FILE.csv goes a list of where they are. The latest
    review of a picture counts. A picture is taken only if it is where it was filed, with the same content; others are
    named, and make the exit code 1. Nothing is overwritten, and the sorted pictures stay as they are; the service may
    be running. After an interruption the same command goes on.

    \b
      pigeonholed-train dataset export corrected/ --link
      pigeonholed-train dataset export corrected.csv --inbox camera
      pigeonholed-train train corrected.csv --name camera-2 --publish
    """  # noqa: D301 (click wants the control character itself)
    from pigeonholed_training.data import exporting, reviews
    from pigeonholed_training.progress import Narrator

    settings = reviews.configured(config)
    _require_known(inboxes, sorted(inbox.name for inbox in settings.inbox))
    wanted = reviews.Wanted(inboxes, model, _moment(since), confidence if include else None)
    outputs = {inbox.name: inbox.output for inbox in settings.inbox if inbox.output is not None}
    exporting.check_place(out, [inbox.path for inbox in settings.inbox], outputs.values())
    with reviews.opened(settings) as engine, Narrator().steps("Exporting", 0) as step:
        labels = reviews.labels(engine, wanted)
        if not labels:
            raise TrainingError(_nothing(reviews.count_reviewed(engine), wanted))

        def told(tally: Tally) -> None:
            if (tally.pictures + tally.left_out) % _EVERY == 0:
                step.at(tally.pictures + tally.left_out, total=labels.total())

        common_first = [label for label, _ in labels.most_common()]
        tally = exporting.export(
            reviews.labelled(engine, wanted), outputs, out, labels=common_first, link=not copy, on_picture=told
        )
    if as_json:
        click.echo(json.dumps(_plain(out, tally), ensure_ascii=True, indent=2))
    else:
        _tell(out, tally)
    if tally.left_out:
        raise SystemExit(1)


def _require_known(inboxes: tuple[str, ...], known: list[str]) -> None:
    for name in inboxes:
        if name not in known:
            raise WrongUsage(f"The configuration has no inbox {name[:80]!a}; it has {', '.join(known) or 'none'}.")


def _moment(since: str | None) -> datetime | None:
    if since is None:
        return None
    try:
        return datetime.fromisoformat(since).astimezone(UTC)
    except (ValueError, OverflowError) as fault:
        raise WrongUsage(f"--since must be a time such as 2026-11-21T08:00, not {since[:80]!a}.") from fault


def _nothing(reviewed: int, wanted: Wanted) -> str:
    if not reviewed and wanted.sure_from is None:
        return "There is nothing to export: nobody has confirmed or corrected any picture yet."
    has = f"{reviewed:,} reviewed" if reviewed else "no reviewed"
    return f"There is nothing to export: of the filed pictures none is what was asked for ({has} in the database)."


def _plain(out: Path, tally: Tally) -> dict[str, Any]:
    counts = {key: getattr(tally, key) for key in ("pictures", "copied", "linked", "kept", "left_out")}
    return {
        "out": str(out),
        **counts,
        "labels": dict(sorted(tally.labels.items())),
        "sources": {str(source): number for source, number in sorted(tally.sources.items())},
        "left": [dataclasses.asdict(left) for left in tally.left],
    }


def _tell(out: Path, tally: Tally) -> None:
    from pigeonholed_training.data.telling import printable

    for left in tally.left[:_SHOWN]:
        click.echo(f"left out: image {left.image}, {printable(left.path) or 'no file'}: {left.why}", err=True)
    if tally.left_out > _SHOWN:
        click.echo(f"left out: {tally.left_out - _SHOWN:,} more (--json names up to a thousand)", err=True)
    by_source = ", ".join(f"{number:,} {source}" for source, number in sorted(tally.sources.items()))
    noun = "picture" if tally.pictures == 1 else "pictures"
    click.echo(f"{tally.pictures:,} {noun} in {out}" + (f" ({by_source})." if by_source else "."))
    if tally.labels:
        click.echo(", ".join(f"{label} {number:,}" for label, number in sorted(tally.labels.items())) + ".")
    if tally.kept:
        click.echo(f"{tally.kept:,} of them were there before.")
    if len(tally.labels) == 1:
        click.echo("Training needs at least two classes.", err=True)
