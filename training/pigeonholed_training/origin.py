"""Where a run's pictures are: written beside its results, so that they can be looked at again."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pigeonholed_training.errors import Misconfigured

if TYPE_CHECKING:
    from pigeonholed_training.runs import RunFolder

FILE = "origin.json"


@dataclass(frozen=True, slots=True)
class Origin:
    """What a run was made from.

    Attributes:
        data: the data set, absolute.
        cache: where its decoded pictures are kept, absolute.
        weights: what `--weights` said.
    """

    data: Path
    cache: Path
    weights: str

    def write(self, run: RunFolder) -> None:
        """Into the run folder; a run that goes on elsewhere writes it anew."""
        run.write_json(FILE, {key: str(value) for key, value in asdict(self).items()})


def find(run: RunFolder) -> Origin | None:
    """What is written in the run folder; None where an older version made it, or it is no such file.

    Raises:
        Misconfigured: it cannot be read.
    """
    found = run.read_json(FILE)
    if (
        found is None
        or not all(isinstance(found.get(key), str) for key in ("data", "cache", "weights"))
        or not found["data"]
    ):
        return None
    return Origin(Path(found["data"]), Path(found["cache"]), found["weights"])


def read(run: RunFolder) -> Origin:
    """As `find`, for what cannot go on without.

    Raises:
        Misconfigured: there is nothing, because an older version made the run, or it is damaged.
    """
    found = find(run)
    if found is None:
        raise Misconfigured(f"{run.path} does not say where its pictures are; give them as DATA.")
    return found
