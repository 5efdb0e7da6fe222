"""`report.html`: what came out of a training, in one file that needs nothing else."""

from __future__ import annotations

import base64
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24}
h1{margin-bottom:.2rem}h2{margin-top:2rem;border-bottom:1px solid #d8dee4}
table{border-collapse:collapse}td,th{padding:.25rem .7rem;border:1px solid #d8dee4;text-align:right}
td:first-child,th:first-child{text-align:left}.verdict{font-size:1.2rem;padding:.8rem 1rem;background:#eef4ff;
border-left:.4rem solid #3b6fd4}.warn{background:#fff6e0;border-left:.4rem solid #d49a1f;padding:.4rem 1rem}
.hit{background:#dff3e3}.miss{background:#fbdfdf}img{max-width:100%}.wide{overflow-x:auto}small{color:#59636e}
@media (prefers-color-scheme:dark){body{background:#14171b;color:#e6e9ec}td,th,h2{border-color:#3a424b}
.verdict{background:#1c2840}.warn{background:#3a2f14}.hit{background:#1d3a25}.miss{background:#4a2222}small{color:#9aa4ae}}
"""
_MOST_CELLS = 30  # classes up to which the confusion table is shown whole
_METHODS = {
    "certified": "certified: promised with 95 % confidence for this class",
    "pooled": "pooled: promised with 95 % confidence over all pooled classes together",
    "best-f1": "best F1 at 95 % coverage: seen, not promised; there were too few pictures or too many errors",
}


def render(metrics: Mapping[str, Any], curves_png: bytes) -> str:
    """The page for the content of `metrics.json` and the picture of the curves; everything is escaped."""
    name = escape(str(metrics["name"]))
    parts = [
        f"<h1>{name}</h1><small>recipe {escape(str(metrics['recipe']))}, seed {metrics['seed']}, "
        f"made {escape(str(metrics['created_at']))}</small>",
        f'<p class="verdict">{verdict(metrics)}</p>',
        *[f'<p class="warn">{escape(warning)}</p>' for warning in metrics["warnings"]],
        "<h2>Pictures</h2>",
        _counts(metrics["counts"]),
        f"<small>data fingerprint {escape(str(metrics['data_fingerprint'])[:16])}</small>",
        "<h2>How much is right</h2>",
        _parts(metrics["held_out"], metrics["other_parts"]),
        "<h2>Loss and accuracy</h2>",
        f'<img alt="curves of loss and accuracy" src="data:image/png;base64,{base64.b64encode(curves_png).decode()}">',
        "<h2>Each class</h2>",
        _classes(metrics["held_out"]["classes"]),
        "<h2>Confusions</h2>",
        _confusions(metrics["labels"], metrics["held_out"]["confusion"]),
        "<h2>Thresholds</h2>",
        _thresholds(metrics["thresholds"]),
        "<h2>Calibration and runtimes</h2>",
        _calibration(metrics["calibration"], metrics["agreement"], metrics["held_out"]),
        _bad(metrics["bad"]),
    ]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{name}</title>'
    body = "\n".join(parts)
    return f'<!doctype html><html lang="en"><head>{head}<style>{_STYLE}</style></head><body>{body}</body></html>\n'


def verdict(metrics: Mapping[str, Any]) -> str:
    """The one sentence that a reader in a hurry takes away; safe to put into HTML."""
    held = metrics["held_out"]
    accuracy = held["accuracy"]
    return (
        f"{percent(accuracy['value'])} right on {accuracy['n']} pictures that training never saw "
        f"(95 % interval {percent(accuracy['lower'])} to {percent(accuracy['upper'])}). "
        f"With its thresholds {percent(held['unsure_share'])} of them are set aside as unsure, and of the others "
        f"{percent(held['sorted']['value'])} are sorted rightly. {escape(held['note'])}"
    )


def percent(share: float | None) -> str:
    """A share as text, with one decimal; a dash where there is none."""
    return "–" if share is None else f"{100 * share:.1f} %"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells that begin with `<td` are taken as they are; everything else is escaped."""
    cells = [[cell if cell.startswith("<td") else f"<td>{escape(cell)}</td>" for cell in row] for row in rows]
    top = "".join(f"<th>{escape(word)}</th>" for word in header)
    lines = "".join(f"<tr>{''.join(row)}</tr>" for row in cells)
    return f'<div class="wide"><table><tr>{top}</tr>{lines}</table></div>'


def _counts(counts: Mapping[str, Mapping[str, int]]) -> str:
    words = list(next(iter(counts.values())))
    return _table(
        ["class", *words], [[_text(label), *(str(row[word]) for word in words)] for label, row in counts.items()]
    )


def _parts(held: Mapping[str, Any], others: Mapping[str, Mapping[str, Any]]) -> str:
    """The part that judges beside those that cannot, because they were learnt from or chose the epoch."""
    shares = {f"{held['part']}: judges": held["accuracy"], "validation: chose the epoch": others["validation"]}
    shares["training: was learnt from"] = others["train"]
    rows = [
        [_text(what), str(one["n"]), f"{percent(one['value'])} ({percent(one['lower'])} to {percent(one['upper'])})"]
        for what, one in shares.items()
    ]
    return _table(["part", "pictures", "right (95 % interval)"], rows)


def _classes(classes: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [
            _text(one["label"]),
            str(one["n"]),
            percent(one["precision"]),
            f"{percent(one['recall'])} ({percent(one['recall_interval'][0])} to {percent(one['recall_interval'][1])})",
            percent(one["f1"]),
        ]
        for one in classes
    ]
    return _table(["class", "pictures", "precision", "recall (95 % interval)", "F1"], rows)


def _confusions(labels: Sequence[str], confusion: Sequence[Sequence[int]]) -> str:
    if len(labels) <= _MOST_CELLS:
        rows = [
            [_text(label), *(_cell(count, here == there) for there, count in enumerate(confusion[here]))]
            for here, label in enumerate(labels)
        ]
        return _table(["true \\ said", *labels], rows)
    pairs = sorted(
        ((count, labels[i], labels[j]) for i, row in enumerate(confusion) for j, count in enumerate(row) if i != j),
        reverse=True,
    )
    worst = [[_text(true), said, str(count)] for count, true, said in pairs[:_MOST_CELLS] if count]
    return _table(["true", "said", "pictures"], worst)


def _cell(count: int, is_hit: bool) -> str:
    kind = "hit" if is_hit else "miss"
    return f'<td class="{kind}">{count}</td>' if count else "<td></td>"


def _text(label: object) -> str:
    """A cell for a user's word: it could begin like markup."""
    return f"<td>{escape(str(label))}</td>"


def _thresholds(thresholds: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [
            _text(one["label"]),
            f"{one['value']:.4f}",
            one["method"],
            percent(one["precision"]),
            str(one["n"]),
        ]
        for one in thresholds
    ]
    used = {one["method"] for one in thresholds}
    legend = "".join(f"<br>{text}" for method, text in _METHODS.items() if method in used)
    header = ["class", "confidence from", "method", "precision", "calibration pictures"]
    return _table(header, rows) + f"<small>{legend.removeprefix('<br>')}</small>"


def _calibration(calibration: Mapping[str, Any], agreement: Mapping[str, Any], held: Mapping[str, Any]) -> str:
    return (
        f"<p>Temperature {calibration['temperature']:.3f}, fitted on {calibration['n']} pictures through "
        f"{escape(str(calibration['runtime']))} at {escape(str(calibration['precision']))}; mean -log p of the true "
        f"class {calibration['nll_before']:.4f} before and {held['nll']:.4f} after. The served probabilities differ "
        f"from those of the Keras model by at most {agreement['largest_difference']:.4f} on {agreement['n']} "
        f"pictures; the best class is the same for {percent(agreement['same_best'])}.</p>"
    )


def _bad(bad: Sequence[Mapping[str, str]]) -> str:
    if not bad:
        return ""
    rows = [[_text(one["path"]), one["reason"], _text(one["detail"])] for one in bad]
    return "<h2>Pictures passed over</h2>" + _table(["file", "reason", "detail"], rows)
