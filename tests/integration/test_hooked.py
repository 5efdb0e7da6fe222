"""The real program with a hook: it is told what was filed, and filing waits for none."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from pigeonholed import checking
from pigeonholed.config import load_settings
from running import LOOKING, RENAMING, Variant, Workspace, picture, until

HOOK = '[hook]\ncommand = ["./hook"]\ntimeout_s = 1.5\n'


def _workspace(root: Path, body: str, variant: Variant = RENAMING) -> Workspace:
    workspace = Workspace.make(root, listen="127.0.0.1:0", more=HOOK, variant=variant)
    hook = workspace.root / "hook"
    hook.write_text(f"#!{sys.executable}\nimport sys, time\n{body}\n")
    hook.chmod(0o755)
    return workspace


@pytest.mark.slow
def test_hook_is_told_of_what_was_filed_and_one_that_hangs_delays_nothing(tmp_path: Path) -> None:
    told = tmp_path / "told"
    workspace = _workspace(
        tmp_path / "place", f"print('hello'); open({str(told)!r}, 'a').write(sys.stdin.read())\ntime.sleep(600)"
    )
    with workspace.serving() as daemon:
        workspace.drop("a.png", picture(220, 60, 40, 1))
        until(told.exists, "the hook to be told")
        until(lambda: told.read_text().endswith("\n"), "the whole of it")
        result = json.loads(told.read_text().splitlines()[0])
        assert (result["path"], result["label"], result["destination"]) == ("a.png", "cat", "cat/a.png")
        workspace.drop("b.png", picture(40, 60, 220, 2))
        until(lambda: workspace.filed() == 2, "the next file")
        until(lambda: '_hook_runs_total{result="timeout"} 0.0' not in daemon.fetch("/metrics")[1], "the end of a run")
        assert daemon.terminate(60.0) == 0
        assert "hello" in [event["line"] for event in daemon.events() if event["event"] == "hook_said"]
    assert workspace.audit() == []


@pytest.mark.slow
def test_pictures_that_stay_are_told_of_counted_and_undone_like_all_others(tmp_path: Path) -> None:
    told = tmp_path / "told"
    body = f"open({str(told)!r}, 'a').write(sys.stdin.read())"
    workspace = _workspace(tmp_path / "place", body, LOOKING)
    with workspace.serving() as daemon:
        workspace.drop("a.png", picture(220, 60, 40, 1))
        until(lambda: told.exists() and told.read_text().endswith("\n"), "the hook to be told")
        result = json.loads(told.read_text())
        assert (result["path"], result["label"], result["destination"]) == ("a.png", "cat", None)
        status = json.loads(workspace.run("status", "--json").stdout)
        assert status["inboxes"][0]["drift"]["images"] == 1
        foretold = workspace.run("undo", "--last", "1", "--dry-run").stdout.splitlines()
        assert foretold == ["       1  stays -> camera: a.png", "1 files would be put back"]
        assert daemon.terminate(60.0) == 0
    assert workspace.audit() == []


@pytest.mark.slow
def test_hook_that_cannot_be_run_is_refused_at_the_start_and_by_check(tmp_path: Path) -> None:
    workspace = _workspace(tmp_path / "place", "")
    (workspace.root / "hook").chmod(0o644)
    refused = workspace.run("run", "--once")
    assert (refused.returncode, refused.stderr.count("chmod +x")) == (78, 1)
    settings = load_settings(workspace.config)
    finding = checking._tried("hook", lambda: checking._hook(settings))
    assert (finding.ok, finding.exit_code) == (False, 78)
    (workspace.root / "hook").chmod(0o755)
    assert checking._hook(settings) == f"{workspace.root}/hook can be run"
