"""Files of every odd kind in one inbox of the real program: what is a picture is filed, and the rest stays as it is."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from auditor import Dropped
from helpers import chain_of_folders
from running import HOSTILE, RENAMING, Workspace, picture, unprivileged, until, working

pytestmark = pytest.mark.slow

TWINS = ("caf\u00e9.png", "cafe\u0301.png", "TWIN.png", "twin.png")
TIMES_S = {"1901.png": -(2**31), "1970.png": 0, "2001.png": 978_307_200, "2106.png": 2**32, "2400.png": 13_569_465_600}
CANARY = b"not for you"


@dataclass
class Odd:
    """What became of the odd files."""

    workspace: Workspace
    metrics: str
    log: str
    devices: int
    outside: Path

    def rows(self) -> dict[str, dict[str, object]]:
        """The results by source path."""
        rows = self.workspace.rows("SELECT * FROM images WHERE status = 'filed'")
        return {row["source_path"]: row for row in rows}

    def ineligible(self, reason: str) -> float:
        found = re.search(rf'ineligible_files{{inbox="camera",reason="{reason}"}} (\S+)', self.metrics)
        assert found is not None
        return float(found[1])


@contextmanager
def _deep(workspace: Workspace) -> Iterator[None]:
    """A picture in the deepest folder that can be named, and one in the folder that holds those below."""
    (workspace.inbox / "deep").mkdir()
    with chain_of_folders(workspace.inbox / "deep") as reachable:
        deepest = os.path.relpath(reachable, workspace.inbox)
        for path in ("deep/above.png", f"{deepest}/x.png"):
            data = picture(220, 60, 40, len(workspace.dropped))
            (workspace.inbox / path).write_bytes(data)
            workspace.dropped.append(Dropped(os.fsencode(path), hashlib.sha256(data).hexdigest()))
        yield


def _drop(workspace: Workspace, outside: Path) -> int:
    """All kinds; returns how many devices there are among them."""
    for serial, name in enumerate(("a.png", "folder.png/b.png", *TWINS, *TIMES_S, "linked.png", "inside.png")):
        workspace.drop(name, picture(220, 60, 40, serial))
    for name, time_s in TIMES_S.items():
        os.utime(workspace.inbox / name, (time_s, time_s))
    os.link(workspace.inbox / "linked.png", outside / "kept.png")
    data = (workspace.inbox / "inside.png").read_bytes()
    os.link(workspace.inbox / "inside.png", workspace.inbox / "inside-too.png")
    workspace.dropped.append(Dropped(b"inside-too.png", hashlib.sha256(data).hexdigest()))
    (outside / "canary.png").write_bytes(CANARY)
    os.symlink(outside / "canary.png", workspace.inbox / "link.png")
    os.symlink("nowhere", workspace.inbox / "dangling.png")
    os.symlink("loop.png", workspace.inbox / "loop.png")
    os.symlink(outside, workspace.inbox / "elsewhere")
    os.mkfifo(workspace.inbox / "pipe.png")
    os.mknod(workspace.inbox / "socket.png", stat.S_IFSOCK | 0o600)
    try:
        os.mknod(workspace.inbox / "device.png", stat.S_IFCHR | 0o600, os.makedev(1, 5))  # zeros without end
        os.mknod(workspace.inbox / "disk.png", stat.S_IFBLK | 0o600, os.makedev(7, 250))
    except PermissionError:
        return 0  # only root may
    return 2


@pytest.fixture(scope="module", params=[RENAMING, HOSTILE], ids=str)
def odd(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Odd]:
    with working(tmp_path_factory.mktemp("odd"), request.param, listen="127.0.0.1:0") as workspace:
        outside = workspace.root / "outside"
        outside.mkdir()
        with _deep(workspace):
            devices = _drop(workspace, outside)
            with workspace.serving() as daemon:
                until(lambda: workspace.filed() == len(workspace.dropped), "the pictures to be filed")
                until(lambda: 'reason="too-deep"} 1.0' in daemon.fetch("/metrics")[1], "a whole scan")
                metrics = daemon.fetch("/metrics")[1]
                assert daemon.terminate() == 0
            yield Odd(workspace, metrics, daemon.log.read_text(), devices, outside)


def test_what_is_a_picture_is_filed_once_and_nothing_else_is(odd: Odd) -> None:
    left = r"still in the inbox: (link|dangling|loop|pipe|socket|device|disk|elsewhere)"
    flattened = r".*deep/d+/.*sub-folder: cat/x\.png$"  # its path would have been too long
    assert [line for line in odd.workspace.audit() if not re.match(f"{left}|{flattened}", line)] == []
    assert set(odd.workspace.statuses()) == {"filed"}
    assert "Traceback" not in odd.log


def test_what_is_no_regular_file_stays_is_never_opened_and_is_counted(odd: Odd) -> None:
    inbox = odd.workspace.inbox
    kinds = {name: stat.S_IFMT(os.lstat(inbox / name).st_mode) for name in os.listdir(inbox) if name.endswith(".png")}
    kinds.pop("folder.png")
    wanted = {
        "link.png": stat.S_IFLNK,
        "dangling.png": stat.S_IFLNK,
        "loop.png": stat.S_IFLNK,
        "pipe.png": stat.S_IFIFO,
        "socket.png": stat.S_IFSOCK,
    }
    if odd.devices:
        wanted |= {"device.png": stat.S_IFCHR, "disk.png": stat.S_IFBLK}
    assert kinds == wanted
    assert odd.ineligible("not-regular") == len(wanted) + 1  # the link to a folder
    assert (odd.outside / "canary.png").read_bytes() == CANARY


def test_folder_named_like_a_picture_is_a_folder(odd: Odd) -> None:
    assert (odd.workspace.output / "cat/folder.png/b.png").is_file()
    assert (odd.workspace.inbox / "folder.png").is_dir()


def test_hard_links_are_filed_each_for_itself_and_told_of_where_they_can_still_be_changed(odd: Odd) -> None:
    rows = odd.rows()
    details = {name: rows[name]["detail"] for name in ("a.png", "linked.png", "inside.png", "inside-too.png")}
    filed = os.stat(odd.workspace.output / "cat/linked.png")
    kept = os.stat(odd.outside / "kept.png")
    assert rows["a.png"]["detail"] is None
    if odd.workspace.variant is HOSTILE:
        assert set(details.values()) == {None}
        assert not os.path.samestat(filed, kept)
        assert filed.st_nlink == 1
    else:
        assert "2 names (hard links)" in str(details["linked.png"])
        assert os.path.samestat(filed, kept)
        assert "hard links" in f"{details['inside.png']}{details['inside-too.png']}"


def test_twins_in_case_and_in_the_composition_of_accents_are_both_kept(odd: Odd) -> None:
    filed = set(os.listdir(odd.workspace.output / "cat"))
    if filed >= set(TWINS):
        return
    with_twins = [name for name in filed if re.match(r"(?i)(caf|twin)", name)]  # a file system that knows no difference
    assert len(with_twins) == len(TWINS)


def test_no_time_of_a_file_hides_or_hastens_it_and_it_is_kept(odd: Odd) -> None:
    rows = odd.rows()
    for name, time_s in TIMES_S.items():
        status = os.stat(odd.workspace.output / "cat" / name)
        assert rows[name]["mtime_ns"] == min(
            status.st_mtime_ns, 2**63 - 1
        )  # the last moment of the database is in 2262
        assert abs(status.st_mtime - time_s) < 2**33  # a file system keeps what it can


def test_folders_deeper_than_any_path_end_nothing(odd: Odd) -> None:
    deep = [row for path, row in odd.rows().items() if path.startswith("deep/")]
    assert len(deep) == 2
    for row in deep:
        assert (odd.workspace.output / str(row["destination"])).is_file()
    assert odd.ineligible("too-deep") == 1
    assert odd.log.count('"files_left"') == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of other users")
def test_file_that_another_user_keeps_for_himself_stays_and_is_told_of_once(tmp_path: Path) -> None:
    workspace = Workspace.make(tmp_path)
    workspace.drop("a.png", picture(220, 60, 40, 1))
    theirs = workspace.inbox / "theirs.png"
    theirs.write_bytes(picture(220, 60, 40, 2))
    theirs.chmod(0o600)
    shutil.chown(theirs, 12345, 12345)
    done = workspace.run("run", "--once", before=unprivileged())
    assert done.returncode == 0, done.stderr
    assert os.listdir(workspace.inbox) == ["theirs.png"]
    assert workspace.statuses() == ["filed"]
    assert done.stderr.count('"files_left"') == 1
    assert subprocess.run(["cat", theirs], check=True, capture_output=True).stdout == picture(220, 60, 40, 2)
