"""The control socket: how commands reach the one process that may change files and rows.

A connection carries one JSON line in and one out:
`{"version": 1, "request": "undo", "arguments": {...}}`, then `{"version": 1, "ok": true, "result": ...}` or
`{"version": 1, "ok": false, "error": "one sentence", "exit_code": 69}`. Only the daemon's own user may connect.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

from pigeonholed import control_lines as lines
from pigeonholed import control_sockets as sockets
from pigeonholed.errors import Misconfigured, Unavailable, UserError

MAX_REQUEST_BYTES = 64 * 1024

Answer = Callable[[str, dict[str, Any]], Any]
"""Does what a request asks and returns something that JSON can hold; called from several threads at a time."""

_MAX_ANSWER_BYTES = 64 * 1024 * 1024

log = structlog.get_logger()


class NoDaemon(Unavailable):
    """Nobody listens: there is no socket, or a killed daemon left it."""


class ControlServer:
    """Answers requests from `start` to `close`, each connection in one of a fixed number of threads.

    Whoever comes while all of them are busy waits in the kernel's queue. A client that is slow, silent or talks
    nonsense costs one thread for `idle_s`, and nothing else.
    """

    def __init__(
        self, path: Path, answer: Answer, *, max_connections: int = 8, idle_s: float = 5.0, grace_s: float = 5.0
    ) -> None:
        """Nothing is opened until `start`.

        Args:
            path: of the socket, in an existing folder; of any length, but its last part has about 80 bytes at most.
            answer: what it raises goes back as a refusal; a `UserError` with its message and exit code.
            max_connections: served at a time.
            idle_s: seconds within which a request must have come, and its answer must have been taken.
            grace_s: seconds that `close` waits for requests that are being answered.
        """
        self._path = path
        self._answer = answer
        self._idle_s = idle_s
        self._grace_s = grace_s
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._reading: set[socket.socket] = set()  # guarded by _lock
        self._listener: socket.socket | None = None
        self._inode: tuple[int, int] | None = None
        self._threads = [
            threading.Thread(target=self._serve, name=f"control-{number}", daemon=True)
            for number in range(max_connections)
        ]

    def start(self) -> None:
        """Make the socket, mode 0600 from its first moment, and begin to answer; a dead one is replaced.

        Raises:
            Unavailable: another process answers there.
            Misconfigured: the socket cannot be made there; what is there and is no socket is left alone.
        """
        try:
            self._listener = sockets.listen(self._path)
        except OSError as error:
            raise Misconfigured(
                f"cannot make the control socket {self._path}: {error.strerror or error}; "
                "name a path in a folder of this user, on a local file system, in [control].socket"
            ) from None
        self._inode = sockets.inode_of(self._path)
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Take no more requests, and let those that are being answered end within `grace_s`. May be called twice."""
        self._closing.set()
        if self._listener is None:
            return
        if self._inode is not None and sockets.inode_of(self._path) == self._inode:  # never another daemon's
            with contextlib.suppress(OSError):
                self._path.unlink()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes every thread that waits for a connection
        with self._lock:
            for connection in self._reading:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RD)
        ends_s = time.monotonic() + self._grace_s
        for thread in self._threads:
            thread.join(max(0.0, ends_s - time.monotonic()))
        self._listener.close()
        self._listener = None

    def _serve(self) -> None:
        listener = self._listener
        while listener is not None and not self._closing.is_set():
            try:
                connection, _address = listener.accept()
            except OSError:
                self._closing.wait(0.5)  # told to end, or out of descriptors: then this must not spin
                continue
            with connection:
                try:
                    self._converse(connection)
                except OSError:
                    pass  # the client went away; what it asked for has been done all the same
                except Exception:
                    log.error("control_connection_failed", exc_info=True)

    def _converse(self, connection: socket.socket) -> None:
        try:
            line, complete = self._read(connection)
        except TimeoutError:
            reply = _refusal(f"no complete request came within {self._idle_s:g} s")
        except lines.TooLong:
            reply = _refusal(f"a request has at most {MAX_REQUEST_BYTES} bytes")
        else:
            if not line and not complete:
                return  # somebody only looked whether anybody is here
            reply = self._reply(line) if complete else _refusal("the request broke off")
        connection.settimeout(self._idle_s)
        connection.sendall(reply)

    def _read(self, connection: socket.socket) -> tuple[bytes, bool]:
        with self._lock:
            if self._closing.is_set():
                return b"", False
            self._reading.add(connection)
        try:
            return lines.read_line(connection, time.monotonic() + self._idle_s, MAX_REQUEST_BYTES)
        finally:
            with self._lock:
                self._reading.discard(connection)

    def _reply(self, line: bytes) -> bytes:
        from pigeonholed.bundle import BundleError
        from pigeonholed.config_errors import ConfigError

        request = "(unread)"
        try:
            request, arguments = lines.parse_request(line)
            return lines.result_line(self._answer(request, arguments))
        except UserError as error:
            return lines.refusal_line(str(error), error.exit_code)
        except (BundleError, ConfigError) as error:
            return lines.refusal_line(str(error), Misconfigured.exit_code)
        except Exception as error:  # a fault of ours must neither end the daemon nor leave the client waiting
            log.error("control_request_failed", request=request, exc_info=True)
            cause = f"{type(error).__name__}: {error}"
            return lines.refusal_line(f"the daemon failed at {request!a} ({cause}); its log says more", 1)


