"""Bundles damaged at random and sealed anew: each is loaded or refused, and nothing else ever happens."""

from __future__ import annotations

import hashlib
import io
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import h5py  # type: ignore[import-untyped]
import numpy as np

from bundles import make_bundle
from hostile import parts, zipped
from pigeonholed import sealing
from pigeonholed.bundle import Bundle, BundleError
from pigeonholed.classifying import allowlist, ir, tried

SECONDS = float(os.environ.get("PIGEONHOLED_TEST_BUNDLE_FUZZ_S", "6"))
"""How long; `make soak` sets more."""

FIRST_SEED = int(os.environ.get("PIGEONHOLED_TEST_SEED", "1"))

LONGEST_S = 20.0
"""No single bundle may take longer, on however busy a machine."""

WORDS = [b"-1", b"0", b"1", b"99999999", b"1e999", b"NaN", b'"', b"\xff", b"{", b"[", b"<", b"&", b"None", b"dynamic"]


def mutated(data: bytes, random_: random.Random) -> bytes:
    """A few changes of the kinds that parsers stumble over."""
    changed = bytearray(data)
    for _ in range(random_.choice((1, 1, 1, 2, 5, 20))):
        at = random_.randrange(len(changed) + 1)
        kind = random_.randrange(7)
        if kind <= 1 and at < len(changed):
            changed[at] ^= 1 << random_.randrange(8)
        elif kind == 2 and at < len(changed):
            changed[at] = random_.choice((0, 0xFF, 0x7F, 0x80))
        elif kind == 3:
            del changed[at : at + random_.choice((1, 4, 64, 10_000))]
        elif kind == 4:
            source = random_.randrange(len(changed) + 1)
            changed[at:at] = changed[source : source + random_.choice((1, 8, 200))]
        elif kind == 5:
            word = random_.choice(WORDS)
            changed[at : at + len(word)] = word
        else:
            changed[at : at + 8] = random_.randbytes(8)
    return bytes(changed)


def outcome(folder: Path, what: str) -> str:
    """`loaded` or `refused`; anything else fails, and names its seed."""
    started_s = time.process_time()  # a machine that does other things is no fault; for what hangs there is a timeout
    try:
        tried.examine(Bundle.open(folder), kind="openvino", device="cpu", max_batch_size=2)
        answer = "loaded"
    except BundleError as refused:
        answer = "refused" if "\n" not in str(refused) else f"refused in several lines: {refused}"
    except MemoryError:
        answer = "refused"  # the child of a trial has a limit, and says so
    except BaseException as error:
        answer = f"{type(error).__name__}: {error}"
    assert answer in ("loaded", "refused"), f"{what}: {answer}"
    assert time.process_time() - started_s < LONGEST_S, f"{what} took too long"
    return answer


def test_mutated_bundle_is_loaded_or_refused(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "bundle")
    sealing.seal(folder)
    seal = (folder / sealing.SEAL).read_text()
    names = sorted(line.split("  ")[1] for line in seal.splitlines())
    seed, outcomes, ends_s = FIRST_SEED, {"loaded": 0, "refused": 0}, time.monotonic() + SECONDS
    while time.monotonic() < ends_s or seed < FIRST_SEED + len(names):
        name = names[seed % len(names)]
        whole = (folder / name).read_bytes()
        changed = mutated(whole, random.Random(seed))
        (folder / name).write_bytes(changed)
        digests = [hashlib.sha256(data).hexdigest() for data in (whole, changed)]
        (folder / sealing.SEAL).write_text(seal.replace(*digests))
        outcomes[outcome(folder, f"PIGEONHOLED_TEST_SEED={seed} ({name})")] += 1
        (folder / name).write_bytes(whole)
        seed += 1
    print(outcomes, "next seed", seed)
    assert all(outcomes.values())


def weights() -> bytes:
    """An HDF5 file as Keras lays it out."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name in ("conv", "dense"):
            group = file.create_group(f"layers/{name}/vars")
            group["0"] = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
            group["1"] = np.zeros(4, np.float32)
    return buffer.getvalue()


def test_mutated_network_is_read_or_refused(tmp_path: Path) -> None:
    """The readers before the runtimes, which are reached far oftener this way: thousands of times."""
    folder = make_bundle(tmp_path / "bundle")
    graph, config = (folder / "export/openvino/model.xml").read_bytes(), dict(parts())["config.json"]
    plain = weights()
    readers: list[tuple[bytes, Callable[[bytes], object]]] = [
        (graph, lambda data: ir.checked(data, 64, tmp_path)),
        (config, lambda data: allowlist.check(zipped([parts_[0], ("config.json", data), parts_[2]]), tmp_path)),
        (plain, lambda data: allowlist.check_weights(zipped([*parts_[:2], ("model.weights.h5", data)]), tmp_path)),
        (zipped(parts()), lambda data: allowlist.check(data, tmp_path)),
    ]
    parts_ = parts()
    seed, outcomes, ends_s = FIRST_SEED, {"read": 0, "refused": 0}, time.monotonic() + SECONDS / 2
    while time.monotonic() < ends_s or seed < FIRST_SEED + 100:
        whole, read = readers[seed % len(readers)]
        started_s = time.process_time()
        try:
            read(mutated(whole, random.Random(seed)))
            outcomes["read"] += 1
        except BundleError:
            outcomes["refused"] += 1
        except BaseException as error:
            raise AssertionError(f"PIGEONHOLED_TEST_SEED={seed}") from error
        assert time.process_time() - started_s < LONGEST_S, f"PIGEONHOLED_TEST_SEED={seed} took too long"
        seed += 1
    print(outcomes, "next seed", seed)
    assert all(outcomes.values())
