"""A search from the outside: on tiny pictures, through real trainings where that is the point."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner

from pigeonholed_training import session
from pigeonholed_training.commands.tune import tune
from pigeonholed_training.errors import Misconfigured, TrainingError, Unavailable, WrongUsage
from pigeonholed_training.fitting import course
from pigeonholed_training.fitting.course import Made
from pigeonholed_training.fitting.plan import Epoch
from pigeonholed_training.recipes import Recipe, find, override
from pigeonholed_training.runs import RunFolder
from pigeonholed_training.tuning import picture, search
from tiny_fitting import Listener, fitted
from tiny_pictures import make_data_set, write_picture

pytestmark = [
    pytest.mark.slow,
    # TensorFlow 2.21 with NumPy 2: whenever a variable is read.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]

SET = ("height=8", "width=8", "epochs=2", "batch_size=16")
ROOT = Path(__file__).resolve().parents[2]


def an_order(
    data: Path, runs: Path, *, trials: int = 3, changes: tuple[str, ...] = SET, **training: Any
) -> search.Order:
    recipe = override(find("digits"), changes)
    asked = session.Order(data, recipe, "tiny", runs, cache=data.parent / "cache", **training)
    return search.Order(asked, "digits", find("digits"), search.named(recipe, changes), trials)


class Searched(NamedTuple):
    order: search.Order
    found: dict[str, Any]
    lines: list[str]
    files: set[str]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data_set(tmp_path_factory.mktemp("pictures") / "data", 30)


@pytest.fixture(scope="module")
def searched(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Searched:
    order, listener = an_order(data, tmp_path_factory.mktemp("runs")), Listener()
    found = search.carry_out(order, listener)
    return Searched(order, found, listener.lines, {path.name for path in order.path.iterdir()})


@pytest.fixture
def losses(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Trainings that learn nothing: each takes the next entry, its validation losses epoch by epoch, or a fault."""
    waiting: list[Any] = []

    def run(
        job: Any, folder: Any, narrator: Any, *, budget_s: float | None, on_epoch: Callable[[Epoch], object]
    ) -> Made:
        planned = waiting.pop(0)
        if isinstance(planned, BaseException):
            raise planned
        history = tuple(Epoch(number, 1.0, 0.5, loss, 0.5, 1.0) for number, loss in enumerate(planned, start=1))
        for epoch in history:
            on_epoch(epoch)
        return Made(None, history)

    monkeypatch.setattr(course, "run", run)
    monkeypatch.setattr(picture, "draw", lambda _found, path: path.write_bytes(b"a picture"))
    yield waiting
    assert not waiting


def trained(order: session.Order, folder: Path) -> tuple[Epoch, ...]:
    """The epochs of a training as `train` does it."""
    run = RunFolder(folder)
    with run.claim():
        return course.run(session.prepare(order, Listener()), run, Listener()).history


def without_times(trials: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in trial.items() if key != "seconds"} for trial in trials]


