"""What a user can cause or mend: one clear sentence, and the exit code that goes with it."""

from __future__ import annotations

from typing import ClassVar


class TrainingError(Exception):
    """The message is shown as it is, without a traceback; something was left undone."""

    exit_code: ClassVar[int] = 1


class WrongUsage(TrainingError):
    """The command line names something that does not exist."""

    exit_code = 2


class Unavailable(TrainingError):
    """Something needed is not there now: an extra, room on the disk, a run folder that another process uses."""

    exit_code = 69


class Misconfigured(TrainingError):
    """What was given cannot be worked with: the data set, the run folder, the model."""

    exit_code = 78
