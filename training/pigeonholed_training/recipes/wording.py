"""How faults in a recipe are told: which setting, what is wrong, what is allowed, and the nearest word."""

from __future__ import annotations

import difflib
import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

KINDS = ("stack", "groups", "transfer")
_MOST_LISTED = 14
_SHOWN = 60  # characters of a value

_MUST_BE = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a smaller number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "string_pattern_mismatch": "text without control characters and slashes",
    "string_too_short": "text",
    "string_too_long": "a shorter text",
    "tuple_type": "a list",
    "too_long": "a shorter list",
    "model_type": "a table of settings",
    "dict_type": "a table of settings",
    "dataclass_type": "a table of settings",
    "greater_than": "above {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "below {lt}",
    "less_than_equal": "at most {le}",
    "union_tag_invalid": "one of " + ", ".join(KINDS),
}


def nearest(given: str, known: Sequence[str]) -> str:
    """How a message about a wrong word ends: with the word that was meant, else with all that there are.

    A dotted key is also known by its last part.
    """
    parts = {key.rpartition(".")[2]: key for key in reversed(known)}
    by_fold = parts | {key: key for key in known}
    close = difflib.get_close_matches(given.casefold().replace("_", "-"), _dashed(by_fold), n=1, cutoff=0.6)
    if close:
        return f"; did you mean {_dashed(by_fold)[close[0]]}?"
    more = f" and {len(known) - _MOST_LISTED} more" if len(known) > _MOST_LISTED else ""
    return f"; there are: {', '.join(known[:_MOST_LISTED])}{more}"


def faults(error: ValidationError, known: Sequence[str]) -> list[str]:
    """Each fault as one clause, without a full stop.

    Args:
        error: of a `Recipe`.
        known: the dotted keys that there are, for the nearest.
    """
    return [_clause(one, known) for one in error.errors(include_url=False)]


def sentence(subject: str, clauses: Sequence[str]) -> str:
    """One sentence for one fault; for several a line each."""
    if len(clauses) == 1:
        return ended(f"{subject}: {clauses[0]}")
    return "\n  ".join([f"{subject}, {len(clauses)} faults:", *clauses])


def ended(text: str) -> str:
    """The text with a full stop, unless it is a question."""
    return text if text.endswith("?") else f"{text}."


def shown(value: object) -> str:
    """A value about as TOML writes it, on one line and cut to a readable length."""
    text = json.dumps(value, default=str, ensure_ascii=True)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _dashed(words: dict[str, str]) -> dict[str, str]:
    return {word.casefold().replace("_", "-"): meant for word, meant in words.items()}


def _clause(one: ErrorDetails, known: Sequence[str]) -> str:
    kind, context = one["type"], one.get("ctx", {})
    if kind == "json_invalid":  # all else is written by ourselves
        return "it holds bytes that are no text in UTF-8"
    parts = [str(part) for part in one["loc"]]
    if parts[:1] == ["network"]:
        parts[1:2] = [] if parts[1:2] and parts[1] in KINDS else parts[1:2]
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        parts.append("kind")
    key = ".".join(parts)
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"there is no setting {key[:_SHOWN]!a}{nearest(key, known)}"
    if kind in ("missing", "union_tag_not_found"):
        allowed = f"; it must be one of {', '.join(KINDS)}" if key == "network.kind" else ""
        return f"{key} is missing{allowed}"
    if kind == "value_error":
        said = str(context.get("error", one["msg"]))
        return f"{key}: {said}" if key else said
    if kind == "literal_error":
        must = "one of " + ", ".join(re.findall(r"'([^']*)'", str(context.get("expected"))))
    else:
        must = _MUST_BE.get(kind, "").format(**_plain(context))
    given: Any = one["input"]
    if kind == "union_tag_invalid":
        given = context.get("tag")
    return f"{key} must be {must}, not {shown(given)}" if must else f"{key}: {one['msg'].lower()}"


def _plain(context: dict[str, Any]) -> dict[str, Any]:
    """Limits as people write them: 1 rather than 1.0."""
    return {name: f"{value:g}" if isinstance(value, float) else value for name, value in context.items()}
