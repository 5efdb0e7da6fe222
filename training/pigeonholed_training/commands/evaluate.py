"""`pigeonholed-train evaluate`: how good a model is, and how far its confidences can be trusted."""

from __future__ import annotations

import json
from pathlib import Path

import click

from pigeonholed_training.commands.options import FOLDER, MODELS_HELP, store
from pigeonholed_training.errors import WrongUsage


@click.command(short_help="Judge a model and write its report.")
@click.argument("model", metavar="RUN|NAME[/VERSION]")
@click.argument("data", type=FOLDER, required=False)
@click.option("--strangers", type=FOLDER, metavar="DIR", help="Pictures of no class: how many would be sorted?")
@click.option("--out", type=FOLDER, metavar="DIR", help="Where the report goes. [default: evaluations/MODEL-DATA]")
@click.option("--models", type=FOLDER, help=MODELS_HELP)
@click.option("--json", "as_json", is_flag=True, help="Print the content of metrics.json.")
def evaluate(
    model: str, data: Path | None, strangers: Path | None, out: Path | None, models: Path | None, as_json: bool
) -> None:
    """Judge a model and write report.html and metrics.json.

    Without DATA a run folder is judged again by the pictures that it held back; its own report is written anew. With
    DATA (class folders, a data set with a test folder, or a CSV) any run or published model is judged by those, and
    told if it has learnt from them.

    \b
      pigeonholed-train evaluate runs/animals
      pigeonholed-train evaluate animals photos-of-june/ --strangers empty-scenes/
    """  # noqa: D301 (click wants the control character)
    from pigeonholed_training import entrants, evaluating
    from pigeonholed_training.progress import Narrator

    found = entrants.find(model, store(models))
    if data is None and found.bundle is not None:
        raise WrongUsage(f"{found.title} is published and holds no pictures; give some to judge it by as DATA.")
    if data is None:
        if out is not None:
            raise WrongUsage("--out is for pictures given as DATA; without them the report of the run is written anew.")
        out = found.folder.parent
        metrics = evaluating.again(found, Narrator(), strange=strangers)
    else:
        out = out or Path("evaluations") / f"{Path(found.title).name}-{data.stem}"
        metrics = evaluating.elsewhere(found, data, out, Narrator(), strange=strangers)
    if as_json:
        click.echo(json.dumps(metrics, ensure_ascii=True))
        return
    verdict = metrics["verdict"]
    click.echo(f"{verdict['level']}: {verdict['sentence']}")
    for reason in verdict["reasons"]:
        click.echo(f"- {reason}")
    click.echo(f"Report: {out / 'report.html'}")
