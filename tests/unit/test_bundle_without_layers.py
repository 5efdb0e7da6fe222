"""A bundle of an imported graph has no `model.keras`: it says so, and OpenVINO alone serves it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bundles import make_bundle, probabilities, solid
from pigeonholed import classifying
from pigeonholed.bundle import Bundle, BundleError
from pigeonholed.classifying import DeviceUnavailable, load_classifier
from pigeonholed.store import ModelStore


def published(tmp_path: Path, **manifest: object) -> Bundle:
    staging = make_bundle(tmp_path / "staging", manifest=manifest)
    (staging / "model.keras").unlink()
    return ModelStore(tmp_path / "models").publish("tiny", staging)


def test_openvino_serves_it_also_beside_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifying, "find_gpu", lambda: "H200")
    classifier = load_classifier(published(tmp_path, network="openvino"))
    assert (classifier.runtime, classifier.device) == ("openvino", "cpu")
    picture = solid(200, 90, 60)[None]
    np.testing.assert_allclose(classifier.predict(picture), probabilities(picture), atol=1e-5)


@pytest.mark.parametrize(
    ("asked", "remedy"), [({"kind": "keras"}, "kind to auto or openvino"), ({"device": "gpu"}, "device to auto or cpu")]
)
def test_keras_or_a_gpu_for_it_is_refused_with_the_remedy(tmp_path: Path, asked: dict[str, str], remedy: str) -> None:
    with pytest.raises(DeviceUnavailable, match=remedy):
        load_classifier(published(tmp_path, network="openvino"), **asked)


def test_a_missing_network_that_the_manifest_does_not_declare_is_damage(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"model\.keras is missing"):
        published(tmp_path)


def test_an_unknown_form_of_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="network"):
        published(tmp_path, network="torch")


def test_manifests_from_before_have_layers(tmp_path: Path) -> None:
    bundle = ModelStore(tmp_path / "models").publish("tiny", make_bundle(tmp_path / "staging"))
    assert bundle.manifest.network == "keras"
