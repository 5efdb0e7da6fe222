"""The child of a trial: confines itself, then loads a version as the service would, and says how that went.

Started by `trial` and by nothing else, as `python -P -m pigeonholed.classifying.tried`.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

from pigeonholed import bundle as bundles
from pigeonholed.bundle import Bundle, BundleError
from pigeonholed.classifying import Classifier, DeviceUnavailable, allowlist, load_classifier

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38


def main() -> None:
    """One request as JSON on stdin, one answer as JSON on stdout; the exit status is 0 where there is an answer."""
    request = json.load(sys.stdin)
    answers = os.dup(1)
    os.dup2(2, 1)  # libraries may print
    _confine(request)
    answer = _answer(request)
    os.write(answers, json.dumps(answer).encode("ascii"))
    # Not through the destructors of native libraries, which have nothing left to do for us.
    os._exit(1 if "memory" in answer else 0)


def examine(bundle: Bundle, **options: Any) -> Classifier:
    """Loads and tests a bundle with all that the service leaves out because a trial has done it: its weights.

    Raises:
        BundleError: as `load_classifier`; or weights of Keras that point outside their file or unpack to too much,
            whichever runtime serves.
        DeviceUnavailable: as `load_classifier`.
    """
    if bundle.manifest.network == "keras":
        data = bundle.read(bundles.KERAS_MODEL)
        allowlist.check(data, bundle.path)
        allowlist.check_weights(data, bundle.path)
    return load_classifier(bundle, **options)


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    try:
        bundle = Bundle.open(Path(request["path"]))
        if bundle.digest != request["digest"]:
            return {"refused": f"The model at {bundle.path} was changed while it was tried."}
        classifier = examine(bundle, **request["options"])
    except BundleError as refused:
        return {"refused": str(refused)}
    except DeviceUnavailable as unavailable:
        return {"unavailable": str(unavailable)}
    except MemoryError:
        return {"memory": True}
    return {
        "passed": {
            "runtime": classifier.runtime,
            "device": classifier.device,
            "precision": classifier.precision,
        }
    }


def _confine(request: dict[str, Any]) -> None:
    """Gives up what loading a model does not need: for good, and for whatever this process may start."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != request["parent"]:  # it died before it could take us along
        os._exit(1)
    with contextlib.suppress(OSError):  # if memory runs out all the same, this process goes, and not the service
        Path("/proc/self/oom_score_adj").write_text("1000", "ascii")
    processors = os.cpu_count() or 1
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_CPU: int(request["seconds"] * processors) + 1,
        resource.RLIMIT_FSIZE: request["file_bytes"],
        # Private writable memory, shared libraries and reserved addresses left out: what really costs memory.
        resource.RLIMIT_DATA: request["memory_bytes"],
    }
    for limit, wanted in limits.items():
        if wanted is not None:
            most = resource.getrlimit(limit)[1]
            value = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
            resource.setrlimit(limit, (value, value))


if __name__ == "__main__":
    main()
