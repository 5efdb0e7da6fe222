"""The control socket: how commands reach the one process that may change files and rows.

A connection carries one JSON line in and one out:
`{"version": 1, "request": "undo", "arguments": {...}}`, then `{"version": 1, "ok": true, "result": ...}` or
`{"version": 1, "ok": false, "error": "one sentence", "exit_code": 69}`. Only the daemon's own user may connect.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

from pigeonholed.errors import Misconfigured, Unavailable, UserError

VERSION = 1
MAX_REQUEST_BYTES = 64 * 1024

Answer = Callable[[str, dict[str, Any]], Any]
"""Does what a request asks and returns something that JSON can hold; called from several threads at a time."""

_MAX_ANSWER_BYTES = 64 * 1024 * 1024
_LONGEST_ADDRESS = 107  # bytes, of what the kernel takes as the path of a socket
_BACKLOG = 64
_INTERNAL_EXIT_CODE = 1

log = structlog.get_logger()


class NoDaemon(Unavailable):
    """Nobody listens: there is no socket, or a killed daemon left it."""


class _TooLong(Exception):
    """More came than is taken."""


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
            self._listener = _listen(self._path)
        except OSError as error:
            raise Misconfigured(
                f"cannot make the control socket {self._path}: {error.strerror or error}; "
                "name a path in a folder of this user, on a local file system, in [control].socket"
            ) from None
        self._inode = _inode(self._path)
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Take no more requests, and let those that are being answered end within `grace_s`. May be called twice."""
        self._closing.set()
        if self._listener is None:
            return
        if self._inode is not None and _inode(self._path) == self._inode:  # never another daemon's
            with contextlib.suppress(OSError):
                os.unlink(self._path)
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
            reply = _refusal(f"no complete request came within {self._idle_s:g} s", Unavailable.exit_code)
        except _TooLong:
            reply = _refusal(f"a request has at most {MAX_REQUEST_BYTES} bytes", Unavailable.exit_code)
        else:
            if not line and not complete:
                return  # somebody only looked whether anybody is here
            reply = self._reply(line) if complete else _refusal("the request broke off", Unavailable.exit_code)
        connection.settimeout(self._idle_s)
        connection.sendall(reply)

    def _read(self, connection: socket.socket) -> tuple[bytes, bool]:
        with self._lock:
            if self._closing.is_set():
                return b"", False
            self._reading.add(connection)
        try:
            return _read_line(connection, time.monotonic() + self._idle_s, MAX_REQUEST_BYTES)
        finally:
            with self._lock:
                self._reading.discard(connection)

    def _reply(self, line: bytes) -> bytes:
        from pigeonholed.bundle import BundleError
        from pigeonholed.config_errors import ConfigError

        request = "?"
        try:
            request, arguments = _parsed(line)
            return _encoded({"version": VERSION, "ok": True, "result": self._answer(request, arguments)})
        except UserError as error:
            return _refusal(str(error), error.exit_code)
        except (BundleError, ConfigError) as error:
            return _refusal(str(error), Misconfigured.exit_code)
        except Exception as error:  # a fault of ours must neither end the daemon nor leave the client waiting
            log.error("control_request_failed", request=request, exc_info=True)
            return _refusal(
                f"the daemon failed at the request {request!a} ({type(error).__name__}: {error}); its log says more",
                _INTERNAL_EXIT_CODE,
            )


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
    line = _encoded({"version": VERSION, "request": request, "arguments": arguments})
    if len(line) > MAX_REQUEST_BYTES:
        raise UserError(f"cannot ask the daemon for {request!r}: it takes {MAX_REQUEST_BYTES} bytes at a time; ask less")
    ends_s = time.monotonic() + timeout_s
    try:
        with _dial_patiently(path, ends_s) as connection:
            connection.settimeout(max(0.001, ends_s - time.monotonic()))
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(line)  # it may refuse before it has read all; its answer says why
            reply, complete = _read_line(connection, ends_s, _MAX_ANSWER_BYTES)
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        raise NoDaemon(f"no daemon answers at {path}") from None
    except TimeoutError:
        raise Unavailable(
            f"the daemon at {path} did not answer within {timeout_s:g} s; it may still be doing what it was asked, "
            "see 'pigeonholed status'"
        ) from None
    except ConnectionResetError:
        reply, complete = b"", False
    except OSError as error:
        raise _unreachable(path, error) from None
    except _TooLong:
        raise Unavailable(f"the daemon at {path} answered with more than {_MAX_ANSWER_BYTES} bytes; ask less") from None
    if not complete:
        raise Unavailable(
            f"the daemon at {path} ended before it answered; look whether it has done what it was asked, then ask again"
        )
    return _result(reply, path)


def _unreachable(path: Path, error: OSError) -> UserError:
    if error.errno in {errno.ENOTSOCK, errno.ELOOP}:
        return Misconfigured(f"cannot reach the daemon: {path} is no socket; [control].socket must name the daemon's")
    if error.errno in {errno.EACCES, errno.EPERM}:
        return Unavailable(f"cannot reach the daemon at {path}: {error.strerror}; be the user that the daemon runs as")
    return Unavailable(f"cannot reach the daemon at {path}: {error.strerror or error}")


