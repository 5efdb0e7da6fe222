"""How well the recipes do on real pictures, beside what was promised; takes hours, so `make bench` leaves it out.

Every row is one `pigeonholed-train train` in a process of its own, whose test part served nothing else. JSON goes to
stdout (or to `--json FILE`), a short table to stderr.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import verdicts
from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = "weights/mobilenet_v2_1.0_224_no_top.from-tflite-quant.h5"


@dataclass(frozen=True, slots=True)
class Row:
    """One promise: at least `percent` on `archive`'s set with `recipe` within `minutes`."""

    archive: str
    data: str
    recipe: str
    percent: float
    minutes: float = 45.0
    part: str = "held_out"
    transfer: bool = False
    clean: bool = False

    @property
    def name(self) -> str:
        return f"{self.data}-{self.recipe}"


ROWS = (
    Row("animals-train.tar", "animals", "probe", 97, transfer=True),
    Row("cats-dogs-train.tar", "cats-dogs", "probe", 97, transfer=True),
    Row("people-dirty.tar", "person-scene", "binary-256", 100, part="train", clean=True),
    Row("people-dirty.tar", "happy-sad", "binary-256", 100, part="train", clean=True),
    Row("cats-dogs-train.tar", "cats-dogs", "shear-64", 80),
    Row("animals-train.tar", "animals", "mobilenet-v2", 97, transfer=True),
    Row("cats-dogs-train.tar", "cats-dogs", "mobilenet-v2", 97, transfer=True),
    Row("cifar10-train.tar.gz", "cifar10", "cifar", 78, minutes=30),
    Row("cifar10-train.tar.gz", "cifar10", "fast", 90),
    Row("cats-dogs-train.tar", "cats-dogs", "augmented-150", 85),
    Row("cats-dogs-train.tar", "cats-dogs", "small", 90),
)


@click.command(context_settings={"show_default": True})
@click.option("--data", type=click.Path(path_type=Path, exists=True), default=ROOT.parent / "shared/data")
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Folder for pictures and runs; kept.")
@click.option("--only", multiple=True, metavar="SET-RECIPE", help="Only this row; may be repeated.")
@click.option("--seed", default=0, help="Of split and training.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write the report there instead of to stdout.")
def main(data: Path, work: Path, only: tuple[str, ...], seed: int, file: Path | None) -> None:
    """Train each recipe on its set; let nothing else run meanwhile."""
    console = Console(stderr=True)
    chosen = [row for row in ROWS if not only or row.name in only]
    if not chosen:
        raise click.UsageError(f"there are: {', '.join(row.name for row in ROWS)}")
    report: dict[str, Any] = {"machine": verdicts.machine(ROOT), "seed": seed, "rows": []}
    for row in chosen:
        try:
            report["rows"].append(carry_out(row, data, work, seed))
            console.print(line(report["rows"][-1]), highlight=False)
        except subprocess.CalledProcessError as fault:
            report["rows"].append({**asdict(row), "name": row.name, "met": False, "failed": str(fault)})
            console.print(f"MISSED: {row.name}  it failed, see above")
    put(report, file)


def carry_out(row: Row, data: Path, work: Path, seed: int) -> dict[str, Any]:
    """Unpacks, checks where the row says so, trains, and reads what came out."""
    folder = unpacked(data / row.archive, work, row.data)
    if row.clean:
        run("dataset", "check", folder, "--move-bad", work / "bad" / row.data)
    name = f"{row.name}-{seed}"
    started, begun = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    weights = ["--weights", data / WEIGHTS] if row.transfer else []
    train = ["train", folder, "--recipe", row.recipe, "--name", name, "--seed", seed, "--runs", work / "runs", *weights]
    run(*train, "--fresh")
    seconds = time.monotonic() - begun
    metrics = json.loads((work / "runs" / name / "metrics.json").read_bytes())
    shares = {"test": metrics["held_out"]["accuracy"], **metrics["other_parts"]}
    judged = shares["test"] if row.part == "held_out" else shares[row.part]
    return {
        **asdict(row),
        "name": row.name,
        "started_at": started,
        "minutes_taken": round(seconds / 60, 2),
        "load_1_min": os.getloadavg()[0],
        "measured_percent": round(100 * judged["value"], 2),
        "shares": shares,
        "seconds": metrics["seconds"],
        "met": 100 * judged["value"] >= row.percent and seconds <= 60 * row.minutes,
    }


def unpacked(archive: Path, work: Path, name: str) -> Path:
    """The folder of class folders of a set, from its archive where that has not been done yet."""
    folder = work / "pictures" / name / "train"
    if not folder.exists():
        with tarfile.open(archive) as packed:
            packed.extractall(work / "pictures", filter="data")
    return folder


def put(report: dict[str, Any], file: Path | None) -> None:
    """The report as JSON, to stdout where no file is named."""
    text = json.dumps(report, indent=2) + "\n"
    if file is None:
        sys.stdout.write(text)
    else:
        file.write_text(text)


def run(*arguments: object) -> None:
    """One command of the training tool; its words go to our stderr."""
    command = [sys.executable, "-m", "pigeonholed_training", *map(str, arguments)]
    subprocess.run(command, check=True, stdout=sys.stderr)


def line(row: dict[str, Any]) -> str:
    """One row for people."""
    others = "  ".join(f"{part} {100 * share['value']:.1f} % of {share['n']}" for part, share in row["shares"].items())
    return (
        f"{'met' if row['met'] else 'MISSED'}: {row['name']}  {row['measured_percent']:.1f} % (at least "
        f"{row['percent']:g})  {row['minutes_taken']:.1f} min (at most {row['minutes']:g})  {others}"
    )


if __name__ == "__main__":
    main()
