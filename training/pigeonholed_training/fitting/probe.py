"""A linear head on frozen features: multinomial logistic regression, its regularisation chosen by cross-validation.

scikit-learn's L-BFGS in float32 does it: 0.1 s a fit for 5,000 pictures of 1,280 features on one core. Features are
centred and divided by one number for all of them. To give each feature unit variance, as is often done, makes those
that hardly vary as loud as those that tell classes apart: on cats and dogs and on animals the loss on held-out pictures
was larger by 1 to 9 % with each backbone tried.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    Rows = npt.NDArray[np.float32]
    Indices = npt.NDArray[np.intp]
    Targets = npt.NDArray[np.int32]

_FOLDS = 5
_MOST_ROWS = 100_000  # that a head is fitted to: a line gains nothing from more, and memory stays bounded
_SWEPT_ROWS = 5_000  # that regularisation is chosen on, at least _SWEPT_OF_CLASS of each class
_SWEPT_OF_CLASS = 5
_LARGE = 5e8  # rows x features x classes from which on one fold has to do
_ITERATIONS = 300
_WIDE = 64  # classes from which on products are large: two threads share them, and the search takes longer steps
# C is 10 to the power of half of these; it is the variance of the prior on weights, and so needs no change with N.
_FIRST, _LEAST, _MOST = -4, -12, 2
_WORTH = 0.01  # a weaker regularisation must lower the loss by this share of it, and by _WORTH_NATS
_WORTH_NATS = 5e-4


@dataclass(frozen=True, slots=True)
class Tried:
    """One strength of regularisation: C as scikit-learn has it, loss in nats and accuracy on held-out folds."""

    c: float
    loss: float
    accuracy: float


@dataclass(frozen=True)
class Head:
    """A linear classifier of raw features: `features @ kernel + bias` are logits.

    Attributes:
        kernel: float32 [F, K].
        bias: float32 [K].
        c: the strength of regularisation that was chosen; larger is weaker.
        tried: all that were tried, by C; none where too few pictures were there to hold any out.
    """

    kernel: Rows
    bias: Rows
    c: float
    tried: tuple[Tried, ...]

    def of(self, units: int) -> tuple[Rows, Rows]:
        """Kernel and bias for a layer of K units, or of one: the logit of the second of two classes."""
        if units == 1:
            return self.kernel[:, 1:] - self.kernel[:, :1], self.bias[1:] - self.bias[:1]
        return self.kernel, self.bias


def fit_head(
    read: Callable[[Indices], Rows],
    targets: Targets,
    groups: npt.NDArray[np.int32],
    *,
    seed: int = 0,
    balanced: bool = False,
    on_tried: Callable[[Tried], object] = lambda _tried: None,
) -> Head:
    """Fits a head to training pictures; the same pictures and seed give the same head on the same machine.

    Args:
        read: gives the features, float32 [n, F], of the pictures with these indices.
        targets: int32 [N]; every class from 0 to the largest has at least one picture, and there are two or more.
        groups: int32 [N]; near-duplicates share a number, and are held out together.
        seed: of folds and samples.
        balanced: all classes count the same, however many pictures they have.
        on_tried: told of each strength of regularisation.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    rng = np.random.default_rng([seed, 3])
    chosen = _sample(targets, _MOST_ROWS, rng)
    x, y = np.array(read(chosen), np.float32), targets[chosen]
    classes = int(targets.max()) + 1
    centre, scale = _standardise(x)
    swept = _sample(y, max(_SWEPT_ROWS, _SWEPT_OF_CLASS * classes), rng)
    folds = _deal(y[swept], groups[chosen][swept], rng)
    # Products this narrow wait for memory; on a busy machine a second thread made them ten times slower.
    with threadpool_limits(None if classes >= _WIDE else 1):
        tried = _search(x[swept] if len(swept) < len(x) else x, y[swept], folds, balanced, on_tried)
        c = _chosen(tried)
        coefficients, intercept = _fit(_regression(classes, balanced), x, y, c)
    kernel = coefficients / scale
    return Head(kernel.astype(np.float32), (intercept - centre @ kernel).astype(np.float32), c, tried)


def _chosen(tried: tuple[Tried, ...]) -> float:
    """The strongest regularisation that is about as good as the best."""
    if not tried:
        return float(10 ** (_FIRST / 2))
    best = min(one.loss for one in tried)
    return next(one.c for one in tried if one.loss <= best + max(_WORTH_NATS, _WORTH * best))


def _standardise(x: Rows) -> tuple[npt.NDArray[np.float64], float]:
    """Centres and scales rows in place; returns the mean of each feature and what all were divided by."""
    centre = x.mean(axis=0, dtype=np.float64)
    x -= centre.astype(np.float32)
    scale = float(np.sqrt(np.mean(np.einsum("nf,nf->f", x, x, dtype=np.float64) / len(x)))) or 1.0
    x /= np.float32(scale)
    return centre, scale


