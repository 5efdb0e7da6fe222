"""The benchmark of the service: a small run works, leaves nothing behind, and calls a miss a miss."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from bundles import make_bundle

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SMALL = ["--files", "40", "--plain-files", "3", "--singles", "2", "--idle-s", "0.3", "--idle-files", "20"]


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_quick_run_reports_every_figure_and_leaves_nothing_behind(tmp_path: Path) -> None:
    make_bundle(tmp_path / "staging", publish_into=tmp_path / "models", name="digits")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    command = [sys.executable, str(BENCHMARKS / "bench_service.py"), "--quick", *SMALL]
    command += ["--models", str(tmp_path / "models")]
    environment = {**os.environ, "TMPDIR": str(scratch), "PIGEONHOLED__RUNTIME__KIND": "nonsense"}

    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)

    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["results"]["rate"]["service"]["rounds"][0]["files"] == 40
    assert [report["results"]["latency"][kind]["files"] for kind in ("single", "burst")] == [2, 20]
    assert [idle["ignored_files"] for idle in report["results"]["idle"]] == [10, 20]
    assert all(figure["value"] > 0 for figure in report["figures"])
    assert {figure["verdict"] for figure in report["figures"] if figure["bound"]} == {"not judged"}
    assert report["machine"]["usable_cores"] >= 1
    assert os.listdir(scratch) == []


@pytest.mark.parametrize(
    ("value", "bound", "sense", "judged", "verdict"),
    [
        (3000.0, 3000.0, "at least", True, "met"),
        (2999.9, 3000.0, "at least", True, "MISSED"),
        (59.9, 60.0, "under", True, "met"),
        (60.0, 60.0, "under", True, "MISSED"),
        (2.0, 60.0, "under", False, "not judged"),
        (2.0, None, "under", True, ""),
    ],
)
def test_verdict_follows_from_value_and_bound(
    value: float, bound: float | None, sense: str, judged: bool, verdict: str
) -> None:
    from verdicts import Figure

    assert Figure("x", value, "ms", bound, sense, judged).verdict == verdict  # type: ignore[arg-type]


def test_rate_of_a_run_that_left_files_behind_is_refused(tmp_path: Path) -> None:
    import rates
    from workload import Model, Workspace

    workspace = Workspace.make(tmp_path / "work", Model(tmp_path / "models", "digits"))
    for path in (workspace.output / "3" / "a.jpg", workspace.inbox / "b.jpg"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    with sqlite3.connect(workspace.database) as connection:
        connection.execute("CREATE TABLE images (status, arrived_at, filed_at)")
        row = ("filed", "2026-01-01 00:00:00.000000", "2026-01-01 00:00:01.000000")
        connection.executemany("INSERT INTO images VALUES (?, ?, ?)", [row, ("claimed", row[1], None)])
    connection.close()

    with pytest.raises(SystemExit, match="of 2 files 1 are filed, 1 in the output and 1 in the inbox"):
        rates._checked(workspace, 2)

    (workspace.inbox / "b.jpg").unlink()
    first, last = rates._checked(workspace, 1)
    assert (last - first).total_seconds() == 1.0
