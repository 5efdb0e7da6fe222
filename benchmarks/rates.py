"""Rates: the service, the ideal and the plain script on the same files, in rounds that take turns."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import processes
from workload import Model, Pictures, Workspace

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Rates:
    """Measures files a second. `files` are given to the service and the ideal, `plain_files` to the plain script."""

    folder: Path
    model: Model
    pictures: Pictures
    files: int
    plain_files: int

    def rounds(self, count: int, say: Callable[[str], None]) -> dict[str, Any]:
        """All measurements of `count` rounds, by name."""
        measured: dict[str, list[dict[str, Any]]] = {"service": [], "ideal": [], "plain": []}
        for number in range(1, count + 1):
            for name, measure in (("service", self.service), ("ideal", self.ideal), ("plain", self.plain)):
                result = measure()
                measured[name].append(result)
                say(f"round {number}: {name} {result['files_per_s']:,.0f} files/s")
        return {
            name: {"best_files_per_s": max(result["files_per_s"] for result in results), "rounds": results}
            for name, results in measured.items()
        }

    def service(self) -> dict[str, Any]:
        """`pigeonholed run --once`, from the first arrival to the last confirmation in its database."""
        with self._dropped(self.files) as workspace:
            cost = processes.run(workspace.command("--once", "--log-format", "json"), workspace.root / "log")
            first, last = _checked(workspace, self.files)
            seconds = (last - first).total_seconds()
            from_start_s = last.timestamp() - cost.started_s
            return {
                "files": self.files,
                "seconds": round(seconds, 3),
                "files_per_s": round(self.files / seconds, 1),
                "start_up_s": round(first.timestamp() - cost.started_s, 3),
                "files_per_s_from_process_start": round(self.files / from_start_s, 1),
                "cost": cost.rounded(),
            }

    def ideal(self) -> dict[str, Any]:
        with self._dropped(self.files) as workspace:
            script = [sys.executable, str(HERE / "ideal.py"), str(self.model.store), self.model.name]
            return self._script([*script, str(workspace.inbox)], workspace, self.files)

    def plain(self) -> dict[str, Any]:
        with self._dropped(self.plain_files) as workspace:
            script = [sys.executable, str(HERE / "plain.py"), str(self.model.store), self.model.name]
            arguments = [str(workspace.inbox), str(workspace.output)]
            return self._script([*script, *arguments], workspace, self.plain_files - 1)

    def _script(self, command: list[str], workspace: Workspace, expected: int) -> dict[str, Any]:
        log = workspace.root / "log"
        cost = processes.run(command, log)
        result: dict[str, Any] = json.loads(log.read_text().splitlines()[-1])
        if result["files"] != expected:
            raise SystemExit(f"{command[1]} served {result['files']} files instead of {expected}")
        rate = round(result["files"] / result["seconds"], 1)
        return {**result, "seconds": round(result["seconds"], 3), "files_per_s": rate, "cost": cost.rounded()}

    @contextmanager
    def _dropped(self, count: int) -> Iterator[Workspace]:
        workspace = Workspace.make(self.folder / "round", self.model)
        try:
            self.pictures.write(workspace.inbox, count)
            yield workspace
        finally:
            shutil.rmtree(workspace.root)
            os.sync()  # the next round must not pay for the removal


def _checked(workspace: Workspace, expected: int) -> tuple[datetime, datetime]:
    """First arrival and last confirmation.

    Raises:
        SystemExit: not every file is filed, in the database and on the disk; such a rate would mean nothing.
    """
    with sqlite3.connect(workspace.database) as connection:
        query = "SELECT count(*), min(arrived_at), max(filed_at) FROM images WHERE status = 'filed'"
        filed, first, last = connection.execute(query).fetchone()
    connection.close()
    there = sum(
        len(names) for folder, _, names in os.walk(workspace.output) if ".pigeonholed" not in Path(folder).parts
    )
    left = len(os.listdir(workspace.inbox))
    if (filed, there, left) != (expected, expected, 0):
        raise SystemExit(f"of {expected} files {filed} are filed, {there} in the output and {left} in the inbox")
    return _utc(first), _utc(last)


def _utc(text: str) -> datetime:
    return datetime.fromisoformat(f"{text}+00:00")
