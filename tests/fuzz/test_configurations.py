"""Whatever stands in a configuration: settings that can be used or sentences that tell why not, in bounded time."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from pigeonholed.config import ConfigError, Settings, load_settings
from pigeonholed.placing import Placer
from pigeonholed.settings import Tables
from running import environment
from soaking import examples

ROOT = Path(__file__).resolve().parents[2]
CPU_S = 2.0
"""Of one configuration; an ordinary one takes a five-hundredth of that."""
SENTENCES = 310
"""A hundred of each of three kinds, and a line of how many there are: nobody reads more."""

WHOLE = (ROOT / "config/pigeonholed.toml").read_bytes()
MINIMAL = b'[[inbox]]\npath = "inbox"\noutput = "sorted"\nmodel = "digits"\n'

WORDS = [
    *("[", "]", "[[", "]]", "{", "}", "=", ".", ",", '"', "'", '"""', "\\", "\\u0000", "#", "\n", "\r", "\0", "\x7f"),
    *("inf", "nan", "-0", "1e400", "9" * 5000, "0x" + "f" * 5000, "2024-13-40", "00:60", "true", "\ufeff", "\u202e"),
    *("/", "..", "~", "~root", "inbox", "[[inbox]]\n", "a." * 3000, "sqlite:///%00", "://a:" * 400, "x" * 10_000),
    *(name for section in Tables.model_fields.values() for name in getattr(section.annotation, "model_fields", [])),
]

values = st.recursive(
    st.none().map(lambda _none: '""')
    | st.sampled_from([word if word.isalnum() else f'"{word}"' for word in WORDS if word.isprintable()])
    | st.integers().map(str)
    | st.floats().map(str)
    | st.booleans().map(lambda truth: str(truth).lower())
    | st.text(max_size=30).map(lambda text: '"' + "".join(f"\\U{ord(c):08x}" for c in text) + '"'),
    lambda inner: st.lists(inner, max_size=3).map(lambda items: "[" + ", ".join(items) + "]"),
    max_leaves=6,
)
keys = st.sampled_from(sorted({name for name in WORDS if name.isidentifier()})) | st.text("abc-_\"' .", max_size=6)
tables = st.sampled_from([*Tables.model_fields, "inbox.path", "other"]).flatmap(
    lambda name: st.sampled_from([f"[{name}]", f"[[{name}]]"])
)
lines = tables | st.builds("{} = {}".format, keys, values)
likely = st.lists(lines, max_size=8).map(lambda some: "\n".join(some).encode(errors="surrogatepass"))
variables = st.dictionaries(
    st.lists(st.sampled_from([*Tables.model_fields, "0", "1", "9" * 20, "path", "url", ""]), max_size=4).map(
        lambda parts: "PIGEONHOLED__" + "__".join(parts).upper()
    ),
    st.sampled_from(WORDS).filter(lambda word: "\0" not in word)
    | st.binary(max_size=20).filter(lambda raw: b"\0" not in raw).map(os.fsdecode),
    max_size=3,
)


def mutated(whole: bytes, rng: random.Random) -> bytes:
    """A few changes of the kinds that readers stumble over."""
    changed = bytearray(whole)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(changed) + 1)
        match rng.randrange(5):
            case 0:
                changed[at : at + 1] = rng.randbytes(1)
            case 1:
                del changed[at : at + rng.choice((1, 4, 60, 1000))]
            case 2:
                source = rng.randrange(len(changed) + 1)
                changed[at:at] = changed[source : source + rng.choice((1, 30, 400))]
            case 3:
                changed[at:at] = rng.choice(WORDS).encode()
            case _:  # a value for another
                end = changed.find(b"\n", at)
                equals = changed.rfind(b"=", 0, max(end, at))
                if 0 <= equals < end:
                    changed[equals + 1 : end] = rng.choice(WORDS).encode()
    return bytes(changed)


def outcome(folder: Path, data: bytes, environ: dict[str, str] | None = None) -> Settings | ConfigError:
    """What becomes of a configuration; anything but settings or clear sentences fails."""
    file = folder / "pigeonholed.toml"
    file.write_bytes(data)
    started_s = time.thread_time()
    found: Settings | ConfigError
    try:
        found = load_settings(file, environ=environ or {})
    except ConfigError as error:
        found = error
    told = str(found).split("\n")
    assert time.thread_time() - started_s < CPU_S
    if isinstance(found, Settings):
        check_usable(found)
    else:
        assert found.exit_code == 78
        assert told[0]
        assert len(told) <= SENTENCES
        assert all(line.isprintable() and len(line) < 6000 for line in told)
    return found


