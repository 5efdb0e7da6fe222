"""A model that can be judged beside others, wherever it is: in a run folder or in the model store."""

from __future__ import annotations

import contextlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pigeonholed import bundle as bundles
from pigeonholed import labels as words
from pigeonholed.bundle import Bundle, BundleError, Manifest
from pigeonholed.classifying import load_classifier
from pigeonholed.paths import to_text
from pigeonholed.store import ModelStore
from pigeonholed_training import origin, publishing, runs
from pigeonholed_training.data.decoding import Decoded, decode_all
from pigeonholed_training.errors import Misconfigured
from pigeonholed_training.evaluation import record
from pigeonholed_training.evaluation.record import Prediction, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy.typing as npt

    from pigeonholed.classifying import Classifier

_MAX_METRICS_BYTES = 64 << 20


@dataclass(frozen=True)
class Entrant:
    """A finished model.

    Attributes:
        title: its name for people: the run folder as it was given, or `NAME/VERSION`.
        folder: of its bundle.
        manifest: what its `bundle.json` says.
        metrics: what its `metrics.json` says; keys may be missing that its version did not know.
        record: what it said of the pictures that judged it, and what it learnt from.
        bundle: the published version; None for a run.
        data: where the data set was when it was trained; None where that is not known.
    """

    title: str
    folder: Path
    manifest: Manifest
    metrics: dict[str, Any]
    record: Record
    bundle: Bundle | None = None
    data: Path | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """Its classes."""
        return self.manifest.labels

    @property
    def served_bytes(self) -> int:
        """What the network takes on the disk in the form that serves."""
        return sum((self.folder / name).stat().st_size for name in (bundles.OPENVINO_MODEL, bundles.OPENVINO_WEIGHTS))

    def number(self, *keys: str) -> float | None:
        """A number of its metrics, as `number("held_out", "macro_f1")`; None where there is none."""
        found: Any = self.metrics
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None

    @contextlib.contextmanager
    def serving(self) -> Iterator[Classifier]:
        """Its classifier as the daemon would load it on a CPU; the self-test has been passed.

        Raises:
            TrainingError: it does not load.
        """
        if self.bundle is None:
            with publishing.serving(self.folder) as classifier:
                yield classifier
            return
        try:
            classifier = load_classifier(self.bundle, kind="openvino", device="cpu")
        except BundleError as fault:
            raise Misconfigured(str(fault)) from fault
        yield classifier

    def ask(
        self,
        root: Path,
        pictures: Sequence[tuple[str, str]],
        *,
        skip: Callable[[str], bool] = lambda _sha256: False,
        on_picture: Callable[[int], None] = lambda _done: None,
    ) -> dict[str, Prediction]:
        """Classifies files through the runtime that serves.

        Args:
            root: what relative paths are relative to.
            pictures: (path, true class) of each.
            skip: whether a picture of that SHA-256 shall be passed over.
            on_picture: told how many have been read.

        Returns:
            The answers by SHA-256; files that are no pictures have none.

        Raises:
            TrainingError: the model does not load.
        """
        paths = [path for path, _ in pictures]
        answers: dict[str, Prediction] = {}
        waiting: list[tuple[int, Decoded]] = []

        def answer() -> None:
            pixels = np.stack([one.pixels for _, one in waiting])
            for (index, one), row in zip(waiting, classifier.predict(pixels), strict=True):
                path, label = pictures[index]
                answers[one.sha256] = self._prediction(one.sha256, path, label, row)
            waiting.clear()

        results = decode_all(root, paths, self.manifest.pixel_spec)
        with self.serving() as classifier, contextlib.closing(results):
            for index, (_, decoded) in enumerate(results):
                on_picture(index + 1)
                if isinstance(decoded, Decoded) and not skip(decoded.sha256):
                    waiting.append((index, decoded))
                if len(waiting) == classifier.batch_sizes[-1]:
                    answer()
            if waiting:
                answer()
        return answers

    def _prediction(self, sha256: str, path: str, label: str, row: npt.NDArray[np.float32]) -> Prediction:
        best = int(row.argmax())
        confidence = float(row[best])
        if not math.isfinite(confidence):  # a network without an answer is not right by accident
            return Prediction(sha256, "test", label, "", 0.0, "unsure", path=to_text(path))
        return Prediction(
            sha256=sha256,
            part="test",
            label=label,
            said=self.labels[best],
            confidence=confidence,
            outcome="sorted" if confidence >= self.manifest.thresholds[best].value else "unsure",
            label_probability=float(row[self.labels.index(label)]) if label in self.labels else None,
            path=to_text(path),
        )


def find(text: str, models: Path) -> Entrant:
    """What `text` names: a run folder, `NAME` (its current version), `NAME/VERSION`, `NAME@VERSION` or its folder.

    Args:
        text: as the user wrote it.
        models: the store.

    Raises:
        Misconfigured: there is no such run, model or version, or it is damaged.
    """
    path = Path(text)
    if (path / runs.BUNDLE).is_dir():
        return of_run(path)
    if bundles.version_of(path.name) and (path / bundles.MANIFEST).is_file():
        return _of_bundle(_opened(path))
    store = ModelStore(models)
    for name, version in (text, None), _named(text):
        if words.fault_of(name) is None and store.versions(name):
            return published(store, name, version)
    raise Misconfigured(
        f"Cannot find a model at {text}: it is neither a folder with a finished training nor a model of the store "
        f"{models}, which has {', '.join(store.names()) or 'none'}."
    )


def of_run(run: Path) -> Entrant:
    """The model of a finished run.

    Raises:
        Misconfigured: it is not finished, or damaged.
    """
    folder = run / runs.BUNDLE
    metrics = runs.RunFolder(run).read_json(runs.METRICS)
    if metrics is None or not folder.is_dir():
        raise Misconfigured(f"{run} holds no finished training; make one with 'pigeonholed-train train'.")
    try:
        manifest = Manifest.model_validate_json((folder / bundles.MANIFEST).read_bytes())
    except (OSError, ValueError) as fault:
        raise Misconfigured(f"Cannot read {folder / bundles.MANIFEST}: it is damaged; train that run again.") from fault
    known = origin.find(runs.RunFolder(run))
    return Entrant(str(run), folder, manifest, metrics, record.read(run), data=known.data if known else None)


def published(store: ModelStore, name: str, version: int | None = None) -> Entrant:
    """A published version; the current one by default.

    Raises:
        Misconfigured: there is none, or it is damaged.
    """
    try:
        return _of_bundle(store.open(name, "current" if version is None else version))
    except BundleError as fault:
        raise Misconfigured(str(fault)) from fault


def _opened(path: Path) -> Bundle:
    try:
        return Bundle.open(path)
    except BundleError as fault:
        raise Misconfigured(str(fault)) from fault


def _of_bundle(bundle: Bundle) -> Entrant:
    try:
        metrics = json.loads(bundle.read(bundles.METRICS, limit=_MAX_METRICS_BYTES))
    except (BundleError, ValueError, RecursionError):
        metrics = {}  # only ever shown
    known = metrics if isinstance(metrics, dict) else {}
    title = f"{bundle.name}/{bundle.version}" if bundle.version else str(bundle.path)
    return Entrant(title, bundle.path, bundle.manifest, known, record.read(bundle.path), bundle)


def _named(text: str) -> tuple[str, int | None]:
    """(name, version) of `NAME`, `NAME/VERSION`, `NAME@VERSION`."""
    for mark in "/@":
        name, found, version = text.rpartition(mark)
        number = bundles.version_of(version)
        if found and number is not None:
            return name, number
    return text, None
