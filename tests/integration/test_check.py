"""`pigeonholed check` finds each planted fault of configuration and surroundings, and says what to do about it."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bundles import publish_tiny
from mounts import another_mount, small_disk
from pigeonholed import classifying, filesystems, output, sqlite_file, surroundings
from pigeonholed.classifying import trial
from pigeonholed.cli import cli
from pigeonholed.inotify_limits import Limit
from pigeonholed.locking import Lock
from running import Workspace, unprivileged

CONFIG = """
[[inbox]]
name = "camera"
path = "inbox"
output = "sorted"
model = "tiny"
settle_s = 0.0
[metrics]
listen = ""
"""


@dataclass
class Site:
    """A sound working folder, a fault that is planted in it, and what `check` says."""

    work: Workspace
    stack: ExitStack
    monkeypatch: pytest.MonkeyPatch
    models: Path

    @property
    def root(self) -> Path:
        return self.work.root

    def edit(self, old: str, new: str) -> None:
        text = self.work.config.read_text()
        assert old in text
        self.work.config.write_text(text.replace(old, new))

    def make_database(self) -> None:
        """One of the newest schema."""
        from pigeonholed import database

        engine = database.connect(f"sqlite:///{self.work.database}")
        database.upgrade(engine)
        engine.dispose()


@dataclass(frozen=True)
class Fault:
    """How a fault is planted, and the answer: which finding, how bad, what is wrong and what to do."""

    plant: Callable[[Site], object]
    what: str
    exit_code: int
    wrong: str
    remedy: str
    real: bool = False  # a process of its own, without root's rights


def _bad_toml(site: Site) -> None:
    site.edit("[[inbox]]", "[[inbox")


def _sticky(site: Site) -> None:
    site.monkeypatch.setattr(output, "is_sticky_of_another", lambda _folder: True)


def _away(site: Site) -> None:
    site.make_database()
    with closing(sqlite3.connect(site.work.database)) as connection:
        connection.execute("INSERT INTO inboxes (name, path) VALUES ('camera', 'inbox')")
        connection.commit()
    site.work.inbox.rmdir()


def _owned_by_another(site: Site) -> None:
    site.make_database()
    private = site.work.output / ".pigeonholed"
    private.mkdir(parents=True)
    (private / "owner").write_text("f" * 32 + "\n")


def _owned_and_ours_is_new(site: Site) -> None:
    _owned_by_another(site)
    site.work.database.unlink()


def _missing_version(site: Site) -> None:
    (site.root / "models/tiny/CURRENT").write_text("7\n")


def _changed_byte(site: Site) -> None:
    file = site.root / "models/tiny/1/labels.txt"
    file.write_bytes(file.read_bytes()[:-2] + b"X\n")


def _newer_schema(site: Site) -> None:
    site.make_database()
    with closing(sqlite3.connect(site.work.database)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()


def _taken_port(site: Site) -> None:
    taken = site.stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    site.edit('listen = ""', f'listen = "127.0.0.1:{taken.getsockname()[1]}"')


def _gpu(site: Site) -> None:
    site.monkeypatch.setattr("pigeonholed.checking.find_gpu", lambda: None)
    site.edit("[metrics]", '[runtime]\ndevice = "gpu"\n[metrics]')

    def refuse(*_arguments: Any, **_options: Any) -> None:
        raise classifying.DeviceUnavailable("there is no GPU")

    site.monkeypatch.setattr(trial, "hold", refuse)


def _held(site: Site) -> None:
    lock = Lock.take(str(site.root / "pigeonholed.lock"))
    site.stack.callback(lock.release)


def _few_watches(site: Site) -> None:
    site.monkeypatch.setattr(Limit, "value_now", lambda _limit: 3)
    for number in range(4):
        (site.work.inbox / f"{number}").mkdir()


def _no_instances(site: Site) -> None:
    site.monkeypatch.setattr(surroundings, "exhausted", lambda: Limit.INSTANCES)


def _small_disk(site: Site) -> None:
    disk = site.stack.enter_context(small_disk(site.root))
    site.edit('output = "sorted"', f'output = "{disk}/sorted"')


def _other_mount(site: Site) -> None:
    elsewhere = site.stack.enter_context(another_mount(site.root))
    (elsewhere / "inbox").mkdir()
    site.edit('path = "inbox"', f'path = "{elsewhere}/inbox"')


def _network(site: Site) -> None:
    site.monkeypatch.setattr(sqlite_file, "type_of", lambda _path: "nfs4")


def _events_on_network(site: Site) -> None:
    site.edit("settle_s", 'watch = "events"\nsettle_s')
    for module in (filesystems, surroundings):
        site.monkeypatch.setattr(module, "type_of", lambda _path: "cifs")


def _early_clock(site: Site) -> None:
    site.monkeypatch.setattr(surroundings.time, "gmtime", lambda: time.struct_time((1970,) + (1,) * 8))


def _skewed(site: Site) -> None:
    site.monkeypatch.setattr(surroundings, "_skew_s", lambda _folder: -90.0)


def _few_files(site: Site) -> None:
    # Only said, not set: a process that runs many tests may have that many open.
    site.monkeypatch.setattr(surroundings.resource, "getrlimit", lambda _which: (200, 4096))


def _latin(site: Site) -> None:
    site.monkeypatch.setattr(surroundings.sys, "getfilesystemencoding", lambda: "iso8859-1")


def _left_over(site: Site) -> None:
    (site.work.output / ".pigeonholed" / "0123456789abcdef").mkdir(parents=True)


def _token(mode: int, content: str = "secret") -> Callable[[Site], None]:
    def plant(site: Site) -> None:
        file = site.root / "token"
        file.write_text(content)
        file.chmod(mode)
        site.edit("[metrics]", '[web]\ntoken_file = "token"\n[metrics]')

    return plant


def _not_supported(site: Site) -> None:
    site.edit("[metrics]", '[engine]\nkind = "ray"\n[metrics]')


def edits(old: str, new: str) -> Callable[[Site], None]:
    return lambda site: site.edit(old, new)


# What else is at fault where these are.
KNOCK_ON = {"GPU without one": {"model tiny"}, "state folder that is none": {"database", "model tiny", "control"}}

FAULTS = {
    "bad TOML": Fault(_bad_toml, "configuration", 78, r"pigeonholed\.toml:2:\d+: ", "TOML: expected"),
    "unknown key": Fault(
        edits("settle_s", "setle_s"), "configuration", 78, r"setle_s = 0.0: unknown key", "did you mean"
    ),
    "value out of range": Fault(
        edits("0.0", "-1"), "configuration", 78, "settle_s = -1", "must be a number of seconds"
    ),
    "unknown word": Fault(
        edits("settle_s", 'watch = "pol"\nsettle_s'), "configuration", 78, 'watch = "pol"', 'did you mean "poll"'
    ),
    "no such file": Fault(lambda site: site.work.config.unlink(), "configuration", 78, "there is no such file", "file"),
    "output inside the inbox": Fault(
        edits('"sorted"', '"inbox/sorted"'), "configuration", 78, "lies inside", "an output must be outside every inbox"
    ),
    "overlapping inboxes": Fault(
        edits("[metrics]", '[[inbox]]\nname = "b"\npath = "inbox/b"\noutput = "o"\nmodel = "tiny"\n[metrics]'),
        "configuration",
        78,
        "lies inside",
        "inboxes must not overlap",
    ),
    "engine that is not built": Fault(_not_supported, "configuration", 78, "not built yet", 'use "local"'),
    "state folder that is none": Fault(
        edits("[metrics]", '[state]\ndir = "pigeonholed.toml"\n[metrics]'),
        "state",
        78,
        "cannot use the state folder",
        "choose another",
    ),
    "state folder held by a daemon": Fault(_held, "state", 0, r"served by process \d+ now", ""),
    "folder of the database missing": Fault(
        edits("[metrics]", '[database]\nurl = "sqlite:///nowhere/x.db"\n[metrics]'),
        "database",
        69,
        "nowhere does not exist",
        "make it, or name another",
    ),
    "database that is a folder": Fault(
        lambda site: site.work.database.mkdir(),
        "database",
        69,
        "a folder, or something else",
        "move it away",
    ),
    "no database": Fault(
        lambda site: site.work.database.write_bytes(b"not a database" * 500),
        "database",
        69,
        "is not a database",
        "move it away",
    ),
    "database of a newer program": Fault(_newer_schema, "database", 69, "has schema 9999", "install the newer version"),
    "database on a network file system": Fault(
        _network, "database", 69, r"network file system \(nfs4\)", "a local disk"
    ),
    "inbox missing": Fault(lambda site: site.work.inbox.rmdir(), "inbox camera", 78, "does not exist", "make it"),
    "inbox that was there before": Fault(_away, "inbox camera", 69, "is away, and was there before", "mount it again"),
    "inbox that is a file": Fault(
        lambda site: (
            site.work.inbox.rmdir(),
            site.work.inbox.touch(),
            site.edit("settle_s", "create = true\nsettle_s"),
        ),
        "inbox camera",
        78,
        "does not exist",
        "make it",
    ),
    "inbox not readable": Fault(
        lambda site: site.work.inbox.chmod(0o300),
        "inbox camera",
        78,
        "cannot read the inbox",
        "let this user list",
        real=True,
    ),
    "inbox not writable": Fault(
        lambda site: site.work.inbox.chmod(0o500),
        "inbox camera",
        78,
        "cannot take files out",
        "let this user write",
        real=True,
    ),
    "inbox sticky of another": Fault(_sticky, "inbox camera", 78, "sticky", "chmod -t"),
    "output not writable": Fault(
        lambda site: (site.work.output.mkdir(), site.work.output.chmod(0o500)),
        "inbox camera",
        78,
        "cannot write to the output",
        "a folder that this user may write to",
        real=True,
    ),
    "output of another database": Fault(
        _owned_by_another, "inbox camera", 78, "belongs to another database", "choose another"
    ),
    "output of a database that is gone": Fault(
        _owned_and_ours_is_new,
        "inbox camera",
        78,
        "belongs to another database, and ours is not made",
        "choose another",
    ),
    "inbox on another mount": Fault(_other_mount, "inbox camera", 0, "must be copied to another mount", ""),
    "left over by a crash": Fault(
        _left_over, "inbox camera", 0, "1 batches of an earlier run", "taken up at the start"
    ),
    "no such model": Fault(
        edits('"tiny"', '"huge"'),
        "model huge",
        78,
        "There is no model 'huge'.*it has tiny",
        "train DATA --name huge --publish",
    ),
    "CURRENT names what is missing": Fault(
        _missing_version, "model tiny", 78, "no version 7", "pigeonholed models use tiny"
    ),
    "damaged model": Fault(
        _changed_byte, "model tiny", 78, "labels.txt does not match its checksum", "or publish it again"
    ),
    "model that others can change": Fault(
        lambda site: (site.root / "models/tiny/1/labels.txt").chmod(0o666),
        "model tiny",
        78,
        "everybody can write",
        "chmod go-w",
    ),
    "socket with too long a name": Fault(
        edits("[metrics]", f'[control]\nsocket = "{"s" * 120}"\n[metrics]'),
        "control",
        78,
        "too long for a socket",
        r"of at most 80 bytes",
    ),
    "socket in a folder that is missing": Fault(
        edits("[metrics]", '[control]\nsocket = "nowhere/s"\n[metrics]'),
        "control",
        78,
        "No such file",
        "name another path",
    ),
    "something else where the socket goes": Fault(
        lambda site: (site.root / "pigeonholed.sock").touch(), "control", 78, "no socket is there", "move it away"
    ),
    "port taken": Fault(_taken_port, "metrics", 69, "in use", "choose another address"),
    "address of another machine": Fault(
        edits('listen = ""', 'listen = "192.0.2.1:9109"'), "metrics", 69, "Cannot assign", "choose another address"
    ),
    "GPU without one": Fault(_gpu, "device", 69, "no GPU", 'say device = "auto"'),
    "token file that others can read": Fault(_token(0o644), "web", 78, "others can read", "chmod 600"),
    "token file that is empty": Fault(_token(0o600, ""), "web", 78, "is empty", "openssl rand"),
    "token file that is missing": Fault(
        edits("[metrics]", '[web]\ntoken_file = "token"\n[metrics]'), "web", 78, "No such file", "umask 077"
    ),
    "too few watches": Fault(
        _few_watches, "inotify", 0, "fs.inotify.max_user_watches is 3", r"sysctl fs.inotify.max_user_watches=524288"
    ),
    "no more queues of events": Fault(
        _no_instances, "inotify", 0, "max_user_instances is", "sysctl fs.inotify.max_user_instances="
    ),
    "disk nearly full": Fault(_small_disk, "disk", 0, r"only [\d.]+ MB are free", "make room"),
    "events on a network file system": Fault(
        _events_on_network, "inbox camera", 0, "cifs does not tell", 'watch = "auto"'
    ),
    "clock before its time": Fault(_early_clock, "clock", 0, "cannot be", "set the clock"),
    "clock of another machine": Fault(_skewed, "clock", 0, "90 s behind", "NTP"),
    "few open files": Fault(_few_files, "open files", 0, "only 200 files", "ulimit -n 4096"),
    "names in another encoding": Fault(_latin, "locale", 0, "read as iso8859-1", "LANG=C.UTF-8"),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("store") / "models"
    publish_tiny(store, "tiny")
    return store


@pytest.fixture
def site(tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    root = tmp_path / "work"
    (root / "inbox").mkdir(parents=True)
    shutil.copytree(models, root / "models")
    (root / "pigeonholed.toml").write_text(CONFIG)
    monkeypatch.setattr(trial, "hold", lambda *_arguments, **_options: trial.Passed("openvino", "cpu", "f32"))
    with ExitStack() as stack:
        yield Site(Workspace(root), stack, monkeypatch, models)


def snapshot(root: Path) -> dict[str, tuple[int, object]]:
    """Every entry below a folder: permissions, and content."""
    found: dict[str, tuple[int, object]] = {}
    for folder, folders, names in os.walk(root):
        for name in [*folders, *names]:
            path = Path(folder, name)
            status = path.lstat()
            found[str(path.relative_to(root))] = (status.st_mode, path.read_bytes() if path.is_file() else None)
    return found


def checked(site: Site, fault: Fault, *more: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a check."""
    arguments = ["check", *more, "--config", str(site.work.config)]
    if fault.real:
        done = site.work.run(*arguments, configured=False, before=unprivileged(), timeout_s=200)
        return done.returncode, done.stdout, done.stderr
    result = CliRunner().invoke(cli, arguments, prog_name="pigeonholed")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def test_sound_folder_gives_one_line_each_and_no_warning(site: Site) -> None:
    code, out, err = checked(site, FAULTS["inbox missing"])
    assert (code, err) == (0, "")
    assert [line for line in out.splitlines() if not line.startswith("ok    ")] == []


