"""How good a model is on pictures that it has never seen: the numbers of `metrics.json` and of the report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pigeonholed_training.evaluation.intervals import wilson
from pigeonholed_training.evaluation.judged import Judged

if TYPE_CHECKING:
    import numpy.typing as npt

    Counts = npt.NDArray[np.int_]

DRAWS = 1000  # resamples behind the interval of the macro F1


def figures(judged: Judged) -> dict[str, Any]:
    """Accuracy, per-class figures, confusions, and what the thresholds do, as plain values for JSON.

    The macro figures are means over the classes that have pictures or were said of one, as in scikit-learn: a class
    that was never met says nothing.

    Returns:
        `n`; `accuracy` with its 95 % Wilson interval; `balanced_accuracy`, the mean recall; `majority`, what always
        saying the most frequent class would get right; `macro_f1` with `macro_f1_interval`, `macro_precision`,
        `macro_recall`; `classes` (n, precision, recall and F1, None where there is nothing to divide by, each with its
        95 % interval); `confusion` [true][predicted]; `nll` and `brier` of the calibrated probabilities; `sorted`
        (what passes its threshold) and `unsure_share`.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    classes = np.arange(len(judged.labels))
    predicted, right, passes = judged.predicted, judged.right, judged.passes
    confusion: Counts = confusion_matrix(judged.targets, predicted, labels=classes)
    precision, recall, f1, true = precision_recall_fscore_support(
        judged.targets, predicted, labels=classes, zero_division=0.0
    )
    met = true + confusion.sum(axis=0) > 0
    return {
        "n": len(judged),
        "accuracy": share(int(right.sum()), len(judged)),
        "balanced_accuracy": round(float(recall[true > 0].mean()), 6),
        "majority": round(float(true.max() / len(judged)), 6),
        "macro_f1": round(float(f1[met].mean()), 6),
        "macro_f1_interval": _rounded(*macro_f1_interval(confusion)),
        "macro_precision": round(float(precision[met].mean()), 6),
        "macro_recall": round(float(recall[met].mean()), 6),
        "classes": [_class(label, confusion, index) for index, label in enumerate(judged.labels)],
        "confusion": confusion.tolist(),
        **scores(judged.probabilities, judged.targets),
        "sorted": share(int((right & passes).sum()), int(passes.sum())),
        "unsure_share": round(float(1.0 - passes.mean()), 6),
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


def scores(probabilities: npt.NDArray[np.floating[Any]], targets: npt.NDArray[np.int32]) -> dict[str, float]:
    """The two proper scores: `nll`, mean -log p(true class) in nats, and `brier`, mean squared distance (0 to 2).

    Args:
        probabilities: float [N, K], N at least 1.
        targets: true class, int [N].
    """
    from sklearn.metrics import log_loss

    # float32 rows miss a sum of 1 by rounding, and scikit-learn would warn of that.
    rows = probabilities.astype(np.float64)
    rows /= rows.sum(axis=1, keepdims=True)
    of_true = rows[np.arange(len(targets)), targets]
    brier = 1.0 + ((rows**2).sum(axis=1) - 2.0 * of_true).mean()
    return {
        "nll": round(float(log_loss(targets, rows, labels=np.arange(rows.shape[1]))), 6),
        "brier": round(float(brier), 6),
    }


def macro_f1_interval(confusion: Counts, seed: int = 0) -> tuple[float, float]:
    """The 95 % percentile interval of the macro F1 over resampled pictures.

    Which pictures are drawn matters only by the cell of the confusion matrix that each is in, so the cells are
    resampled, from a multinomial. Where nothing is wrong every resample is perfect and would say nothing; then the
    interval is that of the accuracy.

    Args:
        confusion: int [true, predicted], not all 0.
        seed: of the resamples.
    """
    n, classes = int(confusion.sum()), len(confusion)
    true, said = np.nonzero(confusion)
    if (true == said).all():
        return wilson(n, n)
    cells, hit = confusion[true, said] / n, true == said
    rng = np.random.default_rng(seed)
    values = np.empty(DRAWS)
    for index in range(DRAWS):
        drawn = rng.multinomial(n, cells)
        hits = np.bincount(true[hit], drawn[hit], classes)
        met = np.bincount(true, drawn, classes) + np.bincount(said, drawn, classes)
        values[index] = (2.0 * hits[met > 0] / met[met > 0]).mean()
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)


def f1_interval(hits: int, either: int) -> tuple[float, float]:
    """The 95 % interval of an F1 (Lam, Gopal and Qian 2023, arXiv 2309.14621, 'Wilson indirect').

    With J the share `hits` of `either`, F1 is 2J / (1 + J), which only grows with J; so the Wilson interval of J is
    carried over. Other than resamples it stays honest for few pictures that are all right.

    Args:
        hits: pictures of the class that were said to be.
        either: pictures that are of the class or were said to be.
    """
    low, high = wilson(hits, either)
    return 2.0 * low / (1.0 + low), 2.0 * high / (1.0 + high)


def _class(label: str, confusion: Counts, index: int) -> dict[str, Any]:
    """One class: figures and intervals from three counts."""
    hits, true, said = int(confusion[index, index]), int(confusion[index].sum()), int(confusion[:, index].sum())
    return {
        "label": label,
        "n": true,
        "precision": round(hits / said, 6) if said else None,
        "precision_interval": _rounded(*wilson(hits, said)),
        "recall": round(hits / true, 6) if true else None,
        "recall_interval": _rounded(*wilson(hits, true)),
        "f1": round(2 * hits / (true + said), 6) if true + said else None,
        "f1_interval": _rounded(*f1_interval(hits, true + said - hits)),
    }


def _rounded(low: float, high: float) -> list[float]:
    return [round(low, 6), round(high, 6)]
