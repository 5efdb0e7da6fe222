"""kill -9 at random moments under load: nothing lost, nothing twice, nobody blamed."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from arrivals import drop_some
from forking import Forker, forking
from running import LOOKING, RENAMING, VARIANTS, Variant, Workspace, environment, until, working

KILLS = int(os.environ.get("PIGEONHOLED_TEST_KILLS", "40"))
"""In all: files that are renamed take two fifths of them, each way of copying a fifth; and a tenth more."""
SHARES = {RENAMING: 0.4, LOOKING: 0.1}


@pytest.fixture(params=VARIANTS, ids=str)
def variant(request: pytest.FixtureRequest) -> Variant:
    """How files come into the daemon's hands."""
    variant: Variant = request.param
    return variant


@pytest.fixture
def workspace(tmp_path: Path, variant: Variant) -> Iterator[Workspace]:
    with working(tmp_path, variant) as workspace:
        yield workspace


@pytest.fixture(scope="module")
def forker() -> Iterator[Forker]:
    with forking(environment()) as forker:
        yield forker


@pytest.mark.slow
@pytest.mark.timeout(240 + KILLS * 5)
def test_kill_at_random_moments_loses_nothing_and_files_nothing_twice(
    workspace: Workspace, variant: Variant, forker: Forker
) -> None:
    kills = max(1, int(KILLS * SHARES.get(variant, 0.2)))
    seed = int(os.environ.get("PIGEONHOLED_TEST_SEED", str(random.SystemRandom().randrange(10**6))))
    print(f"PIGEONHOLED_TEST_SEED={seed} PIGEONHOLED_TEST_KILLS={KILLS}")
    moments = random.Random(seed)
    number = 0
    for _ in range(kills):
        earlier = workspace.log_size
        pid = forker.start(workspace.root)
        # Some die while they start and recover, most at work, however busy the machine is.
        if moments.random() < 0.7:
            until(partial(workspace.is_ready, earlier), "the daemon to be ready")
            ends_s = time.monotonic() + moments.uniform(0.0, 0.6)
        else:
            ends_s = time.monotonic() + moments.uniform(0.05, 0.9)
        while time.monotonic() < ends_s:
            number += drop_some(workspace, moments, number)
            time.sleep(moments.uniform(0, 0.03))  # load, not waiting: arrivals come in bursts and pauses
        forker.kill(workspace.root, pid)
    done = workspace.run("run", "--once", timeout_s=120 + number / 20)  # all of it may still be there
    assert done.returncode == 0, (seed, done.stderr[-3000:])
    assert workspace.audit() == [], seed
    assert len(workspace.dropped) == number > kills * 5
