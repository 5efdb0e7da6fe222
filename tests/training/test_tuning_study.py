"""The memory of a search: what it tries, what it forgets, what a kill does to it. No network is trained."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from pigeonholed_training.errors import Misconfigured, Unavailable
from pigeonholed_training.fitting.plan import Epoch
from pigeonholed_training.recipes import find
from pigeonholed_training.tuning import study as study_module
from pigeonholed_training.tuning.space import Space, space
from pigeonholed_training.tuning.study import Attempt, Pruned, Study, require_optuna
from pigeonholed_training.tuning.trial import Trial, best

SPACE = space(find("cifar"))
CHOICES = space(find("probe"), has_weights=True, backbones=("vgg16", "resnet50"))


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., Study]:
    def call(name: str = "tune.db", found: Space = SPACE, seed: int = 0, warmup: int = 2) -> Study:
        return Study(tmp_path / name, found, seed, warmup)

    return call


def epoch(number: int, loss: float) -> Epoch:
    return Epoch(number, loss, 0.5, loss, 0.5, 1.0)


def loss_of(attempt: Attempt) -> float:
    """As if the rate were all that mattered."""
    return abs(float(attempt.values["learning_rate"]) - 0.004) * 100


def tried(study: Study, count: int) -> tuple[Trial, ...]:
    """Trials of one epoch, until there are `count`."""
    while len(study.trials()) < count:
        attempt = study.ask()
        attempt.done(loss_of(attempt), 0.9, 1.5)
    return study.trials()


def test_the_first_trial_is_the_recipe_as_it_is(opened) -> None:
    with opened() as study:
        first = tried(study, 1)[0]
        assert (first.number, first.values) == (1, {one.name: one.own for one in SPACE})
        assert (first.ended, first.accuracy, first.seconds) == ("done", 0.9, 1.5)


def test_later_trials_differ_and_close_in_on_what_is_good(opened) -> None:
    with opened() as study:
        trials = tried(study, 24)
    rates = [float(trial.values["learning_rate"]) for trial in trials]
    assert len(set(rates)) > 20
    off = [abs(rate - 0.004) for rate in rates]
    assert sum(off[16:]) < sum(off[1:9])


def test_the_same_seed_searches_the_same_way_and_another_does_not(opened) -> None:
    with opened("a.db") as one, opened("b.db") as other, opened("c.db", seed=1) as third:
        first = tried(one, 10)
        assert first == tried(other, 10)
        assert first[1].values != tried(third, 2)[1].values


def test_a_search_that_is_killed_again_and_again_tries_the_same(opened) -> None:
    with opened("straight.db") as study:
        straight = tried(study, 10)
    for count in (0, 1, 7, 9):  # before the first; among random ones; when the sampler goes by what it saw
        with opened("killed.db") as study:
            tried(study, count)
            study.ask()  # and killed before it came to anything
    with opened("killed.db") as study:
        assert tried(study, 10) == straight


def test_a_trial_that_was_killed_is_the_next_one_with_the_same_values(opened) -> None:
    with opened() as study:
        tried(study, 3)
        values = study.ask().values
    with opened() as study:
        again = study.ask()
        assert (again.number, again.values) == (4, values)


def test_a_trial_that_kills_whoever_tries_it_is_given_up(opened) -> None:
    with opened() as study:
        tried(study, 1)
    for _ in range(3):
        with opened() as study:
            deadly = study.ask().values
    with opened() as study:
        last = study.trials()[-1]
        assert (last.number, last.values, last.ended, last.loss) == (2, deadly, "broke-down", None)
        assert study.ask().values != deadly


def test_a_trial_that_the_user_interrupts_is_never_given_up(opened) -> None:
    for _ in range(5):
        with opened() as study:
            attempt = study.ask()
            attempt.put_back()
            assert (attempt.number, study.trials()) == (1, ())


def test_a_trial_worse_than_most_is_pruned_once_it_had_time(opened) -> None:
    with opened(warmup=2) as study:
        for _ in range(4):
            attempt = study.ask()
            for number in (1, 2, 3, 4):
                attempt.saw(epoch(number, 0.5 / number), is_last=number == 4)
            attempt.done(0.125, 0.9, 1.0)
        bad = study.ask()
        bad.saw(epoch(1, 9.0))
        with pytest.raises(Pruned):
            bad.saw(epoch(2, 8.0))
        bad.gave_up("pruned", 1.0)
        late = study.ask()
        late.saw(epoch(1, 0.5))
        late.saw(epoch(4, 0.5), is_last=True)


def test_the_first_trials_are_never_pruned(opened) -> None:
    with opened(warmup=1) as study:
        for number in range(4):
            attempt = study.ask()
            attempt.saw(epoch(1, 1.0 + number))
            attempt.done(1.0 + number, 0.5, 1.0)


def test_what_was_pruned_has_no_loss_and_is_never_the_best(opened) -> None:
    with opened() as study:
        tried(study, 1)
        attempt = study.ask()
        attempt.saw(epoch(1, 1e-6))
        attempt.gave_up("pruned", 1.0)
        pruned = study.trials()[1]
        assert (pruned.loss, pruned.losses) == (None, (1e-6,))
        assert best(study.trials()) == study.trials()[0]


def test_where_there_are_only_choices_each_is_tried_once(opened) -> None:
    with opened(found=CHOICES) as study:
        assert study.most == 3
        seen = []
        for number in range(3):
            attempt = study.ask()
            seen.append(attempt.values["backbone"])
            attempt.done(1.0 - number, 0.5, 1.0)
        assert sorted(seen) == ["mobilenet-v2", "resnet50", "vgg16"]
        assert seen[0] == "mobilenet-v2"


def test_importances_need_some_trials_and_are_shares(opened) -> None:
    with opened() as study:
        tried(study, 3)
        assert study.importances() is None
        tried(study, 12)
        found = study.importances()
        assert found is not None
        assert set(found) == {one.name for one in SPACE}
        assert sum(found.values()) == pytest.approx(1.0, abs=0.01)
        assert max(found, key=found.__getitem__) == "learning_rate"


def test_a_damaged_file_is_one_sentence_with_the_way_out(opened, tmp_path: Path) -> None:
    (tmp_path / "tune.db").write_bytes(b"no database" * 100)
    with pytest.raises(Misconfigured, match=r"Cannot read .*tune\.db: .*--fresh"):
        opened()


def test_a_file_that_another_process_holds_is_told(opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened() as study:
        study.trials()
    holder = sqlite3.connect(tmp_path / "tune.db")
    holder.execute("BEGIN EXCLUSIVE")
    connect = sqlite3.dbapi2.connect
    monkeypatch.setattr(sqlite3.dbapi2, "connect", lambda *a, **k: connect(*a, **(k | {"timeout": 0.0})))
    try:
        with pytest.raises(Unavailable, match="locked"):
            opened()
    finally:
        holder.close()


def test_a_folder_of_any_name_holds_a_search(opened, tmp_path: Path) -> None:
    (tmp_path / "50 % ? #1").mkdir()
    with opened("50 % ? #1/tune.db") as study:
        tried(study, 1)
    assert (tmp_path / "50 % ? #1/tune.db").stat().st_size > 0


def test_a_missing_library_is_told_with_the_way_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    require_optuna()
    monkeypatch.setattr(study_module.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(Unavailable, match=r"optuna is not installed; .*pigeonholed\[train\]"):
        require_optuna()
