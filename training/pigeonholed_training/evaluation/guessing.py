"""Whether a model is better than saying the same to every picture, and what it is a sign of where it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pigeonholed_training.evaluation.telling import names, percent

if TYPE_CHECKING:
    from collections.abc import Mapping

    Metrics = Mapping[str, Any]

FEW = 200  # pictures, up to which bad luck is a likely reason
KNOWN = 0.1  # beyond guessing, from which on the pictures it learnt from are known
_NEARLY_ALL = 0.95  # of the answers, from which on a model does not look at the pictures


def chance(metrics: Metrics) -> float | None:
    """What always saying the most frequent class would get right among the judging pictures; None if unknown."""
    held = metrics.get("held_out") or {}
    if held.get("majority") is not None:
        return float(held["majority"])
    counts = [int(one["n"]) for one in held.get("classes") or ()]
    return max(counts) / sum(counts) if sum(counts) else None


def guesses(metrics: Metrics) -> bool:
    """Whether the judging pictures do not show it to be better than chance: by the lower bound of what is right."""
    accuracy, share = (metrics.get("held_out") or {}).get("accuracy") or {}, chance(metrics)
    return share is not None and accuracy.get("value") is not None and bool(accuracy["lower"] <= share)


def too_few(metrics: Metrics) -> bool:
    """Whether a model that is not shown to be better may be, had more pictures judged it."""
    accuracy = metrics["held_out"]["accuracy"]
    return bool(accuracy["value"] > (chance(metrics) or 0.0) and accuracy["n"] < FEW)


def explained(metrics: Metrics) -> str:
    """What is the matter with a model that guesses, what that usually means, and what to do."""
    accuracy, share = metrics["held_out"]["accuracy"], chance(metrics) or 0.0
    better = "is not shown to do better" if accuracy["value"] > share else "does no better"
    return (
        f"Always saying the most frequent class would get {percent(share)} right, and this model {better}: "
        f"{percent(accuracy['value'])} of {accuracy['n']} pictures. {_why(metrics, share)}"
    )


def _why(metrics: Metrics, share: float) -> str:
    favourite = _favourite(metrics)
    known = ((metrics.get("other_parts") or {}).get("train") or {}).get("value")
    # Only what comes from elsewhere may have been trained on pixels that were scaled otherwise.
    foreign = bool(metrics.get("imported"))
    if favourite is not None and foreign:
        return (
            f"It says {names([favourite])} to nearly every picture, which usually means that pixels are scaled twice: "
            "by the model and by its preprocessing rule. Import it with another rule."
        )
    if favourite is not None:
        return (
            f"It says {names([favourite])} to nearly every picture, having found nothing in them that goes with their "
            "classes. Usually labels are shuffled: look whether the pictures are in their right folders. If they are, "
            "the classes cannot be told apart by sight, or training broke down: try a smaller learning rate."
        )
    if too_few(metrics):
        return "So few pictures cannot tell skill from luck: set more of them aside for judging."
    if known is not None and known > share + KNOWN:
        return (
            f"Yet {percent(known)} of the pictures it learnt from are right: it knows those by heart, and what it "
            "learnt does not hold for others. Usually labels are shuffled: look whether the pictures are in their "
            "right folders. If they are, there are too few, or the classes cannot be told apart by sight."
        )
    first = "" if known is None else "Even what it learnt from is hardly known. "
    cause = "pixels are scaled twice, " if foreign else ""
    return (
        f"{first}Usually labels are shuffled, {cause}or the classes cannot be told apart by sight. Look whether the "
        f"pictures are in their right folders; then try another {'preprocessing rule' if foreign else 'recipe'}."
    )


def _favourite(metrics: Metrics) -> str | None:
    """The class that is said to nearly every picture though far fewer are of it; None if there is none."""
    confusion, labels = metrics["held_out"].get("confusion"), metrics.get("labels") or ()
    if not confusion or len(labels) != len(confusion):
        return None
    said = [sum(column) for column in zip(*confusion, strict=True)]
    most, total = max(said), sum(said)
    index = said.index(most)
    is_blind = most >= _NEARLY_ALL * total and sum(confusion[index]) < _NEARLY_ALL * total
    return str(labels[index]) if is_blind else None
