"""`pigeonholed-train dataset`: looking a data set over, splitting it, fetching one, taking one out of the service."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from pigeonholed_training.commands.export import export
from pigeonholed_training.commands.options import FOLDER
from pigeonholed_training.errors import WrongUsage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pigeonholed_training.data.dividing import Division
    from pigeonholed_training.data.findings import Report
    from pigeonholed_training.data.setting_aside import Move
    from pigeonholed_training.progress import Step


@click.group(commands=[export], short_help="Look a data set over, split, fetch or export one.")
def dataset() -> None:
    """Look a data set over, split it, fetch a public one, or take corrected labels out of the service.

    A data set is a folder of class folders, a folder with train/, val/ and test/ that hold class folders, or a CSV file
    with the columns path, label and, if you like, split.
    """


@dataset.command()
@click.argument("data", type=FOLDER)
@click.option("--json", "as_json", is_flag=True, help="Everything that was found, as one object.")
@click.option("--grid", type=FOLDER, metavar="FILE", help="Write some pictures of each class as one PNG.")
@click.option("--move-bad", type=FOLDER, metavar="DIR", help="Move the bad files there; nothing is deleted.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, metavar="S", help="Choice of --grid.")
def check(data: Path, as_json: bool, grid: Path | None, move_bad: Path | None, seed: int) -> None:
    """Say whether DATA is fit for training, and what is wrong with it.

    Found are damaged and empty files, files that are no pictures, wrong names, tiny pictures, the same or nearly the
    same picture twice, in two classes or in two parts of a split, and classes that are small or very different in size.

    --move-bad moves what is broken, empty, no picture or tiny, copies (all but one), and pictures that are in two
    classes (all of them, for nobody but you knows which is right). Sub-folders and names stay, and DIR/set-aside.csv
    says what went where; 'pigeonholed-train dataset put-back DIR' moves it back.

    The exit code is 1 where a class has too few pictures to train on.

    \b
      pigeonholed-train dataset check photos/ --grid photos.png
      pigeonholed-train dataset check photos/ --move-bad photos-bad/
    """  # noqa: D301 (click wants the character itself)
    from pigeonholed import imaging
    from pigeonholed_training.backend import require_train_extra
    from pigeonholed_training.data import checking, setting_aside, sheet, sources

    if grid is not None:
        require_train_extra()
    if move_bad is not None:
        setting_aside.check_place(data, sources.find(data).root, move_bad)
    imaging.configure()
    report = _watched("Looking", lambda step: checking.check(data, on_picture=_followed(step)))
    if not as_json:
        _tell(report, hint=move_bad is None)
    if grid is not None:
        sheet.draw(report, grid, seed)
    moves = _set_aside(report, move_bad, quiet=as_json) if move_bad is not None else []
    if as_json:
        moved = [{"from": move.source, "to": move.destination, "why": move.why} for move in moves]
        click.echo(json.dumps(report.as_dict() | {"moved": moved}, ensure_ascii=True, indent=2))
    if not report.is_trainable:
        raise SystemExit(1)


def _tell(report: Report, *, hint: bool) -> None:
    from pigeonholed_training.data import telling

    for line in telling.tell(report):
        click.echo(line)
    if hint and report.aside:
        click.echo("\n" + telling.how_to_set_aside(report))


def _set_aside(report: Report, folder: Path, *, quiet: bool) -> list[Move]:
    from pigeonholed_training.data.setting_aside import LIST, set_aside

    wanted = {path: str(kind) for path, kind in report.aside.items()}
    if not wanted:
        return []
    if not quiet:
        click.echo("")
    moves = set_aside(report.root, wanted, folder, (lambda _move: None) if quiet else _say_move)
    if not quiet:
        click.echo(f"{len(moves)} file(s) set aside; {folder / LIST} says what went where.")
        if report.source == "csv":
            click.echo(f"{report.data} still names them; take those lines out of it.")
    return moves


def _say_move(move: Move) -> None:
    from pigeonholed_training.data.telling import printable

    click.echo(f"{printable(move.source)} -> {printable(move.destination)}  ({move.why})")


@dataset.command("put-back")
@click.argument("folder", type=FOLDER, metavar="DIR")
def put_back(folder: Path) -> None:
    """Move back what 'dataset check --move-bad DIR' moved away, where its old place is still free."""
    from pigeonholed_training.data import setting_aside

    moves = setting_aside.put_back(folder, _say_move_back)
    click.echo(f"{len(moves)} file(s) put back.")


def _say_move_back(move: Move) -> None:
    from pigeonholed_training.data.telling import printable

    click.echo(f"{printable(move.source)} -> {printable(move.destination)}")


@dataset.command()
@click.argument("data", type=FOLDER)
@click.argument("out", type=FOLDER)
@click.option(
    "--test",
    type=click.FloatRange(0, 0.9),
    default=0.2,
    show_default=True,
    metavar="SHARE",
    help="Held back for testing.",
)
@click.option(
    "--validation",
    type=click.FloatRange(0, 0.9),
    default=0.0,
    show_default=True,
    metavar="SHARE",
    help="The same for val.",
)
@click.option("--copy/--link", "copy", default=True, show_default=True, help="Copies, or hard links that take no room.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, metavar="S", help="Another split.")
def split(data: Path, out: Path, test: float, validation: float, copy: bool, seed: int) -> None:
    """Split DATA into OUT: a new folder with train/, test/ and perhaps validation/, or a new list OUT.csv.

    Every class is split by the same shares, chosen by content: a picture stays where it is when others are added, and
    pictures that are the same or nearly the same are never torn apart. A split that DATA has already stands; only what
    is missing is cut from its train part. DATA stays as it is.

    \b
      pigeonholed-train dataset split photos/ photos-split/ --test 0.2
      pigeonholed-train dataset split photos/ photos.csv --test 0.1 --validation 0.1
    """  # noqa: D301 (click wants the character itself)
    from pigeonholed import imaging
    from pigeonholed_training.data import dividing
    from pigeonholed_training.data.splitting import Part

    fractions = {Part.TEST: test, Part.VALIDATION: validation}
    if not 0 < test + validation <= 0.9:
        raise WrongUsage("--test and --validation must together be above 0 and at most 0.9.")
    dividing.check_place(data, out)
    imaging.configure()
    division = _watched("Looking", lambda step: dividing.divide(data, fractions, seed, on_picture=_followed(step)))
    if out.suffix.lower() == ".csv":
        dividing.write_list(division, out)
    else:
        dividing.write_folders(division, out, link=not copy)
    _summarise(division, out)
    if dividing.is_lopsided(division, fractions):
        click.echo(
            "That is far less than was asked for: was DATA cut by the same --seed before? Try another.", err=True
        )


def _summarise(division: Division, out: Path) -> None:
    from pigeonholed_training.data.findings import name_of
    from pigeonholed_training.data.splitting import Part
    from pigeonholed_training.data.telling import printable

    for part, counts in division.counts().items():
        if part is not Part.NONE:
            classes = ", ".join(f"{printable(division.labels[target])} {n}" for target, n in sorted(counts.items()))
            click.echo(f"{name_of(part)}: {counts.total()} ({classes})")
    left_out = sum(part is Part.NONE for part in division.parts)
    if left_out:
        click.echo(f"left out: {left_out} of train that are nearly the same as one held back")
    if division.bad:
        first = division.bad[0]
        click.echo(
            f"passed over: {len(division.bad)} that cannot be read, first {printable(first.path)}: {first.detail}"
        )
    click.echo(f"Written to {out}.")


@dataset.command()
@click.argument("name")
@click.argument("folder", type=FOLDER, metavar="DIR")
def fetch(name: str, folder: Path) -> None:
    """Fetch the public data set NAME into the new folder DIR: cifar10, mnist or fashion-mnist.

    Keras downloads it and keeps it; here it becomes train/CLASS/*.png and test/CLASS/*.png.
    """
    from pigeonholed_training.backend import quiet_libraries
    from pigeonholed_training.data import fetching

    if name not in fetching.SOURCES:
        raise WrongUsage(f"There is no data set {name!a} to fetch; known are {', '.join(fetching.SOURCES)}.")
    quiet_libraries()
    counts = _watched("Writing", lambda step: fetching.fetch(name, folder, on_picture=_followed(step)))
    click.echo(f"{folder}: {', '.join(f'{count} pictures in {part}' for part, count in counts.items())}.")


def _watched(what: str, work: Callable[[Step], Any]) -> Any:
    """The work, with a bar on a terminal."""
    from pigeonholed_training.progress import Narrator

    with Narrator().steps(what, 0) as step:
        return work(step)


def _followed(step: Step) -> Callable[[int, int], None]:
    def told(done: int, total: int) -> None:
        if done % 20 == 0 or done == total:
            step.at(done, total=total)

    return told
