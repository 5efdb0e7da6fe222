"""How the files of one inbox leave it: for which output, under which names, and the way back."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from pigeonholed import beneath
from pigeonholed.custody import Renaming
from pigeonholed.disk import is_there
from pigeonholed.placing import alternatives

if TYPE_CHECKING:
    from pigeonholed.custody import Custody
    from pigeonholed.images import Arrival
    from pigeonholed.output import Output
    from pigeonholed.placing import Placer


@dataclass(frozen=True, slots=True)
class Delivery:
    """How the files of one inbox leave it.

    Attributes:
        inbox: the folder they came from.
        output: the folder they go to.
        placer: renders their destinations.
        custody: how they were taken, and how they go back; by renaming, where nothing else is said.
        nowhere: the configuration names no output for them; `output` holds nothing then.
        sets_aside: what has the same bytes as a filed picture of the inbox goes to a folder of its own.
    """

    inbox: str
    output: Output
    placer: Placer
    custody: Custody = None  # type: ignore[assignment]
    nowhere: bool = False
    sets_aside: bool = False

    def __post_init__(self) -> None:
        if self.custody is None:
            object.__setattr__(self, "custody", Renaming(self.inbox, self.output))

    def give_back(self, arrival: Arrival) -> None:
        """Put a file that is claimed, or a companion, back into the inbox, durably; never over another.

        Raises:
            FileExistsError: no name is free.
            OSError: the disk fails.
        """
        source = self.output.work_path(arrival)
        wanted = (arrival.file.path, os.path.basename(arrival.file.path))  # the other where its folder is none any more
        for name in chain.from_iterable(alternatives(path, arrival.key, lambda _path: False) for path in wanted):
            target = os.path.join(self.inbox, name)
            try:
                with beneath.folder(self.inbox, os.path.dirname(name), make=True) as folder:
                    self.custody.put_back(source, os.path.join(beneath.path_of(folder), os.path.basename(name)))
            except (FileExistsError, NotADirectoryError):
                continue
            # Before the row is closed: after a power cut no file may be in the work folder without a row that lives.
            self.output.disk.sync([], [os.path.dirname(target), self.output.batch_folder(arrival.token)])
            return
        raise FileExistsError(errno.EEXIST, "no name is free to give a file back under", self.inbox)

    def give_back_companions(self, arrival: Arrival) -> None:
        """Put back what came with a picture that leaves no result; safe to repeat.

        Raises:
            OSError: as of `give_back`.
        """
        for companion in arrival.companions:
            if is_there(self.output.work_path(companion)):
                self.give_back(companion)
