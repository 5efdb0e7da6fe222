"""A folder on another mount: files cannot be renamed between it and the folders of a test."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def another_mount(here: Path) -> Iterator[Path]:
    """A new folder on a mount that `here` is not on; skips the test where there is none and none can be made."""
    with contextlib.ExitStack() as stack:
        folder = _in_memory(here, stack) or _mounted(here, stack)
        if folder is None:
            pytest.skip("there is no second mount: /dev/shm is none, and mounting a tmpfs needs root")
        yield folder


@contextlib.contextmanager
def small_disk(here: Path) -> Iterator[Path]:
    """An empty file system that holds a megabyte; skips the test where none can be mounted."""
    with contextlib.ExitStack() as stack:
        folder = _mounted(here, stack, "1m")
        if folder is None:
            pytest.skip("mounting a small tmpfs needs root")
        yield folder


def _in_memory(here: Path, stack: contextlib.ExitStack) -> Path | None:
    try:
        folder = Path(tempfile.mkdtemp(prefix="pigeonholed-test-", dir="/dev/shm"))
    except OSError:
        return None
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    return folder if _is_another(folder, here) else None


def _mounted(here: Path, stack: contextlib.ExitStack, size: str = "64m") -> Path | None:
    folder = here / "mounted"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    with contextlib.suppress(OSError):
        if subprocess.run(command, check=False, capture_output=True).returncode == 0:
            stack.callback(subprocess.run, ["umount", "-l", str(folder)], check=False)
            return folder
    return None


def _is_another(folder: Path, here: Path) -> bool:
    """Tried, never guessed: a bind mount of the same file system is another mount."""
    (folder / "probe").touch()
    try:
        os.rename(folder / "probe", here / "probe")
    except OSError as error:
        (folder / "probe").unlink()
        return error.errno == errno.EXDEV
    (here / "probe").unlink()
    return False
