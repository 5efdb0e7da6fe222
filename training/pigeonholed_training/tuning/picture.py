"""The picture of a search: how the loss fell trial by trial, and how it hangs on each thing that was changed."""

from __future__ import annotations

import itertools
import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_BEST, _DONE, _ENDED, _OWN = "#d1495b", "#30638e", "#9aa5b1", "#2e8b57"
_SHOWN = 8  # things that get a panel, those that matter most
_WIDEST = 3.0  # times the loss of the recipe; what is above stands at the rim, or it would press all else flat
_LOSS = "validation loss [nats]"


@dataclass(frozen=True, slots=True)
class _Point:
    """A trial in the picture.

    Attributes:
        number: of the trial.
        loss: of one that was ended early, the last that was seen of it; infinite where none was.
        is_done: or ended early.
        is_best: of all.
        values: what it tried.
    """

    number: int
    loss: float
    is_done: bool
    is_best: bool
    values: Mapping[str, Any]


def draw(found: Mapping[str, Any], path: Path) -> None:
    """Writes a PNG: on the left the losses trial by trial, on the right against each thing that was searched.

    Args:
        found: the content of `tune.json`, with at least one trial.
        path: where to.

    Raises:
        OSError: `path` cannot be written.
    """
    import seaborn

    points = [_point(trial, found["best"]) for trial in found["trials"]]
    limits = _limits(points)
    importances = found["importances"] or {}
    space = sorted(found["space"], key=lambda one: -importances.get(one["name"], 0.0))[:_SHOWN]
    columns = math.ceil(len(space) / 2)
    with seaborn.axes_style("whitegrid", {"grid.color": "#e8e8e8", "axes.edgecolor": "#999999"}):
        figure = _figure(5.4 + 2.3 * columns, 4.8)
        left, right = figure.subfigures(1, 2, width_ratios=[5.4, 2.3 * columns])
        axes = left.add_subplot()
        _course(axes, points, limits)
        axes.set_title(f"{found['name']}: {len(points)} trials of {found['recipe']}", fontsize=11, parse_math=False)
        panels = right.subplots(-(-len(space) // columns), columns, squeeze=False, sharey=True).ravel()
        for axes, one in zip(panels, space, strict=False):
            _slice(axes, points, one, importances.get(one["name"]))
            axes.set_ylim(*limits)
        for axes in panels[len(space) :]:
            axes.set_visible(False)
        right.supylabel(_LOSS, fontsize=9)
        if importances:
            right.suptitle("what was searched, and how much of the loss hangs on it", fontsize=10)
    figure.savefig(path, format="png", dpi=120)


def _figure(width: float, height: float) -> Any:
    """A figure without a window system; not through pyplot, which would keep it in a global list."""
    with warnings.catch_warnings():
        # A first run may be told that the font cache is being made; nothing that a user can act on.
        warnings.simplefilter("ignore")
        from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _point(trial: Mapping[str, Any], best: int | None) -> _Point:
    is_done = trial["loss"] is not None
    loss = trial["loss"] if is_done else [math.inf, *trial["losses"]][-1]
    return _Point(trial["number"], loss, is_done, trial["number"] == best, trial["values"])


def _limits(points: Sequence[_Point]) -> tuple[float, float]:
    """Of the axis of losses."""
    seen = [point.loss for point in points if math.isfinite(point.loss)] or [1.0]
    # The first is the recipe as it is.
    widest = _WIDEST * (points[0].loss if math.isfinite(points[0].loss) else min(seen))
    highest = max((loss for loss in seen if loss <= widest), default=widest)
    room = 0.06 * (highest - min(seen)) or 0.05 * highest or 0.01
    return min(seen) - room, highest + room


def _course(axes: Any, points: Sequence[_Point], limits: tuple[float, float]) -> None:
    """Loss against trial: what was done and what was ended early, the best so far, and the recipe as it is."""
    for is_done, label in ((True, "done"), (False, "ended early")):
        some = [point for point in points if point.is_done is is_done]
        if some:
            _scatter(axes, [point.number for point in some], some, limits, label=label)
    if any(point.loss > limits[1] for point in points):
        axes.scatter([], [], s=34, color=_DONE, marker="^", label="above the picture")
    if any(point.is_done for point in points):
        losses = itertools.accumulate((point.loss if point.is_done else math.inf for point in points), min)
        known = [(point.number, loss) for point, loss in zip(points, losses, strict=True) if math.isfinite(loss)]
        steps = [*known, (len(points) + 0.5, known[-1][1])]
        axes.step(*zip(*steps, strict=True), where="post", color=_BEST, lw=1.5, label="best so far")
    if points[0].is_done:
        axes.axhline(points[0].loss, color=_OWN, ls="--", lw=1.2, label="the recipe as it is")
    axes.set(xlabel="trial", ylabel=_LOSS, xlim=(0.5, max(len(points), 2) + 0.5), ylim=limits)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(fontsize=8, framealpha=0.9)


def _slice(axes: Any, points: Sequence[_Point], one: Mapping[str, Any], importance: float | None) -> None:
    """Loss against one thing; the dashed line is what the recipe has."""
    name, choices = one["name"], one.get("choices")

    def place(value: Any) -> float:
        return float(choices.index(value) if choices else value)

    limits = _limits(points)
    for is_done in (False, True):
        some = [point for point in points if point.is_done is is_done]
        _scatter(axes, [place(point.values[name]) for point in some], some, limits)
    axes.axvline(place(one["own"]), color=_OWN, ls="--", lw=1.0)
    if choices:
        words = [f"{value:g}" if isinstance(value, float) else str(value) for value in choices]
        axes.set_xticks(range(len(choices)), words, rotation=30 if max(map(len, words)) > 5 else 0)
        axes.set_xlim(-0.5, len(choices) - 0.5)
    else:
        axes.set_xscale("log" if one["log"] else "linear")
        axes.set_xlim(*_sides(one))
        axes.xaxis.minorticks_off()
    said = f"{name}, times" if one["times"] else name
    axes.set_title(said if importance is None else f"{said} ({100 * importance:.0f} %)", fontsize=9)
    axes.tick_params(labelsize=7)


def _sides(one: Mapping[str, Any]) -> tuple[float, float]:
    """Of the axis of a range, all of which is shown: where nothing was tried is worth seeing too."""
    low, high = one["low"], one["high"]
    if one["log"]:
        room = (high / low) ** 0.04
        return low / room, high * room
    room = 0.04 * (high - low)
    return low - room, high + room


def _scatter(
    axes: Any, places: Sequence[float], points: Sequence[_Point], limits: tuple[float, float], label: str = ""
) -> None:
    """Points of one kind; the best of all has a ring, and what is beyond the rim is an arrow at it."""
    for place, point in zip(places, points, strict=True):
        beyond = point.loss > limits[1]
        axes.scatter(
            place,
            min(point.loss, limits[1]),
            s=34,
            color=_DONE if point.is_done else _ENDED,
            marker="^" if beyond else "o" if point.is_done else "x",
            clip_on=False,
            zorder=3 if point.is_done else 2,
            label=label,
        )
        label = ""  # one entry in the legend for all
        if point.is_best:
            ring = {"facecolors": "none", "edgecolors": _BEST, "linewidths": 1.8}
            axes.scatter(place, point.loss, s=130, zorder=4, **ring)
