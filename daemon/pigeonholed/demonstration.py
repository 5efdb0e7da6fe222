"""The main job on embedded data, as a person would do it: train, start the service, drop pictures, look."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import sqlalchemy as sa

from pigeonholed import database, tables
from pigeonholed.digits import BROKEN, Drop, broken, digits
from pigeonholed.errors import Misconfigured, UserError
from pigeonholed.images import Placement, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

_MARK = "# Made by 'pigeonholed demo'; made anew whenever that runs again."
_CONFIG = f"""{_MARK}
# A real service would leave the last three keys out: the defaults are more patient.

[[inbox]]
name = "digits"
path = "inbox"
output = "sorted"
model = "digits"
settle_s = 0.5        # quiet time before a file counts as complete
incomplete_s = 2.0    # how long a picture whose end is missing is waited for

[metrics]
listen = "127.0.0.1:0"
"""
_DROP_EVERY = 3  # every third digit is kept for dropping, the model never sees it
_DEADLINE_S = 180.0


class DemoFailed(UserError):
    """The demo did not do what it promises."""


@dataclass(frozen=True, slots=True)
class Result:
    """What the database says of one dropped file."""

    drop: Drop
    placement: Placement
    label: str | None
    reason: str | None
    destination: str


@dataclass(frozen=True, slots=True)
class Summary:
    """What there is to tell at the end."""

    results: Sequence[Result]
    seconds: float
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True)
class Demo:
    """One demo folder.

    Attributes:
        folder: where everything is; stays to be looked at.
        say: called with one line a step.
    """

    folder: Path
    say: Callable[[str], None]

    def run(self) -> Summary:
        """Do the whole job.

        Raises:
            Misconfigured: the folder holds something else, or the extra `train` is missing.
            DemoFailed: training or the service failed.
        """
        self._prepare()
        pictures = list(digits())
        dropped = pictures[::_DROP_EVERY]
        self._train([picture for index, picture in enumerate(pictures) if index % _DROP_EVERY])
        drops = self._planned_drops(dropped)
        self._write_manifest(drops)
        with open(self.folder / "pigeonholed.log", "wb") as log:
            service = self._start(log)
            try:
                return self._drop_and_wait(service, drops)
            finally:
                _end(service)

    def _prepare(self) -> None:
        """A new folder, or one of ours made new; the model, which takes longest to make, is kept."""
        config = self.folder / "pigeonholed.toml"
        if self.folder.exists() and any(self.folder.iterdir()):
            if not (config.is_file() and config.read_text(errors="replace").startswith(_MARK)):
                raise Misconfigured(f"{self.folder} is not empty and holds no demo; choose a new folder")
            for name in ("inbox", "sorted", "training"):
                shutil.rmtree(self.folder / name, ignore_errors=True)
            for path in [self.folder / "dropped.csv", *self.folder.glob("pigeonholed.db*")]:
                path.unlink(missing_ok=True)
        try:
            self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            for name in ("inbox", "sorted", "models"):
                (self.folder / name).mkdir(mode=0o755, exist_ok=True)
            config.write_text(_CONFIG)
        except OSError as error:
            raise Misconfigured(f"cannot make the demo in {self.folder}: {error.strerror}") from None

    def _train(self, pictures: Sequence[Drop]) -> None:
        if (self.folder / "models" / "digits" / "CURRENT").exists():
            self.say("The model 'digits' is there from an earlier demo.")
            return
        self.say(f"Training a small network on {len(pictures)} handwritten digits …")
        for picture in pictures:
            path = self.folder / "training" / picture.truth / picture.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture.data)
        command = [sys.executable, "-m", "pigeonholed_training", "train", str(self.folder / "training")]
        command += ["--recipe", "digits", "--name", "digits", "--seed", "0", "--publish"]
        command += ["--models", str(self.folder / "models"), "--runs", str(self.folder / "runs")]
        done = subprocess.run(command, check=False, stdout=sys.stderr)
        if done.returncode != 0:
            raise DemoFailed(f"training the demo's model failed with exit code {done.returncode}; see above")

    def _planned_drops(self, pictures: Sequence[Drop]) -> list[Drop]:
        """Every third picture in a sub-folder, the broken ones spread among the good ones."""
        drops = [
            Drop(
                f"camera-{index % 2 + 1}/{picture.path}" if index % 3 == 0 else picture.path,
                picture.data,
                picture.truth,
            )
            for index, picture in enumerate(pictures)
        ]
        for number, bad in enumerate(broken(pictures[0].data), 1):
            drops.insert(number * len(drops) // 8, bad)
        return drops

    def _write_manifest(self, drops: Sequence[Drop]) -> None:
        with open(self.folder / "dropped.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "sha256", "truth"])
            writer.writerows([drop.path, drop.sha256, drop.truth] for drop in drops)

    def _start(self, log: object) -> subprocess.Popen[bytes]:
        self.say("Starting the service …")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PIGEONHOLED_")}
        environment |= {"PIGEONHOLED__LOG__FORMAT": "json"}
        command = [sys.executable, "-m", "pigeonholed", "run", "--config", str(self.folder / "pigeonholed.toml")]
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=log)  # type: ignore[call-overload, no-any-return]

    def _drop_and_wait(self, service: subprocess.Popen[bytes], drops: Sequence[Drop]) -> Summary:
        address = self._await(service, lambda: self._logged("metrics_served", "address"), "the service to start")
        self._await(service, lambda: _answers(f"http://{address}/readyz"), "the service to be ready")
        self.say(f"Dropping {len(drops)} pictures into {self.folder / 'inbox'} while it runs …")
        for drop in drops:
            path = self.folder / "inbox" / drop.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(drop.data)
        self._await(service, lambda: self._filed() == len(drops), "all pictures to be filed")
        metrics = dict(_samples(_fetch(f"http://{address}/metrics")))
        results, seconds = self._results(drops)
        return Summary(results, seconds, metrics)

    def _await(self, service: subprocess.Popen[bytes], look: Callable[[], object], what: str) -> object:
        """Return the first true answer of `look`."""
        deadline_s = time.monotonic() + _DEADLINE_S
        while not (answer := look()):
            if service.poll() is not None:
                raise DemoFailed(f"the service ended while we waited for {what}; see {self.folder / 'pigeonholed.log'}")
            if time.monotonic() > deadline_s:
                raise DemoFailed(f"waited in vain for {what}; see {self.folder / 'pigeonholed.log'}")
            time.sleep(0.05)
        return answer

    def _logged(self, event: str, key: str) -> str | None:
        """The value that an event of the service's log gives."""
        with open(self.folder / "pigeonholed.log", encoding="utf-8", errors="replace") as log:
            for line in log:
                if f'"{event}"' in line:
                    return str(json.loads(line)[key])
        return None

    def _filed(self) -> int:
        images = tables.images
        count = sa.select(sa.func.count()).where(images.c.status == Status.FILED.value)
        with self._database().connect() as connection:
            return int(connection.scalar(count) or 0)

    def _results(self, drops: Sequence[Drop]) -> tuple[list[Result], float]:
        by_path = {drop.path: drop for drop in drops}
        with self._database().connect() as connection:
            rows = connection.execute(
                sa.select(tables.images).where(tables.images.c.status == Status.FILED.value)
            ).all()
        arrived = min(row.arrived_at for row in rows)
        filed: datetime = max(row.filed_at for row in rows)
        results = [
            Result(by_path[row.source_path], Placement(row.outcome), row.label, row.reason, row.destination)
            for row in rows
        ]
        return results, (filed - arrived).total_seconds()

    def _database(self) -> sa.Engine:
        return database.connect(f"sqlite:///{self.folder.absolute() / 'pigeonholed.db'}", read_only=True)


def _end(service: subprocess.Popen[bytes]) -> None:
    if service.poll() is None:
        service.send_signal(signal.SIGTERM)
        try:
            service.wait(timeout=30)
        except subprocess.TimeoutExpired:
            service.kill()
            service.wait()


def _fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 (our own address)
        body: bytes = answer.read()
        return body.decode()


def _answers(url: str) -> bool:
    try:
        _fetch(url)
    except OSError:
        return False
    return True


def _samples(text: str) -> Iterator[tuple[str, float]]:
    from prometheus_client.parser import text_string_to_metric_families

    totals: Counter[str] = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            totals[sample.name] += sample.value  # type: ignore[assignment]
    yield from totals.items()


def accuracy(results: Sequence[Result]) -> tuple[int, int, int]:
    """How many readable pictures there were, how many got the right label (sorted or unsure), how many are unsure."""
    readable = [result for result in results if result.drop.truth != BROKEN]
    right = sum(result.label == result.drop.truth for result in readable)
    unsure = sum(result.placement is Placement.UNSURE for result in readable)
    return len(readable), right, unsure
