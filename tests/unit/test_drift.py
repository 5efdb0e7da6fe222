"""Drift: silent on the pictures of training, loud on others, and never mixed up between inboxes and versions."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from pigeonholed.bundle import Input, Manifest, Threshold
from pigeonholed.drift import CHANCE, ENOUGH, HALF_LIFE_IMAGES, HALF_LIFE_S, Drift, Drifts, State
from pigeonholed.images import Prediction
from pigeonholed.reference import LEVELS, Reference

LABELS = ("cat", "dog", "fox")
SHARES = (0.5, 0.3, 0.2)


@dataclass
class Clock:
    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Bench:
    """Drifts whose time is in our hands."""

    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.drifts = Drifts(threading.RLock(), self.clock)

    def of(self, inbox: str = "camera") -> Drift:
        found = self.drifts.of(inbox)
        assert found is not None
        return found

    def feed(self, predictions: Sequence[Prediction], inbox: str = "camera", batch: int = 64) -> None:
        for start in range(0, len(predictions), batch):
            self.drifts.filed(inbox, predictions[start : start + batch])


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.drifts.serve("camera", "pets", 3, manifest())
    return bench


def sample(
    n: int, seed: int, shares: Sequence[float] = SHARES, doubt: float = 0.1, version: int = 3
) -> list[Prediction]:
    """Predictions drawn at random; the larger the doubt (0 to 1), the less sure they are."""
    rng = np.random.default_rng(seed)
    confidences = 1.0 - doubt * rng.random(n) ** 3
    labels = rng.choice(len(LABELS), n, p=shares)
    return [
        Prediction("pets", version, ((LABELS[label], float(confidence)),))
        for label, confidence in zip(labels, confidences, strict=True)
    ]


def reference(predictions: Sequence[Prediction], threshold: float = 0.95) -> Reference:
    confidences = np.array([one.confidence for one in predictions])
    return Reference(
        n=len(predictions),
        labels=tuple(sum(one.label == label for one in predictions) for label in LABELS),
        levels=LEVELS,
        below=tuple(int((confidences < level).sum()) for level in LEVELS),
        unsure=int((confidences < threshold).sum()),
    )


def manifest(n: int = 1000, *, bare: bool = False, threshold: float = 0.95) -> Manifest:
    return Manifest(
        name="pets",
        labels=LABELS,
        input=Input(height=8, width=8),
        output="logits",
        thresholds=tuple(Threshold(label=label, value=threshold, method="best-f1", n=0) for label in LABELS),
        reference=None if bare else reference(sample(n, 0), threshold),
    )


class TestTheSame:
    @pytest.mark.parametrize("n_reference", [60, 300, 5000])
    @pytest.mark.parametrize("n", [250, 1000, 4000])
    def test_pictures_like_those_at_training_are_no_drift_however_often_one_looks(
        self, n_reference: int, n: int
    ) -> None:
        for seed in range(40):
            bench = Bench()
            bench.drifts.serve("camera", "pets", 3, manifest(n_reference))
            bench.feed(sample(n, 1 + seed))
            found = bench.of()
            assert found.state is State.AS_AT_TRAINING
            assert found.labels is not None
            assert found.confidence is not None
            assert found.labels.distance < found.labels.chance, seed
            assert found.confidence.distance < found.confidence.chance, seed

    def test_chance_is_not_exaggerated_so_that_shifts_can_be_seen(self, bench: Bench) -> None:
        bench.feed(sample(4000, 1))
        found = bench.of()
        assert found.labels is not None
        assert found.confidence is not None
        assert 0.02 < found.labels.chance < 0.15
        assert 0.02 < found.confidence.chance < 0.1

    def test_the_very_pictures_of_the_reference_have_no_distance(self) -> None:
        bench = Bench()
        predictions = sample(300, 5)
        bare = manifest().model_copy(update={"reference": reference(predictions)})
        bench.drifts.serve("camera", "pets", 3, bare)
        for _ in range(40):
            bench.feed(predictions, batch=300)
        found = bench.of()
        assert found.labels is not None
        assert found.confidence is not None
        assert found.labels.distance < 0.02
        assert found.confidence.distance < 0.02
        assert found.unsure == pytest.approx(found.unsure_at_training, abs=0.02)


class TestShifts:
    def test_other_shares_of_labels_are_told_with_the_label_that_changed_most(self, bench: Bench) -> None:
        bench.feed(sample(3000, 1, shares=(0.1, 0.3, 0.6)))
        found = bench.of()
        assert found.state is State.SHIFTED
        assert found.labels is not None
        assert found.confidence is not None
        assert found.labels.shifted
        assert not found.confidence.shifted
        assert found.labels.distance == pytest.approx(0.4, abs=0.05)
        assert (found.labels.at, round(found.labels.now, 1), round(found.labels.at_training, 1)) in {
            ("fox", 0.6, 0.2), ("cat", 0.1, 0.5)
        }  # fmt: skip

    def test_a_model_that_has_become_less_sure_is_told_with_the_level_that_shows_it(self, bench: Bench) -> None:
        bench.feed(sample(3000, 1, doubt=0.6))
        found = bench.of()
        assert found.confidence is not None
        assert found.labels is not None
        assert found.confidence.shifted
        assert not found.labels.shifted
        level = float(found.confidence.at)
        assert found.confidence.now - found.confidence.at_training == pytest.approx(found.confidence.distance)
        assert found.confidence.now == pytest.approx(np.mean(
            [one.confidence < level for one in sample(3000, 1, doubt=0.6)]
        ), abs=0.05)  # fmt: skip
        assert found.unsure is not None
        assert found.unsure_at_training is not None
        assert found.unsure > found.unsure_at_training + 0.1

    def test_a_model_that_has_become_surer_is_no_shift(self, bench: Bench) -> None:
        bench.feed(sample(3000, 1, doubt=0.001))
        assert bench.of().state is State.AS_AT_TRAINING

    def test_a_shift_too_small_to_matter_is_none_however_certain(self) -> None:
        bench = Bench()
        exact = Reference(
            n=1_000_000, labels=(500_000, 300_000, 200_000), levels=LEVELS, below=(0,) * len(LEVELS), unsure=0
        )
        bench.drifts.serve("camera", "pets", 3, manifest().model_copy(update={"reference": exact}))
        bench.feed(sample(6000, 1, shares=(0.42, 0.3, 0.28), doubt=0.0))
        found = bench.of()
        assert found.labels is not None
        assert found.labels.distance == pytest.approx(0.08, abs=0.03)
        assert found.state is State.AS_AT_TRAINING

    def test_it_is_forgotten_after_some_half_lives(self, bench: Bench) -> None:
        bench.feed(sample(2000, 1, shares=(0.0, 0.0, 1.0)))
        assert bench.of().state is State.SHIFTED
        bench.feed(sample(5 * HALF_LIFE_IMAGES, 2))
        assert bench.of().state is State.AS_AT_TRAINING


class TestTheWindow:
    def test_nothing_is_said_of_too_few(self, bench: Bench) -> None:
        bench.feed(sample(100, 1, shares=(0.0, 0.0, 1.0)))
        found = bench.of()
        assert (found.state, found.labels, found.confidence, found.unsure) == (State.TOO_FEW, None, None, None)
        assert 90 <= found.images <= 100

    def test_a_picture_counts_half_after_a_thousand_others_whatever_the_batches(self) -> None:
        totals = []
        for batch in (1, 64, 1000):
            bench = Bench()
            bench.drifts.serve("camera", "pets", 3, manifest())
            bench.feed(sample(HALF_LIFE_IMAGES, 1), batch=batch)
            totals.append(bench.of().images)
        # The sum of 2^(-i / 1000) over i = 0 .. 999.
        assert totals == [pytest.approx(0.5 / (1 - 0.5**0.001), abs=1)] * 3

    def test_it_says_what_the_weights_of_all_pictures_say_one_by_one(self, bench: Bench) -> None:
        """Some confidences are exactly at a level or at the threshold: those are not below it."""
        predictions = [
            Prediction("pets", 3, ((one.label, (0.9, 0.95, one.confidence)[index % 3]),))
            for index, one in enumerate(sample(700, 3, doubt=0.4))
        ]
        bench.feed(predictions[:350], batch=7)
        bench.clock.now_s += HALF_LIFE_S / 2
        bench.feed(predictions[350:], batch=50)
        bench.clock.now_s += HALF_LIFE_S / 4
        weights = 0.5 ** (np.arange(699, -1, -1) / HALF_LIFE_IMAGES)
        weights[:350] *= 0.5**0.5
        shares = weights / weights.sum()
        confidences = np.array([one.confidence for one in predictions])
        found, expected = bench.of(), manifest().reference
        assert found.labels is not None
        assert found.confidence is not None
        assert expected is not None
        assert found.images == round(weights.sum() * 0.5**0.25)
        assert found.unsure == pytest.approx(shares[confidences < 0.95].sum())
        now = np.array([shares[[one.label == label for one in predictions]].sum() for label in LABELS])
        assert found.labels.distance == pytest.approx(np.abs(now - np.array(expected.labels) / 1000).sum() / 2)
        falls = [shares[confidences < level].sum() - n / 1000 for level, n in zip(LEVELS, expected.below, strict=True)]
        assert found.confidence.distance == pytest.approx(max(falls))
        assert found.confidence.at == f"{LEVELS[int(np.argmax(falls))]:g}"
        variance = (shares**2).sum() + 1 / 1000
        assert found.confidence.chance == pytest.approx(np.sqrt(np.log(1 / CHANCE) / 2 * variance))
        together = (now + np.array(expected.labels) / 1000) / 2
        mean = np.sqrt(together * (1 - together) * variance).sum() / 2
        assert found.labels.chance == pytest.approx(mean + found.confidence.chance)

    def test_what_is_old_fades_until_nothing_is_said_any_more(self, bench: Bench) -> None:
        bench.feed(sample(3000, 1, shares=(0.0, 0.0, 1.0)))
        images = bench.of().images
        bench.clock.now_s += HALF_LIFE_S
        assert bench.of().images == pytest.approx(images / 2, abs=1)
        assert bench.of().state is State.SHIFTED
        bench.clock.now_s += 3 * HALF_LIFE_S
        assert bench.of().state is State.TOO_FEW

    def test_memory_and_numbers_stay_in_bounds_for_ever(self, bench: Bench) -> None:
        for seed in range(50):
            bench.feed(sample(4000, seed), batch=4000)
            bench.clock.now_s += 60.0
        assert bench.of().images <= 1 / (1 - 0.5 ** (1 / HALF_LIFE_IMAGES)) + 1

    def test_a_batch_costs_little(self, bench: Bench) -> None:
        predictions = sample(64, 1)
        bench.feed(predictions)
        started_s = time.perf_counter()
        for _ in range(500):
            bench.drifts.filed("camera", predictions)
        per_picture_s = (time.perf_counter() - started_s) / 500 / 64
        assert per_picture_s < 50e-6  # about 2 microseconds on an idle machine


class TestWhose:
    def test_another_version_begins_anew_and_what_the_old_one_said_is_passed_over(self, bench: Bench) -> None:
        bench.feed(sample(3000, 1, shares=(0.0, 0.0, 1.0)))
        bench.drifts.serve("camera", "pets", 4, manifest())
        bench.feed(sample(500, 1))  # they were in flight
        assert (bench.of().state, bench.of().images) == (State.TOO_FEW, 0)
        bench.feed(sample(1000, 1, version=4))
        assert bench.of().state is State.AS_AT_TRAINING

    def test_the_same_version_served_again_goes_on(self, bench: Bench) -> None:
        bench.feed(sample(1000, 1))
        before = bench.of()
        bench.drifts.serve("camera", "pets", 3, manifest())
        assert bench.of() == before

    def test_a_label_that_the_version_has_not_is_passed_over(self, bench: Bench) -> None:
        bench.feed([Prediction("pets", 3, (("wolf", 0.9),))] * 300)
        assert bench.of().images == 0

    def test_inboxes_do_not_mix(self, bench: Bench) -> None:
        bench.drifts.serve("phone", "pets", 3, manifest())
        bench.feed(sample(3000, 1, shares=(0.0, 0.0, 1.0)), inbox="phone")
        bench.feed(sample(3000, 1))
        assert (bench.of("phone").state, bench.of().state) == (State.SHIFTED, State.AS_AT_TRAINING)

    def test_a_model_without_a_reference_only_tells_its_unsure_share(self) -> None:
        bench = Bench()
        bench.drifts.serve("camera", "pets", 3, manifest(bare=True))
        assert (bench.of().state, bench.of().unsure) == (State.NO_REFERENCE, None)
        bench.feed([Prediction("pets", 3, (("cat", 0.9),)), Prediction("pets", 3, (("cat", 0.96),))] * 2 * ENOUGH)
        found = bench.of()
        assert found.unsure == pytest.approx(0.5, abs=0.001)
        assert (found.state, found.labels, found.confidence) == (State.NO_REFERENCE, None, None)

    def test_an_inbox_that_nothing_serves_has_none(self, bench: Bench) -> None:
        bench.drifts.filed("nobody", sample(300, 1))
        assert bench.drifts.of("nobody") is None

    def test_several_threads_lose_no_picture(self, bench: Bench) -> None:
        def feed(seed: int) -> None:
            for predictions in (sample(50, seed + step) for step in range(20)):
                bench.drifts.filed("camera", predictions)
                assert bench.drifts.of("camera") is not None

        threads = [threading.Thread(target=feed, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        # Of 4,000 pictures in batches, by weight.
        decay = 0.5 ** (1 / HALF_LIFE_IMAGES)
        assert bench.of().images == pytest.approx((1 - decay**4000) / (1 - decay), abs=1)
