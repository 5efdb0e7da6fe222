"""Long forms of tests: how many cases, and from which seed on."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, seed, settings

T = TypeVar("T")

SCALE = float(os.environ.get("PIGEONHOLED_TEST_SOAK", "0"))
"""0: no long forms; 1: as long as the figures of the documentation; 0.1: a tenth of that."""

SEED = int(os.environ.get("PIGEONHOLED_TEST_SEED", "0"))
"""Where the long forms begin; another one tries other cases."""

_PART, _PARTS = (int(number) for number in os.environ.get("PIGEONHOLED_TEST_PART", "1/1").split("/"))

soak = pytest.mark.skipif(SCALE <= 0, reason="a long form: set PIGEONHOLED_TEST_SOAK=1 (or a share of it)")


def cases(full: int) -> int:
    """How many of the `full` cases are to be tried."""
    return max(1, round(full * SCALE))


def part_of(all_cases: Sequence[T]) -> Sequence[T]:
    """Those of a long form that PIGEONHOLED_TEST_PART takes: 3/15 the third, the eighteenth and so on; all if unset.

    Where cases come in turns, an odd number of parts goes through all kinds of them.
    """
    return all_cases[_PART - 1 :: _PARTS]


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
