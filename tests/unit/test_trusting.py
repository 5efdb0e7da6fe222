"""A model that somebody else could change is not served; what people have as a matter of course is."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bundles import make_bundle, publish_tiny
from pigeonholed import trusting
from pigeonholed.bundle import BundleError
from pigeonholed.store import ModelStore

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return publish_tiny(tmp_path / "models").path.parent.parent


WAYS: dict[str, Callable[[Path], Path]] = {
    "store": lambda root: root,
    "model": lambda root: root / "tiny",
    "current": lambda root: root / "tiny/CURRENT",
    "version": lambda root: root / "tiny/1",
    "seal": lambda root: root / "tiny/1/SHA256SUMS",
    "folder": lambda root: root / "tiny/1/export/openvino",
    "file": lambda root: root / "tiny/1/model.keras",
}


@pytest.mark.parametrize("what", WAYS)
def test_what_everybody_can_write_is_refused_with_the_command_that_mends_it(root: Path, what: str) -> None:
    path = WAYS[what](root)
    path.chmod(0o777 if path.is_dir() else 0o666)
    with pytest.raises(BundleError, match="everybody can write to") as caught:
        ModelStore(root).open("tiny")
    assert f"'chmod go-w {path}'" in str(caught.value)
    path.chmod(0o755 if path.is_dir() else 0o644)
    assert ModelStore(root).open("tiny").version == 1


@needs_root
@pytest.mark.parametrize("what", [what for what in WAYS if what != "store"])
def test_what_belongs_to_another_user_is_refused(root: Path, what: str) -> None:
    path = WAYS[what](root)
    os.chown(path, NOBODY, NOBODY)
    with pytest.raises(BundleError, match="belongs to") as caught:
        ModelStore(root).open("tiny")
    assert f"'chown root {path}'" in str(caught.value)


@needs_root
def test_store_of_another_user_is_trusted_as_a_whole_but_not_below_a_folder_for_everybody(root: Path) -> None:
    for name in (root, *root.rglob("*")):
        os.chown(name, NOBODY, NOBODY)
    open_to_all = [folder for folder in root.parents if folder.stat().st_mode & 0o002]  # /tmp, mostly
    if not open_to_all:
        assert ModelStore(root).open("tiny").version == 1
        root.parent.chmod(0o1777)
    with pytest.raises(BundleError, match="belongs to"):
        ModelStore(root).open("tiny")


def test_a_sticky_store_is_open_to_all_as_well(root: Path) -> None:
    root.chmod(0o1777)
    with pytest.raises(BundleError, match="everybody can write"):
        ModelStore(root).open("tiny")


@pytest.mark.parametrize(
    ("members", "primary", "allowed"),
    [((), (), True), (("me",), ("me",), True), (("me", "other"), ("me",), False), ((), ("me", "other"), False)],
)
def test_group_of_nobody_else_may_write(
    root: Path, monkeypatch: pytest.MonkeyPatch, members: tuple[str, ...], primary: tuple[str, ...], allowed: bool
) -> None:
    uids = {"me": os.geteuid(), "other": 4711}

    class Entry:
        def __init__(self, name: str, gid: int) -> None:
            self.pw_uid, self.pw_gid, self.pw_name = uids[name], gid, name

    gid = (root / "tiny").stat().st_gid
    monkeypatch.setattr(trusting, "_named_in", lambda _gid: list(members))
    monkeypatch.setattr(trusting.pwd, "getpwnam", lambda name: Entry(name, gid))
    monkeypatch.setattr(trusting.pwd, "getpwall", lambda: [Entry(name, gid) for name in primary])
    (root / "tiny").chmod(0o775)
    if allowed:
        assert ModelStore(root).open("tiny").version == 1
    else:
        with pytest.raises(BundleError, match=r"the group .* can write to .*'chmod g-w"):
            ModelStore(root).open("tiny")


def test_folder_above_that_is_open_to_all_is_no_reason_to_refuse_our_own_store(root: Path) -> None:
    root.parent.chmod(0o777)
    assert ModelStore(root).open("tiny").version == 1


def test_what_is_published_under_a_careless_umask_can_be_served(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        make_bundle(tmp_path / "staging", publish_into=tmp_path / "models")
    finally:
        os.umask(before)
    assert ModelStore(tmp_path / "models").open("tiny").version == 1
