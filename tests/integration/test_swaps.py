"""Links that come into the place of folders, before or while the daemon works: nothing is moved in from elsewhere, and
nothing leaves the output.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from auditor import Dropped, audit
from helpers import files_of, read_tree
from running import Workspace, picture, until
from soaking import SCALE, cases

RED, BLUE = (200, 40, 40), (40, 40, 200)
CANARIES = 60
FILES = cases(20_000) if SCALE > 0 else 150
_AT_FDCWD, _EXCHANGE = -100, 2


@pytest.fixture
def site(tmp_path: Path) -> Workspace:
    """A workspace beside a folder that is nobody's business: canaries under the names that an attacker would try."""
    site = Workspace.make(
        tmp_path / "work", more='\n[[inbox]]\nname="b"\npath="other"\noutput="sorted"\nmodel="tiny"\n'
    )
    (site.root / "other").mkdir()
    for place in ("sub", "cat", "dog", "deep/sub"):
        for number in range(CANARIES):
            canary = site.root / "outside" / place / f"{number}.png"
            canary.parent.mkdir(parents=True, exist_ok=True)
            canary.write_bytes(picture(*RED, seed=9000 + number))
    return site


def outside(site: Workspace) -> dict[str, object]:
    return read_tree(site.root / "outside")


def test_link_in_place_of_a_class_folder_is_passed_by(site: Workspace) -> None:
    before = outside(site)
    site.output.mkdir()
    for name in ("cat", "_rejected", "_unsure"):
        (site.output / name).symlink_to("../outside/cat")
    (site.output / "dog").mkdir()
    (site.output / "dog/sub").symlink_to("../../outside/sub")
    site.drop("red.png", picture(*RED, seed=1))
    site.drop("sub/blue.png", picture(*BLUE, seed=2))
    site.drop("text.png", b"text")
    site.drop("grey.png", picture(120, 120, 120, seed=3))
    assert site.run("run", "--once").returncode == 0
    assert outside(site) == before
    assert sorted(path for path in files_of(site.output) if "outside" not in path) == [
        "_rejected-1/unsupported/text.png",
        "_rejected-1/unsupported/text.png.reason.json",
        "_unsure-1/cat/grey.png",
        "cat-1/red.png",
        "dog/sub-1/blue.png",
    ]
    assert not os.listdir(site.inbox / "sub")


def test_link_in_place_of_a_folder_of_the_inbox_is_not_followed_when_files_go_back(site: Workspace) -> None:
    before = outside(site)
    site.drop("sub/new.png", picture(*RED, seed=1))
    site.run("run", "--once")
    (site.inbox / "sub").rmdir()
    (site.inbox / "sub").symlink_to("../outside/sub")
    undone = site.run("undo", "--last", "1")
    assert (undone.returncode, undone.stdout) == (1, "0 files put back\n")
    assert outside(site) == before
    assert files_of(site.output) == {"cat/sub/new.png": picture(*RED, seed=1)}


def test_link_in_place_of_a_class_folder_is_not_followed_when_files_go_back(site: Workspace) -> None:
    data = (site.root / "outside/cat/0.png").read_bytes()
    site.drop("0.png", data)
    site.run("run", "--once")
    shutil.rmtree(site.output / "cat")
    (site.output / "cat").symlink_to("../outside/cat")
    before = outside(site)
    assert site.run("undo", "--last", "1").returncode == 1
    assert outside(site) == before
    assert not os.listdir(site.inbox)


def drop(site: Workspace, folder: int, where: str, number: int) -> None:
    """A file in the folder itself, wherever that is now; its name is a canary's where that is free."""
    data = picture(*(RED, BLUE)[number // 2 % 2], seed=number)
    draft = site.root / "draft"
    draft.write_bytes(data)
    for name in (f"{number % CANARIES}.png", f"x{number}.png"):
        try:
            os.link(draft, name, dst_dir_fd=folder)
        except FileExistsError:
            continue
        site.dropped.append(Dropped(os.fsencode(f"{where}/{name}"), hashlib.sha256(data).hexdigest()))
        break
    draft.unlink()


@contextmanager
def swapping(*pairs: tuple[Path, Path]) -> Iterator[list[int]]:
    """Each folder and the link beside it change places, atomically and as fast as can be; at the end all are back."""
    libc = ctypes.CDLL(None, use_errno=True)
    stop = threading.Event()
    count = [0]

    def exchange(pair: tuple[Path, Path]) -> None:
        done = libc.renameat2(_AT_FDCWD, os.fsencode(pair[0]), _AT_FDCWD, os.fsencode(pair[1]), _EXCHANGE)
        assert done == 0, os.strerror(ctypes.get_errno())
        count[0] += 1

    def swap() -> None:
        while not stop.is_set():
            for pair in pairs:
                exchange(pair)
                stop.wait(0.0005)
        for pair in pairs:
            if pair[0].is_symlink():
                exchange(pair)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield count
    finally:
        stop.set()
        thread.join()


@pytest.mark.timeout(0 if SCALE > 0 else 120)
def test_folders_that_are_swapped_for_links_while_the_daemon_works_lead_nowhere(site: Workspace) -> None:
    """The attacker has the rights to do that in the inbox and in the output; what is elsewhere is not touched."""
    before = outside(site)
    evil = site.root / "evil"
    evil.mkdir()
    pairs = []
    for folder, aim in [("inbox/sub", "sub"), ("sorted/cat", "cat"), ("sorted/dog", "dog"), ("inbox/deep", "deep")]:
        (site.root / folder).mkdir(parents=True)
        link = evil / folder.replace("/", "-")
        link.symlink_to(site.root / "outside" / aim)
        pairs.append((site.root / folder, link))
    (site.root / "inbox/deep/sub").mkdir()
    sources = [os.open(site.inbox / name, os.O_PATH) for name in ("sub", "deep/sub")]
    with site.serving() as daemon:
        daemon.await_event("service_ready")
        with swapping(*pairs) as swaps:
            for number in range(FILES):
                drop(site, sources[number % 2], ("sub", "deep/sub")[number % 2], number)
                until(lambda wanted=2 * number: swaps[0] >= wanted, "the swaps to keep pace")  # type: ignore[misc]
        until(lambda: not any(names for _, _, names in os.walk(site.inbox)), "all that was dropped to be filed", 100)
        assert daemon.terminate() == 0
    for fd in sources:
        os.close(fd)
    print(f"{FILES} files, {swaps[0]} swaps")
    assert swaps[0] >= FILES
    assert outside(site) == before
    # A folder whose place a link had taken got another name, so where each file is need not be as the template says.
    assert audit(site.dropped, [site.inbox], site.output, site.database, default_template=False) == []
