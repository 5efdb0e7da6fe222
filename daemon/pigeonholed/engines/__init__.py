"""Where pictures are decoded and classified."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pigeonholed.images import Arrival, Handled


class Engine(Protocol):
    """Claimed files in, outcomes out: exactly one for each, in any order."""

    def submit(self, arrivals: Sequence[Arrival]) -> None:
        """Take files; waits while there is no room.

        Raises:
            pigeonholed.channel.Closed: the engine is being torn down.
        """

    def handled(self, timeout_s: float | None) -> Sequence[Handled] | None:
        """Outcomes; an empty sequence when none came within `timeout_s`, None once all has come out."""

    def close(self) -> None:
        """No more files will come; returns when every outcome has been put out."""

    def abort(self) -> None:
        """Drop everything: a stage has failed."""
