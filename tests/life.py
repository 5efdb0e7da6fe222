#!/usr/bin/env python3
"""Two days of a service in some minutes: everything that people do to it, and what it says.

    python tests/life.py                          two inboxes, two models, an SQLite database
    python tests/life.py --database postgres      the same with a Postgres server that is stopped on the way
    python tests/life.py --write docs/life.md     keep the transcript

Pictures keep coming all the time. After each step the load rests until everything is filed, and the independent auditor
(`auditor.py`) compares what was dropped, the disk and the database. It ends with 1 as soon as one finding is left.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from arrivals import arriving
from auditor import Dropped, audit
from bundles import publish_tiny
from running import environment, picture, until

CONFIG = """\
[database]
url = "{url}"

[[inbox]]
path = "camera"
output = "sorted"
model = "animals"
settle_s = 0.2
incomplete_s = 1.0
rescan_s = 1.0

[[inbox]]
path = "scans"
output = "sorted"
model = "forms"
settle_s = 0.2
rescan_s = 1.0

[metrics]
listen = "127.0.0.1:0"
"""
RED, BLUE, MIXED = (220, 60, 40), (40, 60, 220), (120, 60, 120)
MOST_LINES = 24


class Database:
    """An SQLite file; somebody who writes to it keeps everybody else out."""

    story = "Somebody else writes to the SQLite file for longer than anybody should."

    def __init__(self, root: Path) -> None:
        self._file = root / "pigeonholed.db"
        self.url = f"sqlite:///{self._file}"

    @contextmanager
    def away(self) -> Iterator[None]:
        """While this lasts, nothing can be written to it."""
        with closing(sqlite3.connect(self._file, isolation_level=None, timeout=60)) as other:
            other.execute("BEGIN IMMEDIATE")
            yield
            other.execute("ROLLBACK")

    def close(self) -> None:
        """Nothing was opened."""


class PostgresDatabase(Database):
    """A database on a server of its own, which can be stopped."""

    story = "The server crashes, and is started again some seconds later."

    def __init__(self) -> None:
        from servers import OwnServer

        self._server = OwnServer.make_one()
        self.url = self._server.make()

    @contextmanager
    def away(self) -> Iterator[None]:
        """While this lasts, the server is down; it was not told to end in order."""
        self._server.stop("immediate")
        yield
        self._server.start()

    def close(self) -> None:
        """Remove the server."""
        self._server.remove()


@dataclass
class Load:
    """Pictures that keep coming into both inboxes, some of them broken."""

    root: Path
    rate_per_s: float
    dropped: list[Dropped] = field(default_factory=list)
    _serial: int = 0

    def coming(self) -> AbstractContextManager[None]:
        """While this lasts, pictures come."""
        return arriving(lambda _serial: self.drop_one(), self.rate_per_s)

    def drop_one(self) -> None:
        """The next picture; an inbox that is away gets none."""
        serial = self._serial
        self._serial += 1
        inbox = ("camera", "scans")[serial % 2]
        name = f"{('north', 'south')[serial % 3 % 2]}/{serial:05}.png"
        data = picture(*(RED, BLUE, BLUE, RED, MIXED)[serial % 5], seed=serial)
        if serial % 40 == 7:
            data = (b"no picture %d" % serial, data[: len(data) // 2])[serial // 40 % 2]
        folder = self.root / inbox
        draft = folder / ".draft"
        try:
            (folder / name).parent.mkdir(exist_ok=True)
            draft.write_bytes(data)
            draft.rename(folder / name)
        except FileNotFoundError:
            return  # it is away
        self.dropped.append(Dropped(os.fsencode(name), hashlib.sha256(data).hexdigest(), inbox=inbox))


@dataclass
class Life:
    """A working folder, its service, and what has been said so far."""

    root: Path
    database: Database
    load: Load
    told: list[str] = field(default_factory=list)
    held: set[bytes] = field(default_factory=set)
    daemon: subprocess.Popen[bytes] | None = None

    # -- telling ------------------------------------------------------------------------------------------------------

    def say(self, *lines: str) -> None:
        """Write it down, and show it."""
        self.told += lines
        print(*lines, sep="\n", flush=True)

    def step(self, title: str, words: str) -> None:
        """What comes next."""
        self.say("", f"## {title}", "", words, "")

    def show(self, lines: Sequence[str], language: str = "console") -> None:
        """What a terminal showed, without what differs each time and says nothing."""
        kept = list(lines[:MOST_LINES])
        if len(lines) > MOST_LINES:
            kept.append(f"… {len(lines) - MOST_LINES} more lines")
        self.say(f"```{language}", *(self._plain(line) for line in kept), "```")

    def _plain(self, line: str) -> str:
        line = line.replace(f"{self.root}/", "").replace(str(self.root), ".")
        return re.sub(r"(postgresql\+psycopg://)\S+?@\S+/\S+", r"\1sorter@db.example/pictures", line).rstrip()

    def type(self, *commands: str, code: int = 0, shown: Callable[[str], bool] = lambda _line: True) -> str:
        """Run commands as they are typed, and show what they print.

        Raises:
            SystemExit: one of them ended with another exit code.
        """
        lines, out = [], ""
        for command in commands:
            words = shlex.split(command)
            done = subprocess.run(
                [sys.executable, "-m", words[0].replace("-train", "_training"), *words[1:]],
                check=False, capture_output=True, text=True, cwd=self.root, env=environment() | {"COLUMNS": "110"},
            )  # fmt: skip
            out = done.stdout
            lines += [f"$ {command}", *filter(shown, (done.stdout + done.stderr).splitlines())]
            if done.returncode:
                lines.append(f"(exit code {done.returncode})")
            if done.returncode != code:
                self.show(lines)
                raise SystemExit(f"{command!r} ended with {done.returncode}, not {code}")
        self.show(lines)
        return out

    # -- the service --------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to serve."""
        with (self.root / "service.log").open("ab") as log:
            self.daemon = subprocess.Popen(
                [sys.executable, "-m", "pigeonholed", "run", "--log-format", "json"],
                cwd=self.root, stdout=log, stderr=log, env=environment(),
            )  # fmt: skip
        self.await_log("service_ready")

    def log(self, since: int = 0) -> list[str]:
        """Lines of the log."""
        return (self.root / "service.log").read_text().splitlines()[since:]

    def await_log(self, event: str, since: int = 0) -> str:
        """The first line of the log about an event."""

        def look() -> str | None:
            assert self.daemon is not None
            assert self.daemon.poll() is None, self.log()[-5:]
            return next((line for line in self.log(since) if f'"{event}"' in line), None)

        return str(until(look, event, 60))

    def signal(self, number: int) -> None:
        """Tell the service something."""
        assert self.daemon is not None
        self.daemon.send_signal(number)

    def ready(self) -> str:
        """What `/readyz` says."""
        assert self.daemon is not None
        address = [json.loads(line)["address"] for line in self.log() if '"metrics_served"' in line][-1]
        try:
            with urllib.request.urlopen(f"http://{address}/readyz", timeout=5) as answer:
                return f"{answer.status} {answer.read().decode().strip()}"
        except urllib.error.HTTPError as error:
            return f"{error.code} {error.read().decode().strip()}"

    def await_files(self, count: int) -> None:
        """Return when so many more pictures have come."""
        wanted = len(self.load.dropped) + count
        until(lambda: len(self.load.dropped) >= wanted, f"{count} more pictures", 120)

    def hold(self) -> None:
        """What is in the inboxes now was put back, and stays."""
        for inbox in ("camera", "scans"):
            folder = self.root / inbox
            self.held |= {os.fsencode(path.relative_to(folder)) for path in folder.rglob("*.png")}

    # -- judging ------------------------------------------------------------------------------------------------------

    def judge(self) -> None:
        """Wait until all is filed; then the auditor says what is wrong, and that must be nothing.

        Raises:
            SystemExit: it found something.
        """
        expected = [item for item in self.load.dropped if item.path not in self.held]
        until(lambda: self._at_rest(len(expected)), f"{len(expected)} to be filed", 120, every_s=0.1)
        inboxes = [self.root / "camera", self.root / "scans"]
        findings = audit(expected, inboxes, self.root / "sorted", self._address(), stays=self.held)
        self.say(
            "", *(findings or [f"*The auditor: {len(expected)} files dropped, each filed once. Nothing to find.*"])
        )
        if findings:
            raise SystemExit(1)

    def _address(self) -> str:
        return self.database.url.removeprefix("sqlite:///").replace("postgresql+psycopg:", "postgresql:")

    def _at_rest(self, count: int) -> bool:
        waiting = [
            path for inbox in ("camera", "scans") for path in (self.root / inbox).rglob("*.png")
            if os.fsencode(path.relative_to(self.root / inbox)) not in self.held
        ]  # fmt: skip
        at_work = set(os.listdir(self.root / "sorted/.pigeonholed")) - {"owner", "lock"}
        return not waiting and not at_work


