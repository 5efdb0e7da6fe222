"""What the benchmark works on: digits as small JPEG files, a small network, and working folders of the service."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

SIDE = 32
_NOISE = 6.0  # standard deviation in grey levels: every file has other bytes, and still shows its digit
_QUALITY = 90

CONFIG = """
[models]
dir = "{models}"
[runtime]
kind = "openvino"
[metrics]
listen = "127.0.0.1:0"
[[inbox]]
name = "bench"
path = "inbox"
output = "sorted"
model = "{model}"
settle_s = 0
{more}
"""


@dataclass(frozen=True, slots=True)
class Model:
    """A published model: the store's folder and the name in it."""

    store: Path
    name: str


@dataclass(frozen=True, slots=True)
class Pictures:
    """Digits of scikit-learn, 8x8 float64 of 0 to 16, and which digits they are."""

    images: npt.NDArray[np.float64]
    labels: npt.NDArray[np.int64]

    @classmethod
    def load(cls) -> Pictures:
        from sklearn.datasets import load_digits

        digits = load_digits()
        return cls(digits.images, digits.target)

    def jpeg(self, index: int, rng: np.random.Generator) -> bytes:
        """One picture as a grey JPEG file of 32x32 pixels with a little noise; `index` may exceed their number."""
        grey = (self.images[index % len(self.images)] * (255 / 16)).astype(np.float32)
        large = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
        noisy = np.clip(large + rng.normal(0.0, _NOISE, large.shape), 0, 255).astype(np.uint8)
        done, encoded = cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        assert done
        return encoded.tobytes()

    def files(self, count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
        """Names and contents; the same for the same count and seed."""
        rng = np.random.default_rng(seed)
        for index in range(count):
            yield f"thumb-{index:06d}.jpg", self.jpeg(index, rng)

    def write(self, folder: Path, count: int) -> None:
        """Drop files into a folder and wait until they are on the disk, so that no round pays for their writing."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in self.files(count):
            with open(os.path.join(folder, name), "wb") as file:
                file.write(data)
        os.sync()


def train(pictures: Pictures, folder: Path, *, epochs: int | None) -> Model:
    """Train and publish the small network with the project's own tool; `epochs` None takes the recipe's number."""
    rng = np.random.default_rng(1)
    for index, label in enumerate(pictures.labels):
        path = folder / "training" / str(label) / f"{index:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pictures.jpeg(index, rng))
    command = [sys.executable, "-m", "pigeonholed_training", "train", str(folder / "training")]
    command += ["--recipe", "digits", "--name", "digits", "--seed", "0", "--publish"]
    command += ["--models", str(folder / "models"), "--runs", str(folder / "runs")]
    command += [] if epochs is None else ["--epochs", str(epochs)]
    with open(folder / "training.log", "wb") as log:
        done = subprocess.run(command, check=False, stdout=log, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        raise SystemExit(f"training the model failed: {(folder / 'training.log').read_text()[-2000:]}")
    return Model(folder / "models", "digits")


@dataclass(frozen=True, slots=True)
class Workspace:
    """A working folder of the service."""

    root: Path

    @classmethod
    def make(cls, root: Path, model: Model, more: str = "") -> Workspace:
        """A new folder; `more` are further lines of its inbox."""
        (root / "inbox").mkdir(parents=True)
        (root / "pigeonholed.toml").write_text(CONFIG.format(models=model.store, model=model.name, more=more))
        return cls(root)

    @property
    def inbox(self) -> Path:
        return self.root / "inbox"

    @property
    def output(self) -> Path:
        return self.root / "sorted"

    @property
    def database(self) -> Path:
        return self.root / "pigeonholed.db"

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "pigeonholed", "run", "--config", str(self.root / "pigeonholed.toml"), *arguments]
