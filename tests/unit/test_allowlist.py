"""A `.keras` file holds layers that we know, or it is refused before Keras sees it."""

from __future__ import annotations

import copy
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import numpy as np
import pytest

from bundles import keras_archive, keras_config
from pigeonholed.bundle import BundleError
from pigeonholed.classifying import allowlist

WHERE = Path("models/tiny/1")


def check(config: Any) -> None:
    allowlist.check(keras_archive(config=config), WHERE)


def layer(
    kind: str, module: str | None = "keras.layers", registered: str | None = None, **config: Any
) -> dict[str, Any]:
    return {
        "module": module,
        "class_name": kind,
        "config": {"name": "x", **config},
        "registered_name": registered,
        "name": "x",
        "inbound_nodes": [],
    }


def with_layer(added: dict[str, Any]) -> dict[str, Any]:
    config = keras_config()
    config["config"]["layers"].append(added)
    return config


def test_network_of_our_layers_passes() -> None:
    check(keras_config())
    check(
        with_layer(layer("Conv2D", filters=32, kernel_size=[3, 3], activation="relu", kernel_initializer="he_normal"))
    )


POLICY = {"module": "keras", "class_name": "DTypePolicy", "config": {"name": "float32"}, "registered_name": None}
ZEROS: Any = {"module": "keras.initializers", "class_name": "Zeros", "config": {}, "registered_name": None}


def test_policies_initialisers_and_nested_networks_pass() -> None:
    inner = layer("Functional", "keras.src.models.functional", "Functional", layers=[layer("ReLU", dtype=POLICY)])
    check(with_layer(inner))
    check(with_layer(layer("Dense", units=3, dtype=POLICY, bias_initializer=ZEROS, activation=None)))


def test_optimiser_and_loss_are_not_looked_at_because_they_are_not_loaded() -> None:
    config = keras_config()
    config["compile_config"] = {"optimizer": {"module": "keras.optimizers", "class_name": "Adam", "config": {}}}
    check(config)


