"""The file of an SQLite database: whether its place will do, and who writes to it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pigeonholed.database import DatabaseUnavailable
from pigeonholed.filesystems import NETWORK, type_of
from pigeonholed.locking import Held, Lock

if TYPE_CHECKING:
    from pathlib import Path


def check_place(file: Path) -> None:
    """Say what is wrong with the place of an SQLite file, of which SQLite says only that it cannot open it.

    Raises:
        DatabaseUnavailable: this user cannot write there, or SQLite cannot work there.
    """
    folder = file.parent
    if not folder.is_dir():
        fault = f"the folder {folder} does not exist; make it, or name another in [database].url"
    elif not os.access(folder, os.W_OK | os.X_OK):
        fault = f"the folder {folder} cannot be written to; let this user write to it, SQLite keeps its journal there"
    elif file.exists() and not os.access(file, os.R_OK | os.W_OK):
        fault = "the file cannot be written to; let this user write to it"
    elif (kind := type_of(str(folder))) in NETWORK:
        fault = f"SQLite's locks and log do not work on a network file system ({kind}); keep it on a local disk"
    else:
        return
    raise DatabaseUnavailable(f"cannot use the database {file}: {fault}")


def lock_path(file: Path) -> str:
    """Where it is said who writes to an SQLite file, whatever names it is known by."""
    return f"{os.path.realpath(file)}.lock"


def lock(file: Path, *, purpose: str) -> Lock:
    """Become the one process that writes: it gives out the ids, whichever state folders others have.

    A file of its own, because SQLite loses its locks when another descriptor of the database is closed.

    Args:
        file: the database.
        purpose: `COMMAND` where it is only borrowed; see `locking`.

    Raises:
        DatabaseUnavailable: another process writes to it, or this user must not.
        OSError: the disk fails.
    """
    try:
        taken = Lock.take_after_commands(lock_path(file), purpose=purpose)
    except Held as held:
        raise DatabaseUnavailable(occupied(file, held.holder)) from None
    except OSError as error:
        raise DatabaseUnavailable(
            f"cannot use the database {file}: {error.filename}: {error.strerror}; let this user write to that file"
        ) from None
    try:
        if os.geteuid() == 0:  # as SQLite does with its own: not in the way of a service that is not root
            owner = os.stat(file if file.exists() else file.parent)
            os.fchown(taken.fd, owner.st_uid, owner.st_gid)
    except BaseException:
        taken.release()  # else this very process would find it held at the next try
        raise
    return taken


def occupied(file: Path, holder: str) -> str:
    """What to tell of a database that another process writes to."""
    return (
        f"process {holder or 'unknown'} already writes to the database {file}, with another state folder; "
        "stop it first, or give this one a database of its own"
    )