def _sample(targets: Targets, most: int, rng: np.random.Generator) -> Indices:
    """At most about `most` indices, in order, in the proportions of the classes and with some of each."""
    if len(targets) <= most:
        return np.arange(len(targets), dtype=np.intp)
    order = rng.permutation(len(targets))
    by_class = order[np.argsort(targets[order], kind="stable")]
    sizes = np.bincount(targets)
    rank = np.arange(len(targets)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    share = np.where(rank < _SWEPT_OF_CLASS, -1.0, rank / np.repeat(sizes, sizes))
    return np.sort(by_class[np.argsort(share, kind="stable")[:most]]).astype(np.intp)


def _deal(targets: Targets, groups: npt.NDArray[np.int32], rng: np.random.Generator) -> npt.NDArray[np.intp]:
    """The fold of each picture: groups stay together, and each class is spread over all folds."""
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    classes, order = targets[first], rng.permutation(len(first))
    by_class = order[np.argsort(classes[order], kind="stable")]
    fold = np.empty(len(first), np.intp)
    # Dealt on from class to class, so that small classes do not all lie in the first fold.
    fold[by_class] = np.arange(len(first)) % _FOLDS
    found: npt.NDArray[np.intp] = fold[group]
    return found


def _search(
    x: Rows, y: Targets, folds: npt.NDArray[np.intp], balanced: bool, on_tried: Callable[[Tried], object]
) -> tuple[Tried, ...]:
    """Goes downhill in the loss from a middling C, by half decades or whole ones, as far as it is worth it."""
    classes = int(y.max()) + 1
    splits = list(_splits(y, folds))
    if not splits:
        return ()
    if x.size * float(classes) > _LARGE:
        splits = splits[:1]
    models = [_regression(classes, balanced) for _ in splits]
    tried: dict[int, Tried] = {}

    def loss(half: int) -> float:
        if half not in tried:
            tried[half] = _judge(x, y, splits, models, 10 ** (half / 2), balanced)
            on_tried(tried[half])
        return tried[half].loss

    at, step = _FIRST, 2 if classes >= _WIDE else 1
    while at < _MOST and loss(at) - loss(at + step) > max(_WORTH_NATS, _WORTH * loss(at + step)):
        at += step
    while at <= _FIRST and at > _LEAST and loss(at - step) < loss(at):
        at -= step
    return tuple(tried[half] for half in sorted(tried))


def _splits(y: Targets, folds: npt.NDArray[np.intp]) -> Any:
    """For each fold which pictures teach and which judge; a class that would only judge teaches instead."""
    for fold in range(_FOLDS):
        held = folds == fold
        held &= np.isin(y, y[~held])
        if held.any():
            yield ~held, held


def _judge(x: Rows, y: Targets, splits: list[Any], models: list[Any], c: float, balanced: bool) -> Tried:
    """Loss and accuracy of one C, over all held-out pictures; each model starts from its last fit."""
    weights = _class_weights(y) if balanced else np.ones(int(y.max()) + 1)
    loss = right = total = 0.0
    for (taught, held), model in zip(splits, models, strict=True):
        kernel, bias = _fit(model, x[taught], y[taught], c)
        logits = x[held] @ kernel + bias
        logits -= logits.max(axis=1, keepdims=True)
        own = logits[np.arange(len(logits)), y[held]]
        weight = weights[y[held]]
        loss += float(((np.log(np.exp(logits).sum(axis=1)) - own) * weight).sum())
        right += float(((logits.argmax(axis=1) == y[held]) * weight).sum())
        total += float(weight.sum())
    return Tried(c, loss / total, right / total)


def _regression(classes: int, balanced: bool) -> Any:
    from sklearn.linear_model import LogisticRegression

    # A gradient is the smaller the more classes share it.
    return LogisticRegression(
        max_iter=_ITERATIONS, tol=2e-4 / classes, warm_start=True, class_weight="balanced" if balanced else None
    )


def _fit(model: Any, x: Rows, y: Targets, c: float) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Kernel [F, K] and bias [K] of a logistic regression."""
    with warnings.catch_warnings():
        # A nearly separable set with weak regularisation goes on for ever; it is as good as done before.
        warnings.simplefilter("ignore")
        model.set_params(C=c).fit(x, y)
    kernel, bias = np.asarray(model.coef_.T, np.float64), np.asarray(model.intercept_, np.float64)
    if kernel.shape[1] == 1:  # the logit of the second class
        return np.hstack([-kernel, kernel]) / 2, np.concatenate([-bias, bias]) / 2
    return kernel, bias


def _class_weights(y: Targets) -> npt.NDArray[np.float64]:
    sizes = np.bincount(y)
    return len(y) / (len(sizes) * sizes)
