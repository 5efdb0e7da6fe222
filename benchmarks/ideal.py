"""The ideal: the service's own decode and model in the same threads and batches; nothing is moved or recorded.

Run as `ideal.py STORE MODEL INBOX`; the last line of its output is JSON.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pigeonholed import imaging
from pigeonholed.batching import batches
from pigeonholed.channel import Channel
from pigeonholed.classifying import load_classifier
from pigeonholed.store import ModelStore

if TYPE_CHECKING:
    from pigeonholed.images import Pixels

_CHUNK = 8  # as the service's engine hands files to its decoders
_BATCH = 64


def main(store: Path, model: str, inbox: Path) -> None:
    imaging.configure()
    bundle = ModelStore(store).open(model)
    classifier = load_classifier(bundle, kind="openvino", max_batch_size=_BATCH)
    spec = bundle.manifest.pixel_spec
    files: Channel[str] = Channel(_BATCH * 2)
    decoded: Channel[Pixels] = Channel(_BATCH * 4)

    def feed() -> None:
        chunk: list[str] = []
        with os.scandir(inbox) as entries:
            for entry in entries:
                chunk.append(entry.path)
                if len(chunk) == _CHUNK:
                    files.put(chunk)
                    chunk = []
        files.put(chunk)
        files.close()

    def decode() -> None:
        for paths in files:
            decoded.put([imaging.decode(_read(path), spec).pixels for path in paths])

    started = time.perf_counter()
    feeder = threading.Thread(target=feed)
    decoders = [threading.Thread(target=decode) for _ in range(os.cpu_count() or 1)]

    def end() -> None:
        for thread in decoders:
            thread.join()
        decoded.close()

    ender = threading.Thread(target=end)
    for thread in (feeder, *decoders, ender):
        thread.start()
    count = 0
    for batch, _flush in batches(decoded, max_size=_BATCH, max_wait_s=0.5, on_its_way=lambda: 1):
        count += len(classifier.predict(np.stack(batch)).argmax(axis=1))
    print(json.dumps({"files": count, "seconds": time.perf_counter() - started}))


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
