"""Which kind of file system a folder is on, and what is mounted in it, from the kernel's own table of mounts."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "glusterfs", "davfs"})
"""On these a file is on another machine, and what locks and shared memory need is not."""

_TELL_NOTHING = NETWORK | {"9p"}
_ESCAPED = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """Something that is mounted in a folder.

    Attributes:
        below: where, relative to the folder.
        number: of the mount; one that is mounted anew has another.
        kind: the type of its file system.
    """

    below: str
    number: str
    kind: str

    @property
    def gives_events(self) -> bool:
        """Whether its file system tells of what others do in it."""
        return _gives_events(self.kind)


def gives_events(path: str) -> bool:
    """Whether the file system of a folder tells of what others do in it: network file systems and FUSE do not."""
    return _gives_events(type_of(path))


def type_of(path: str) -> str:
    """The type of the mount that holds a folder, from the kernel's table; empty where there is none."""
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    return next((kind for _number, found, _point, kind in _mounts() if found == wanted), "")


def mounts_below(path: str) -> tuple[Mount, ...]:
    """What is mounted in the folders of a folder, in the order of the kernel's table; no file system is asked."""
    root = os.path.realpath(path).rstrip("/") + "/"
    return tuple(
        Mount(point[len(root) :], number, kind) for number, _device, point, kind in _mounts() if point.startswith(root)
    )


def _gives_events(kind: str) -> bool:
    return not (kind in _TELL_NOTHING or kind.startswith("fuse"))


def _mounts() -> Iterator[tuple[str, str, str, str]]:
    """Number, device, mount point and type of each mount; none where the kernel does not tell."""
    try:
        with open("/proc/self/mountinfo", "rb") as table:
            for line in table:
                fields = os.fsdecode(line).split()
                point = os.fsdecode(os.fsencode(_ESCAPED.sub(lambda code: chr(int(code[1], 8)), fields[4])))
                yield fields[0], fields[2], point, fields[fields.index("-") + 1]
    except (OSError, ValueError, IndexError):
        return
