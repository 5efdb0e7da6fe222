"""kill -9 at every call that changes the disk or the database: nothing lost, nothing twice.

The suite takes the first, the middle and the last call of each kind. PIGEONHOLED_TEST_SOAK=1 (`make soak`) takes every
call alone, before and after it; PIGEONHOLED_TEST_PART=3/15 a part of them.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from faults import FAULT, Fault
from forking import Forker, forking
from running import HOSTILE, RENAMING, VARIANTS, Workspace, accompanied, drop_twenty, drop_twins, environment, working
from soaking import part_of

SOAK = "PIGEONHOLED_TEST_SOAK" in os.environ
_TOGETHER = 6  # kills in the same folder, one after another, before all is judged


@pytest.fixture(scope="module")
def forker() -> Iterator[Forker]:
    with forking(environment()) as forker:
        yield forker


@pytest.fixture(
    scope="module", params=(*VARIANTS, *map(accompanied, VARIANTS if SOAK else (RENAMING, HOSTILE))), ids=str
)
def mould(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """What each kill starts from: an empty inbox and a model, no database yet."""
    # Small batches, so that turns overlap as they do under load.
    batching = "[batching]\nmax_batch_size = 4\n"
    folder = tmp_path_factory.mktemp("point")
    with working(folder, request.param, incomplete_s=0.0, more=batching, new=True) as workspace:
        yield workspace


def _drop(workspace: Workspace, folder: str = "") -> None:
    drop_twenty(workspace, folder)
    if workspace.variant.sets_aside:
        drop_twins(workspace, folder)


def _calls(forker: Forker, workspace: Workspace) -> list[str]:
    """Every call of an undisturbed run over twenty files."""
    _drop(workspace)
    ended = forker.end(workspace.root, forker.start(workspace.root, "--once", fault=Fault()))
    assert ended.code == 0, ended.log
    assert workspace.audit() == []
    return ended.calls


def _chosen(calls: Sequence[str], *, travels: bool) -> list[Fault]:
    """A kill before the first, the middle and the last call of each kind; where sidecars travel, of those for them."""
    if travels:
        calls = [site for site in calls if any(word in site for word in ("companion", "sidecars", "contents"))]
    return [
        Fault("kill", site=site, first=number)
        for site, count in Counter(calls).items()
        for number in sorted({1, (count + 1) // 2, count})
    ]


def _killed(forker: Forker, workspace: Workspace, fault: Fault) -> bool:
    """Whether the run came to the point where it dies; else it did its work."""
    ended = forker.end(workspace.root, forker.start(workspace.root, "--once", fault=fault))
    assert ended.code in {0, -signal.SIGKILL}, f"{fault.replay()}: ended with {ended.code}: {ended.log[-3000:]}"
    return ended.code != 0


def _judged(forker: Forker, workspace: Workspace, faults: Sequence[Fault]) -> list[str]:
    """What is wrong after a run to the end."""
    ended = forker.end(workspace.root, forker.start(workspace.root, "--once"))
    findings = workspace.audit() if ended.code == 0 else [f"ended with {ended.code}: {ended.log[-2000:]}"]
    if findings:
        findings.append("again: " + " or ".join(fault.replay() for fault in faults))
    return findings


@pytest.mark.slow
@pytest.mark.skipif(SOAK or FAULT is not None, reason="each call is taken alone")
def test_killed_at_calls_of_every_kind_nothing_is_lost_or_twice(
    mould: Workspace, forker: Forker, tmp_path: Path
) -> None:
    travels = mould.variant.sets_aside
    kills = _chosen(_calls(forker, mould.copy(tmp_path / "calls")), travels=travels)
    killed = 0
    for start in range(0, len(kills), _TOGETHER):
        workspace = mould.copy(tmp_path / str(start))
        together = kills[start : start + _TOGETHER]
        for number, fault in enumerate(together):
            _drop(workspace, f"{number}/")  # originals that stay keep their names
            killed += _killed(forker, workspace, fault)
        assert _judged(forker, workspace, together) == []
    print(f"{killed} kills at {len({fault.site for fault in kills})} kinds of calls")
    # Where files stay, more of the calls are those of a first start, and none is there to be killed at later.
    least = 0.5 if travels else 0.6 if mould.variant.rows_only else 0.8
    assert killed > least * len(kills) > (3 if travels else 15 if mould.variant.rows_only else 20)


@pytest.mark.slow
@pytest.mark.timeout(14_400)
@pytest.mark.skipif(not SOAK and FAULT is None, reason="every call: `make soak`, or PIGEONHOLED_TEST_SOAK=1")
def test_killed_before_and_after_every_call_nothing_is_lost_or_twice(
    mould: Workspace, forker: Forker, tmp_path: Path
) -> None:
    # What a first start does besides is killed in the first start; the rest in a second one, which tries no model.
    second = mould.copy(tmp_path / "second")
    assert forker.end(second.root, forker.start(second.root, "--once")).code == 0
    first_calls = _calls(forker, mould.copy(tmp_path / "calls"))
    first_calls = first_calls[: next(number for number, call in enumerate(first_calls) if "INSERT images" in call)]
    calls = _calls(forker, second.copy(tmp_path / "second_calls"))
    every = [
        (begun, Fault("kill", first=number, after=after))
        for begun, those in ((mould, first_calls), (second, calls))
        for number in range(1, len(those) + 1)
        for after in (False, True)
    ]
    kills = part_of(every) if FAULT is None else [(mould, FAULT), (second, FAULT)]
    findings, killed = [], 0
    for number, (begun, fault) in enumerate(kills):
        workspace = begun.copy(tmp_path / str(number))
        _drop(workspace)
        killed += _killed(forker, workspace, fault)
        findings += _judged(forker, workspace, [fault])
    print(f"{killed} kills before and after {len(first_calls)} calls of a first start and {len(calls)} of a second")
    assert findings == []
    assert killed > 0
