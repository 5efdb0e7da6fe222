"""What the numbers of a network mean: probabilities of all classes, of the second of two, or logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pigeonholed.bundle import calibrate
from pigeonholed_training.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from pigeonholed.bundle import Output
    from pigeonholed_training.importing.original import Original

_SLACK = 1e-3  # of a sum of probabilities; a float16 network rounds


@dataclass(frozen=True, slots=True)
class Meaning:
    """How the numbers of the user's model are read, and what the bundle's network will give.

    Attributes:
        output: what the model gives.
        bare: whether its last operation is left away in the bundle, which then gives logits: of a float32 probability
            that has become 1, no temperature could tell how sure it was.
    """

    output: Output
    bare: bool

    @property
    def of_bundle(self) -> Output:
        """What the bundle's network gives."""
        return "logits" if self.bare else self.output

    def probabilities(self, raw: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Probabilities [N, K] of what the user's model gave [N, units]."""
        return calibrate(raw, self.output, 1.0)


def settle(asked: str, where: object, original: Original, raw: npt.NDArray[np.float32]) -> Meaning:
    """Finds out what the numbers mean, and checks that on real ones.

    Args:
        asked: `auto`, `softmax`, `sigmoid` or `logits`.
        where: the model, for messages.
        original: the model.
        raw: what it gave for some pictures, float [N, units].

    Raises:
        Misconfigured: the numbers do not fit what was asked.
    """
    units, ending = original.units, original.ending
    finite = raw[np.isfinite(raw).all(axis=1)]
    if not len(finite):
        raise Misconfigured(f"Cannot import {where}: it gives no finite numbers, not even for a plain picture.")
    is_share = bool((finite >= -_SLACK).all() and (finite <= 1 + _SLACK).all())
    is_sum = units > 1 and is_share and bool(np.allclose(finite.sum(axis=1), 1.0, atol=_SLACK))
    many = units > 1 and (ending == "sigmoid" or (ending == "other" and is_share and not is_sum and asked == "auto"))
    if many and asked in ("auto", "sigmoid"):
        raise Misconfigured(
            f"Cannot import {where}: it gives {units} probabilities that do not exclude each other (sigmoid), and a "
            "picture goes into one folder; train it with a softmax."
        )
    seen: Output = "softmax" if is_sum else "sigmoid" if units == 1 and is_share and ending != "other" else "logits"
    if ending == "other" and units == 1 and is_share:
        seen = "sigmoid"
    output = seen if asked == "auto" else asked
    wrong = output == "softmax" and not is_sum
    wrong |= output == "sigmoid" and not (units == 1 and is_share)
    wrong |= output == "logits" and (is_sum or ending == "sigmoid")
    if wrong:
        raise Misconfigured(
            f"Cannot import {where} with --output {output}: its outputs look like {seen} on real pictures; leave "
            "--output out."
        )
    kind: Output = "softmax" if output == "softmax" else "sigmoid" if output == "sigmoid" else "logits"
    return Meaning(kind, bare=kind == ending)


def check_count(where: object, original: Original, labels: Sequence[str]) -> None:
    """Refuses a model whose outputs cannot be these labels.

    Raises:
        Misconfigured: there are more or less of them.
    """
    units = original.units
    if units == 1 and original.ending == "softmax":
        raise Misconfigured(
            f"Cannot import {where}: it ends in a softmax over a single unit, which is 1 for every picture; train it "
            "with a sigmoid, or with a unit for each class."
        )
    if units == 1 and len(labels) != 2:
        raise Misconfigured(
            f"Cannot import {where}: it gives one number a picture, which tells two classes apart, and --labels names "
            f"{len(labels)}."
        )
    if units not in (1, len(labels)):
        raise Misconfigured(
            f"Cannot import {where}: it gives {units} numbers a picture, and --labels names {len(labels)} "
            f"({', '.join(labels[:6])}{', ...' if len(labels) > 6 else ''}); name one label for each, in their order."
        )
