"""The real program in real processes, for tests that start, kill and question it."""

from __future__ import annotations

import atexit
import functools
import hashlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from auditor import Dropped, audit
from bundles import make_bundle
from forking import Forked, shared_forker
from mounts import another_mount
from pigeonholed.store import ModelStore
from records_of import ON_POSTGRES, NotThere, ask, read
from servers import migrate, plain, programs, shared_server

CONFIG = """
[[inbox]]
name = "camera"
path = "inbox"
output = "sorted"
model = "tiny"
settle_s = {settle_s}
incomplete_s = {incomplete_s}
rescan_s = 0.5
{inbox}
[metrics]
listen = "{listen}"
[log]
format = "json"
"""


def until(look: Callable[[], object], what: str, deadline_s: float = 30.0, every_s: float = 0.01) -> object:
    """The first true answer of `look`; fails when there is none in time."""
    ends_s = time.monotonic() + deadline_s
    while not (answer := look()):
        assert time.monotonic() < ends_s, f"waited {deadline_s} s in vain for {what}"
        time.sleep(every_s)
    return answer


@dataclass(frozen=True)
class Variant:
    """One way for files to leave an inbox, as tests of the whole program are run for each of them.

    Attributes:
        name: shown by pytest.
        inbox: lines of the inbox's table in the configuration.
        inbox_keeps: what was dropped stays in the inbox, too.
        elsewhere: the inbox is on another mount than the output.
        rows_only: nothing is made of what was dropped but rows.
        sets_aside: of equal pictures one is sorted, and the others are set aside.
    """

    name: str
    inbox: str = ""
    inbox_keeps: bool = False
    elsewhere: bool = False
    rows_only: bool = False
    sets_aside: bool = False

    def __str__(self) -> str:
        return self.name


RENAMING = Variant("renaming")
HOSTILE = Variant("hostile", inbox="hostile = true")
OTHER_MOUNT = Variant("other-mount", elsewhere=True)
KEEPING = Variant("copy", inbox='action = "copy"', inbox_keeps=True)
LOOKING = Variant("none", inbox='action = "none"', inbox_keeps=True, rows_only=True)
FILING = (RENAMING, HOSTILE, OTHER_MOUNT, KEEPING)
"""Those that put files into the output."""
VARIANTS = (*FILING, LOOKING)

SETTING_ASIDE = Variant("set-aside", inbox='duplicates = "set-aside"', sets_aside=True)
"""For tests of that; the way of a file is the same."""


def accompanied(variant: Variant) -> Variant:
    """The same with sidecars that travel, and duplicates that are set aside."""
    lines = f'{variant.inbox}\nduplicates = "set-aside"\nsidecars = [".xmp", ".json"]'
    return replace(variant, name=f"{variant.name}-with-sidecars", inbox=lines, sets_aside=True)


