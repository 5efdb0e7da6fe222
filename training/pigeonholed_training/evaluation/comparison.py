"""Models side by side on the very same pictures, and whether chance alone would make such a difference."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pigeonholed_training.evaluation.figures import share

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pigeonholed_training.evaluation.record import Prediction

SIGNIFICANT: Final = 0.05
"""From this probability on a difference passes for chance."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A model's answers: its name for people, its classes, and what it said of pictures, by their SHA-256."""

    title: str
    labels: tuple[str, ...]
    predictions: Mapping[str, Prediction]


@dataclass(frozen=True, slots=True)
class Side:
    """One model's figures on the pictures of a comparison.

    Attributes:
        title: its name for people.
        accuracy: share that is right, with its 95 % interval (`figures.share`).
        macro_f1: mean F1 of the classes that were compared.
        unsure_share: of all pictures.
        sorted: share that is right of those that pass their threshold (`figures.share`).
        nll: mean negative log likelihood of the true class, nat; None where a probability was not kept.
    """

    title: str
    accuracy: Mapping[str, Any]
    macro_f1: float
    unsure_share: float
    sorted: Mapping[str, Any]
    nll: float | None


@dataclass(frozen=True, slots=True)
class Pair:
    """How two models fare on the same pictures: counts of those that both, one or none of them get right."""

    first: str
    other: str
    both: int
    only_first: int
    only_other: int
    neither: int

    @property
    def n(self) -> int:
        """Pictures."""
        return self.both + self.only_first + self.only_other + self.neither

    @property
    def p(self) -> float:
        """How often chance alone makes them differ at least so much (McNemar 1947, exact and two-sided)."""
        return self._p("two-sided")

    @property
    def p_worse(self) -> float:
        """How often chance alone makes `other` fall at least so far behind `first` (one-sided)."""
        return self._p("greater")

    def _p(self, alternative: str) -> float:
        from scipy.stats import binomtest

        differing = self.only_first + self.only_other
        # Were they equally good, each picture that only one gets right would be either's by the toss of a coin.
        return float(binomtest(self.only_first, differing, 0.5, alternative).pvalue) if differing else 1.0

    @property
    def sentence(self) -> str:
        """The difference in plain words."""
        ahead = self.only_other - self.only_first
        if not ahead:
            apart = f" ({self.only_first} each that the other gets wrong)" if self.only_first else ""
            return f"{self.first} and {self.other} are right equally often on {self.n} pictures{apart}."
        winner, loser = (self.other, self.first) if ahead > 0 else (self.first, self.other)
        is_more = self.p < SIGNIFICANT
        return (
            f"{winner} is right on {abs(ahead)} more of {self.n} pictures than {loser}; "
            + ("that is more than chance would give" if is_more else "that is no more than chance might give")
            + f" (p = {in_words(self.p)})."
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "first": self.first,
            "other": self.other,
            "both_right": self.both,
            "only_first_right": self.only_first,
            "only_other_right": self.only_other,
            "neither_right": self.neither,
            "p": round(self.p, 6),
            "says": self.sentence,
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came of it.

    Attributes:
        n: pictures, the same for every model.
        labels: the classes that all of them know.
        sides: a model each, in the order given.
        pairs: every further model beside the first.
    """

    n: int
    labels: tuple[str, ...]
    sides: tuple[Side, ...]
    pairs: tuple[Pair, ...]


def compare(models: Sequence[Heard]) -> Comparison:
    """Compares models on the pictures that all of them answered, agreeing on the true class, which all of them know.

    An answer outside the common classes counts as wrong, as it would be in service.

    Args:
        models: at least one.
    """
    labels = common_labels([model.labels for model in models])
    shared = shared_pictures(models)
    answers = [[model.predictions[sha256] for sha256 in shared] for model in models]
    return Comparison(
        n=len(shared),
        labels=labels,
        sides=tuple(_side(model.title, said, labels) for model, said in zip(models, answers, strict=True)),
        pairs=tuple(
            pair(models[0].title, model.title, answers[0], said)
            for model, said in zip(models[1:], answers[1:], strict=True)
        ),
    )


def common_labels(labels: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """The classes that are in all of the lists, in the order of the first."""
    return tuple(label for label in labels[0] if all(label in others for others in labels[1:]))


def shared_pictures(models: Sequence[Heard]) -> list[str]:
    """SHA-256 of the pictures that can be compared, in the order of the first model's answers."""
    known = set(common_labels([model.labels for model in models]))
    return [
        sha256
        for sha256, answer in models[0].predictions.items()
        if answer.label in known
        and all(sha256 in other.predictions and other.predictions[sha256].label == answer.label for other in models[1:])
    ]


def pair(first: str, other: str, said_first: Sequence[Prediction], said_other: Sequence[Prediction]) -> Pair:
    """Counts two models' answers to the same pictures, in the same order."""
    both = [(one.is_right, two.is_right) for one, two in zip(said_first, said_other, strict=True)]
    return Pair(
        first,
        other,
        both=both.count((True, True)),
        only_first=both.count((True, False)),
        only_other=both.count((False, True)),
        neither=both.count((False, False)),
    )


def in_words(p: float) -> str:
    """A probability with as many digits as anybody wants to read."""
    return "less than 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def _side(title: str, said: Sequence[Prediction], labels: Sequence[str]) -> Side:
    passing = [one for one in said if one.outcome == "sorted"]
    return Side(
        title=title,
        accuracy=share(sum(one.is_right for one in said), len(said)),
        macro_f1=_macro_f1(said, labels),
        unsure_share=round(1 - len(passing) / len(said), 6) if said else 0.0,
        sorted=share(sum(one.is_right for one in passing), len(passing)),
        nll=_nll(said),
    )


def _macro_f1(said: Sequence[Prediction], labels: Sequence[str]) -> float:
    from sklearn.metrics import f1_score

    seen = {one.label for one in said}
    present = [label for label in labels if label in seen]  # a class without pictures has no recall to speak of
    if not present:
        return 0.0
    truth, answers = [one.label for one in said], [one.said for one in said]
    return round(float(f1_score(truth, answers, labels=present, average="macro", zero_division=0)), 6)


def _nll(said: Sequence[Prediction]) -> float | None:
    kept = [one.label_probability for one in said if one.label_probability is not None]
    if not said or len(kept) < len(said):
        return None
    return round(-math.fsum(math.log(max(value, 1e-6)) for value in kept) / len(kept), 6)  # six digits are written
