"""A trial: a version is loaded, warmed and self-tested in a child process before this one touches it.

Runtimes are native code, and a model that crashes them, hangs them or eats all memory must not do so in the service.
The child has limits, no secrets and no way to more privileges, and dies with its parent. What it says is not trusted
further than one sentence: the service then loads the same bytes, under the same checksums, by the same code.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pigeonholed import bundle as bundles
from pigeonholed.bundle import BundleError
from pigeonholed.classifying import DeviceUnavailable, find_gpu

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pigeonholed.bundle import Bundle

DEADLINE_S = 180.0
"""Far more than any model needs: the old version serves meanwhile, and nobody waits."""

_CHILD = "pigeonholed.classifying.tried"
_ANSWER_BYTES = 64 << 10
_LOOK_EVERY_S = 0.02

# The libraries alone take up to 2 GiB of private memory with TensorFlow, and a weight is held several times over while
# a network is compiled. Between its layers a network holds some hundred numbers for each that comes in.
_LIBRARIES_BYTES = 3 << 30
_COPIES_OF_WEIGHTS = 16
_BYTES_FOR_EACH_INPUT = 400

_SECRETS = ("PIGEONHOLED", "PG", "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "WATCHDOG")


@dataclass(frozen=True, slots=True)
class Passed:
    """What a version was tried with: see `Classifier`."""

    runtime: str
    device: str
    precision: str


def hold(
    bundle: Bundle,
    *,
    kind: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    max_batch_size: int = 64,
    deadline_s: float = DEADLINE_S,
    memory_bytes: int | None = None,
    given_up: Callable[[], bool] = lambda: False,
) -> Passed:
    """Tries a version in a child process, as `load_classifier` would load it here; its weights are looked over too.

    Args:
        bundle: opened; the child opens it again and insists on the same digest.
        kind: as for `load_classifier`, as are `device`, `precision` and `max_batch_size`.
        device: see there.
        precision: see there.
        max_batch_size: see there.
        deadline_s: wall-clock time that the child has.
        memory_bytes: private memory that it may take; None for what a network of this size can need at most.
        given_up: asked again and again; the trial ends as refused when it answers True.

    Raises:
        BundleError: the version is refused, or crashed the child, hung it, or wanted too much memory.
        DeviceUnavailable: what was asked for is not to be had here.
    """
    if memory_bytes is None:
        memory_bytes = memory_limit(bundle, max_batch_size)
    request = {
        "path": os.fspath(bundle.path),
        "digest": bundle.digest,
        "options": {"kind": kind, "device": device, "precision": precision, "max_batch_size": max_batch_size},
        # A GPU's driver reserves memory in ways of its own, which this limit would count.
        "memory_bytes": None if kind != "openvino" and device != "cpu" and find_gpu() else memory_bytes,
        "file_bytes": _bytes_of(bundle, *bundle.files) + (64 << 20),
        "seconds": deadline_s,
        "parent": os.getpid(),
    }
    status, answer = _ask(json.dumps(request).encode("ascii"), deadline_s, given_up)
    if status == 0 and "passed" in answer:
        return Passed(*(_plain(answer["passed"].get(key)) for key in ("runtime", "device", "precision")))
    if status == 0 and "unavailable" in answer:
        raise DeviceUnavailable(_plain(answer["unavailable"]))
    if status == 0 and "refused" in answer:
        raise BundleError(_plain(answer["refused"]))
    raise BundleError(f"The model at {bundle.path} is refused: {_how_it_ended(status, answer, request)}.")


def memory_limit(bundle: Bundle, max_batch_size: int) -> int:
    """Private memory in bytes that loading and running `bundle` may take: generous, and never all of the machine's."""
    wanted = bundle.manifest.input
    pixels = max_batch_size * wanted.height * wanted.width * 3
    weights = _bytes_of(bundle, bundles.KERAS_MODEL, bundles.OPENVINO_WEIGHTS)
    generous = _LIBRARIES_BYTES + _COPIES_OF_WEIGHTS * weights + _BYTES_FOR_EACH_INPUT * pixels
    return min(generous, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 9 // 10)


def _ask(request: bytes, deadline_s: float, given_up: Callable[[], bool]) -> tuple[int | None, dict[str, Any]]:
    """Exit status of the child (None: it was ended for taking too long), and its answer, empty without one."""
    ends_s = time.monotonic() + deadline_s
    environment = {key: value for key, value in os.environ.items() if not key.startswith(_SECRETS)}
    # Files instead of pipes: the child's limit on the size of files bounds what it can say.
    with tempfile.TemporaryFile() as question, tempfile.TemporaryFile() as said:
        question.write(request)
        question.seek(0)
        # -P: the folder we happen to run in holds no modules of ours.
        command = [sys.executable, "-P", "-m", _CHILD]
        with subprocess.Popen(
            command, stdin=question, stdout=said, stderr=subprocess.DEVNULL, env=environment, start_new_session=True
        ) as process:
            while (status := process.poll()) is None:
                if time.monotonic() > ends_s or given_up():
                    process.kill()
                    return None, {}
                time.sleep(_LOOK_EVERY_S)
        said.seek(0)
        try:
            answer = json.loads(said.read(_ANSWER_BYTES))
        except (ValueError, RecursionError):
            answer = {}
        return status, answer if isinstance(answer, dict) else {}


def _how_it_ended(status: int | None, answer: dict[str, Any], request: dict[str, Any]) -> str:
    """The end of a sentence about a child that gave no verdict."""
    if status is None:
        return f"it was not loaded and tested within {request['seconds']:g} s"
    if answer.get("memory"):
        return f"loading it took more than {request['memory_bytes'] / 1e9:.1f} GB of memory"
    if status < 0:
        name = signal.Signals(-status).name if -status in set(signal.Signals) else str(-status)
        return f"loading it crashed the process that tried it ({name})"
    return f"the process that tried it ended with status {status}"


def _plain(text: object) -> str:
    """One line of printable characters, whatever the child says."""
    return "".join(character if character.isprintable() else " " for character in str(text))[:1000]


def _bytes_of(bundle: Bundle, *names: str) -> int:
    """Size of those files of the bundle that are there."""
    return sum(_size(bundle.path / name) for name in names)


def _size(path: Path) -> int:
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0
