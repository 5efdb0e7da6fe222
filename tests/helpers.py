"""What many tests share: folders as dicts, a clock that a test moves, small pictures, a model without a runtime."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pigeonholed import recovery
from pigeonholed.bundle import Bundle, Calibration, Input, Manifest, Threshold
from pigeonholed.delivery import Delivery
from pigeonholed.entries import Copy, Plan
from pigeonholed.finishing import Finisher
from pigeonholed.images import (
    Arrival,
    Classified,
    Decoded,
    Fingerprint,
    ImageFile,
    Original,
    Prediction,
    Reason,
    Rejected,
    Status,
    Withdrawn,
)
from pigeonholed.ledger import Ledger
from pigeonholed.metrics import Metrics
from pigeonholed.output import Output
from pigeonholed.patience import Patience
from pigeonholed.reporting import Reporter
from pigeonholed.serving import Served
from pigeonholed.statistics import Statistics

Tree = dict[str, Any]
"""A folder: names to bytes, or to another folder."""

COLOURS = {"red": (200, 40, 40), "blue": (40, 40, 200), "grey": (120, 120, 120), "green": (40, 200, 40)}


def make_tree(root: Path, tree: Mapping[str, Any]) -> Path:
    """Write a folder out; `None` as content leaves the name alone."""
    os.makedirs(root, exist_ok=True)
    for name, content in tree.items():
        path = os.path.join(root, name)
        if isinstance(content, Mapping):
            make_tree(Path(path), content)
        elif content is not None:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(content)
    return root


def read_tree(root: Path | str) -> Tree:
    """Read a folder back, empty sub-folders too."""
    tree: Tree = {}
    with os.scandir(root) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                tree[entry.name] = read_tree(entry.path)
            else:
                with open(entry.path, "rb") as file:
                    tree[entry.name] = file.read()
    return tree


@contextlib.contextmanager
def chain_of_folders(root: Path, name: str = "d" * 200, *, beyond: int = 4096) -> Iterator[str]:
    """Folders in folders, until the path of the innermost is longer than so many bytes; gone at the end.

    Yields the innermost that a path can still name. Nothing that calls itself could remove so many.
    """
    path, reachable = str(root), str(root)
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        while len(path) <= beyond:
            os.mkdir(name, dir_fd=fd)
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd, path = inner, f"{path}/{name}"
            reachable = path if len(path) < 4096 else reachable
        yield reachable
    finally:
        os.close(fd)
        subprocess.run(["rm", "-rf", str(root / name)], check=True)


def files_of(root: Path | str) -> dict[str, bytes]:
    """Every file below a folder by its path relative to it, but for what is in `.pigeonholed`."""
    files: dict[str, bytes] = {}
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name != ".pigeonholed"]
        for name in names:
            path = os.path.join(folder, name)
            with open(path, "rb") as file:
                files[os.path.relpath(path, root)] = file.read()
    return files


@dataclass
class FakeClock:
    """Seconds that pass only when a test says so."""

    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> float:
        self.now_s += seconds
        return self.now_s


def png(colour: str = "red", *, mark: int = 0, size: int = 8) -> bytes:
    """A small picture of one colour; each `mark` makes other bytes of the same sight."""
    pixels = np.full((size, size, 3), COLOURS[colour][::-1], np.uint8)
    for bit in range(size * size):
        if mark >> bit & 1:
            pixels[bit // size, bit % size] += 1
    done, data = cv2.imencode(".png", pixels)
    assert done
    return bytes(data)


Answer = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]


def by_colour(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Red speaks for the first label, blue for the second; grey is split evenly."""
    means = pixels.astype(np.float32).mean(axis=(1, 2))
    first = 1.0 / (1.0 + np.exp((means[:, 2] - means[:, 0]) / 20.0))
    return np.stack([first, 1.0 - first], axis=1).astype(np.float32)


