"""What travels over the control socket: one JSON line each way, and what makes a line one that is not taken."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from pigeonholed.errors import Misconfigured, Unavailable, UserError

if TYPE_CHECKING:
    import socket

VERSION = 1


class TooLong(Exception):
    """A line has more bytes than are taken."""


def request_line(request: str, arguments: dict[str, Any]) -> bytes:
    """What asks for something."""
    return _encoded({"version": VERSION, "request": request, "arguments": arguments})


def result_line(result: Any) -> bytes:
    """What says that something was done.

    Raises:
        TypeError, ValueError: JSON cannot hold the result.
    """
    return _encoded({"version": VERSION, "ok": True, "result": result})


def refusal_line(error: str, exit_code: int) -> bytes:
    """What says why something was not done."""
    return _encoded({"version": VERSION, "ok": False, "error": error, "exit_code": exit_code})


def parse_request(line: bytes) -> tuple[str, dict[str, Any]]:
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
            f"the daemon speaks version {VERSION} of the control protocol, the request is of {ascii(version)[:40]}; "
            "start the daemon again after an upgrade"
        )
    if not isinstance(request, str) or not isinstance(arguments, dict):
        raise Unavailable('a request needs a text "request" and an object "arguments"')
    return request, arguments


def parse_reply(line: bytes, source: str) -> Any:
    """The result.

    Args:
        line: what came back.
        source: what it came from, for messages.

    Raises:
        Unavailable: it is no reply, or one of another version.
        UserError: the refusal, with the sentence and the exit code that the daemon gave it.
    """
    try:
        reply = json.loads(line)
        if reply["version"] != VERSION:
            raise Unavailable(f"the daemon at {source} is of another version of pigeonholed; start it again")
        if reply["ok"] is True:
            return reply["result"]
        message, exit_code = str(reply["error"]), int(reply["exit_code"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Unavailable(f"what answers at {source} is no daemon of pigeonholed") from None
    raise _refusal(message, exit_code)


def read_line(connection: socket.socket, ends_s: float, limit: int) -> tuple[bytes, bool]:
    """One line without its end, and whether the end came before the other side stopped.

    Raises:
        TimeoutError: it had not come at `ends_s` (monotonic), however it trickled.
        TooLong: it has more than `limit` bytes, its end included.
    """
    received = bytearray()
    end = -1
    while end < 0:
        left_s = ends_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        connection.settimeout(left_s)
        chunk = connection.recv(65536)
        if not chunk:
            break
        searched = len(received)
        received += chunk
        end = received.find(b"\n", searched)
        if max(end + 1, 0 if end >= 0 else len(received)) > limit:
            raise TooLong
    return (bytes(received[:end]), True) if end >= 0 else (bytes(received), False)


def _refusal(message: str, exit_code: int) -> UserError:
    kinds: dict[int, type[UserError]] = {kind.exit_code: kind for kind in (UserError, Unavailable, Misconfigured)}
    error = kinds.get(exit_code, UserError)(message)
    error.exit_code = exit_code  # type: ignore[misc]  # declared for the class, read from the instance
    return error


def _encoded(message: dict[str, Any]) -> bytes:
    # ASCII, so that names of files that are no valid Unicode travel as escapes and come back as they were.
    return json.dumps(message, ensure_ascii=True, allow_nan=False).encode("ascii") + b"\n"


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is not in JSON")
