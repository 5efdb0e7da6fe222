"""Whether confidences and thresholds of trained models mean what they say, on pictures that served nothing else.

Trains each recipe on its set with several seeds, one `pigeonholed-train train` in a process of its own for each, loads
the bundle as the daemon would and asks it about the test part. Three things are judged: the adaptive calibration error
is at most twice its noise floor; no promise of precision is refuted (one-sided 95 % Clopper-Pearson upper bound below
what was promised); served probabilities agree with the Keras model's. A finished run below `--work` is not trained
again. JSON goes to stdout (or to `--json FILE`), a short table to stderr.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import verdicts
from accuracy import ROOT, WEIGHTS, put, run, unpacked
from rich.console import Console
from rich.table import Column, Table

from pigeonholed import imaging
from pigeonholed.bundle import Threshold
from pigeonholed_training import recipes
from pigeonholed_training.backend import quiet_libraries
from pigeonholed_training.data import dataset
from pigeonholed_training.data.splitting import Part
from pigeonholed_training.evaluation import intervals
from pigeonholed_training.evaluation.asking import ask_about
from pigeonholed_training.evaluation.figures import figures
from pigeonholed_training.evaluation.judged import Judged
from pigeonholed_training.evaluation.reliability import confidence
from pigeonholed_training.evaluation.selective import selective
from pigeonholed_training.publishing import TOLERANCE, serving

FLOORS = 2.0  # times its noise floor that a calibration error may be


@dataclass(frozen=True, slots=True)
class Row:
    """A recipe to try on `archive`'s set; `extra` goes to the train command as it is."""

    archive: str
    data: str
    recipe: str
    transfer: bool = False
    extra: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.data}-{self.recipe}"


ROWS = (
    Row("animals-train.tar", "animals", "probe", transfer=True),
    Row("cats-dogs-train.tar", "cats-dogs", "probe", transfer=True),
    Row("cats-dogs-train.tar", "cats-dogs", "shear-64"),
    Row("cifar10-train.tar.gz", "cifar10", "fast", extra=("--epochs", "4")),
)


@dataclass(frozen=True, slots=True)
class Claim:
    """A promise of precision beside what the test part says of it."""

    what: str
    promised: float
    right: int
    n: int

    @property
    def upper(self) -> float:
        """The highest precision that what was seen leaves standing, at 95 %."""
        return intervals.clopper_pearson_upper(self.right, self.n, 0.05)

    @property
    def stands(self) -> bool:
        return self.upper >= self.promised

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "upper": round(self.upper, 6), "stands": self.stands}


@click.command(context_settings={"show_default": True})
@click.option("--data", type=click.Path(path_type=Path, exists=True), default=ROOT.parent / "shared/data")
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Folder for pictures and runs; kept.")
@click.option("--only", multiple=True, metavar="SET-RECIPE", help="Only this row; may be repeated.")
@click.option("--seed", "seeds", multiple=True, default=(0, 1, 2), help="Of split and training; may be repeated.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write the report there instead of to stdout.")
def main(data: Path, work: Path, only: tuple[str, ...], seeds: tuple[int, ...], file: Path | None) -> None:
    """Train each recipe with each seed and hold what it says against its test part."""
    console = Console(stderr=True, width=None if sys.stderr.isatty() else 110)
    chosen = [row for row in ROWS if not only or row.name in only]
    if not chosen:
        raise click.UsageError(f"there are: {', '.join(row.name for row in ROWS)}")
    quiet_libraries()
    imaging.configure()
    report: dict[str, Any] = {"machine": verdicts.machine(ROOT), "rows": []}
    for row in chosen:
        for seed in seeds:
            about = {"name": row.name, "seed": seed}
            try:
                report["rows"].append(about | carry_out(row, data, work, seed))
            except subprocess.CalledProcessError as fault:
                report["rows"].append(about | {"met": False, "failed": str(fault)})
    console.print(table(report["rows"]))
    put(report, file)


def carry_out(row: Row, data: Path, work: Path, seed: int) -> dict[str, Any]:
    """Trains where that is not done yet, and judges what came out."""
    folder = unpacked(data / row.archive, work, row.data)
    runs = work / "runs"
    trained = runs / f"{row.name}-{seed}"
    begun = time.monotonic()
    if not (trained / "metrics.json").exists():
        weights = ["--weights", data / WEIGHTS] if row.transfer else []
        where = ["--name", trained.name, "--seed", seed, "--runs", runs]
        run("train", folder, "--recipe", row.recipe, *where, *weights, *row.extra)
    minutes = (time.monotonic() - begun) / 60
    agreement = json.loads((trained / "metrics.json").read_bytes())["agreement"]
    found = judgement(test_part(folder, runs / ".cache", row, trained / "bundle", seed))
    agrees = agreement["largest_difference"] <= TOLERANCE
    return {
        "minutes_taken": round(minutes, 2),
        **found,
        "agreement": agreement,
        "agrees": agrees,
        "met": found["calibrated"] and found["honest"] and agrees,
    }


