"""What a phase of training needs to go on after a kill, in the run folder."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pigeonholed_training import runs
from pigeonholed_training.errors import Misconfigured
from pigeonholed_training.fitting.plan import Epoch

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from pigeonholed_training.runs import RunFolder

    Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class State:
    """How far a phase has come. It changes at the ends of epochs, and is on the disk before the next one begins.

    Attributes:
        steps: of the whole phase, as planned now; the schedule of the learning rate is stretched over them.
        history: the epochs that are done.
        best: of them, the one with the lowest validation loss; 0 while there is none.
        checkpoint: name of the file that holds the learner after the last of them.
        best_checkpoint: name of the file with the weights of the best one, where they are kept.
    """

    steps: int
    history: tuple[Epoch, ...] = ()
    best: int = 0
    checkpoint: str = ""
    best_checkpoint: str = ""

    def after(self, epoch: Epoch) -> State:
        """The state with one more epoch."""
        better = not self.best or epoch.validation_loss < self.history[self.best - 1].validation_loss
        history = (*self.history, epoch)
        return replace(self, history=history, best=len(history) if better else self.best)


class Checkpoints:
    """The checkpoints of one phase: `checkpoints/PHASE.json`, the state, which names the files with the arrays.

    Files are written before the state that names them, and removed after it: a kill in between, or a full disk,
    leaves the epoch before as it was.

    Args:
        run: a claimed folder.
        phase: name of the plan.
    """

    def __init__(self, run: RunFolder, phase: str) -> None:
        self._run, self._phase = run, phase
        self._state = f"{runs.CHECKPOINTS}/{phase}.json"

    def load(self) -> State | None:
        """The state; None where the phase was not begun.

        Raises:
            Misconfigured: it is damaged.
        """
        values = self._run.read_json(self._state)
        if values is None:
            return None
        try:
            history = tuple(Epoch(**row) for row in values["history"])
            return State(**(values | {"history": history}))
        except (TypeError, KeyError, ValueError) as fault:
            raise self._damaged(self._run.path / self._state, fault) from fault

    def arrays(self, name: str) -> Arrays:
        """What `save` put into a file that the state names.

        Raises:
            Misconfigured: it is missing or damaged.
        """
        path = self._run.path / name
        try:
            with np.load(path, allow_pickle=False) as archive:
                return {key: archive[key] for key in archive.files}
        except Exception as fault:  # whatever a damaged archive makes NumPy raise
            raise self._damaged(path, fault) from fault

    def refused(self, name: str, fault: Exception) -> Misconfigured:
        """What to raise where the content of a file does not fit."""
        return self._damaged(self._run.path / name, fault)

    def begin(self, state: State) -> None:
        """Puts down the plan before the first epoch, so that a resumed phase keeps to it."""
        self._run.write_json(self._state, asdict(state))

    def save(self, state: State, learner: Arrays, best: Sequence[npt.NDArray[Any]] | None) -> State:
        """Puts down the state after an epoch.

        Args:
            state: with that epoch as its last.
            learner: all that decides how training goes on.
            best: the weights, where this is the best epoch and they shall be kept.

        Returns:
            The state with the names of its files.

        Raises:
            Unavailable: the disk is full; what was there before is intact.
            Misconfigured: the folder cannot be written.
        """
        number = len(state.history)
        if best is not None:
            weights = {f"weight-{index:04d}": one for index, one in enumerate(best)}
            state = replace(state, best_checkpoint=self._put(f"best-{number:04d}", weights))
        state = replace(state, checkpoint=self._put(f"{number:04d}", learner))
        self._run.write_json(self._state, asdict(state))
        for old in (self._run.path / runs.CHECKPOINTS).glob(f"{self._phase}-*.npz"):
            if f"{runs.CHECKPOINTS}/{old.name}" not in (state.checkpoint, state.best_checkpoint):
                old.unlink(missing_ok=True)
        return state

    def _put(self, what: str, arrays: Arrays) -> str:
        name = f"{runs.CHECKPOINTS}/{self._phase}-{what}.npz"

        values: dict[str, Any] = dict(arrays)

        def save(path: Path) -> None:
            np.savez(path, **values)

        self._run.writing(name, save)
        return name

    @staticmethod
    def _damaged(path: Path, fault: Exception) -> Misconfigured:
        return Misconfigured(f"Cannot go on from the checkpoint {path}: {fault}. Start over with --fresh.")