# -- the two days -----------------------------------------------------------------------------------------------------


def first_morning(life: Life) -> None:
    """Set up, start, and work."""
    life.step("Before the first start", "`check` tries everything that the service will need.")
    life.type("pigeonholed check", "pigeonholed models list")
    life.step("The first morning", "The service runs, and pictures come into both inboxes; some are broken.")
    life.start()
    with life.load.coming():
        life.await_files(60)
        life.type("pigeonholed status")
    life.judge()


def another_model(life: Life) -> None:
    """Switch and go back, while pictures come."""
    life.step(
        "A new model, which turns out to be wrong",
        "Somebody publishes version 2 of the model `animals`, which takes cats for dogs. The service changes over in "
        "the middle of its work, and back again.",
    )
    publish_tiny(life.root / "models", "animals", labels=("dog", "cat"))
    with life.load.coming():
        seen = len(life.log())
        life.type("pigeonholed models use animals 2")
        life.await_log("model_loaded", seen)
        life.await_files(30)
        seen = len(life.log())
        life.type("pigeonholed models rollback animals", "pigeonholed models list")
        life.await_log("model_loaded", seen)
        life.await_files(20)
    life.judge()


def bad_file(life: Life) -> None:
    """Reload with a mistake in the configuration, and without it."""
    life.step(
        "A slip in the configuration",
        "Somebody writes `min_confidence = 95` and reloads. The file is refused, the service goes on as it was; "
        "`check` says what is wrong. Then he means 0.95.",
    )
    file = life.root / "pigeonholed.toml"
    good = file.read_text()
    file.write_text(good.replace('path = "scans"', 'path = "scans"\nmin_confidence = 95'))
    with life.load.coming():
        seen = len(life.log())
        life.signal(signal.SIGHUP)
        life.show([life.await_log("reload_refused", seen)], "json")
        life.type("pigeonholed check", code=78)
        file.write_text(good.replace('path = "scans"', 'path = "scans"\nmin_confidence = 0.95'))
        seen = len(life.log())
        life.signal(signal.SIGHUP)
        life.await_log("service_ready", seen)
        life.await_files(20)
    life.judge()


