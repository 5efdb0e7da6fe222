"""Batches of any size on a network that was warmed for a few: pad, run, slice, calibrate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pigeonholed.bundle import BundleError, calibrate

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from pigeonholed.bundle import Manifest


@dataclass(frozen=True, slots=True)
class Network:
    """A network in some runtime.

    Attributes:
        runtime: `openvino` or `keras`.
        device: `cpu` or `gpu`.
        precision: what it really computes in.
        infer: uint8 [N, H, W, 3], C-contiguous -> float32 scores of N rows, as the network gives them.
    """

    runtime: str
    device: str
    precision: str
    infer: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]


def batch_sizes(largest: int) -> tuple[int, ...]:
    """The powers of two below `largest`, and `largest`: padding then never doubles the work.

    Raises:
        ValueError: `largest` is below 1.
    """
    if largest < 1:
        raise ValueError(f"a batch cannot hold {largest} pictures at most")
    return (*(1 << power for power in range((largest - 1).bit_length())), largest)


class BatchedClassifier:
    """The one `Classifier`: every runtime is a `Network` behind it.

    Args:
        manifest: says the labels, the input and how scores become probabilities.
        network: the network, loaded.
        sizes: batch sizes, ascending.
        where: the bundle, for messages.
    """

    def __init__(self, manifest: Manifest, network: Network, sizes: tuple[int, ...], where: str) -> None:
        self.labels = manifest.labels
        self.runtime = network.runtime
        self.device = network.device
        self.precision = network.precision
        self.batch_sizes = sizes
        self._infer = network.infer
        self._picture = (manifest.input.height, manifest.input.width, 3)
        self._output = manifest.output
        self._temperature = manifest.calibration.temperature
        # One column stands for two labels (`calibrate`); a softmax always has one for each.
        narrow = len(manifest.labels) == 2 and manifest.output != "softmax"
        self._columns = {1} if manifest.output == "sigmoid" else {len(manifest.labels)} | ({1} if narrow else set())
        self._where = where

    def warm(self) -> None:
        """Runs every batch size once, so that no picture waits for a runtime to prepare itself.

        Raises:
            BundleError: the network fails, or answers in another shape than its manifest says.
        """
        for size in self.batch_sizes:
            try:
                self.predict(np.zeros((size, *self._picture), np.uint8))
            except (RuntimeError, ValueError) as fault:
                raise BundleError(f"Cannot run the model at {self._where}: {_first_line(fault)}.") from fault

    def predict(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """See `Classifier.predict`."""
        number = len(pixels)
        if pixels.dtype != np.uint8 or pixels.shape[1:] != self._picture or number > self.batch_sizes[-1]:
            raise ValueError(
                f"Cannot classify {pixels.dtype} pixels of shape {pixels.shape}: "
                f"the model takes up to {self.batch_sizes[-1]} pictures of uint8 {self._picture}."
            )
        if number == 0:
            return np.empty((0, len(self.labels)), np.float32)
        size = next(size for size in self.batch_sizes if size >= number)
        batch = np.ascontiguousarray(pixels)
        if size > number:
            batch = np.zeros((size, *self._picture), np.uint8)
            batch[:number] = pixels
        scores = self._infer(batch)
        if scores.ndim != 2 or scores.shape[0] != size or scores.shape[1] not in self._columns:
            raise BundleError(
                f"The model at {self._where} answers {size} pictures with scores of shape {scores.shape}, "
                f"which does not fit its {len(self.labels)} labels."
            )
        return calibrate(scores[:number], self._output, self._temperature)


def _first_line(fault: BaseException) -> str:
    """The fault in one line: runtimes add their source files and stacks below."""
    lines = str(fault).strip().splitlines()
    return lines[-1].strip(" .") if lines else type(fault).__name__
