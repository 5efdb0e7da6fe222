"""The plots of the page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pigeonholed_training.reporting.drawing import FIRST, INK, SECOND, TEXT, draw, side_by_side
from pigeonholed_training.reporting.words import printable, shortened

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pigeonholed_training.reporting.markup import Html

PANEL = 350  # pixels, as wide as a phone
MOST_NAMED = 40  # classes whose names fit beside a heatmap
MOST_MAPPED = 120  # classes of a heatmap that still shows something


def curves(history: Sequence[Mapping[str, Any]]) -> Html:
    """Loss and accuracy over the epochs, for the pictures learnt from and for those of validation."""
    titles = {"loss": "Loss (cross-entropy)", "accuracy": "Share right"}
    return side_by_side(*(_course(history, what, title) for what, title in titles.items()))


def _course(history: Sequence[Mapping[str, Any]], what: str, title: str) -> Html:
    epochs = [one["epoch"] for one in history]
    marks = {"marker": "o", "ms": 3} if len(epochs) <= 40 else {}

    def paint(axes: Any) -> None:
        for key, colour, label in ((what, FIRST, "learnt from"), (f"validation_{what}", SECOND, "validation")):
            axes.plot(epochs, [one[key] for one in history], color=colour, label=label, **marks)
        axes.set(title=title, xlabel="epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend()

    return draw(PANEL, 270, f"{what} over the epochs", paint)


def reliability(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> Html:
    """How often it is right against how sure it is, before and after calibration, with 95 % intervals."""
    shown = {"Before calibration": before, "As served": after}
    bins = [one for found in shown.values() if found for one in found["bins"]]
    lowest = float(np.floor(10 * min(min(one["confidence"], one["accuracy"]) for one in bins)) / 10)
    return side_by_side(*(_reliability(one["bins"], lowest, title) for title, one in shown.items() if one))


def _reliability(bins: Sequence[Mapping[str, Any]], lowest: float, title: str) -> Html:
    def paint(axes: Any) -> None:
        _diagonal(axes, lowest)
        _bins(axes, bins)
        axes.set(title=title, xlabel="how sure it is", ylabel="how often it is right")

    return draw(PANEL, 340, f"{title}: how often it is right against how sure it is", paint)


def _diagonal(panel: Any, lowest: float) -> None:
    """Where confidences mean what they say."""
    from matplotlib.ticker import PercentFormatter

    panel.plot([0, 1], [0, 1], color=INK, lw=1, ls=(0, (4, 3)), alpha=0.7)
    panel.set(xlim=(lowest, 1.01), ylim=(max(0.0, lowest - 0.05), 1.02), aspect="equal")
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def _bins(panel: Any, bins: Sequence[Mapping[str, Any]]) -> None:
    x, y = (np.array([one[key] for one in bins], float) for key in ("confidence", "accuracy"))
    low, high = (np.array([one[key] for one in bins], float) for key in ("lower", "upper"))
    reach = np.maximum(0.0, [y - low, high - y])
    panel.errorbar(x, y, yerr=reach, fmt="o", ms=5, color=FIRST, ecolor=FIRST, elinewidth=1.2, capsize=0)


def risk_coverage(curve: Sequence[Sequence[float]], points: Mapping[str, float]) -> Html:
    """How many are wrong among the surest pictures, against how many these are."""

    def paint(axes: Any) -> None:
        from matplotlib.ticker import PercentFormatter

        coverage, risk = np.array(curve, float).T
        axes.plot(coverage, risk, color=FIRST)
        axes.fill_between(coverage, risk, color=FIRST, alpha=0.12, linewidth=0)
        top = max(0.02, 1.3 * float(risk.max()))
        _points(axes, {1.0 - float(at): share for at, share in points.items() if share}, top)
        axes.set(xlim=(0, 1), ylim=(0, top), xlabel="share that is sorted, the surest first", ylabel="of these wrong")
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))

    return side_by_side(draw(480, 290, "share wrong against share sorted", paint))


def _points(axes: Any, points: Mapping[float, float], top: float) -> None:
    """Marks how much can be sorted at some shares of errors, with words on steps that keep out of each other's way."""
    shown = sorted((share, risk) for risk, share in points.items() if risk < top)
    leftwards = sum(share for share, _ in shown) > 0.5 * len(shown)
    for step, (share, risk) in enumerate(reversed(shown) if leftwards else shown):
        height = top * (0.94 - 0.1 * step)
        axes.plot([share, share], [risk, height], color=SECOND, lw=1)
        axes.plot([share], [risk], "o", ms=6, color=SECOND, zorder=3)
        axes.annotate(
            f"{100 * (1 - risk):.0f} % right: {100 * share:.0f} % sorted",
            (share, height),
            xytext=(-5 if leftwards else 5, 0),
            textcoords="offset points",
            ha="right" if leftwards else "left",
            va="center",
        )


def heatmap(labels: Sequence[str], confusion: Sequence[Sequence[int]]) -> Html:
    """Shares of each true class by what is said; numbers where they can be read, names where they fit."""
    counts = np.array(confusion, float)
    shares = 100.0 * counts / np.maximum(1.0, counts.sum(axis=1, keepdims=True))
    names = [shortened(printable(label), 18) for label in labels] if len(labels) <= MOST_NAMED else False
    side = float(np.clip(150 + 34 * len(labels), 320, 760))

    def paint(axes: Any) -> None:
        import seaborn as sns
        from matplotlib.colors import PowerNorm

        sns.heatmap(
            shares,
            ax=axes,
            mask=counts == 0,
            norm=PowerNorm(0.5, 0, 100),  # or errors of a few percent could not be seen
            cmap=_through("#2f6fbd"),
            annot=np.where(shares >= 0.5, np.char.mod("%.0f", shares), "") if len(labels) <= 16 else None,
            fmt="",
            annot_kws={"fontsize": 11},
            cbar=len(labels) > 16,
            cbar_kws={"label": "% of the true class", "shrink": 0.6},
            square=True,
            xticklabels=names,
            yticklabels=names,
            rasterized=len(labels) > MOST_NAMED,
        )
        for text in axes.texts:
            text.set_color("#ffffff" if float(text.get_text() or 0) > 42 else TEXT)
        axes.grid(visible=False)
        axes.tick_params(length=0)
        axes.tick_params(axis="x", rotation=50)
        for tick in axes.get_xticklabels():
            tick.set(ha="right", rotation_mode="anchor")
        axes.set(xlabel="said", ylabel="true")

    return side_by_side(draw(side, side * 0.92, "confusion matrix, % of each true class", paint))


def _through(colour: str) -> Any:
    """A scale from nothing, through which the page is seen whether light or dark, to this colour."""
    from matplotlib.colors import LinearSegmentedColormap, to_rgb

    return LinearSegmentedColormap.from_list("through", [(*to_rgb(colour), 0.0), (*to_rgb(colour), 1.0)])
