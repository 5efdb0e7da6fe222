"""The commands as a new user meets them: real processes, and nothing known but what the contract says."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import re
import shutil
import signal
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families

from auditor import Dropped, audit
from bundles import publish_tiny
from pigeonholed.classifying import find_gpu
from pigeonholed.cli import cli
from records_of import NotThere, change
from running import Running, Workspace, environment, picture, unprivileged, until

CONFIG = """
[[inbox]]
name = "camera"
path = "inbox"
output = "sorted"
model = "tiny"
settle_s = 0.0
incomplete_s = 0.2
rescan_s = 0.5
[metrics]
listen = ""
"""
RED, BLUE, GREY = (200, 40, 40), (40, 40, 200), (120, 120, 120)

# -- a workspace and what is in it ------------------------------------------------------------------------------------


class Typed(Workspace):
    """A working folder whose commands are started as they are typed, with all that Python does before them."""

    forks = False


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two models, to be copied."""
    store = tmp_path_factory.mktemp("store") / "models"
    publish_tiny(store, "tiny")
    publish_tiny(store, "colours", labels=("red", "blue"))
    return store


@pytest.fixture
def workspace(tmp_path: Path, models: Path) -> Workspace:
    return furnish(tmp_path / "work", models)


def furnish(root: Path, models: Path, config: str = CONFIG) -> Workspace:
    """A working folder with one picture in its inbox."""
    (root / "inbox").mkdir(parents=True)
    shutil.copytree(models, root / "models")
    (root / "pigeonholed.toml").write_text(config)
    workspace = Typed(root)
    workspace.drop("first.png", picture(*RED, seed=0))
    return workspace


def edit(workspace: Workspace, old: str, new: str) -> None:
    """Change the configuration, for certain."""
    text = workspace.config.read_text()
    assert old in text
    workspace.config.write_text(text.replace(old, new))


def snapshot(root: Path, passes_over: str = r"(?!)") -> dict[str, object]:
    """Every entry below a folder: permissions, and content or link target."""
    found: dict[str, object] = {}
    for folder, folders, names in os.walk(root):
        for name in [*folders, *names]:
            path = Path(folder, name)
            relative = str(path.relative_to(root))
            if not re.fullmatch(passes_over, relative):
                mode = path.lstat().st_mode
                content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
                found[relative] = (oct(mode), content)
    return found


def rows(workspace: Workspace) -> dict[str, dict[str, Any]]:
    """The rows of `images` by source path; of several the last."""
    return {row["source_path"]: row for row in workspace.rows()}


def filed(workspace: Workspace) -> int:
    """How many rows are filed; 0 before there is a table."""
    try:
        return sum(row["status"] == "filed" for row in rows(workspace).values())
    except NotThere:
        return 0


def complaint(done: subprocess.CompletedProcess[str]) -> str:
    """The one message of a command that failed: without a traceback, and with no more than a few log events around."""
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    lines = done.stderr.splitlines()
    told = [line for line in lines if not line.startswith('{"timestamp"')]
    assert len(lines) - len(told) <= 2, done.stderr
    assert told, done.stderr
    assert lines[-1] == told[-1], "the message is the last thing said"
    assert told[0].startswith("pigeonholed: ")
    assert all(line.startswith("  ") for line in told[1:]), done.stderr
    return "\n".join(told)


# -- the configuration is wrong ---------------------------------------------------------------------------------------

FAULTY: dict[str, tuple[Callable[[str], str], list[str]]] = {
    "an unknown key": (
        lambda text: text.replace("settle_s", "setle_s"),
        [r"pigeonholed\.toml:\d+: inbox\.0\.setle_s = 0\.0: unknown key", 'did you mean "settle_s"'],
    ),
    "a key in the wrong table": (
        lambda text: text.replace("[metrics]", '[log]\nmodel = "x"\n[metrics]'),
        ["log.model", r'"model" in \[\[inbox\]\]'],
    ),
    "a bad value": (lambda text: text.replace("settle_s = 0.0", 'settle_s = "5 s"'), ['settle_s = "5 s"', "seconds"]),
    "no TOML": (lambda text: text.replace("[[inbox]]", "[[inbox"), [r"pigeonholed\.toml:2:", "TOML"]),
    "an output inside the inbox": (
        lambda text: text.replace('"sorted"', '"inbox/sorted"'),
        ["inbox/sorted", "outside"],
    ),
    "no inbox": (lambda text: "[log]\n", ["there is no inbox", "path, output and model"]),
}


@pytest.mark.parametrize("name", FAULTY)
def test_configuration_with_a_fault_is_refused_in_one_line_and_nothing_is_made(workspace: Workspace, name: str) -> None:
    spoil, words = FAULTY[name]
    workspace.config.write_text(spoil(workspace.config.read_text()))
    before = snapshot(workspace.root)
    done = workspace.run("run")
    assert done.returncode == 78
    told = complaint(done)
    assert "\n" not in told
    for word in words:
        assert re.search(word, told), told
    assert snapshot(workspace.root) == before


@pytest.mark.sqlite
def test_all_faults_of_a_configuration_are_told_in_one_go_and_passwords_never(workspace: Workspace) -> None:
    edit(workspace, "settle_s = 0.0", "settle_s = -1\ncolour = 1")
    edit(workspace, "[metrics]", '[database]\nurl = "postgres://me:hunter2@db/x"\n[metrics]\nport = 9')
    before = snapshot(workspace.root)
    for command in ("run", "check", "classify", "models", "db"):
        more = {"classify": ["x.png"], "models": ["list"], "db": ["upgrade"]}.get(command, [])
        done = workspace.run(command, *more)
        assert done.returncode == 78, command
        head, *faults = complaint(done).splitlines()
        assert "4 faults" in head
        assert [word in "\n".join(faults) for word in ("settle_s", "colour", "database.url", "metrics.port")] == [
            True
        ] * 4
        assert "hunter2" not in done.stderr
    assert snapshot(workspace.root) == before


def test_no_configuration_anywhere_names_the_places_and_the_way_out(tmp_path: Path) -> None:
    done = Typed(tmp_path).run("run", configured=False, environ={"HOME": str(tmp_path), "XDG_CONFIG_HOME": ""})
    assert done.returncode == 78
    told = complaint(done)
    for word in (f"{tmp_path}/pigeonholed.toml", f"{tmp_path}/.config/", "/etc/pigeonholed", "--config", "init"):
        assert word in told
    assert list(tmp_path.iterdir()) == []


