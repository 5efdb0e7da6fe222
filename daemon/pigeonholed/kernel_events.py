"""watchdog's reading of the kernel's file events, put right where it is silent about what it does not see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from watchdog.observers.api import BaseObserver
from watchdog.observers.inotify import InotifyEmitter, InotifyObserver
from watchdog.observers.inotify_c import InotifyConstants, InotifyEvent, InotifyFD

from pigeonholed.inotify_limits import limit_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from pigeonholed.inotify_limits import Limit


class Emitter(InotifyEmitter):  # type: ignore[misc]
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


class Queue(InotifyFD):  # type: ignore[misc]
    """The kernel's queue of events, which drops what finds no room.

    watchdog answers that by walking through all folders at once and watching them anew, in the thread that reads the
    queue: in a burst it would overflow again meanwhile, and again. Here the loss is told at once, and the watches,
    some of which may be missing, are made anew by `Events.tend` when it is calm.

    It also passes over in silence each folder that it may not watch. A limit of the kernel is told here.

    Raises:
        OSError: this user may have no more queues.
    """

    def __init__(self, on_overflow: Callable[[], None], on_limit: Callable[[Limit], None]) -> None:
        super().__init__()
        self._on_overflow = on_overflow
        self._on_limit = on_limit

    def add_callback(self, *arguments: Any) -> Any:
        """Watch a folder."""
        try:
            return super().add_callback(*arguments)
        except OSError as error:
            if (limit := limit_of(error)) is not None:
                self._on_limit(limit)
            raise

    def handle_event(self, event: InotifyEvent) -> None:
        """Pass an event on."""
        if event.is_queue_overflow:
            self._on_overflow()
        else:
            super().handle_event(event)


class Observer(InotifyObserver):  # type: ignore[misc]
    """watchdog's threads, with our queue.

    Args:
        on_overflow: called when the kernel has dropped events, from the thread that reads them.
        on_limit: called when a folder cannot be watched for a limit of the kernel, from any thread.

    Raises:
        OSError: this user may have no more queues of events.
    """

    def __init__(self, on_overflow: Callable[[], None], on_limit: Callable[[Limit], None]) -> None:
        self._inotify_fd = Queue(on_overflow, on_limit)
        self._inotify_fd.start()
        BaseObserver.__init__(self, Emitter, inotify_fd=self._inotify_fd)  # InotifyObserver's own makes another queue

    def reads(self) -> bool:
        """Whether the thread that reads from the kernel lives; watchdog itself does not ask."""
        return bool(self._inotify_fd.is_alive())