FUNCTION = {"module": "builtins", "class_name": "function", "config": "relu", "registered_name": "function"}
FORBIDDEN = {
    "lambda": layer("Lambda", function={"class_name": "__lambda__", "config": {"value": ["", None, None]}}),
    "lambda-alone": layer("Lambda"),
    "saved-model": layer("TFSMLayer", filepath="/tmp/evil"),
    "torch": layer("TorchModuleWrapper", module="gAAA"),
    "custom": layer("Evil", "evil_package.layers", "evil>Evil"),
    "registered": layer("Dense", registered="evil>Dense", units=3),
    "no-module": layer("Dense", None, units=3),
    "os": layer("system", "os"),
    "config-call": layer("enable_unsafe_deserialization", "keras.config"),
    "dtype-policy-call": layer("set_dtype_policy", "keras.config"),
    "get-file": layer("get_file", "keras.utils"),
    "file-lookup": layer("StringLookup", vocabulary="/etc/passwd"),
    "numpy-load": layer("load", "numpy"),
    "operation": layer("Matmul", "keras.src.ops.numpy"),
    "private-class": layer("Lambda", "keras.src.layers.core.lambda_layer"),
    "function-activation": layer("Dense", units=3, activation=FUNCTION),
    "custom-activation": layer("Dense", units=3, activation="evil>relu"),
    "recurrent-activation": layer("Dense", units=3, recurrent_activation="exec"),
    "activation-list": layer("Dense", units=3, activation=["relu"]),
    "class-in-initialiser": layer("Dense", units=3, kernel_initializer=layer("Lambda")),
    "class-in-dtype": layer("Dense", units=3, dtype=layer("GPTQDTypePolicy", "keras.dtype_policies")),
    "typespec": layer("__typespec__", "builtins"),
    "class-name-list": {"class_name": ["Dense"], "module": "keras.layers", "config": {}},
    "module-list": {"class_name": "Dense", "module": ["keras.layers"], "config": {}},
    "huge": layer("Dense", units=50_000_000),
    "huge-kernel": layer("Conv2D", filters=8, kernel_size=[1_000_000, 3]),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_anything_else_is_refused(what: str) -> None:
    with pytest.raises(BundleError, match="is refused") as caught:
        check(with_layer(FORBIDDEN[what]))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("what", FORBIDDEN)
def test_it_is_refused_in_the_arguments_of_a_dead_node_too(what: str) -> None:
    config = keras_config()
    dead = layer("ReLU")
    dead["inbound_nodes"] = [{"args": [], "kwargs": {"mask": [[{"deep": FORBIDDEN[what]}]]}}]
    config["config"]["layers"].append(dead)
    with pytest.raises(BundleError, match="is refused"):
        check(config)


@pytest.mark.parametrize("config", [[], "x", 3, {"class_name": "Dense", "module": "keras.layers", "config": {}}])
def test_document_that_is_no_network_is_refused(config: Any) -> None:
    with pytest.raises(BundleError, match="describes no network"):
        check(copy.copy(config))


def archive(entries: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as target:
        for name, data in entries:
            target.writestr(name, data)
    return buffer.getvalue()


def entries(data: bytes) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(data)) as source:
        return [(entry.filename, source.read(entry)) for entry in source.infolist()]


ARCHIVES: dict[str, Callable[[list[tuple[str, bytes]]], bytes]] = {
    "no-zip": lambda _: b"nonsense",
    "empty": lambda _: b"",
    "truncated": lambda parts: archive(parts)[:-40],
    "climbing": lambda parts: archive([*parts, ("../../evil", b"x")]),
    "absolute": lambda parts: archive([*parts, ("/tmp/evil", b"x")]),
    "assets": lambda parts: archive([*parts, ("assets/vocabulary.txt", b"x")]),
    "npz": lambda parts: archive([*parts[:2], ("model.weights.npz", b"x")]),
    "no-config": lambda parts: archive([part for part in parts if part[0] != "config.json"]),
    "no-json": lambda parts: archive([parts[0], ("config.json", b"{"), parts[2]]),
    "not-utf8": lambda parts: archive([parts[0], ("config.json", b'{"a": "\xff"}'), parts[2]]),
    "deep": lambda parts: archive([parts[0], ("config.json", b"[" * 100_000 + b"]" * 100_000), parts[2]]),
    "bomb": lambda parts: archive([*parts[:2], ("model.weights.h5", bytes(9 << 20))], zipfile.ZIP_DEFLATED),
    "large": lambda parts: archive([("metadata.json", bytes(2 << 20)), *parts[1:]]),
}


@pytest.mark.parametrize("what", ARCHIVES)
def test_odd_archive_is_refused(what: str) -> None:
    data = ARCHIVES[what](entries(keras_archive()))
    with pytest.raises(BundleError, match="is refused"):
        allowlist.check(data, WHERE)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_second_entry_of_the_same_name_is_refused() -> None:
    parts = entries(keras_archive())
    with pytest.raises(BundleError, match="does not hold exactly"):
        allowlist.check(archive([*parts, ("config.json", json.dumps(keras_config()).encode())]), WHERE)


def test_deeply_nested_configuration_is_refused() -> None:
    nested: Any = {}
    for _ in range(200):
        nested = {"config": nested}
    with pytest.raises(BundleError, match="nested too deeply"):
        check(with_layer(layer("ReLU", value=nested)))


def weights(fill: Callable[[Any], None]) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        fill(file)
    parts = entries(keras_archive())
    return archive([*parts[:2], ("model.weights.h5", buffer.getvalue())])


def external(file: Any) -> None:
    file.create_dataset("x", (8,), "f4", external=[("/etc/passwd", 0, 32)])


def virtual(file: Any) -> None:
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (4,))
    file.create_virtual_dataset("x", layout)


def group(file: Any, name: str, link: Any) -> None:
    file.create_group("layers")[name] = link


def inside(file: Any) -> None:
    file["x"] = np.zeros(3)
    file["y"] = h5py.SoftLink("/x")


WEIGHTS: dict[str, Callable[[Any], None]] = {
    "external-storage": external,
    "virtual": virtual,
    "soft-link-inside": inside,
    "soft-link": lambda file: group(file, "x", h5py.SoftLink("/")),
    "external-link": lambda file: group(file, "x", h5py.ExternalLink("/etc/passwd", "/")),
    "hard-link-cycle": lambda file: group(file, "x", file),
    "compressed-bomb": lambda file: file.create_dataset("x", data=np.zeros(1 << 20), compression="gzip"),
    "unwritten-bomb": lambda file: file.create_dataset("x", (1 << 40,), "f4", chunks=(1024,)),
    "named-type": lambda file: group(file, "x", np.dtype("f8")),
}


@pytest.mark.parametrize("what", WEIGHTS)
def test_weights_that_are_more_than_plain_numbers_are_refused(what: str) -> None:
    with pytest.raises(BundleError, match="is refused"):
        allowlist.check_weights(weights(WEIGHTS[what]), WHERE)


def test_plain_weights_pass() -> None:
    allowlist.check_weights(weights(lambda file: group(file, "x", np.zeros((3, 3), np.float32))), WHERE)
    allowlist.check_weights(keras_archive(), WHERE)
