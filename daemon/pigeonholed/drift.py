"""Whether the pictures of an inbox still look to their model like those that it was judged by.

Nobody knows the true label of a picture that is dropped, so what the model says is compared: how often it says each
label, and how sure it is, against what the bundle recorded at training (`Reference`). Recent pictures weigh more: one
that came 1,000 pictures ago counts half, and so does one of a week ago. So memory is the same for ever.

A sample differs from its own source, too, the more the smaller it is. Each distance is therefore given with what
chance alone exceeds once in a thousand times. Counts of unlike weights are worth as many pictures of equal weight as
their sum squared over the sum of their squares (Kish 1965, 'Survey Sampling'). Pictures of a series that look alike
are fewer than they seem; that is no chance that can be computed, and what an alert waits for.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from pigeonholed.reference import LEVELS

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from pigeonholed.bundle import Manifest
    from pigeonholed.images import Prediction
    from pigeonholed.reference import Reference

    Shares = npt.NDArray[np.float64]

HALF_LIFE_IMAGES = 1000
HALF_LIFE_S = 7 * 86400.0
ENOUGH = 200
"""Pictures, by weight, below which nothing is said."""
CHANCE = 0.001
MATTERS = 0.1
"""A distance below it is nobody's business, however certain it is."""


class State(StrEnum):
    """What can be said of the drift of an inbox."""

    NO_REFERENCE = "no-reference"  # the model does not say what it was like at training
    TOO_FEW = "too-few"
    AS_AT_TRAINING = "as-at-training"
    SHIFTED = "shifted"


@dataclass(frozen=True, slots=True)
class Shift:
    """How far pictures are from the reference in one respect.

    Attributes:
        distance: 0 for the same, 1 for nothing in common.
        chance: what chance alone exceeds once in a thousand times.
        shifted: it is beyond chance, and large enough to matter.
        at: where the difference is greatest: a label, or a confidence.
        now: the share of recent pictures that have this label, or are less sure than this.
        at_training: the share of the reference.
    """

    distance: float
    chance: float
    shifted: bool
    at: str
    now: float
    at_training: float


@dataclass(frozen=True, slots=True)
class Drift:
    """What recent pictures of an inbox look like to its model; shares are between 0 and 1.

    Attributes:
        state: what can be said.
        images: how many, by weight.
        unsure: share below the model's own threshold for their label; None while they are too few.
        unsure_at_training: that of the reference; None, as what follows, where nothing can be compared.
        labels: how differently the labels are spread.
        confidence: how much less sure the model is. That it were surer is no shift.
    """

    state: State
    images: int
    unsure: float | None = None
    unsure_at_training: float | None = None
    labels: Shift | None = None
    confidence: Shift | None = None


@dataclass(slots=True)
class _Window:
    """Decayed counts of what one version said of the pictures of one inbox.

    Attributes:
        weights: by label.
        below: by level of confidence.
        unsure: below the threshold of their label.
        squares: the sum of the squares of the weights of all pictures.
        at_s: when pictures were last added.
    """

    version: tuple[str, int]
    place: dict[str, int]
    thresholds: Shares
    reference: Reference | None
    levels: Shares
    weights: Shares
    below: Shares
    unsure: float = 0.0
    squares: float = 0.0
    at_s: float = 0.0

    @classmethod
    def of(cls, version: tuple[str, int], manifest: Manifest) -> _Window:
        reference = manifest.reference
        levels = np.array(LEVELS if reference is None else reference.levels)
        return cls(
            version,
            {label: index for index, label in enumerate(manifest.labels)},
            np.array([threshold.value for threshold in manifest.thresholds]),
            reference,
            levels,
            np.zeros(len(manifest.labels)),
            np.zeros(len(levels)),
        )

    def knows(self, prediction: Prediction) -> bool:
        """Whether this version said it; an earlier process may have served another one under the same number."""
        return (prediction.model, prediction.version) == self.version and prediction.label in self.place

    def add(self, predictions: Sequence[Prediction], now_s: float) -> None:
        """Take the next pictures, the oldest first."""
        labels = np.array([self.place[prediction.label] for prediction in predictions])
        confidences = np.array([prediction.confidence for prediction in predictions])
        ages = np.arange(len(predictions) - 1, -1, -1)
        added = 0.5 ** (ages / HALF_LIFE_IMAGES)
        left = self._left(now_s) * 0.5 ** (len(predictions) / HALF_LIFE_IMAGES)
        self.weights *= left
        self.weights += np.bincount(labels, added, len(self.weights))
        self.below *= left
        first_above = np.searchsorted(self.levels, confidences, side="right")
        self.below += np.cumsum(np.bincount(first_above, added, len(self.levels) + 1))[:-1]
        self.unsure = self.unsure * left + float(added[confidences < self.thresholds[labels]].sum())
        self.squares = self.squares * left**2 + float((added**2).sum())
        self.at_s = now_s

    def drift(self, now_s: float) -> Drift:
        """What is to be said of them now."""
        total = float(self.weights.sum())
        images = total * self._left(now_s)
        unsure = self.unsure / total if images >= ENOUGH else None
        if self.reference is None:
            return Drift(State.NO_REFERENCE, round(images), unsure)
        if unsure is None:
            return Drift(State.TOO_FEW, round(images))
        labels, below, n = np.array(self.reference.labels), np.array(self.reference.below), self.reference.n
        variance = self.squares / total**2 + 1 / n
        spread = _spread(list(self.place), self.weights / total, labels / n, variance)
        fall = _fall(self.levels, self.below / total, below / n, variance)
        state = State.SHIFTED if spread.shifted or fall.shifted else State.AS_AT_TRAINING
        return Drift(state, round(images), unsure, self.reference.unsure / n, spread, fall)

    def _left(self, now_s: float) -> float:
        """What time has left of every weight since pictures were last added."""
        return float(0.5 ** ((now_s - self.at_s) / HALF_LIFE_S))


