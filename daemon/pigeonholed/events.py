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
from watchdog.observers.api import BaseObserver
from watchdog.observers.inotify import InotifyEmitter, InotifyObserver
from watchdog.observers.inotify_c import InotifyConstants, InotifyEvent, InotifyFD

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


class _Queue(InotifyFD):  # type: ignore[misc]
    """The kernel's queue of events, which drops what finds no room.

    watchdog answers that by walking through all folders at once and watching them anew, in the thread that reads the
    queue: in a burst it would overflow again meanwhile, and again. Here the loss is told at once, and the watches,
    some of which may be missing, are made anew when it is calm.
    """

    def __init__(self, on_overflow: Callable[[], None]) -> None:
        super().__init__()
        self._on_overflow = on_overflow

    def handle_event(self, event: InotifyEvent) -> None:
        """Pass an event on."""
        if event.is_queue_overflow:
            self._on_overflow()
        else:
            super().handle_event(event)

    def watch_anew(self) -> None:
        """Watch every folder that is there now. Any thread."""
        super().handle_event(InotifyEvent(-1, InotifyConstants.IN_Q_OVERFLOW, 0, b""))


class _Observer(InotifyObserver):  # type: ignore[misc]
    def __init__(self, on_overflow: Callable[[], None]) -> None:
        self._inotify_fd = self.queue = _Queue(on_overflow)
        self.queue.start()
        BaseObserver.__init__(self, _Emitter, inotify_fd=self.queue)  # InotifyObserver's own would make another queue


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
        on_overflow: called when the kernel has dropped events, from watchdog's thread.
    """

    _CALM_S = 1.0

    def __init__(self, wake: Callable[[], None], on_overflow: Callable[[], None] = lambda: None) -> None:
        self._wake = wake
        self._on_overflow = on_overflow
        self._hints: list[Hints] = []
        self._overflows = 0
        self._seen_overflows = 0
        self._calm_at_s: float | None = None
        self._observer = _Observer(self._overflow)
        self._observer.start()

    def watch(self, root: str, hints: Hints, *, recursive: bool) -> bool:
        """Begin to give hints for an inbox; false when it cannot be watched."""
        try:
            self._observer.schedule(_Handler(root, hints, self._wake), root, recursive=recursive)
        except OSError as error:
            log.warning("watch_refused", folder=to_text(root), error=error.strerror or str(error), instead="rescans")
            return False
        self._hints.append(hints)
        return True

    def tend(self, now_s: float) -> None:
        """Watch anew what an overflow may have left unwatched, once there was none for a while; one thread, often."""
        if self._overflows != self._seen_overflows:
            self._seen_overflows = self._overflows
            self._calm_at_s = now_s + self._CALM_S
        elif self._calm_at_s is not None and now_s >= self._calm_at_s:
            self._calm_at_s = None
            log.warning("events_dropped", times=self._overflows, instead="a scan")
            self._observer.queue.watch_anew()
            self._scan()  # what came before it was watched

    def _overflow(self) -> None:
        self._overflows += 1
        self._on_overflow()
        self._scan()

    def _scan(self) -> None:
        for hints in self._hints:
            hints.overflow()
        self._wake()

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
