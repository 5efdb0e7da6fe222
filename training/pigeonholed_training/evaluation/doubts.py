"""What speaks against a model, found in the content of its `metrics.json` and said in plain words.

Numbers that are missing, as in an older file, speak against nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pigeonholed_training.evaluation import guessing
from pigeonholed_training.evaluation.promises import refuted
from pigeonholed_training.evaluation.telling import names, percent, sentence

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Metrics = Mapping[str, Any]

LEAKED = 0.01  # share of the judging pictures that may be known before nothing is to be believed
RUNTIMES_DIFFER = 0.01  # the most that a served probability may differ from the Keras model's
OFF = 0.01  # confidences that are off by less than this mislead nobody
BY_HEART = 0.1  # between training pictures and the upper bound of the others
WIDE = 0.1  # interval of the accuracy from which on there are too few pictures to tell
UNEVEN = 10  # times as many pictures of one class as of another
UNSURE = 0.25  # share set aside from which on a person has much to do
MISFILED = 0.05  # share of wrong folders from which on it is worth a word


@dataclass(frozen=True, slots=True)
class Doubt:
    """Something that speaks against a model.

    Attributes:
        says: what is wrong, what that usually means and what to do, in a sentence or four.
        verdict: of what forbids to use the model, the one sentence for that; empty for what asks for care only.
    """

    says: str
    verdict: str = ""

    @property
    def level(self) -> Literal["care", "bad"]:
        """How grave it is."""
        return "bad" if self.verdict else "care"


def doubts(metrics: Metrics) -> list[Doubt]:
    """All that speaks against a model, the gravest first."""
    grave = (_leaks, _guesses, _differs, _mostly_wrong, _gates)
    slight = (_refuted, _misfiles, _weak, _few, _promises_nothing, _off, _by_heart, _uneven, _much_unsure)
    # Of a model that guesses the particulars are true as well, and only hide what matters.
    tests = (_leaks, _guesses, _gates) if guessing.guesses(metrics) else (*grave, *slight)
    found = [doubt for test in tests if (doubt := test(metrics)) is not None]
    return sorted(found, key=lambda doubt: doubt.level != "bad")


def leaked(metrics: Metrics) -> float:
    """The share of the judging pictures that were learnt from, byte for byte or nearly; 0 where that is not known."""
    leaks = metrics.get("leaks") or {}
    known = (leaks.get("seen") or 0) + (leaks.get("alike") or 0)
    return known / leaks["checked"] if known else 0.0


def _leaks(metrics: Metrics) -> Doubt | None:
    share = leaked(metrics)
    if not share:
        return None
    what = f"{percent(share)} of the {metrics['leaks']['checked']} pictures that judge this model"
    if share < LEAKED:
        return Doubt(f"{what} are the same as pictures it learnt from, or nearly: the numbers are a little kind.")
    return Doubt(
        f"{what} are the same as pictures it learnt from, or nearly: it may only remember them. Judge it by pictures "
        "that it has never seen, or take these out of what it learns from and train again.",
        "Do not believe these numbers: it was judged by pictures that it had learnt from.",
    )


def _guesses(metrics: Metrics) -> Doubt | None:
    if not guessing.guesses(metrics):
        return None
    if guessing.too_few(metrics):
        verdict = "Too few pictures judge it to tell whether it is better than guessing."
    else:
        verdict = "It is no better than guessing."
    return Doubt(guessing.explained(metrics), verdict)


def _differs(metrics: Metrics) -> Doubt | None:
    largest = (metrics.get("agreement") or {}).get("largest_difference")
    if largest is None or largest <= RUNTIMES_DIFFER:
        return None
    return Doubt(
        f"The probabilities of the model that serves differ by up to {largest:.3f} from those of the Keras model, and "
        f"{RUNTIMES_DIFFER} is allowed. Export it again.",
        "What serves is not what was trained.",
    )


def _mostly_wrong(metrics: Metrics) -> Doubt | None:
    wrong = _misfiled(metrics)
    if wrong is None or wrong <= 0.5:
        return None
    return Doubt(
        f"Of the pictures that it would sort, {percent(wrong)} would land in a wrong folder. It needs more pictures, "
        "fewer classes, or a recipe that starts from weights.",
        "Most of what it sorts would land in a wrong folder.",
    )


def _gates(metrics: Metrics) -> Doubt | None:
    failed = [gate for gate in metrics.get("gates") or () if gate.get("met") is False]
    if not failed:
        return None
    asked = "; ".join(f"{gate.get('gate')}, wanted {gate.get('wanted')}, got {gate.get('got')}" for gate in failed)
    return Doubt(sentence(f"Asked for and not met: {asked}"), "It is not what you asked for.")


def _refuted(metrics: Metrics) -> Doubt | None:
    whose = refuted(metrics)
    if not whose:
        return None
    return Doubt(
        f"It promises that {percent(metrics['precision_target'])} of what it sorts is right, and the judging pictures "
        f"refute that for {names(whose)}. Usually they are of another kind than those that were learnt from; go by "
        "the share seen here."
    )


def _misfiles(metrics: Metrics) -> Doubt | None:
    wrong = _misfiled(metrics)
    if wrong is None or not MISFILED <= wrong <= 0.5:
        return None
    return Doubt(
        f"Of what it sorts without asking, {percent(wrong)} lands in a wrong folder: about one picture in "
        f"{round(1.0 / wrong)}."
    )


def _misfiled(metrics: Metrics) -> float | None:
    """The share of the sorted judging pictures that are wrong; None where nothing is sorted."""
    value = (_held(metrics).get("sorted") or {}).get("value")
    return None if value is None else 1.0 - float(value)


def _weak(metrics: Metrics) -> Doubt | None:
    classes = [one for one in _held(metrics).get("classes") or () if one.get("n") and one.get("recall_interval")]
    weak = [str(one["label"]) for one in classes if one["recall_interval"][1] < 0.5]
    if not weak:
        return None
    return Doubt(
        f"It misses most pictures of {names(weak)}. More pictures of {'this class' if len(weak) == 1 else 'these'} "
        "would help, or putting classes together that look the same."
    )


def _few(metrics: Metrics) -> Doubt | None:
    accuracy = _accuracy(metrics)
    if accuracy.get("value") is None or accuracy["upper"] - accuracy["lower"] <= WIDE:
        return None
    return Doubt(
        f"Only {accuracy['n']} pictures judge it: of many more, anything from {percent(accuracy['lower'])} to "
        f"{percent(accuracy['upper'])} could be right."
    )


def _promises_nothing(metrics: Metrics) -> Doubt | None:
    thresholds = metrics.get("thresholds") or ()
    loose = [str(one["label"]) for one in thresholds if one["method"] == "best-f1"]
    if not loose:
        return None
    what = "What it sorts" if len(loose) == len(thresholds) else f"What it sorts as {names(loose)}"
    return Doubt(
        f"{what} comes with no promise: there are too few pictures, or too many errors, to vouch for "
        f"{percent(metrics.get('precision_target') or 0.98)}. Look through these folders now and then."
    )


def _off(metrics: Metrics) -> Doubt | None:
    after = (metrics.get("confidence") or {}).get("after") or {}
    error, interval, floor = (after.get(key) for key in ("adaptive_ece", "adaptive_ece_interval", "noise_floor"))
    if error is None or not interval or floor is None or interval[0] <= 2.0 * floor or error < OFF:
        return None
    return Doubt(
        f"Its confidences are {_which_way(after.get('bins') or ())} by {percent(error)} on average: do not read them "
        "as probabilities."
    )


def _which_way(bins: Sequence[Metrics]) -> str:
    gap = sum(one["n"] * (one["confidence"] - one["accuracy"]) for one in bins if one.get("n"))
    return "too high" if gap > 0 else "too low" if gap < 0 else "off"


def _by_heart(metrics: Metrics) -> Doubt | None:
    known = ((metrics.get("other_parts") or {}).get("train") or {}).get("value")
    accuracy = _accuracy(metrics)
    if known is None or accuracy.get("value") is None or accuracy["upper"] > known - BY_HEART:
        return None
    return Doubt(
        f"It has learnt by heart: {percent(known)} of the pictures it learnt from are right, and "
        f"{percent(accuracy['value'])} of others. More pictures would help, or a recipe that starts from weights."
    )


def _uneven(metrics: Metrics) -> Doubt | None:
    totals = {label: sum(parts.values()) for label, parts in (metrics.get("counts") or {}).items()}
    if not totals or max(totals.values()) < UNEVEN * max(1, min(totals.values())):
        return None
    small, large = min(totals, key=totals.__getitem__), max(totals, key=totals.__getitem__)
    return Doubt(
        f"The classes are very uneven: {totals[small]} pictures of {names([small])} and {totals[large]} of "
        f"{names([large])}. Go by the numbers of each class; those of all together hide the small ones."
    )


def _much_unsure(metrics: Metrics) -> Doubt | None:
    unsure = _held(metrics).get("unsure_share")
    if unsure is None or unsure <= UNSURE:
        return None
    return Doubt(f"{percent(unsure)} of the pictures are set aside as unsure, for somebody to look through.")


def _held(metrics: Metrics) -> Metrics:
    return metrics.get("held_out") or {}


def _accuracy(metrics: Metrics) -> Metrics:
    return _held(metrics).get("accuracy") or {}
