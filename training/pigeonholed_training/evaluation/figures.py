"""How good a model is on pictures that it has never seen: the numbers of `metrics.json` and of the report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pigeonholed_training.evaluation.intervals import wilson

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from pigeonholed.bundle import Threshold


def evaluate(
    labels: Sequence[str],
    probabilities: npt.NDArray[np.floating[Any]],
    targets: npt.NDArray[np.int32],
    thresholds: Sequence[Threshold],
) -> dict[str, Any]:
    """Accuracy, per-class figures, confusions, and what the thresholds do, as plain values for JSON.

    Args:
        labels: the classes.
        probabilities: calibrated, float [N, K].
        targets: true class, int [N].
        thresholds: one for each label.

    Returns:
        `n`; `accuracy` with its 95 % Wilson interval; `macro_f1`; `classes` (precision, recall, F1, n); `confusion`
        [true][predicted]; `nll` and `brier` of the calibrated probabilities; `sorted` (what passes its threshold) and
        `unsure_share`.
    """
    predicted = probabilities.argmax(axis=1)
    confusion = np.zeros((len(labels), len(labels)), int)
    np.add.at(confusion, (targets, predicted), 1)
    classes = [_class(label, confusion, index) for index, label in enumerate(labels)]
    passes = probabilities.max(axis=1) >= np.array([threshold.value for threshold in thresholds])[predicted]
    right = predicted == targets
    true_p = np.clip(probabilities[np.arange(len(targets)), targets].astype(np.float64), 1e-12, 1.0)
    one_hot = np.eye(len(labels))[targets]
    return {
        "n": len(targets),
        "accuracy": share(int(right.sum()), len(targets)),
        "macro_f1": round(float(np.mean([one["f1"] for one in classes])), 6),
        "classes": classes,
        "confusion": confusion.tolist(),
        "nll": round(float(-np.log(true_p).mean()), 6),
        "brier": round(float(((probabilities - one_hot) ** 2).sum(axis=1).mean()), 6),
        "sorted": share(int((right & passes).sum()), int(passes.sum())),
        "unsure_share": round(float(1.0 - passes.mean()), 6),
    }


def _class(label: str, confusion: npt.NDArray[np.int_], index: int) -> dict[str, Any]:
    hits, true, said = int(confusion[index, index]), int(confusion[index].sum()), int(confusion[:, index].sum())
    return {
        "label": label,
        "n": true,
        "precision": round(hits / said, 6) if said else None,
        "recall": round(hits / true, 6) if true else None,
        "recall_interval": [round(bound, 6) for bound in wilson(hits, true)],
        "f1": round(2 * hits / (true + said), 6) if true + said else 0.0,
    }


def share(hits: int, n: int) -> dict[str, Any]:
    """A share with its 95 % Wilson interval, as plain values for JSON; `value` is None for none of none."""
    low, high = wilson(hits, n)
    return {
        "value": round(hits / n, 6) if n else None,
        "lower": round(low, 6),
        "upper": round(high, 6),
        "right": hits,
        "n": n,
    }