def test_configuration_that_was_named_and_is_missing_is_never_replaced_by_another(workspace: Workspace) -> None:
    done = workspace.run("models", "list", "--config", "other.toml", configured=False)
    assert done.returncode == 78
    assert "other.toml: there is no such file" in complaint(done)


def test_first_found_configuration_wins_and_flag_goes_before_environment_before_file(tmp_path: Path) -> None:
    """Each place names a store of its own; the listing tells which one it was."""
    work = Typed(tmp_path / "work")
    places = {"flag": work.root, "variable": tmp_path / "b", "here": work.root, "user": tmp_path / "c/pigeonholed"}
    for name, folder in places.items():
        folder.mkdir(parents=True, exist_ok=True)
        (tmp_path / "stores" / name / f"model-{name}").mkdir(parents=True)
        publish_tiny(tmp_path / "stores" / name, f"model-{name}")
        text = CONFIG + f'[models]\ndir = "{tmp_path}/stores/{name}"\n'
        (folder / ("flag.toml" if name == "flag" else "pigeonholed.toml")).write_text(text)
    publish_tiny(tmp_path / "stores/key", "model-key")
    environ = {
        "XDG_CONFIG_HOME": str(tmp_path / "c"),
        "PIGEONHOLED_CONFIG": str(tmp_path / "b/pigeonholed.toml"),
        "PIGEONHOLED__MODELS__DIR": str(tmp_path / "stores/key"),
    }

    def served(*flags: str) -> str:
        done = work.run("models", "list", *flags, configured=False, environ=environ)
        assert done.returncode == 0, done.stderr
        return str(done.stdout.split()[0])

    assert served("--models", str(tmp_path / "stores/user")) == "model-user"
    assert served() == "model-key"
    del environ["PIGEONHOLED__MODELS__DIR"]
    assert served("--config", "flag.toml") == "model-flag"
    assert served() == "model-variable"
    del environ["PIGEONHOLED_CONFIG"]
    assert served() == "model-here"
    (work.root / "pigeonholed.toml").unlink()
    assert served() == "model-user"


# -- the configuration is right, the world is not ---------------------------------------------------------------------

OURS = r"pigeonholed\.(lock|sock|db.*)|sorted/\.pigeonholed(/(owner|lock))?"
"""What a start may leave that failed: its lock, its database, and at an output who owns it."""


def _inbox_is_file(workspace: Workspace) -> None:
    shutil.rmtree(workspace.inbox)
    workspace.inbox.write_text("")


def _make_database(workspace: Workspace) -> None:
    assert workspace.run("db", "upgrade").returncode == 0


def _other_owner(workspace: Workspace) -> None:
    (workspace.output / ".pigeonholed").mkdir(parents=True)
    (workspace.output / ".pigeonholed/owner").write_text("0123456789abcdef" * 2 + "\n")


def _newer_schema(workspace: Workspace) -> None:
    _make_database(workspace)
    change(workspace.database, "UPDATE alembic_version SET version_num = '9999'")


def _read_only_database(workspace: Workspace) -> None:
    _make_database(workspace)
    workspace.database.chmod(0o444)


def _database_in_read_only_folder(workspace: Workspace) -> None:
    (workspace.root / "db").mkdir(mode=0o555)
    edit(workspace, "[metrics]", '[database]\nurl = "sqlite:///db/results.db"\n[metrics]')


def _read_only(name: str) -> Callable[[Workspace], None]:
    def spoil(workspace: Workspace) -> None:
        (workspace.root / name).mkdir(exist_ok=True)
        (workspace.root / name).chmod(0o555)

    return spoil


def _config(old: str, new: str) -> Callable[[Workspace], None]:
    return lambda workspace: edit(workspace, old, new)


def _file(name: str, content: bytes | None) -> Callable[[Workspace], None]:
    def spoil(workspace: Workspace) -> None:
        if content is None:
            (workspace.root / name).unlink()
        else:
            (workspace.root / name).write_bytes(content)

    return spoil


def _changed_byte(workspace: Workspace) -> None:
    file = workspace.root / "models/tiny/1/export/openvino/model.bin"
    data = bytearray(file.read_bytes())
    data[0] ^= 1
    file.write_bytes(data)


@dataclass(frozen=True)
class Refusal:
    """How the world is, the exit code then, and what must be said."""

    spoil: Callable[[Workspace], object]
    exit_code: int
    words: Sequence[str]
    as_root: bool = True
    of_file: bool = False  # it is about SQLite's file


