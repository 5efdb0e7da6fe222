"""A hostile version is refused with a sentence; the old one goes on serving, and nothing was touched."""

from __future__ import annotations

import pickle
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundles import make_bundle, probabilities, solid
from hostile import ALL, KERAS, Canary, Touch, spoil
from pigeonholed.bundle import Bundle, BundleError
from pigeonholed.channel import Channel
from pigeonholed.classifying import load_classifier, selftest, tried
from pigeonholed.engines.lanes import Lane
from pigeonholed.serving import Served
from pigeonholed.store import ModelStore
from pigeonholed.switching import Switcher
from running import Workspace, picture, until

PICTURE = np.stack([solid(200, 90, 60)])


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("template") / "staging")


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Canary]:
    with Canary.sitting(tmp_path / "canary") as canary:
        yield canary


@pytest.fixture
def store(tmp_path: Path, template: Path) -> ModelStore:
    store = ModelStore(tmp_path / "models")
    store.publish("tiny", template)
    return store


def test_canary_notices_what_a_payload_does(canary: Canary) -> None:
    canary.check()
    host, port = canary.url.removeprefix("http://").removesuffix("/x").split(":")
    with socket.create_connection((host, int(port))), pytest.raises(AssertionError, match="called"):
        canary.check()
    pickle.loads(pickle.dumps(Touch(canary.file)))
    with pytest.raises(AssertionError):
        canary.check()


def served(bundle: Bundle) -> Served:
    """As the child of a trial loads it, but in this process, so that the canary watches closely."""
    return Served(bundle, tried.examine(bundle, kind="openvino", device="cpu", max_batch_size=2))


@pytest.mark.parametrize("what", ALL)
def test_hostile_version_is_refused_while_the_old_one_serves(
    tmp_path: Path, template: Path, store: ModelStore, canary: Canary, what: str
) -> None:
    refusals: list[str] = []
    lane = Lane(served(store.open("tiny")), Channel(4))
    switched: list[Any] = []
    switcher = Switcher(
        store,
        [lane],
        lambda name: served(store.open(name)),
        switched.append,
        lambda _name, why: refusals.append(why),
    )
    staging = shutil.copytree(template, tmp_path / "staging")
    spoil(what)(staging, canary)
    store.publish("tiny", staging)
    for _ in range(3):  # refused once, and not tried again
        switcher.look()
        switcher.join()
    canary.check()
    assert len(refusals) == 1
    assert refusals[0].isprintable()
    assert refusals[0].endswith(".")
    assert f"{store.root / 'tiny/2'}{'/model.keras is refused' if what in KERAS else ''}" in refusals[0]
    assert (switched, lane.served.bundle.version) == ([], 1)
    np.testing.assert_allclose(lane.served.classifier.predict(PICTURE), probabilities(PICTURE), atol=1e-5)


def test_running_daemon_refuses_hostile_versions_and_files_on_with_the_old_one(
    tmp_path: Path, template: Path, canary: Canary
) -> None:
    workspace = Workspace.make(tmp_path / "work")
    store = ModelStore(workspace.root / "models")
    with workspace.serving() as daemon:
        daemon.await_event("service_ready")
        for number, what in enumerate(("layer-lambda", "external-storage", "ir-loop"), 1):
            staging = shutil.copytree(template, tmp_path / what)
            spoil(what)(staging, canary)
            version = store.publish("tiny", staging).version

            def refused(version: int = version) -> bool:
                return any(e["event"] == "model_refused" and e["version"] == version for e in daemon.events())

            until(refused, f"{what} to be refused")
            workspace.drop(f"{number}.png", picture(220, 60, 40, number))
            until(lambda number=number: workspace.filed() == number, "the old version to go on")
        canary.check()
        good = store.publish("tiny", template).version
        assert daemon.await_event("model_switched")["version"] == good
        workspace.drop("last.png", picture(220, 60, 40, 9))
        until(lambda: workspace.filed() == 4, "the new version to serve")
        assert daemon.terminate() == 0


@pytest.mark.parametrize("name", ["export/openvino/model.xml", "export/openvino/model.bin", "model.keras"])
@pytest.mark.parametrize("at", [1, 2, 3])
def test_file_swapped_between_two_reads_is_never_used(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch, name: str, at: int
) -> None:
    """Whatever is used was hashed in the very read that brought it."""
    from pigeonholed import sealing

    path = store.root / "tiny/1" / name
    verified, evil = path.read_bytes(), path.read_bytes()[:-1] + b"x"
    handed_out: list[bytes] = []
    chunks, reads = sealing._chunks, 0

    def racing(folder: Path, asked: str, limit: int) -> Iterator[bytes]:
        nonlocal reads
        yield from chunks(folder, asked, limit)
        if asked == name:
            reads += 1
            if reads == at:
                path.write_bytes(evil)

    read = sealing.read

    def noted(folder: Path, asked: str, **options: Any) -> bytes:
        data = read(folder, asked, **options)
        if asked == name:
            handed_out.append(data)
        return data

    monkeypatch.setattr(sealing, "_chunks", racing)
    monkeypatch.setattr(sealing, "read", noted)
    try:
        classifier = load_classifier(store.open("tiny"), kind="openvino", max_batch_size=2)
    except BundleError:
        assert reads >= at
    else:
        np.testing.assert_allclose(classifier.predict(PICTURE), probabilities(PICTURE), atol=1e-5)
    assert set(handed_out) <= {verified}
    assert reads


def test_picture_of_another_size_is_not_even_decoded(
    tmp_path: Path, template: Path, store: ModelStore, canary: Canary, monkeypatch: pytest.MonkeyPatch
) -> None:
    staging = shutil.copytree(template, tmp_path / "staging")
    spoil("selftest-bomb")(staging, canary)
    bundle = store.publish("tiny", staging)
    monkeypatch.setattr(selftest.cv2, "imdecode", lambda *_: pytest.fail("a picture of 30,000 x 30,000 was decoded"))
    with pytest.raises(BundleError, match="is no picture of 8 x 8"):
        load_classifier(bundle, kind="openvino", max_batch_size=2)
