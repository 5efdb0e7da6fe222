"""A `model.xml` holds operations that we know and numbers that are there, or it is refused before OpenVINO sees it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bundles import make_bundle, probabilities, solid
from pigeonholed.bundle import BundleError, Input
from pigeonholed.classifying import ir, openvino

WHERE = Path("models/tiny/1")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    folder = make_bundle(tmp_path_factory.mktemp("ir") / "s") / "export/openvino"
    return (folder / "model.xml").read_bytes(), (folder / "model.bin").read_bytes()


def changed(network: tuple[bytes, bytes], old: str, new: str) -> bytes:
    text = network[0].decode()
    assert old in text
    return text.replace(old, new, 1).encode()


def check(model: bytes, weights: int = 1 << 20) -> bytes:
    return ir.checked(model, weights, WHERE)


def test_what_is_written_anew_answers_as_before(network: tuple[bytes, bytes]) -> None:
    written = check(network[0], len(network[1]))
    assert b"rt_info" in network[0]
    assert b"rt_info" not in written
    assert check(written) == written == check(network[0].decode().encode("utf-16"))  # OpenVINO sees UTF-8 only
    pictures = np.stack([solid(200, 90, 60), solid(40, 90, 180)])
    scores = openvino.load(*network, Input(height=8, width=8), WHERE).infer(pictures)
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    np.testing.assert_allclose(powers / powers.sum(axis=1, keepdims=True), probabilities(pictures), atol=1e-5)


LOL = '<!DOCTYPE net [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><net name="&b;"'
FILE = '<!DOCTYPE net [<!ENTITY a SYSTEM "file:///etc/passwd">]><net name="&a;"'

CHANGES: dict[str, tuple[str, str, str]] = {
    "entities": ("<net ", LOL, "document type"),
    "external-entity": ("<net ", FILE, "document type"),
    "undeclared-entity": ('name="tiny"', 'name="&a;"', "damaged"),
    "unknown-operation": ('type="MatMul"', 'type="Evil"', "opset1.Evil"),
    "operation-with-a-body": ('type="MatMul"', 'type="Loop"', "opset1.Loop"),
    "operation-with-state": ('type="MatMul"', 'type="ReadValue"', "opset1.ReadValue"),
    "chance": ('type="MatMul"', 'type="RandomUniform"', "opset1.RandomUniform"),
    "extension": ('version="opset1"', 'version="extension"', "extension.Parameter"),
    "no-type": ('type="MatMul"', "", "opset1."),
    "body": ("<edges>", "<edges><body/>", "not allowed in edges"),
    "nested-layers": ("<layers>", "<layers><layers/>", "not allowed in layers"),
    "text": ("<edges>", "<edges>text", "text before it"),
    "text-at-the-end": ("</edges>", "text</edges>", "holds text"),
    "no-root": ("<net ", "<evil><net ", "'evil'"),
    "beyond": ('offset="0"', 'offset="1048570"', "beyond the end"),
    "before": ('offset="0"', 'offset="-8"', "beyond the end"),
    "overflow": ('offset="0"', 'offset="18446744073709551615"', "damaged"),
    "underscore": ('offset="0"', 'offset="0_0"', "damaged"),
    "no-offset": ('offset="0"', "", "damaged"),
    "size": ('size="16"', 'size="8"', "another size"),
    "string": ('element_type="i64"', 'element_type="string"', "'string'"),
    "type": ('destination_type="f32"', 'destination_type="dynamic"', "'dynamic'"),
    "large-tensor": ("<dim>8</dim>", "<dim>1000000000000</dim>", "is larger than"),
    "negative": ("<dim>8</dim>", "<dim>-2</dim>", "is larger than"),
    "no-number": ("<dim>8</dim>", "<dim>eight</dim>", "damaged"),
    "cut-off": ("</net>", "", "damaged"),
    "second-root": ("</net>", "</net><net/>", "damaged"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_anything_else_is_refused(network: tuple[bytes, bytes], what: str) -> None:
    old, new, said = CHANGES[what]
    with pytest.raises(BundleError, match="is refused") as caught:
        check(changed(network, old, new))
    assert said in str(caught.value)
    assert str(caught.value).isprintable()


STEPS = '<layer id="9" name="p" type="MaxPool" version="opset8"><data pads_begin="0,100000"/></layer><layer '


def test_steps_that_take_all_memory_are_refused(network: tuple[bytes, bytes]) -> None:
    with pytest.raises(BundleError, match="pads_begin of MaxPool"):
        check(changed(network, "<layer ", STEPS))


def test_depth_and_number_of_elements_are_bounded(
    network: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BundleError, match="elements"):
        check(changed(network, "<rt_info>", "<rt_info>" + "<a>" * ir.MAX_ELEMENTS))
    monkeypatch.setattr(ir, "MAX_BYTES", 100)
    with pytest.raises(BundleError, match="larger than 100 bytes"):
        check(network[0])
