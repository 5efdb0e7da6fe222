"""The service's rate, latency and idle cost, beside the ideal and a plain script, all in one run.

JSON goes to stdout (or to `--json FILE`), progress and a short table to stderr. A target that is missed is shown as
missed; the exit code is 0 whenever the measuring itself succeeded.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import idle
import verdicts
from latency import Latency
from rates import Rates
from rich.console import Console
from workload import Model, Pictures, train

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("rate", "latency", "idle")
_QUICK: dict[str, Any] = {
    "files": 500, "plain_files": 20, "rounds": 1, "singles": 10, "bursts": 1, "idle_files": 1000, "idle_s": 3.0,
    "epochs": 1,
}  # fmt: skip


@click.command(context_settings={"show_default": True})
@click.option("--files", default=60_000, type=click.IntRange(1), help="Pictures in a round of the rate.")
@click.option("--plain-files", default=300, type=click.IntRange(2), help="Pictures for the plain script.")
@click.option("--rounds", default=3, type=click.IntRange(1), help="Rounds of the rate; the best counts.")
@click.option("--singles", default=100, type=click.IntRange(1), help="Single drops for the latency.")
@click.option("--bursts", default=5, type=click.IntRange(1), help="Bursts of 20 drops for the latency.")
@click.option("--idle-files", default=100_000, type=click.IntRange(1), help="Ignored files in the fuller idle inbox.")
@click.option("--idle-s", default=30.0, type=click.FloatRange(0.1), help="Seconds of each idle measurement.")
@click.option("--epochs", type=click.IntRange(1), help="Passes of the training; left out: the recipe's number.")
@click.option("--only", type=click.Choice(PARTS), multiple=True, help="Measure only this; may be repeated.")
@click.option("--quick", is_flag=True, help="Small counts where none is given; targets are then not judged.")
@click.option("--models", type=click.Path(path_type=Path, exists=True), help="A store with a model 'digits' to use.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write the report there instead of to stdout.")
@click.pass_context
def main(ctx: click.Context, /, file: Path | None, **options: Any) -> None:
    """Measure the service on this machine; let nothing else run meanwhile."""
    if options["quick"]:
        given = click.core.ParameterSource.COMMANDLINE
        options |= {name: value for name, value in _QUICK.items() if ctx.get_parameter_source(name) is not given}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that the folders are removed
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="pigeonholed-bench-", dir=_same_disk()) as folder:
        report = measure(Path(folder), options, console)
    rows = list(verdicts.figures(report["results"], judged=not options["quick"]))
    report["figures"] = [row.as_dict() for row in rows]
    text = json.dumps(report, indent=2) + "\n"
    if file is None:
        sys.stdout.write(text)
        sys.stdout.flush()
    else:
        file.write_text(text)
    console.print(verdicts.table(rows))


def measure(folder: Path, options: dict[str, Any], console: Console) -> dict[str, Any]:
    """Everything that was asked for, in `folder`."""

    def say(line: str) -> None:
        console.print(line, highlight=False)

    report: dict[str, Any] = {
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": verdicts.machine(folder),
        "options": {name: str(value) if isinstance(value, Path) else value for name, value in options.items()},
        "results": {},
    }
    wanted = options["only"] or PARTS
    pictures = Pictures.load()
    model = _model(folder, pictures, options, say)
    if "rate" in wanted:
        rates = Rates(folder, model, pictures, options["files"], options["plain_files"])
        report["results"]["rate"] = rates.rounds(options["rounds"], say)
    if "latency" in wanted:
        say(f"latency of {options['singles']} single drops and {options['bursts']} bursts …")
        report["results"]["latency"] = Latency(folder, model, pictures).measure(options["singles"], options["bursts"])
    if "idle" in wanted:
        say(f"idle with 10 and with {options['idle_files']:,} ignored files, {options['idle_s']:g} s each …")
        counts = (10, options["idle_files"])
        report["results"]["idle"] = [idle.measure(folder, model, count, options["idle_s"]) for count in counts]
    return report


def _model(folder: Path, pictures: Pictures, options: dict[str, Any], say: Callable[[str], None]) -> Model:
    if options["models"] is not None:
        return Model(options["models"].resolve(), "digits")
    say("training the model …")
    return train(pictures, folder, epochs=options["epochs"])


def _same_disk() -> str:
    """The system's temporary folder where it lies on the disk of the checkout, else the checkout itself."""
    temporary = tempfile.gettempdir()
    return temporary if os.stat(temporary).st_dev == os.stat(ROOT).st_dev else str(ROOT)


if __name__ == "__main__":
    main()
