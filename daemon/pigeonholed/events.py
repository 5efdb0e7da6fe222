"""File events as hints: watchdog tells which paths to look at first. Correctness never rests on them."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
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

from pigeonholed.filesystems import gives_events
from pigeonholed.hold_folder import HOLD
from pigeonholed.paths import to_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from watchdog.events import FileSystemEvent

    from pigeonholed.watching import Hints

log = structlog.get_logger()


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

    def reads(self) -> bool:
        """Whether the thread that reads from the kernel lives; watchdog itself does not ask."""
        return bool(self._inotify_fd.is_alive())


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


@dataclass(slots=True)
class _Inbox:
    """An inbox that is to be watched; `folder` is the one that was there when that was last tried, None for none."""

    root: str
    hints: Hints
    recursive: bool
    even_remote: bool
    folder: tuple[int, int] | None = None
    watched: bool = False


class Events:
    """Watches inboxes; each that cannot be watched is left to rescanning, and the log says why.

    Args:
        wake: called after a hint, from watchdog's thread.
        clock: monotonic seconds.
    """

    _PAUSE_S = 5.0

    def __init__(self, wake: Callable[[], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._wake = wake
        self._clock = clock
        self._inboxes: list[_Inbox] = []
        self._anew_at_s = 0.0
        self._observer = _started()

    def watch(self, root: str, hints: Hints, *, recursive: bool, even_remote: bool = True) -> bool:
        """Begin to give hints for an inbox; false when it cannot be watched.

        Args:
            root: the inbox; one that is missing is watched from the first `tend` on that finds it.
            hints: where they go.
            recursive: whether sub-folders are watched, too.
            even_remote: whether it is watched on a file system that tells nothing of what others do.
        """
        inbox = _Inbox(root, hints, recursive, even_remote)
        self._inboxes.append(inbox)
        return self._begin(inbox)

    def watches(self, root: str) -> bool:
        """Whether there should be hints for an inbox."""
        return any(inbox.root == root and inbox.watched for inbox in self._inboxes)

    def tend(self) -> bool:
        """Begin anew, with fresh threads, if a thread has died or another folder is now where an inbox was.

        Returns:
            Whether that was so. Every inbox that is watched is then scanned: nobody knows what was missed.
        """
        if self._clock() < self._anew_at_s or (self.alive() and not any(map(_is_another_now, self._inboxes))):
            return False
        self._anew_at_s = self._clock() + self._PAUSE_S
        self.close()
        self._observer = _started()
        for inbox in self._inboxes:
            if self._begin(inbox):
                inbox.hints.overflow()
        return True

    def alive(self) -> bool:
        """Whether hints can still come: watchdog's threads end silently when something fails in them."""
        observer = self._observer
        return observer.is_alive() and observer.reads() and all(emitter.is_alive() for emitter in observer.emitters)

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

    def _begin(self, inbox: _Inbox) -> bool:
        """Watch an inbox, if it is there and its file system tells anything."""
        inbox.folder, inbox.watched = None, False
        try:
            inbox.folder = _identity(inbox.root)
            if inbox.even_remote or gives_events(inbox.root):
                handler = _Handler(inbox.root, inbox.hints, self._wake)
                self._observer.schedule(handler, inbox.root, recursive=inbox.recursive)
                inbox.watched = True
        except (OSError, RecursionError) as error:  # watchdog goes down a tree by calling itself, on Python 3.11
            why = (isinstance(error, OSError) and error.strerror) or str(error)
            log.warning("watch_refused", folder=to_text(inbox.root), error=why, instead="rescans")
        return inbox.watched


def _started() -> _Observer:
    observer = _Observer()
    observer.start()
    return observer


def _identity(root: str) -> tuple[int, int]:
    status = os.stat(root)
    return status.st_dev, status.st_ino


def _is_another_now(inbox: _Inbox) -> bool:
    """Whether the path leads to another folder than before, or one that was missing is there."""
    try:
        return _identity(inbox.root) != inbox.folder
    except OSError:
        return False  # it is missing: its return will be noticed
