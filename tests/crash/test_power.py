"""Power cuts: a real file system is shut down in the middle of the work, and mounted again as it was on the disk.

`FS_IOC_SHUTDOWN` stops a mounted file system at once and writes nothing more. btrfs does not know it: there what is on
the disk when the daemon is killed is copied, and the copy mounted. It takes root and loop devices. The database is once
on the disk that is cut, and once on another, where it remembers what the files may have forgotten.

Some cuts for each by `make soak`; PIGEONHOLED_TEST_CUTS=500 for more.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import random
import shutil
import signal
import sqlite3
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import pytest

from auditor import Dropped, unescape
from forking import Forker, forking
from running import FILING, Workspace, environment, picture, working

CUTS = int(os.environ.get("PIGEONHOLED_TEST_CUTS", "30" if "PIGEONHOLED_TEST_SOAK" in os.environ else "0"))
_SHUTDOWN = 0x8004587D  # FS_IOC_SHUTDOWN
_WITHOUT_FLUSHING = struct.pack("I", 2)
_MIB = 1 << 20
_SIZES = {"ext4": 64 * _MIB, "xfs": 320 * _MIB, "btrfs": 128 * _MIB}  # the smallest that each is made in, with room

pytestmark = pytest.mark.skipif(CUTS == 0, reason="power cuts: `make soak`, or PIGEONHOLED_TEST_CUTS=30")


@dataclass
class CutDisk:
    """A file system in a file, mounted at `path`, whose power can be cut."""

    image: Path
    path: Path

    @classmethod
    def make(cls, kind: str, folder: Path) -> CutDisk:
        image, path = folder / f"{kind}.image", folder / kind
        path.mkdir()
        with image.open("wb") as stream:
            stream.truncate(_SIZES[kind])
        subprocess.run([f"mkfs.{kind}", "-q", image], check=True, capture_output=True)
        disk = cls(image, path)
        disk.mount()
        return disk

    def mount(self) -> None:
        subprocess.run(["mount", "-o", "loop", self.image, self.path], check=True, capture_output=True)

    def cut(self, kill: Callable[[], None]) -> None:
        """Cut the power: what is not on the disk by now is gone.

        Args:
            kill: what ends those who write to it.
        """
        if self.path.name == "btrfs":
            kill()
            shutil.copyfile(self.image, self._as_it_was)
        else:
            self._shut_down()
            kill()

    def _shut_down(self) -> None:
        root = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(root, _SHUTDOWN, _WITHOUT_FLUSHING)
        finally:
            os.close(root)

    def unmount(self) -> None:
        subprocess.run(["umount", self.path], check=True, capture_output=True)
        if self._as_it_was.exists():
            self._as_it_was.replace(self.image)

    @property
    def _as_it_was(self) -> Path:
        return self.image.with_suffix(".cut")


@pytest.fixture
def disk(kind: str, tmp_path: Path, forker: Forker) -> Iterator[CutDisk]:
    if os.geteuid() != 0 or not Path("/dev/loop-control").exists():
        pytest.skip("power cuts need root and loop devices")
    if shutil.which(f"mkfs.{kind}") is None:
        pytest.skip(f"there is no mkfs.{kind} on this machine")
    try:
        disk = CutDisk.make(kind, tmp_path)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"cannot mount {kind}: {error.stderr.decode().strip()}")
    yield disk
    forker.abandon()
    disk.unmount()


@pytest.fixture(scope="module")
def forker() -> Iterator[Forker]:
    with forking(environment()) as forker:
        yield forker


@pytest.fixture(params=FILING, ids=str)
def workspace(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Workspace]:
    with working(tmp_path / "place", request.param, incomplete_s=0.0, new=True) as workspace:
        yield workspace


@dataclass
class Owner:
    """Who drops files, half of them without care: what nobody has made durable may be gone after a cut."""

    workspace: Workspace
    chance: random.Random
    careless: set[bytes] = field(default_factory=set)
    serial: int = 0

    def drop(self) -> None:
        """A burst of files; each has a name of its own."""
        for _ in range(self.chance.randint(1, 8)):
            self.serial += 1
            data = picture(self.chance.choice([40, 120, 220]), 60, self.chance.choice([40, 220]), self.serial)
            name = f"{self.chance.choice(['', 'a/'])}{self.serial}.png"
            # Originals that stay in the inbox are the owner's to make durable.
            careful = self.chance.random() < 0.5 or self.workspace.variant.inbox_keeps
            # Before the daemon sees it: what was claimed and not yet planned is as durable as its owner made it.
            self.workspace.drop(name, data, durable=careful)
            if careful:
                _sync((self.workspace.inbox / name).parent)
            else:
                self.careless.add(os.fsencode(name))

    def reckon(self) -> None:
        """After a cut, a careless file that no plan promises counts as what is left of it, if anything is."""
        # It may have the other name of a file that was just dropped: written anew, that one would change.
        (self.workspace.inbox.resolve().parent / "draft").unlink(missing_ok=True)
        promised, left = self._rows()
        for path in _files(self.workspace.inbox):
            left[os.fsencode(path.relative_to(self.workspace.inbox))] = _hash(path)
        kept: list[Dropped] = []
        for item in self.workspace.dropped:
            if item.path not in self.careless or item.path in promised:
                kept.append(item)
            elif item.path in left:
                kept.append(replace(item, sha256=left[item.path]))
        self.workspace.dropped[:] = kept
        self.careless.clear()

    def _rows(self) -> tuple[set[bytes], dict[bytes, str]]:
        """The paths that were planned or filed, and what is in the work folder of those that were only claimed."""
        if not self.workspace.database.exists():
            return set(), {}
        connection = sqlite3.connect(self.workspace.database)
        try:
            rows = connection.execute("SELECT source_path, status, token, arrival, id FROM images").fetchall()
        except sqlite3.OperationalError:
            rows = []  # no tables yet
        finally:
            connection.close()
        promised = {unescape(row[0]) for row in rows if row[1] in {"ingested", "planned", "filed"}}
        left = {
            unescape(source): _hash(place)
            for source, status, token, arrival, number in rows
            if status == "claimed"
            for place in self._places(token, arrival, f"{number}-{arrival}.held")
            if place.exists()
        }
        return promised, left

    def _places(self, token: str, arrival: str, held: str) -> list[Path]:
        """Where a claimed file may be; the last that exists is the truth."""
        work = self.workspace.output / ".pigeonholed" / token
        return [work / arrival, work / held, self.workspace.inbox / ".pigeonholed-hold" / token / held]


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _move(workspace: Workspace, disk: CutDisk, *, database: bool) -> None:
    """Let the output be on the disk that is cut, and the inbox if that is to be on the same mount, and the database."""
    places = [workspace.output]
    if not workspace.variant.elsewhere:
        workspace.inbox.rmdir()
        places.append(workspace.inbox)
    for place in places:
        (disk.path / place.name).mkdir()
        place.symlink_to(disk.path / place.name)
    if database:
        workspace.database.symlink_to(disk.path / workspace.database.name)
    (workspace.inbox / "a").mkdir()
    os.sync()


@pytest.mark.slow
@pytest.mark.timeout(60 + 10 * CUTS)
@pytest.mark.parametrize("database", [True, False], ids=["database-cut", "database-elsewhere"])
@pytest.mark.parametrize("kind", list(_SIZES))
def test_power_cut_at_random_moments_loses_nothing_and_files_nothing_twice(
    workspace: Workspace, disk: CutDisk, forker: Forker, database: bool
) -> None:
    seed = int(os.environ.get("PIGEONHOLED_TEST_SEED", str(random.SystemRandom().randrange(10**6))))
    print(f"PIGEONHOLED_TEST_SEED={seed}")
    _move(workspace, disk, database=database)
    owner = Owner(workspace, random.Random(seed))
    for cut in range(CUTS):
        pid = forker.start(workspace.root)
        _until_cut(owner)
        disk.cut(partial(_kill, workspace, forker, pid))
        disk.unmount()
        disk.mount()
        owner.reckon()
        if cut % 5 == 4 or cut == CUTS - 1:
            done = forker.end(workspace.root, forker.start(workspace.root, "--once"))
            assert done.code == 0, (seed, cut, done.log[-3000:])
            assert workspace.audit() == [], (seed, cut)


def _kill(workspace: Workspace, forker: Forker, pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    forker.end(workspace.root, pid)


def _until_cut(owner: Owner) -> None:
    """Load, then a moment of which nobody knows when it ends: what is synced then was synced by the daemon."""
    ends_s = time.monotonic() + owner.chance.uniform(0.1, 1.2)
    while time.monotonic() < ends_s:
        owner.drop()
        time.sleep(owner.chance.uniform(0, 0.05))
    time.sleep(owner.chance.uniform(0, 0.2))
