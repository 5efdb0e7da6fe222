"""A Postgres server that is away, dies, cuts off connections or loses answers: work waits, and goes on by itself.

PIGEONHOLED_TEST_SOAK=1 (`make soak`) has it die more often.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.engine import make_url

from forking import Forker, forking
from pigeonholed.tenure import _TAKE
from proxies import proxy
from running import VARIANTS, Workspace, drop_twenty, environment, picture, until, working
from servers import HURRIED, SOON, OwnServer, own_server

TIMES = 30 if "PIGEONHOLED_TEST_SOAK" in os.environ else 3

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def forker() -> Iterator[Forker]:
    with forking(environment()) as forker:
        yield forker


@pytest.fixture(scope="module")
def server() -> Iterator[OwnServer]:
    """One that may be stopped; it runs at the start of each test."""
    with own_server() as server:
        yield server


def _made(root: Path, server: OwnServer, **more: str) -> Workspace:
    small = "[batching]\nmax_batch_size = 4\n"
    return Workspace.make(root / "work", incomplete_s=0.0, more=small, url=server.make(), **more)


def _ended(forker: Forker, workspace: Workspace, pid: int) -> str:
    """Wait until all is filed, and end the daemon; its log."""
    until(lambda: workspace.filed() >= len(workspace.dropped), "all to be filed", 120.0)
    os.kill(pid, signal.SIGTERM)
    ended = forker.end(workspace.root, pid)
    assert ended.code == 0, ended.log
    assert "Traceback" not in ended.log
    assert workspace.audit() == []
    return ended.log


def _events(workspace: Workspace) -> list[str]:
    lines = workspace.said().splitlines()
    return [json.loads(line)["event"] for line in lines if line.startswith("{") and line.endswith("}")]


def _address(workspace: Workspace) -> str:
    lines = workspace.said().splitlines()
    return str(next(json.loads(line)["address"] for line in lines if '"metrics_served"' in line))


def _ready(address: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{address}/readyz", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_server_that_is_down_at_the_start_is_waited_for_and_the_inbox_is_not_touched(
    forker: Forker, server: OwnServer, tmp_path: Path
) -> None:
    workspace = _made(tmp_path, server, listen="127.0.0.1:0")
    drop_twenty(workspace)
    there = sorted(path.name for path in workspace.inbox.rglob("*"))
    server.stop("fast")
    try:
        for command in (["run", "--once"], ["db", "current"], ["status"], ["check"], ["undo", "--last", "1"]):
            done = workspace.run(*command)
            assert done.returncode == 69, (command, done.stderr)
            assert "Traceback" not in done.stderr
            assert "l@t:m/e%in" not in done.stdout + done.stderr
            assert "l%40t" not in done.stdout + done.stderr
        pid = forker.start(workspace.root, patched=SOON)
        until(lambda: "database_awaited" in _events(workspace), "the daemon to wait")
        code, said = _ready(_address(workspace))
        assert (code, said) == (503, "starting\n")
        assert sorted(path.name for path in workspace.inbox.rglob("*")) == there
    finally:
        server.start()
    until(lambda: "service_ready" in _events(workspace), "the daemon to be ready", 60.0)
    assert until(lambda: _ready(_address(workspace))[0] == 200, "readiness", 30.0)
    _ended(forker, workspace, pid)


def test_told_to_end_while_it_waits_for_the_server_it_ends_well(
    forker: Forker, server: OwnServer, tmp_path: Path
) -> None:
    workspace = _made(tmp_path, server)
    server.stop("fast")
    try:
        pid = forker.start(workspace.root)
        until(lambda: "database_awaited" in _events(workspace), "the daemon to wait")
        os.kill(pid, signal.SIGTERM)
        ended = forker.end(workspace.root, pid)
    finally:
        server.start()
    assert ended.code == 0, ended.log
    assert "Traceback" not in ended.log


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_server_that_dies_in_mid_batch_again_and_again_loses_nothing_and_files_nothing_twice(
    forker: Forker, server: OwnServer, tmp_path: Path, variant: object
) -> None:
    small = "[batching]\nmax_batch_size = 4\n"
    with working(tmp_path, variant, incomplete_s=0.0, more=small, url=server.make()) as workspace:  # type: ignore[arg-type]
        pid = forker.start(workspace.root, patched=SOON)
        for number in range(TIMES):
            drop_twenty(workspace, f"{number}/")
            wanted = workspace.filed() + 1
            until(lambda: workspace.filed() >= wanted, "work in progress", 60.0)  # noqa: B023
            server.stop("immediate")
            drop_twenty(workspace, f"{number}b/")
            time.sleep(0.1)
            server.start()
        log = _ended(forker, workspace, pid)
    assert "database_lost" in log or "database_awaited" in log or "service_failed" in log


def test_outage_turns_readiness_red_and_it_turns_green_by_itself(
    forker: Forker, server: OwnServer, tmp_path: Path
) -> None:
    workspace = _made(tmp_path, server, listen="127.0.0.1:0")
    pid = forker.start(workspace.root, patched=SOON)
    until(lambda: "service_ready" in _events(workspace), "the daemon to be ready", 60.0)
    server.stop("fast")
    workspace.drop("a.png", picture(220, 60, 40, 1))
    until(lambda: _ready(_address(workspace)) == (503, "the database cannot be reached\n"), "a red light")
    server.start()
    until(lambda: _ready(_address(workspace))[0] == 200, "a green light", 60.0)
    assert _events(workspace).count("service_ready") == 1
    _ended(forker, workspace, pid)


def test_connections_that_are_cut_off_again_and_again_lose_nothing(
    forker: Forker, server: OwnServer, tmp_path: Path
) -> None:
    workspace = _made(tmp_path, server)
    assert workspace.url is not None
    pid = forker.start(workspace.root, patched=SOON)
    for number in range(5 * TIMES):
        drop_twenty(workspace, f"{number}/")
        time.sleep(0.05)
        server.cut_off(workspace.url)
    _ended(forker, workspace, pid)


@pytest.mark.parametrize("every", [1, 3])
def test_commit_whose_answer_the_network_loses_is_one_row(
    forker: Forker, server: OwnServer, tmp_path: Path, every: int
) -> None:
    """Each commit, until there were ten, or every third."""
    with proxy(server.port, lambda number: number % every == 0 and number <= 10 * every) as between:
        url = make_url(server.make()).set(port=between.port).render_as_string(hide_password=False)
        workspace = Workspace.make(tmp_path / "work", more="[batching]\nmax_batch_size = 4\n", url=url)
        workspace.url = make_url(url).set(port=server.port).render_as_string(hide_password=False)  # not for ourselves
        drop_twenty(workspace)
        pid = forker.start(workspace.root, patched=SOON)
        _ended(forker, workspace, pid)
        assert between.lost == 10


def test_second_daemon_on_the_database_is_refused_and_names_the_machine(
    forker: Forker, server: OwnServer, tmp_path: Path
) -> None:
    workspace = _made(tmp_path / "one", server)
    other = Workspace.make(tmp_path / "two", url=workspace.url)
    pid = forker.start(workspace.root)
    until(lambda: "service_ready" in _events(workspace), "the daemon to be ready", 60.0)
    other.drop("b.png", picture(220, 60, 40, 2))
    for arguments in ([], ["--once"]):
        refused = forker.end(other.root, forker.start(other.root, *arguments, patched=HURRIED))
        assert refused.code == 69, refused.log
        assert "a process on 127.0.0.1" in refused.log
        assert "already writes to the database" in refused.log
        assert "Traceback" not in refused.log
        (other.root / "daemon.log").unlink()
    assert (other.inbox / "b.png").exists()
    workspace.drop("a.png", picture(220, 60, 40, 1))
    _ended(forker, workspace, pid)
    assert other.run("run", "--once").returncode == 0
    assert not (other.inbox / "b.png").exists()


def test_daemon_that_was_overtaken_begins_anew_with_what_is_in_the_database(
    forker: Forker, server: OwnServer, tmp_path: Path
) -> None:
    """Another process comes between: its ids and its rows are its own."""
    workspace = _made(tmp_path, server)
    drop_twenty(workspace)
    pid = forker.start(workspace.root, patched=SOON)
    until(workspace.filed, "the first files")
    assert workspace.url is not None
    url = workspace.url
    with psycopg.connect(workspace.database, autocommit=True) as other:

        def overtakes() -> bool:
            server.cut_off(url, "pigeonholed writer%")
            return other.execute(_TAKE).fetchone() == (True,)  # type: ignore[call-overload]

        until(overtakes, "the lock of who writes")
        row = "inbox, source_path, status, arrived_at, arrival, token"
        other.execute(
            f"INSERT INTO images (id, {row}) SELECT max(id) + 1, 'other', 'x', 'vanished', now(), 'a', 't' FROM images"
        )
        other.execute("UPDATE identity SET id = id")
    drop_twenty(workspace, "later/")
    log = _ended(forker, workspace, pid)
    assert "another process has written to the database" in log
    assert log.count('"service_ready"') == 2


def test_server_that_stands_still_turns_readiness_red_and_does_not_hold_up_the_end(
    forker: Forker, server: OwnServer, tmp_path: Path
) -> None:
    """It keeps its connections and answers nothing: no timeout of the network notices."""
    workspace = _made(tmp_path, server, listen="127.0.0.1:0")
    short = {f"pigeonholed.writer.Writer.{name}": 0.5 for name in ("_SLOW_S", "_GRACE_S", "_LOOK_EVERY_S")}
    pid = forker.start(workspace.root, patched=SOON | short)
    until(lambda: "service_ready" in _events(workspace), "the daemon to be ready", 60.0)
    with server.standing_still():
        workspace.drop("a.png", picture(220, 60, 40, 1))
        until(lambda: _ready(_address(workspace)) == (503, "the database cannot be reached\n"), "a red light")
        os.kill(pid, signal.SIGTERM)
        ending = threading.Thread(target=lambda: forker.end(workspace.root, pid))
        ending.start()
        ending.join(60.0)
        assert not ending.is_alive()
    assert workspace.run("run", "--once").returncode == 0
    assert workspace.audit() == []
