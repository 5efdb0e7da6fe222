"""Small files and words from elsewhere: whatever is in them, they mean something or nothing, and nobody trips."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from bundles import make_bundle
from helpers import make_arrival
from pigeonholed import sealing
from pigeonholed.bundle import BundleError
from pigeonholed.cli import cli
from pigeonholed.config_errors import one_line
from pigeonholed.explanations import explains
from pigeonholed.hold_folder import held_name, parse_held
from pigeonholed.locking import Held, Lock
from pigeonholed.output import Output, OutputRefused
from pigeonholed.store import ModelStore
from pigeonholed.systemd import notify
from soaking import examples

KEY = "0123456789abcdef" * 2
OURS = json.dumps({"path": "x", "reason": "empty", "arrival": KEY}, indent=2).encode()

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just(KEY) | st.just("arrival"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["arrival", "x"]), inner),
)
contents = (
    st.binary(max_size=200)
    | anything.map(lambda value: json.dumps(value).encode())
    | st.sampled_from([b"[" * 100_000, b'{"arrival": ' + b"9" * 5000 + b"}"])
    | st.sampled_from([OURS * 2, OURS + b" " * (1 << 20)])
    | st.tuples(st.integers(0, len(OURS) - 1), st.integers(0, 255)).map(
        lambda change: OURS[: change[0]] + bytes([change[1]]) + OURS[change[0] + 1 :]
    )
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("small")


@given(contents)
@examples(200, 50_000)
def test_a_sidecar_is_ours_only_if_it_names_our_arrival(folder: Path, content: bytes) -> None:
    file = folder / "x.reason.json"
    file.write_bytes(content)
    try:
        meant = json.loads(content[: 1 << 20])
    except (ValueError, RecursionError):
        meant = None
    ours = isinstance(meant, dict) and meant.get("arrival") == KEY
    assert explains(str(file), KEY) is ours


def test_a_sidecar_that_is_no_plain_file_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "ours").write_bytes(OURS)
    (tmp_path / "link").symlink_to("ours")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "held")
    with (
        closing(socket.socket(socket.AF_UNIX)) as listener,
        open(os.open(tmp_path / "held", os.O_RDWR), "rb"),  # somebody holds it open and writes nothing
    ):
        listener.bind(str(tmp_path / "socket"))
        for name in ("link", "folder", "pipe", "held", "socket", "missing"):
            assert not explains(str(tmp_path / name), KEY), name
    assert explains(str(tmp_path / "ours"), KEY)


names_held = st.text("0123456789abcdef-.held", max_size=60) | st.builds(
    "{}-{}.held".format,
    st.integers(0, 10**20) | st.sampled_from([1 << 63, 10**19 - 1]),
    st.sampled_from([KEY, KEY[1:], KEY.upper()]),
)


@given(names_held)
@examples(300, 50_000)
def test_the_name_of_a_held_original_means_a_row_that_can_be_or_none(name: str) -> None:
    found = parse_held(name)
    if found is not None:
        assert 0 <= found[0] < 1 << 63  # what a database can be asked for
        assert re.fullmatch(f"0*{found[0]}-{found[1]}.held", name)


@given(st.integers(1, 10**17), st.binary(min_size=16, max_size=16))
@examples(50, 10_000)
def test_the_name_of_a_held_original_reads_back(number: int, key: bytes) -> None:
    arrival = make_arrival(number=number)
    name = held_name(arrival).replace(arrival.key, key.hex())
    assert parse_held(name) == (number, key.hex())


@pytest.fixture(scope="module")
def store(folder: Path) -> Path:
    make_bundle(folder / "staging", publish_into=folder / "models")
    return folder / "models"


@given(st.binary(max_size=100) | st.sampled_from([b"1\n", b" 1 ", b"01", b"-1", b"9" * 64, b"\xd9\xa1", b"../1"]))
@examples(200, 20_000)
def test_current_names_a_version_or_is_refused_in_a_sentence(store: Path, content: bytes) -> None:
    (store / "tiny/CURRENT").write_bytes(content)
    try:
        current = ModelStore(store).current("tiny")
    except BundleError as error:
        said = str(error)
    else:
        said = ""
        assert current is not None
        assert str(current) == content[:64].decode("ascii").strip()
    assert one_line(said) == said


@given(st.data())
@examples(150, 20_000)
def test_a_seal_of_any_content_is_kept_or_refused_in_a_sentence(store: Path, data: st.DataObject) -> None:
    whole = (store / "tiny/1" / sealing.SEAL).read_bytes()
    place = store.parent / "sealed"
    if not place.exists():
        shutil.copytree(store / "tiny/1", place)
    at = data.draw(st.integers(0, len(whole)))
    piece = data.draw(st.binary(max_size=4) | st.sampled_from([b"../", b"/etc/x", b"\n", b"\0", whole[:80]]))
    changed = whole[:at] + piece + whole[at + data.draw(st.integers(0, 80)) :]
    (place / sealing.SEAL).write_bytes(changed)
    try:
        listed = sealing.verify(place)
    except sealing.SealError as error:
        said = str(error)
    else:
        said = ""
        assert listed == sealing.verify(store / "tiny/1")
    assert one_line(said) == said
    assert len(said) < 1000


@given(st.binary(max_size=80))
@examples(100, 10_000)
def test_a_lock_of_any_content_can_be_taken_and_its_holder_told(folder: Path, content: bytes) -> None:
    path = folder / "lock"
    lock = Lock.take(str(path))
    try:
        path.write_bytes(content)
        with pytest.raises(Held) as caught:
            Lock.take(str(path))
        assert one_line(str(caught.value)).isprintable()
    finally:
        lock.release()
    path.write_bytes(content)
    Lock.take(str(path)).release()


@given(st.binary(max_size=120))
@examples(100, 10_000)
def test_an_owner_of_any_content_is_another_one(folder: Path, content: bytes) -> None:
    root = folder / "sorted"
    (root / ".pigeonholed").mkdir(parents=True, exist_ok=True)
    (root / ".pigeonholed/owner").write_bytes(content)
    if not content[:100].decode("ascii", "replace").strip():
        Output.open(root, "me").close()  # nobody's yet
        return
    with pytest.raises(OutputRefused) as caught:
        Output.open(root, "me")
    assert one_line(str(caught.value)).isprintable()


@given(
    st.dictionaries(
        st.just("NOTIFY_SOCKET"), st.text(max_size=200).map(lambda text: text.replace("\0", "@")), max_size=1
    )
)
@examples(100, 10_000)
def test_no_address_of_systemd_is_a_fault(environ: dict[str, str]) -> None:
    assert isinstance(notify("READY=1", environ=environ), bool)


@given(st.text(max_size=40))
@examples(100, 10_000)
def test_what_systemd_is_told_is_one_order_a_line(text: str) -> None:
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as listener:
        listener.bind(b"\0pigeonholed-fuzz-%d" % os.getpid())
        assert notify(f"STATUS={text}\nMAINPID=1", environ={"NOTIFY_SOCKET": f"@pigeonholed-fuzz-{os.getpid()}"})
        told = listener.recv(10_000).decode()
    assert told.startswith("STATUS=")
    assert told.isprintable()


@given(st.text(max_size=20), st.sampled_from(["check", "status", "undo", "db", "models"]))
@examples(20, 2_000)
def test_a_command_with_odd_words_is_one_clear_message(word: str, command: str) -> None:
    said: Any = CliRunner().invoke(cli, [command, "--config", word])
    assert said.exception is None or isinstance(said.exception, SystemExit)
    assert said.exit_code in {0, 2, 69, 78}
