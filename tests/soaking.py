"""Long forms of tests: how many cases, and from which seed on."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, seed, settings

SCALE = float(os.environ.get("PIGEONHOLED_TEST_SOAK", "0"))
"""0: no long forms; 1: as long as the figures of the documentation; 0.1: a tenth of that."""

SEED = int(os.environ.get("PIGEONHOLED_TEST_SEED", "0"))
"""Where the long forms begin; another one tries other cases."""

soak = pytest.mark.skipif(SCALE <= 0, reason="a long form: set PIGEONHOLED_TEST_SOAK=1 (or a share of it)")


def cases(full: int) -> int:
    """How many of the `full` cases are to be tried."""
    return max(1, round(full * SCALE))


def examples(few: int, full: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """How many examples Hypothesis makes: `few` in the suite, the same ones each time, or `full` in the long form."""

    def decorate(test: Callable[..., Any]) -> Callable[..., Any]:
        chosen = settings(
            max_examples=cases(full) if SCALE > 0 else few,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        return seed(SEED)(chosen(test))

    return decorate