REFUSALS = {
    "inbox that was never seen": Refusal(
        lambda w: shutil.rmtree(w.inbox), 78, ["inbox", "does not exist", "create = true"]
    ),
    "inbox that is a file": Refusal(_inbox_is_file, 78, ["inbox", "is no folder|does not exist"]),
    "inbox that files cannot leave": Refusal(_read_only("inbox"), 78, ["inbox", "Permission denied"], as_root=False),
    "file in the way of the output": Refusal(_file("sorted", b"mine"), 78, ["cannot write to the output", "folder"]),
    "output that cannot be written": Refusal(
        _read_only("sorted"), 78, ["cannot write to the output", "Permission denied"], as_root=False
    ),
    "output of another database": Refusal(_other_owner, 78, ["sorted belongs to another database", "choose another"]),
    "state folder that cannot be written": Refusal(
        _read_only("."), 78, ["state folder", "Permission denied", r"\[state\].dir"], as_root=False
    ),
    "model that is not there": Refusal(_config('"tiny"', '"tinny"'), 78, ["no model 'tinny'", "it has colours, tiny"]),
    "version that is not there": Refusal(
        _config('model = "tiny"', 'model = "tiny"\nversion = 9'), 78, ["no version 9", "tiny"]
    ),
    "store without a model": Refusal(
        lambda w: shutil.rmtree(w.root / "models"), 78, ["no model 'tiny'", "models: it has none"]
    ),
    "model with a changed byte": Refusal(_changed_byte, 78, ["models/tiny/1", "model.bin does not match its checksum"]),
    "model with a missing file": Refusal(
        _file("models/tiny/1/labels.txt", None), 78, ["models/tiny/1", "labels.txt is missing"]
    ),
    "CURRENT that names nothing": Refusal(
        _file("models/tiny/CURRENT", b"7\n"), 78, ["no version 7", "CURRENT", "models use tiny VERSION"]
    ),
    "GPU that is not there": Refusal(
        _config("[metrics]", '[runtime]\ndevice = "gpu"\n[metrics]'), 69, ["GPU|gpu", "device"]
    ),
    "database that is none": Refusal(
        _file("pigeonholed.db", b"not a database at all" * 400),
        69,
        ["pigeonholed.db", "is not a database"],
        of_file=True,
    ),
    "newer schema": Refusal(_newer_schema, 69, ["schema 9999", "newer pigeonholed", "install the newer"]),
    "database that may not be written": Refusal(
        _read_only_database,
        69,
        ["pigeonholed.db", "read-?only|may not|cannot be written"],
        as_root=False,
        of_file=True,
    ),
    "database in a folder that may not be written": Refusal(
        _database_in_read_only_folder,
        69,
        ["db/results.db", "folder .*/db cannot be written to"],
        as_root=False,
        of_file=True,
    ),
    "database in a folder that is not there": Refusal(
        _config("[metrics]", '[database]\nurl = "sqlite:///nowhere/results.db"\n[metrics]'),
        69,
        ["nowhere/results.db", "folder .*nowhere does not exist"],
        of_file=True,
    ),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.sqlite] if refusal.of_file else []) for name, refusal in REFUSALS.items()],
)
def test_start_that_cannot_succeed_ends_with_one_clear_message_and_changes_nothing(
    workspace: Workspace, name: str
) -> None:
    refusal = REFUSALS[name]
    if name.startswith("GPU") and find_gpu():
        pytest.skip("this machine has a GPU")
    before = [] if refusal.as_root else unprivileged()
    refusal.spoil(workspace)
    there = snapshot(workspace.root, OURS)
    file = workspace.root / "pigeonholed.db"
    database = file.read_bytes() if file.exists() else b""
    done = workspace.run("run", before=before)
    assert done.returncode == refusal.exit_code, done.stderr
    told = complaint(done)
    assert "\n" not in told
    for word in refusal.words:
        assert re.search(word, told), told
    after = snapshot(workspace.root, OURS)
    if "sorted" not in there:
        after.pop("sorted", None)  # an empty folder may have been made by then
    assert after == there
    if database:
        assert file.read_bytes() == database


def test_taken_port_is_named_and_check_finds_it_too(workspace: Workspace) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        edit(workspace, 'listen = ""', f'listen = "{address}"')
        before = snapshot(workspace.root, OURS)
        done = workspace.run("run")
        assert done.returncode == 69
        assert re.search(rf"cannot listen on {address} .*in use.*\[metrics\]\.listen", complaint(done))
        assert snapshot(workspace.root, OURS) == before
        checked = workspace.run("check")
    assert checked.returncode == 69
    assert re.search(rf"(?m)^FAIL  metrics: .*{address}.*in use", checked.stdout)


def test_inbox_that_was_seen_before_is_waited_for_and_once_says_so(workspace: Workspace) -> None:
    edit(workspace, 'listen = ""', 'listen = "127.0.0.1:0"')
    workspace.drop("second.png", picture(*BLUE, seed=1))
    assert workspace.run("run", "--once").returncode == 0
    away = workspace.root / "away"
    workspace.inbox.rename(away)
    done = workspace.run("run", "--once")
    assert done.returncode == 69
    assert "the inbox" in complaint(done)
    with workspace.serving() as daemon:
        until(lambda: "camera" in daemon.fetch("/readyz")[1], "a page that names the inbox")
        assert daemon.fetch("/readyz")[0] == 503
        assert daemon.fetch("/livez")[0] == 200
        away.rename(workspace.inbox)
        workspace.drop("third.png", picture(*BLUE, seed=2))
        until(lambda: "third.png" in rows(workspace), "the inbox to be noticed")
        until(lambda: daemon.fetch("/readyz")[0] == 200, "readiness")
        assert daemon.terminate() == 0
    assert workspace.audit() == []


# -- run --once -------------------------------------------------------------------------------------------------------


def test_once_files_what_is_there_waits_for_a_cut_picture_and_counts_rejected_ones_as_done(
    workspace: Workspace,
) -> None:
    edit(workspace, "incomplete_s = 0.2", "incomplete_s = 1.5")
    whole = picture(*RED, seed=1)
    workspace.drop("cut.png", whole[:-20])
    workspace.drop("text.png", b"hello")
    workspace.drop("empty.png", b"")
    workspace.drop("broken.png", whole[:60] + b"\0" * 200 + whole[260:])
    started_s = time.monotonic()
    done = workspace.run("run", "--once")
    assert done.returncode == 0
    assert time.monotonic() - started_s > 1.5
    assert done.stdout == ""
    assert "5 files filed" in done.stderr.splitlines()[-1]
    found = rows(workspace)
    assert found["first.png"]["outcome"] == "sorted"
    reasons = {path: row["reason"] for path, row in found.items() if row["outcome"] == "rejected"}
    assert reasons == {
        "cut.png": "truncated",
        "text.png": "unsupported",
        "empty.png": "empty",
        "broken.png": "unreadable",
    }
    assert workspace.audit() == []


@contextmanager
def growing(path: Path, *, every_s: float = 0.03) -> Iterator[None]:
    """A file that somebody goes on writing to."""
    done = threading.Event()

    def write() -> None:
        while not done.wait(every_s):
            with path.open("ab") as file:
                file.write(b"more")

    path.write_bytes(b"begun")
    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        done.set()
        writer.join()


def test_once_names_and_leaves_a_file_that_keeps_changing(workspace: Workspace) -> None:
    edit(workspace, "settle_s = 0.0", "settle_s = 0.4")
    hostile = "sub/grow\x1b[31ming\n.png"
    (workspace.inbox / "sub").mkdir()
    with growing(workspace.inbox / hostile):
        done = workspace.run("run", "--once")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert re.search(r"^pigeonholed: still changing .*camera/sub/grow\\x1b\[31ming\\n\.png$", last), done.stderr
    assert (workspace.inbox / hostile).exists()
    assert rows(workspace)["first.png"]["status"] == "filed"
    assert sorted(os.listdir(workspace.output)) == [".pigeonholed", "cat"]


