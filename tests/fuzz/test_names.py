"""Whatever a dropper calls a file: it is filed below the output under a name that fits, and its text reads back."""

from __future__ import annotations

import json
import os
import random
import tempfile
import threading
import time
import unicodedata
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from helpers import FakeLedger, NothingFiled, make_classified, make_rejected, place_in_work
from pigeonholed import labels as words
from pigeonholed import template as templates
from pigeonholed.delivery import Delivery
from pigeonholed.finishing import Finisher
from pigeonholed.ignoring import NameFilter
from pigeonholed.images import Arrival, ImageFile, Outcome, Reason
from pigeonholed.output import Output
from pigeonholed.paths import from_text, to_text
from pigeonholed.patience import Patience
from pigeonholed.placing import Placer, sidecar_of
from running import Workspace, picture
from soaking import SEED, cases, examples, soak

RESERVED = [
    *(
        b"_rejected",
        b"_unsure",
        b"_duplicates",
        b".pigeonholed",
        b"con",
        b"NUL.png",
        b"...",
        b"..x",
        b"-rf",
        b"~",
        b" ",
    ),
    *(
        b"x.reason.json",
        b"a\nb",
        b"\x1b[2J",
        b"\xe2\x80\xae",
        b"\xff\xfe",
        b"\xed\xa0\x80",
        b"\\x41",
        b"{label}",
        b"%2e",
    ),
    *("\u00e9".encode(), "e\u0301".encode(), b"E\xcc\x81", "\u1e9b\u0323".encode(), b"A", b"a", b"n" * 255, b"." * 255),
    *(("\U0001d11e" * 63).encode() + b".jp", b"x." + b"e" * 253, b"x" * 222 + b"." + b"e" * 32),
]
names = (
    (st.binary(min_size=1, max_size=255) | st.text("aAe\u0301\u00e9._- \\", min_size=1, max_size=9).map(str.encode))
    .map(lambda raw: raw.replace(b"/", b"\\").replace(b"\0", b"\n")[:255])
    .filter(lambda raw: raw not in {b".", b".."})
) | st.sampled_from(RESERVED)
paths = st.lists(names, min_size=1, max_size=5).map(lambda some: os.fsdecode(b"/".join(some)))
good_labels = (st.text(min_size=1, max_size=12) | st.text("aAe\u0301 .\u0345", max_size=8)).filter(
    lambda text: words.fault_of(text) is None
)
pieces = st.sampled_from(
    [
        *(f"{{{field}}}" for field in templates.FIELDS),
        *("{date:%Y/%m}", "{date:%A}", "{confidence:.2f}", "{version:04}", "/", "/", ".", "-", "_", "{{", "}}", "x"),
    ]
)
good_templates = st.lists(pieces, max_size=7).flatmap(
    lambda some: st.sampled_from(["{label}/{name}", "{stem}", "{name}", "".join(some) + "{name}", "".join(some)])
)
moments = st.none() | st.datetimes(timezones=st.just(UTC))
outcomes = st.tuples(paths, good_labels, st.sampled_from([0.2, 0.9]), st.sampled_from(Reason) | st.none(), moments)


def bytes_of(text: str) -> bytes:
    r"""A path of the contract's notation: `\\` and `\xNN`, read without the daemon's code."""
    raw, out, at = text.encode(), bytearray(), 0
    while at < len(raw):
        if raw[at : at + 2] == b"\\\\":
            out, at = out + b"\\", at + 2
        elif raw[at : at + 2] == b"\\x":
            out, at = out + bytes.fromhex(raw[at + 2 : at + 4].decode()), at + 4
        else:
            out, at = out + raw[at : at + 1], at + 1
    return bytes(out)


def outcome_of(
    arrival: Arrival, label: str, confidence: float, reason: Reason | None, taken: datetime | None
) -> Outcome:
    if reason is not None:
        return make_rejected(arrival, reason)
    return make_classified(arrival, label, confidence, taken_at=taken)


