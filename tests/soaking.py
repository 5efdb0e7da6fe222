"""Long forms of tests: how many cases, and from which seed on."""

from __future__ import annotations

import os

import pytest

SCALE = float(os.environ.get("PIGEONHOLED_TEST_SOAK", "0"))
"""0: no long forms; 1: as long as the figures of the documentation; 0.1: a tenth of that."""

SEED = int(os.environ.get("PIGEONHOLED_TEST_SEED", "0"))
"""Where the long forms begin; another one tries other cases."""

soak = pytest.mark.skipif(SCALE <= 0, reason="a long form: set PIGEONHOLED_TEST_SOAK=1 (or a share of it)")


def cases(full: int) -> int:
    """How many of the `full` cases are to be tried."""
    return max(1, round(full * SCALE))
