"""Who could put other bytes in the place of a model: owners and permissions, as sshd's StrictModes looks at them.

Whoever can write a model decides what it answers. So the store, and every folder and file of a version in it, belong to
root, to this process, or to the owner of the store, and nobody else can write there. What is not refused:

- A store of another user. Naming it in the configuration is trusting whoever owns it; but not where a folder above it
  is open to everybody, as /tmp is, because anyone could have made it first.
- Group-writable, where the group is a user's private one (umask 002): nobody else is in it.
- A folder above the store that is another's, or open to all. In containers and on shared disks that is usual, and
  whoever could put another store in its place could not make it belong to us; only a store that is ours already.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_ACL = "system.posix_acl_access"


class Distrusted(Exception):
    """Somebody else could change this; the message is the end of a sentence, with the command that mends it."""


def check(root: Path, inside: Iterable[str]) -> None:
    """Refuses a store that somebody else could change.

    Args:
        root: the store's folder.
        inside: what is in it and shall be used, each folder on the way included.

    Raises:
        Distrusted: names the first path, whose it is or who can write to it, and what to do.
        OSError: something cannot be looked at.
    """
    trusted = {0, os.geteuid()}
    if not any(os.stat(folder).st_mode & 0o002 for folder in _above(root)):
        trusted.add(os.stat(root).st_uid)
    _check(os.fspath(root), os.stat(root), trusted)
    for path in inside:
        _check(path, os.lstat(path), trusted)


def tree(folder: Path) -> Iterator[str]:
    """A folder, and every file and folder in it."""
    yield os.fspath(folder)
    for where, folders, files in os.walk(folder):
        yield from (os.path.join(where, name) for name in (*folders, *files))


def _above(root: Path) -> list[str]:
    """The folders on the way to `root`, as it is named and, where links lead there, as it really is."""
    ways = [os.path.abspath(root), os.path.realpath(root)]
    above: dict[str, None] = {}
    for way in ways:
        while way != (way := os.path.dirname(way)):
            above[way] = None
    return list(above)


def _check(path: str, status: os.stat_result, trusted: set[int]) -> None:
    if status.st_uid not in trusted:
        raise Distrusted(
            f"{path} belongs to {_user(status.st_uid)}, who could replace it; "
            f"if it is to be trusted, 'chown {_user(os.geteuid())} {path}' says so"
        )
    if stat.S_ISLNK(status.st_mode):
        return  # a link has no permissions of its own, and is refused elsewhere
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o002:
        raise Distrusted(f"everybody can write to {path} (mode {mode:04o}); 'chmod go-w {path}' ends that")
    if mode & 0o020 and not _is_private(path, status.st_gid, trusted):
        raise Distrusted(
            f"the group {_group(status.st_gid)} can write to {path} (mode {mode:04o}); 'chmod g-w {path}' ends that"
        )


def _is_private(path: str, gid: int, trusted: set[int]) -> bool:
    """Whether nobody but trusted users is in a group; nobody is in one that has no name here, as in containers."""
    try:
        if _ACL in os.listxattr(path):
            return False  # the bits of the group then stand for all that the list names
    except OSError:
        pass  # a file system without such lists
    try:
        members = {pwd.getpwnam(name).pw_uid for name in _named_in(gid)}
    except KeyError:
        return False  # of a user who is not known here, nothing is
    return members | {user.pw_uid for user in pwd.getpwall() if user.pw_gid == gid} <= trusted


def _named_in(gid: int) -> list[str]:
    try:
        return grp.getgrgid(gid).gr_mem
    except KeyError:
        return []


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