def test_the_folder_has_recipe_picture_and_everything_else_and_no_trial(searched: Searched) -> None:
    assert searched.files == {
        *("best.toml", "search.png", "tune.json", "tune.db", "settings.json", ".lock"),
    }
    assert (searched.order.path / "search.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((searched.order.path / "tune.json").read_text()) == searched.found


def test_each_trial_is_told_in_a_line(searched: Searched) -> None:
    said = [line for line in searched.lines if line.startswith("trial ")]
    assert len(said) == 3
    assert said[0].startswith("trial 1/3  validation loss ")
    assert said[0].endswith("left: the recipe as it is")
    assert "learning_rate" in said[1]
    assert not any(line.startswith("epoch ") for line in searched.lines)


def test_the_first_trial_is_what_training_makes_of_the_recipe(searched: Searched, tmp_path: Path) -> None:
    history = trained(searched.order.training, tmp_path)
    first = searched.found["trials"][0]
    assert first["losses"] == [epoch.validation_loss for epoch in history]
    assert (first["loss"], first["accuracy"]) == (history[-1].validation_loss, history[-1].validation_accuracy)


def test_the_best_is_not_worse_than_the_recipe_and_trains_to_its_loss(searched: Searched, tmp_path: Path) -> None:
    trials, best = searched.found["trials"], searched.found["best"]
    assert trials[best - 1]["loss"] == min(trial["loss"] for trial in trials if trial["loss"] is not None)
    recipe = find(str(searched.order.path / "best.toml"))
    history = trained(dataclasses.replace(searched.order.training, recipe=recipe), tmp_path)
    assert history[-1].validation_loss == trials[best - 1]["loss"]


def test_a_finished_search_trains_nothing_and_goes_on_with_more_trials(searched: Searched, losses: list[Any]) -> None:
    assert search.carry_out(searched.order, Listener()) == searched.found
    losses.append([0.5, 1e-9])
    listener = Listener()
    more = search.carry_out(dataclasses.replace(searched.order, trials=4), listener)
    assert without_times(more["trials"][:3]) == without_times(searched.found["trials"])
    assert more["best"] == 4
    assert any(line.startswith("Going on after 3 trials; the best so far is trial") for line in listener.lines)


def test_a_search_interrupted_within_a_trial_comes_to_the_same_trials(
    searched: Searched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order, real = an_order(searched.order.training.data, tmp_path), course.run

    def run(*arguments: Any, on_epoch: Callable[[Epoch], object], **others: Any) -> Made:
        def interrupted(epoch: Epoch) -> None:
            on_epoch(epoch)
            if (order.path / "tune.json").exists():  # the first trial has ended
                raise KeyboardInterrupt

        return real(*arguments, on_epoch=interrupted, **others)

    monkeypatch.setattr(course, "run", run)
    with pytest.raises(KeyboardInterrupt):
        search.carry_out(order, Listener())
    monkeypatch.undo()
    assert len(json.loads((order.path / "tune.json").read_text())["trials"]) == 1
    found = search.carry_out(order, Listener())
    assert without_times(found["trials"]) == without_times(searched.found["trials"])


def test_a_search_killed_within_a_trial_comes_to_the_same_trials(searched: Searched, tmp_path: Path) -> None:
    order = an_order(searched.order.training.data, tmp_path)
    words = ["tune", str(order.training.data), "--recipe", "digits", "--name", "tiny", "--runs", str(tmp_path)]
    words += ["--trials", "3", *(word for change in SET for word in ("--set", change))]
    program = "import sys; from pigeonholed_training.commands.tune import tune; tune(sys.argv[2:])"
    process = subprocess.Popen([sys.executable, "-c", program, *words], stderr=subprocess.DEVNULL, cwd=ROOT)
    try:
        log, checkpoints = order.path / "tune.log", order.path / "trial/checkpoints"
        wait_for(process, lambda: log.is_file() and "trial 1/3" in log.read_text() and any(checkpoints.glob("*.npz")))
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    assert (order.path / "best.toml").is_file()
    listener = Listener()
    found = search.carry_out(order, listener)
    assert any(line.startswith("Going on after ") for line in listener.lines)
    assert not any(line.startswith("trial 1/3") for line in listener.lines)
    assert without_times(found["trials"]) == without_times(searched.found["trials"])
    assert not (order.path / "trial").exists()


def wait_for(process: subprocess.Popen[bytes], happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not happened():
        assert process.poll() is None, "the search ended before it could be killed"
        assert time.monotonic() < deadline, "no trial came to its first checkpoint"
        os.sched_yield()


def test_a_trial_that_falls_behind_is_pruned(data: Path, tmp_path: Path, losses: list[Any]) -> None:
    losses += [[0.9, 0.5, 0.3]] * 4 + [[0.9, 0.8, 0.1]]
    order = an_order(data, tmp_path, trials=5, changes=(*SET, "epochs=3"))
    listener = Listener()
    last = search.carry_out(order, listener)["trials"][-1]
    assert (last["ended"], last["loss"], last["losses"]) == ("pruned", None, [0.9, 0.8])
    assert any("trial 5/5  pruned after epoch 2 at validation loss 0.8000" in line for line in listener.lines)


def test_settings_that_break_down_cost_one_trial(data: Path, tmp_path: Path, losses: list[Any]) -> None:
    losses += [[0.5, 0.4], TrainingError("the loss is no longer finite"), [0.5, 0.3]]
    found = search.carry_out(an_order(data, tmp_path), Listener())
    assert [trial["ended"] for trial in found["trials"]] == ["done", "broke-down", "done"]
    assert found["best"] == 3


def test_a_full_disk_ends_the_search_and_keeps_what_was_done(data: Path, tmp_path: Path, losses: list[Any]) -> None:
    losses += [[0.5, 0.4], Unavailable("no space left"), [0.5, 0.3], [0.5, 0.2]]
    order = an_order(data, tmp_path)
    with pytest.raises(Unavailable):
        search.carry_out(order, Listener())
    found = search.carry_out(order, Listener())
    assert [trial["loss"] for trial in found["trials"]] == [0.4, 0.3, 0.2]


def test_with_patience_the_loss_of_the_best_epoch_counts(data: Path, tmp_path: Path, losses: list[Any]) -> None:
    losses += [[0.2, 0.4]]
    assert search.carry_out(an_order(data, tmp_path, trials=1), Listener())["trials"][0]["loss"] == 0.4
    losses += [[0.2, 0.4]]
    patient = an_order(data, tmp_path / "other", trials=1, changes=(*SET, "patience=3"))
    assert search.carry_out(patient, Listener())["trials"][0]["loss"] == 0.2


def test_no_trial_is_begun_that_would_not_fit_into_the_time(data: Path, tmp_path: Path, losses: list[Any]) -> None:
    losses += [[0.5, 0.4]]
    listener = Listener()
    found = search.carry_out(an_order(data, tmp_path, budget_s=1e-6), listener)
    assert len(found["trials"]) == 1
    assert any(line.startswith("The time budget ends the search: another trial would take") for line in listener.lines)


def test_other_settings_in_the_same_folder_are_refused(data: Path, tmp_path: Path, losses: list[Any]) -> None:
    losses += [[0.5, 0.4]]
    search.carry_out(an_order(data, tmp_path, trials=1), Listener())
    for order, what in (
        (an_order(data, tmp_path, seed=1), "seed"),
        (an_order(data, tmp_path, changes=(*SET, "learning_rate=0.01")), "recipe, what is searched"),
        (an_order(data, tmp_path, changes=(*SET, "learning_rate=0.003")), "what is searched"),
    ):
        with pytest.raises(Misconfigured, match=rf"a search with other settings \({what}\).*--fresh"):
            search.carry_out(order, Listener())
    more = make_data_set(tmp_path / "data", 30)
    write_picture(more / "red/new.png", "red", 1000)
    with pytest.raises(Misconfigured, match=r"\(the pictures\)"):
        search.carry_out(an_order(more, tmp_path), Listener())
    losses += [[0.5, 0.2]]
    assert (
        search.carry_out(an_order(data, tmp_path, trials=1, seed=1, fresh=True), Listener())["trials"][0]["loss"] == 0.2
    )


def test_the_folder_of_a_training_is_refused(data: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny/settings.json").write_text('{"seed": 0}')
    with pytest.raises(Misconfigured, match="it holds a training"):
        search.carry_out(an_order(data, tmp_path), Listener())


@pytest.mark.parametrize(
    ("recipe", "pinned", "words"),
    [("probe", (), "chooses its regularisation itself"), ("cifar", None, "--set pins all")],
)
def test_nothing_to_tune_is_told(recipe: str, pinned: Any, words: str) -> None:
    class Job(NamedTuple):
        recipe: Recipe
        weights: Any

    class Weights(NamedTuple):
        path: Path | None
        given: str = "a file"

    chosen = find(recipe)
    job = Job(chosen, Weights(Path("w.h5") if recipe == "probe" else None))
    keys = ("learning_rate", "weight_decay", "batch_size", "label_smoothing", "network.layers")
    asked = session.Order(Path("data"), chosen, "x", Path("runs"))
    order = search.Order(asked, recipe, chosen, frozenset(keys if pinned is None else pinned))
    with pytest.raises(WrongUsage, match=f"There is nothing to tune.*{words}"):
        search._space(order, job)  # type: ignore[arg-type]


def test_the_command_prints_the_result_and_what_comes_next(
    data: Path, tmp_path: Path, losses: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    losses += [[0.5, 0.4], [0.5, 0.3]]
    monkeypatch.chdir(tmp_path)
    words = [str(data), "--recipe", "digits", "--name", "x", "--set", "height=8", "--set", "width=8", "--epochs", "2"]
    said = CliRunner().invoke(tune, [*words, "--trials", "2", "--seed", "3"])
    assert said.exit_code == 0, said.output
    assert "Best is trial 2 of 2, learning_rate" in said.stdout
    assert "Validation loss 0.3000, 50.0 % of" in said.stdout
    line = next(line for line in said.stdout.splitlines() if line.startswith("Next: "))
    assert line.endswith("--recipe runs/x/best.toml --name x-best --seed 3")
    assert find("runs/x/best.toml").epochs == 2
    as_json = CliRunner().invoke(tune, [*words, "--trials", "2", "--seed", "3", "--json"])
    assert json.loads(as_json.stdout)["best"] == 2


def test_what_is_left_of_another_trial_is_not_gone_on_with(tmp_path: Path) -> None:
    class Job(NamedTuple):
        rate: float

        def identity(self) -> dict[str, Any]:
            return {"rate": self.rate}

    folder = RunFolder(tmp_path)
    for rate, is_kept in ((0.1, False), (0.1, True), (0.2, False)):
        search._take_over(folder, Job(rate))  # type: ignore[arg-type]
        assert (tmp_path / "history.csv").exists() == is_kept
        (tmp_path / "history.csv").write_text("epochs")
    (tmp_path / "settings.json").write_text("{")
    search._take_over(folder, Job(0.2))  # type: ignore[arg-type]
    assert not (tmp_path / "history.csv").exists()


def test_a_training_tells_of_its_epochs_and_of_those_before_a_kill(tmp_path: Path) -> None:
    seen: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        fitted(tmp_path, narrator=Listener(fatal="epoch 2/3"), on_epoch=lambda epoch: seen.append(epoch.epoch))
    assert seen == [1]
    fitted(tmp_path, on_epoch=lambda epoch: seen.append(epoch.epoch))
    assert seen == [1, 1, 2, 3]
