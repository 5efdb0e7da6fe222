"""Filing results anew: a file that belongs elsewhere by now is moved there, within its output.

The plan is committed before a file moves, and says where it comes from; the result after the move is durable. What a
crash leaves in between is finished at the next start, or taken back: the old place and the new one are looked at, and
neither is ever overwritten.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from pigeonholed import beneath, following
from pigeonholed.companions import places_beside
from pigeonholed.contents import holds
from pigeonholed.disk import is_folder, is_there
from pigeonholed.errors import Unavailable
from pigeonholed.paths import to_text
from pigeonholed.placing import clear_of_files, flattened, free_name, room_below

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pigeonholed.delivery import Delivery
    from pigeonholed.following import Step
    from pigeonholed.images import Arrival
    from pigeonholed.output import Output
    from pigeonholed.refilings import Candidate, Refiling, Refilings

log = structlog.get_logger()

_MOST_NAMES = 20  # that are tried one after another, while others take them

_GONE = "it is not where it was filed"

Left = list[tuple["Candidate", str]]
"""Files that stay as they were, and why."""


class Refiler:
    """Moves filed files within their outputs. One thread at a time.

    Args:
        records: knows what is filed.
        deliveries: by inbox.
    """

    def __init__(self, records: Refilings, deliveries: Mapping[str, Delivery]) -> None:
        self._records = records
        self._deliveries = deliveries

    def place(self, candidate: Candidate, wanted: str, promised: set[str]) -> str:
        """A free name for a file that is wanted at a place; `promised` holds names of others and gets this one."""
        output = self._output(candidate)
        taken = self._taken(output, promised, candidate.arrival)
        destination = free_name(flattened(wanted, room_below(output.root)), candidate.arrival, taken)
        promised.update((destination, *places_beside(destination, candidate.arrival)))
        return destination

    def file(self, refilings: Sequence[Refiling]) -> tuple[list[Refiling], Left]:
        """Record new results and move what belongs elsewhere.

        Returns:
            What is done, each with the place that its file has now; and what stays as it was.

        Raises:
            OSError: nobody knows how far a file has come. Its plan stands, and the next start finishes what is there.
        """
        moving = [refiling for refiling in refilings if refiling.moves]
        # From before they leave until the rows say so, their names are nobody else's: two rows of one name would both
        # be taken for true after a kill.
        for refiling in moving:
            self._output(refiling.candidate).leaving.update(_names(refiling))
        self._records.begin(refilings)
        moved, left = self._moved(moving)
        self._finish(moved, left)
        for refiling in (*moving, *moved):
            self._output(refiling.candidate).leaving.difference_update(_names(refiling))
        return [*(one for one in refilings if not one.moves), *moved], left

    def resume(self) -> None:
        """Finish what an earlier process began, or take it back; that of inboxes that are not configured waits."""
        waiting: list[Refiling] = []
        moved: list[Refiling] = []
        gone: list[Refiling] = []
        begun = [one for one in self._records.begun() if one.candidate.arrival.file.inbox in self._deliveries]
        for refiling in begun:
            old, new = self._paths(refiling)
            if _has(old, refiling):
                waiting.append(refiling)
            else:
                (moved if _has(new, refiling) else gone).append(refiling)
        self._refuse_if_away(gone)
        moved = [self._caught_up(refiling) for refiling in moved]
        for refiling in gone:
            self._recall(refiling, self._gone_ahead(refiling))
        done, left = self._moved(waiting, resuming=True)
        left += [(one.candidate, _GONE) for one in gone]
        self._finish([*moved, *done], left)
        for candidate, why in left:
            destination = candidate.result.destination or ""
            log.warning("refiling_taken_back", destination=to_text(destination), because=why)
        if begun:
            log.info("refiling_resumed", moved=len(done), found=len(moved), taken_back=len(left))

    def _finish(self, moved: Sequence[Refiling], left: Left) -> None:
        self._sync(moved)
        self._records.end(moved)
        if left:
            self._records.cancel([candidate.arrival.id for candidate, _why in left])

    def _moved(self, refilings: Sequence[Refiling], *, resuming: bool = False) -> tuple[list[Refiling], Left]:
        moved: list[Refiling] = []
        left: Left = []
        for refiling in refilings:
            result = self._move(refiling, self._gone_ahead(refiling) if resuming else [])
            if isinstance(result, str):
                left.append((refiling.candidate, result))
            else:
                moved.append(result)
        return moved, left

    def _move(self, refiling: Refiling, ahead: list[Step]) -> Refiling | str:
        """Move one file, under another name where somebody has taken its own; why that cannot be, where it cannot.

        Its sidecars go first; `ahead` are those that have gone.
        """
        output = self._output(refiling.candidate)
        output.require()  # never make folders where a mount should be
        for _ in range(_MOST_NAMES):
            old, new = self._paths(refiling)
            try:
                following.go_ahead(output, _steps(refiling), ahead)
                following.rename(output, *_relative(refiling))
            except (FileExistsError, NotADirectoryError) as error:
                refiling = self._recall(refiling, ahead)
                if isinstance(error, NotADirectoryError) and not self._reaches(refiling):
                    return "a link or a file is on the way to where it was filed"
                refiling = self._renamed(refiling)
            except OSError as error:
                there, arrived = is_there(old), is_there(new)
                if arrived:
                    raise  # it may be half way: the intent stands, and the next start finishes what is there
                output.require()
                self._recall(refiling, ahead)
                return f"it cannot be moved: {error.strerror}" if there else _GONE
            else:
                return replace(refiling, followed=tuple(ahead))
        return "others took every name that it could have"

    def _gone_ahead(self, refiling: Refiling) -> list[Step]:
        return following.gone_ahead(self._output(refiling.candidate), _steps(refiling))

    def _caught_up(self, refiling: Refiling) -> Refiling:
        """The sidecars of a picture that has arrived follow it: a power cut may have undone their moves only."""
        output, ahead = self._output(refiling.candidate), self._gone_ahead(refiling)
        for step in _steps(refiling):
            try:
                following.go_ahead(output, [step], ahead)
            except (FileExistsError, NotADirectoryError):
                log.warning("sidecar_left", path=to_text(step[0]), error=f"the name {to_text(step[1])} is taken")
        return replace(refiling, followed=tuple(ahead))

    def _recall(self, refiling: Refiling, ahead: list[Step]) -> Refiling:
        """What went ahead comes back, before the plan names another place or none; what cannot is recorded."""
        stuck = following.come_back(self._output(refiling.candidate), ahead)
        if not stuck:
            return refiling
        self._records.follow([(refiling.candidate, stuck)])
        now = dict(stuck)
        beside = tuple(now.get(place, place) for place in refiling.candidate.beside)
        return replace(refiling, candidate=replace(refiling.candidate, beside=beside))

    def _reaches(self, refiling: Refiling) -> bool:
        """Whether the folder of a file is one, and is reached through no link."""
        output, (old, _new) = self._output(refiling.candidate), _relative(refiling)
        try:
            with beneath.folder(output.root, os.path.dirname(old)):
                return True
        except NotADirectoryError:
            return False

    def _renamed(self, refiling: Refiling) -> Refiling:
        """The same with a name that is free as far as can be seen, committed."""
        output = self._output(refiling.candidate)

        def is_file(path: str) -> bool:
            full_path = os.path.join(output.root, path)
            return os.path.lexists(full_path) and not is_folder(full_path)

        arrival = refiling.candidate.arrival
        clear = clear_of_files(flattened(refiling.wanted or "", room_below(output.root)), arrival.key, is_file)
        destination = free_name(clear, arrival, self._taken(output, set(), arrival))
        other = replace(refiling, result=replace(refiling.result, destination=destination))
        output.leaving.difference_update(_names(refiling))
        output.leaving.update(_names(other))
        self._records.redirect(other)
        return other

    def _taken(self, output: Output, promised: set[str], arrival: Arrival) -> Callable[[str], bool]:
        """Which names are in use as far as we can see, or would be for a sidecar; the move itself decides."""

        def in_use(path: str) -> bool:
            return path in promised or path in output.leaving or os.path.lexists(f"{output.root}/{path}")

        return lambda path: in_use(path) or any(map(in_use, places_beside(path, arrival)))

    def _sync(self, refilings: Sequence[Refiling]) -> None:
        """Make moves durable, and the folders that were made for them, whoever made them."""
        folders: dict[Output, set[str]] = {}
        for refiling in refilings:
            output = self._output(refiling.candidate)
            steps = [_relative(refiling), *refiling.followed]
            folders.setdefault(output, set()).update(following.folders_of(output, steps))
        for output, changed in folders.items():
            output.disk.sync([], changed)
            output.require()  # where it was away, its names may have led nowhere

    def _refuse_if_away(self, gone: Sequence[Refiling]) -> None:
        """An output that nobody owned yet, while files should be in it, is not where it was."""
        for refiling in gone:
            output = self._output(refiling.candidate)
            if output.fresh:
                output.disown()
                raise Unavailable(
                    f"{len(gone)} files that were being moved should be in the output {output.root}, which is empty; "
                    "if its mount is away, mount it again"
                )

    def _output(self, candidate: Candidate) -> Output:
        return self._deliveries[candidate.arrival.file.inbox].output

    def _paths(self, refiling: Refiling) -> tuple[str, str]:
        root = self._output(refiling.candidate).root
        old, new = _relative(refiling)
        return os.path.join(root, old), os.path.join(root, new)


def _relative(refiling: Refiling) -> Step:
    """Where a file that moves comes from and goes to, below its output."""
    old, new = refiling.candidate.result.destination, refiling.result.destination
    assert old is not None  # a file that stays in its inbox never moves
    assert new is not None
    return old, new


def _steps(refiling: Refiling) -> list[Step]:
    """The same for each of its sidecars that moves."""
    candidate = refiling.candidate
    places = places_beside(_relative(refiling)[1], candidate.arrival)
    return [(old, new) for old, new in zip(candidate.beside, places, strict=True) if old != new]


def _names(refiling: Refiling) -> set[str]:
    """Every name below the output that is on its way to be given up or taken."""
    return {name for step in (_relative(refiling), *_steps(refiling)) for name in step}


def _has(path: str, refiling: Refiling) -> bool:
    """Whether the very bytes of a result are at a path."""
    fingerprint = refiling.candidate.fingerprint
    return holds(path, fingerprint.size, fingerprint.sha256)