@given(st.lists(names, min_size=1, max_size=6).map(b"/".join))
@examples(300, 100_000)
def test_the_text_of_a_path_is_valid_and_reads_back(raw: bytes) -> None:
    text = to_text(os.fsdecode(raw))
    assert json.loads(json.dumps(text).encode()) == text
    assert bytes_of(text) == raw
    assert os.fsencode(from_text(text)) == raw


@given(outcomes, good_templates, st.integers(-(1 << 62), 1 << 62))
@examples(400, 100_000)
def test_a_destination_is_below_its_folder_and_fits(
    what: tuple[str, str, float, Reason | None, datetime | None], template: str, mtime_ns: int
) -> None:
    path, label, confidence, reason, taken = what
    try:
        templates.checked(template)
    except ValueError:
        assume(False)
    arrival = Arrival(1, ImageFile("camera", path, 1, mtime_ns), "0" * 32, "t", 0.0)
    destination = Placer(template).destination(outcome_of(arrival, label, confidence, reason, taken))
    first, *rest = destination.split("/")
    if reason is not None:
        assert (first, rest.pop(0)) == ("_rejected", reason.value)
        assert len(os.fsencode(sidecar_of(rest[-1]))) <= 255
        assert len(rest) == len(path.split("/"))
    else:
        ours = [first, *rest] if confidence > 0.5 else rest
        assert confidence > 0.5 or first == "_unsure"
        assert all(component[0] not in "._" for component in ours)
    assert rest or confidence > 0.5
    for component in rest:
        assert component not in {"", ".", ".."}
        assert len(os.fsencode(component)) <= 255
        assert "\0" not in component


@given(
    st.lists(outcomes, min_size=1, max_size=8),
    st.sampled_from(["{label}/{subdir}/{name}", "{name}", "{stem}/{stem}.{ext}"]),
)
@examples(40, 12_000)
def test_a_batch_of_any_names_is_filed_whole_and_nowhere_else(
    batch: list[tuple[str, str, float, Reason | None, datetime | None]], template: str
) -> None:
    with tempfile.TemporaryDirectory() as folder, closing(Output.open(Path(folder, "sorted"), None)) as output:
        root = Path(folder)
        ledger, planned = FakeLedger(), {}
        delivery = Delivery(str(root), output, Placer(template))
        finisher = Finisher(
            {"camera": delivery},
            ledger,  # type: ignore[arg-type]
            NothingFiled(),
            impatient(),
            lambda plans: planned.update({plan.arrival.id: plan.destination for plan in plans}),
            lambda withdrawn: pytest.fail(str(withdrawn)),
        )
        handled = []
        for number, (path, *rest) in enumerate(batch, 1):
            arrival = place_in_work(output, b"%d" % number, "x", number, token=f"{number:016x}")
            handled.append(outcome_of(replace(arrival, file=replace(arrival.file, path=path)), *rest))
        finisher.turn(handled)
        finisher.settle()
        found = {str(file.relative_to(output.root)): file.read_bytes() for file in results_of(Path(output.root))}
        assert set(os.listdir(root)) == {"sorted"}
    sidecars = [name for name in found if name.endswith(".reason.json") and b"arrival" in found[name]]
    for name in sidecars:
        text = found.pop(name).decode()
        assert all(line.isprintable() for line in text.split("\n"))
        json.loads(text)
    assert sorted(found.values()) == sorted(b"%d" % number for number in range(1, len(batch) + 1))
    assert {planned[number]: b"%d" % number for number in planned} == found


def results_of(root: Path) -> list[Path]:
    """Every file below an output but for our own two."""
    return [file for file in root.rglob("*") if file.is_file() and file.parent != root / ".pigeonholed"]


def impatient() -> Patience:
    return Patience(threading.Event(), first_wait_s=0.001, longest_wait_s=0.001, grace_s=0.0)


