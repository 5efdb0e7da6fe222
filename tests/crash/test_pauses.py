"""A daemon that is stopped for a while, a database that is locked, and answers that are lost: work waits and goes on.

PIGEONHOLED_TEST_SOAK=1 (`make soak`) waits for a minute where the suite waits for a second.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults import Fault
from forking import Forker, forking
from running import FILING, Workspace, drop_twenty, environment, until, working

LONG_S = 60.0 if "PIGEONHOLED_TEST_SOAK" in os.environ else 1.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def forker() -> Iterator[Forker]:
    with forking(environment()) as forker:
        yield forker


@pytest.fixture(params=FILING, ids=str)
def workspace(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Workspace]:
    with working(tmp_path, request.param, incomplete_s=0.0, more="[batching]\nmax_batch_size = 4\n") as workspace:
        yield workspace


def _end(forker: Forker, workspace: Workspace, pid: int) -> str:
    """Wait until all is filed, and end the daemon; its log."""
    until(lambda: workspace.filed() == len(workspace.dropped), "all to be filed")
    os.kill(pid, signal.SIGTERM)
    ended = forker.end(workspace.root, pid)
    assert ended.code == 0, ended.log
    assert "Traceback" not in ended.log
    assert workspace.audit() == []
    return ended.log


def test_daemon_that_is_stopped_keeps_its_place_and_goes_on(forker: Forker, workspace: Workspace) -> None:
    drop_twenty(workspace)
    pid = forker.start(workspace.root)
    until(workspace.filed, "the first files")
    drop_twenty(workspace)
    os.kill(pid, signal.SIGSTOP)
    try:
        second = workspace.run("run", "--once")
        assert second.returncode == 69
        assert str(pid) in second.stderr
        assert "already serves" in second.stderr
        time.sleep(LONG_S)  # the daemon must sleep through it
    finally:
        os.kill(pid, signal.SIGCONT)
    _end(forker, workspace, pid)


@pytest.mark.sqlite
def test_locked_database_is_waited_for_and_no_batch_is_lost(forker: Forker, workspace: Workspace) -> None:
    drop_twenty(workspace)
    pid = forker.start(workspace.root)
    until(workspace.filed, "the first files")
    other = sqlite3.connect(workspace.database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    drop_twenty(workspace, "again/")  # originals that stay keep their names
    until(lambda: "database_lost" in workspace.said(), "the patience of SQLite, which is 5 s, to end", 60.0)
    time.sleep(LONG_S)  # the daemon must go on waiting
    other.execute("ROLLBACK")
    other.close()
    assert "database_recovered" in _end(forker, workspace, pid)


@pytest.mark.parametrize("times", [1, 3])
def test_commit_whose_answer_is_lost_is_one_row(forker: Forker, workspace: Workspace, times: int) -> None:
    """Each kind of commit is done, and then reported as failed."""
    drop_twenty(workspace)
    pid = forker.start(workspace.root, fault=Fault("lie", site="each commit", times=times, serving=True))
    log = _end(forker, workspace, pid)
    assert log.count("database_lost") >= 3  # the claims, the plans, the files


@pytest.mark.parametrize("code", ["ENOENT", "ESTALE", "EIO"])
def test_rename_that_was_done_though_it_says_failed_is_believed_by_looking(
    forker: Forker, workspace: Workspace, code: str
) -> None:
    """As a network file system answers whose reply was lost."""
    drop_twenty(workspace)
    pid = forker.start(workspace.root, fault=Fault("lie", site="each rename", code=code, serving=True))
    _end(forker, workspace, pid)