@pytest.mark.parametrize("name", FAULTS)
def test_planted_fault_is_found_with_its_remedy_and_the_disk_stays_as_it_was(site: Site, name: str) -> None:
    fault = FAULTS[name]
    fault.plant(site)
    before = snapshot(site.root)
    code, out, err = checked(site, fault, "--json")
    assert "Traceback" not in out + err
    assert err == ""
    found = [json.loads(line) for line in out.splitlines()]
    told = [finding for finding in found if finding["what"] == fault.what and re.search(fault.wrong, finding["detail"])]
    assert told, out
    assert re.search(fault.remedy, told[0]["detail"])
    assert told[0]["exit_code"] == fault.exit_code
    assert told[0]["ok"] is (fault.exit_code == 0)
    others = [finding for finding in found if not finding["ok"] and finding["what"] != fault.what]
    assert {finding["what"] for finding in others} == KNOCK_ON.get(name, set())
    assert code == max((finding["exit_code"] for finding in found), default=0)
    assert snapshot(site.root) == before


def test_at_least_twenty_faults_are_planted() -> None:
    assert len(FAULTS) >= 20


def test_several_faults_at_once_are_all_told_for_people_and_for_programs(site: Site) -> None:
    _taken_port(site)
    _changed_byte(site)
    site.work.inbox.rmdir()
    site.work.database.write_bytes(b"not a database" * 500)
    (site.root / "pigeonholed.sock").touch()
    _token(0o644)(site)
    code, out, err = checked(site, FAULTS["inbox missing"])
    assert (code, err) == (69, "")  # of the first
    failed = [line for line in out.splitlines() if line.startswith("FAIL  ")]
    assert [line[6:].partition(":")[0] for line in failed] == [
        "database", "inbox camera", "model tiny", "control", "metrics", "web",
    ]  # fmt: skip
    _, out, _ = checked(site, FAULTS["inbox missing"], "--json")
    assert sum(not json.loads(line)["ok"] for line in out.splitlines()) == len(failed)


def test_several_faults_of_the_configuration_are_an_object_each(site: Site) -> None:
    site.edit("settle_s = 0.0", "settle_s = -1\ncolour = 1")
    code, out, err = checked(site, FAULTS["bad TOML"], "--json")
    assert (code, err) == (78, "")
    assert [bool(re.search("settle_s|colour", json.loads(line)["detail"])) for line in out.splitlines()] == [True] * 2
    code, out, err = checked(site, FAULTS["bad TOML"])
    assert (code, out) == (78, "")
    assert "2 faults in the configuration" in err


def test_names_in_the_configuration_upset_no_terminal(site: Site) -> None:
    site.edit('path = "inbox"', 'path = "in\\u001b[31mbox"')
    code, out, _ = checked(site, FAULTS["inbox missing"])
    assert code == 78
    assert all(line.isprintable() for line in out.splitlines())
