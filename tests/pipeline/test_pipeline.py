"""The whole daemon in one process: real threads, real files, a real database, only the networks are fakes.

The auditor, which shares no code with the daemon, has the last word in most of these tests.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import sqlalchemy as sa
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import auditor
from helpers import FakeClassifier, by_colour, chain_of_folders, files_of, lines, make_bundle, make_tree, png, read_tree
from pigeonholed import imaging, loading, pipeline, records
from pigeonholed.bundle import Bundle, BundleError
from pigeonholed.decoding import Decode, Demand, examine
from pigeonholed.engines import classifiers
from pigeonholed.engines import local as engine
from pigeonholed.errors import Misconfigured, Spent, Unavailable
from pigeonholed.finishing import Finisher
from pigeonholed.images import Arrival
from pigeonholed.ledger import Ledger
from pigeonholed.pipeline import build
from pigeonholed.service import Service
from pigeonholed.settings import (
    Address,
    BatchingSettings,
    ControlSettings,
    DatabaseSettings,
    InboxSettings,
    MetricsSettings,
    ModelsSettings,
    Settings,
    StateSettings,
)
from records_of import ON_POSTGRES, Database, read
from servers import plain, shared_server

_LONG_S = 20.0

Counts = dict[str, int]


@dataclass
class Models:
    """Stands in for the model store and for the runtimes."""

    served: dict[str, FakeClassifier] = field(default_factory=lambda: {"tiny": FakeClassifier()})
    size: int = 8
    version: int = 1
    loading: Callable[[], None] = lambda: None

    def open(self, name: str, version: int | str = "current") -> Bundle:
        if name not in self.served:
            raise BundleError(f"There is no model {name}.")
        return make_bundle(self.served[name].labels, name=name, version=self.version, size=self.size)

    def current(self, name: str) -> int:
        return self.version

    def load(self, bundle: Bundle, **_named: Any) -> FakeClassifier:
        self.loading()
        return self.served[bundle.name]


@dataclass
class Place:
    """A working folder with inboxes `camera`, …, output `sorted` and everything else that a daemon needs."""

    root: Path
    models: Models
    inboxes: dict[str, dict[str, Any]] = field(default_factory=lambda: {"camera": {}})
    max_batch_size: int = 8
    decode_workers: int = 2
    max_wait_s: float = 0.05
    max_decode_s: float = 60.0
    url: str | None = field(default_factory=lambda: shared_server().make_migrated() if ON_POSTGRES else None)

    @property
    def database(self) -> Database:
        return self.root / "pigeonholed.db" if self.url is None else plain(self.url)

    def settings(self, **more: Any) -> Settings:
        chosen: dict[str, dict[str, Any]] = {
            name: {"path": self.root / name, "output": self.root / "sorted", "model": "tiny", "settle_s": 0.0} | given
            for name, given in self.inboxes.items()
        }
        return Settings(
            **{
                "state": StateSettings(dir=self.root),
                "database": DatabaseSettings(url=self.url or f"sqlite:///{self.root / 'pigeonholed.db'}"),
                "models": ModelsSettings(dir=self.root / "models"),
                "control": ControlSettings(socket=self.root / "s"),
                "inbox": tuple(InboxSettings(name=name, **given) for name, given in chosen.items()),
                "batching": BatchingSettings(
                    max_batch_size=self.max_batch_size,
                    max_wait_s=self.max_wait_s,
                    decode_workers=self.decode_workers,
                    max_decode_s=self.max_decode_s,
                ),
                "metrics": MetricsSettings(listen=None),
                **more,
            }
        )

    def drop(self, tree: Mapping[str, Any], inbox: str = "camera") -> None:
        make_tree(self.root / inbox, tree)

    def dropped(self) -> list[auditor.Dropped]:
        """What is in the inboxes now, for the auditor."""
        return [
            auditor.Dropped(os.fsencode(path), hashlib.sha256(content).hexdigest(), None, name)
            for name in self.inboxes
            for path, content in files_of(self.root / name).items()
        ]

    def run_once(self, **more: Any) -> Service:
        with build(self.settings(**more), once=True) as service:
            service.run()
        return service

    @contextmanager
    def serving(self) -> Iterator[Service]:
        """The service runs in a thread; leaving the block ends it as TERM does, and raises what made it fail."""
        failure: list[BaseException] = []
        with build(self.settings()) as service:

            def run() -> None:
                try:
                    service.run()
                except BaseException as error:
                    failure.append(error)

            thread = threading.Thread(target=run, daemon=True)
            thread.start()
            try:
                yield service
            finally:
                service.end()
                thread.join(_LONG_S)
                assert not thread.is_alive()
        if failure:
            raise failure[0]

    def rows(self) -> list[dict[str, Any]]:
        return read(self.database, "SELECT * FROM images ORDER BY id")

    def statuses(self) -> Counts:
        counts: Counts = {}
        for row in self.rows():
            counts[row["status"]] = counts.get(row["status"], 0) + 1
        return counts

    def files(self, output: str = "sorted") -> dict[str, bytes]:
        return files_of(self.root / output)

    def audit(self, dropped: list[auditor.Dropped], **more: Any) -> None:
        findings = auditor.audit(
            dropped,
            [self.root / name for name in self.inboxes],
            self.root / "sorted",
            self.database,
            **more,
        )
        assert not findings, lines(findings)


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> Models:
    models = Models()
    for module in (pipeline, records):
        monkeypatch.setattr(module, "ModelStore", lambda _root: models)
    monkeypatch.setattr(loading, "load_classifier", models.load)
    monkeypatch.setattr(loading.trial, "hold", lambda *_, **__: None)  # there is nothing to be tried
    return models


@pytest.fixture
def place(tmp_path: Path, models: Models, migrated_file: Path) -> Place:
    return _new_place(tmp_path, models, migrated_file)


def _new_place(root: Path, models: Models, migrated_file: Path) -> Place:
    make_tree(root, {"camera": {}, "sorted": {}, "pigeonholed.db": migrated_file.read_bytes()})
    return Place(root, models)


def _until(condition: Callable[[], bool]) -> None:
    """Wait for something that other threads bring about."""
    deadline = time.monotonic() + _LONG_S
    while not condition():
        assert time.monotonic() < deadline, "it never came about"
        threading.Event().wait(0.002)


class Gate:
    """An answer that waits until it is let go, and says when somebody waits at it."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.reached = threading.Event()

    def __call__(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        self.reached.set()
        assert self.open.wait(_LONG_S)
        return by_colour(pixels)


# -- what goes where --------------------------------------------------------------------------------------------------


def test_each_kind_of_file_ends_in_its_place_and_sub_folders_stay(place: Place) -> None:
    place.inboxes = {"camera": {"incomplete_s": 0.1}}
    place.drop(
        {
            "red.png": png("red", mark=1),
            "a": {"b": {"blue.png": png("blue", mark=2)}, "empty": {}},
            "grey.png": png("grey", mark=3),
            "a/cut.png": png("red", mark=4)[:-20],
            "text.jpg": b"no picture at all",
            "empty.png": b"",
        }
    )
    dropped = place.dropped()
    place.run_once()
    files = place.files()
    sidecars = {path: files.pop(path) for path in list(files) if path.endswith(".reason.json")}
    assert files == {
        "cat/red.png": png("red", mark=1),
        "dog/a/b/blue.png": png("blue", mark=2),
        "_unsure/cat/grey.png": png("grey", mark=3),
        "_rejected/truncated/a/cut.png": png("red", mark=4)[:-20],
        "_rejected/unsupported/text.jpg": b"no picture at all",
        "_rejected/empty/empty.png": b"",
    }
    assert {json.loads(sidecar)["reason"] for sidecar in sidecars.values()} == {"truncated", "unsupported", "empty"}
    assert read_tree(place.root / "camera") == {"a": {"b": {}, "empty": {}}}
    assert set(read_tree(place.root / "sorted")[".pigeonholed"]) == {"owner", "lock"}
    place.audit(dropped, top_k=5)


def test_two_inboxes_with_two_models_share_an_output_and_no_file(place: Place) -> None:
    place.inboxes = {"camera": {}, "scanner": {"model": "shapes"}}
    place.models.served["shapes"] = FakeClassifier(("round", "square"))
    tree = {f"{number}.png": png("red" if number % 2 else "blue", mark=number) for number in range(20)}
    place.drop(tree)
    place.drop(tree, "scanner")
    dropped = place.dropped()
    place.run_once()
    labels = {(row["inbox"], row["model"], row["label"]) for row in place.rows()}
    assert labels == {
        ("camera", "tiny", "cat"),
        ("camera", "tiny", "dog"),
        ("scanner", "shapes", "round"),
        ("scanner", "shapes", "square"),
    }
    place.audit(dropped)


def test_two_inboxes_with_one_model_share_its_thread(place: Place) -> None:
    place.inboxes = {"camera": {}, "scanner": {}}
    place.drop({"a.png": png()})
    place.drop({"a.png": png(mark=1)}, "scanner")
    dropped = place.dropped()
    names: list[str] = []
    with build(place.settings(), once=True) as service:
        names += [thread.name for thread in threading.enumerate() if thread.name.startswith("classifier")]
        service.run()
    assert names == ["classifier-tiny"]
    assert sorted(place.files()) == ["cat/a-1.png", "cat/a.png"]
    place.audit(dropped)


def test_two_inboxes_may_have_two_outputs(place: Place) -> None:
    place.inboxes = {"camera": {}, "scanner": {"output": place.root / "other"}}
    place.drop({"a.png": png()})
    place.drop({"a.png": png(mark=1)}, "scanner")
    place.run_once()
    assert place.files() == {"cat/a.png": png()}
    assert place.files("other") == {"cat/a.png": png(mark=1)}
    assert place.statuses() == {"filed": 2}


def test_same_name_again_and_again_gets_numbers_and_then_the_arrivals_own(place: Place) -> None:
    dropped = []
    for number in range(12):
        place.drop({"x.png": png(mark=number)})
        dropped += place.dropped()
        place.run_once()
    names = sorted(place.files())
    assert set(names) >= {"cat/x.png", *(f"cat/x-{number}.png" for number in range(1, 10))}
    assert len(names) == 12
    place.audit(dropped)


def test_same_bytes_twice_are_two_arrivals(place: Place) -> None:
    place.drop({"a.png": png(), "b.png": png()})
    dropped = place.dropped()
    place.run_once()
    assert sorted(place.files()) == ["cat/a.png", "cat/b.png"]
    place.audit(dropped)


def test_outsiders_file_at_the_name_is_untouched(place: Place) -> None:
    make_tree(place.root, {"sorted/cat/a.png": b"yours"})
    place.drop({"a.png": png()})
    place.run_once()
    assert place.files() == {"cat/a.png": b"yours", "cat/a-1.png": png()}


def test_users_own_reason_file_gives_way(place: Place) -> None:
    place.drop({"x.txt": b"some text", "x.txt.reason.json": b'{"mine": true}'})
    dropped = place.dropped()
    place.run_once()
    contents = {content: path for path, content in place.files().items()}
    explained = contents[b"some text"]
    assert contents[b'{"mine": true}'] != f"{explained}.reason.json"
    assert json.loads(place.files()[f"{explained}.reason.json"])["path"] == "x.txt"
    place.audit(dropped)


def test_file_that_is_replaced_before_its_claim_is_filed_as_what_was_claimed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, replacing = png("red"), png("blue", mark=1)
    claim = Ledger.claim

    def replaced_meanwhile(ledger: Ledger, arrivals: Sequence[Arrival]) -> None:
        claim(ledger, arrivals)
        place.drop({"new": replacing})
        os.replace(place.root / "camera/new", place.root / "camera/a.png")

    place.drop({"a.png": seen})
    monkeypatch.setattr(Ledger, "claim", replaced_meanwhile)
    place.run_once()
    assert place.files() == {"dog/a.png": replacing}
    assert [row["sha256"] for row in place.rows()] == [hashlib.sha256(replacing).hexdigest()]


@pytest.mark.parametrize("way", ["replaced", "written over"])
def test_camera_that_writes_one_name_again_and_again_has_whole_pictures_filed(place: Place, way: str) -> None:
    place.inboxes = {"camera": {"settle_s": 0.05, "rescan_s": 0.05}}
    versions = [png("red", mark=number, size=64) for number in range(40)]
    latest = place.root / "camera/latest.png"
    with place.serving() as service:
        for version in versions:
            if way == "replaced":
                place.drop({".latest": version})
                os.replace(place.root / "camera/.latest", latest)
            else:
                with latest.open("wb", buffering=0) as file:
                    for start in range(0, len(version), 64):
                        file.write(version[start : start + 64])
            before = service.reporter.filed
            threading.Event().wait(0.02)
        _until(lambda: service.reporter.filed > before and not latest.exists())
    files = place.files()
    assert set(files.values()) <= set(versions)
    assert versions[-1] in files.values()
    assert {row["sha256"] for row in place.rows() if row["status"] == "filed"} == {
        hashlib.sha256(content).hexdigest() for content in files.values()
    }


def test_strange_names_are_kept_to_the_byte(place: Place) -> None:
    names = [
        b"caf\xe9.png",
        b"\xff\xfe",
        b"a\nb\x1b[31m.png",
        b"back\\slash.png",
        "漢字 é.png".encode(),
        b"-rf",
        b"_x.png",
    ]
    for number, name in enumerate(names):
        with open(os.path.join(os.fsencode(place.root / "camera"), name), "wb") as file:
            file.write(png(mark=number))
    dropped = place.dropped()
    place.run_once()
    found = {os.fsencode(path).removeprefix(b"cat/") for path in place.files()}
    assert found == {*names[:-1], b"-_x.png"}
    place.audit(dropped)


def test_names_of_255_bytes_are_filed_and_numbered(place: Place) -> None:
    long_name = "n" * 251 + ".png"
    wide_name = "漢" * 83 + "x.png"
    dropped: list[auditor.Dropped] = []
    for number in range(3):
        place.drop({long_name: png(mark=2 * number), wide_name: png(mark=2 * number + 1), "t" * 255: b"text"})
        dropped += place.dropped()
        place.run_once()
    assert len([path for path in place.files() if path.startswith("cat/")]) == 6
    assert all(len(os.fsencode(part)) <= 255 for path in place.files() for part in path.split("/"))
    place.audit(dropped)


def test_file_that_bears_the_name_of_a_later_folder_stops_nothing(place: Place) -> None:
    place.drop({"a": png(mark=1)})
    place.run_once()
    (place.root / "camera/a").mkdir()
    place.drop({"a": {"b.png": png(mark=2)}})
    place.run_once()
    assert place.files() == {"cat/a": png(mark=1), "cat/a-1/b.png": png(mark=2)}
    assert place.statuses() == {"filed": 2}


def test_hidden_partial_and_irregular_files_stay(place: Place) -> None:
    place.drop({".hidden.png": png(), "a.png.part": png(), "b.png": png()})
    (place.root / "camera/link.png").symlink_to(place.root / "camera/b.png")
    os.mkfifo(place.root / "camera/pipe.png")
    service = place.run_once()
    assert sorted(os.listdir(place.root / "camera")) == [".hidden.png", "a.png.part", "link.png", "pipe.png"]
    assert place.statuses() == {"filed": 1}
    text = service.metrics.expose()[0].decode()
    assert 'ineligible_files{inbox="camera",reason="excluded"} 2.0' in text
    assert 'ineligible_files{inbox="camera",reason="not-regular"} 2.0' in text


def test_picture_without_a_finite_answer_is_rejected_as_the_models_error(place: Place) -> None:
    def answer(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        scores = by_colour(pixels)
        scores[pixels[:, -1, -1, 1] == 200] = np.nan
        return scores

    place.models.served["tiny"] = FakeClassifier(answer=answer)
    place.drop({"red.png": png("red"), "green.png": png("green"), "blue.png": png("blue")})
    dropped = place.dropped()
    place.run_once()
    assert {path for path in place.files() if not path.endswith(".json")} == {
        "cat/red.png",
        "dog/blue.png",
        "_rejected/model-error/green.png",
    }
    place.audit(dropped)


def test_threshold_of_the_inbox_replaces_that_of_the_model(place: Place) -> None:
    place.inboxes = {"camera": {"min_confidence": 0.0, "top_k": 1}}
    place.drop({"grey.png": png("grey")})
    dropped = place.dropped()
    place.run_once()
    assert list(place.files()) == ["cat/grey.png"]
    place.audit(dropped, top_k=1)


def test_template_of_the_inbox_makes_the_folders(place: Place) -> None:
    place.inboxes = {"camera": {"template": "{inbox}/{date:%Y}/{label}-{name}"}}
    place.drop({"s/red.png": png("red")})
    os.utime(place.root / "camera/s/red.png", (981173106, 981173106))
    dropped = place.dropped()
    place.run_once()
    assert list(place.files()) == ["camera/2001/cat-red.png"]
    place.audit(dropped, default_template=False)


# -- nothing lost, nothing twice --------------------------------------------------------------------------------------

_CONTENTS = st.one_of(
    st.builds(
        lambda colour, mark: png(colour, mark=mark), st.sampled_from(["red", "blue", "grey"]), st.integers(0, 99)
    ),
    st.builds(lambda mark, cut: png("red", mark=mark)[:-cut], st.integers(0, 9), st.integers(1, 60)),
    st.binary(max_size=40),
)
_NAMES = st.sampled_from(["a", "b.png", "c.png", "c-1.png", "x.reason.json", "é.png", "_u.png", "n" * 251 + ".png"])
_TREES = st.dictionaries(
    st.builds(
        lambda folders, name: "/".join([*folders, name]), st.lists(st.sampled_from(["p", "q"]), max_size=2), _NAMES
    ),
    _CONTENTS,
    max_size=14,
)


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(first=_TREES, second=_TREES, other=_TREES, batch=st.integers(1, 5))
def test_every_file_that_enters_leaves_exactly_once(
    tmp_path_factory: pytest.TempPathFactory,
    models: Models,
    migrated_file: Path,
    first: dict[str, bytes],
    second: dict[str, bytes],
    other: dict[str, bytes],
    batch: int,
) -> None:
    place = _new_place(tmp_path_factory.mktemp("place"), models, migrated_file)
    place.inboxes = {"camera": {"incomplete_s": 0.0}, "scanner": {"incomplete_s": 0.0}}
    place.max_batch_size = batch
    dropped: list[auditor.Dropped] = []
    for tree in (first, second):
        place.drop(tree)
        place.drop(other, "scanner")
        dropped += place.dropped()
        service = place.run_once()
        assert service.claimer.claimed == service.reporter.filed == len(tree) + len(other)
    place.audit(dropped)


def test_each_picture_is_classified_once_in_batches_of_the_allowed_size(place: Place) -> None:
    place.drop({f"{number}.png": png(mark=number) for number in range(100)})
    dropped = place.dropped()
    place.run_once()
    seen = place.models.served["tiny"].seen
    assert sum(seen) == 100
    assert max(seen) <= 8
    assert len(seen) < 60  # batches, not single pictures
    place.audit(dropped)


def test_batch_does_not_wait_for_pictures_that_turn_out_to_be_broken(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.max_wait_s, place.max_batch_size = 60.0, 64
    place.drop({f"{number}.png": png(mark=number) for number in range(8)} | {"sub/bad.png": b""})
    good = threading.Semaphore(0)

    def gated(arrival: Arrival, path: str, demand: Demand, decode: Decode) -> Any:
        if arrival.file.path == "sub/bad.png":
            for _ in range(8):
                assert good.acquire(timeout=_LONG_S)
            threading.Event().wait(0.1)  # now the model holds eight, and waits for this one
        else:
            good.release()
        return examine(arrival, path, demand, decode)

    monkeypatch.setattr(engine, "examine", gated)
    monkeypatch.setattr(engine, "_CHUNK", 1)
    text = place.run_once().metrics.expose()[0].decode()
    assert 'batch_flush_total{reason="timeout"} 0.0' in text
    assert 'batch_flush_total{reason="idle"} 1.0' in text


def test_picture_on_which_a_thread_hangs_is_filed_once_and_nobody_waits_for_it(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.decode_workers, place.max_decode_s, place.max_wait_s = 1, 0.2, 60.0
    place.drop({"slow.png": png(mark=1)})
    dropped = place.dropped()
    decode, go_on = imaging.decode, threading.Event()

    def hanging(data: bytes, *more: Any, **named: Any) -> imaging.Picture:
        if data == png(mark=1):
            assert go_on.wait(_LONG_S)
        return decode(data, *more, **named)

    monkeypatch.setattr(imaging, "decode", hanging)  # here, but not in the process
    with place.serving() as service:
        _until(lambda: service.reporter.filed == 1)
        place.drop({"other.png": png(mark=2)})
        dropped += place.dropped()
        _until(lambda: service.reporter.filed == 2)
        assert service.stuck() == []
        go_on.set()
    place.audit(dropped)
    assert place.statuses() == {"filed": 2}
    text = service.metrics.expose()[0].decode()
    assert 'batch_flush_total{reason="timeout"} 0.0' in text


def test_model_that_never_answers_ends_the_service_and_the_next_one_files_all(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifiers, "ANSWERS_WITHIN_S", 0.2)
    gate = Gate()
    place.models.served["tiny"] = FakeClassifier(answer=gate)
    place.drop({f"{number}.png": png(mark=number) for number in range(9)})
    dropped = place.dropped()

    def serve() -> None:
        with place.serving():
            assert gate.reached.wait(_LONG_S)
            _until(lambda: not any(thread.name == "finisher" for thread in threading.enumerate()))

    with pytest.raises(Spent, match="has not answered"):
        serve()
    gate.open.set()
    place.models.served["tiny"] = FakeClassifier()
    place.run_once()
    place.audit(dropped)


def test_metrics_say_what_happened(place: Place) -> None:
    place.drop({"a.png": png("red"), "b.png": png("grey"), "c.png": b""})
    text = place.run_once().metrics.expose()[0].decode()
    for line in (
        'images_processed_total{inbox="camera",outcome="sorted"} 1.0',
        'images_processed_total{inbox="camera",outcome="unsure"} 1.0',
        'images_processed_total{inbox="camera",outcome="rejected"} 1.0',
        'images_classified_total{inbox="camera",label="cat"} 2.0',
        'images_rejected_total{inbox="camera",reason="empty"} 1.0',
        'inference_images_total{model="tiny",version="1"} 2.0',
        "lost_files_total 0.0",
        'end_to_end_seconds_count{inbox="camera"} 3.0',
        'inbox_available{inbox="camera"} 1.0',
        'queue_images{stage="file"} 0.0',
        'model_info{device="cpu",inbox="camera",model="tiny",runtime="fake",version="1"} 1.0',
        'claimed_files_total{inbox="camera"} 3.0',
        'in_flight_files{inbox="camera"} 0.0',
        'unaccounted_files{inbox="camera"} 0.0',
    ):
        assert f"pigeonholed_{line}" in text


# -- the service, live ------------------------------------------------------------------------------------------------


def test_database_that_is_away_is_measured_while_work_waits(place: Place) -> None:
    away = threading.Event()

    def begin(_connection: sa.Connection) -> None:
        if away.is_set():
            raise sa.exc.OperationalError("BEGIN", {}, sqlite3.OperationalError("database is locked"))

    with place.serving() as service:

        def value(name: str, **labels: str) -> float | None:
            return service.metrics.registry.get_sample_value(f"pigeonholed_{name}", labels)

        sa.event.listen(service.records.engine, "begin", begin)
        _until(lambda: value("database_available") == 1.0)
        away.set()
        place.drop({"a.png": png()})
        _until(lambda: value("database_available") == 0.0)
        away.clear()
        _until(lambda: value("database_available") == 1.0)
        _until(lambda: service.reporter.filed == 1)
        assert value("errors_total", stage="record", reason="database") == value("retries_total", stage="record") != 0


@pytest.mark.parametrize("watch", ["events", "poll"])
def test_files_that_arrive_while_it_serves_are_filed(place: Place, watch: str) -> None:
    place.inboxes = {"camera": {"watch": watch, "rescan_s": 0.05}}
    dropped: list[auditor.Dropped] = []
    with place.serving() as service:
        _until(lambda: service.watches[0].scans > 0)  # what that one finds was there before
        for number in range(10):
            (place.root / "new.png").write_bytes(png(mark=number))
            os.makedirs(place.root / f"camera/{number % 3}", exist_ok=True)
            os.rename(place.root / "new.png", place.root / f"camera/{number % 3}/{number}.png")
            digest = hashlib.sha256(png(mark=number)).hexdigest()
            dropped.append(auditor.Dropped(f"{number % 3}/{number}.png".encode(), digest, None, "camera"))
        _until(lambda: service.reporter.filed == 10)
        assert service.faults() == []
        assert service.stuck() == []
        (inbox,) = service.status()["inboxes"]
        assert inbox["events"] is (watch == "events")
        service.observe()
        text = service.metrics.expose()[0].decode()
        assert f'pigeonholed_inbox_events{{inbox="camera"}} {float(watch == "events")}' in text
        if watch == "poll":  # all were found by scans, as they are to be
            assert service.watches[0].recovered > 0
            assert 'pigeonholed_rescan_recovered_total{inbox="camera"} 0.0' in text
    place.audit(dropped)


def test_event_brings_a_file_long_before_the_next_scan(place: Place) -> None:
    place.inboxes = {"camera": {"watch": "events", "rescan_s": 3600.0}}
    with place.serving() as service:
        _until(lambda: service.watches[0].scans > 0)
        place.drop({"a.png": png()})
        _until(lambda: service.reporter.filed == 1)
    assert list(place.files()) == ["cat/a.png"]


def test_watching_thread_that_died_is_replaced_and_nothing_waits_for_the_next_scan(place: Place) -> None:
    place.inboxes = {"camera": {"watch": "events", "rescan_s": 3600.0}}
    with place.serving() as service:
        _until(lambda: service.watches[0].scans > 0)
        assert service.events is not None
        service.events.close()
        place.drop({"a.png": png("red")})
        _until(lambda: service.reporter.filed == 1)
        place.drop({"b.png": png("blue")})
        _until(lambda: service.reporter.filed == 2)
        assert service.events.alive()


def test_files_that_somebody_could_mend_are_told_of_once(place: Place) -> None:
    place.inboxes = {"camera": {"rescan_s": 0.01}}
    with chain_of_folders(place.root / "camera"), structlog.testing.capture_logs() as told, place.serving() as service:
        _until(lambda: service.watches[0].scans > 2)
        service.observe()
    assert [entry for entry in told if entry["event"] == "files_left"] == [
        {"event": "files_left", "log_level": "warning", "inbox": "camera", "because": "too-deep", "files": 1}
    ]


def test_slow_writers_file_is_only_taken_whole(place: Place) -> None:
    place.inboxes = {"camera": {"settle_s": 0.2}}
    content = png(size=64)
    with place.serving() as service:
        with open(place.root / "camera/a.png", "wb") as file:
            for start in range(0, len(content), 40):
                file.write(content[start : start + 40])
                file.flush()
                threading.Event().wait(0.01)
        _until(lambda: service.reporter.filed == 1)
    assert place.files() == {"cat/a.png": content}
    assert place.statuses() == {"filed": 1}


def test_full_queues_hold_the_claimer_back(place: Place) -> None:
    """What is claimed but not classified is bounded by the queues, however large the backlog."""
    gate = Gate()
    place.models.served["tiny"] = FakeClassifier(answer=gate)
    place.max_batch_size = 2
    place.drop({f"{number}.png": png(mark=number) for number in range(600)})
    dropped = place.dropped()
    with place.serving() as service:
        assert gate.reached.wait(_LONG_S)
        waits: list[int] = []

        def stands_still() -> bool:
            waits.append(service.claimer.claimed)
            threading.Event().wait(0.02)
            return len(waits) > 10 and len(set(waits[-10:])) == 1

        _until(stands_still)
        # One batch of claims in hand, a chunk in the hands of each decoder and one waiting, the lane, the model.
        assert service.claimer.claimed <= 3 * 64
        assert len(os.listdir(place.root / "camera")) == 600 - service.claimer.claimed
        gate.open.set()
        _until(lambda: service.reporter.filed == 600)
    place.audit(dropped)


def test_told_to_end_it_files_what_is_in_flight_and_leaves_the_rest_untouched(place: Place) -> None:
    gate = Gate()
    place.models.served["tiny"] = FakeClassifier(answer=gate)
    place.max_batch_size = 2
    place.drop({f"{number}.png": png(mark=number) for number in range(400)})
    dropped = place.dropped()
    with place.serving() as service:
        assert gate.reached.wait(_LONG_S)
        service.end()
        gate.open.set()
    claimed = service.claimer.claimed
    assert 0 < claimed < 400
    assert place.statuses() == {"filed": claimed}
    assert len(files_of(place.root / "camera")) == 400 - claimed
    assert set(read_tree(place.root / "sorted")[".pigeonholed"]) == {"owner", "lock"}
    place.run_once()
    place.audit(dropped)


class Broken(Exception):
    """Machinery that fails."""


def _fail(*_arguments: Any, **_named: Any) -> Any:
    raise Broken


@pytest.mark.parametrize("stage", ["claim", "record the claim", "decode", "classify", "plan", "move", "confirm"])
def test_stage_that_fails_ends_all_and_the_next_start_takes_everything_up(
    place: Place, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    place.drop({f"{number}.png": png(mark=number) for number in range(60)} | {"bad.png": b""})
    dropped = place.dropped()
    with monkeypatch.context() as broken:
        if stage == "claim":
            broken.setattr("pigeonholed.claiming.may_rename_out_of", _fail)
        elif stage == "record the claim":
            broken.setattr(Ledger, "claim", _fail)
        elif stage == "decode":
            broken.setattr("pigeonholed.engines.local.examine", _fail)
        elif stage == "classify":
            broken.setattr(FakeClassifier, "predict", _fail)
        elif stage == "plan":
            broken.setattr(Ledger, "plan", _fail)
        elif stage == "move":
            broken.setattr(Finisher, "_moves", _fail)
        else:
            broken.setattr(Ledger, "confirm", _fail)
            broken.setattr(Ledger, "_filed", _fail)
        with pytest.raises(Broken):
            place.run_once()
        with pytest.raises(Broken), place.serving() as service:
            service.stop.wait(_LONG_S)
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith(("decoder", "classifier"))]
    place.run_once()
    place.audit(dropped)


def test_service_that_is_built_and_not_run_leaves_no_thread(place: Place) -> None:
    before = set(threading.enumerate())
    with build(place.settings(), once=True):
        pass
    _until(lambda: set(threading.enumerate()) <= before)


def test_old_model_files_on_while_the_new_one_loads_however_long_that_takes(place: Place) -> None:
    loading, loaded = threading.Event(), threading.Event()

    def load() -> None:
        loading.set()
        assert loaded.wait(_LONG_S)

    def filed_by(version: int) -> int:
        return sum(row["model_version"] == version and row["status"] == "filed" for row in place.rows())

    with place.serving() as service:
        place.models.loading = load
        place.models.version = 2
        service.look_again()
        assert loading.wait(_LONG_S)
        place.drop({f"{number}.png": png("red", mark=number) for number in range(40)})
        service.claimer.wake()
        _until(lambda: service.reporter.filed == 40)
        assert filed_by(1) == 40
        loaded.set()
        _until(lambda: service.engine.serving()["camera"].bundle.version == 2)
        place.drop({f"{number}.png": png("red", mark=number) for number in range(40, 60)})
        _until(lambda: service.reporter.filed == 60)
    assert (filed_by(1), filed_by(2)) == (40, 20)


# -- refusals ---------------------------------------------------------------------------------------------------------


def test_second_daemon_on_the_same_state_is_refused_naming_the_first(place: Place) -> None:
    with place.serving(), pytest.raises(Unavailable, match=f"process {os.getpid()}"):
        place.run_once()


def test_output_of_another_database_is_refused(place: Place) -> None:
    place.run_once()
    if place.url is None:
        (place.root / "pigeonholed.db").unlink()
    else:
        place.url = shared_server().make_migrated()
    with pytest.raises(Misconfigured, match="belongs to another database"):
        place.run_once()


def test_missing_inbox_is_a_mistake_unless_it_has_been_seen_or_may_be_made(place: Place) -> None:
    (place.root / "camera").rmdir()
    with pytest.raises(Misconfigured, match="does not exist"):
        place.run_once()
    place.inboxes = {"camera": {"create": True}}
    place.run_once()
    assert (place.root / "camera").is_dir()
    (place.root / "camera").rmdir()
    with pytest.raises(Unavailable, match="is missing"):
        place.run_once()
    assert not (place.root / "camera").exists()  # never made over a mount that is away


def test_inbox_that_comes_back_is_served_again(place: Place) -> None:
    place.inboxes = {"camera": {"rescan_s": 0.02}}
    place.run_once()
    (place.root / "camera").rmdir()
    with place.serving() as service:
        _until(lambda: service.faults() == ["the inbox camera is missing"])
        place.drop({"a.png": png()})
        _until(lambda: service.reporter.filed == 1)
        _until(lambda: service.faults() == [])


def test_unknown_model_is_refused(place: Place) -> None:
    place.inboxes = {"camera": {"model": "nosuch"}}
    with pytest.raises(BundleError, match="nosuch"):
        place.run_once()


def test_taken_port_is_refused(place: Place) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = MetricsSettings(listen=Address("127.0.0.1", taken.getsockname()[1]))
        with pytest.raises(Unavailable, match="cannot listen"):
            place.run_once(metrics=listen)


def test_refused_start_leaves_no_lock_behind(place: Place) -> None:
    place.inboxes = {"camera": {"model": "nosuch"}}
    with pytest.raises(BundleError):
        place.run_once()
    place.inboxes = {"camera": {}}
    place.run_once()
