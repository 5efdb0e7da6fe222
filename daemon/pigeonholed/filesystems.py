"""Which kind of file system a folder is on, from the kernel's own table of mounts."""

from __future__ import annotations

import os

NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "glusterfs", "davfs"})
"""On these a file is on another machine, and what locks and shared memory need is not."""

_TELL_NOTHING = NETWORK | {"9p"}


def gives_events(path: str) -> bool:
    """Whether the file system of a folder tells of what others do in it: network file systems and FUSE do not."""
    kind = type_of(path)
    return not (kind in _TELL_NOTHING or kind.startswith("fuse"))


def type_of(path: str) -> str:
    """The type of the mount that holds a folder, from the kernel's table; empty where there is none."""
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
            for line in table:
                fields = line.split()
                if fields[2] == wanted:
                    return fields[fields.index("-") + 1]
    except (OSError, ValueError, IndexError):
        pass
    return ""
