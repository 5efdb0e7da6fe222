"""What leaving the least sure pictures aside buys: risk against coverage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from pigeonholed_training.evaluation.judged import Judged

    Floats = npt.NDArray[np.floating[Any]]
    Bools = npt.NDArray[np.bool_]

POINTS = 200  # of the curve at most
PRECISIONS = (0.95, 0.98, 0.99)


def selective(judged: Judged) -> dict[str, Any]:
    """What one threshold on the confidence could do, whatever the thresholds of the bundle are, for JSON.

    Pictures of equal confidence cannot be told apart: what is said of a part of them is what is expected of a random
    part, and `coverage_at` takes them all or none.

    Returns:
        `curve`: [coverage, risk] from the surest on, risk being the share that is wrong of what is accepted; `aurc`,
        its mean over all coverages (Geifman et al. 2019, arXiv 1805.08206); `augrc`, the mean over all coverages of
        the share of all pictures that is accepted and wrong (Traub et al. 2024, arXiv 2407.01032), which unlike
        `aurc` does not count the errors of the surest pictures many times over: half the error rate for a
        meaningless confidence, half its square for a perfect one; `coverage_at`: for each precision the largest share
        of these pictures that one threshold accepts with it, 0 where none does.
    """
    confidence, right = judged.confidence, judged.right
    errors = expected_errors(confidence, right)
    n = len(errors) - 1
    accepted = np.arange(1, n + 1)
    risk = errors[1:] / accepted
    shown = np.unique(np.linspace(1, n, min(n, POINTS)).round().astype(int)) - 1
    return {
        "curve": [[round(float(accepted[i] / n), 6), round(float(risk[i]), 6)] for i in shown],
        "aurc": round(float(risk.mean()), 6),
        "augrc": round(float((errors[1:] + errors[:-1]).mean() / 2 / n), 6),
        "coverage_at": {f"{wanted:g}": round(coverage_at(confidence, right, wanted), 6) for wanted in PRECISIONS},
    }


def expected_errors(confidence: Floats, right: Bools) -> npt.NDArray[np.float64]:
    """Errors among the surest 0, 1, ..., N pictures, float [N + 1]; expected ones inside a group of equals."""
    ends, wrong = _groups(confidence, right)
    counts: npt.NDArray[np.float64] = np.interp(np.arange(len(right) + 1), [0, *ends], [0, *wrong])
    return counts


def coverage_at(confidence: Floats, right: Bools, precision: float) -> float:
    """The largest share that one threshold accepts with at least this precision on these pictures; 0 for none."""
    ends, wrong = _groups(confidence, right)
    good = ends[wrong <= (1.0 - precision) * ends + 1e-9]
    return float(good[-1] / len(right)) if len(good) else 0.0


def _groups(confidence: Floats, right: Bools) -> tuple[npt.NDArray[np.int_], npt.NDArray[np.int_]]:
    """How many are accepted, and how many of those are wrong, at each threshold that makes a difference."""
    order = np.argsort(-confidence, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(confidence[order])) + 1, len(right))
    return ends, np.append(0, np.cumsum(~right[order]))[ends]
