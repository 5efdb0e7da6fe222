"""One process at a time writes to the file of SQLite, whatever state folder and name of the file it was given."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from running import Workspace, picture, until

pytestmark = [pytest.mark.slow, pytest.mark.sqlite]


@pytest.fixture
def both(tmp_path: Path) -> tuple[Workspace, Workspace]:
    """Two services that have nothing in common but the database, which the second knows by a link."""
    first, second = (Workspace.make(tmp_path / name) for name in ("first", "second"))
    with second.config.open("a") as config:
        config.write('[database]\nurl = "sqlite:///shared.db"\n')
    (second.root / "shared.db").symlink_to(first.database)
    return first, second


def test_second_service_on_a_file_is_refused_and_told_who_has_it(both: tuple[Workspace, Workspace]) -> None:
    first, second = both
    second.drop("a.png", picture(220, 60, 40, 1))
    with first.serving() as daemon:
        daemon.await_event("service_ready")
        refused = second.run("run", "--once")
        assert refused.returncode == 69
        assert f"process {daemon.process.pid} already writes to the database" in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
        checked = second.run("check")
        assert checked.returncode == 69
        assert f"process {daemon.process.pid} already writes to the database" in checked.stdout
        undone = second.run("undo", "--last", "1")
        assert undone.returncode == 69
        assert f"process {daemon.process.pid} already writes" in undone.stderr
        assert first.run("check").returncode == 0
        first.drop("b.png", picture(220, 60, 40, 2))
        until(lambda: first.filed() == 1, "the first to go on")
        assert daemon.terminate() == 0
    done = second.run("run", "--once")
    assert done.returncode == 0, done.stderr
    assert first.filed() == 2


def test_lock_made_by_root_is_the_database_owners(both: tuple[Workspace, Workspace]) -> None:
    """An administrator who puts files back must not keep the service from starting."""
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    first, _second = both
    assert first.run("run", "--once").returncode == 0
    lock = Path(f"{first.database}.lock")
    lock.unlink()
    shutil.chown(first.database, "nobody")
    assert first.run("run", "--once").returncode == 0
    assert lock.owner() == "nobody"
    assert lock.stat().st_mode & 0o777 == 0o600
