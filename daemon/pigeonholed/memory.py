"""Which files of an inbox are known: with `action = "copy"` or "none" they are still there, and must not come again."""

from __future__ import annotations

import os
from array import array
from typing import TYPE_CHECKING

from pigeonholed.beneath import open_beneath
from pigeonholed.contents import sha256_of_open
from pigeonholed.disk import WAITED_FOR
from pigeonholed.settling import Signature, signature_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pigeonholed.entries import Copied
    from pigeonholed.images import ImageFile
    from pigeonholed.ledger import Ledger


class Memory:
    """The known files of one inbox. The ledger remembers them all; what was seen lately is known without asking it.

    A file is the one that was copied, or looked at, while path, size and modification time are the same. Where its
    inode or its change time are others (permissions were changed, it was moved and moved back, restored, or written to
    by somebody who then set the time back), its content decides.

    Args:
        inbox: its name.
        root: its folder.
        ledger: remembers.
        looked_at: those that were looked at and not copied are known, too.

    Owned by the claiming thread, but for `forget`.
    """

    _SEEN = 1 << 20  # of 8 bytes each, however many files there are

    def __init__(self, inbox: str, root: str, ledger: Ledger, *, looked_at: bool = False) -> None:
        self._inbox = inbox
        self._root = root
        self._ledger = ledger
        self._looked_at = looked_at
        self._generation = 0
        self._seen = array("Q", bytes(8 * self._SEEN))

    def knows(self, path: str) -> bool:
        """Whether a file is certainly one that is known; asks the disk, but never the ledger."""
        signature = self._signature(path)
        return signature is not None and self._was_seen(path, signature)

    def fresh(self, files: Sequence[ImageFile]) -> list[ImageFile]:
        """Those that are not known, at the cost of one query.

        Raises:
            OSError: ETIMEDOUT: the database is away; or a file cannot be read for a fault of the machine.
        """
        generation = self._generation
        signatures = {file.path: self._signature(file.path) for file in files}
        asked = [path for path, found in signatures.items() if found is not None and not self._was_seen(path, found)]
        copied = self._ledger.copied(self._inbox, asked, looked_at=self._looked_at)
        fresh: list[ImageFile] = []
        moved: list[tuple[str, Copied]] = []
        for file in files:
            signature = signatures[file.path]
            if signature is None or self._was_seen(file.path, signature):
                continue
            known = copied.get(file.path)
            try:
                again = None if known is None else self._recognised(file.path, signature, known)
            except OSError as error:
                if error.errno in WAITED_FOR:
                    raise
                continue  # whether it is the one that was copied, nobody knows now; a later look will show
            if known is None or again is None:
                fresh.append(file)
                continue
            if again != known:
                moved.append((file.path, again))
            self._see(file.path, signature, generation)
        self._ledger.remember(self._inbox, moved)
        return fresh

    def forget(self) -> None:
        """Something was forgotten by the ledger: ask it again. Any thread."""
        self._generation += 1
        self._seen = array("Q", bytes(8 * self._SEEN))

    def _recognised(self, path: str, now: Signature, known: Copied) -> Copied | None:
        """What to remember of a file that is the one that was copied; None for another."""
        before = known.original
        if now == before:
            return known
        if (now.size, now.mtime_ns) != (before.size, before.mtime_ns) or self._hash(path) != known.sha256:
            return None
        return type(known)(now, known.sha256, known.image_id)

    def _signature(self, path: str) -> Signature | None:
        try:
            return signature_of(os.lstat(os.path.join(self._root, path)))
        except OSError:
            return None

    def _hash(self, path: str) -> str:
        return sha256_of_open(open_beneath(self._root, path))

    def _was_seen(self, path: str, signature: Signature) -> bool:
        mark = _mark(path, signature)
        return self._seen[mark % self._SEEN] == mark

    def _see(self, path: str, signature: Signature, generation: int) -> None:
        mark = _mark(path, signature)
        seen = self._seen
        if generation == self._generation:
            seen[mark % self._SEEN] = mark


def _mark(path: str, signature: Signature) -> int:
    """64 bits for a file in a version, never 0; of a keyed hash, so that nobody can choose names that collide."""
    text = f"{signature.size} {signature.mtime_ns} {signature.ctime_ns} {signature.inode} {path}"
    return hash(text) & (1 << 64) - 1 or 1