@given(
    st.lists(st.text(max_size=10) | good_labels | st.sampled_from(["..", "/etc", "a/b", "CON", "\u202ex"]), max_size=6)
)
@examples(300, 100_000)
def test_accepted_labels_are_folders_of_their_own_and_one_word_in_metrics(some: list[str]) -> None:
    if words.fault_among(some) is not None:
        assert len(some) < 2 or any(map(words.fault_of, some)) or len(set(map(folded, some))) < len(some)
        return
    assert len(set(map(folded, some))) == len(some)
    registry = CollectorRegistry()
    counter = Counter("seen", "of a test", ["label"], registry=registry)
    for label in some:
        assert label.isprintable()
        assert to_text(label) == label
        assert os.path.normpath(f"/root/{label}/x") == f"/root/{label}/x"
        assert len(os.fsencode(label)) <= 200
        counter.labels(label).inc()
    families = list(text_string_to_metric_families(generate_latest(registry).decode()))
    assert {sample.labels["label"] for family in families for sample in family.samples} == set(some)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("\u0386\u0301\u0345", "\u03ac\u0345\u0301"),
        ("A\u0345\u0301", "\u00e1\u0345"),
        ("e\u0301", "\u00c9"),
        ("a", "a"),
    ],
)
def test_labels_that_some_disk_takes_for_one_are_refused(one: str, other: str) -> None:
    fault = words.fault_among([one, other])
    assert fault is not None
    assert fault.endswith("would be the same folder on some disks")


def folded(label: str) -> str:
    """Canonical caseless matching, definition D145 of the Unicode standard."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", label).casefold())


@given(paths, st.lists(st.text("*?a[]!/.b", min_size=1, max_size=12).filter(lambda text: text.strip("/")), max_size=3))
@examples(200, 50_000)
def test_no_name_keeps_a_filter_busy(path: str, patterns: list[str]) -> None:
    started_s = time.thread_time()
    NameFilter(exclude=patterns).ignores(path)
    assert time.thread_time() - started_s < 0.5


# The whole program


def any_names(rng: random.Random) -> Iterator[bytes]:
    """Paths of files that can all lie in one inbox; some are twins by case or composition."""
    files: set[bytes] = set()
    folders: set[bytes] = set()
    while True:
        parts = [_any_name(rng) for _ in range(rng.choice((1, 1, 1, 2, 5)))]
        path = b"/".join(parts)
        above = {b"/".join(parts[:depth]) for depth in range(1, len(parts))}
        if (
            path not in files
            and path not in folders
            and not above & files
            and not NameFilter().ignores(os.fsdecode(path))
        ):
            files.add(path)
            folders |= above
            yield path


def _any_name(rng: random.Random) -> bytes:
    """Never one that is hidden: the daemon leaves those where they are."""
    while True:
        raw = rng.choice(RESERVED) if rng.random() < 0.3 else rng.randbytes(rng.choice((1, 2, 8, 60, 255)))
        name = raw.replace(b"/", b"_").replace(b"\0", b"\n")
        if name[:1] != b".":
            return name


@soak
@pytest.mark.timeout(0)
def test_a_hundred_thousand_names_are_filed_and_nothing_leaves_the_output(tmp_path: Path) -> None:
    left, rng, part = cases(100_000), random.Random(SEED), 0
    stream = any_names(rng)
    while left:
        part, count = part + 1, min(left, 10_000)
        left -= count
        site = Workspace.make(tmp_path / str(part))
        pictures = [picture(200, 40, 40, 0), picture(120, 60, 120, 1)]
        for number in range(count):
            data = pictures[number % 2] if number % 50 < 2 else b"text %d" % number
            assert site.drop(os.fsdecode(next(stream)), data)
        before = {name for name in os.listdir(site.root) if not name.startswith("pigeonholed.")}
        done = site.run("run", "--once", "--log-level", "debug", timeout_s=3600.0)
        assert done.returncode == 0, done.stderr[-2000:]
        assert all(line.isprintable() for line in done.stderr.split("\n"))
        assert site.filed() == count
        assert site.audit() == []
        assert {name for name in os.listdir(site.root) if not name.startswith("pigeonholed.")} == before | {"sorted"}
        print(f"part {part}: {count} names filed, {left} left")
