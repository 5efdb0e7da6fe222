"""What a bundle says of training: counts that fit together, or none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bundles import make_bundle, publish_tiny
from pigeonholed import sealing
from pigeonholed.bundle import Bundle, BundleError

GOOD = {"n": 10, "part": "test", "labels": [7, 3], "levels": [0.5, 0.9], "below": [1, 4], "unsure": 3}


def test_it_is_read_back_as_it_was_published(tmp_path: Path) -> None:
    bundle = publish_tiny(tmp_path / "models", manifest={"reference": GOOD})
    assert bundle.manifest.reference is not None
    assert bundle.manifest.reference.model_dump(mode="json") == GOOD


@pytest.mark.parametrize("manifest", [{}, {"reference": None}])
def test_a_version_without_one_is_opened_as_before(tmp_path: Path, manifest: dict[str, Any]) -> None:
    assert publish_tiny(tmp_path / "models", manifest=manifest).manifest.reference is None


def test_what_later_versions_add_to_it_is_passed_over(tmp_path: Path) -> None:
    assert publish_tiny(tmp_path / "models", manifest={"reference": GOOD | {"mood": "sunny"}}).manifest.reference


@pytest.mark.parametrize(
    "change",
    [
        {"n": 0},
        {"n": 11},
        {"labels": [10]},
        {"labels": [11, -1]},
        {"labels": [5, 3, 2]},
        {"levels": [0.9, 0.5]},
        {"levels": [0.0, 0.5]},
        {"levels": [0.5, 1.0]},
        {"levels": []},
        {"levels": [0.5]},
        {"below": [4, 1]},
        {"below": [1, 11]},
        {"below": [-1, 4]},
        {"unsure": 11},
        {"unsure": -1},
    ],
)
def test_counts_that_do_not_fit_together_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    folder = make_bundle(tmp_path / "bundle", manifest={"reference": GOOD | change})
    sealing.seal(folder)
    with pytest.raises(BundleError, match=r"bundle\.json is not valid"):
        Bundle.open(folder)
