"""Names that try to paint, to forge and to break out: whoever shows one shows printable text that reads back."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
from contextlib import closing

import pytest
from prometheus_client.parser import text_string_to_metric_families

from helpers import files_of
from running import Workspace, picture, until

NAMES = (
    b"line\nbreak.png",
    b"paint\x1b[2J\x1b]0;owned\x07.png",
    b"eight\xc2\x9b31mbit.png",
    "right\u202egnp.exe.png".encode(),
    "zero\u200bwidth\ufeff.png".encode(),
    b'"} 1\nfake_metric 2.png',
    b"<script>alert(1)<\\script>.png",
    b"=cmd()|calc.png",
    b"back\\x41slash.png",
    b"\xff\xfe\xed\xa0\x80.png",
    "NFC \u00e9.png".encode(),
    "NFD e\u0301.png".encode(),
    b"TWIN.png",
    b"twin.png",
    b"-rf.png",
    b"a..png",
    b"_unsure.png",
    b"_rejected",
    b"con.png",
    b"nul",
    b"%2e%2e%2f.png",
    b"${HOME}.png",
    b"n" * 251 + b".png",
    b"carriage\rreturn.png",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Each name once as a picture and once as a text that is refused, all filed by one run that logs everything."""
    site = Workspace.make(tmp_path_factory.mktemp("hostile") / "work")
    for number, name in enumerate(NAMES):
        assert site.drop(os.fsdecode(name), picture(200, 40, 40, seed=number))
        assert site.drop("text/" + os.fsdecode(name), b"text %d" % number)
    canary = site.root / "outside"
    canary.mkdir()
    (canary / "canary").write_bytes(b"sings")
    return site


@pytest.fixture(scope="module")
def shown(site: Workspace) -> dict[str, subprocess.CompletedProcess[str]]:
    """What each command wrote, before and after the run."""
    seen = {"dry run": site.run("run", "--dry-run"), "dry run json": site.run("run", "--dry-run", "--json")}
    seen["classify"] = site.run("classify", str(site.inbox))
    seen["classify json"] = site.run("classify", "--json", str(site.inbox))
    seen["log json"] = site.run("run", "--once", "--log-level", "debug", "--log-format", "json")
    seen["rejected"] = site.run("rejected", "list")
    seen["rejected json"] = site.run("rejected", "list", "--json")
    seen["status"] = site.run("status")
    seen["status json"] = site.run("status", "--json")
    for number, name in enumerate(NAMES):  # again, for the other format of the log
        site.drop("again/" + os.fsdecode(name), b"again %d" % number)
    seen["log console"] = site.run("run", "--once", "--log-level", "debug", "--log-format", "console")
    seen["check"] = site.run("check")
    seen["undo"] = _undone_in_vain(site)
    seen["undo json"] = _undone_in_vain(site, "--json")
    return seen


def _undone_in_vain(site: Workspace, *more: str) -> subprocess.CompletedProcess[str]:
    """An `undo` of everything that can put nothing back, and has to name each file: a new one has its old name."""
    blocked = [*NAMES, *(below + name for below in (b"text/", b"again/") for name in NAMES)]
    for name in blocked:
        os.makedirs(os.path.dirname(os.path.join(site.inbox, os.fsdecode(name))), exist_ok=True)
        with open(os.path.join(os.fsencode(site.inbox), name), "xb"):
            pass
    done = site.run("undo", "--last", "999", *more)
    for name in blocked:
        os.unlink(os.path.join(os.fsencode(site.inbox), name))
    assert done.returncode == 1, done.stderr
    done.returncode = 0  # all of it was left undone, as it should be
    return done


SINKS = (
    "dry run", "dry run json", "classify", "classify json", "log json", "log console", "rejected", "rejected json",
    "status", "status json", "check", "undo", "undo json",
)  # fmt: skip


@pytest.mark.parametrize("sink", SINKS)
def test_no_sink_shows_a_raw_control_character(shown: dict[str, subprocess.CompletedProcess[str]], sink: str) -> None:
    done = shown[sink]
    assert done.returncode == 0, done.stderr
    lines = [*done.stdout.split("\n"), *done.stderr.split("\n")]
    assert [line for line in lines if not line.isprintable()] == []
    assert not any(line.startswith("fake_metric") for line in lines)


@pytest.mark.parametrize(
    ("sink", "key"), [("dry run json", "path"), ("rejected json", "path"), ("classify json", "path")]
)
def test_json_reads_back_every_name(
    shown: dict[str, subprocess.CompletedProcess[str]], sink: str, key: str, site: Workspace
) -> None:
    told = [_bytes_of(json.loads(line)[key]) for line in shown[sink].stdout.splitlines()]
    wanted = {b"text/" + name for name in NAMES} if sink == "rejected json" else set(NAMES)
    root = os.fsencode(site.inbox) + b"/"
    assert wanted <= {path.removeprefix(root) for path in told}


