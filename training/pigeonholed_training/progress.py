"""Telling how training goes: a bar on a terminal, lines otherwise, and lines in the run's log always."""

from __future__ import annotations

import contextlib
import datetime
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rich.progress import Progress, TaskID


class Narrator:
    """Says one thing at a time, to standard error and, once `keep` was called, to a log file."""

    def __init__(self) -> None:
        self._log: Path | None = None
        self._bar: Progress | None = None

    def keep(self, log: Path) -> None:
        """From now on every line also goes to `log`, with its time; a log that cannot be written is done without."""
        self._log = log

    def say(self, message: str) -> None:
        """One line."""
        if self._bar is not None:
            self._bar.console.print(message, markup=False, highlight=False)
        else:
            sys.stderr.write(message + "\n")
            sys.stderr.flush()
        if self._log is not None:
            now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            # The log is a convenience: a full disk is reported by the file that matters.
            with contextlib.suppress(OSError), open(self._log, "a", encoding="utf-8") as stream:
                stream.write(f"{now} {message}\n")

    @contextlib.contextmanager
    def steps(self, what: str, total: int) -> Iterator[Step]:
        """A bar over `total` steps on a terminal; silent otherwise."""
        if not sys.stderr.isatty():
            yield Step(None, None)
            return
        from rich import progress
        from rich.console import Console

        columns = (
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeRemainingColumn(),
            progress.TextColumn("{task.fields[note]}"),
        )
        console = Console(stderr=True, no_color="NO_COLOR" in os.environ or None)
        with progress.Progress(*columns, console=console, transient=True) as bar:
            self._bar = bar
            try:
                yield Step(bar, bar.add_task(what, total=total, note=""))
            finally:
                self._bar = None


class Step:
    """The handle of one bar; of none, where there is no terminal."""

    def __init__(self, bar: Progress | None, task: TaskID | None) -> None:
        self._bar, self._task = bar, task

    def at(self, done: int, note: str = "", total: int | None = None) -> None:
        """Moves the bar to `done`, and its end to `total` where that is given."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=total, note=note)