@dataclass(slots=True)
class Drifts:
    """The drift of each inbox. Safe to use from any thread.

    They go on from one pipeline of a process to the next, as long as the same version serves.

    Attributes:
        lock: held while pictures are added or looked at.
        clock: monotonic seconds.
    """

    lock: threading.RLock
    clock: Callable[[], float] = time.monotonic
    _windows: dict[str, _Window] = field(default_factory=dict)

    def serve(self, inbox: str, name: str, version: int, manifest: Manifest) -> None:
        """This version answers from now on; begins anew unless it did already."""
        with self.lock:
            before = self._windows.get(inbox)
            if before is None or before.version != (name, version):
                self._windows[inbox] = _Window.of((name, version), manifest)

    def filed(self, inbox: str, predictions: Sequence[Prediction]) -> None:
        """Count what was said of pictures; what an earlier version said is passed over."""
        with self.lock:
            window = self._windows.get(inbox)
            if window is None:
                return
            own = [one for one in predictions if window.knows(one)]
            if own:
                window.add(own, self.clock())

    def of(self, inbox: str) -> Drift | None:
        """What recent pictures look like; None for an inbox that nothing serves."""
        with self.lock:
            window = self._windows.get(inbox)
            return None if window is None else window.drift(self.clock())


def _spread(labels: Sequence[str], now: Shares, then: Shares, variance: float) -> Shift:
    """The total variation distance of two samples of labels: half the sum of the differences of their shares.

    By chance it is at most half the sum of sqrt(p (1 - p) variance) on average (Jensen's inequality; p of both samples
    together), and exceeds that by sqrt(ln(1 / CHANCE) / 2 * variance) with a probability of CHANCE at most, for each
    picture can move it by its weight alone (McDiarmid 1989, 'On the method of bounded differences').

    Args:
        labels: their names.
        now: shares of recent pictures.
        then: shares of the reference.
        variance: the sum of 1 / n of both samples.
    """
    together = np.clip((now + then) / 2, 0.0, 1.0)
    mean = 0.5 * np.sqrt(together * (1 - together) * variance).sum()
    at = int(np.abs(now - then).argmax())
    return _shift(0.5 * float(np.abs(now - then).sum()), float(mean) + _excess(variance), labels[at], now[at], then[at])


def _fall(levels: Shares, now: Shares, then: Shares, variance: float) -> Shift:
    """By how much more pictures are below one and the same confidence: the one-sided distance of Kolmogorov-Smirnov.

    By chance it exceeds sqrt(ln(1 / CHANCE) / 2 * variance) with a probability of CHANCE (Smirnov 1939; Massart 1990,
    'The tight constant in the Dvoretzky-Kiefer-Wolfowitz inequality'). Looking at some levels only makes it smaller.

    Args:
        levels: confidences.
        now: shares of recent pictures below each.
        then: shares of the reference.
        variance: the sum of 1 / n of both samples.
    """
    at = int((now - then).argmax())
    return _shift(max(0.0, float(now[at] - then[at])), _excess(variance), f"{levels[at]:g}", now[at], then[at])


def _excess(variance: float) -> float:
    return math.sqrt(math.log(1 / CHANCE) / 2 * variance)


def _shift(distance: float, chance: float, at: str, now: float, then: float) -> Shift:
    chance = min(1.0, chance)
    return Shift(distance, chance, distance > max(chance, MATTERS), at, float(now), float(then))
