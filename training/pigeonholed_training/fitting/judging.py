"""What a network says of pictures that are not being learnt from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pigeonholed_training.evaluation.calibration import negative_log_likelihood

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

CHUNK = 256  # rows that are judged at once


def logits_of(model: Any, chunks: Iterable[npt.NDArray[Any]]) -> npt.NDArray[np.float64]:
    """Logits, float64 [N, K], of what the chunks hold together.

    Args:
        model: keras.Model giving [n, K] logits; or [n, 1], the logit of the second of two classes.
        chunks: inputs of the model; the last may be shorter.
    """
    width = int(model.output_shape[-1])
    rows = [np.asarray(model.predict_on_batch(chunk), np.float64) for chunk in chunks]
    logits = np.concatenate(rows) if rows else np.empty((0, width))
    return np.concatenate([np.zeros_like(logits), logits], axis=1) if width == 1 else logits


def judge(model: Any, chunks: Iterable[npt.NDArray[Any]], targets: npt.NDArray[np.int32]) -> tuple[float, float]:
    """Mean cross-entropy in nats, and accuracy.

    Args:
        model: as `logits_of`.
        chunks: as `logits_of`.
        targets: int [N], the true classes of all chunks together.
    """
    logits = logits_of(model, chunks)
    return negative_log_likelihood(logits, targets), float((logits.argmax(axis=1) == targets).mean())