@pytest.mark.parametrize("no_color", ["", "1"])
def test_colours_are_for_terminals_and_not_under_no_color(workspace: Workspace, no_color: str) -> None:
    workspace.drop("text\x1b[31m.png", b"hello")
    leader, follower = pty.openpty()
    environ = environment() | {"TERM": "xterm", "NO_COLOR": no_color}
    command = workspace.command("run", "--once", "--config", str(workspace.config))
    process = subprocess.Popen(command, stderr=follower, stdout=subprocess.PIPE, env=environ)
    os.close(follower)
    shown = b""
    try:
        while data := os.read(leader, 65536):
            shown += data
    except OSError:  # how the leader learns that the follower has gone
        pass
    os.close(leader)
    assert process.communicate()[0] == b""
    assert process.returncode == 0
    assert b"file_rejected" in shown
    assert (b"\x1b[32m" in shown) is (no_color == "")
    assert b"text\x1b[31m" not in shown  # a file's name paints nothing


# -- one long life of a daemon, looked at from all sides --------------------------------------------------------------

TOUR_CONFIG = """
[[inbox]]
name = "camera"
path = "inbox"
output = "sorted"
model = "tiny"
settle_s = 0.0
incomplete_s = 0.3
rescan_s = 0.5

[[inbox]]
name = "scanner"
path = "scans"
output = "archive"
model = "colours"
version = 1
settle_s = 0.0
watch = "poll"
rescan_s = 0.3
template = "{model}-{version}/{date:%Y-%m}/{label}/{confidence:.2f} {stem}.{ext}"
min_confidence = 0.9
top_k = 1
include = ["*.png"]
exclude = ["skip-*", "drafts/"]

[[inbox]]
name = "slow"
path = "slow"
output = "sorted"
model = "tiny"
settle_s = 0.6
min_confidence = 0.0

[metrics]
listen = "127.0.0.1:0"
[log]
level = "debug"
"""
LONG = "n" * 251 + ".png"
DROPS = {
    b"sub/a/b/x.png": picture(*RED, seed=1),
    b"blue.png": picture(*BLUE, seed=2),
    b"grey.png": picture(*GREY, seed=3),
    b"twice.png": picture(*RED, seed=4),
    b"text.png": b"hello",
    b"empty.png": b"",
    b"cut.png": picture(*RED, seed=5)[:-20],
    b"byte\xff\xc3.png": picture(*RED, seed=6),
    b"new\nline.png": picture(*RED, seed=7),
    b"esc\x1b[31m.png": picture(*RED, seed=8),
    b"back\\slash.png": picture(*RED, seed=9),
    LONG.encode(): picture(*RED, seed=10),
    b"bad" + LONG.encode()[3:]: b"hello again",
    b"esc\x1b[31m.txt": b"no picture",
}
# A format whose end cannot be told from its bytes.
SLOW = cv2.imencode(".tiff", np.full((16, 16, 3), RED[::-1], np.uint8), [cv2.IMWRITE_TIFF_COMPRESSION, 1])[1].tobytes()
SCANS = {"red.png": RED, "pale.png": (135, 110, 110), "skip-1.png": RED, "drafts/d.png": RED, "red.jpg": RED}


@dataclass
class Tour:
    """What was seen of one daemon from its start to its end."""

    workspace: Workspace
    ready_s: float = 0.0
    ready_cpu_s: float = 0.0
    resident_mb: float = 0.0
    mapped: str = ""
    pages: dict[str, tuple[int, str]] = field(default_factory=dict)
    scrapes: dict[str, dict[tuple[str, frozenset[tuple[str, str]]], float]] = field(default_factory=dict)
    pid: int = 0
    refused_s: float = 0.0
    second: subprocess.CompletedProcess[str] | None = None
    check: subprocess.CompletedProcess[str] | None = None
    slow_seen: list[str] = field(default_factory=list)
    exit_code: int | None = None
    burst: int = 0
    left: int = 0
    at_rest: list[list[str]] = field(default_factory=list)
    afterwards: subprocess.CompletedProcess[str] | None = None
    log: bytes = b""
    out: bytes = b""

    def value(self, scrape: str, name: str, **labels: str) -> float:
        return self.scrapes[scrape]["pigeonholed_" + name, frozenset(labels.items())]

    def row(self, path: bytes) -> dict[str, Any]:
        text = path.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")
        return rows(self.workspace)[text]


