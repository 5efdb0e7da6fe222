"""A model in service: its classifier, what it promises, and how a batch becomes predictions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import structlog

from pigeonholed.images import Classified, Prediction, Reason, Rejected

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from pigeonholed.bundle import Bundle
    from pigeonholed.classifying import Classifier
    from pigeonholed.images import Decoded
    from pigeonholed.imaging import PixelSpec

log = structlog.get_logger()

_NO_ANSWER = "the model gave no finite answer for this picture alone"


@dataclass(frozen=True, slots=True)
class Policy:
    """What an inbox does with predictions.

    Attributes:
        min_confidence: one threshold for all labels; None for the bundle's own.
        top_k: how many labels are kept.
    """

    min_confidence: float | None
    top_k: int


@dataclass(frozen=True)
class Served:
    """One version of a model, loaded and warm. Used by one thread.

    Attributes:
        bundle: the version.
        classifier: answers for it.
        on_fault: called with the error when it failed for a batch, which is then asked again in halves.
    """

    bundle: Bundle
    classifier: Classifier
    on_fault: Callable[[Exception], None] = lambda _error: None

    @cached_property
    def spec(self) -> PixelSpec:
        """What the model wants to see."""
        return self.bundle.manifest.pixel_spec

    def classify(self, batch: Sequence[Decoded], policies: Mapping[str, Policy]) -> list[Classified | Rejected]:
        """Predict a batch; one outcome for each picture, in order.

        Args:
            batch: at most the classifier's largest batch; pixels of the bundle's size.
            policies: by inbox.
        """
        probabilities = self._predict(np.stack([decoded.pixels for decoded in batch]))
        thresholds = [threshold.value for threshold in self.bundle.manifest.thresholds]
        most = max(policies[decoded.arrival.file.inbox].top_k for decoded in batch)
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, :most]
        best = np.take_along_axis(probabilities, order, axis=1).clip(0.0, 1.0)
        answered = [bool(finite) for finite in np.all(np.isfinite(probabilities), axis=1)]
        label_of = self.bundle.labels.__getitem__
        outcomes: list[Classified | Rejected] = []
        for decoded, is_answered, ranks, values in zip(batch, answered, order.tolist(), best.tolist(), strict=True):
            if not is_answered:
                outcomes.append(_rejected(decoded))
                continue
            policy = policies[decoded.arrival.file.inbox]
            ranked = tuple(zip(map(label_of, ranks[: policy.top_k]), values, strict=False))
            threshold = thresholds[ranks[0]] if policy.min_confidence is None else policy.min_confidence
            outcomes.append(self._classified(decoded, ranked, threshold))
        return outcomes

    def _predict(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Probabilities; a picture without a finite answer is tried once more alone, so that it harms no other."""
        probabilities = self._answer(pixels)
        odd = np.flatnonzero(~np.isfinite(probabilities).all(axis=1))
        if len(pixels) > 1 and len(odd):
            probabilities = probabilities.copy()  # a runtime's result may be read-only
            for row in odd:
                probabilities[row] = self.classifier.predict(pixels[row : row + 1])[0]
        return probabilities

    def _answer(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """What the model says; where it fails (a device may be short of memory), it is asked half as much at a time.

        Raises:
            Exception: it fails for a single picture, which is not to blame for that.
        """
        try:
            return self.classifier.predict(pixels)
        except Exception as error:
            if len(pixels) == 1:
                raise
            self.on_fault(error)
            log.warning(
                "batch_halved", model=self.bundle.name, pictures=len(pixels), error=str(error).partition("\n")[0]
            )
        half = len(pixels) // 2
        return np.concatenate([self._answer(pixels[:half]), self._answer(pixels[half:])])

    def _classified(self, decoded: Decoded, ranked: tuple[tuple[str, float], ...], threshold: float) -> Classified:
        return Classified(
            decoded.arrival,
            decoded.fingerprint,
            decoded.width,
            decoded.height,
            Prediction(self.bundle.name, self.bundle.version, ranked),
            threshold,
            decoded.taken_at,
        )


def _rejected(decoded: Decoded) -> Rejected:
    return Rejected(decoded.arrival, decoded.fingerprint, Reason.MODEL_ERROR, _NO_ANSWER, decoded.width, decoded.height)
