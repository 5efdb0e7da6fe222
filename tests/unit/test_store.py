"""The store serves whole versions or nothing, whenever a publisher dies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bundles import make_bundle, publish_tiny
from pigeonholed import durable
from pigeonholed.bundle import BundleError
from pigeonholed.store import ModelStore


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_published_versions_count_from_one_and_the_last_is_current(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models")
    assert (store.names(), store.versions("tiny"), store.current("tiny")) == ([], [], None)
    first = publish_tiny(store.root)
    second = publish_tiny(store.root, labels=("a", "b", "c"))
    assert (first.name, first.version, second.version) == ("tiny", 1, 2)
    assert (store.names(), store.versions("tiny"), store.current("tiny")) == (["tiny"], [1, 2], 2)
    assert (store.root / "tiny/CURRENT").read_text() == "2\n"
    assert store.open("tiny") == second
    assert store.open("tiny", 1) == first


def test_publishing_leaves_the_staging_folder_as_it_was(tmp_path: Path) -> None:
    staging = make_bundle(tmp_path / "staging")
    before = tree(staging)
    version = ModelStore(tmp_path / "models").publish("tiny", staging).path
    assert tree(staging) == before
    assert tree(version).keys() == before.keys() | {"SHA256SUMS"}


def test_model_takes_the_name_it_is_published_under(tmp_path: Path) -> None:
    bundle = ModelStore(tmp_path / "models").publish("other", make_bundle(tmp_path / "staging", name="tiny"))
    assert bundle.name == "other"


def test_use_switches_back(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models")
    publish_tiny(store.root)
    publish_tiny(store.root)
    store.use("tiny", 1)
    assert store.open("tiny").version == 1
    with pytest.raises(BundleError, match=r"no version 3 .* it has 1, 2"):
        store.use("tiny", 3)
    assert store.current("tiny") == 1


def test_current_that_names_a_missing_version_is_said_clearly(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models")
    publish_tiny(store.root)
    (store.root / "tiny/CURRENT").write_text("7\n")
    with pytest.raises(BundleError, match=r"no version 7 of the model tiny .* CURRENT names it: it has 1"):
        store.open("tiny")


@pytest.mark.parametrize("text", ["", "../2", "one", "1 2", "-1"])
def test_current_that_names_no_version_is_said_clearly(tmp_path: Path, text: str) -> None:
    store = ModelStore(tmp_path / "models")
    publish_tiny(store.root)
    (store.root / "tiny/CURRENT").write_text(text)
    with pytest.raises(BundleError, match="does not name a version"):
        store.open("tiny")


def test_missing_current_is_said_clearly(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models")
    publish_tiny(store.root)
    (store.root / "tiny/CURRENT").unlink()
    with pytest.raises(BundleError, match="no current version"):
        store.open("tiny")
    assert store.open("tiny", 1).version == 1


def test_unknown_model_is_refused_with_those_that_are_there(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models")
    with pytest.raises(BundleError, match=r"no model 'digits' .* it has none"):
        store.open("digits")
    publish_tiny(store.root)
    with pytest.raises(BundleError, match=r"no model 'digits' .* it has tiny"):
        store.open("digits")


@pytest.mark.parametrize("name", ["../tiny", "", ".", "a/b", "_x", "a\nb"])
def test_name_that_is_no_safe_folder_is_refused(tmp_path: Path, name: str) -> None:
    store = ModelStore(tmp_path / "models")
    with pytest.raises(BundleError, match="cannot be the name of a model"):
        store.open(name)
    with pytest.raises(BundleError, match="cannot be the name of a model"):
        store.publish(name, make_bundle(tmp_path / "s"))


def test_version_that_is_a_link_is_not_a_version(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models")
    publish_tiny(store.root)
    (store.root / "tiny/2").symlink_to(store.root / "tiny/1")
    assert store.versions("tiny") == [1]
    assert publish_tiny(store.root).version == 3  # its number is taken all the same


@pytest.mark.parametrize("fault", ["label", "link", "missing", "absent", "pipe"])
def test_faulty_staging_changes_nothing_in_the_store(tmp_path: Path, fault: str) -> None:
    store = ModelStore(tmp_path / "models")
    publish_tiny(store.root)
    before = tree(store.root)
    staging = make_bundle(tmp_path / "bad", labels=("cat", "../dog") if fault == "label" else ("cat", "dog"))
    if fault == "link":
        (staging / "extra").symlink_to("/etc/passwd")
    elif fault == "missing":
        (staging / "report.html").unlink()
    elif fault == "pipe":
        os.mkfifo(staging / "pipe")
    elif fault == "absent":
        staging = tmp_path / "absent"
    with pytest.raises(BundleError, match="Cannot publish") as caught:
        store.publish("tiny", staging)
    assert ".staging" not in str(caught.value)
    assert tree(store.root) == before


def test_full_disk_changes_nothing_in_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ModelStore(tmp_path / "models")
    publish_tiny(store.root)
    staging = make_bundle(tmp_path / "next")
    before = tree(store.root)

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable, "sync_tree", full)
    with pytest.raises(BundleError, match="No space left on device"):
        store.publish("tiny", staging)
    assert tree(store.root) == before


def test_rest_of_a_killed_publish_is_ignored_and_removed_by_the_next(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models")
    publish_tiny(store.root)
    rest = store.root / "tiny/.staging-0123"
    rest.mkdir()
    (rest / "model.keras").write_text("half")
    assert (store.names(), store.versions("tiny")) == (["tiny"], [1])
    assert publish_tiny(store.root).version == 2
    assert not rest.exists()


# Forks a publisher for each k and kills it just before its k-th call that changes the disk.
KILLER = """
import json, os, sys
from pathlib import Path
from pigeonholed.store import ModelStore

def kill_before(k):
    left = [k]
    def counted(call):
        def run(*args, **options):
            left[0] -= 1
            if left[0] == 0:
                os._exit(9)
            return call(*args, **options)
        return run
    for name in ("rename", "fsync", "mkdir", "unlink"):
        setattr(os, name, counted(getattr(os, name)))

store, staging = ModelStore(Path(sys.argv[1])), Path(sys.argv[2])
seen = []
for k in range(1, 200):
    before = store.versions("tiny"), store.current("tiny")
    child = os.fork()
    if child == 0:
        kill_before(k)
        store.publish("tiny", staging)
        os._exit(0)
    killed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    versions = store.versions("tiny")
    for version in versions:
        store.open("tiny", version)
    seen.append([killed, before, [versions, store.current("tiny")]])
    if not killed:
        break
print(json.dumps(seen))
"""


def test_publisher_killed_at_any_step_leaves_only_whole_versions(tmp_path: Path) -> None:
    staging = make_bundle(tmp_path / "staging")
    models = tmp_path / "models"
    publish_tiny(models)
    command = [sys.executable, "-c", KILLER, str(models), str(staging)]
    seen = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    assert [killed for killed, *_ in seen] == [True] * (len(seen) - 1) + [False]
    assert len(seen) > 15  # it was killed between many steps
    for _, (versions, current), (versions_after, current_after) in seen:
        added = versions_after[len(versions) :]
        assert versions_after == versions + added
        assert len(added) <= 1
        assert current_after in {current, *added}
    assert seen[-1][2][1] == seen[-1][2][0][-1]
    assert len(list((models / "tiny").glob(".staging*"))) == 0


def test_written_file_replaces_the_old_one_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    durable.write_file(path, b"new")
    assert tree(tmp_path) == {"file": b"new"}

    def broken(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output"):
        durable.write_file(path, b"newer")
    assert tree(tmp_path) == {"file": b"new"}