def ask(path: Path, request: str, arguments: dict[str, Any], *, timeout_s: float = 30.0) -> Any:
    """Ask the daemon that listens at `path`, and return its result.

    Args:
        path: of the socket; a symbolic link is not followed.
        request: which one.
        arguments: what JSON can hold.
        timeout_s: for all of it; the daemon goes on with a request whose client has given up.

    Raises:
        NoDaemon: nobody listens there.
        Unavailable: the daemon cannot be reached, or did not answer in time.
        UserError: the daemon refused, with its sentence and its exit code.
    """
    line = lines.request_line(request, arguments)
    if len(line) > MAX_REQUEST_BYTES:
        raise UserError(f"cannot ask the daemon for {request!a}: that takes more than {MAX_REQUEST_BYTES} bytes")
    try:
        reply, complete = _exchange(path, line, time.monotonic() + timeout_s)
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        raise NoDaemon(f"no daemon answers at {path}") from None
    except TimeoutError:
        raise Unavailable(
            f"the daemon at {path} did not answer within {timeout_s:g} s; it may still be doing what it was asked, "
            "see 'pigeonholed status'"
        ) from None
    except OSError as error:
        raise _unreachable(path, error) from None
    except lines.TooLong:
        raise Unavailable(f"the daemon at {path} answered with more than {_MAX_ANSWER_BYTES} bytes; ask less") from None
    if not complete:
        raise Unavailable(
            f"the daemon at {path} ended before it answered; look whether it has done what it was asked, then ask again"
        )
    return lines.parse_reply(reply, str(path))


def _exchange(path: Path, line: bytes, ends_s: float) -> tuple[bytes, bool]:
    """Send a line, and return the one that comes back and whether it is whole."""
    with sockets.dial(path, ends_s) as connection:
        connection.settimeout(max(0.001, ends_s - time.monotonic()))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(line)  # it may refuse before it has read all; its answer says why
        try:
            return lines.read_line(connection, ends_s, _MAX_ANSWER_BYTES)
        except ConnectionResetError:
            return b"", False


def _unreachable(path: Path, error: OSError) -> UserError:
    if error.errno == errno.ENOTSOCK:
        return Misconfigured(f"cannot reach the daemon: {path} is no socket; [control].socket must name the daemon's")
    if error.errno in {errno.EACCES, errno.EPERM}:
        return Unavailable(f"cannot reach the daemon at {path}: {error.strerror}; be the user that the daemon runs as")
    return Unavailable(f"cannot reach the daemon at {path}: {error.strerror or error}")


def _refusal(error: str) -> bytes:
    return lines.refusal_line(error, Unavailable.exit_code)