def lost_database(life: Life) -> None:
    """The database is away for a while."""
    life.step(
        "The database goes away",
        f"{life.database.story} Pictures wait in their inboxes, `/readyz` says why, and work goes on by itself.",
    )
    with life.load.coming():
        seen = len(life.log())
        with life.database.away():
            life.await_log("database_lost", seen)
            life.show(["$ curl http://127.0.0.1:9109/readyz", life.ready()])
        life.await_log("database_recovered", seen)
        life.await_files(20)
        life.show(["$ curl http://127.0.0.1:9109/readyz", life.ready()])
    life.judge()


def lost_inbox(life: Life) -> None:
    """The disk of an inbox is unmounted, and mounted again."""
    life.step(
        "The disk of an inbox is pulled out",
        "`scans` is gone, with what was in it. It is waited for, never made anew, and `camera` goes on.",
    )
    with life.load.coming():
        (life.root / "scans").rename(life.root / "unmounted")
        until(lambda: life.ready().startswith("503"), "the missing inbox to be seen", 30)
        life.show(["$ curl http://127.0.0.1:9109/readyz", life.ready()])
        life.await_files(20)
        (life.root / "unmounted").rename(life.root / "scans")
        until(lambda: life.ready().startswith("200"), "the inbox to be back", 30)
        life.await_files(20)
        life.show(["$ curl http://127.0.0.1:9109/readyz", life.ready()])
    life.judge()


