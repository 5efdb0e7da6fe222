"""What is in a model store, as far as a glance tells: no file is hashed, and nothing of a model is run."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from pigeonholed import sealing
from pigeonholed.bundle import MANIFEST, METRICS, REQUIRED, BundleError, Manifest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pigeonholed.settings import InboxSettings
    from pigeonholed.store import ModelStore


@dataclass(frozen=True, slots=True)
class Entry:
    """One version of a model.

    Attributes:
        version: None for a model whose `CURRENT` is damaged; `fault` then says how.
        current: whether it is the one that is served.
        size_bytes: of all its files.
        labels: how many classes it knows; None where that cannot be read, as with what follows.
        published_at: ISO 8601, UTC.
        recipe: that it was trained by; empty for what was imported.
        accuracy: the share that it had right of pictures it had never seen, 0 to 1.
        inboxes: that it sorts, by the configuration.
        fault: what is damaged, as far as a glance tells; `models verify` looks closely.
    """

    name: str
    version: int | None
    current: bool = False
    size_bytes: int | None = None
    labels: int | None = None
    published_at: str | None = None
    recipe: str | None = None
    accuracy: float | None = None
    inboxes: tuple[str, ...] = ()
    fault: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def entries(store: ModelStore, names: Sequence[str], inboxes: Sequence[InboxSettings]) -> Iterator[Entry]:
    """Every version of some models, by name and version.

    Raises:
        BundleError: one of the names cannot be a model's.
    """
    for name in names:
        current, fault = None, None
        try:
            current = store.current(name)
        except BundleError as error:
            fault = str(error)
        versions = store.versions(name)
        if fault is None and current is not None and current not in versions:
            fault = f"CURRENT names version {current}, which is not there"
        if fault is not None:
            yield Entry(name, None, fault=fault)
        for version in versions:
            serves = tuple(
                inbox.name
                for inbox in inboxes
                if inbox.model == name and version == (current if inbox.version == "current" else inbox.version)
            )
            yield _entry(store.root / name / str(version), name, version, version == current, serves)


def _entry(path: Path, name: str, version: int, current: bool, inboxes: tuple[str, ...]) -> Entry:
    size, fault = 0, None
    try:
        size = sum(entry.stat(follow_symlinks=False).st_size for entry in _files(path))
        missing = [file for file in (*REQUIRED, sealing.SEAL) if not os.path.lexists(path / file)]
        if missing:
            raise sealing.SealError(f"{missing[0]} is missing")
        manifest = Manifest.model_validate_json(sealing.read(path, MANIFEST, limit=sealing.MAX_TEXT_BYTES))
        published = datetime.fromtimestamp(os.lstat(path / sealing.SEAL).st_mtime, UTC)
    except ValidationError:
        fault = f"{MANIFEST} is not valid"
    except (sealing.SealError, OSError, ValueError, OverflowError) as error:
        fault = (error.strerror if isinstance(error, OSError) else None) or str(error)
    if fault is not None:
        return Entry(name, version, current, size, inboxes=inboxes, fault=fault)
    return Entry(
        name,
        version,
        current,
        size,
        len(manifest.labels),
        published.isoformat(timespec="seconds").replace("+00:00", "Z"),
        manifest.recipe,
        _accuracy(path),
        inboxes,
    )


def _files(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as found:
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(folder / entry.name)
            else:
                yield entry


def _accuracy(path: Path) -> float | None:
    """What `metrics.json` says of pictures that were held out; it may be of any age, and of anybody."""
    try:
        value = json.loads(sealing.read(path, METRICS, limit=sealing.MAX_TEXT_BYTES))["held_out"]["accuracy"]["value"]
    except (sealing.SealError, OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return float(value) if isinstance(value, int | float) and 0 <= value <= 1 else None
