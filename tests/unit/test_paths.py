"""Paths as text, and back."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pigeonholed.paths import from_text, to_text


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"a/b.jpg", "a/b.jpg"),
        ("día/é.jpg".encode(), "día/é.jpg"),
        (b"caf\xe9.jpg", "caf\\xe9.jpg"),
        (b"a\\b.jpg", "a\\\\b.jpg"),
        (b"a\\xe9.jpg", "a\\\\xe9.jpg"),
        (b"\\\xff", "\\\\\\xff"),
        (b"\xc3\xa9\xff\\", "é\\xff\\\\"),
        (b"a\nb\x1b", "a\nb\x1b"),
    ],
)
def test_path_is_written_as_the_contract_says(raw: bytes, text: str) -> None:
    assert to_text(os.fsdecode(raw)) == text
    assert os.fsencode(from_text(text)) == raw


@given(st.binary(min_size=1, max_size=60).filter(lambda raw: b"\0" not in raw))
def test_every_path_reads_back_losslessly_from_valid_unicode(raw: bytes) -> None:
    text = to_text(os.fsdecode(raw))
    assert json.loads(json.dumps(text).encode("utf-8")) == text
    text.encode("utf-8")
    assert os.fsencode(from_text(text)) == raw


@given(st.binary(max_size=8), st.binary(max_size=8))
def test_two_paths_never_share_a_text(one: bytes, other: bytes) -> None:
    assert (to_text(os.fsdecode(one)) == to_text(os.fsdecode(other))) == (one == other)


@given(st.lists(st.sampled_from([b"\\", b"x", b"e9", b"\xe9", b"\xc3\xa9", b"\xc3"]), max_size=8).map(b"".join))
def test_escapes_beside_each_other_are_not_confused(raw: bytes) -> None:
    assert os.fsencode(from_text(to_text(os.fsdecode(raw)))) == raw


def test_a_locale_without_utf8_changes_no_text() -> None:
    """A command in a user's shell has to read what a service has written."""
    code = (
        "import os; from pigeonholed.paths import from_text, to_text\n"
        "raw = b'caf\\xc3\\xa9 \\xff \\\\ \\xe2\\x80\\xae'\n"
        "print(ascii(to_text(os.fsdecode(raw))), os.fsencode(from_text(to_text(os.fsdecode(raw)))) == raw)"
    )
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    told = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=os.environ | more).stdout
        for more in (plain, {"PYTHONUTF8": "1"})
    }
    assert told == {rb"'caf\xe9 \\xff \\\\ \u202e' True" + b"\n"}
