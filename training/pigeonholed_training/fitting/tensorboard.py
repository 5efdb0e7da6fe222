"""Event files for TensorBoard, written without it: TensorFlow brings the record format and the messages."""

from __future__ import annotations

import contextlib
import shutil
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from pigeonholed_training.fitting.plan import Epoch


@contextlib.contextmanager
def board(folder: Path, history: Sequence[Epoch]) -> Iterator[Board]:
    """The files below `folder`, `train/` and `validation/`, made anew with the epochs that are done already.

    Made anew, because a training that was killed may have written a point that its successor would write again.
    """
    made = Board(folder, history)
    try:
        yield made
    finally:
        made.close()


class Board:
    """Two event files that grow by one point an epoch. A convenience: a full disk only ends them."""

    def __init__(self, folder: Path, history: Sequence[Epoch]) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self._folder = folder
        self._writers: dict[str, Any] = {}
        now = time.time()
        ahead_s = sum(epoch.seconds for epoch in history)
        with _forgiven():
            self._open(now - ahead_s)
        for epoch in history:
            ahead_s -= epoch.seconds
            self.add(epoch, at=now - ahead_s)

    def add(self, epoch: Epoch, at: float | None = None) -> None:
        """The points of one epoch, for now or for `at` (seconds since 1970)."""
        at = time.time() if at is None else at
        scalars = {
            "train": {"loss": epoch.loss, "accuracy": epoch.accuracy, "learning_rate": epoch.learning_rate},
            "validation": {"loss": epoch.validation_loss, "accuracy": epoch.validation_accuracy},
        }
        with _forgiven():
            for name, writer in self._writers.items():
                writer.write(_event(at, epoch.epoch, scalars[name]))
                writer.flush()

    def close(self) -> None:
        """Ends both files."""
        for writer in self._writers.values():
            with _forgiven():
                writer.close()

    def _open(self, at: float) -> None:
        import tensorflow as tf

        for name in ("train", "validation"):
            (self._folder / name).mkdir(parents=True)
            path = self._folder / name / f"events.out.tfevents.{int(at)}.pigeonholed"
            self._writers[name] = tf.io.TFRecordWriter(str(path))
            version = tf.compat.v1.Event(wall_time=at, file_version="brain.Event:2")
            self._writers[name].write(version.SerializeToString())


def _event(at: float, step: int, scalars: Mapping[str, float]) -> bytes:
    import tensorflow as tf

    values = [tf.compat.v1.Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
    message = tf.compat.v1.Event(wall_time=at, step=step, summary=tf.compat.v1.Summary(value=values))
    data: bytes = message.SerializeToString()
    return data


@contextlib.contextmanager
def _forgiven() -> Iterator[None]:
    """Passes over what the file system refuses; the checkpoints report what matters."""
    import tensorflow as tf

    with contextlib.suppress(OSError, tf.errors.OpError):
        yield
