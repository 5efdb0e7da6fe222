"""What a model says of files that stay where they are: no claim, no row, no move."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pigeonholed.decoding import examine
from pigeonholed.images import Arrival, Decoded, Fingerprint, Reason, Rejected

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pigeonholed.decoding import Demand
    from pigeonholed.images import Handled, ImageFile
    from pigeonholed.serving import Policy, Served

_BATCH = 32


@dataclass(frozen=True, slots=True)
class Looker:
    """Decodes and classifies in batches, by the code of the service.

    Attributes:
        served: the model.
        demand: what is asked of a picture.
        policy: threshold and number of labels.
    """

    served: Served
    demand: Demand
    policy: Policy

    def look(self, files: Iterable[tuple[ImageFile, str]]) -> Iterator[tuple[Handled, str]]:
        """What would become of files (with their full paths), in order; what cannot be read is a result, too."""
        waiting: list[tuple[Handled | Decoded, str]] = []
        for file, path in files:
            waiting.append((self._examined(file, path), path))
            if len(waiting) == _BATCH:
                yield from self._flush(waiting)
                waiting = []
        yield from self._flush(waiting)

    def _flush(self, waiting: list[tuple[Handled | Decoded, str]]) -> Iterator[tuple[Handled, str]]:
        decoded = [item for item, _path in waiting if isinstance(item, Decoded)]
        policies = {item.arrival.file.inbox: self.policy for item in decoded}
        outcomes = iter(self.served.classify(decoded, policies) if decoded else ())
        for item, path in waiting:
            yield (next(outcomes) if isinstance(item, Decoded) else item), path

    def _examined(self, file: ImageFile, path: str) -> Handled | Decoded:
        arrival = Arrival(0, file, "", "", 0.0)
        try:
            return examine(arrival, os.path.realpath(path), self.demand)
        except OSError as error:
            return Rejected(arrival, Fingerprint(None, 0, 0), Reason.IO_ERROR, error.strerror or str(error))
