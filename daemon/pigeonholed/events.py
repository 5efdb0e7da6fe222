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
from watchdog.observers.api import BaseObserver
from watchdog.observers.inotify import InotifyEmitter, InotifyObserver
from watchdog.observers.inotify_c import InotifyConstants, InotifyEvent, InotifyFD

from pigeonholed.filesystems import gives_events
from pigeonholed.hold_folder import HOLD
from pigeonholed.paths import to_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from watchdog.events import FileSystemEvent

    from pigeonholed.hints import Hints

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


class _Queue(InotifyFD):  # type: ignore[misc]
    """The kernel's queue of events, which drops what finds no room.

    watchdog answers that by walking through all folders at once and watching them anew, in the thread that reads the
    queue: in a burst it would overflow again meanwhile, and again. Here the loss is told at once, and the watches,
    some of which may be missing, are made anew by `Events.tend` when it is calm.
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


class _Observer(InotifyObserver):  # type: ignore[misc]
    def __init__(self, on_overflow: Callable[[], None]) -> None:
        self._inotify_fd = _Queue(on_overflow)
        self._inotify_fd.start()
        BaseObserver.__init__(self, _Emitter, inotify_fd=self._inotify_fd)  # InotifyObserver's own makes another queue

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
        on_overflow: called when the kernel has dropped events, from watchdog's thread.
        clock: monotonic seconds.
    """

    _PAUSE_S = 5.0
    _CALM_S = 1.0

    def __init__(
        self,
        wake: Callable[[], None],
        on_overflow: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wake = wake
        self._on_overflow = on_overflow
        self._clock = clock
        self._inboxes: list[_Inbox] = []
        self._anew_at_s = 0.0
        self._overflows = 0
        self._seen_overflows = 0
        self._calm_at_s: float | None = None
        self._observer = self._started()

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
        """Begin anew, with fresh threads, where something may not be watched.

        That is so if a thread has died, another folder is now where an inbox was, or the kernel has dropped events, by
        which folders are told that come; then it waits until it is calm again.

        Returns:
            Whether that was so. Every inbox that is watched is then scanned: nobody knows what was missed.
        """
        calm_again = self._is_calm_again()
        needed = not self.alive() or calm_again or (not self.unsettled and any(map(_is_another_now, self._inboxes)))
        if not needed or self._clock() < self._anew_at_s:
            return False
        if calm_again:
            log.warning("events_dropped", times=self._overflows, instead="a scan")
        self._anew_at_s, self._calm_at_s = self._clock() + self._PAUSE_S, None
        self.close()
        self._observer = self._started()
        for inbox in self._inboxes:
            if self._begin(inbox):
                inbox.hints.overflow()
        return True

    @property
    def unsettled(self) -> bool:
        """Whether events were dropped, and what came then may not be watched yet."""
        return self._overflows != self._seen_overflows or self._calm_at_s is not None

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

    def _started(self) -> _Observer:
        observer = _Observer(self._overflow)
        observer.start()
        return observer

    def _overflow(self) -> None:
        self._overflows += 1
        self._on_overflow()
        for inbox in self._inboxes:
            inbox.hints.overflow()
        self._wake()

    def _is_calm_again(self) -> bool:
        """Whether events were dropped, and none for a while since."""
        if self._overflows != self._seen_overflows:
            self._seen_overflows = self._overflows
            self._calm_at_s = self._clock() + self._CALM_S
        return self._calm_at_s is not None and self._clock() >= self._calm_at_s

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


def _identity(root: str) -> tuple[int, int]:
    status = os.stat(root)
    return status.st_dev, status.st_ino


def _is_another_now(inbox: _Inbox) -> bool:
    """Whether the path leads to another folder than before, or one that was missing is there."""
    try:
        return _identity(inbox.root) != inbox.folder
    except OSError:
        return False  # it is missing: its return will be noticed
