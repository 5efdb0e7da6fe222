"""Which names in an inbox are no pictures: half-written files, hidden files, litter of editors and systems."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

# Case does not matter for any of these: most come from systems that ignore it.
PARTIAL_SUFFIXES = (
    "part", "partial", "crdownload", "download", "opdownload", "fdmdownload", "filepart", "incomplete", "aria2",
    "!ut", "!qb", "bc!", "tmp", "temp", "swp", "swo", "swx",
)  # fmt: skip
"""Endings under which browsers, copiers, download tools and editors write what is not finished."""

SYSTEM_FILES = (
    "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "picasa.ini", "icon\r",
    "4913",  # vim tries with this name whether it may write
    "*:zone.identifier", "thumbs.db:encryptable", "synofile_thumb*", "synoindex_media_info",
)  # fmt: skip
"""What Windows, macOS, editors and storage boxes leave in folders."""

TEMPORARY_FILES = ("~*", "*~", "#*#", "*.sb-????????-??????")
"""Owner files of Office, `~syncthing~` of Syncthing on Windows, back-ups of editors, safe-saving of macOS."""

SYSTEM_FOLDERS = (
    "@eadir", "@tmp", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "$recycle.bin", "recycler",
    "system volume information", "__macosx", "lost+found", "network trash folder", "temporary items",
)  # fmt: skip
"""Folders of Synology, QNAP, Windows, macOS and Linux that hold copies, thumbnails and what was thrown away."""

TEMPORARY_FOLDERS = ("*.download", "*.sb-????????-??????")
"""Packages in which Safari downloads and macOS saves."""

_TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|\[!?[^/][^\]/]*\]|.", re.DOTALL)
_HIDDEN = ".*"  # with .DS_Store, ._*, .nfs*, .syncthing.*, .stfolder, .Trashes, .~lock, what rsync writes, and ours


class NameFilter:
    """Decides by names alone; it never looks at the disk.

    Hidden and built-in names are always ignored, then what `exclude` names, then what `include` does not. A pattern
    without a slash is matched against the name, one with a slash against the path from the inbox, where `*` stays
    within a folder and `**` does not. An `exclude` pattern that names a folder covers all that is in it. Case does
    not matter, so `*.jpg` admits `IMG_1.JPG`.

    The filter is immutable but for a memory of the last folder, which is replaced as one value: threads may share it.
    """

    __slots__ = ("_excluded_path", "_file", "_folder", "_include_name", "_include_path", "_last")

    def __init__(self, include: Iterable[str] = ("*",), exclude: Iterable[str] = ()) -> None:
        names, paths = _split(exclude)
        folder_names = [name.removesuffix("/") for name in names]
        self._folder = _any_of([_HIDDEN, *SYSTEM_FOLDERS, *TEMPORARY_FOLDERS, *folder_names])
        self._file = _any_of([_HIDDEN, *SYSTEM_FILES, *TEMPORARY_FILES, *names], PARTIAL_SUFFIXES)
        self._excluded_path = _any_of(paths) if paths else None
        names, paths = _split(include)
        everything = "*" in names
        self._include_name = None if everything else _any_of(names)
        self._include_path = None if everything else _any_of(paths)
        self._last = ("", False)  # a folder and whether it is ignored: a scan asks for folder after folder

    def ignores(self, relative_path: str) -> bool:
        """Whether the file at this path, relative to the inbox, is to be left alone."""
        if self.excludes(relative_path):
            return True
        if self._include_name is None or self._include_name(relative_path.rpartition("/")[2]):
            return False
        return not (self._include_path and self._include_path(relative_path))

    def excludes(self, relative_path: str) -> bool:
        """The same, whatever `include` says: that speaks of pictures."""
        folder, _, name = relative_path.rpartition("/")
        known, ignored = self._last
        if folder != known:
            ignored = self._ignores_folder(folder)
            self._last = (folder, ignored)
        if ignored or self._file(name):
            return True
        return self._excluded_path is not None and self._excluded_path(relative_path) is not None

    def prunes(self, folder_name: str) -> bool:
        """Whether nothing in a folder of this name, wherever it is, is to be looked at."""
        return self._folder(folder_name) is not None

    def _ignores_folder(self, folder: str) -> bool:
        parts = folder.split("/") if folder else []
        if any(map(self._folder, parts)):
            return True
        paths = ["/".join(parts[:length]) for length in range(1, len(parts) + 1)]
        return self._excluded_path is not None and any(map(self._excluded_path, paths))


def _split(patterns: Iterable[str]) -> tuple[list[str], list[str]]:
    """Patterns of names, a trailing slash (which no name of a file has) kept, and patterns of paths."""
    names, paths = [], []
    for pattern in patterns:
        if "/" in pattern.rstrip("/"):
            paths.append(pattern.strip("/"))
        else:
            names.append(pattern.rstrip("/") + "/" if pattern.endswith("/") else pattern)
    return names, paths


def _any_of(patterns: Sequence[str], suffixes: Sequence[str] = ()) -> Callable[[str], re.Match[str] | None]:
    """A matcher of whole names or paths; suffixes share one alternative, which is three times as fast as one each."""
    alternatives = [_expression(pattern) for pattern in patterns]
    if suffixes:
        alternatives.append(rf".*\.(?:{'|'.join(map(re.escape, suffixes))})")
    return re.compile("|".join(alternatives) or "(?!)", re.IGNORECASE | re.DOTALL).fullmatch


def _expression(pattern: str) -> str:
    """A glob as a regular expression; `*` and `?` stay within a folder, `**` does not.

    A `*` that another one follows in its folder takes as little as it can, and for good: what is left is for the other.
    Without that, a name could be made up for which a pattern of seven `*` takes days.
    """
    pieces: list[str] = []
    star = -1  # where the last one of this folder stands
    for piece in _TOKEN.findall(pattern):
        if piece == "*":
            if star >= 0:
                pieces[star] = "(?>[^/]*?"
                pieces.append(")")
            star = len(pieces)
        elif piece in {"/", "**", "**/"}:
            star = -1
        pieces.append(_piece(piece))
    return "".join(pieces)


def _piece(token: str) -> str:
    fixed = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(token)
    if fixed is not None:
        return fixed
    if len(token) == 1 or "--" in token:
        return re.escape(token)
    body = token[1:-1]
    negated = body.startswith("!")
    escaped = re.sub(r"[^\w-]", lambda match: re.escape(match[0]), body[negated:])
    choice = f"[^/{escaped}]" if negated else f"[{escaped}]"
    try:
        re.compile(choice)
    except re.error:  # a range that runs backwards, such as [z-a]: taken as it is written
        return re.escape(token)
    return choice