@pytest.fixture(scope="module")
def tour(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Tour:
    """One daemon with two models and three inboxes lives through everything; the tests then look at what was seen."""
    workspace = furnish(tmp_path_factory.mktemp("tour") / "work", models, TOUR_CONFIG)
    tour = Tour(workspace)
    for folder in ("scans/drafts", "slow", "inbox/stays/empty"):
        (workspace.root / folder).mkdir(parents=True)
    _drop_odd_things(workspace)
    started_s = time.monotonic()
    with workspace.serving() as daemon:
        until(lambda: daemon.fetch("/readyz")[0] == 200, "readiness")
        tour.ready_s = time.monotonic() - started_s
        _look_at_process(tour, daemon)
        _scrape(tour, daemon, "first")
        for name, data in DROPS.items():
            _drop(workspace, name, data)
        for scan, colour in SCANS.items():
            (workspace.root / "scans" / scan).write_bytes(picture(*colour, seed=20))
        with _written_slowly(workspace.root / "slow/slow.tiff", SLOW, tour, takes_s=2.0):
            until(lambda: filed(workspace) == 1 + len(DROPS) + 2, "all to be filed")
            _drop(workspace, b"twice.png", picture(*RED, seed=31))
            _drop(workspace, LONG.encode(), picture(*RED, seed=32))
            until(lambda: len(list(workspace.output.glob("cat/nnn*.png"))) == 2, "the second of two long names")
            began_s = time.monotonic()
            tour.second = workspace.run("run")
            tour.refused_s = time.monotonic() - began_s
            tour.check = workspace.run("check", "--json")
        until(lambda: "slow.tiff" in rows(workspace), "the slow file")
        until(lambda: rows(workspace)["slow.tiff"]["status"] == "filed", "the slow file to be filed")
        until(lambda: daemon.fetch("/metrics")[1].count("pigeonholed_queue_images") > 0, "a scrape")
        _scrape(tour, daemon, "last")
        _burst(tour, daemon)
    tour.afterwards = workspace.run("run", "--once")
    tour.log = daemon.log.read_bytes()
    tour.out = (workspace.root / "daemon.out").read_bytes()
    return tour


def _drop_odd_things(workspace: Workspace) -> None:
    os.mkfifo(workspace.inbox / "pipe.png")
    (workspace.inbox / "link.png").symlink_to("/etc/hostname")
    (workspace.inbox / ".hidden.png").write_bytes(picture(*RED, seed=40))
    (workspace.inbox / "half.png.part").write_bytes(picture(*RED, seed=41))


def _drop(workspace: Workspace, name: bytes, data: bytes) -> None:
    assert workspace.drop(os.fsdecode(name), data)


def _look_at_process(tour: Tour, daemon: Running) -> None:
    tour.pid = daemon.process.pid
    proc = Path(f"/proc/{tour.pid}")
    times = (proc / "stat").read_text().rpartition(")")[2].split()
    tour.ready_cpu_s = (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")
    tour.resident_mb = int((proc / "status").read_text().split("VmHWM:")[1].split()[0]) / 1024
    tour.mapped = (proc / "maps").read_text()


def _scrape(tour: Tour, daemon: Running, name: str) -> None:
    tour.pages |= {f"{name} {page}": daemon.fetch(page) for page in ("/livez", "/readyz", "/metrics", "/")}
    tour.scrapes[name] = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(tour.pages[f"{name} /metrics"][1])
        for sample in family.samples
    }


@contextmanager
def _written_slowly(path: Path, data: bytes, tour: Tour, takes_s: float) -> Iterator[None]:
    """A picture written by a program that opens it anew for each piece: only its quiet tells when it is complete."""
    pieces = [data[start : start + len(data) // 20 + 1] for start in range(0, len(data), len(data) // 20 + 1)]

    def write() -> None:
        path.touch()
        for piece in pieces:
            if not path.exists():
                tour.slow_seen.append("taken while it was written")
                return
            with path.open("ab") as file:
                file.write(piece)
            time.sleep(takes_s / len(pieces))  # the slowness is what is tried

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        writer.join()


def _burst(tour: Tour, daemon: Running) -> None:
    """Many files at once, and TERM when the first of them is filed."""
    before = filed(tour.workspace)
    for number in range(150):
        _drop(tour.workspace, b"burst/%d.png" % number, picture(*BLUE, seed=1000 + number))
    until(lambda: filed(tour.workspace) > before, "the first of the burst")
    tour.exit_code = daemon.terminate()
    tour.burst = filed(tour.workspace) - before
    tour.at_rest = [sorted(os.listdir(tour.workspace.root / name / ".pigeonholed")) for name in ("sorted", "archive")]
    tour.left = len(list((tour.workspace.inbox / "burst").iterdir()))


def test_daemon_is_ready_soon_small_and_without_tensorflow(tour: Tour) -> None:
    assert tour.ready_cpu_s < 2.5
    assert tour.ready_s < 28  # by the clock of a machine that may be very busy; about 1 s on one that is not
    assert tour.resident_mb < 250
    assert "openvino" in tour.mapped
    assert not re.search(r"site-packages/(tensorflow|keras|torch|h5py|ml_dtypes)/", tour.mapped)


METRICS = {
    "images_processed_total": ["inbox", "outcome"],
    "images_classified_total": ["inbox", "label"],
    "images_rejected_total": ["inbox", "reason"],
    "ineligible_files": ["inbox", "reason"],
    "inference_images_total": ["model", "version"],
    "inference_batches_total": ["model", "version"],
    "batch_size_images_count": [],
    "batch_flush_total": ["reason"],
    "queue_images": ["stage"],
    "queue_oldest_age_seconds": ["inbox"],
    "stage_duration_seconds_count": ["stage"],
    "end_to_end_seconds_count": ["inbox"],
    "confidence_ratio_count": ["model"],
    "errors_total": ["stage", "reason"],
    "retries_total": ["stage"],
    "rescan_recovered_total": ["inbox"],
    "inbox_available": ["inbox"],
    "last_success_timestamp_seconds": ["inbox"],
    "model_info": ["inbox", "model", "version", "runtime", "device"],
    "model_reloads_total": ["model", "result"],
    "lost_files_total": [],
    "build_info": ["version", "python", "keras", "openvino"],
    "reviews_total": ["inbox", "result"],
}


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_is_there_from_the_first_scrape_on(tour: Tour, name: str) -> None:
    labels = [{key for key, _ in keys} for metric, keys in tour.scrapes["first"] if metric == f"pigeonholed_{name}"]
    assert labels, "no series at all"
    assert all(found == set(METRICS[name]) for found in labels)


def test_pages_say_what_is_the_case(tour: Tour) -> None:
    assert tour.pages["first /livez"] == (200, "ok\n")
    assert tour.pages["last /readyz"] == (200, "ok\n")
    assert tour.pages["last /"][0] == 404
    for stage in ("settle", "claim", "read", "decode", "queue", "infer", "record", "file"):
        assert tour.value("first", "stage_duration_seconds_count", stage=stage) >= 0
    for reason in ("full", "timeout", "idle", "drain", "model_change"):
        assert tour.value("first", "batch_flush_total", reason=reason) >= 0


def test_metrics_count_exactly_what_was_filed(tour: Tour) -> None:
    assert tour.value("last", "images_processed_total", inbox="camera", outcome="sorted") == 1 + 8 + 2
    assert tour.value("last", "images_processed_total", inbox="camera", outcome="unsure") == 1
    assert tour.value("last", "images_processed_total", inbox="camera", outcome="rejected") == 5
    assert tour.value("last", "images_processed_total", inbox="scanner", outcome="sorted") == 1
    assert tour.value("last", "images_processed_total", inbox="scanner", outcome="unsure") == 1
    assert tour.value("last", "images_classified_total", inbox="camera", label="dog") >= 1
    assert tour.value("last", "images_classified_total", inbox="scanner", label="red") == 2
    assert tour.value("last", "images_rejected_total", inbox="camera", reason="unsupported") == 3
    assert tour.value("last", "images_rejected_total", inbox="camera", reason="empty") == 1
    assert tour.value("last", "images_rejected_total", inbox="camera", reason="truncated") == 1
    assert tour.value("last", "inference_images_total", model="tiny", version="1") == 13
    assert tour.value("last", "inference_images_total", model="colours", version="1") == 2
    assert tour.value("last", "end_to_end_seconds_count", inbox="camera") == 17
    assert tour.value("last", "confidence_ratio_count", model="colours") == 2
    assert tour.value("last", "lost_files_total") == 0
    assert tour.value("last", "inbox_available", inbox="slow") == 1
    assert time.time() - 600 < tour.value("last", "last_success_timestamp_seconds", inbox="camera") <= time.time()
    errors = [value for (name, _), value in tour.scrapes["last"].items() if name == "pigeonholed_errors_total"]
    assert sum(errors) == 0


def test_what_is_left_in_the_inbox_is_counted(tour: Tour) -> None:
    counts = {
        dict(labels)["reason"]: value
        for (name, labels), value in tour.scrapes["last"].items()
        if name == "pigeonholed_ineligible_files" and dict(labels)["inbox"] == "camera"
    }
    assert sum(counts.values()) == 4  # hidden, half-written, a pipe, a link
    for name in ("pipe.png", "link.png", ".hidden.png", "half.png.part"):
        assert os.path.lexists(tour.workspace.inbox / name)
    assert (tour.workspace.inbox / "stays/empty").is_dir()
    assert (tour.workspace.inbox / "sub/a/b").is_dir()


def test_sub_folders_names_of_all_kinds_and_clashes_end_where_the_contract_says(tour: Tour) -> None:
    output = os.fsencode(tour.workspace.output)
    for path, data in DROPS.items():
        row = tour.row(path) if path not in (b"twice.png", LONG.encode()) else None
        place = {
            b"blue.png": b"dog/blue.png",
            b"text.png": b"_rejected/unsupported/text.png",
            b"empty.png": b"_rejected/empty/empty.png",
            b"cut.png": b"_rejected/truncated/cut.png",
            b"esc\x1b[31m.txt": b"_rejected/unsupported/esc\x1b[31m.txt",
        }.get(path, b"cat/" + path)
        if path == b"grey.png":
            assert row is not None
            place = b"_unsure/%s/grey.png" % row["label"].encode()
        if path.startswith(b"bad"):
            continue
        with open(os.path.join(output, place), "rb") as file:
            assert file.read() == data, path
    twins = sorted(tour.workspace.output.glob("cat/nnn*.png"))
    assert [len(twin.name.encode()) for twin in twins] == [255, 255]
    assert twins[0].name.endswith("-1.png") or twins[1].name.endswith("-1.png")
    assert (tour.workspace.output / "cat/twice-1.png").read_bytes() == picture(*RED, seed=31)


def test_rejected_file_with_the_longest_name_has_its_reason_beside_it(tour: Tour) -> None:
    row = tour.row(b"bad" + LONG.encode()[3:])
    place = tour.workspace.output / row["destination"]
    assert place.read_bytes() == b"hello again"
    assert json.loads(Path(f"{place}.reason.json").read_text())["reason"] == "unsupported"


def test_names_are_escaped_in_database_and_log_and_forge_no_line(tour: Tour) -> None:
    assert "byte\\xff\\xc3.png" in rows(tour.workspace)
    assert "back\\\\slash.png" in rows(tour.workspace)
    text = tour.log.decode()  # every byte of it is UTF-8
    assert "\x1b" not in text
    events = [json.loads(line) for line in text.splitlines()]
    paths = {event["path"] for event in events if event["event"] == "file_filed"}
    assert {"byte\\xff\\xc3.png", "back\\\\slash.png", "new\nline.png", "esc\x1b[31m.png"} <= paths
    assert all(event["timestamp"].endswith("Z") for event in events)


def test_log_is_on_stderr_alone(tour: Tour) -> None:
    assert tour.out == b""


def test_template_thresholds_top_k_include_and_exclude_are_those_of_the_inbox(tour: Tour) -> None:
    found = rows(tour.workspace)
    month = time.strftime("%Y-%m")
    red, pale = found["red.png"], found["pale.png"]
    assert red["destination"] == f"colours-1/{month}/red/1.00 red.png"
    assert re.fullmatch(rf"_unsure/colours-1/{month}/red/0\.7\d pale\.png", pale["destination"])
    assert (red["outcome"], pale["outcome"], red["model"], red["model_version"]) == ("sorted", "unsure", "colours", 1)
    assert found["slow.tiff"]["model"] == "tiny"
    for row, kept in [(red, 1), (found["blue.png"], 2)]:
        assert len(tour.workspace.rows(f"SELECT rank FROM predictions WHERE image_id = {row['id']}")) == kept
    left = sorted(
        str(path.relative_to(tour.workspace.root / "scans")) for path in (tour.workspace.root / "scans").rglob("*")
    )
    assert left == ["drafts", "drafts/d.png", "red.jpg", "skip-1.png"]


def test_file_that_is_written_slowly_is_taken_once_and_whole(tour: Tour) -> None:
    assert tour.slow_seen == []
    found = tour.workspace.rows("SELECT status, destination FROM images WHERE inbox = 'slow'")
    assert found == [{"status": "filed", "destination": "cat/slow.tiff"}]
    assert (tour.workspace.output / "cat/slow.tiff").read_bytes() == SLOW


def test_second_daemon_is_refused_at_once_and_names_the_first(tour: Tour) -> None:
    assert tour.second is not None
    assert tour.second.returncode == 69
    assert tour.refused_s < 8  # it waits for nothing; about 0.5 s on a machine that is not busy
    told = complaint(tour.second)
    assert f"process {tour.pid} " in told
    assert str(tour.workspace.root) in told
    assert tour.exit_code == 0, "the first went on, and ended well"


def test_check_beside_a_running_daemon_finds_nothing_wrong(tour: Tour) -> None:
    assert tour.check is not None
    findings = {fact["what"]: fact for fact in map(json.loads, tour.check.stdout.splitlines())}
    assert (tour.check.returncode, tour.check.stderr) == (0, "")
    assert str(tour.pid) in findings["state"]["detail"]
    assert all(fact["ok"] for fact in findings.values())


def test_term_under_load_files_what_is_in_flight_and_leaves_the_rest_to_the_next_start(tour: Tour) -> None:
    assert tour.exit_code == 0
    assert tour.burst > 0
    assert tour.at_rest == [["lock", "owner"]] * 2
    assert tour.burst + tour.left == 150
    assert tour.afterwards is not None
    assert tour.afterwards.returncode == 0
    assert f"{tour.left} files filed" in tour.afterwards.stderr


def test_auditor_finds_nothing_after_all_that(tour: Tour) -> None:
    work = tour.workspace
    slow = Dropped(b"slow.tiff", hashlib.sha256(SLOW).hexdigest(), inbox="slow")
    stays = {b"pipe.png", b"link.png", b".hidden.png", b"half.png.part"}
    inboxes = [work.inbox, work.root / "slow"]
    assert (
        audit([*work.dropped, slow], inboxes, work.output, work.database, names={"camera", "slow"}, stays=stays) == []
    )


def test_second_signal_ends_at_once_and_the_next_start_takes_up_the_work(workspace: Workspace) -> None:
    edit(workspace, 'listen = ""', 'listen = "127.0.0.1:0"')
    with workspace.serving() as daemon:
        until(lambda: daemon.fetch("/readyz")[0] == 200, "readiness")
        # Stopped, it gets both signals in the same moment: nothing can be drained in between.
        for number in (signal.SIGSTOP, signal.SIGTERM, signal.SIGINT, signal.SIGCONT):
            daemon.process.send_signal(number)
        assert daemon.process.wait(10) in {128 + signal.SIGTERM, 128 + signal.SIGINT}
    assert b"Traceback" not in daemon.log.read_bytes()
    assert workspace.run("run", "--once").returncode == 0
    assert workspace.audit() == []


# -- check ------------------------------------------------------------------------------------------------------------


def test_check_of_a_sound_folder_has_one_line_each_and_leaves_the_folders_as_they_were(workspace: Workspace) -> None:
    before = snapshot(workspace.root)
    done = workspace.run("check")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert all(line.startswith("ok    ") for line in lines)
    told = [line[6:].partition(":")[0] for line in lines]
    for what in ("configuration", "state", "database", "inbox camera", "model tiny", "metrics", "device"):
        assert told.count(what) == 1
    assert snapshot(workspace.root) == before  # root may look without standing in the way of a service that is not

    assert workspace.run("run", "--once").returncode == 0
    before = snapshot(workspace.root, r"pigeonholed\.(db-(wal|shm)|lock)")
    assert workspace.run("check").returncode == 0
    assert snapshot(workspace.root, r"pigeonholed\.(db-(wal|shm)|lock)") == before


@pytest.mark.sqlite
def test_check_tells_every_fault_at_once_and_ends_with_the_code_of_the_first(workspace: Workspace) -> None:
    shutil.rmtree(workspace.inbox)
    _changed_byte(workspace)
    workspace.database.write_bytes(b"not a database at all" * 400)
    done = workspace.run("check", "--json")
    findings = {fact["what"]: fact for fact in map(json.loads, done.stdout.splitlines())}
    assert done.stderr == ""
    assert done.returncode == findings["database"]["exit_code"] == 69
    failed = {what: fact["exit_code"] for what, fact in findings.items() if not fact["ok"]}
    assert failed == {"database": 69, "inbox camera": 78, "model tiny": 78}
    assert "is not a database" in findings["database"]["detail"]
    assert "checksum" in findings["model tiny"]["detail"]


# -- classify ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Workspace:
    """Pictures of all kinds beside a store; no configuration."""
    root = tmp_path_factory.mktemp("gallery")
    shutil.copytree(models, root / "models")
    (root / "pics/sub").mkdir(parents=True)
    files = {
        b"red.png": picture(*RED, seed=1),
        b"sub/blue.png": picture(*BLUE, seed=2),
        b"grey.png": picture(*GREY, seed=3),
        b"byte\xff.png": picture(*RED, seed=4),
        b"new\nline.png": picture(*RED, seed=5),
        b"esc\x1b[31m.png": picture(*RED, seed=6),
        b"cut.png": picture(*RED, seed=7)[:-20],
        b"notes.txt": b"hello",
        b".hidden.png": picture(*RED, seed=8),
    }
    for name, data in files.items():
        with open(os.path.join(os.fsencode(root), b"pics", name), "wb") as file:
            file.write(data)
    os.mkfifo(root / "pics/pipe.png")
    (root / "pics/dangling.png").symlink_to("nowhere")
    (root / "pics/link.png").symlink_to("red.png")  # a service takes regular files only
    return Typed(root)


def test_classify_writes_one_object_a_line_and_touches_nothing(gallery: Workspace) -> None:
    before = snapshot(gallery.root)
    done = gallery.run("classify", "--models", "models", "--model", "tiny", "--json", "pics", configured=False)
    assert (done.returncode, done.stderr) == (0, "")
    facts = {fact["path"]: fact for fact in map(json.loads, done.stdout.splitlines())}
    assert list(facts) == [
        *("pics/byte\\xff.png", "pics/cut.png", "pics/esc\x1b[31m.png", "pics/grey.png", "pics/new\nline.png"),
        *("pics/notes.txt", "pics/red.png", "pics/sub/blue.png"),
    ]
    blue, cut = facts["pics/sub/blue.png"], facts["pics/cut.png"]
    assert {"path", "outcome", "reason", "label", "confidence", "top", "model", "version"} <= set(blue)
    assert (blue["outcome"], blue["reason"], blue["label"], blue["model"], blue["version"]) == (
        *("sorted", None, "dog", "tiny", 1),
    )
    assert blue["confidence"] == blue["top"][0]["confidence"] > 0.99
    assert [entry["label"] for entry in blue["top"]] == ["dog", "cat"]
    assert facts["pics/grey.png"]["outcome"] == "unsure"
    assert (cut["outcome"], cut["reason"], cut["label"], cut["top"]) == ("rejected", "truncated", None, [])
    assert snapshot(gallery.root) == before


def test_classify_goes_on_after_what_it_cannot_have_and_tells_it(gallery: Workspace) -> None:
    for name in ("secret.png", "locked"):
        shutil.rmtree(gallery.root / name, ignore_errors=True)
    (gallery.root / "secret.png").write_bytes(picture(*RED, seed=9))
    (gallery.root / "secret.png").chmod(0)
    (gallery.root / "locked").mkdir(mode=0)
    done = gallery.run(
        *(
            "classify",
            "--models",
            "models",
            "--model",
            "tiny",
            "--top",
            "1",
            "nothere\x1b[31m.png",
            "secret.png",
            "locked",
        ),
        *("pics/pipe.png", "pics/red.png", "pics/sub"),
        configured=False,
        before=unprivileged(),
    )
    assert done.returncode == 1
    assert done.stdout.splitlines() == ["pics/red.png: cat 100.0%", "pics/sub/blue.png: dog 100.0%"]
    told = done.stderr.splitlines()
    assert "\x1b" not in done.stderr
    assert all(line.startswith("pigeonholed: ") for line in told)
    for words in (r"nothere\\x1b\[31m\.png", "secret.png.*Permission denied", "locked.*Permission denied", "pipe.png"):
        assert len([line for line in told if re.search(words, line)]) == 1, told


def test_classify_text_has_one_line_a_picture_whatever_its_name(gallery: Workspace) -> None:
    done = gallery.run("classify", "--models", "models", "--model", "colours", "pics", configured=False)
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    lines = done.stdout.splitlines()
    assert len(lines) == 8
    assert "pics/red.png: red 100.0%, blue 0.0%" in lines
    assert any(re.match(r"pics/new\\nline\.png: red", line) for line in lines)
    assert any(re.match(r"pics/esc\\x1b\[31m\.png: red", line) for line in lines)
    assert any(re.match(r"pics/byte\\xff\.png: red", line) for line in lines)
    assert any(re.match(r"pics/cut\.png: rejected, truncated", line) for line in lines)
    assert any(re.search(r"grey.png: .*\(unsure\)", line) for line in lines)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--models", "models"], ["colours, tiny", "--model NAME"]),
        (["--models", "models", "--model", "huge"], ["no model 'huge'", "it has colours, tiny"]),
        (["--models", "pics"], ["store pics", "no model", "pigeonholed-train"]),
        (["--models", "nowhere"], ["store nowhere", "no model", "pigeonholed-train"]),
    ],
)
def test_classify_says_which_model_it_lacks(gallery: Workspace, arguments: list[str], words: list[str]) -> None:
    done = gallery.run("classify", *arguments, "pics/red.png", configured=False)
    assert done.returncode == 78
    told = complaint(done)
    assert "(none)" not in told
    for word in words:
        assert word in told


# -- models, db, init -------------------------------------------------------------------------------------------------


def test_models_are_listed_and_verified(workspace: Workspace) -> None:
    publish_tiny(workspace.root / "models", "tiny")
    listed = workspace.run("models", "list", "--json")
    assert (listed.returncode, listed.stderr) == (0, "")
    entries = [json.loads(line) for line in listed.stdout.splitlines()]
    found = [(entry["name"], entry["version"], entry["current"]) for entry in entries]
    assert found == [("colours", 1, True), ("tiny", 1, False), ("tiny", 2, True)]
    assert workspace.run("models", "verify", "colours").returncode == 0
    _changed_byte(workspace)
    before = snapshot(workspace.root)
    done = workspace.run("models", "verify")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[:3] for line in lines] == [
        *(["colours", "1", "ok"], ["tiny", "1", "FAILED"], ["tiny", "2", "ok"]),
    ]
    assert "model.bin does not match its checksum" in lines[1]
    assert snapshot(workspace.root) == before


