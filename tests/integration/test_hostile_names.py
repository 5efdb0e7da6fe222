"""Names that try to paint, to forge and to break out: whoever shows one shows printable text that reads back."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from helpers import files_of
from running import Workspace, picture

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
    return seen


SINKS = (
    "dry run", "dry run json", "classify", "classify json", "log json", "log console", "rejected", "rejected json",
    "status", "status json",
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


@pytest.mark.usefixtures("shown")
def test_every_file_is_filed_once_with_its_bytes_and_nothing_is_elsewhere(site: Workspace) -> None:
    assert site.audit() == []
    assert files_of(site.root / "outside") == {"canary": b"sings"}
    known = {"inbox", "sorted", "models", "staging", "outside", "pigeonholed.toml"}
    assert {name for name in os.listdir(site.root) if not name.startswith("pigeonholed.")} <= known


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