@dataclass
class Workspace:
    """A working folder with a tiny model, and a record of all that was dropped into its inbox.

    `url` is the address of its database where that is on a server.
    """

    root: Path
    dropped: list[Dropped] = field(default_factory=list)
    sidecars: list[Dropped] = field(default_factory=list)
    variant: Variant = RENAMING
    mount: Path | None = None
    url: str | None = None

    forks = True  # its commands are forks of a process that has imported everything, not started as they are typed

    @classmethod
    def make(
        cls,
        root: Path,
        *,
        settle_s: float = 0.0,
        incomplete_s: float = 0.2,
        listen: str = "",
        more: str = "",
        variant: Variant = RENAMING,
        mount: Path | None = None,
        url: str | None = None,
        new: bool = False,
    ) -> Workspace:
        """One in which nothing was filed yet, though a daemon has served its model before.

        Args:
            root: the working folder.
            settle_s: of the inbox.
            incomplete_s: of the inbox.
            listen: where metrics are served.
            more: further lines of the configuration.
            variant: how files leave the inbox.
            mount: where the inbox is, if not in the working folder.
            url: of a database on a server, which is left as it is; else the database is SQLite's, or one on the server
                of `make test-postgres`.
            new: no daemon was ever here. The first one makes the database and tries the model, which takes a second.
        """
        begun = url is None and not new
        url = shared_server().make_migrated() if url is None and ON_POSTGRES else url
        (root / "inbox").mkdir(parents=True)
        make_bundle(root / "staging", publish_into=root / "models")
        text = CONFIG.format(settle_s=settle_s, incomplete_s=incomplete_s, listen=listen, inbox=variant.inbox)
        database = "" if url is None else f'[database]\nurl = "{url}"\n'
        (root / "pigeonholed.toml").write_text(text + database + more)
        workspace = cls(root, variant=variant, mount=mount, url=url)
        if mount is not None:
            workspace.inbox.rmdir()
            workspace._link_inbox(mount)
        if begun:
            workspace._have_served()
        return workspace

    def _have_served(self) -> None:
        """Make the database as a daemon leaves it that has loaded the model, and no more."""
        if self.url is None:
            shutil.copy(migrated_file(), self.database)
            ask(self.database, "UPDATE identity SET id = ?", secrets.token_hex(16))
        tiny = ModelStore(self.root / "models").open("tiny", 1)
        ask(
            self.database,
            "INSERT INTO models (name, version, digest, labels, loaded_at) VALUES (?, ?, ?, ?, ?)",
            *("tiny", 1, tiny.digest, json.dumps(tiny.labels), "2026-01-01 00:00:00"),
        )

    def copy(self, root: Path) -> Workspace:
        """The same in another folder, as long as its inbox is empty; much faster than making one."""
        shutil.copytree(self.root, root, symlinks=True)
        workspace = replace(self, root=root, dropped=list(self.dropped), sidecars=list(self.sidecars))
        if self.mount is not None:
            workspace.inbox.unlink()
            workspace._link_inbox(self.mount)
        if self.url is not None:
            workspace.url = shared_server().make(self.url)
            workspace.config.write_text(workspace.config.read_text().replace(self.url, workspace.url))
        return workspace

    def _link_inbox(self, mount: Path) -> None:
        elsewhere = Path(tempfile.mkdtemp(dir=mount)) / "inbox"
        elsewhere.mkdir()
        self.inbox.symlink_to(elsewhere)

    @property
    def config(self) -> Path:
        return self.root / "pigeonholed.toml"

    @property
    def inbox(self) -> Path:
        return self.root / "inbox"

    @property
    def output(self) -> Path:
        return self.root / "sorted"

    @property
    def database(self) -> Any:
        """A `records_of.Database`; tests that know it to be a file are marked `sqlite`."""
        return self.root / "pigeonholed.db" if self.url is None else plain(self.url)

    def drop_with(self, path: str, data: bytes, *endings: str) -> None:
        """Put a picture into the inbox, its sidecars first; each ending follows the name, or with a `*` the stem."""
        for ending in endings:
            name = path + ending if not ending.startswith("*") else os.path.splitext(path)[0] + ending[1:]
            if self.drop(name, f"about {path}{ending} {len(self.sidecars)}".encode()):
                self.sidecars.append(self.dropped.pop())
        self.drop(path, data)

    def drop(self, path: str, data: bytes, *, durable: bool = False) -> bool:
        """Put a file into the inbox under a name that is free, complete from the first moment; False if it is taken.

        Args:
            path: where, relative to the inbox.
            data: its bytes.
            durable: they are on the disk before the file has its name.
        """
        target = self.inbox / path
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = self.inbox.resolve().parent / "draft"
        with draft.open("wb") as stream:
            stream.write(data)
            stream.flush()
            if durable:
                os.fsync(stream.fileno())
        try:
            os.link(draft, target)
        except FileExistsError:
            return False
        finally:
            draft.unlink()
        self.dropped.append(Dropped(os.fsencode(path), hashlib.sha256(data).hexdigest()))
        return True

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "pigeonholed", *arguments]

    def run(
        self,
        *arguments: str,
        timeout_s: float = 60.0,
        configured: bool = True,
        environ: Mapping[str, str] | None = None,
        before: Sequence[str] = (),
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end in the working folder.

        Args:
            arguments: of `pigeonholed`.
            timeout_s: it is killed after that long.
            configured: name the configuration with --config; else the program looks for one itself.
            environ: variables beside those of `environment()`.
            before: a command that starts it, such as `unprivileged()`.
        """
        arguments = (*arguments, *(("--config", str(self.config)) if configured else ()))
        if self.forks and not before:
            return shared_forker().type(
                self.root, *arguments, environ=environment() | dict(environ or {}), timeout_s=timeout_s
            )
        return subprocess.run(
            [*before, *self.command(*arguments)],
            check=False,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=timeout_s,
            cwd=self.root,
            env=environment() | dict(environ or {}),
        )

    @contextmanager
    def serving(self, *arguments: str, environ: Mapping[str, str] | None = None) -> Iterator[Running]:
        """A running daemon; at the end it is killed if it still runs. What it writes to stdout goes to `daemon.out`."""
        log = self.root / "daemon.log"
        said_before = self.log_size
        process: subprocess.Popen[bytes] | Forked
        command = ("run", *arguments, "--config", str(self.config))
        variables = environment() | dict(environ or {})
        with log.open("ab") as stream, (self.root / "daemon.out").open("ab") as out:
            if self.forks:
                process = shared_forker().begin(self.root, *command, environ=variables, streams=(out.name, stream.name))
            else:
                process = subprocess.Popen(
                    self.command(*command), stdout=out, stderr=stream, cwd=self.root, env=variables
                )
        try:
            yield Running(process, log, _read_to=said_before)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()

    @property
    def log_size(self) -> int:
        """How much its daemons have written so far, in bytes."""
        log = self.root / "daemon.log"
        return log.stat().st_size if log.exists() else 0

    def said(self, after: int = 0) -> str:
        """What its daemons have written, from a byte on."""
        log = self.root / "daemon.log"
        if not log.exists():
            return ""  # the first has not come so far
        with log.open("rb") as stream:
            stream.seek(after)
            return stream.read().decode(errors="replace")

    def is_ready(self, after: int = 0) -> bool:
        """Whether a daemon has said so since its log had that size."""
        return '"service_ready"' in self.said(after)

    def filed(self) -> int:
        """How many results the database holds; none before it has its tables."""
        try:
            return len(self.rows("SELECT id FROM images WHERE status = 'filed'"))
        except NotThere:
            return 0

    def statuses(self) -> list[str]:
        """The status of each row."""
        return [str(row["status"]) for row in self.rows("SELECT status FROM images ORDER BY id")]

    def rows(self, query: str = "SELECT * FROM images ORDER BY id") -> list[dict[str, Any]]:
        """What a query gives; `records_of.NotThere` before there are tables."""
        return read(self.database, query)

    def audit(self, **options: Any) -> list[str]:
        """What the independent auditor finds; `options` are its own."""
        variant = self.variant
        options = {
            "inbox_keeps": variant.inbox_keeps,
            "rows_only": variant.rows_only,
            "sets_aside": variant.sets_aside,
            "sidecars": self.sidecars,
        } | options
        return audit(self.dropped, [self.inbox], self.output, self.database, **options)


@contextmanager
def working(root: Path, variant: Variant, **options: Any) -> Iterator[Workspace]:
    """A workspace whose files leave its inbox in one of the ways; `options` are those of `Workspace.make`."""
    with ExitStack() as stack:
        root.mkdir(parents=True, exist_ok=True)
        mount = stack.enter_context(another_mount(root)) if variant.elsewhere else None
        yield Workspace.make(root / "work", variant=variant, mount=mount, **options)


@dataclass
class Running:
    """A daemon in a process of its own."""

    process: subprocess.Popen[bytes] | Forked
    log: Path
    _events: list[dict[str, object]] = field(default_factory=list)
    _read_to: int = 0

    def events(self) -> list[dict[str, object]]:
        """All its events so far; each line is read once."""
        with self.log.open("rb") as stream:
            stream.seek(self._read_to)
            for line in stream:
                if not line.endswith(b"\n"):
                    break
                self._read_to += len(line)
                if line.startswith(b"{"):
                    self._events.append(json.loads(line))
        return self._events

    def await_event(self, name: str, deadline_s: float = 30.0) -> dict[str, object]:
        def look() -> dict[str, object] | None:
            assert self.process.poll() is None, self.log.read_text()
            return next((event for event in self.events() if event.get("event") == name), None)

        found = until(look, name, deadline_s)
        assert isinstance(found, dict)
        return found

    def fetch(self, path: str) -> tuple[int, str]:
        """Status and body of a page on the metrics address."""
        self.await_event("metrics_served")
        address = [event["address"] for event in self.events() if event["event"] == "metrics_served"][-1]
        try:
            with urllib.request.urlopen(f"http://{address}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def terminate(self, deadline_s: float = 30.0) -> int:
        """Ask it to end, as systemd does; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(deadline_s)


@functools.cache
def migrated_file() -> Path:
    """An SQLite database of the newest schema, to be copied: that is faster than migrating each."""
    folder = Path(tempfile.mkdtemp(prefix="pigeonholed-schema-"))
    atexit.register(shutil.rmtree, folder)
    migrate(f"sqlite:///{folder / 'pigeonholed.db'}")
    return folder / "pigeonholed.db"


def environment() -> dict[str, str]:
    """The environment without anything that would configure pigeonholed."""
    found = {name: value for name, value in os.environ.items() if not name.startswith("PIGEONHOLED")}
    if ON_POSTGRES:
        found["PATH"] = f"{programs()}:{found['PATH']}"  # pg_dump, as new as the server
    return found


def unprivileged() -> list[str]:
    """What to put before a command so that permissions count for it too; skips the test where that cannot be had."""
    if os.geteuid() != 0:
        return []
    dropping = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]  # still the owner of its files, but no longer root
    if shutil.which("setpriv") is None or subprocess.run([*dropping, "true"], check=False).returncode != 0:
        pytest.skip("this test needs a user who is not root, or setpriv")
    return dropping