@pytest.mark.sqlite
def test_database_is_made_and_named_by_its_schema(workspace: Workspace) -> None:
    missing = workspace.run("db", "current", "--json")
    assert missing.returncode == 69
    assert "no database" in complaint(missing)
    made = workspace.run("db", "upgrade")
    assert (made.returncode, made.stderr) == (0, "")
    assert workspace.run("db", "upgrade").stdout.strip() in made.stdout
    done = workspace.run("db", "current", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    facts = json.loads(done.stdout)
    assert facts["current"] == facts["newest"]


def test_init_makes_a_folder_that_check_understands_and_never_overwrites_one(tmp_path: Path) -> None:
    work = Typed(tmp_path)
    made = work.run("init", "new/folder", configured=False)
    assert (made.returncode, made.stderr) == (0, "")
    folder = tmp_path / "new/folder"
    assert sorted(os.listdir(folder)) == ["inbox", "models", "pigeonholed.toml", "sorted"]
    for command in re.findall(r"pigeonholed (?:check|run) --config \S+", made.stdout):
        assert str(folder / "pigeonholed.toml") in str(tmp_path / command.split()[-1].rstrip(","))
    checked = work.run("check", "--config", "new/folder/pigeonholed.toml", configured=False)
    findings = checked.stdout.splitlines()
    assert [line for line in findings if line.startswith("FAIL")] == [
        line for line in findings if "model digits" in line
    ]
    assert checked.returncode == 78  # there is no model yet, and nothing else is wrong

    (folder / "pigeonholed.toml").write_text("# mine\n")
    shutil.rmtree(folder / "sorted")
    before = snapshot(tmp_path)
    again = work.run("init", "new/folder", configured=False)
    assert again.returncode == 78
    assert "pigeonholed.toml is there already" in complaint(again)
    assert snapshot(tmp_path) == before


# -- help -------------------------------------------------------------------------------------------------------------


def every_command(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, group
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from every_command(command, (*path, name))
        else:
            yield (*path, name), command


def test_every_command_has_help_that_explains_each_option() -> None:
    found = dict(every_command(cli))
    assert {("init",), ("demo",), ("run",), ("check",), ("classify",), ("models", "list"), ("db", "current")} <= set(
        found
    )
    for path, command in found.items():
        done = CliRunner().invoke(cli, [*path, "--help"], prog_name="pigeonholed")
        assert done.exit_code == 0, path
        assert done.stdout.startswith("Usage: " + " ".join(["pigeonholed", *path]))
        assert command.help, path
        for parameter in command.params:
            assert not isinstance(parameter, click.Option) or parameter.help, (path, parameter.name)


@pytest.mark.parametrize("group", [path for path, command in every_command(cli) if isinstance(command, click.Group)])
def test_bare_group_prints_its_help(group: tuple[str, ...]) -> None:
    done = CliRunner().invoke(cli, list(group), prog_name="pigeonholed")
    assert done.output.startswith("Usage: pigeonholed")
    assert "Commands:" in done.output


@pytest.mark.parametrize(
    "arguments", [["run", "--nonsense"], ["nonsense"], ["classify"], ["init"], ["run", "--log-level", "loud"]]
)
def test_wrong_usage_exits_2_and_points_to_the_help(arguments: list[str]) -> None:
    done = CliRunner().invoke(cli, arguments, prog_name="pigeonholed")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "--help" in done.stderr


def test_help_and_version_come_out_of_a_real_process_on_stdout(tmp_path: Path) -> None:
    bare = Typed(tmp_path).run(configured=False)
    assert "Commands:" in bare.stdout + bare.stderr
    version = Typed(tmp_path).run("--version", configured=False)
    assert (version.returncode, version.stderr) == (0, "")
    assert re.search(r"\d+\.\d+\.\d+", version.stdout)
    assert list(tmp_path.iterdir()) == []


def test_database_and_socket_are_private_enough(tour: Tour) -> None:
    """What others on the machine may do to a running service: nothing."""
    assert stat.S_IMODE((tour.workspace.output / ".pigeonholed").stat().st_mode) == 0o700
