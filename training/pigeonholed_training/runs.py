"""A run folder: everything about one training, and enough to go on after a kill."""

from __future__ import annotations

import contextlib
import csv
import errno
import fcntl
import io
import json
import os
import secrets
import shutil
from typing import TYPE_CHECKING, Any

from pigeonholed_training.errors import Misconfigured, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

SETTINGS = "settings.json"
LOG = "train.log"
HISTORY = "history.csv"
MODEL = "model.keras"
CURVES = "curves.png"
METRICS = "metrics.json"
REPORT = "report.html"
BUNDLE = "bundle"
CHECKPOINTS = "checkpoints"
TENSORBOARD = "tensorboard"
_LOCK = ".lock"


class RunFolder:
    """`RUNS/NAME/`; every file in it is written whole or not at all.

    Args:
        path: the folder; `claim` makes it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextlib.contextmanager
    def claim(self) -> Iterator[None]:
        """Makes the folder and keeps other trainings out of it.

        Raises:
            Misconfigured: it cannot be made or written.
            Unavailable: another training uses it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            fd = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as fault:
            raise self._fault(self.path, fault) from fault
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as fault:
            os.close(fd)
            raise Unavailable(
                f"Cannot train in {self.path}: another training is using it; wait for it or give another --name."
            ) from fault
        try:
            for left in self.path.rglob(f".{'[0-9a-f]' * 8}-*"):  # half-written by a training that was killed
                left.unlink(missing_ok=True)
            yield
        finally:
            os.close(fd)

    def forget(self) -> None:
        """Removes what an earlier training left, the lock apart."""
        for entry in list(self.path.iterdir()):
            if entry.name == _LOCK:
                continue
            try:
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
            except OSError as fault:
                raise self._fault(entry, fault) from fault

    def write(self, name: str, data: bytes) -> Path:
        """Puts `data` at `name`, replacing what was there; see `writing`."""

        def save(path: Path) -> None:
            path.write_bytes(data)

        return self.writing(name, save)

    def writing(self, name: str, save: Callable[[Path], object]) -> Path:
        """Lets `save` write a temporary file that becomes `name` when it is complete.

        Raises:
            Misconfigured: the folder cannot be written.
            Unavailable: the disk is full.
        """
        path = self.path / name
        # The ending stays last: Keras and matplotlib go by it.
        temporary = path.with_name(f".{secrets.token_hex(4)}-{path.name}")
        try:
            path.parent.mkdir(exist_ok=True)
            save(temporary)
            with open(temporary, "rb") as stream:
                os.fsync(stream.fileno())
            os.replace(temporary, path)
        except OSError as fault:
            raise self._fault(path, fault) from fault
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        return path

    def write_json(self, name: str, value: Mapping[str, Any]) -> Path:
        """Puts a JSON object at `name`."""
        return self.write(name, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode("utf-8"))

    def read_json(self, name: str) -> dict[str, Any] | None:
        """The JSON object at `name`; None where there is no such file.

        Raises:
            Misconfigured: it cannot be read or is no JSON object.
        """
        path = self.path / name
        try:
            value = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as fault:
            raise Misconfigured(f"Cannot read {path}: {fault}. Start over with --fresh.") from fault
        if not isinstance(value, dict):
            raise Misconfigured(f"Cannot read {path}: it is no JSON object. Start over with --fresh.")
        return value

    def write_history(self, rows: Sequence[Mapping[str, Any]]) -> Path:
        """Puts one line an epoch into `history.csv`."""
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return self.write(HISTORY, text.getvalue().encode("utf-8"))

    @staticmethod
    def _fault(path: Path, fault: OSError) -> Misconfigured | Unavailable:
        said = fault.strerror or str(fault)
        if fault.errno in (errno.ENOSPC, errno.EDQUOT):
            return Unavailable(f"Cannot write {path}: {said}; make room, and the same command goes on from there.")
        return Misconfigured(f"Cannot write {path}: {said}; give another folder with --runs.")