def second_morning(life: Life) -> None:
    """Stop, start, and put things right."""
    life.step("Overnight", "The machine is restarted: TERM, and a start the next morning.")
    life.signal(signal.SIGTERM)
    assert life.daemon is not None
    code = life.daemon.wait(60)
    life.show(["$ systemctl restart pigeonholed", f"(the service ended with {code})"])
    if code:
        raise SystemExit(f"the service ended with {code}")
    life.start()
    life.judge()
    life.step(
        "What was refused",
        "Some pictures came cut in half. They are tried again, and refused again, for they are still cut.",
    )
    life.type("pigeonholed rejected list", "pigeonholed rejected retry --reason truncated")
    life.judge()


def undone(life: Life) -> None:
    """Put files back, and let them come again."""
    life.step(
        "A mistake, taken back",
        "The last ten files should not have been sorted. `undo` puts them back into their inboxes, where they are "
        "passed over until somebody lets the service take them again.",
    )
    life.type("pigeonholed undo --last 10")
    life.hold()
    life.judge()
    life.type("pigeonholed undo --release")
    life.held.clear()
    life.judge()


def reclassified(life: Life) -> None:
    """What the wrong version sorted is sorted again."""
    life.step(
        "The wrong hour, put right",
        "What version 2 of `animals` sorted yesterday still lies in the wrong folders. First what would change, then "
        "the change itself; pictures go on coming meanwhile.",
    )
    with life.load.coming():
        life.type("pigeonholed reclassify --inbox camera --dry-run", "pigeonholed reclassify --inbox camera")
    life.judge()


def told(life: Life) -> None:
    """The results, for others."""
    life.step("The results, for the office", "As a table, as lines of JSON, and for a notebook.")
    life.type(
        "pigeonholed export --format csv --output results.csv",
        "pigeonholed export --format parquet --output results.parquet",
        "pigeonholed export --format jsonl --outcome rejected --path 'north/000*'",
    )
    life.show(["$ head -3 results.csv", *(life.root / "results.csv").read_text().splitlines()[:3]])
    life.step("A last look", "Disk against database, both ways.")
    life.type("pigeonholed fsck", "pigeonholed status")
    life.judge()
    life.signal(signal.SIGTERM)
    assert life.daemon is not None
    if code := life.daemon.wait(60):
        raise SystemExit(f"the service ended with {code}")


DAYS = (
    first_morning, another_model, bad_file, lost_database, lost_inbox, second_morning, undone, reclassified, told
)  # fmt: skip

HEAD = """\
# Two days in the life of a service

For whoever wants to see what it looks like. This page is written by `python tests/life.py --database {kind} --write
docs/life.md`: a real service, with pictures that keep coming ({rate:g} a second, one in forty broken), and what people
type meanwhile. After each step an independent auditor compares what was dropped, the disk and the database. Two days
take some minutes here; only addresses and folders are shortened.
"""


def live(root: Path, database: Database, *, rate_per_s: float = 20.0) -> Life:
    """All of it, in an empty folder.

    Raises:
        SystemExit: something was not as it must be; what was told until then says what.
    """
    for inbox in ("camera", "scans"):
        (root / inbox).mkdir(parents=True)
    publish_tiny(root / "models", "animals", labels=("cat", "dog"))
    publish_tiny(root / "models", "forms", labels=("invoice", "letter"))
    (root / "pigeonholed.toml").write_text(CONFIG.format(url=database.url))
    life = Life(root, database, Load(root, rate_per_s))
    try:
        for step in DAYS:
            step(life)
    finally:
        if life.daemon is not None and life.daemon.poll() is None:
            life.daemon.kill()
            life.daemon.wait()
    return life


def main() -> None:
    """Live, and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--rate", type=float, default=20.0, help="pictures a second")
    parser.add_argument("--write", type=Path, help="where to keep the transcript")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that the service ends, too, and the folder goes
    with tempfile.TemporaryDirectory(prefix="pigeonholed-life-") as folder:
        root = Path(folder).resolve()
        database = Database(root) if given.database == "sqlite" else PostgresDatabase()
        started_s = time.monotonic()
        try:
            life = live(root, database, rate_per_s=given.rate)
        finally:
            database.close()
    life.say("", f"{len(life.load.dropped)} pictures, {time.monotonic() - started_s:.0f} seconds.")
    if given.write:
        head = HEAD.format(kind=given.database, rate=given.rate)
        given.write.write_text("\n".join([head, *life.told[1:], ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
