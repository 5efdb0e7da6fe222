"""The sections about confidences: whether they mean what they say, and from which one on a picture is sorted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pigeonholed_training.evaluation.promises import refuted
from pigeonholed_training.reporting import plots
from pigeonholed_training.reporting.markup import Html, Section, join, name, section, table, tag
from pigeonholed_training.reporting.words import DASH, NO_BREAK, bounds, counted, interval, number, percent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Metrics = Mapping[str, Any]

_METHODS = {
    "certified": "certified: promised for this class with 95 % confidence.",
    "pooled": "pooled: promised with 95 % confidence for all pooled classes together.",
    "best-f1": "best-f1: no promise; there were too few calibration pictures, or too many errors among them.",
}
_NEEDED = "More pictures needed: of this class, for calibration, until a threshold of its own is likely certified."
_NUMBERS = (
    ("nll", "surprise at the truth (NLL)"),
    ("brier", "squared error (Brier)"),
    ("ece", "off by, 15 equal steps (ECE)"),
    ("adaptive_ece", "off by, equally full steps (adaptive ECE)"),
    ("noise_floor", "off by, were it perfect (noise floor)"),
)


def reliability(metrics: Metrics) -> Section | None:
    """Whether a confidence of 90 % is right nine times of ten."""
    found = metrics.get("confidence") or {}
    before, after = found.get("before"), found.get("after")
    if not after:
        return None
    rows = [
        [words, *(_figure(key, one) for one in (before, after) if one)]
        for key, words in _NUMBERS
        if after.get(key) is not None
    ]
    header = ["", *(["before"] if before else []), "as served"]
    drawn = plots.reliability(before, after) if after.get("bins") else Html()
    return section(
        "reliability",
        "Do confidences mean what they say?",
        _how_far_off(after),
        drawn,
        table(header, rows),
        _temperature(metrics),
    )


def _figure(key: str, one: Metrics) -> str:
    value = one.get(key)
    if value is None:
        return DASH
    if key in {"nll", "brier"}:
        return f"{value:.4f}"
    reach = one.get(f"{key}_interval")
    return f"{percent(value)} ({interval(reach)})" if reach else percent(value)


def _how_far_off(after: Metrics) -> str:
    """What the diagram shows here, with the noise floor in words."""
    error, floor = after.get("adaptive_ece"), after.get("noise_floor")
    how = "On the dashed line a confidence of 90 % is right nine times of ten."
    if error is None or floor is None:
        return how
    low = (after.get("adaptive_ece_interval") or [error])[0]
    here = (
        f"As served they are off by {percent(error)} on average; by mere chance even perfect ones would seem to be off "
        f"by {percent(floor)} on this many pictures"
    )
    if low <= 2.0 * floor:
        return f"{how} {here}, so that nothing here speaks against them."
    return f"{how} {here}: they are truly off, and should not be read as probabilities."


def _temperature(metrics: Metrics) -> Html:
    fitted = metrics.get("calibration") or {}
    if not fitted.get("temperature"):
        return Html()
    how = "softened" if fitted["temperature"] > 1.0 else "sharpened"
    return tag(
        "p",
        f"All are {how} by one number, a temperature of {fitted['temperature']:.3f}, fitted on "
        f"{number(fitted.get('n', 0))} pictures through {fitted.get('runtime', '?')} at "
        f"{fitted.get('precision', '?')}.",
        class_="aside",
    )


def selective(metrics: Metrics) -> Section | None:
    """How much can be sorted at which precision."""
    found = metrics.get("selective") or {}
    curve, points = found.get("curve"), found.get("coverage_at") or {}
    if not curve or len(curve) < 2:
        return None
    words = [f"{percent(share, 0)} at {percent(float(at), 0)} right" for at, share in sorted(points.items()) if share]
    none = [percent(float(at), 0) for at, share in sorted(points.items()) if not share]
    lead = "The fewer it must sort, the fewer are wrong."
    if words:
        lead += f" Of these pictures it could have sorted {', '.join(words)}."
    if none:
        lead += f" At {' and '.join(none)} it could have sorted none."
    areas = [
        f"{word} {found[key]:.4f}" for key, word in (("aurc", "AURC"), ("augrc", "AUGRC")) if found.get(key) is not None
    ]
    note = tag("p", f"Area under the curve: {', '.join(areas)} (less is better).", class_="aside") if areas else ""
    return section("selective", "How much can be sorted", lead, plots.risk_coverage(curve, points), note)


def thresholds(metrics: Metrics) -> Section | None:
    """From which confidence on a picture is sorted, and what that promises."""
    every = metrics.get("thresholds") or ()
    if not every:
        return None
    used = [method for method in _METHODS if any(one["method"] == method for one in every)]
    legend = [_METHODS[method] for method in used]
    if any(one.get("needed") for one in every):
        legend.append(_NEEDED)
    more = [key for key in ("share_unsure", "held", "needed") if any(key in one for one in every)]
    titles = {"share_unsure": "set aside", "held": "right, seen here", "needed": "more pictures needed"}
    header = ["class", "sorted from", tag("th", "promise", class_="words"), *(titles[key] for key in more), "rests on"]
    ordered = sorted(every, key=lambda one: one["method"] != "best-f1") if len(every) > 12 else every
    rows = [
        [
            name(one["label"]),
            percent(one["value"]),
            tag("td", _promised(one), class_="words"),
            *(_more(key, one) for key in more),
            counted(one.get("n", 0), "picture"),
        ]
        for one in ordered
    ]
    return section(
        "thresholds",
        "When is it sure enough?",
        _promise(metrics, every),
        table(header, rows),
        tag("div", *(tag("div", one) for one in legend), class_="aside"),
    )


def _promised(one: Metrics) -> Html:
    if one["method"] == "best-f1":
        return tag("span", "none ", tag("small", one["method"]))
    return tag("span", f"≥{NO_BREAK}{percent(one.get('precision'))} ", tag("small", one["method"]))


def _more(key: str, one: Metrics) -> object:
    value = one.get(key)
    if value is None:
        return DASH
    if key == "share_unsure":
        return percent(value)
    if key == "needed":
        return f"about {number(value)}"
    if not value.get("n"):
        return DASH
    return join([percent(value["value"]), tag("small", f" {interval(bounds(value))}")])


def _promise(metrics: Metrics, every: Sequence[Metrics]) -> str:
    """What the thresholds amount to here."""
    promised = sum(one["method"] != "best-f1" for one in every)
    target = percent(metrics.get("precision_target") or 0.98, 0)
    how = "A picture is sorted when the model is at least this sure, and set aside as unsure otherwise."
    if not promised:
        return f"{how} None of these thresholds promises anything."
    who = "Every class" if promised == len(every) else f"{promised} of {len(every)} classes"
    if refuted(metrics):
        return f"{how} {who} promised {target} right, but the pictures that judge refute that for some."
    return f"{how} {who} promised at least {target} right, which the pictures that judge do not refute."
