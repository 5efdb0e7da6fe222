"""The section that says how training went."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from pigeonholed_training.reporting import plots
from pigeonholed_training.reporting.markup import Html, Section, section, tag
from pigeonholed_training.reporting.words import counted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def curves(metrics: Mapping[str, Any], png: bytes | None) -> Section | None:
    """How training went."""
    history = metrics.get("history") or ()
    if len(history) < 2 and png is None:
        return None
    drawn = plots.curves(history) if len(history) > 1 else _drawn(png or b"")
    return section("curves", "How training went", _course(history), drawn)


def _course(history: Sequence[Mapping[str, Any]]) -> str:
    if not history:
        return "Loss should fall and level out; where the line of validation rises again, training went on too long."
    best = min(history, key=lambda one: one["validation_loss"])
    last = history[-1]
    lead = f"{counted(len(history), 'epoch')}; the loss on validation pictures was lowest after epoch {best['epoch']}"
    if last["validation_loss"] > 1.1 * best["validation_loss"]:
        return f"{lead} and rose after that: from there on pictures were learnt by heart."
    return (
        f"{lead}, near the end as it should be."
        if best["epoch"] >= 0.7 * last["epoch"]
        else f"{lead} and stayed about there."
    )


def _drawn(png: bytes) -> Html:
    data = base64.b64encode(png).decode("ascii")
    return tag(
        "div", Html(f'<img alt="curves of loss and accuracy" src="data:image/png;base64,{data}">'), class_="plot"
    )
