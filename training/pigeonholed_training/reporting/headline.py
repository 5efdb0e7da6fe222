"""The top of the page: what to think of the model, for somebody with half a minute."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

from pigeonholed_training.evaluation.doubts import LEAKED, leaked
from pigeonholed_training.reporting.markup import Html, details, join, tag
from pigeonholed_training.reporting.words import bounds, counted, interval, number, percent, shortened

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_WORDS = {"good": "Good", "care": "Use with care", "bad": "Do not use"}
# The level is told by colour, by word and by the shape of the sign, so that two of them may be missed.
_SIGNS = {
    "good": '<circle cx="12" cy="12" r="11" fill="currentColor"/>'
    '<path d="M6.5 12.5l3.7 3.7 7.3-8" fill="none" stroke="var(--paper)" stroke-width="2.6"/>',
    "care": '<path d="M12 1.5L23.5 22H.5z" fill="currentColor" stroke="currentColor" stroke-linejoin="round"/>'
    '<path d="M12 8.5v6.5M12 17v2.6" stroke="var(--paper)" stroke-width="2.6"/>',
    "bad": '<path d="M7.5 1h9L23 7.5v9L16.5 23h-9L1 16.5v-9z" fill="currentColor"/>'
    '<path d="M7.5 7.5l9 9m0-9l-9 9" stroke="var(--paper)" stroke-width="2.6"/>',
}
_SHOWN = 3  # reasons that are not folded away


def top(metrics: Mapping[str, Any], verdict: Mapping[str, Any]) -> Html:
    """Title, verdict, the few numbers that matter, gates and warnings."""
    return join([_title(metrics), box(verdict), _tiles(metrics), _gates(metrics), _warnings(metrics)])


def box(verdict: Mapping[str, Any]) -> Html:
    """The verdict: sign, word, sentence and the first reasons."""
    level = verdict["level"]
    sign = Html(f'<svg viewBox="0 0 24 24" aria-hidden="true">{_SIGNS[level]}</svg>')
    return tag(
        "div",
        sign,
        tag("div", _WORDS[level], class_="word"),
        tag("p", verdict["sentence"], class_="sentence"),
        *_reasons(verdict["reasons"]),
        class_=f"verdict {level}",
    )


def _reasons(reasons: Sequence[str]) -> list[Html]:
    def points(some: Sequence[str]) -> Html:
        return tag("ul", *(tag("li", one) for one in some))

    if not reasons:
        return []
    if len(reasons) <= _SHOWN + 1:
        return [points(reasons)]
    return [
        points(reasons[:_SHOWN]),
        details(counted(len(reasons) - _SHOWN, "more point"), points(reasons[_SHOWN:])),
    ]


def _title(metrics: Mapping[str, Any]) -> Html:
    parts = (
        ("recipe", metrics.get("recipe")),
        ("seed", metrics.get("seed")),
        ("made", _when(metrics.get("created_at"))),
    )
    made = ", ".join(f"{what} {value}" for what, value in parts if value not in {None, ""})
    return tag("header", tag("h1", metrics.get("name", "model")), tag("p", made))


def _when(iso: object) -> str:
    """`2026-01-31 07:30 UTC`; what is no time stays as it is."""
    try:
        return f"{datetime.datetime.fromisoformat(str(iso)).astimezone(datetime.UTC):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return str(iso or "")


def _tiles(metrics: Mapping[str, Any]) -> Html:
    """Right, sorted without asking, set aside, judged on."""
    held = metrics.get("held_out") or {}
    accuracy, filed, unsure = held.get("accuracy"), held.get("sorted"), held.get("unsure_share")
    known = leaked(metrics)
    tiles = []
    if accuracy:
        majority = held.get("majority")
        blind = None if majority is None else f"without looking: {percent(majority, 0)}"
        tiles.append(_tile(percent(accuracy["value"]), "right", _interval("95 % interval ", accuracy), blind))
    if filed and unsure is not None:
        rightly = f"{percent(filed['value'])} of these rightly" if filed["n"] else None
        tiles += [
            _tile(percent(1.0 - unsure), "sorted without asking", rightly, _interval("", filed)),
            _tile(percent(unsure), "set aside as unsure", "for somebody to look at"),
        ]
    if accuracy:
        of = f"{held.get('part', 'test')} part, never learnt" if not known else f"{percent(known, 0)} of them learnt"
        tiles.append(_tile(number(accuracy["n"]), "pictures judge it", of))
    doubted = "tiles doubted" if known >= LEAKED else "tiles"
    return tag("ul", *tiles, class_=doubted) if tiles else Html()


def _tile(figure: str, what: str, *more: object) -> Html:
    return tag("li", tag("b", figure), tag("span", what, class_="what"), *(tag("span", one) for one in more if one))


def _interval(what: str, share: Mapping[str, Any]) -> Html | None:
    """The bounds in one piece: a dash is where browsers like to break lines."""
    reach = bounds(share)
    return join([what, tag("span", interval(reach), class_="whole")]) if reach else None


def _gates(metrics: Mapping[str, Any]) -> Html:
    """What was asked of it, and whether it does that."""
    lines = [_gate(gate) for gate in metrics.get("gates") or ()]
    return tag("ul", *lines, class_="gates") if lines else Html()


def _gate(gate: Mapping[str, Any]) -> Html:
    level, words = {True: ("good", "✓ met"), False: ("bad", "✗ failed"), None: ("care", "? not judged")}[
        gate.get("met")
    ]
    asked = f"{gate.get('gate')}: wanted {gate.get('wanted')}, got {gate.get('got')}."
    return tag("li", tag("b", words), tag("span", f"{asked} {gate.get('says') or ''}"), class_=level)


def _warnings(metrics: Mapping[str, Any]) -> Html:
    lines = [tag("li", shortened(str(warning), 500)) for warning in (metrics.get("warnings") or ())[:20]]
    return tag("div", tag("b", "Worth knowing"), tag("ul", *lines), class_="notes") if lines else Html()
