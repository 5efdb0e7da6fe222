"""The inside of a decoding process: it is sent pictures through a pipe and answers with pixels, and can do little else.

The service starts one with `python -m pigeonholed.confined PARENT` (`isolation`). It knows no configuration, opens no
file, and ends with its parent. A message is the lengths of a header and of a body, the header as JSON, and the body.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import math
import os
import resource
import signal
import struct
import sys
import time
from typing import TYPE_CHECKING, Any

from pigeonholed import imaging
from pigeonholed.formats import Format, sniff

if TYPE_CHECKING:
    from collections.abc import Callable

_LENGTHS = struct.Struct("!IQ")
LONGEST_HEADER = 1 << 16

# linux/prctl.h
_SET_PDEATHSIG, _SET_DUMPABLE, _SET_NO_NEW_PRIVS = 1, 4, 38

# What decoding takes at its worst, four channels of 64 bits, and what the process has before it begins.
_BYTES_PER_PIXEL = 32
_BASE_BYTES = 1 << 30


def packed(header: dict[str, Any], body_size: int = 0) -> bytes:
    """A message without its body, which goes after it as it is."""
    text = json.dumps(header).encode()
    return _LENGTHS.pack(len(text), body_size) + text


def unpacked(read: Callable[[int], bytes], longest_body: int) -> tuple[dict[str, Any], bytes]:
    """Read a message.

    Args:
        read: returns exactly as many bytes as it is asked for.
        longest_body: bytes that the body may have.

    Raises:
        ValueError: it is no message.
    """
    header_size, body_size = _LENGTHS.unpack(read(_LENGTHS.size))
    if header_size > LONGEST_HEADER or body_size > longest_body:
        raise ValueError("a message is too long")
    header = json.loads(read(header_size))
    if not isinstance(header, dict):
        raise ValueError("a message has no header")
    return header, read(body_size)


def main() -> None:
    """Answer until the pipe is closed. A picture that decodes to anything but pixels or a reason is the end of it."""
    requests, answers = 0, os.dup(1)
    os.dup2(2, 1)  # what a library prints is no answer
    imaging.configure()
    _import_what_comes_late()
    _confine(int(sys.argv[1]))
    _write(answers, packed({"ready": True}))
    while True:
        try:
            request, data = unpacked(lambda size: _read(requests, size), sys.maxsize)
        except EOFError:
            return
        try:
            _limit(data, request["max_pixels"], request["limit_s"])
            header, pixels = _answer(request, data)
            _set(resource.RLIMIT_AS, resource.RLIM_INFINITY)  # the next may be larger
        except BaseException as error:
            _write(answers, packed({"died": f"{type(error).__name__}: {error}"[:500]}))
            raise
        del data
        _write(answers, packed(header, len(pixels)))
        _write(answers, pixels)


def _answer(request: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
    spec = imaging.PixelSpec(request["height"], request["width"], request["fit"])
    try:
        picture = imaging.decode(
            data, spec, max_pixels=request["max_pixels"], allow_truncated=request["allow_truncated"]
        )
    except imaging.ImagingError as error:
        return {"reason": error.reason.value, "detail": error.detail}, b""
    return {"width": picture.width, "height": picture.height}, picture.pixels.tobytes()


def _import_what_comes_late() -> None:
    """Decoders that are imported when they are first needed: from now on no file can be opened."""
    for name in ("pillow_heif", "PIL.AvifImagePlugin", "PIL.ImageOps"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def _confine(parent: int) -> None:
    """Give up what decoding does not need, for good."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # meant for the service, which ends this process when it likes
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("1000")  # where memory runs out, this process goes first
    prctl = ctypes.CDLL(None).prctl
    prctl(_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)  # it had died before
    prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    prctl(_SET_DUMPABLE, 0, 0, 0, 0)
    # No core, and neither file nor socket is opened: the pipes are open already. `_limit` is for threads.
    for limit in (resource.RLIMIT_CORE, resource.RLIMIT_NOFILE):
        resource.setrlimit(limit, (0, 0))
    _set(resource.RLIMIT_NPROC, 0)


def _limit(data: bytes, max_pixels: int, limit_s: float) -> None:
    """Bound what the next picture may take; the parent looks at the clock, this is for when nobody does.

    It starts no process and no thread, but for HEIF: libde265 does nothing without one of its own.
    """
    _set(resource.RLIMIT_NPROC, resource.RLIM_INFINITY if sniff(data[:64]) is Format.HEIF else 0)
    _set(resource.RLIMIT_AS, _BASE_BYTES + 3 * len(data) + _BYTES_PER_PIXEL * max_pixels)
    _set(resource.RLIMIT_CPU, math.ceil(time.process_time() + limit_s) + 1)


def _set(limit: int, value: int) -> None:
    _soft, hard = resource.getrlimit(limit)
    finite = [number for number in (value, hard) if number != resource.RLIM_INFINITY]
    resource.setrlimit(limit, (min(finite, default=resource.RLIM_INFINITY), hard))


def _read(fd: int, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = os.read(fd, min(size - len(data), 1 << 20))
        if not part:
            raise EOFError
        data += part
    return bytes(data)


def _write(fd: int, data: bytes) -> None:
    """Write all; where nobody wants to know any more, this process has no business."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(fd, rest) :]
        except BrokenPipeError:
            sys.exit()


if __name__ == "__main__":
    main()
