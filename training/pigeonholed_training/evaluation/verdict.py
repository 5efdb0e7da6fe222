"""Whether to use a model, in one sentence for somebody who has half a minute and no wish to know about networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pigeonholed_training.evaluation.doubts import doubts
from pigeonholed_training.evaluation.telling import percent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Metrics = Mapping[str, Any]


STRANGE = 0.25  # share of pictures of no class that is sorted, from which on it is worth a word


def verdict(metrics: Metrics) -> dict[str, Any]:
    """What the content of `metrics.json` amounts to, as plain values for JSON; missing numbers are tolerated.

    Returns:
        `level`: `good`; `care`: of use, with something to mind; `bad`: not to be used, or not to be believed.
        `sentence`: what to take away. `reasons`: what speaks against the model, gravest first; of a good one, what
        speaks for it.
    """
    accuracy = (metrics.get("held_out") or {}).get("accuracy") or {}
    if accuracy.get("value") is None:
        return _judged("care", "Nothing is known about how good this model is.", ["No pictures have judged it yet."])
    against = doubts(metrics)
    reasons = [doubt.says for doubt in against]
    if not against:
        return _judged("good", _summary(metrics), list(_for(metrics)))
    if against[0].level == "bad":
        return _judged("bad", against[0].verdict, reasons)
    return _judged("care", _summary(metrics), reasons)


def _judged(level: str, sentence: str, reasons: list[str]) -> dict[str, Any]:
    return {"level": level, "sentence": sentence, "reasons": reasons}


def _summary(metrics: Metrics) -> str:
    """What it does, in numbers."""
    held = metrics["held_out"]
    accuracy = held["accuracy"]
    first = f"{percent(accuracy['value'])} of {accuracy['n']} pictures it had never seen are right"
    unsure, filed = held.get("unsure_share"), (held.get("sorted") or {}).get("value")
    if unsure is None or filed is None:
        return f"{first}."
    return f"{first}. It sorts {percent(1.0 - unsure)} without asking, and of those {percent(filed)} rightly."


def _for(metrics: Metrics) -> Iterator[str]:
    """What speaks for a model that nothing speaks against."""
    accuracy, target = metrics["held_out"]["accuracy"], metrics.get("precision_target")
    yield f"Of many more such pictures, {percent(accuracy['lower'])} to {percent(accuracy['upper'])} would be right."
    if metrics.get("thresholds") and target:
        yield (
            f"It promises that at least {percent(target)} of what it sorts is right, and nothing seen here speaks "
            "against that."
        )
    if (metrics.get("confidence") or {}).get("after"):
        yield "Its confidences can be read as probabilities."
    met = (metrics.get("behaviour") or {}).get("strangers") or ()
    worst = max(met, key=lambda one: float(one["sorted_share"]), default=None)
    if worst is not None and worst["sorted_share"] >= STRANGE:
        yield (
            f"What belongs to none of its classes it sorts all the same ({worst['what']}: "
            f"{percent(worst['sorted_share'])}): give such pictures a class of their own if they will come."
        )
