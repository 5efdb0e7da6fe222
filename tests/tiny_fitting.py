"""A phase of training that takes a moment: eight pixels, a hundred pictures, everything switched on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pigeonholed.classifying.keras import import_keras
from pigeonholed_training.fitting.augmentation import Augmentation
from pigeonholed_training.fitting.feed import Feed
from pigeonholed_training.fitting.judging import judge
from pigeonholed_training.fitting.loop import Epoch, Fitted, Plan, fit
from pigeonholed_training.progress import Narrator
from pigeonholed_training.runs import RunFolder

TARGETS = (np.arange(120) % 2).astype(np.int32)
PICTURES = np.clip(
    np.random.default_rng(0).normal(110, 40, (120, 8, 8, 3)) + 40 * TARGETS[:, None, None, None], 0, 255
).astype(np.uint8)
TRAIN, HELD = np.arange(80), np.arange(80, 120)
PLAN = Plan(
    "train", "softmax", epochs=3, learning_rate=0.01, weight_decay=0.01, warmup_epochs=0.5, label_smoothing=0.1,
    ema=0.9, patience=3, class_weights=(0.9, 1.1), clip_norm=1.0,
)  # fmt: skip


class Listener(Narrator):
    """Keeps what was said; stops the training, as a kill would, after a line with `fatal` in it."""

    def __init__(self, fatal: str = "nothing says this") -> None:
        super().__init__()
        self.lines: list[str] = []
        self._fatal = fatal

    def say(self, message: str) -> None:
        self.lines.append(message)
        if self._fatal in message:
            raise KeyboardInterrupt


def network(units: int = 2) -> Any:
    """Convolution, batch normalisation and dropout in one small network."""
    keras = import_keras()
    layers = keras.layers
    pixels = keras.Input((8, 8, 3), dtype="uint8")
    x = layers.Rescaling(1 / 255)(pixels)
    x = layers.Conv2D(4, 3)(x)
    x = layers.BatchNormalization(momentum=0.6)(x)
    x = layers.Dropout(0.2)(layers.ReLU()(x))
    return keras.Model(pixels, layers.Dense(units, dtype="float32")(layers.GlobalAveragePooling2D()(x)))


def feed(seed: int = 0) -> Feed:
    """Five steps an epoch."""
    return Feed(PICTURES.__getitem__, TARGETS, TRAIN, 16, Augmentation(shift=0.2, flip=True), seed)


def judged(model: Any) -> tuple[float, float]:
    """Loss and accuracy of the pictures that are not learnt from."""
    return judge(model, [PICTURES[HELD]], TARGETS[HELD])


def fitted(folder: Path, plan: Plan = PLAN, narrator: Narrator | None = None, **others: Any) -> Fitted:
    """The phase in a run folder; `others` replaces arguments of `fit`."""
    run, seed = RunFolder(folder), others.pop("seed", 0)
    arguments: dict[str, Any] = {"build": network, "feed": feed(seed), "judge": judged} | others
    with run.claim():
        return fit(**arguments, plan=plan, run=run, narrator=narrator or Listener(), seed=seed)


def told(history: Sequence[Epoch]) -> list[dict[str, Any]]:
    """The history without its times."""
    names = [name for name in Epoch.__dataclass_fields__ if name != "seconds"]
    return [{name: getattr(epoch, name) for name in names} for epoch in history]


def same(one: Fitted, other: Fitted) -> bool:
    """Whether two trainings came to the same weights, bit by bit, by the same curve."""
    pairs = zip(one.model.get_weights(), other.model.get_weights(), strict=True)
    return told(one.history) == told(other.history) and all(np.array_equal(a, b) for a, b in pairs)
