"""Durations as people write them: 90s, 10m, 1.5h."""

from __future__ import annotations

import re

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(text: str) -> float:
    """Seconds of `90`, `90s`, `10m` or `1.5h`.

    Raises:
        ValueError: it is nothing of that kind, or not above 0.
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([smh]?)", text.strip().lower())
    if match is None or float(match[1]) <= 0:
        raise ValueError(f"{text!a} is no duration such as 90s, 10m or 1.5h")
    return float(match[1]) * _UNITS[match[2]]
