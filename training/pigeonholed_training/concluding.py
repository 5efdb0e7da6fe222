"""The end of every judgement: a verdict, and the two files that tell of it, for programs and for people."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pigeonholed import bundle as bundles
from pigeonholed_training import runs
from pigeonholed_training.evaluation.verdict import verdict
from pigeonholed_training.reporting import page

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pigeonholed.bundle import Manifest
    from pigeonholed_training.evaluation.judged import Example
    from pigeonholed_training.runs import RunFolder

    Examples = Mapping[str, Sequence[Example]]

SPEED_S = 1.0  # for each runtime that is timed
_SUMMARY = ("n", "part", "accuracy", "macro_f1", "unsure_share")


def of_bundle(staging: Path, manifest: Manifest, content: Mapping[str, Any], examples: Examples) -> dict[str, Any]:
    """Puts metrics and report into a bundle that is being made, and the gist of them into its manifest.

    Args:
        staging: its folder.
        manifest: what its `bundle.json` shall say but for the gist.
        content: of `metrics.json` but for the verdict.
        examples: pictures to show, by kind.

    Returns:
        The content, with its verdict.

    Raises:
        OSError: the folder cannot be written.
    """
    told, report = _told(content, examples)
    held = told.get("held_out") or {}
    gist = {key: held[key] for key in _SUMMARY if key in held}
    (staging / bundles.MANIFEST).write_bytes(manifest.model_copy(update={"metrics": gist}).to_json())
    (staging / bundles.METRICS).write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (staging / bundles.REPORT).write_text(report, encoding="utf-8")
    return told


def of_folder(run: RunFolder, content: Mapping[str, Any], examples: Examples) -> dict[str, Any]:
    """The same for a folder that people look into.

    Raises:
        Misconfigured, Unavailable: it cannot be written.
    """
    told, report = _told(content, examples)
    run.write(runs.REPORT, report.encode("utf-8"))
    run.write_json(runs.METRICS, told)
    return told


def bring_out(staging: Path, run: RunFolder) -> None:
    """Copies metrics and report of a bundle to where people look for them.

    Raises:
        Misconfigured, Unavailable: the folder cannot be written.
    """
    run.write(runs.REPORT, (staging / bundles.REPORT).read_bytes())
    run.write(runs.METRICS, (staging / bundles.METRICS).read_bytes())


def _told(content: Mapping[str, Any], examples: Examples) -> tuple[dict[str, Any], str]:
    told = {**content, "verdict": verdict(content)}
    return told, page.render(told, examples)
