"""File events as hints: watchdog tells which paths to look at first. Correctness never rests on them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import structlog
from watchdog.events import (
    DirCreatedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileSystemEventHandler,
)
from watchdog.observers.inotify import InotifyEmitter, InotifyObserver
from watchdog.observers.inotify_c import InotifyConstants

from pigeonholed.hold_folder import HOLD
from pigeonholed.paths import to_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from watchdog.events import FileSystemEvent

    from pigeonholed.watching import Hints

log = structlog.get_logger()

_REMOTE_TYPES = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "davfs", "sshfs"})


class _Emitter(InotifyEmitter):  # type: ignore[misc]
    """Asks the kernel only for what says that a file came or was closed.

    Without MOVED_FROM, watchdog has nothing to pair our own claims with: it would hold back what follows for half a
    second otherwise.
    """

    def get_event_mask_from_filter(self) -> int:
        """The mask for inotify."""
        wanted: int = (
            InotifyConstants.IN_CREATE
            | InotifyConstants.IN_CLOSE_WRITE
            | InotifyConstants.IN_MOVED_TO
            | InotifyConstants.IN_DELETE_SELF
            | InotifyConstants.IN_MOVE_SELF
        )
        return wanted


class _Observer(InotifyObserver):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self._emitter_class = _Emitter


class _Handler(FileSystemEventHandler):  # type: ignore[misc]
    def __init__(self, root: str, hints: Hints, wake: Callable[[], None]) -> None:
        self._prefix = os.path.join(root, "")
        self._hold = os.path.join(root, HOLD)
        self._hints = hints
        self._wake = wake

    def dispatch(self, event: FileSystemEvent) -> None:
        """Turn an event into a hint; anything about a folder means that something may be anywhere below it."""
        path = os.fsdecode(event.src_path)
        if path.startswith(self._hold):
            return  # our own doing
        if isinstance(event, FileCreatedEvent | FileClosedEvent):
            if path.startswith(self._prefix):
                self._hints.add(path[len(self._prefix) :])
        elif isinstance(event, DirCreatedEvent | DirMovedEvent):
            self._hints.overflow()
        else:
            return
        self._wake()


class Events:
    """Watches inboxes; each that cannot be watched is left to rescanning, and the log says why.

    Args:
        wake: called after a hint, from watchdog's thread.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._observer = _Observer()
        self._observer.start()

    def watch(self, root: str, hints: Hints, *, recursive: bool) -> bool:
        """Begin to give hints for an inbox; false when it cannot be watched."""
        try:
            self._observer.schedule(_Handler(root, hints, self._wake), root, recursive=recursive)
        except OSError as error:
            log.warning("watch_refused", folder=to_text(root), error=error.strerror or str(error), instead="rescans")
            return False
        return True

    def alive(self) -> bool:
        """Whether hints can still come: watchdog's threads end silently when something fails in them."""
        return self._observer.is_alive() and all(emitter.is_alive() for emitter in self._observer.emitters)

    def close(self) -> None:
        """End the threads."""
        try:
            self._observer.stop()
        except (KeyError, OSError) as error:
            # watchdog 7 loses count of folders whose names change quickly, and then never tells its threads to end;
            # they are daemons that hold nothing but their watches.
            log.info("watch_ended_untidily", error=repr(error))
            return
        self._observer.join()


def gives_events(path: str) -> bool:
    """Whether the file system of a folder tells of what others do in it: network file systems and FUSE do not."""
    mounted = _file_system_of(path)
    return not (mounted in _REMOTE_TYPES or mounted.startswith("fuse"))


def _file_system_of(path: str) -> str:
    """The type of the mount that holds a folder, from the kernel's table; empty where there is none."""
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
            for line in table:
                fields = line.split()
                if fields[2] == wanted:
                    return fields[fields.index("-") + 1]
    except (OSError, ValueError, IndexError):
        pass
    return ""