def check_usable(settings: Settings) -> None:
    """What the service takes for granted of values that were accepted."""
    sa.make_url(settings.database.url)
    places = [settings.state.dir, settings.models.dir, settings.control.socket]
    for inbox in settings.inbox:
        places += [inbox.path, inbox.output]
        assert max(inbox.settle_s, inbox.incomplete_s, inbox.rescan_s) < threading.TIMEOUT_MAX
        Placer(inbox.template)
    for place in places:
        assert place.is_absolute()
        os.path.lexists(os.fsencode(place))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("configurations")


@given(st.binary(max_size=300))
@examples(200, 50_000)
def test_any_bytes(folder: Path, data: bytes) -> None:
    outcome(folder, data)


@given(st.integers(0, 1 << 48), st.sampled_from([WHOLE, MINIMAL]))
@examples(250, 100_000)
def test_a_valid_configuration_with_changes(folder: Path, number: int, whole: bytes) -> None:
    outcome(folder, mutated(whole, random.Random(number)))


@given(likely, st.booleans())
@examples(250, 100_000)
def test_lines_of_known_and_odd_keys_and_values(folder: Path, text: bytes, minimal: bool) -> None:
    outcome(folder, (MINIMAL if minimal else b"") + text)


@given(variables)
@examples(250, 50_000)
def test_variables_of_the_environment(folder: Path, environ: dict[str, str]) -> None:
    outcome(folder, MINIMAL, environ)


@pytest.mark.parametrize(
    "data",
    [
        b"x = " + b"9" * 5000,
        b"x = 0x" + b"f" * 5000,
        b"x" + b".x" * 4900 + b" = 1",
        b"x" + b".x" * 400_000 + b" = 1",
        b"inbox" + b".x" * 4900 + b" = 1",
        b"[" + b"x." * 4900 + b"x]",
        b"\n".join(b"k%d = 1" % number for number in range(100_000)),
        b"\n".join(b'[[inbox]]\npath = "a"\noutput = "a/b"' for _ in range(900)),
        b"\n".join(b'[[inbox]]\npath = "a"' for _ in range(40_000)),
        b"x" * 9000 + b" = 1",
        MINIMAL.replace(b'inbox"', b"a/" * 4500 + b'"'),
        MINIMAL + b'[database]\nurl = "' + b"://a:" * 1900 + b'"',
        MINIMAL + b'[database]\nurl = "postgresql://' + b"@" * 9900 + b'"',
        MINIMAL + b'[database]\nurl = "sqlite:///a%00b"',
        MINIMAL + b"settle_s = 1e300",
        MINIMAL + b"#\n" * 1_000_000,
    ],
    ids=lambda data: f"{data[:20]!r}...{len(data)}",
)
def test_what_was_found_or_thought_of_is_refused_quickly(folder: Path, data: bytes) -> None:
    assert isinstance(outcome(folder, data), ConfigError)


def test_a_thousand_inboxes_are_checked_quickly(folder: Path) -> None:
    inbox = '[[inbox]]\nname = "i%d"\npath = "in/%d"\noutput = "out/%d"\nmodel = "digits"\n'
    settings = outcome(folder, "".join(inbox % (number, number, number) for number in range(1000)).encode())
    assert isinstance(settings, Settings)


@pytest.mark.parametrize(
    "variable", ["PIGEONHOLED__INBOX__" + "9" * 5000 + "__PATH", "PIGEONHOLED__", "PIGEONHOLED____"]
)
def test_a_variable_that_leads_nowhere_is_refused(folder: Path, variable: str) -> None:
    assert isinstance(outcome(folder, MINIMAL, {variable: "x"}), ConfigError)


@pytest.mark.parametrize(
    ("folder_name", "text"),
    [(b"caf\xe9\x1b[2J", MINIMAL), (b"plain", b"\xff"), (b"plain", b"x = " + b"9" * 5000)],
)
def test_the_program_says_it_in_one_printable_line_with_its_exit_code(
    tmp_path: Path, folder_name: bytes, text: bytes
) -> None:
    place = os.path.join(os.fsencode(tmp_path), folder_name)
    os.mkdir(place)
    file = os.path.join(place, b"pigeonholed.toml")
    with open(file, "wb") as stream:
        stream.write(text)
    command = [sys.executable, "-m", "pigeonholed", "check", "--config", file]
    done = subprocess.run(command, check=False, capture_output=True, env=environment(), timeout=60)
    assert done.returncode == 78
    lines = (done.stdout + done.stderr).decode().split("\n")
    assert [line for line in lines if not line.isprintable() or "Traceback" in line] == []
