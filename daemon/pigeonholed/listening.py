"""Whether what a service listens on can be had: control socket, address of the metrics, token of the page."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import stat
from typing import TYPE_CHECKING

from pigeonholed.control_sockets import listen
from pigeonholed.errors import Misconfigured, Unavailable
from pigeonholed.locking import holder_of

if TYPE_CHECKING:
    from pigeonholed.settings import Settings


def control(settings: Settings) -> str:
    """The control socket: one of a name as long, beside the place of the real one, is really made.

    Raises:
        Misconfigured: it cannot be.
    """
    path = settings.control.socket
    if path.parent == settings.state.dir and not path.parent.exists():
        return f"{path} will be made"
    if os.path.lexists(path) and not stat.S_ISSOCK(path.lstat().st_mode):
        raise Misconfigured(
            f"cannot make the control socket {path}: something that is no socket is there; "
            "move it away, or name another path in [control].socket"
        )
    length = len(os.fsencode(path.name))
    probe = path.with_name((secrets.token_hex(8) + "x" * length)[:length])
    if os.path.lexists(probe):  # only where it has one letter
        return f"{path}"
    try:
        listen(probe).close()
    except OSError as error:
        raise Misconfigured(
            f"cannot make the control socket {path}: {error.strerror or error}; "
            "let this user write to its folder, or name another path in [control].socket, of at most 80 bytes"
        ) from None
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()
    return (
        f"{path} can be made"
        if (holder := holder_of(settings.state.lock_file)) is None
        else f"{path}, of process {holder} now"
    )


def metrics(settings: Settings) -> str:
    """The address of the metrics: it is really listened on.

    Raises:
        Unavailable: it cannot be.
    """
    listening = settings.metrics.listen
    if listening is None:
        return "not served"
    if (holder := holder_of(settings.state.lock_file)) is not None:
        return f"{listening}, served by process {holder} now"
    family = socket.AF_INET6 if ":" in listening.host else socket.AF_INET
    try:
        socket.create_server((listening.host, listening.port), family=family).close()
    except OSError as error:
        raise Unavailable(
            f"cannot listen on {listening}: {os.strerror(error.errno) if error.errno and error.errno > 0 else error}; "
            'choose another address in [metrics].listen, or "" for none'
        ) from None
    return f"{listening} is free"


def token(settings: Settings) -> str:
    """The file that holds the token of the page.

    Raises:
        Misconfigured: it is not there, empty, or not ours alone.
    """
    file = settings.web.token_file
    assert file is not None
    try:
        status = file.stat()
    except OSError as error:
        raise Misconfigured(
            f"cannot read the token file {file}: {error.strerror}; make it with "
            f"'umask 077; openssl rand -hex 32 > {file}', or name another in [web].token_file"
        ) from None
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise Misconfigured(
            f"others can read the token file {file} (mode {stat.S_IMODE(status.st_mode):04o}), and so use the page; "
            f"'chmod 600 {file}' ends that; then put another token into it"
        )
    if not status.st_size:
        raise Misconfigured(f"the token file {file} is empty; 'openssl rand -hex 32 > {file}' fills it")
    return f"the token in {file} is ours alone"
