"""Every call of a daemon fails in every way that a machine can fail: it goes on by itself, and nothing is lost.

The suite gives one error at a time to every call at once, the first time that it is made: every error where files are
renamed, and one for each way of copying. PIGEONHOLED_TEST_SOAK=1 (`make soak`) takes every error for every way, and has
what takes up the work of a service that failed fail as well; then it gives each error to each call alone, once and
three times in a row: at work, at the start, and at the start after a kill. PIGEONHOLED_TEST_CODES="EIO ENOSPC" takes
only these errors, PIGEONHOLED_TEST_SITES=claiming only calls whose names begin so, PIGEONHOLED_TEST_PART=3/15 only
the third of fifteen parts of these thousands: each goes through all kinds of calls, for an odd number of parts.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from faults import FAULT, Fault
from forking import Ended, Forker, forking
from pigeonholed.control import ask
from pigeonholed.errors import UserError
from running import (
    HOSTILE,
    KEEPING,
    LOOKING,
    OTHER_MOUNT,
    RENAMING,
    VARIANTS,
    Workspace,
    drop_twenty,
    environment,
    until,
    working,
)
from soaking import part_of

SOAK = "PIGEONHOLED_TEST_SOAK" in os.environ
CODES = os.environ.get(
    "PIGEONHOLED_TEST_CODES", "ENOSPC EIO EROFS EXDEV EMFILE EACCES ENOENT EEXIST ESTALE EDQUOT EINTR"
).split()
SITES = os.environ.get("PIGEONHOLED_TEST_SITES", "")
SHORTER = {
    "pigeonholed.claiming._BLOCKED_S": 0.3,  # a folder that files could not be taken out of
    "pigeonholed.pipeline._LONGEST_WAIT_S": 0.1,  # a stage that waits for a fault to pass
    "pigeonholed.supervising.Supervisor._FIRST_PAUSE_S": 0.02,  # a service that a fault has ended
    "pigeonholed.supervising.Supervisor._LONGEST_PAUSE_S": 0.05,
}
REFUSALS = {69, 78}  # how a daemon may end that cannot start
DEADLINE_S = 300.0
AT_REST = {"owner", "lock"}


@pytest.fixture(scope="module")
def forker() -> Iterator[Forker]:
    with forking(environment()) as forker:
        yield forker


@pytest.fixture(scope="module", params=VARIANTS, ids=str)
def mould(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """What each fault starts from: an empty inbox and a model; no database yet, where a start can fail."""
    batching = "[batching]\nmax_batch_size = 4\n"
    folder, new = tmp_path_factory.mktemp("error"), SOAK or FAULT is not None  # else nothing fails at the start
    with working(folder, request.param, incomplete_s=0.0, more=batching, new=new) as workspace:
        yield workspace


SHORT_FORM = {RENAMING: CODES, HOSTILE: ["EIO"], OTHER_MOUNT: ["ENOENT"], KEEPING: ["EEXIST"], LOOKING: ["EIO"]}
"""The errors that the suite tries of each way: the ways of copying have most of their calls in common."""


def _is_at_rest(workspace: Workspace) -> bool:
    """All is filed, and nothing that was needed for it is left."""
    if workspace.filed() < len(workspace.dropped):
        return False
    work = (
        workspace.root if workspace.variant.rows_only else workspace.output
    )  # none is made: the state folder stands in
    return {*os.listdir(work / ".pigeonholed")} == AT_REST


def _lives(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def _wait(pid: int, come: Callable[[], bool]) -> None:
    """Wait for something, the end of the daemon or the deadline; what came of it is judged by others."""
    ends_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < ends_s and _lives(pid) and not come():
        time.sleep(0.02)


def _end(forker: Forker, workspace: Workspace, pid: int) -> Ended:
    """Tell a daemon to end, if it lives."""
    if _lives(pid):
        os.kill(pid, signal.SIGTERM)
    return forker.end(workspace.root, pid)


def _serve(forker: Forker, workspace: Workspace, fault: Fault) -> Ended:
    """A daemon that meets a fault and what is there, until all is filed or it has ended by itself."""
    earlier = workspace.log_size  # what a process that was killed has left is not said of this one
    pid = forker.start(workspace.root, fault=fault, patched=SHORTER)
    # Ready as well, for it may find nothing to do, and before it takes up its work it knows no signals.
    _wait(pid, lambda: workspace.is_ready(earlier) and _is_at_rest(workspace))
    ended = _end(forker, workspace, pid)
    return replace(ended, log=workspace.said(earlier))


def _faults_of(ended: Ended, workspace: Workspace) -> list[str]:
    """What was wrong with a daemon that met a fault."""
    started = '"service_ready"' in ended.log
    findings = []
    if "Traceback" in ended.log:
        findings.append(f"a traceback: {ended.log[ended.log.index('Traceback') :][-1500:]}")
    if ended.code != 0 and (started or ended.code not in REFUSALS):
        findings.append(f"it ended with {ended.code}: {_end_of(ended.log)}")
    if '"file_lost"' in ended.log:
        findings.append("it called a file lost")
    if not findings and started:
        findings += workspace.audit()
    return findings


def _end_of(log: str) -> str:
    """The last words of a daemon."""
    return log.rstrip().rpartition("\n")[2][:300]


def _judged(forker: Forker, workspace: Workspace, fault: Fault, ended: Ended) -> list[str]:
    """What went wrong under a fault, and, where that ended the daemon, after it."""
    findings = _faults_of(ended, workspace)
    if findings or ended.code != 0:
        again = forker.end(workspace.root, forker.start(workspace.root, "--once"))
        if again.code != 0:
            findings.append(f"without the fault it ends with {again.code}: {_end_of(again.log)}")
        findings += [f"afterwards: {finding}" for finding in workspace.audit()]
    if findings:
        findings.append(f"again: {fault.replay()}")
        print(f"{fault}:", *findings, sep="\n  ", flush=True)
    return findings


def _tried(forker: Forker, workspace: Workspace, fault: Fault, *, killed: Fault | None = None) -> list[str]:
    """What goes wrong when twenty files meet a fault; `killed` at a point before, so that there is work to take up."""
    drop_twenty(workspace)
    if killed is not None:
        forker.end(workspace.root, forker.start(workspace.root, "--once", fault=killed, patched=SHORTER))
    return _judged(forker, workspace, fault, _serve(forker, workspace, fault))


@pytest.mark.slow
@pytest.mark.parametrize("code", CODES)
@pytest.mark.skipif(FAULT is not None, reason="one fault is tried again")
def test_error_of_every_call_once_is_survived_without_help(
    mould: Workspace, forker: Forker, tmp_path: Path, code: str
) -> None:
    if not SOAK and code not in SHORT_FORM[mould.variant]:
        pytest.skip("not in the short form: `make soak`, or PIGEONHOLED_TEST_SOAK=1")
    workspace = mould.copy(tmp_path / "it")
    assert _tried(forker, workspace, Fault("fail", site="each", code=code, serving=True, rebuilding=SOAK)) == []


@pytest.mark.slow
@pytest.mark.parametrize("code", CODES if SOAK else ["EIO"])
def test_error_of_every_call_while_files_are_put_back_is_survived_without_help(
    mould: Workspace, forker: Forker, tmp_path: Path, code: str
) -> None:
    workspace = mould.copy(tmp_path / "it")
    drop_twenty(workspace)
    assert forker.end(workspace.root, forker.start(workspace.root, "--once")).code == 0
    fault = Fault("fail", site="each", code=code, serving=True, rebuilding=SOAK)
    pid = forker.start(workspace.root, fault=fault, patched=SHORTER)
    socket = workspace.root / "pigeonholed.sock"
    until(socket.exists, "the socket")
    with suppress(UserError):
        ask(socket, "undo", {"last": 9})
    _wait(pid, lambda: _count(workspace, "holds WHERE state IN ('returning', 'retrying')") == 0)
    _wait(pid, lambda: _released(socket))
    _wait(pid, lambda: _is_at_rest(workspace))
    assert _judged(forker, workspace, fault, _end(forker, workspace, pid)) == []


def _count(workspace: Workspace, what: str) -> int:
    return int(workspace.rows(f"SELECT count(*) AS number FROM {what}")[0]["number"])


def _released(socket: Path) -> bool:
    with suppress(UserError):
        ask(socket, "release", {})
        return True
    return False


def _calls(forker: Forker, workspace: Workspace, *, serving: bool, killed: Fault | None = None) -> list[str]:
    """The kinds of calls of a service that nothing disturbs, in the order of their first."""
    drop_twenty(workspace)
    if killed is not None:
        forker.end(workspace.root, forker.start(workspace.root, "--once", fault=killed))
    ended = _serve(forker, workspace, Fault(site="each", serving=serving))
    assert _faults_of(ended, workspace) == []
    return [site for site in dict.fromkeys(ended.calls) if site.startswith(SITES)]


def _points(forker: Forker, workspace: Workspace) -> list[Fault]:
    """Kills that leave files wherever they can be on their way: before each commit of the second batch."""
    drop_twenty(workspace)
    ended = forker.end(workspace.root, forker.start(workspace.root, "--once", fault=Fault()))
    commits = {call for call in ended.calls if ":commit " in call and "images" in call}
    return [Fault("kill", site=site, first=2) for site in sorted(commits) if ended.calls.count(site) > 1]


def _each_alone(forker: Forker, mould: Workspace, tmp_path: Path) -> Sequence[tuple[Workspace, Fault, Fault | None]]:
    """Every fault that the long form tries, what it starts from, and the kill before it."""
    # A first start tries the model in a process of its own, which takes longer than all else: only where it must be.
    second = mould.copy(tmp_path / "second")
    assert forker.end(second.root, forker.start(second.root, "--once")).code == 0
    at_work = _calls(forker, second.copy(tmp_path / "at_work"), serving=True)
    faults: list[tuple[Workspace, Fault, Fault | None]] = [
        (second, Fault("fail", site=site, code=code, times=times, serving=True), None)
        for site in at_work for code in CODES for times in (1, 3)
    ]  # fmt: skip
    known = {*at_work}

    def add(begun: Workspace, folder: str, kill: Fault | None = None) -> None:
        calls = _calls(forker, begun.copy(tmp_path / folder), serving=False, killed=kill)
        new = [site for site in calls if site not in known]
        faults.extend((begun, Fault("fail", site=site, code=code), kill) for site in new for code in CODES)
        known.update(new)

    add(second, "later_start")
    add(mould, "first_start")
    for number, kill in enumerate(_points(forker, second.copy(tmp_path / "points"))):
        add(second, f"killed{number}", kill)
    print(
        f"{len(at_work)} kinds of calls at work, {len(known) - len(at_work)} more at the start or after a kill;", end=""
    )
    some = part_of(faults)
    print(f" {len(some)} of {len(faults)} faults", flush=True)
    return some


@pytest.mark.slow
@pytest.mark.timeout(43_200)
@pytest.mark.skipif(not SOAK and FAULT is None, reason="each call alone: `make soak`, or PIGEONHOLED_TEST_SOAK=1")
def test_each_error_of_each_call_is_survived_without_help(mould: Workspace, forker: Forker, tmp_path: Path) -> None:
    findings: list[str] = []
    faults = _each_alone(forker, mould, tmp_path) if FAULT is None else [(mould, FAULT, None)]
    for number, (begun, fault, kill) in enumerate(faults):
        workspace = begun.copy(tmp_path / str(number))
        found = _tried(forker, workspace, fault, killed=kill)
        findings += found
        if not found:
            shutil.rmtree(workspace.root)
    assert findings == []
