"""Both ways to feed a network, each measured in a process of its own: pictures a second and memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np

SIDE, BATCH = 150, 32
ROTATE_DEG, ZOOM, SHIFT = 20.0, 0.2, 0.1


def make_pictures(folder: Path, count: int) -> None:
    """`count` JPEG files of 224x168 in two class folders, smooth like photographs, each different."""
    rng = np.random.default_rng(0)
    for number in range(count):
        coarse = rng.integers(0, 256, (12, 16, 3), np.uint8)
        pixels = cv2.resize(coarse, (224, 168), interpolation=cv2.INTER_CUBIC)
        noisy = np.clip(pixels + rng.normal(0, 6, pixels.shape), 0, 255).astype(np.uint8)
        path = folder / ("cat", "dog")[number % 2] / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), noisy, [cv2.IMWRITE_JPEG_QUALITY, 90])


def measure(way: str, folder: Path, cache: Path, seconds: float) -> dict[str, Any]:
    """One way in a child process: `ours`, `keras`, or `keras-cached` (decoded pictures kept in memory)."""
    command = [sys.executable, __file__, way, str(folder), str(cache), str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | _QUIET)
    if done.returncode:
        raise SystemExit(f"measuring {way} failed:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


_QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}


def ours(folder: Path, cache: Path) -> Iterator[Iterable[int]]:
    """Epochs of batch sizes through the cache and the fused warp."""
    from pigeonholed import imaging
    from pigeonholed_training.data.dataset import load
    from pigeonholed_training.data.splitting import Part, Shares
    from pigeonholed_training.fitting.augmentation import Augmentation
    from pigeonholed_training.fitting.feed import Feed

    imaging.configure()
    shares = Shares(validation=0.01, calibration=0.01)
    dataset = load(folder, imaging.PixelSpec(SIDE, SIDE), cache=cache, shares=shares)
    train = np.flatnonzero(dataset.parts(shares, 0) == Part.TRAIN)
    changes = Augmentation(rotate_deg=ROTATE_DEG, zoom=ZOOM, shift=SHIFT, flip=True)
    feed = Feed(dataset.read, dataset.targets, train, BATCH, changes, seed=0)
    for epoch in range(1, 1_000_000):
        yield (len(pixels) for pixels, _ in feed.batches(epoch))


def keras_stock(folder: Path, *, cached: bool) -> Iterator[Iterable[int]]:
    """Epochs of batch sizes through `image_dataset_from_directory` and four layers, in parallel, prefetched."""
    import keras
    import tensorflow as tf
    from keras import layers

    data = keras.utils.image_dataset_from_directory(
        folder, image_size=(SIDE, SIDE), batch_size=None, shuffle=not cached, verbose=False
    )
    if cached:
        data = data.cache().shuffle(4096)
    turn = ROTATE_DEG / 360
    changes = keras.Sequential(
        [
            layers.RandomFlip("horizontal"),
            layers.RandomRotation(turn, fill_mode="nearest"),
            layers.RandomZoom(ZOOM, fill_mode="nearest"),
            layers.RandomTranslation(SHIFT, SHIFT, fill_mode="nearest"),
        ]
    )
    data = data.batch(BATCH).map(lambda x, y: (changes(x, training=True), y), num_parallel_calls=tf.data.AUTOTUNE)
    data = data.prefetch(tf.data.AUTOTUNE)
    while True:
        yield (len(targets) for _, targets in data.as_numpy_iterator())


def rate(epochs: Iterator[Iterable[int]], seconds: float) -> dict[str, Any]:
    """Pictures a second from the second epoch on, and the most memory."""
    for _ in next(epochs):
        pass
    highest = _Highest()
    seen, begun = 0, time.perf_counter()
    with highest:
        for epoch in epochs:
            for count in epoch:
                seen += count
                if time.perf_counter() - begun >= seconds:
                    break
            if time.perf_counter() - begun >= seconds:
                break
    took = time.perf_counter() - begun
    return {
        "pictures_per_s": seen / took,
        "pictures": seen,
        "seconds": took,
        "own_mb": highest.own_mb,
        "all_mb": highest.all_mb,
    }


class _Highest:
    """The most memory that was seen while it was entered, MB: of the process's own, and with mapped files."""

    def __init__(self) -> None:
        self.own_mb = self.all_mb = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.05):
            lines = Path("/proc/self/status").read_text().splitlines()
            kb = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith(("VmRSS", "RssAnon"))}
            self.own_mb = max(self.own_mb, kb["RssAnon"] / 1024)
            self.all_mb = max(self.all_mb, kb["VmRSS"] / 1024)


@click.command()
@click.argument("way", type=click.Choice(["ours", "keras", "keras-cached"]))
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("cache", type=click.Path(path_type=Path))
@click.argument("seconds", type=float)
def main(way: str, folder: Path, cache: Path, seconds: float) -> None:
    """What the child process does."""
    epochs = ours(folder, cache) if way == "ours" else keras_stock(folder, cached=way == "keras-cached")
    click.echo(json.dumps(rate(epochs, seconds)))


if __name__ == "__main__":
    main()
