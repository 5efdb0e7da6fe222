"""`rejected`, `undo` and `models` with their filters, on results that the real program has filed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pigeonholed.cli import cli
from running import Workspace, drop_twenty


@pytest.fixture(scope="module")
def mould(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace.make(tmp_path_factory.mktemp("choosing") / "work")
    drop_twenty(workspace)
    done = workspace.run("run", "--once")
    assert done.returncode == 0, done.stderr
    return workspace


@pytest.fixture
def site(mould: Workspace, tmp_path: Path) -> Workspace:
    return mould.copy(tmp_path / "work")


def run(site: Workspace, *arguments: str, code: int = 0) -> Result:
    done = CliRunner().invoke(cli, [*arguments, "--config", str(site.config)], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done


def lines(site: Workspace, *arguments: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run(site, *arguments, "--json").stdout.splitlines()]


def test_rejected_are_listed_by_every_filter_without_the_writer(site: Workspace) -> None:
    shutil.rmtree(site.inbox)  # the writer would refuse to work without it
    everything = lines(site, "rejected", "list")
    assert sorted(entry["path"] for entry in everything) == ["6.png", "a/13.png", "a/19.png"]
    ids = [entry["image"] for entry in everything]
    assert ids == sorted(ids, reverse=True)
    assert set(everything[0]) >= {"image", "inbox", "path", "destination", "reason", "detail", "size_bytes", "filed_at"}
    assert [entry["path"] for entry in lines(site, "rejected", "list", "--reason", "empty")] == ["a/19.png"]
    assert len(lines(site, "rejected", "list", "--path", "a/*")) == 2
    assert lines(site, "rejected", "list", "--limit", "1") == everything[:1]
    assert lines(site, "rejected", "list", "--since", "2099-01-01") == []
    assert len(lines(site, "rejected", "list", "--until", "2099-01-01")) == 3
    assert lines(site, "rejected", "list", "--inbox", "other") == []
    assert lines(site, "rejected", "list", "--image", str(ids[0])) == everything[:1]
    assert "there is no reason 'dull'" in run(site, "rejected", "list", "--reason", "dull", code=2).stderr


def test_retry_takes_what_the_list_with_the_same_filters_shows(site: Workspace) -> None:
    done = run(site, "rejected", "retry", "--path", "a/*", "--limit", "1", "--json")
    assert json.loads(done.stdout) == {"back": 1, "refused": []}
    assert len(lines(site, "rejected", "list", "--path", "a/*")) == 1
    assert len(lines(site, "rejected", "list")) == 2


def test_undo_takes_what_its_dry_run_shows(site: Workspace) -> None:
    wanted = ["undo", "--since", "2020-01-01", "--outcome", "unsure", "--path", "a/*"]
    foretold = lines(site, *wanted, "--dry-run")
    assert foretold
    assert all(entry["outcome"] == "unsure" and entry["path"].startswith("a/") for entry in foretold)
    assert "would be put back" in run(site, *wanted, "--dry-run").stdout
    assert list(site.inbox.rglob("*.png")) == []
    assert json.loads(run(site, *wanted, "--json").stdout)["back"] == len(foretold)
    assert all((site.inbox / entry["path"]).is_file() for entry in foretold)
    assert len(list(site.inbox.rglob("*.png"))) == len(foretold)
    assert lines(site, *wanted, "--dry-run") == []


def test_the_last_of_a_label_are_the_newest_of_that_label(site: Workspace) -> None:
    dogs = [entry["image"] for entry in lines(site, "undo", "--since", "2020-01-01", "--label", "dog", "--dry-run")]
    assert [e["image"] for e in lines(site, "undo", "--last", "2", "--label", "dog", "--dry-run")] == dogs[:2]
    assert json.loads(run(site, "undo", "--last", "2", "--label", "dog", "--json").stdout)["back"] == 2
    left = [entry["image"] for entry in lines(site, "undo", "--since", "2020-01-01", "--label", "dog", "--dry-run")]
    assert left == dogs[2:]


def test_more_than_a_page_is_put_back_and_what_stays_is_named_so_often(
    site: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pigeonholed.operations._PAGE", 3)
    monkeypatch.setattr("pigeonholed.operations._REFUSED_SHOWN", 4)
    for path in sorted((site.output / "dog").rglob("*.png")):
        path.write_bytes(b"changed by hand")
    answer = json.loads(run(site, "undo", "--last", "19", "--json", code=1).stdout)
    assert len(answer["refused"]) == 5
    more = int(answer["refused"][-1].split()[1])
    assert answer["back"] + 4 + more == 19
    assert len(list(site.inbox.rglob("*.png"))) == answer["back"]


def test_filters_alone_undo_nothing(site: Workspace) -> None:
    for arguments in (["--label", "cat"], ["--until", "2099-01-01"], ["--last", "1", "--since", "2020-01-01"]):
        assert "say what to undo" in run(site, "undo", *arguments, code=2).stderr
    assert "--release goes alone" in run(site, "undo", "--release", "--label", "cat", code=2).stderr


def test_models_are_listed_with_what_they_are_and_what_is_damaged(site: Workspace) -> None:
    store = site.root / "models"
    shutil.copytree(store / "tiny/1", store / "tiny/2")
    (store / "tiny/2/labels.txt").unlink()
    shutil.copytree(store / "tiny/1", store / "other/1")
    (store / "other/CURRENT").write_text("9\n")
    (store / "tiny/1/metrics.json").write_text('{"held_out": {"accuracy": {"value": 0.975}}}')
    told = {(entry["name"], entry["version"]): entry for entry in lines(site, "models", "list")}
    one = told["tiny", 1]
    assert (one["current"], one["labels"], one["accuracy"], one["inboxes"]) == (True, 2, 0.975, ["camera"])
    assert one["size_bytes"] == sum(path.stat().st_size for path in (store / "tiny/1").rglob("*") if path.is_file())
    assert one["published_at"].endswith("Z")
    assert told["tiny", 2]["fault"] == "labels.txt is missing"
    assert told["other", None]["fault"] == "CURRENT names version 9, which is not there"
    assert [entry["name"] for entry in lines(site, "models", "list", "other")] == ["other", "other"]
    text = run(site, "models", "list").stdout
    assert "tiny 2  DAMAGED  labels.txt is missing" in text
    assert "97.5% right" in text
    assert "no model 'none'" in run(site, "models", "list", "none", code=78).stderr


def test_one_version_is_verified(site: Workspace) -> None:
    store = site.root / "models"
    shutil.copytree(store / "tiny/1", store / "tiny/2")
    (store / "tiny/2/report.html").write_text("another")
    done = run(site, "models", "verify", "tiny", "2", "--json", code=1)
    (told,) = map(json.loads, done.stdout.splitlines())
    assert (told["version"], told["ok"]) == (2, False)
    assert "report.html" in told["fault"]
    assert "no version 7" in run(site, "models", "verify", "tiny", "7", code=1).stdout
