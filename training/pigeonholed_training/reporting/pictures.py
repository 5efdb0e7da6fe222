"""The sections that show pictures."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

from pigeonholed_training.reporting.gallery import SHOWN, gallery
from pigeonholed_training.reporting.markup import Html, Section, details, join, name, section, table, tag
from pigeonholed_training.reporting.words import counted, percent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pigeonholed_training.evaluation.judged import Example

    Metrics = Mapping[str, Any]
    Examples = Mapping[str, Sequence[Example]]

_OF_A_PAIR = 6
_PAIRS = 4
_OFTEN = 0.9  # share right from which on a contradiction says more of the label than of the model
_FIRST = 12  # pictures that are not folded away


def worst(metrics: Metrics, examples: Examples) -> Section | None:
    """The surest mistakes."""
    shown = examples.get("worst") or ()
    if not shown:
        return None
    accuracy = (metrics.get("held_out") or {}).get("accuracy") or {}
    of = f" of {accuracy['n']}" if accuracy else ""
    wrong = accuracy["n"] - accuracy["right"] if accuracy else len(shown)
    filed = sum(example.outcome == "sorted" for example in shown)
    which = f"all {filed} shown" if filed == len(shown) else f"{filed or 'none'} of the {len(shown)} shown"
    lead = (
        f"{counted(wrong, 'picture')}{of} {'was' if wrong == 1 else 'were'} taken for something else; these are the "
        f"surest mistakes, and {which} would land in a wrong folder. If the given class looks wrong to you, the "
        "folder is at fault and not the model."
    )
    return section("worst", "Worst errors", lead, _folded(shown))


def confused(metrics: Metrics, examples: Examples) -> Section | None:
    """Pictures of the pairs of classes that are mixed up most often."""
    shown = examples.get("confused") or ()
    if not shown:
        return None
    labels = list(metrics.get("labels") or ())
    confusion = (metrics.get("held_out") or {}).get("confusion")
    pairs = [(pair, list(some)) for pair, some in groupby(shown, key=lambda one: (str(one.label), one.said[0][0]))][
        :_PAIRS
    ]
    body = []
    for (true, said), some in pairs:
        known = confusion and true in labels and said in labels
        count = confusion[labels.index(true)][labels.index(said)] if confusion and known else len(some)
        of = sum(confusion[labels.index(true)]) if confusion and known else None
        share = f" of {of}" if of else ""
        body += [
            tag("h3", name(true), " taken for ", name(said), f": {count}{share}"),
            gallery(some, shown=_OF_A_PAIR),
        ]
    true, said = pairs[0][0]
    lead = join(["Most often ", name(true), " is taken for ", name(said), ". Look for what these pictures share."])
    return section("confused", "Classes that are mixed up", lead, *body)


def least_certain(_: Metrics, examples: Examples) -> Section | None:
    """Where the model had no opinion."""
    shown = examples.get("least_certain") or ()
    if not shown:
        return None
    unsure = sum(example.outcome == "unsure" for example in shown)
    right = sum(bool(example.is_right) for example in shown)
    lead = (
        f"Pictures on which it is least sure; more like these would teach it most. Of the {len(shown)}, {right} are "
        f"right all the same, and {unsure} would be set aside as unsure."
    )
    return section("least-certain", "Least certain", lead, _folded(shown))


def sample(_: Metrics, examples: Examples) -> Section | None:
    """A fair sample."""
    shown = examples.get("sample") or ()
    if not shown:
        return None
    right = sum(bool(example.is_right) for example in shown)
    lead = (
        f"Drawn by lot, alike from all classes: {right} of {len(shown)} are right. A bar is as long as the model is "
        "sure; green is the true class, red a wrong answer."
    )
    return section("sample", "A sample", lead, gallery(shown))


def suspects(metrics: Metrics, examples: Examples) -> Section | None:
    """Pictures that seem to be in a wrong folder."""
    rows, shown = metrics.get("suspects") or (), examples.get("suspects") or ()
    if not rows and not shown:
        return None
    count = max(len(rows), len(shown))
    lead = (
        f"{counted(count, 'picture')} may be in the wrong folder: what is said contradicts the class given, surely. "
        "Have a look, the most suspicious first; nothing was changed."
    )
    right = ((metrics.get("held_out") or {}).get("accuracy") or {}).get("value")
    if right is not None and right < _OFTEN:
        lead += f" This model is right on {percent(right, 0)} only, so most of these will be errors of its own."
    body: list[object] = [_folded(shown, most=48)] if shown else []
    if rows:
        cells = [
            [
                name(one["path"], 60),
                one.get("part", ""),
                name(one["label"]),
                name(one["said"]),
                percent(one.get("confidence")),
                percent(one.get("label_probability")),
            ]
            for one in rows
        ]
        header = ["file", "part", "given", "said", "sure", "for the given class"]
        body.append(details("As a list", table(header, cells, folded=50)))
    return section("suspects", "Suspected label errors", lead, *body)


def _folded(shown: Sequence[Example], *, most: int = SHOWN) -> Html:
    """A gallery of which some show at once."""
    if len(shown) <= _FIRST:
        return gallery(shown)
    rest = shown[_FIRST:most]
    return join([gallery(shown[:_FIRST]), details(f"{len(rest)} more", gallery(rest, shown=most))])
