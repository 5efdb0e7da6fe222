"""How `pigeonholed status` looks on a terminal. What it shows comes from a daemon of perhaps another version."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import RenderableType

Facts = dict[str, Any]
"""`Status.as_dict`, or what is recorded where no daemon runs; any key but `running` may be missing."""

_BARS = "▁▂▃▄▅▆▇█"
_ASCII_BARS = "_.:-=+*#"
_MOST_LABELS = 8
_MOST_ERRORS = 5


def render(facts: Facts, *, unicode: bool = True) -> RenderableType:
    """Everything, for a terminal."""
    if facts.get("running") is None:
        return Text(_shown(facts.get("error", "the daemon says nothing")), style="red")
    if not facts["running"]:
        return Group(Text(_shown(absence(facts))), _recorded(facts))
    parts: list[RenderableType] = [_heading(facts), _inboxes(facts), _pace(facts, unicode=unicode)]
    parts += [Text(line) for line in _labels(facts)]
    parts += [Text(line, style="yellow" if is_shifted else "") for line, is_shifted in _drifts(facts)]
    scanned = [str(inbox.get("name")) for inbox in facts.get("inboxes", []) if inbox.get("events") is False]
    if scanned:
        parts.append(Text(_shown(f"no file events, found by scans: {', '.join(scanned)}"), style="dim"))
    if facts.get("models"):
        parts.append(_models(facts))
    parts += [Text(line, style="yellow") for line in _errors(facts)]
    return Group(*parts)


def line_of(facts: Facts) -> str:
    """The whole in one line."""
    if facts.get("running") is None:
        return _shown(facts.get("error", "the daemon says nothing"))
    inboxes = facts.get("inboxes", [])
    filed = sum(inbox.get("filed", 0) for inbox in inboxes)
    if not facts["running"]:
        return _shown(f"{absence(facts)}; {filed} files are recorded as filed")
    queue = sum(facts.get("queue", {}).values())
    return f"{filed} filed since the start, {queue} waiting, {_rate(facts)}, {_eta(facts)}"


def absence(facts: Facts) -> str:
    """That no daemon runs, in a sentence."""
    if holder := facts.get("holder"):
        return (
            f"process {holder} holds the state folder but does not listen at {facts.get('socket')}: "
            "it is starting or ending, or is another command"
        )
    return "no daemon is running; this is what the database says"


def sparkline(counts: Sequence[int], bars: str = _BARS) -> str:
    """One character a count, the highest the tallest; zero is the lowest bar."""
    most = max(counts, default=0)
    return "".join(bars[0] if not count else bars[1 + (count * (len(bars) - 2)) // most] for count in counts)


def duration(seconds: float | None) -> str:
    """Seconds for people, in the two largest units."""
    if seconds is None:
        return "-"
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest_s = divmod(round(seconds), 60)
    hours, rest_min = divmod(minutes, 60)
    days, rest_h = divmod(hours, 24)
    if days:
        return f"{days} d {rest_h} h"
    if hours:
        return f"{hours} h {rest_min:02} min"
    return f"{minutes} min {rest_s:02} s" if minutes else f"{rest_s} s"


def _heading(facts: Facts) -> Text:
    words = [f"pigeonholed {facts.get('version', '?')}", f"process {facts.get('pid', '?')}"]
    words.append(f"up {duration(facts.get('uptime_s'))}")
    words += [f"{name} {address}" for name, address in facts.get("addresses", {}).items()]
    return Text(_shown(" · ".join(words)), style="bold")


def _inboxes(facts: Facts) -> Table:
    counted = _counted(facts, "filed", "sorted", "unsure", "rejected")
    table = _table("inbox", "waiting>", "oldest>", *(f"{name}>" for name in counted), "last filed")
    for inbox in facts.get("inboxes", []):
        waiting = str(inbox.get("waiting", "?")) + ("" if inbox.get("waiting_is_all", True) else " or more")
        _add(
            table,
            str(inbox.get("name")),
            waiting if inbox.get("available", True) else "MISSING",
            duration(inbox.get("oldest_wait_s")),
            *_counts(inbox, *counted),
            _moment(inbox.get("last_filed_at")),
        )
    return table


def _recorded(facts: Facts) -> Table:
    counted = _counted(facts, "filed", "sorted", "unsure", "rejected")
    table = _table("inbox", *(f"{name.replace('_', ' ')}>" for name in counted), "last filed")
    for inbox in facts.get("inboxes", []):
        _add(table, str(inbox.get("name")), *_counts(inbox, *counted), _moment(inbox.get("last_filed_at")))
    return table


def _counted(facts: Facts, *always: str) -> tuple[str, ...]:
    """The counts that get a column: the usual ones, and rare ones where there are any."""
    rare = ("duplicate", "in_flight", "returned", "lost")
    return always + tuple(name for name in rare if any(inbox.get(name) for inbox in facts.get("inboxes", [])))


def _models(facts: Facts) -> Table:
    table = _table("model", "version>", "runtime", "device", "precision", "inboxes")
    for model in facts["models"]:
        words = [str(model.get(key, "?")) for key in ("name", "version", "runtime", "device", "precision")]
        _add(table, *words, ", ".join(map(str, model.get("inboxes", []))))
    return table


def _pace(facts: Facts, *, unicode: bool) -> Text:
    queue = " · ".join(f"{stage} {count}" for stage, count in facts.get("queue", {}).items())
    bars = sparkline(facts.get("recent", []), _BARS if unicode else _ASCII_BARS)
    return Text(_shown(f"queue: {queue}") + f"\n{_rate(facts)}, {_eta(facts)}" + (f"\n{bars}" if bars else ""))


def _rate(facts: Facts) -> str:
    return f"{facts.get('rate_per_s', 0.0):.1f} images/s over the last minute"


def _eta(facts: Facts) -> str:
    eta_s = facts.get("eta_s")
    if eta_s is None:
        return "end not in sight"
    return f"done in {duration(eta_s)}" if eta_s else "nothing to do"


def _labels(facts: Facts) -> Iterable[str]:
    for inbox in facts.get("inboxes", []):
        labels = sorted(inbox.get("labels", {}).items(), key=lambda item: (-item[1], item[0]))
        if labels:
            words = [f"{label} {count}" for label, count in labels[:_MOST_LABELS]]
            words += [f"{len(labels) - _MOST_LABELS} more labels"] * (len(labels) > _MOST_LABELS)
            yield _shown(f"{inbox.get('name')}: {', '.join(words)}")


def _drifts(facts: Facts) -> Iterable[tuple[str, bool]]:
    """One line for each inbox whose model says what it was like at training, and whether it is like that no more."""
    for inbox in facts.get("inboxes", []):
        drift = inbox.get("drift") or {}
        state = drift.get("state")
        if state in {"too-few", "as-at-training", "shifted"}:
            yield _shown(f"{inbox.get('name')}: {_drift(drift)}"), state == "shifted"


def _drift(drift: Facts) -> str:
    if drift["state"] == "too-few":
        return f"{drift.get('images', 0)} pictures yet, too few to compare with training"
    found = [
        f"{title}: {_percent(shift.get('now'))} {word}{shift.get('at')}, "
        f"{_percent(shift.get('at_training'))} at training"
        for title, word, shift in (
            ("the model is less sure", "below ", drift.get("confidence") or {}),
            ("labels shifted", "", drift.get("labels") or {}),
        )
        if shift.get("shifted")
    ]
    return "; ".join(found) or "as at training"


def _percent(share: float | None) -> str:
    return "? %" if share is None else f"{100 * share:.0f} %"


def _errors(facts: Facts) -> Iterable[str]:
    for error in facts.get("errors", [])[-_MOST_ERRORS:]:
        times = f" ({error['times']} times)" if error.get("times", 1) > 1 else ""
        yield _shown(f"{_moment(error.get('at'))}  {error.get('event')}: {error.get('detail')}{times}")


def _counts(inbox: Facts, *names: str) -> list[str]:
    return [str(inbox.get(name, 0) or "-") for name in names]


def _moment(text: str | None) -> str:
    """A time of the wire as local time; without the date where that is today's."""
    if text is None:
        return "-"
    try:
        moment = datetime.fromisoformat(text).astimezone()
    except ValueError:
        return text
    today = moment.date() == datetime.now().astimezone().date()
    return moment.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S")


def _table(*names: str) -> Table:
    """A table; a name that ends with > stands for a column of numbers."""
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    for name in names:
        number = name.endswith(">")
        table.add_column(
            name.rstrip(">"),
            justify="right" if number else "left",
            overflow="fold",
            no_wrap=name not in {"inbox", "inboxes"},
        )
    return table


def _add(table: Table, *cells: str) -> None:
    """A row of plain text: names are people's, and may look like markup or upset a terminal."""
    table.add_row(*(Text(_shown(cell)) for cell in cells))


def _shown(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode("ascii") for c in text
    )
