"""One output folder: who owns it, and the work folder where files in flight wait."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from pigeonholed import beneath
from pigeonholed.disk import Disk, fs_time_ns, is_sticky_of_another, require_gone
from pigeonholed.durable import write_file
from pigeonholed.errors import Misconfigured, Unavailable
from pigeonholed.images import STAYS
from pigeonholed.locking import Held, Lock
from pigeonholed.owning import owner_of
from pigeonholed.probes import PROBE, discard, make_probe, new_token, probe_name, remove_probes

if TYPE_CHECKING:
    from typing import Self

    from pigeonholed.images import Arrival

PRIVATE = ".pigeonholed"
DRAFT = ".json"  # after the name of a file in flight: the reason for rejecting it, before it stands beside it
_LEFTOVER = re.compile(rf"\.owner\.[0-9a-f]{{12}}\.tmp|{PROBE.pattern}")


class OutputRefused(Misconfigured):
    """An output folder cannot be used; the message says which, why, and what to do."""


class OutputHeld(Unavailable):
    """Another process is filing into the folder; the message names it."""


class Output:
    """An output folder that this process owns until `close`.

    At rest the folder `.pigeonholed` in it holds only `owner` (whose database knows these files) and `lock`; while
    files are in flight it also holds one folder for each batch, named by the batch's token.

    Attributes:
        root: the folder.
        private: `.pigeonholed` in it.
        disk: its file system.
        fresh: whether it had no owner yet when it was opened.
        leaving: names below `root` of files that are being put back; another thread reads them.
    """

    def __init__(self, root: str, lock: Lock) -> None:
        self.root = root
        self.private = os.path.join(root, PRIVATE)
        self.disk = Disk(self.private)
        self._lock = lock
        self.fresh = False
        self.leaving: set[str] = set()
        self._resisting: set[str] = set()  # tokens; guarded by _lock_of_resisting
        self._lock_of_resisting = threading.Lock()

    @classmethod
    def open(cls, root: Path, identity: str | None) -> Self:
        """Make the folder if it is missing, take its lock and check its owner; with no identity, leave it unowned.

        Raises:
            OutputRefused: it cannot be written, or the files in it belong to another database.
            OutputHeld: another process is filing into it.
        """
        private = os.path.join(root, PRIVATE)
        try:
            os.makedirs(private, mode=0o700, exist_ok=True)
            lock = Lock.take(os.path.join(private, "lock"))
        except Held as held:
            raise OutputHeld(
                f"the output {root} is in use by process {held.holder or 'unknown'}; stop it first"
            ) from None
        except OSError as error:
            raise _unwritable(root, error) from None
        try:
            _tidy(str(root), private)
            fresh = identity is not None and _take_ownership(root, private, identity)
            output = cls(str(root), lock)
            output.fresh = fresh
            return output
        except OSError as error:
            lock.release()
            raise _unwritable(root, error) from None
        except BaseException:
            lock.release()
            raise

    def close(self) -> None:
        """Let others have it."""
        self.tidy()
        self.disk.close()
        self._lock.release()

    def require(self) -> None:
        """Make sure that the folder is still the one that was opened.

        Raises:
            OSError: ESTALE, which is waited for: its mount is away, and nothing that seems to be missing is lost.
        """
        if not self.disk.holds(self.private):
            raise OSError(errno.ESTALE, f"the output {self.root} is away; is its mount there?")

    def status_of(self, arrival: Arrival) -> os.stat_result:
        """What a claimed file is now.

        Raises:
            FileNotFoundError: it is gone.
            OSError: as `require_gone`.
        """
        try:
            return os.lstat(self.work_path(arrival))
        except FileNotFoundError:
            self.require_gone(arrival)
            raise

    def require_gone(self, arrival: Arrival) -> None:
        """Make sure that a claimed file is really not there.

        Raises:
            OSError: ESTALE, which is waited for: the output is away, or the file is in the listing of its folder.
        """
        self.require()
        require_gone(self.work_path(arrival))

    def disown(self) -> None:
        """Forget that it was made ours: it is not the folder that it should be."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self.private, "owner"))

    def now_ns(self) -> int:
        """What time it is for the file system, in ns."""
        return fs_time_ns(self._lock.fd)

    def make_batch_folder(self) -> str:
        """A new empty folder for a batch; returns its token."""
        token = new_token()
        try:
            os.mkdir(os.path.join(self.private, token), mode=0o700)
        except FileNotFoundError:
            self.require()
            raise
        return token

    def take_in(self, source: str, arrival: Arrival) -> None:
        """Rename a file of an inbox into its batch folder, through no link that came into its sub-folders' place.

        Args:
            source: the inbox and, below it, the path of the file.
            arrival: whose file it is.

        Raises:
            FileNotFoundError: it is gone from the inbox, as it also is where one of its folders is a link or a file by
                now; never that the output is away.
            OSError: as `rename(2)`, and as `require`.
        """
        folder, _, name = arrival.file.path.rpartition("/")
        try:
            if folder:
                with beneath.folder(source.removesuffix(arrival.file.path), folder) as fd:
                    os.rename(name, self.work_path(arrival), src_dir_fd=fd)
            else:
                os.rename(source, self.work_path(arrival))
        except FileNotFoundError:
            self.require()
            raise
        except NotADirectoryError as error:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), source) from error

    def batch_folder(self, token: str) -> str:
        """Where the files of a batch wait."""
        return os.path.join(self.private, token)

    def work_path(self, arrival: Arrival) -> str:
        """Where a claimed file waits."""
        return os.path.join(self.private, arrival.token, arrival.key)

    def draft_path(self, arrival: Arrival) -> str:
        """Where the reason for rejecting a file waits for it to be moved."""
        return self.work_path(arrival) + DRAFT

    def remove_batch_folder(self, token: str) -> None:
        """Remove the folder if its last file has left. One that stays is only in the way: `tidy` tries again."""
        if token == STAYS:
            return  # its files are in their inboxes
        removed = self._removes(token)
        with self._lock_of_resisting:
            if removed:
                self._resisting.discard(token)
            else:
                self._resisting.add(token)

    def tidy(self) -> None:
        """Try again to remove batch folders that stayed; costs nothing where there are none. Any thread."""
        with self._lock_of_resisting:
            self._resisting -= {token for token in self._resisting if self._removes(token)}

    def _removes(self, token: str) -> bool:
        try:
            os.rmdir(self.batch_folder(token))
        except FileNotFoundError:  # is it? It is there again when its mount is, and some disks deny what they have
            return self.disk.holds(self.private) and not os.path.lexists(self.batch_folder(token))
        except OSError:
            return False
        return True

    def batch_folders(self) -> list[str]:
        """The tokens of all batch folders."""
        with os.scandir(self.private) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]

    def check_source(self, inbox: str) -> bool:
        """Try the very renames that delivery will do, with a file of our own.

        Returns:
            Whether files can be renamed from the inbox to here; if not, they are on different mounts, whatever
            `st_dev` says, and must be copied.

        Raises:
            OutputRefused: files cannot be taken out of the inbox.
        """
        name = probe_name(new_token())
        probe, moved = os.path.join(inbox, name), os.path.join(self.private, name)
        remove_probes(inbox)
        try:
            make_probe(probe)
        except OSError as error:
            raise OutputRefused(
                f"cannot take files out of the inbox {inbox}: {error.strerror}; let this user write to that folder"
            ) from None
        try:
            if is_sticky_of_another(inbox):
                raise OutputRefused(
                    f"cannot take files out of the inbox {inbox}: it is sticky (chmod +t) and belongs to another user, "
                    "so that everybody may take out their own files only; make this user its owner, or chmod -t it"
                )
            if not _renames(probe, moved):
                return False
            self.disk.rename_new(moved, os.path.join(self.root, name))
        except OSError as error:
            raise OutputRefused(
                f"cannot move files from the inbox {inbox} to the output {self.root}: {error.strerror}"
            ) from None
        finally:
            discard(probe, moved, os.path.join(self.root, name))
        return True

    def free_bytes(self) -> int:
        """Free space on the file system."""
        return shutil.disk_usage(self.root).free


def _unwritable(root: Path, error: OSError) -> OutputRefused:
    return OutputRefused(
        f"cannot write to the output {root}: {error.strerror}; make it a folder that this user may write to"
    )


def _tidy(root: str, private: str) -> None:
    """Remove what a process that was killed while it opened this output has left: half an owner file, its probes."""
    for folder in (root, private):
        for name in os.listdir(folder):
            if _LEFTOVER.fullmatch(name):
                os.unlink(os.path.join(folder, name))


def _take_ownership(root: Path, private: str, identity: str) -> bool:
    """Make sure that the files here are our database's; true if nobody owned them yet."""
    owner = owner_of(private)
    if owner is None:
        write_file(Path(private) / "owner", f"{identity}\n".encode())
    elif owner != identity:
        raise OutputRefused(
            f"the output {root} belongs to another database ({owner[:12]}, ours is {identity[:12]}): "
            f"choose another output folder, or the database that made this one"
        )
    return owner is None


def _renames(source: str, target: str) -> bool:
    """Rename, unless the two are on different mounts."""
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        return False
    return True