@dataclass
class FakeClassifier:
    """A network without a runtime; remembers the sizes of the batches that it saw."""

    labels: tuple[str, ...] = ("cat", "dog")
    answer: Answer = by_colour
    runtime: str = "fake"
    device: str = "cpu"
    precision: str = "f32"
    batch_sizes: tuple[int, ...] = (1, 8, 64)
    seen: list[int] = field(default_factory=list)

    def predict(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        self.seen.append(len(pixels))
        return self.answer(pixels)


def make_bundle(
    labels: Sequence[str] = ("cat", "dog"),
    *,
    name: str = "tiny",
    version: int = 1,
    size: int = 8,
    thresholds: Sequence[float] | None = None,
) -> Bundle:
    """A bundle that is nowhere on the disk."""
    values = thresholds or [0.7] * len(labels)
    manifest = Manifest(
        name=name,
        labels=tuple(labels),
        input=Input(height=size, width=size),
        output="softmax",
        calibration=Calibration(),
        thresholds=tuple(
            Threshold(label=label, value=value, method="best-f1", n=0)
            for label, value in zip(labels, values, strict=True)
        ),
        created_at="2026-01-01T00:00:00+00:00",
    )
    return Bundle(Path("/nowhere"), name, version, "0" * 64, manifest, {})


def make_served(classifier: FakeClassifier | None = None, **of_bundle: Any) -> Served:
    """A model in service: red pictures are cats, blue ones dogs, grey ones neither."""
    classifier = classifier or FakeClassifier()
    return Served(make_bundle(classifier.labels, **of_bundle), classifier)


def make_arrival(
    path: str = "x.png", number: int = 1, *, inbox: str = "camera", size: int = 0, mtime_ns: int = 0, token: str = "t1"
) -> Arrival:
    """An arrival; its key is its number, so that a test can foretell names."""
    return Arrival(number, ImageFile(inbox, path, size, mtime_ns), f"{number:032x}", token, 0.0)


def place_in_work(output: Output, content: bytes, path: str = "x.png", number: int = 1, **of_arrival: Any) -> Arrival:
    """Put a claimed file into a work folder, as the claimer leaves it."""
    token = of_arrival.pop("token", None) or secrets.token_hex(8)
    os.makedirs(output.batch_folder(token), mode=0o700, exist_ok=True)
    arrival = make_arrival(path, number, token=token, **of_arrival)
    target = output.work_path(arrival)
    with open(target, "wb") as file:
        file.write(content)
    status = os.lstat(target)
    file_of = ImageFile(arrival.file.inbox, path, status.st_size, status.st_mtime_ns)
    return Arrival(arrival.id, file_of, arrival.key, token, 0.0)


def fingerprint_of(arrival: Arrival, sha256: str | None = "0" * 64) -> Fingerprint:
    return Fingerprint(sha256, arrival.file.size, arrival.file.mtime_ns)


def make_decoded(arrival: Arrival | None = None, colour: str = "red", size: int = 8) -> Decoded:
    arrival = arrival or make_arrival()
    pixels = np.full((size, size, 3), COLOURS[colour], np.uint8)
    return Decoded(arrival, fingerprint_of(arrival), pixels, 640, 480)


def make_classified(
    arrival: Arrival | None = None, label: str = "cat", confidence: float = 0.9, threshold: float = 0.7, **more: Any
) -> Classified:
    arrival = arrival or make_arrival()
    prediction = Prediction("tiny", 1, ((label, confidence), ("other", 1 - confidence)))
    return Classified(arrival, fingerprint_of(arrival), 640, 480, prediction, threshold, **more)


def make_rejected(arrival: Arrival | None = None, reason: Reason = Reason.UNREADABLE) -> Rejected:
    arrival = arrival or make_arrival()
    return Rejected(arrival, fingerprint_of(arrival), reason, "for a test")


@dataclass
class FakeLedger:
    """Remembers the steps that were asked of it, in `steps`, which others may write into too."""

    steps: list[Any] = field(default_factory=list)
    last_id: int = 0

    def take_ids(self, count: int) -> range:
        first = self.last_id + 1
        self.last_id += count
        return range(first, first + count)

    def claim(self, arrivals: Sequence[Arrival]) -> None:
        self.steps.append(("claim", [arrival.file.path for arrival in arrivals]))

    def ingest(self, copies: Sequence[Copy]) -> None:
        if copies:
            self.steps.append(("ingest", [copy.arrival.id for copy in copies]))

    def plan(self, plans: Sequence[Plan], filed: Sequence[Arrival] = ()) -> None:
        if filed:
            self.steps.append(("filed", [arrival.id for arrival in filed]))
        self.steps.append(("plan", [plan.destination for plan in plans]))

    def confirm(self, filed: Sequence[Arrival]) -> None:
        self.steps.append(("filed", [arrival.id for arrival in filed]))

    def close(self, arrivals: Sequence[Arrival], status: Status, detail: str) -> None:
        if arrivals:
            self.steps.append((status.value, [arrival.id for arrival in arrivals]))

    def named(self, name: str) -> list[Any]:
        """What was asked under one name."""
        return [what for step, what in self.steps if step == name]


class NothingFiled:
    """Known contents for inboxes that do not set duplicates aside: nobody asks for them."""

    def originals(self, inbox: str, hashes: Sequence[str]) -> dict[str, Original]:
        raise AssertionError(f"{inbox} asked for {hashes}")


def recovered(
    ledger: Ledger, deliveries: Mapping[str, Delivery], filed: list[int], lost: list[int]
) -> tuple[list[Arrival], Metrics]:
    """What a new process takes up of the inbox `camera`, and its metrics; its books balance.

    The ids of what it files, and of what it withdraws, are added to `filed` and `lost`.
    """
    metrics = Metrics(process=False)
    reporter = Reporter(metrics, Statistics({"camera": ""}))

    def on_filed(plans: Sequence[Plan]) -> None:
        reporter.filed_batch(plans)
        filed.extend(plan.arrival.id for plan in plans)

    def on_withdrawn(items: Sequence[Withdrawn]) -> None:
        reporter.withdrawn(items)
        lost.extend(item.arrival.id for item in items)

    finisher = Finisher(deliveries, ledger, NothingFiled(), Patience(), on_filed, on_withdrawn)
    again = recovery.recover(ledger, finisher, deliveries, 0.0, metrics=metrics)
    assert metrics.accounts.in_flight("camera") == len(again)
    assert metrics.accounts.unaccounted("camera") == 0
    return again, metrics


def lines(items: Iterable[str]) -> str:
    """Findings as one text, for the message of an assertion."""
    return "\n".join(items)