def _result(line: bytes, path: Path) -> Any:
    try:
        reply = json.loads(line)
        if reply["version"] != VERSION:
            raise Unavailable(
                f"the daemon at {path} is of another version of pigeonholed; start it again after the upgrade"
            )
        if reply["ok"] is True:
            return reply["result"]
        message, exit_code = str(reply["error"]), int(reply["exit_code"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Unavailable(f"what answers at {path} is no daemon of pigeonholed") from None
    raise _error(message, exit_code)


def _error(message: str, exit_code: int) -> UserError:
    kinds: dict[int, type[UserError]] = {kind.exit_code: kind for kind in (UserError, Unavailable, Misconfigured)}
    error = kinds.get(exit_code, UserError)(message)
    error.exit_code = exit_code  # type: ignore[misc]  # declared for the class, read from the instance
    return error


def _parsed(line: bytes) -> tuple[str, dict[str, Any]]:
    """The request and its arguments.

    Raises:
        Unavailable: it is none, or one of another version.
    """
    try:
        message = json.loads(line, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise Unavailable("the request is no JSON") from None
    if not isinstance(message, dict):
        raise Unavailable("the request is no JSON object")
    version, request, arguments = message.get("version"), message.get("request"), message.get("arguments", {})
    if isinstance(version, bool) or version != VERSION:
        raise Unavailable(
            f"the daemon speaks version {VERSION} of the control protocol, and the request is of {_short(version)}; "
            "start the daemon again after an upgrade"
        )
    if not isinstance(request, str) or not isinstance(arguments, dict):
        raise Unavailable('a request needs a text "request" and an object "arguments"')
    return request, arguments


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is not in JSON")


def _short(value: object) -> str:
    return ascii(value)[:40]


def _encoded(message: dict[str, Any]) -> bytes:
    # ASCII, so that names of files that are no valid Unicode travel as escapes and come back as they were.
    return json.dumps(message, ensure_ascii=True, allow_nan=False).encode("ascii") + b"\n"


def _refusal(error: str, exit_code: int) -> bytes:
    return _encoded({"version": VERSION, "ok": False, "error": error, "exit_code": exit_code})


def _read_line(connection: socket.socket, ends_s: float, limit: int) -> tuple[bytes, bool]:
    """One line without its end, and whether the end came before the other side stopped.

    Raises:
        TimeoutError: it had not come at `ends_s` (monotonic), however it trickled.
        _TooLong: it has more than `limit` bytes.
    """
    received = bytearray()
    chunk = b""
    while b"\n" not in chunk:
        left_s = ends_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        connection.settimeout(left_s)
        chunk = connection.recv(65536)
        if not chunk:
            break
        received += chunk
        if len(received) > limit and (b"\n" not in chunk or received.index(b"\n") >= limit):
            raise _TooLong
    line, end, _more = bytes(received).partition(b"\n")
    return line, bool(end)


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # On Linux, what bind makes gets the mode of the socket itself: there is no moment at which others may connect,
        # and no umask is changed, which other threads would feel.
        os.fchmod(listener.fileno(), 0o600)
        try:
            _bind(listener, path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            _remove_dead(path)
            _bind(listener, path)
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def _bind(listener: socket.socket, path: Path) -> None:
    if len(os.fsencode(path)) <= _LONGEST_ADDRESS:
        listener.bind(os.fspath(path))
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        short = f"/proc/self/fd/{folder}/{path.name}"
        if len(os.fsencode(short)) > _LONGEST_ADDRESS:
            raise OSError(errno.ENAMETOOLONG, "its name is too long for a socket")
        listener.bind(short)
    finally:
        os.close(folder)


def _remove_dead(path: Path) -> None:
    """Remove the socket of a killed daemon.

    Raises:
        Unavailable: its daemon lives.
        OSError: what is there is no socket.
    """
    before = _inode(path)
    try:
        _dial(path, 1.0).close()
    except ConnectionRefusedError:
        if before is not None and _inode(path) == before:
            os.unlink(path)
        return
    except FileNotFoundError:
        return
    except (TimeoutError, BlockingIOError):
        pass  # it is so busy that it must be alive
    except OSError as error:
        if error.errno not in {errno.ENOTSOCK, errno.ELOOP}:
            raise
        raise OSError(errno.EEXIST, "something that is no socket is there, and is left alone") from None
    raise Unavailable(
        f"another process answers at the control socket {path}; stop it, or name another path in [control].socket"
    )


def _dial_patiently(path: Path, ends_s: float) -> socket.socket:
    """Connect; where the queue of those who wait is full, wait until it is not."""
    while True:
        try:
            return _dial(path, max(0.001, ends_s - time.monotonic()))
        except BlockingIOError:
            if time.monotonic() >= ends_s:
                raise TimeoutError from None
            time.sleep(0.02)


def _dial(path: Path, timeout_s: float) -> socket.socket:
    """Connect to exactly what is at `path`: no link is followed, and the path may be of any length."""
    target = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not stat.S_ISSOCK(os.fstat(target).st_mode):
            raise OSError(errno.ENOTSOCK, "it is no socket")
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(timeout_s)
            connection.connect(f"/proc/self/fd/{target}")
        except BaseException:
            connection.close()
            raise
        return connection
    finally:
        os.close(target)


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
