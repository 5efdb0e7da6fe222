"""kill -9 of `reclassify` at calls of every kind: each file is where its row says, whatever the next process is."""

from __future__ import annotations

import signal
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from bundles import make_bundle
from faults import Fault
from forking import Forker, forking
from running import Workspace, drop_twenty, environment

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def forker() -> Iterator[Forker]:
    with forking(environment()) as forker:
        yield forker


@pytest.fixture
def workspace(tmp_path: Path, forker: Forker) -> Workspace:
    """Twenty files that the first version has filed; the second calls cats dogs."""
    workspace = Workspace.make(tmp_path / "work", more="[batching]\nmax_batch_size = 4\n")
    drop_twenty(workspace)
    assert forker.end(workspace.root, forker.start(workspace.root, "--once")).code == 0
    make_bundle(workspace.root / "second", labels=("dog", "cat"), publish_into=workspace.root / "models")
    return workspace


def versions(workspace: Workspace) -> set[int]:
    with closing(sqlite3.connect(f"file:{workspace.database}?mode=ro", uri=True)) as connection:
        found = connection.execute("SELECT DISTINCT model_version FROM images WHERE label IS NOT NULL").fetchall()
    return {version for (version,) in found}


def test_killed_at_calls_of_every_kind_nothing_is_lost_or_twice(workspace: Workspace, forker: Forker) -> None:
    root = workspace.root

    def reclassified(version: int, fault: Fault | None = None) -> tuple[int, list[str]]:
        ended = forker.end(root, forker.start(root, "--version", str(version), fault=fault, command="reclassify"))
        assert ended.code in {0, -signal.SIGKILL}, ended.log[-3000:]
        return ended.code, ended.calls

    _code, calls = reclassified(2, Fault())
    assert workspace.audit() == []
    of_moves = Counter(call for call in calls if call.startswith("refiling.") or "images" in call)
    assert {call.partition(":")[2] for call in of_moves} >= {"renameat2", "mkdir", "fsync"}, of_moves
    kills = [
        Fault("kill", site=site, first=number, after=after)
        for site, count in of_moves.items()
        for number, after in ((1, False), (count, True))
    ]
    killed, version = 0, 1
    for number, fault in enumerate(kills):
        code, _calls = reclassified(version, fault)
        killed += code != 0
        if number % 3 == 0:  # the service is started first, and takes it up
            assert forker.end(root, forker.start(root, "--once")).code == 0
            assert workspace.audit() == [], fault.replay()
        reclassified(version)
        assert workspace.audit() == [], fault.replay()
        assert versions(workspace) == {version}
        version = 3 - version
    print(f"{killed} kills at {len(of_moves)} kinds of calls")
    assert killed > 0.7 * len(kills) > 6
