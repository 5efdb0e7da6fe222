"""The sections that say where a model is from, and which files could not be used."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pigeonholed_training.reporting.markup import Section, details, name, section, table, tag
from pigeonholed_training.reporting.words import counted

if TYPE_CHECKING:
    from collections.abc import Mapping

    Metrics = Mapping[str, Any]


def bad_files(metrics: Metrics) -> Section | None:
    """What was passed over."""
    bad = metrics.get("bad") or ()
    if not bad:
        return None
    rows = [
        [name(one["path"], 60), name(one["reason"]), tag("td", name(one["detail"], 90), class_="words")] for one in bad
    ]
    lead = f"{counted(len(bad), 'file')} could not be used and {'was' if len(bad) == 1 else 'were'} passed over."
    return section(
        "bad-files", "Pictures passed over", lead, table(["file", "reason", tag("th", "detail", class_="words")], rows)
    )


def provenance(metrics: Metrics) -> Section | None:
    """How it was made, in enough detail to make it again."""
    facts = {
        "recipe": metrics.get("recipe"),
        "seed": metrics.get("seed"),
        "made": metrics.get("created_at"),
        "precision target": metrics.get("precision_target"),
        "pictures": metrics.get("data_fingerprint"),
        "versions": ", ".join(f"{what} {version}" for what, version in (metrics.get("versions") or {}).items()),
        "seconds": ", ".join(f"{what} {seconds:g}" for what, seconds in (metrics.get("seconds") or {}).items()),
    }
    known = [(what, value) for what, value in facts.items() if value not in {None, ""}]
    if not known:
        return None
    listed = tag("dl", *(part for what, value in known for part in (tag("dt", what), tag("dd", name(value, 300)))))
    settings = metrics.get("settings")
    whole = details("Settings of the recipe", tag("pre", json.dumps(settings, indent=1)[:20000])) if settings else ""
    lead = "The same recipe, seed and pictures give the same model again, as far as the machine allows."
    return section("provenance", "Where it is from", lead, listed, whole)
