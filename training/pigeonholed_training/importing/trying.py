"""Every rule of pixels tried on pictures whose class is known, and what that says about rule and labels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pigeonholed_training.evaluation.intervals import upper_tail
from pigeonholed_training.importing.original import CHUNK
from pigeonholed_training.importing.rules import RULES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from pigeonholed_training.importing.original import Original
    from pigeonholed_training.importing.outputs import Meaning

# A model without any knowledge passes this often as one that knows something; six of six, the least that can be asked
# of two classes, suffice.
_CHANCE = 0.02
_SWAPPED = 0.001  # the same for another order of the labels, over all orders together
_LEAST_P = 1e-12


@dataclass(frozen=True, slots=True)
class Trial:
    """How a model did under one rule.

    Attributes:
        rule: its name.
        right: pictures whose best label is the true one.
        n: pictures.
        nll: mean of -log p(true class), in nats.
        order: the order of labels under which most would be right: `order[i]` is the label that output i names.
        right_so: how many would be.
        chance: share that would be right if what is said had nothing to do with what is true, both as frequent as now.
        chance_so: the same in the other order.
    """

    rule: str
    right: int
    n: int
    nll: float
    order: tuple[int, ...]
    right_so: int
    chance: float
    chance_so: float

    @property
    def accuracy(self) -> float:
        """Share of the pictures that are right."""
        return self.right / self.n

    @property
    def is_chance(self) -> bool:
        """Whether a model that knows nothing could have done as well: an exact binomial test against `chance`.

        Not against the share of the largest class, which a model that knows the rare classes need not beat.
        """
        return upper_tail(self.right, self.n, self.chance) > _CHANCE


@dataclass(frozen=True)
class Trials:
    """All rules on the same pictures.

    Attributes:
        tried: one trial a rule, in the order of `RULES`.
    """

    tried: tuple[Trial, ...]

    @property
    def best(self) -> Trial:
        """The most accurate; of equals the one that finds the truth most likely."""
        return min(self.tried, key=lambda trial: (-trial.right, trial.nll))

    def of(self, rule: str) -> Trial:
        """That of one rule."""
        return next(trial for trial in self.tried if trial.rule == rule)

    def swapped(self, rule: str) -> Trial | None:
        """The trial, of that rule if it will do, that another order of the labels explains far better than luck.

        Luck is that of the best rule in the order given; each of all orders has its chance of it (Bonferroni).
        """
        found = [
            one
            for one in self.tried
            if one.right_so > self.best.right
            and _log_tail(one.right_so, one.n, max(one.chance_so, self.best.accuracy)) + math.lgamma(len(one.order) + 1)
            < math.log(_SWAPPED)
        ]
        return max(found, key=lambda one: (one.rule == rule, one.right_so), default=None)

    def table(self, chosen: str | None) -> list[str]:
        """Lines for people."""
        meanings = {rule.name: rule.meaning for rule in RULES}
        lines = [f"  {'--pixels':9} {'right':>7}  {'nll':>8}"]
        for trial in self.tried:
            mark = "*" if trial.rule == chosen else " "
            said = "  chance" if trial.is_chance else ""
            right = f"{100 * trial.accuracy:5.1f} %"
            lines.append(f"{mark} {trial.rule:9} {right}  {trial.nll:8.3f}  {meanings[trial.rule]}{said}")
        return lines


def ask(original: Original, pixels: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.float32]]:
    """What a model gives, float32 [N, units], for the same pictures uint8 [N, H, W, 3] under each rule."""
    found = {}
    for rule in RULES:
        rows = [original.answer(rule.apply(pixels[at : at + CHUNK])) for at in range(0, len(pixels), CHUNK)]
        found[rule.name] = np.concatenate(rows)
    return found


def judge(
    answers: Mapping[str, npt.NDArray[np.float32]], meaning: Meaning, targets: npt.NDArray[np.int32], labels: int
) -> Trials:
    """Compares what was given under each rule with the true classes, int [N]."""
    return Trials(tuple(_trial(rule, meaning.probabilities(raw), targets, labels) for rule, raw in answers.items()))


def _trial(rule: str, probabilities: npt.NDArray[np.float32], targets: npt.NDArray[np.int32], labels: int) -> Trial:
    from scipy.optimize import linear_sum_assignment

    known = np.nan_to_num(probabilities, nan=0.0)
    confusion = np.zeros((labels, labels), int)
    np.add.at(confusion, (known.argmax(axis=1), targets), 1)
    said, true = linear_sum_assignment(confusion, maximize=True)
    order = true[np.argsort(said)]
    often_said, often_true = confusion.sum(axis=1) / len(targets), confusion.sum(axis=0) / len(targets)
    true_p = known[np.arange(len(targets)), targets].astype(np.float64)
    return Trial(
        rule=rule,
        right=int(np.trace(confusion)),
        n=len(targets),
        nll=float(-np.log(np.clip(true_p, _LEAST_P, 1.0)).mean()),
        order=tuple(order.tolist()),
        right_so=int(confusion[said, true].sum()),
        chance=float(often_said @ often_true),
        chance_so=float(often_said @ often_true[order]),
    )


def warnings_about(trials: Trials, chosen: str, labels: Sequence[str], scales_itself: bool | None) -> list[str]:
    """What the trials say against the chosen rule and the order of the labels, in plain words."""
    trial, best, swapped = trials.of(chosen), trials.best, trials.swapped(chosen)
    if swapped is not None:
        order = ",".join(labels[index] for index in swapped.order)
        pixels = "" if swapped.rule == chosen else f" and --pixels {swapped.rule}"
        return [
            f"The labels seem to be in another order: with --labels {order}{pixels} the model would be right for "
            f"{100 * swapped.right_so / swapped.n:.1f} % of the samples instead of {100 * trial.accuracy:.1f} %."
        ]
    if not trial.is_chance:
        return []
    if not best.is_chance:
        why = "the pixels are not scaled as in training"
        if scales_itself and chosen != "0..255":
            why = "the model scales pixels itself, and so they are scaled twice"
        elif chosen == "0..255":
            why = "the pixels are not scaled at all"
        return [
            f"With --pixels {chosen} the model is right for {100 * trial.accuracy:.1f} % of the samples, which is "
            f"chance level: {why}. With --pixels {best.rule} it is right for {100 * best.accuracy:.1f} %."
        ]
    return [
        f"The model is right for {100 * trial.accuracy:.1f} % of the samples, which is chance level, and no other "
        "scaling of the pixels does better: the order of the labels is wrong, or these are not pictures of the kind "
        "that it was trained on."
    ]


def _log_tail(successes: int, trials: int, share: float) -> float:
    """The logarithm of `upper_tail`, where that is not 0."""
    return math.log(max(upper_tail(successes, trials, share), 1e-300))
