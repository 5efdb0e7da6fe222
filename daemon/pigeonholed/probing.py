"""Which custody an inbox gets: tried by real renames when its folder is there, never guessed from device numbers."""

from __future__ import annotations

import errno
import os
import threading
from typing import TYPE_CHECKING

import structlog

from pigeonholed.copy_custody import Copying
from pigeonholed.custody import Custody, Ingested, Renaming
from pigeonholed.hold_folder import HoldFolder
from pigeonholed.memory import Memory
from pigeonholed.originals import Held, InPlace
from pigeonholed.output import OutputRefused
from pigeonholed.paths import to_text
from pigeonholed.probes import discard, make_probe, new_token, probe_name
from pigeonholed.staying import Staying

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pigeonholed.images import Arrival, ImageFile
    from pigeonholed.ledger import Ledger
    from pigeonholed.output import Output
    from pigeonholed.patience import Patience
    from pigeonholed.settings import InboxSettings

log = structlog.get_logger()


def choose(inbox: InboxSettings, output: Output, ledger: Ledger) -> Custody:
    """Find out how files can be taken out of an inbox that is there.

    Raises:
        OutputRefused: they cannot be taken at all.
    """
    path = str(inbox.path)
    if inbox.action != "move":
        if not os.access(path, os.R_OK | os.X_OK):
            raise OutputRefused(f"cannot read the inbox {path}: let this user look into that folder")
        if inbox.action == "none":
            return Staying(InPlace(path, Memory(inbox.name, path, ledger, looked_at=True)), output)
        return Copying(InPlace(path, Memory(inbox.name, path, ledger)), output, ledger)
    renames = output.check_source(path)
    if renames and not inbox.hostile:
        return Renaming(path, output)
    hold = HoldFolder.in_output(output) if renames else HoldFolder.in_inbox(path, private=inbox.hostile)
    if not renames:
        _try(path, hold)
    log.info(
        "files_are_copied", inbox=inbox.name, because="hostile" if renames else "other mount", hold=to_text(hold.root)
    )
    return Copying(Held(path, hold), output, ledger)


def _try(inbox: str, hold: HoldFolder) -> None:
    """Rename a file of our own into the hold folder."""
    token = new_token()
    name = probe_name(token)
    probe = os.path.join(inbox, name)
    try:
        folder = hold.folder(token)
        make_probe(probe)
        os.rename(probe, name, dst_dir_fd=folder)
        os.unlink(name, dir_fd=folder)
    except OSError as error:
        raise OutputRefused(
            f"cannot hold files of the inbox {inbox} in {hold.root} while they are copied to another mount: "
            f"{error.strerror}; remove that folder, and let this user write to the inbox"
        ) from None
    finally:
        discard(probe)
        hold.remove(token)
        hold.remove_root()


class Probed:
    """The custody of one inbox, chosen when its folder is first there, and again after a mount has come between.

    Used by the claiming thread, and by whoever puts files back: these may meet only where it is chosen.
    """

    def __init__(self, inbox: InboxSettings, output: Output, ledger: Ledger) -> None:
        self._inbox = inbox
        self._output = output
        self._ledger = ledger
        self._lock = threading.Lock()
        self._stale = False
        self._chosen: Custody | None = None
        if os.path.isdir(inbox.path):
            self._custody()

    @property
    def copies(self) -> bool:
        """Whether what waits in the work folder is a copy; not known while the inbox is away."""
        return self._chosen is not None and self._chosen.copies

    @property
    def keeps(self) -> bool:
        """Whether originals stay in the inbox."""
        return self._inbox.action != "move"

    @property
    def rows_only(self) -> bool:
        """Whether files are only looked at."""
        return self._inbox.action == "none"

    def knows(self, path: str) -> bool:
        """Whether a file is known to have been taken before."""
        return self._chosen is not None and self._chosen.knows(path)

    def fresh(self, files: Sequence[ImageFile]) -> Sequence[ImageFile]:
        """Those that have not been taken before."""
        return self._custody().fresh(files)

    def begin(self, token: str) -> None:
        """Make what a batch needs; between batches another custody may be chosen."""
        if self._stale:
            self.close()
        self._custody().begin(token)

    def take(self, arrival: Arrival) -> None:
        """Take a file out of its inbox."""
        try:
            self._custody().take(arrival)
        except OSError as error:
            self._stale = error.errno == errno.EXDEV
            raise

    def has(self, arrival: Arrival) -> bool:
        """Whether `take` has happened."""
        return self._custody().has(arrival)

    def ingest(self, arrivals: Sequence[Arrival], patience: Patience) -> Ingested:
        """Return when what was taken is in the work folder."""
        return self._custody().ingest(arrivals, patience)

    def end(self, token: str) -> None:
        """A batch is over."""
        self._custody().end(token)

    def tidy(self) -> None:
        """Try again to remove what resisted."""
        if self._chosen is not None:
            self._chosen.tidy()

    def release(self, arrivals: Sequence[Arrival]) -> None:
        """These have ended."""
        if self._chosen is not None:
            self._chosen.release(arrivals)

    def put_back(self, source: str, target: str) -> None:
        """Move a file of the output to a place in the inbox."""
        self._custody().put_back(source, target)

    def forget(self) -> None:
        """Files were put back, and the ledger has forgotten them."""
        if self._chosen is not None:
            self._chosen.forget()

    def close(self) -> None:
        """Leave nothing behind; the next use chooses anew."""
        with self._lock:
            if self._chosen is not None:
                self._chosen.close()
            self._chosen, self._stale = None, False

    def _custody(self) -> Custody:
        with self._lock:
            if self._chosen is None:
                self._chosen = choose(self._inbox, self._output, self._ledger)
            return self._chosen
