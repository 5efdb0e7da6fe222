"""`report.html`: what came out of a training or an evaluation, in one file that needs nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pigeonholed_training.evaluation.verdict import verdict
from pigeonholed_training.reporting import (
    accuracy,
    behaviour,
    confusions,
    course,
    headline,
    pictures,
    provenance,
    trust,
)
from pigeonholed_training.reporting.markup import Html, details, html, join, tag
from pigeonholed_training.reporting.style import STYLE
from pigeonholed_training.reporting.words import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pigeonholed_training.evaluation.judged import Example
    from pigeonholed_training.reporting.markup import Section

_OPENED, _CLOSED = "<!--top-->", "<!--/top-->"


def render(
    metrics: Mapping[str, Any],
    examples: Mapping[str, Sequence[Example]] | None = None,
    curves_png: bytes | None = None,
) -> str:
    """The page, at most 3 MB, without scripts; whatever is not known is left out, and everything is escaped.

    Args:
        metrics: the content of `metrics.json`, also of an older one.
        examples: pictures under `sample`, `worst`, `least_certain`, `confused`, `suspects`, `blends`, `strangers` and
            `robustness`, any of which may be missing.
        curves_png: a picture of the curves, for metrics without a history to draw them from.
    """
    shown = [one for one in _sections(metrics, examples or {}, curves_png) if one is not None]
    name = html(metrics.get("name", "model"))
    head = join(
        [
            Html('<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'),
            tag("title", name),
            Html(f"<style>{STYLE}</style>"),
        ]
    )
    body = join(
        [
            _top(metrics),
            _contents(shown),
            *(Html(one) for one in shown),
        ],
        "\n",
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>{body}</body></html>\n'


def refreshed(page: str, metrics: Mapping[str, Any]) -> str:
    """The page with its top, which holds verdict and gates, made anew; a page of an older version as it is."""
    before, opened, rest = page.partition(_OPENED)
    _, closed, after = rest.partition(_CLOSED)
    return f"{before}{_top(metrics)}{after}" if opened and closed else page


def _top(metrics: Mapping[str, Any]) -> Html:
    """Between marks that no user's word can hold, since those are escaped."""
    return join([Html(_OPENED), headline.top(metrics, metrics.get("verdict") or verdict(metrics)), Html(_CLOSED)])


def _sections(
    metrics: Mapping[str, Any], examples: Mapping[str, Sequence[Example]], curves_png: bytes | None
) -> Iterator[Section | None]:
    """Pictures first, then tables, then what only some will ask for."""
    yield pictures.worst(metrics, examples)
    yield pictures.confused(metrics, examples)
    yield pictures.least_certain(metrics, examples)
    yield pictures.sample(metrics, examples)
    yield pictures.suspects(metrics, examples)
    yield accuracy.data(metrics)
    yield accuracy.parts(metrics)
    yield accuracy.classes(metrics)
    yield confusions.confusions(metrics)
    yield course.curves(metrics, curves_png)
    yield trust.reliability(metrics)
    yield trust.selective(metrics)
    yield trust.thresholds(metrics)
    yield behaviour.blends(metrics, examples)
    yield behaviour.strangers(metrics, examples)
    yield behaviour.robustness(metrics, examples)
    yield behaviour.speed(metrics)
    yield provenance.provenance(metrics)
    yield provenance.bad_files(metrics)


def _contents(sections: Sequence[Section]) -> Html:
    """Links to the sections."""
    links = [tag("a", one.title, href=f"#{one.key}") for one in sections]
    return tag("nav", details(f"On this page: {counted(len(links), 'section')}", *links)) if links else Html()
