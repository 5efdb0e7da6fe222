"""The sections that say how much is right: of each part and of each class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pigeonholed_training.evaluation.doubts import LEAKED, leaked
from pigeonholed_training.reporting.markup import Html, Section, details, html, join, name, section, table, tag
from pigeonholed_training.reporting.words import bounds, counted, interval, number, percent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Metrics = Mapping[str, Any]

_PARTS = {"validation": "validation: chose the epoch", "train": "training: was learnt from"}


def data(metrics: Metrics) -> Section | None:
    """Pictures of each class in each part."""
    counts = metrics.get("counts")
    if not counts:
        return None
    words = list(next(iter(counts.values())))
    totals = {label: sum(row.values()) for label, row in counts.items()}
    lead = join(
        [
            f"{counted(sum(totals.values()), 'picture')} of {counted(len(counts), 'class')}; each part of them serves "
            "one purpose only. ",
            *_extremes(totals),
        ]
    )
    rows = [
        [name(label), *(number(row.get(word, 0)) for word in words), number(totals[label])]
        for label, row in counts.items()
    ]
    whole = [
        [
            "all",
            *(number(sum(row.get(word, 0) for row in counts.values())) for word in words),
            number(sum(totals.values())),
        ]
    ]
    mark = str(metrics.get("data_fingerprint", ""))
    note = tag("p", "Fingerprint of the pictures: ", tag("code", mark), class_="aside") if mark else ""
    return section("data", "Pictures", lead, table(["class", *words, "all"], whole + rows), _leaks(metrics), note)


def _extremes(totals: Mapping[str, int]) -> Sequence[object]:
    """The smallest and the largest class."""
    least, most = min(totals, key=totals.__getitem__), max(totals, key=totals.__getitem__)
    if totals[least] == totals[most]:
        return [f"Every class has {number(totals[most])}."]
    return [
        "Most are of ",
        name(most),
        f" ({number(totals[most])}), fewest of ",
        name(least),
        f" ({number(totals[least])}).",
    ]


def _leaks(metrics: Metrics) -> Html:
    """Pictures that judge and were learnt from."""
    leaks = metrics.get("leaks")
    if not leaks:
        return Html()
    seen, alike = leaks.get("seen") or 0, leaks.get("alike") or 0
    if not seen + alike:
        return tag(
            "p",
            f"None of {number(leaks['checked'])} judging pictures was learnt from, nor one like it.",
            class_="aside",
        )
    pairs = [[name(one, 60), tag("td", name(known, 60), class_="words")] for one, known in leaks.get("examples") or ()]
    says = (
        f"Of {number(leaks['checked'])} judging pictures {number(seen)} were learnt from byte for byte and "
        f"{number(alike)} nearly."
    )
    shown = details("Some of them", table(["judging", tag("th", "learnt", class_="words")], pairs)) if pairs else Html()
    return join([tag("p", tag("b", says)), shown])


def parts(metrics: Metrics) -> Section | None:
    """The part that judges beside those that cannot, and the totals over the classes."""
    held = metrics.get("held_out") or {}
    if not held.get("accuracy"):
        return None
    others = metrics.get("other_parts") or {}
    shares = {f"{held.get('part', 'test')}: judges": held["accuracy"]}
    shares |= {words: others[part] for part, words in _PARTS.items() if others.get(part)}
    rows = [[what, number(one["n"]), percent(one["value"]), interval(bounds(one))] for what, one in shares.items()]
    known = (others.get("train") or {}).get("value")
    gap = "" if known is None else f" It gets {percent(known)} right of those it learnt from, which proves nothing."
    lead = (
        f"Only the first line counts: {percent(held['accuracy']['value'])} right on pictures that served nothing but "
        f"judging.{gap}"
    )
    if leaked(metrics) >= LEAKED:
        lead = f"Not even the first line counts: pictures that judge were learnt from.{gap}"
    elif held.get("part") == "calibration":
        lead = f"Only the first line counts. {held.get('note', '')}{gap}"
    totals = {
        "balanced_accuracy": "share right, each class weighing the same",
        "macro_precision": "precision, mean of the classes",
        "macro_recall": "recall, mean of the classes",
        "macro_f1": "F1, mean of the classes",
        "majority": "by always saying the most frequent class",
    }
    more = [
        [words, percent(held[key]), interval(held.get(f"{key}_interval"))]
        for key, words in totals.items()
        if held.get(key) is not None
    ]
    return section(
        "parts",
        "How much is right",
        lead,
        table(["part", "pictures", "right", "95 % interval"], rows),
        details("Other totals", table(["of the judging part", "value", "95 % interval"], more)) if more else "",
    )


def classes(metrics: Metrics) -> Section | None:
    """Precision, recall and F1 of each class; the worst first where there are many."""
    every = (metrics.get("held_out") or {}).get("classes")
    if not every:
        return None
    ordered = sorted(every, key=lambda one: one.get("f1") or 0.0) if len(every) > 12 else every
    rows = [
        [
            name(one["label"]),
            number(one["n"]),
            *(_with_interval(one, key) for key in ("recall", "precision", "f1")),
        ]
        for one in ordered
    ]
    worst = min(every, key=lambda one: one.get("f1") or 0.0)
    lead = join(
        [
            "Found: how many of a class are recognised. Trusted: how many of those said to be of the class are. The "
            "weakest is ",
            name(worst["label"]),
            f" ({percent(worst.get('recall'))} found, {percent(worst.get('precision'))} trusted).",
        ]
    )
    header = ["class", "pictures", "found (recall)", "trusted (precision)", "F1"]
    return section("classes", "Each class", lead, table(header, rows))


def _with_interval(one: Mapping[str, Any], key: str) -> Html:
    reach = one.get(f"{key}_interval") if one.get(key) is not None else None
    return join([percent(one.get(key)), tag("small", " ", interval(reach))]) if reach else html(percent(one.get(key)))
