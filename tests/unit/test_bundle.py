"""A bundle is data that was checked: what is opened is what was sealed, and nothing else."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundles import make_bundle
from pigeonholed import sealing
from pigeonholed.bundle import Bundle, BundleError, calibrate, check_labels, version_of
from pigeonholed.labels import fault_of


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    folder = make_bundle(tmp_path / "bundle")
    sealing.seal(folder)
    return folder


def reseal(folder: Path, name: str, data: bytes) -> None:
    (folder / name).write_bytes(data)
    (folder / sealing.SEAL).unlink()
    sealing.seal(folder)


def test_opened_bundle_says_what_was_written(sealed: Path) -> None:
    bundle = Bundle.open(sealed)
    assert (bundle.name, bundle.version, bundle.labels) == ("tiny", 0, ("cat", "dog"))
    assert (bundle.manifest.pixel_spec.height, bundle.manifest.pixel_spec.width) == (8, 8)
    assert bundle.digest == hashlib.sha256((sealed / "SHA256SUMS").read_bytes()).hexdigest()
    assert bundle.read("labels.txt") == b"cat\ndog\n"


def test_seal_is_in_the_format_of_sha256sum(sealed: Path) -> None:
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=sealed, check=True)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def link(path: Path) -> None:
    content = path.parent.parent / "outside"
    path.rename(content)
    path.symlink_to(content)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "changed": (lambda b: flip(b / "model.keras"), "model.keras does not match its checksum"),
    "changed-below": (lambda b: flip(b / "export/openvino/model.bin"), "export/openvino/model.bin does not match"),
    "missing": (lambda b: (b / "metrics.json").unlink(), "metrics.json is missing"),
    "unlisted": (lambda b: (b / "evil.py").write_text("1"), "evil.py is not listed"),
    "unlisted-below": (lambda b: (b / "selftest/x.png").write_text("1"), "selftest/x.png is not listed"),
    "hidden": (lambda b: (b / ".hidden").write_text("1"), "'.hidden' is not allowed"),
    "no-seal": (lambda b: (b / "SHA256SUMS").unlink(), "SHA256SUMS is missing"),
    "empty-seal": (lambda b: (b / "SHA256SUMS").write_text(""), "SHA256SUMS is empty"),
    "odd-seal": (lambda b: (b / "SHA256SUMS").write_text("nonsense\n"), "not in the format"),
    "file-link": (lambda b: link(b / "model.keras"), "model.keras is a symbolic link"),
    "folder-link": (lambda b: link(b / "selftest"), "selftest is a symbolic link"),
    "pipe": (lambda b: pipe(b / "report.html"), "report.html is a symbolic link or a special file"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_bundle_is_refused_with_its_fault(sealed: Path, damage: str) -> None:
    act, said = DAMAGES[damage]
    act(sealed)
    with pytest.raises(BundleError, match=said) as caught:
        Bundle.open(sealed)
    assert str(sealed) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "selftest/../model.keras", "a//b", ".x", "a\\b", "a b"])
def test_listed_name_that_leads_outside_is_refused(sealed: Path, name: str) -> None:
    with open(sealed / "SHA256SUMS", "a") as stream:
        stream.write(f"{'0' * 64}  {name}\n")
    with pytest.raises(BundleError, match="is not allowed"):
        Bundle.open(sealed)


def test_file_listed_twice_is_refused(sealed: Path) -> None:
    seal = (sealed / "SHA256SUMS").read_text()
    (sealed / "SHA256SUMS").write_text(seal + seal.splitlines()[0] + "\n")
    with pytest.raises(BundleError, match="twice"):
        Bundle.open(sealed)


def test_bundle_without_a_required_file_is_refused_although_sealed(sealed: Path) -> None:
    (sealed / "report.html").unlink()
    (sealed / "SHA256SUMS").unlink()
    sealing.seal(sealed)
    with pytest.raises(BundleError, match=r"report\.html is missing"):
        Bundle.open(sealed)


def test_bundle_with_a_further_sealed_file_is_opened(sealed: Path) -> None:
    reseal(sealed, "README.md", b"text")
    assert "README.md" in Bundle.open(sealed).files


def test_oversize_file_is_refused_before_it_is_read(sealed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "MAX_FILE_BYTES", 1000)
    with pytest.raises(BundleError, match="larger than 1000 bytes"):
        Bundle.open(sealed)


def test_link_to_a_bundle_is_refused(sealed: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(sealed)
    with pytest.raises(BundleError, match="no folder"):
        Bundle.open(tmp_path / "link")
    with pytest.raises(BundleError, match="No such file"):
        Bundle.open(tmp_path / "absent")


def test_file_swapped_after_opening_is_not_read(sealed: Path) -> None:
    bundle = Bundle.open(sealed)
    flip(sealed / "model.keras")
    with pytest.raises(BundleError, match="does not match"):
        bundle.read("model.keras")
    with pytest.raises(BundleError):
        bundle.read("../bundle/labels.txt")


def test_labels_file_and_manifest_must_agree(sealed: Path) -> None:
    reseal(sealed, "labels.txt", b"dog\ncat\n")
    with pytest.raises(BundleError, match="different labels"):
        Bundle.open(sealed)


MANIFESTS: list[tuple[dict[str, Any], str]] = [
    ({"schema_version": 2}, "schema version 2"),
    ({"schema_version": 0}, "schema version 0"),
    ({"labels": ["cat", "../dog"]}, "holds one of"),
    ({"labels": ["cat", "Cat"]}, "same folder"),
    ({"thresholds": []}, "one for each label"),
    ({"output": "softmin"}, "output"),
    ({"calibration": {"method": "temperature", "temperature": 0}}, "temperature"),
    ({"input": {"height": 0, "width": 8}}, "height"),
    ({"input": {"height": 8, "width": 99999}}, "width"),
    ({"name": None}, "name"),
]


@pytest.mark.parametrize(("change", "said"), MANIFESTS)
def test_faulty_manifest_is_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    folder = make_bundle(tmp_path / "bundle", manifest=change)
    sealing.seal(folder)
    with pytest.raises(BundleError, match=said):
        Bundle.open(folder)


def test_sigmoid_of_three_labels_is_refused(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "bundle", labels=("a", "b", "c"), manifest={"output": "sigmoid"})
    sealing.seal(folder)
    with pytest.raises(BundleError, match="exactly two labels"):
        Bundle.open(folder)


def test_manifest_with_unknown_keys_is_opened(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "bundle", manifest={"mood": "sunny"})
    sealing.seal(folder)
    assert Bundle.open(folder).manifest.output == "logits"


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"name": NaN}', b"\xff\xfe"])
def test_manifest_that_is_no_json_object_is_refused(sealed: Path, text: bytes) -> None:
    reseal(sealed, "bundle.json", text)
    with pytest.raises(BundleError, match=r"bundle\.json is not valid"):
        Bundle.open(sealed)


UNSAFE = [
    *("", ".", "..", ".cat", "_unsure", "a/b", "../x", "/etc", "a\\b", "a:b", "a\0b", "a\nb", "a\tb", "CON", "con.txt"),
    *("nul", "Com1", " cat", "cat ", "cat.", "x" * 201, "\u202ecat", "a\u200bb", "\ud800", "a\u00a0b", '"} 1\nfake 2'),
]
SAFE = ["cat", "Kategorie 7", "né", "x" * 200, "猫", "-1", "a.b", "O'Brien & Söhne (2)", "con-man", "{label}", "0", "é"]


@pytest.mark.parametrize("label", UNSAFE)
def test_label_that_is_no_safe_folder_is_refused(label: str) -> None:
    with pytest.raises(BundleError) as caught:
        check_labels(("good", label))
    assert str(caught.value).isprintable()


def test_labels_that_people_use_are_accepted() -> None:
    check_labels(SAFE)
    assert [fault_of(label) for label in SAFE] == [None] * len(SAFE)


@pytest.mark.parametrize(
    ("one", "other"), [("a", "a"), ("a", "A"), ("é", "e\u0301"), ("É", "e\u0301"), ("straße", "STRASSE")]
)
def test_labels_that_some_disks_take_for_one_are_refused(one: str, other: str) -> None:
    with pytest.raises(BundleError, match="same folder"):
        check_labels((one, "between", other))


def test_single_label_is_refused() -> None:
    with pytest.raises(BundleError, match="1 labels"):
        check_labels(("only",))


def softmax(logits: list[list[float]]) -> Any:
    powers = np.exp(np.array(logits))
    return powers / powers.sum(axis=1, keepdims=True)


def test_calibration_divides_logits_by_the_temperature() -> None:
    logits = np.array([[1.0, 3.0, -2.0], [0.0, 0.0, 0.0]], np.float32)
    expected = softmax([[0.5, 1.5, -1.0], [0.0, 0.0, 0.0]])
    answer = calibrate(logits, "logits", 2.0)
    np.testing.assert_allclose(answer, expected, atol=1e-6)
    np.testing.assert_allclose(calibrate(softmax(logits.tolist()), "softmax", 2.0), expected, atol=1e-6)
    assert answer.dtype == np.float32


def test_sigmoid_speaks_for_the_second_label() -> None:
    answer = calibrate(np.array([[0.9], [0.5]], np.float32), "sigmoid", 1.0)
    np.testing.assert_allclose(answer, [[0.1, 0.9], [0.5, 0.5]], atol=1e-6)
    logit = np.log(0.9 / 0.1)
    cooled = calibrate(np.array([[0.9]], np.float32), "sigmoid", 3.0)
    np.testing.assert_allclose(cooled, [[1 - 1 / (1 + np.exp(-logit / 3)), 1 / (1 + np.exp(-logit / 3))]], atol=1e-6)
    np.testing.assert_allclose(calibrate(np.array([[logit]], np.float32), "logits", 3.0), cooled, atol=1e-6)


@pytest.mark.parametrize("output", ["softmax", "logits", "sigmoid"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_score_that_is_not_finite_makes_only_its_own_row_nan(output: str, bad: float) -> None:
    columns = 1 if output == "sigmoid" else 2
    scores = np.full((3, columns), 0.5, np.float32)
    scores[1, 0] = bad
    answer = calibrate(scores, output, 1.5)
    assert np.isnan(answer[1]).all()
    np.testing.assert_allclose(answer[[0, 2]], 0.5)


@pytest.mark.parametrize("output", ["softmax", "logits", "sigmoid"])
def test_extreme_scores_stay_probabilities(output: str) -> None:
    value = 1e30 if output == "logits" else 1.0
    scores = np.array([[value, 0.0], [0.0, value]], np.float32)[:, : 1 if output == "sigmoid" else 2]
    answer = calibrate(scores, output, 0.01)
    assert np.isfinite(answer).all()
    np.testing.assert_allclose(answer.sum(axis=1), 1.0, atol=1e-6)
    assert answer.max() == pytest.approx(1.0)


def test_scores_of_the_wrong_shape_are_an_error() -> None:
    for shape, output in (((2, 2), "sigmoid"), ((2,), "logits"), ((2, 0), "logits")):
        with pytest.raises(ValueError, match="do not fit"):
            calibrate(np.zeros(shape, np.float32), output, 1.0)


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("1", 1),
        ("27", 27),
        ("0", None),
        ("01", None),
        ("-1", None),
        ("1a", None),
        ("", None),
        ("٣", None),
        (".1", None),
    ],
)
def test_only_plain_integers_are_versions(name: str, version: int | None) -> None:
    assert version_of(name) == version