def test_every_line_of_the_json_log_is_json(shown: dict[str, subprocess.CompletedProcess[str]]) -> None:
    events = [json.loads(line) for line in shown["log json"].stderr.splitlines() if line.startswith("{")]
    filed = {_bytes_of(event["path"]) for event in events if event["event"] == "file_filed"}
    assert filed == {*NAMES, *(b"text/" + name for name in NAMES)}


def test_undo_names_what_it_left(shown: dict[str, subprocess.CompletedProcess[str]]) -> None:
    lines = shown["undo"].stderr.splitlines()
    assert len([line for line in lines if line.startswith("left: ")]) == 3 * len(NAMES)
    assert len(json.loads(shown["undo json"].stdout)["refused"]) == 3 * len(NAMES)


@pytest.mark.usefixtures("shown")
def test_a_sidecar_is_printable_and_tells_the_name_that_reads_back(site: Workspace) -> None:
    told = set()
    for path in site.output.rglob("*.reason.json"):
        text = path.read_bytes().decode()
        assert all(line.isprintable() for line in text.split("\n")), path
        told.add(_bytes_of(json.loads(text)["path"]))
    assert told == {below + name for below in (b"text/", b"again/") for name in NAMES}


@pytest.mark.usefixtures("shown")
def test_the_rows_tell_every_name_as_valid_text_that_reads_back(site: Workspace) -> None:
    found = site.rows("SELECT source_path, destination FROM images WHERE status = 'filed'")
    rows = [(row["source_path"], row["destination"]) for row in found]
    sources = {_bytes_of(source) for source, _ in rows}
    assert sources == {*NAMES, *(below + name for below in (b"text/", b"again/") for name in NAMES)}
    for _, destination in rows:
        assert os.path.isfile(os.path.join(os.fsencode(site.output), _bytes_of(destination)))


@pytest.mark.usefixtures("shown")
def test_a_service_tells_no_name_to_prometheus_and_one_line_a_state_to_systemd(site: Workspace) -> None:
    config = site.config.read_text()
    site.config.write_text(config.replace('listen = ""', 'listen = "127.0.0.1:0"'))
    for number, name in enumerate(NAMES):
        site.drop("served/" + os.fsdecode(name), b"served %d" % number)
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as systemd:
        systemd.bind(str(site.root / "pigeonholed.notify"))
        systemd.settimeout(30)
        before = site.filed()
        with site.serving(environ={"NOTIFY_SOCKET": str(site.root / "pigeonholed.notify")}) as running:
            until(lambda: site.filed() == before + len(NAMES), "all to be filed")
            status, page = running.fetch("/metrics")
            for path in ("/livez", "/readyz"):
                assert running.fetch(path)[1].replace("\n", "").isprintable()
            told = systemd.recv(10_000).decode()
            assert running.terminate() == 0
    site.config.write_text(config)
    assert status == 200
    families = list(text_string_to_metric_families(page))
    values = {value for family in families for sample in family.samples for value in sample.labels.values()}
    assert not [value for value in values if any(part in value for part in ("script", "calc", "owned", ".png"))]
    assert "fake_metric" not in page
    assert all(line.isprintable() for line in page.split("\n"))
    assert {line.partition("=")[0] for line in told.split("\n")} <= {
        "READY",
        "STATUS",
        "WATCHDOG",
        "EXTEND_TIMEOUT_USEC",
    }


@pytest.mark.usefixtures("shown")
def test_every_file_is_filed_once_with_its_bytes_and_nothing_is_elsewhere(site: Workspace) -> None:
    assert site.audit() == []
    assert files_of(site.root / "outside") == {"canary": b"sings"}
    known = {"inbox", "sorted", "models", "staging", "outside", "daemon.log", "daemon.out"}
    assert {name for name in os.listdir(site.root) if not name.startswith("pigeonholed.")} <= known


@pytest.mark.usefixtures("shown")
def test_every_file_goes_back_under_its_own_name(site: Workspace) -> None:
    """The last of these tests: it empties the output."""
    dropped = {os.fsdecode(one.path): one.sha256 for one in site.dropped}
    done = site.run("undo", "--last", "999")
    said = [line for line in done.stderr.splitlines() if "database_not_durable" not in line]
    assert (done.returncode, said) == (0, [])
    assert {name: hashlib.sha256(data).hexdigest() for name, data in files_of(site.inbox).items()} == dropped
    assert files_of(site.output) == {}


def _bytes_of(text: str) -> bytes:
    r"""A path of the contract's notation: `\\` and `\xNN`, read without the daemon's code."""
    raw, out, at = text.encode(), bytearray(), 0
    while at < len(raw):
        if raw[at : at + 2] == b"\\\\":
            out += b"\\"
            at += 2
        elif raw[at : at + 2] == b"\\x":
            out.append(int(raw[at + 2 : at + 4], 16))
            at += 4
        else:
            out.append(raw[at])
            at += 1
    return bytes(out)
