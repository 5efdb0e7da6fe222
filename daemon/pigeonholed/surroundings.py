"""What of the machine lets a service start, and asks for trouble later: limits, disks, clocks, names."""

from __future__ import annotations

import os
import resource
import shutil
import stat
import sys
import tempfile
import time
from typing import TYPE_CHECKING

from pigeonholed import database_url
from pigeonholed.filesystems import gives_events, type_of
from pigeonholed.inotify_limits import Limit, exhausted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pigeonholed.settings import InboxSettings, Settings

_FEW_FILES = 512  # open at once; a busy service has some hundred
_LITTLE_BYTES = 1_000_000_000
_SKEW_S = 5.0
_LONGEST_COUNT_S = 5.0
_FIRST_YEAR = 2024  # nothing of this program is older


def warnings_of(settings: Settings) -> Iterator[tuple[str, str]]:
    """What was looked at, and what is wrong with it and what to do, for each thing that asks for trouble."""
    yield from _names()
    yield from _clock(settings)
    yield from _files()
    yield from _disks(settings)
    yield from _watching(settings)
    yield from _secrets(settings)


def _names() -> Iterator[tuple[str, str]]:
    encoding = sys.getfilesystemencoding()
    if encoding.lower().replace("-", "") != "utf8":
        yield (
            "locale",
            f"file names are read as {encoding} here, so that others than ASCII look odd in log and database; "
            "say LANG=C.UTF-8 or PYTHONUTF8=1",
        )


def _clock(settings: Settings) -> Iterator[tuple[str, str]]:
    if time.gmtime().tm_year < _FIRST_YEAR:
        yield "clock", f"it is {time.strftime('%Y-%m-%d')} here, which cannot be; set the clock, or let NTP do that"
        return
    for inbox in settings.inbox:
        skew_s = _skew_s(inbox.path)
        if abs(skew_s) > _SKEW_S:
            yield (
                "clock",
                f"the clock of the file system of {inbox.path} is {abs(skew_s):.0f} s "
                f"{'ahead' if skew_s > 0 else 'behind'}; synchronise both machines with NTP",
            )


def _skew_s(folder: Path) -> float:
    """By how much a file system's clock is ahead of ours; 0 where nobody can tell."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
            file.flush()
            return os.fstat(file.fileno()).st_mtime - time.time()
    except OSError:
        return 0.0


def _files() -> Iterator[tuple[str, str]]:
    most, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < _FEW_FILES:
        yield (
            "open files",
            f"this user may have only {most} files open, and work will wait when they are used up; "
            "say 'ulimit -n 4096', or LimitNOFILE=65536 in the unit",
        )


def _disks(settings: Settings) -> Iterator[tuple[str, str]]:
    """Of a disk that several things share, the first is told."""
    told: set[int] = set()
    database = settings.database.file
    places = [("database", database.parent)] if database else []
    places += [(f"output of {inbox.name}", inbox.output) for inbox in settings.inbox if inbox.output is not None]
    for what, folder in [("state", settings.state.dir), *places]:
        there = next(place for place in (folder, *folder.parents) if place.exists())
        device = there.stat().st_dev
        free = shutil.disk_usage(there).free
        if free < _LITTLE_BYTES and device not in told:
            told.add(device)
            yield (
                "disk",
                f"only {free / 1e6:.1f} MB are free for the {what} in {folder}, and work will wait when they are used "
                "up; make room, or choose a larger disk",
            )


def _watching(settings: Settings) -> Iterator[tuple[str, str]]:
    watched = [inbox for inbox in settings.inbox if inbox.watch != "poll" and inbox.path.is_dir()]
    local = [inbox for inbox in watched if gives_events(str(inbox.path))]
    for inbox in watched:
        if inbox.watch == "events" and inbox not in local:
            yield (
                f"inbox {inbox.name}",
                f'watch = "events", but {type_of(str(inbox.path))} does not tell what other machines do: '
                f'files wait up to {inbox.rescan_s:g} s all the same; say watch = "auto"',
            )
    if (limit := exhausted()) is not None:
        yield "inotify", f"{limit.told()}; until then inboxes are scanned every rescan_s"
    most = Limit.WATCHES.value_now()
    if local and most is not None and _folders_below(local, most) > most:
        yield (
            "inotify",
            f"the inboxes have more than {most} folders: {Limit.WATCHES.told()}; "
            "until then some are scanned every rescan_s",
        )


def _folders_below(inboxes: list[InboxSettings], enough: int) -> int:
    """How many folders are watched; no more than about `enough` are counted, and for no longer than some seconds."""
    ends_s = time.monotonic() + _LONGEST_COUNT_S
    count = 0
    for inbox in inboxes:
        for _folder, folders, _names in os.walk(inbox.path):
            count += 1
            if count > enough or time.monotonic() > ends_s:
                return count
            if not inbox.recursive:
                folders.clear()
    return count


def _secrets(settings: Settings) -> Iterator[tuple[str, str]]:
    file, url = settings.source, settings.database.url
    if file is None or database_url.redacted(url) == url:
        return
    mode = stat.S_IMODE(os.stat(file).st_mode)
    if mode & 0o004 and url.split("@")[0].rpartition(":")[2] in file.read_text(encoding="utf-8", errors="replace"):
        yield (
            "configuration",
            f"everybody can read {file} (mode {mode:04o}), and the password of the database in it; "
            f"'chmod o-r {file}' ends that",
        )
