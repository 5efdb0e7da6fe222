"""The sections about unusual pictures, and about how fast the model answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pigeonholed_training.reporting.gallery import gallery
from pigeonholed_training.reporting.markup import Section, details, join, name, section, table, tag
from pigeonholed_training.reporting.words import DASH, bounds, interval, number, percent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pigeonholed_training.evaluation.judged import Example

    Metrics = Mapping[str, Any]
    Examples = Mapping[str, Sequence[Example]]


def blends(metrics: Metrics, examples: Examples) -> Section | None:
    """Two pictures laid over each other."""
    found, shown = (metrics.get("behaviour") or {}).get("blends") or (), examples.get("blends") or ()
    if not found and not shown:
        return None
    rows = [
        [
            join([name(one["first"], 24), f" {percent(one['share'], 0)} + ", name(one["second"], 24)]),
            number(one["n"]),
            *(percent(one[key]) for key in ("p_first", "p_second", "p_rest")),
        ]
        for one in found
    ]
    lead = (
        "Two pictures are laid over each other: the two classes should share the confidence and leave little to others."
    )
    if found:
        lead += f" {_shared(found, len(metrics.get('labels') or ()))}"
    header = ["blend", "pictures", "for the first", "for the second", "for others"]
    return section("blends", "Blended pictures", lead, gallery(shown, shown=12), table(header, rows) if rows else "")


def _shared(found: Sequence[Metrics], classes: int) -> str:
    """What becomes of the confidence; with two classes all of it goes to those two, which says nothing."""
    if classes > 2:
        both = sum(one["p_first"] + one["p_second"] for one in found) / len(found)
        return f"Here they get {percent(both, 0)} of it."
    larger = [max((one["share"], one["p_first"]), (1 - one["share"], one["p_second"])) for one in found]
    share, given = (sum(values) / len(larger) for values in zip(*larger, strict=True))
    return f"Here the one that is laid on thicker, {percent(share, 0)} on average, gets {percent(given, 0)} of it."


def strangers(metrics: Metrics, examples: Examples) -> Section | None:
    """Noise, and pictures of no class."""
    found, shown = (metrics.get("behaviour") or {}).get("strangers") or (), examples.get("strangers") or ()
    if not found and not shown:
        return None
    rows = [
        [
            one["what"],
            number(one["n"]),
            percent(one.get("mean_confidence")),
            percent(one.get("sorted_share")),
            DASH if one.get("auroc") is None else f"{one['auroc']:.3f}",
        ]
        for one in found
    ]
    lead = "It knows no 'none of these': what belongs to no class should be set aside as unsure."
    if found:
        worst = max(found, key=lambda one: one.get("sorted_share") or 0.0)
        share = worst.get("sorted_share") or 0.0
        lead += (
            f" Here up to {percent(share, 0)} is sorted all the same ({worst['what']})."
            if share
            else " Here all of it is."
        )
    header = ["what", "pictures", "mean confidence", "sorted", "told apart (AUROC)"]
    note = tag(
        "p", "AUROC: 1 is told apart from known pictures by its confidence always, 0.5 not at all.", class_="aside"
    )
    return section(
        "strangers",
        "Noise and pictures of no class",
        lead,
        gallery(shown, shown=12),
        join([table(header, rows), note]) if rows else "",
    )


def robustness(metrics: Metrics, examples: Examples) -> Section | None:
    """The judging pictures, spoilt in a few ways."""
    found, shown = (metrics.get("behaviour") or {}).get("robustness") or (), examples.get("robustness") or ()
    if not found:
        return None
    rows = [
        [
            one["what"],
            percent((one.get("accuracy") or {}).get("value")),
            interval(bounds(one.get("accuracy"))),
            percent(one.get("unsure_share")),
            percent((one.get("sorted") or {}).get("value")),
            percent(one.get("mean_confidence")),
        ]
        for one in found
    ]
    known = [one for one in found[1:] if (one.get("accuracy") or {}).get("value") is not None]
    lead = "The same pictures, spoilt: a good model loses little, and sets aside what it no longer knows."
    if known:
        worst = min(known, key=lambda one: one["accuracy"]["value"])
        lead += f" It copes worst with '{worst['what']}': {percent(worst['accuracy']['value'])} right."
    header = ["pictures", "right", "95 % interval", "set aside", "of the sorted right", "mean confidence"]
    seen = details("What that looks like", gallery(shown, shown=18)) if shown else ""
    return section("robustness", "Spoilt pictures", lead, table(header, rows), seen)


def speed(metrics: Metrics) -> Section | None:
    """Pictures a second of each runtime, and whether they agree."""
    found, agreement = metrics.get("speed") or (), metrics.get("agreement") or {}
    if not found and not agreement:
        return None
    rows = [
        [
            f"{one['runtime']}, {one.get('precision', '')}".rstrip(", "),
            str(one.get("batch", DASH)),
            *(
                _rounded(one.get(key), digits)
                for key, digits in (("pictures_per_s", 0), ("ms_alone", 1), ("load_s", 2))
            ),
        ]
        for one in found
    ]
    lead = []
    if found:
        fastest = max(found, key=lambda one: one.get("pictures_per_s") or 0.0)
        lead.append(
            f"{fastest['runtime']} is fastest here: {_rounded(fastest.get('pictures_per_s'), 0)} pictures a second."
        )
    if agreement:
        lead.append(_agree(agreement))
    header = ["runtime", "batch", "pictures a second", "ms for one alone", "s to load"]
    return section("speed", "Speed and runtimes", " ".join(lead), table(header, rows) if rows else "")


def _agree(agreement: Metrics) -> str:
    largest = agreement["largest_difference"]
    difference = "less than 0.0001" if largest < 0.0001 else f"{largest:.4f}"
    return (
        f"What serves agrees with the Keras model: on {number(agreement['n'])} pictures the best class is the same for "
        f"{percent(agreement['same_best'])}, and probabilities differ by {difference} at most."
        if largest <= 0.01
        else f"What serves disagrees with the Keras model: probabilities differ by up to {difference}."
    )


def _rounded(value: float | None, digits: int) -> str:
    if value is None:
        return DASH
    return number(round(value)) if digits == 0 and value >= 10 else f"{value:.{max(1, digits)}f}"