def picture(red: int, green: int, blue: int, seed: int, size: int = 16) -> bytes:
    """A PNG of about one colour; the seed makes its bytes unlike any other."""
    noise = np.random.default_rng(seed).integers(0, 8, (size, size, 3))
    pixels = np.clip(np.array([blue, green, red]) + noise, 0, 255).astype(np.uint8)
    done, data = cv2.imencode(".png", pixels)
    assert done
    return data.tobytes()


def drop_twenty(workspace: Workspace, folder: str = "") -> None:
    """Twenty files of all kinds: sorted, unsure, broken in three ways, empty; in sub-folders, too.

    Args:
        workspace: whose inbox gets them, where it has none of their names yet.
        folder: of the inbox, with its slash.
    """
    colours = ((220, 60, 40), (40, 60, 220), (120, 60, 120))
    broken = {6: b"no picture", 13: b"\x89PNG\r\n\x1a\nbroken", 19: b""}
    for serial in range(20):
        name = f"{folder}{('', 'a/', 'a/b/')[serial % 3]}{serial}.png"
        data = broken.get(serial)
        workspace.drop(name, picture(*colours[serial % 3], serial) if data is None else data)


def drop_twins(workspace: Workspace, folder: str = "") -> None:
    """Pictures of the same bytes under several names, some of them in folders of their own, and two that are broken.

    Some bring sidecars, where those travel.
    """
    travels = "sidecars" in workspace.variant.inbox
    endings = [(".xmp", "*.json"), (".json",), ("*.xmp",), ()] if travels else [()] * 4
    for serial in range(4):
        data = picture(220, 60, 40, 1000 + serial // 2)
        for name in (f"{serial}-one.png", f"twins/{serial}-two.png"):
            workspace.drop_with(f"{folder}{name}", data, *endings[serial])
    for name in ("bad.png", "worse.png"):
        workspace.drop_with(f"{folder}{name}", b"\x89PNG\r\n\x1a\nbroken twice", *endings[0])
