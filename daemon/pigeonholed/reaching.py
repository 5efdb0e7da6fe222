"""Getting a request done by the one process that may do it: the running daemon, or ourselves where none runs."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pigeonholed.control import NoDaemon, ask
from pigeonholed.errors import Misconfigured, Unavailable
from pigeonholed.locking import COMMAND, Held, Lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from pigeonholed.settings import Settings

_LISTENS_WITHIN_S = 10.0
_LOOK_EVERY_S = 0.05


def perform(
    settings: Settings,
    request: str,
    arguments: dict[str, Any],
    *,
    alone: Callable[[str, dict[str, Any]], Any],
    timeout_s: float = 30.0,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> Any:
    """Have a request done, and return its result; it is done once, by whoever holds the state lock.

    Args:
        settings: whose state folder and control socket.
        request: which one.
        arguments: what JSON can hold.
        alone: does it here, under the state lock, when no daemon runs.
        timeout_s: how long the daemon may take for it.
        clock: monotonic seconds.
        pause: waits that many seconds.

    Raises:
        UserError: it was refused; or the lock is held by a process that does not answer within 10 s, for example a
            daemon that still waits for its database, or another command.
    """
    path = _lock_path(settings)
    gives_up_s = clock() + _LISTENS_WITHIN_S
    while True:
        try:
            lock = Lock.take(path, purpose=COMMAND)
        except Held as held:
            holder = held.holder
        except OSError as error:
            raise _refused(settings, error) from None
        else:
            try:
                return alone(request, arguments)
            finally:
                lock.release()
        try:
            return ask(settings.control.socket, request, arguments, timeout_s=timeout_s)
        except NoDaemon:
            if clock() >= gives_up_s:
                raise Unavailable(
                    f"process {holder or 'unknown'} holds the state folder {settings.state.dir} but does not answer at "
                    f"{settings.control.socket}; it may be starting or ending, or be another command: try again later"
                ) from None
        pause(_LOOK_EVERY_S)  # whoever it is begins to listen, or ends; then the lock is ours


@contextmanager
def session(
    settings: Settings,
    alone: Callable[[], AbstractContextManager[Callable[[str, dict[str, Any]], Any]]],
    *,
    timeout_s: float,
) -> Iterator[Callable[[str, dict[str, Any]], Any]]:
    """What has several requests done, one after another: the daemon, or for all of the body this process.

    Args:
        settings: whose state folder and control socket.
        alone: opened under the state lock when no daemon runs; what it gives does the requests.
        timeout_s: how long the daemon may take for each.

    Raises:
        UserError: as `perform`; or the daemon ended in between.
    """
    path = _lock_path(settings)
    try:
        lock = Lock.take(path, purpose=COMMAND)
    except Held:
        yield lambda request, arguments: perform(
            settings, request, arguments, alone=_no_daemon_any_more, timeout_s=timeout_s
        )
        return
    except OSError as error:
        raise _refused(settings, error) from None
    try:
        with alone() as answer:
            yield answer
    finally:
        lock.release()


def _no_daemon_any_more(request: str, _arguments: dict[str, Any]) -> Any:
    raise Unavailable(f"the daemon has ended during {request!r}: run the command again, it goes on with what is left")


def _lock_path(settings: Settings) -> str:
    try:
        os.makedirs(settings.state.dir, exist_ok=True)
    except OSError as error:
        raise _refused(settings, error) from None
    return settings.state.lock_file


def _refused(settings: Settings, error: OSError) -> Misconfigured:
    hint = "; be the user that the daemon runs as" if isinstance(error, PermissionError) else ""
    return Misconfigured(f"cannot use the state folder {settings.state.dir}: {error.strerror or error}{hint}")
