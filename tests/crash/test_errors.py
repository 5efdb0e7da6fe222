"""Every call of a daemon fails in every way that a machine can fail: it goes on by itself, and nothing is lost.

The suite gives one error at a time to every call at once, the first time that it is made. PIGEONHOLED_TEST_SOAK=1
(`make soak`) gives each error to each call alone, once and three times in a row, at the start of the daemon too.
PIGEONHOLED_TEST_CODES='EIO ENOSPC' takes only these errors.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults import FAULT, Fault
from forking import Ended, Forker, forking
from running import VARIANTS, Workspace, drop_twenty, environment, working

SOAK = "PIGEONHOLED_TEST_SOAK" in os.environ
CODES = os.environ.get(
    "PIGEONHOLED_TEST_CODES", "ENOSPC EIO EROFS EXDEV EMFILE EACCES ENOENT EEXIST ESTALE EDQUOT EINTR"
).split()
SHORTER = {
    "pigeonholed.claiming._BLOCKED_S": 0.3,  # a folder that files could not be taken out of
    "pigeonholed.supervising.Supervisor._FIRST_PAUSE_S": 0.1,  # a service that a fault has ended
    "pigeonholed.supervising.Supervisor._LONGEST_PAUSE_S": 0.2,
}
REFUSALS = {69, 78}  # how a daemon may end that cannot start
DEADLINE_S = 20.0


@pytest.fixture(scope="module")
def forker() -> Iterator[Forker]:
    with forking(environment()) as forker:
        yield forker


@pytest.fixture(scope="module", params=VARIANTS, ids=str)
def mould(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """What each fault starts from: an empty inbox and a model, no database yet."""
    batching = "[batching]\nmax_batch_size = 4\n"
    with working(tmp_path_factory.mktemp("error"), request.param, incomplete_s=0.0, more=batching) as workspace:
        yield workspace


def _serve(forker: Forker, workspace: Workspace, fault: Fault) -> Ended:
    """A daemon that meets a fault and twenty files, until all are filed or it has ended by itself."""
    drop_twenty(workspace)
    pid = forker.start(workspace.root, fault=fault, patched=SHORTER)
    ends_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < ends_s and _lives(pid) and workspace.filed() < len(workspace.dropped):
        time.sleep(0.02)
    if _lives(pid):
        os.kill(pid, signal.SIGTERM)
    return forker.end(workspace.root, pid)


def _lives(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def _faults_of(ended: Ended, workspace: Workspace) -> list[str]:
    """What was wrong with a daemon that met a fault."""
    started = '"service_ready"' in ended.log
    findings = []
    if "Traceback" in ended.log:
        findings.append(f"a traceback: {_end_of(ended.log)}")
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


def _tried(forker: Forker, workspace: Workspace, fault: Fault) -> list[str]:
    """What went wrong under a fault, and, where that ended the daemon, after it."""
    ended = _serve(forker, workspace, fault)
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


@pytest.mark.slow
@pytest.mark.parametrize("code", CODES)
@pytest.mark.skipif(SOAK or FAULT is not None, reason="each call is taken alone")
def test_error_of_every_call_once_is_survived_without_help(
    mould: Workspace, forker: Forker, tmp_path: Path, code: str
) -> None:
    workspace = mould.copy(tmp_path / "it")
    assert _tried(forker, workspace, Fault("fail", site="each", code=code, serving=True)) == []


def _calls(forker: Forker, workspace: Workspace, *, serving: bool) -> list[str]:
    """The kinds of calls of an undisturbed service, in the order of their first."""
    ended = _serve(forker, workspace, Fault(site="each", serving=serving))
    assert _faults_of(ended, workspace) == []
    return list(dict.fromkeys(ended.calls))


def _each_alone(forker: Forker, mould: Workspace, tmp_path: Path) -> list[Fault]:
    at_work = _calls(forker, mould.copy(tmp_path / "at_work"), serving=True)
    at_start = [site for site in _calls(forker, mould.copy(tmp_path / "all"), serving=False) if site not in at_work]
    faults = [
        Fault("fail", site=site, code=code, times=times, serving=True)
        for site in at_work for code in CODES for times in (1, 3)
    ]  # fmt: skip
    faults += [Fault("fail", site=site, code=code) for site in at_start for code in CODES]
    print(f"{len(at_work)} kinds of calls at work, {len(at_start)} more at start; {len(faults)} faults")
    return faults


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.skipif(not SOAK and FAULT is None, reason="each call alone: `make soak`, or PIGEONHOLED_TEST_SOAK=1")
def test_each_error_of_each_call_is_survived_without_help(mould: Workspace, forker: Forker, tmp_path: Path) -> None:
    findings: list[str] = []
    for number, fault in enumerate(_each_alone(forker, mould, tmp_path) if FAULT is None else [FAULT]):
        workspace = mould.copy(tmp_path / str(number))
        findings += _tried(forker, workspace, fault)
    assert findings == []
