"""The linear head: as regularised as held-out pictures want it, and a function of raw features."""

from __future__ import annotations

import numpy as np
import pytest

from pigeonholed_training.fitting import probe
from pigeonholed_training.fitting.probe import Head, fit_head


def clouds(count: int, classes: int = 3, size: int = 20, apart: float = 1.0, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Overlapping normal clouds with odd scales and offsets: features float32 [N, F] and targets int32 [N]."""
    rng = np.random.default_rng(seed)
    targets = (np.arange(count) % classes).astype(np.int32)
    centres = np.random.default_rng(99).normal(0, apart, (classes, size))
    x = centres[targets] + rng.normal(0, 1, (count, size))
    return (x * np.linspace(0.1, 3, size) + 10).astype(np.float32), targets


def fit(x: np.ndarray, targets: np.ndarray, groups: np.ndarray | None = None, **how: object) -> Head:
    numbers = np.arange(len(targets), dtype=np.int32) if groups is None else groups
    return fit_head(x.__getitem__, targets, numbers, **how)  # type: ignore[arg-type]


def accuracy(head: Head, x: np.ndarray, targets: np.ndarray) -> float:
    return float(((x @ head.kernel + head.bias).argmax(axis=1) == targets).mean())


@pytest.mark.parametrize("classes", [2, 3, 12])
def test_pictures_never_seen_are_told_apart(classes: int) -> None:
    head = fit(*clouds(600, classes))
    assert head.kernel.shape == (20, classes)
    assert head.kernel.dtype == head.bias.dtype == np.float32
    assert accuracy(head, *clouds(600, classes, seed=1)) > 0.9


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("balanced", [False, True])
def test_no_other_head_has_a_smaller_regularised_loss(classes: int, balanced: bool) -> None:
    """The gradient of the objective, written down anew for raw features, vanishes."""
    x, targets = clouds(300, classes, apart=0.3)
    x, targets = x[: 300 - classes // 2 * 20], targets[: 300 - classes // 2 * 20]
    targets[targets == 1][::2] = 0
    head = fit(x, targets, balanced=balanced)
    scale = np.sqrt(np.mean(x.astype(np.float64).var(axis=0)))
    centred, kernel = (x - x.mean(axis=0)) / scale, head.kernel.astype(np.float64) * scale
    logits = x @ head.kernel.astype(np.float64) + head.bias
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    weight = len(x) / (classes * np.bincount(targets)) if balanced else np.ones(classes)
    error = (probabilities - np.eye(classes)[targets]) * weight[targets][:, None]
    # Two classes have one regularised vector: the difference of the two columns, each of them half of it.
    gradient = centred.T @ error + kernel / head.c * (2 if classes == 2 else 1)
    assert np.abs(gradient).max() < 0.02 * np.abs(centred.T @ np.eye(classes)[targets]).max()
    assert np.abs(error.sum(axis=0)).max() < 0.5


def test_regularisation_is_the_one_that_held_out_pictures_want() -> None:
    few, many = fit(*clouds(60, size=200, apart=0.05)), fit(*clouds(600, size=10, apart=0.7))
    assert few.c < many.c
    for head in (few, many):
        best = min(one.loss for one in head.tried)
        chosen = next(one for one in head.tried if one.c == head.c)
        assert chosen.loss <= best * 1.01 + 5e-4
        assert [one.c for one in head.tried] == sorted(one.c for one in head.tried)
        # Stronger was tried and is worse, weaker was tried and is no better to speak of.
        assert head.tried[0].loss > best
        assert head.tried[-2].loss - head.tried[-1].loss <= head.tried[-1].loss * 0.01 + 5e-4


def test_near_duplicates_are_held_out_together() -> None:
    """Copies of mislabelled pictures would otherwise vouch for each other, and for hardly any regularisation."""
    x, targets = clouds(120, 2, size=60, apart=0.1)
    wrong = np.random.default_rng(2).random(120) < 0.3
    x, targets = np.repeat(x, 5, axis=0), np.repeat(np.where(wrong, 1 - targets, targets), 5).astype(np.int32)
    together = np.repeat(np.arange(120, dtype=np.int32), 5)
    assert fit(x, targets, together).c < 0.1 * fit(x, targets).c


def test_folds_hold_groups_together_and_spread_classes() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(400, dtype=np.int32), 3)
    targets = np.repeat((np.arange(400) % 20).astype(np.int32), 3)
    folds = probe._deal(targets, groups, rng)
    for group in range(400):
        assert len(set(folds[groups == group])) == 1
    for target in range(20):
        assert np.bincount(folds[targets == target], minlength=5).tolist() == [12] * 5


def test_same_pictures_and_seed_give_the_same_head() -> None:
    one, same = fit(*clouds(300), seed=4), fit(*clouds(300), seed=4)
    assert one.tried == same.tried
    assert np.array_equal(one.kernel, same.kernel)
    assert np.array_equal(one.bias, same.bias)


def test_class_of_one_picture_is_a_class() -> None:
    x, targets = clouds(200)
    x, targets = np.vstack([x, x[:1] - 9]), np.append(targets, np.int32(3))
    head = fit(x, targets)
    assert head.kernel.shape == (20, 4)
    assert np.isfinite(head.kernel).all()
    assert accuracy(head, x[-1:], targets[-1:]) == 1


def test_two_pictures_are_enough() -> None:
    x, targets = clouds(2, 2)
    head = fit(x, targets)
    assert head.tried == ()
    assert accuracy(head, x, targets) == 1


def test_rare_class_is_found_more_often_when_classes_are_balanced() -> None:
    x, targets = clouds(2000, 2, apart=0.2)
    keep = (targets == 0) | (np.arange(2000) % 40 == 1)
    test, truth = clouds(500, 2, apart=0.2, seed=7)
    found = [
        ((test @ head.kernel + head.bias).argmax(axis=1) == 1)[truth == 1].mean()
        for head in (fit(x[keep], targets[keep], balanced=balanced) for balanced in (False, True))
    ]
    assert found[1] > found[0] + 0.2


def test_features_that_never_vary_do_no_harm() -> None:
    x, targets = clouds(200)
    x[:, 3] = 0
    head = fit(x, targets)
    assert np.isfinite(head.kernel).all()
    assert accuracy(head, x, targets) > 0.9
    nothing = fit(np.zeros_like(x), targets)
    assert np.isfinite(nothing.kernel).all()


def test_one_unit_is_the_logit_of_the_second_class() -> None:
    x, targets = clouds(200, 2)
    head = fit(x, targets)
    kernel, bias = head.of(1)
    assert (kernel.shape, bias.shape) == ((20, 1), (1,))
    both = x @ head.kernel + head.bias
    assert (x @ kernel + bias)[:, 0] == pytest.approx(both[:, 1] - both[:, 0], abs=1e-3)
    assert head.of(2)[0] is head.kernel


def test_no_more_rows_are_read_than_a_head_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_MOST_ROWS", 100)
    x, targets = clouds(3000)
    targets[:20], targets[20:] = 2, np.arange(2980) % 2
    asked: list[np.ndarray] = []

    def read(indices: np.ndarray) -> np.ndarray:
        asked.append(indices)
        return x[indices]

    fit_head(read, targets, np.arange(3000, dtype=np.int32))
    assert len(asked) == 1
    assert np.bincount(targets[asked[0]]).tolist() == pytest.approx([47, 47, 6], abs=3)


def test_each_strength_is_told_as_it_is_tried() -> None:
    told: list[probe.Tried] = []
    head = fit(*clouds(200), on_tried=told.append)
    assert sorted(told, key=lambda one: one.c) == list(head.tried)
    assert all(0 <= one.accuracy <= 1 for one in told)
