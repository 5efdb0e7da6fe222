"""The model store: `MODELS/NAME/VERSION/`, and `MODELS/NAME/CURRENT` that names the version to serve."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import stat
from typing import TYPE_CHECKING, Literal

from pigeonholed import durable, sealing, trusting
from pigeonholed import labels as words
from pigeonholed.bundle import Bundle, BundleError, inspect, version_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CURRENT = "CURRENT"
_STAGING = ".staging-"
_LOCK = ".lock"
_PREVIOUS = ".CURRENT.previous"


class ModelStore:
    """A folder of models; versions are immutable, and only a rename makes one visible.

    Reading needs no lock and may go on while another process publishes.

    Args:
        root: the store's folder; it need not exist before the first `publish`.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> list[str]:
        """The models that have at least one version, sorted; empty where the store does not exist."""
        try:
            entries = os.listdir(self.root)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(name for name in entries if words.fault_of(name) is None and self.versions(name))

    def versions(self, name: str) -> list[int]:
        """The versions of a model, oldest first; empty for an unknown one."""
        return sorted(version for version in self._taken(name) if self._is_folder(name, version))

    def current(self, name: str) -> int | None:
        """The version to serve; None where none has been chosen.

        Cheap enough to be asked every second: it reads one small file.

        Raises:
            BundleError: `CURRENT` holds something else than a version, or cannot be read.
        """
        path = self._folder(name) / CURRENT
        try:
            with open(path, "rb") as stream:
                text = stream.read(64)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as fault:
            raise BundleError(f"Cannot read {path}: {fault.strerror}.") from fault
        version = version_of(text.decode("ascii", "replace").strip())
        if version is None:
            raise BundleError(
                f"{path} does not name a version; choose one with 'pigeonholed models use {name} VERSION'."
            )
        return version

    def open(self, name: str, version: int | Literal["current"] = "current") -> Bundle:
        """Opens and verifies a version.

        Raises:
            BundleError: unknown model; no such version; no current version; somebody else could change it
                (`trusting`); or damaged (`Bundle.open`).
        """
        known = self.versions(name)
        if not known:
            have = f"it has {', '.join(self.names())}" if self.names() else "it has none"
            raise BundleError(f"There is no model {name!a} in the store {self.root}: {have}.")
        wanted = self.current(name) if version == "current" else version
        if wanted is None:
            raise BundleError(
                f"The model {name} in {self.root} has no current version; "
                f"choose one with 'pigeonholed models use {name} VERSION'."
            )
        self._require(name, wanted, known, "CURRENT names it" if version == "current" else "it was asked for")
        self._check_trust(name, wanted)
        return Bundle.open(self._folder(name) / str(wanted))

    def publish(self, name: str, staging: Path) -> Bundle:
        """Copies a finished folder into the store as the next version and makes it current.

        The version is on the disk, sealed and verified, before it becomes visible. Killed or failed at any moment,
        the store serves what it served before, or the new version; never a part of one.

        Args:
            name: the model; a new one is made.
            staging: a complete bundle without its seal; it is left as it is.

        Returns:
            The bundle, at its final place.

        Raises:
            BundleError: the name cannot be a folder, `staging` is no valid bundle, or the store cannot be written.
        """
        folder, is_first = self._folder(name), not self.root.is_dir()
        try:
            with _locked(folder):
                return self._publish_locked(name, folder, staging)
        except (OSError, shutil.Error, sealing.SealError) as fault:
            for empty in (folder, self.root) if is_first else (folder,):
                with contextlib.suppress(OSError):  # of a model or a store that never came to be, nothing stays
                    os.rmdir(empty)
            raise BundleError(f"Cannot publish {staging} as {name} in {self.root}: {_said(fault)}.") from fault

    def use(self, name: str, version: int) -> None:
        """Makes a version the current one, atomically and durably.

        Raises:
            BundleError: unknown model, no such version, or the store cannot be written.
        """
        self._require(name, version, self.versions(name), "it was asked for")
        try:
            durable.write_file(self._folder(name) / CURRENT, f"{version}\n".encode("ascii"))
        except OSError as fault:
            raise BundleError(
                f"Cannot make version {version} of {name} current in {self.root}: {fault.strerror}."
            ) from fault

    def _publish_locked(self, name: str, folder: Path, staging: Path) -> Bundle:
        """`publish` once no other process can take the same number."""
        for left in os.listdir(folder):  # by a publisher that was killed: a living one would hold the lock
            if left.startswith(_STAGING):
                shutil.rmtree(folder / left)
            elif left == _PREVIOUS:
                os.unlink(folder / left)
        private = folder / f"{_STAGING}{secrets.token_hex(6)}"
        try:
            shutil.copytree(
                staging,
                private,
                symlinks=True,  # kept as links, so that the seal refuses them
                ignore=lambda source, _: {sealing.SEAL} if source == os.fspath(staging) else set(),
                copy_function=shutil.copyfile,  # not the permissions: a version is readable as the umask says
            )
            _close_to_others(private)
            sealing.seal(private)
            inspect(private)
            version = max(self._taken(name), default=0) + 1
            # A version folder is never empty, and Linux renames a folder only onto an empty one: no overwriting.
            _keep(folder / CURRENT, folder / _PREVIOUS)
            os.rename(private, folder / str(version))
        except BaseException:
            shutil.rmtree(private, ignore_errors=True)
            (folder / _PREVIOUS).unlink(missing_ok=True)
            raise
        with _taken_back(folder, version, private):
            durable.sync(folder)
            durable.write_file(folder / CURRENT, f"{version}\n".encode("ascii"))
        return Bundle.open(folder / str(version))

    def _folder(self, name: str) -> Path:
        """The folder of a model, which is always directly in the store."""
        if fault := words.fault_of(name):
            raise BundleError(f"{name[:80]!a} cannot be the name of a model: it {fault}.")
        return self.root / name

    def _taken(self, name: str) -> list[int]:
        """Every version number that is the name of anything at all."""
        try:
            entries = os.listdir(self._folder(name))
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [version for entry in entries if (version := version_of(entry)) is not None]

    def _is_folder(self, name: str, version: int) -> bool:
        path = self._folder(name) / str(version)
        return path.is_dir() and not path.is_symlink()

    def _check_trust(self, name: str, version: int) -> None:
        """Refuses a version that others than its owner, root and this process could put something else in place of."""
        folder = self._folder(name)
        chosen = [os.fspath(folder / CURRENT)] if os.path.lexists(folder / CURRENT) else []
        try:
            trusting.check(self.root, [os.fspath(folder), *chosen, *trusting.tree(folder / str(version))])
        except (trusting.Distrusted, OSError) as fault:
            raise BundleError(f"Cannot use version {version} of the model {name}: {_said(fault)}.") from fault

    def _require(self, name: str, version: int, known: list[int], why: str) -> None:
        """Refuses a version that is not there, and says which are."""
        if version not in known:
            have = f"it has {', '.join(map(str, known))}" if known else "it has none"
            raise BundleError(
                f"There is no version {version} of the model {name} in {self.root} although {why}: {have}; "
                f"choose one with 'pigeonholed models use {name} VERSION'."
            )


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Makes `folder` and holds the right to publish into it; waits for another publisher, and a killed one lets go.

    Where publishing fails and the model has no version, the lock goes, so that the folder is as empty as it was.
    """
    fd = _lock(folder)
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            if os.listdir(folder) == [_LOCK]:
                os.unlink(folder / _LOCK)  # whoever waits for it starts over
        raise
    finally:
        os.close(fd)


def _lock(folder: Path) -> int:
    while True:
        _make_folder(folder.parent)
        _make_folder(folder)
        try:
            fd = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        except FileNotFoundError:
            continue  # another publisher failed, and took the empty folder with it
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.fstat(fd).st_nlink:
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _keep(path: Path, previous: Path) -> None:
    """A second name for a file that is about to be replaced: putting it back needs no room on a disk that is full."""
    try:
        os.link(path, previous)
    except FileNotFoundError:
        pass  # the first version
    except OSError:  # no hard links on this file system
        shutil.copyfile(path, previous)


@contextlib.contextmanager
def _taken_back(folder: Path, version: int, private: Path) -> Iterator[None]:
    """Where the body fails, `CURRENT` is what it was, and the version that was made visible is gone again."""
    previous = folder / _PREVIOUS
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            if previous.exists():
                os.rename(previous, folder / CURRENT)  # does nothing where both are still the same file
            else:
                (folder / CURRENT).unlink(missing_ok=True)
            os.rename(folder / str(version), private)
        shutil.rmtree(private, ignore_errors=True)
        raise
    finally:
        previous.unlink(missing_ok=True)


def _make_folder(path: Path) -> None:
    """Makes a folder with its parents, durably; one that is there is left alone."""
    if not path.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o755, exist_ok=True)
        durable.sync(path.parent)


def _close_to_others(folder: Path) -> None:
    """What is published can be changed by its owner alone, whatever the umask is."""
    for name in trusting.tree(folder):
        mode = os.lstat(name).st_mode
        if mode & 0o022 and not stat.S_ISLNK(mode):
            os.chmod(name, stat.S_IMODE(mode) & ~0o022)


def _said(fault: BaseException) -> str:
    """The fault in words, without the code."""
    if isinstance(fault, shutil.Error):  # holds a list of (source, target, reason)
        return "; ".join(str(reason) for *_, reason in fault.args[0])
    return (fault.strerror or str(fault)) if isinstance(fault, OSError) else str(fault)
