"""The script that many would write: read, predict and move one picture after the other.

Run as `plain.py STORE MODEL INBOX OUTPUT`; the last line of its output is JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path


def main(store: Path, name: str, inbox: Path, output: Path) -> None:
    import cv2
    import keras

    version = (store / name / "CURRENT").read_text().strip()
    bundle = store / name / version
    labels = json.loads((bundle / "bundle.json").read_text())["labels"]
    model = keras.saving.load_model(bundle / "model.keras", compile=False)
    _, height, width, _ = model.input_shape
    for label in labels:
        os.makedirs(output / label)
    names = sorted(os.listdir(inbox))

    def sort(file: str) -> None:
        picture = cv2.imread(str(inbox / file))
        assert picture is not None
        picture = cv2.resize(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), (width, height))
        scores = model.predict(picture[None], verbose=0)
        shutil.move(inbox / file, output / labels[int(scores[0].argmax())])

    sort(names[0])  # the first call builds the function: start-up, as it is for the service
    started = time.perf_counter()
    for file in names[1:]:
        sort(file)
    print(json.dumps({"files": len(names) - 1, "seconds": time.perf_counter() - started}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
