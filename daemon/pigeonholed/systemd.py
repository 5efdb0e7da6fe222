"""What systemd is told of us, by the protocol of sd_notify(3): a datagram to the socket that it names."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping

from pigeonholed.config_errors import one_line


def notify(*lines: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Send state such as `READY=1`, one line each; false where nobody listens. Never raises.

    A line break within a line is escaped: what follows it would be another order to systemd, and names are droppers'.
    """
    address = environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.sendto("\n".join(map(one_line, lines)).encode(), address)
        return True
    return False
