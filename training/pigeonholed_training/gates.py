"""What a model must show before it is published."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pigeonholed_training.evaluation.comparison import SIGNIFICANT, in_words

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pigeonholed_training.evaluation.comparison import Pair

NOT_WORSE: Final = "not worse than the live version"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the user asked for.

    Attributes:
        min_accuracy: share of the judged pictures that must be right.
        min_macro_f1: mean F1 of the classes on them.
        force: publishes a model that is worse than the live one; the user's own numbers stand nevertheless.
    """

    min_accuracy: float | None = None
    min_macro_f1: float | None = None
    force: bool = False

    @property
    def is_anything(self) -> bool:
        """Whether the user asked for anything at all."""
        return self != Wanted()


@dataclass(frozen=True, slots=True)
class Gate:
    """One condition and what came of it.

    Attributes:
        gate: its name.
        wanted: in words.
        got: in words.
        met: whether it holds; also where it could not be judged, which `says` says.
        says: a sentence.
        forced: the user publishes whatever came of it.
    """

    gate: str
    wanted: str
    got: str
    met: bool
    says: str
    forced: bool = False

    @property
    def is_open(self) -> bool:
        """Whether it lets the model through."""
        return self.met or self.forced

    def as_dict(self) -> dict[str, Any]:
        """The form it has in `metrics.json`."""
        return {"gate": self.gate, "wanted": self.wanted, "got": self.got, "met": self.met, "says": self.says}


def minimums(held_out: Mapping[str, Any], wanted: Wanted) -> list[Gate]:
    """The user's own numbers against the figures of the judged pictures, as they were seen there.

    Args:
        held_out: that section of `metrics.json`.
        wanted: numbers that are None ask for nothing.
    """
    accuracy = held_out.get("accuracy") or {}
    got, found = accuracy.get("value"), []
    if wanted.min_accuracy is not None:
        of = f"{accuracy.get('right')} of {accuracy.get('n')} pictures of the {held_out.get('part')} part"
        found.append(_at_least("accuracy", wanted.min_accuracy, got, f"{of} right"))
    if wanted.min_macro_f1 is not None:
        found.append(_at_least("macro F1", wanted.min_macro_f1, held_out.get("macro_f1"), "the mean over the classes"))
    return found


def not_worse(pair: Pair, *, force: bool, caveat: str = "") -> Gate:
    """Refuses what is worse than the live version by more than chance would make it, on the same pictures.

    Args:
        pair: the live version first, then the new one.
        force: lets it through nevertheless.
        caveat: a sentence that the reader should know besides.
    """
    behind = pair.only_first - pair.only_other
    if behind <= 0:
        says = pair.sentence
    elif pair.p_worse >= SIGNIFICANT:
        says = (
            f"{pair.other} is right on {behind} fewer of {pair.n} pictures than {pair.first}, which is live; that is "
            f"within what chance does (p = {in_words(pair.p_worse)})."
        )
    else:
        says = (
            f"{pair.other} is right on {behind} fewer of {pair.n} pictures than {pair.first}, which is live; chance "
            f"would hardly do that (p = {in_words(pair.p_worse)})."
        )
    met = behind <= 0 or pair.p_worse >= SIGNIFICANT
    if not met:
        says += " Published nevertheless, by --force." if force else " --force would publish it nevertheless."
    got = f"{abs(behind)} {'fewer' if behind > 0 else 'more'} right of {pair.n}"
    wanted = f"not significantly worse than {pair.first}"
    return Gate(NOT_WORSE, wanted, got, met, f"{says} {caveat}".rstrip(), forced=force)


def not_compared(live: str, why: str) -> Gate:
    """The gate where nothing can be said: publishing goes on, and says so.

    A store whose live version is damaged, or whose test pictures were moved away, must not refuse a new model for ever.
    """
    says = f"Not compared with {live}, which is live: {why}."
    return Gate(NOT_WORSE, f"not significantly worse than {live}", "not compared", True, says)


def refusal(gates: Sequence[Gate]) -> str:
    """What the gates that are shut say, in one message; empty where all are open."""
    return " ".join(gate.says for gate in gates if not gate.is_open)


def _at_least(what: str, wanted: float, got: object, how: str) -> Gate:
    known = got if isinstance(got, int | float) and not isinstance(got, bool) else None
    met = known is not None and known >= wanted  # NaN is not
    said = "unknown" if known is None else f"{known:.4g}"
    says = f"The {what} is {said} ({how}); at least {wanted:.4g} was asked for."
    return Gate(f"minimum {what}", f"at least {wanted:.4g}", said, met, says)