def test_part(folder: Path, cache: Path, row: Row, staging: Path, seed: int) -> Judged:
    """What the served bundle says of the pictures that its training held back."""
    recipe = recipes.find(row.recipe)
    pictures = dataset.load(folder, recipe.pixel_spec, cache=cache, shares=recipe.shares)
    manifest = json.loads((staging / "bundle.json").read_bytes())
    if manifest["data_fingerprint"] != pictures.fingerprint:
        raise click.ClickException(f"{staging.parent} was trained on other pictures than {folder} holds.")
    held = np.flatnonzero(pictures.parts(recipe.shares, seed) == Part.TEST)
    with serving(staging) as classifier:
        probabilities = ask_about(classifier, pictures, held)
    thresholds = tuple(Threshold.model_validate(one) for one in manifest["thresholds"])
    temperature = manifest["calibration"]["temperature"]
    return Judged(pictures.labels, pictures.targets[held], probabilities, thresholds, temperature)


def judgement(judged: Judged) -> dict[str, Any]:
    """Calibration and promises on these pictures, and what the promises cost."""
    measured, trust = figures(judged), confidence(judged)
    after = trust["after"]
    made = list(claims(judged))
    return {
        "n": len(judged),
        "accuracy": measured["accuracy"],
        "temperature": judged.temperature,
        "adaptive_ece_before": trust["before"]["adaptive_ece"],
        **{key: after[key] for key in ("adaptive_ece", "adaptive_ece_interval", "noise_floor", "noise_floor_95")},
        "floors": round(after["adaptive_ece"] / after["noise_floor"], 3) if after["noise_floor"] else 0.0,
        "calibrated": after["adaptive_ece"] <= FLOORS * after["noise_floor"],
        "thresholds": [threshold.model_dump() for threshold in judged.thresholds],
        "sorted": measured["sorted"],
        "unsure_share": measured["unsure_share"],
        "coverage_at": selective(judged)["coverage_at"],
        "claims": [claim.as_dict() for claim in made],
        "honest": all(claim.stands for claim in made),
    }


def claims(judged: Judged) -> Iterator[Claim]:
    """Each certified class, the pool, and all that is sorted under a promise; best F1 promises nothing."""
    methods = np.array([threshold.method for threshold in judged.thresholds])[judged.predicted]
    counted = judged.passes & (methods != "best-f1")
    promised = [one for one in judged.thresholds if one.method != "best-f1" and one.precision is not None]
    if not promised:
        return
    least = min(float(one.precision or 0.0) for one in promised)
    for index, one in enumerate(judged.thresholds):
        if one.method == "certified" and one.precision is not None:
            yield _claim(f"certified: {one.label}", one.precision, judged, counted & (judged.predicted == index))
    if any(one.method == "pooled" for one in promised):
        yield _claim("pooled", least, judged, counted & (methods == "pooled"))
    yield _claim("all of these", least, judged, counted)


def _claim(what: str, promised: float, judged: Judged, counted: np.ndarray) -> Claim:
    return Claim(what, promised, int((counted & judged.right).sum()), int(counted.sum()))


def table(rows: list[dict[str, Any]]) -> Table:
    """For people: share right, calibration error and how many noise floors it is, what stands of the promises."""
    names = ("seed", "right", "error", "floors", "unsure", "sorted", "promises", "Keras")
    shown = Table("run", *(Column(name, justify="right", no_wrap=True) for name in names), "verdict")
    for row in rows:
        style = "green" if row["met"] else "bold red"
        if "failed" in row:
            shown.add_row(row["name"], str(row["seed"]), *[""] * 7, "FAILED", style=style)
            continue
        standing = sum(claim["stands"] for claim in row["claims"])
        shown.add_row(
            row["name"],
            str(row["seed"]),
            f"{100 * row['accuracy']['value']:.1f} %",
            f"{row['adaptive_ece']:.4f}",
            f"{row['floors']:.2f}",
            f"{100 * row['unsure_share']:.1f} %",
            f"{row['sorted']['right']}/{row['sorted']['n']}",
            f"{standing}/{len(row['claims'])}" if row["claims"] else "none",
            f"{row['agreement']['largest_difference']:.4f}",
            "met" if row["met"] else "MISSED",
            style=style,
        )
    return shown


if __name__ == "__main__":
    main()
