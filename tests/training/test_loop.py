"""Small trainings to the end, interrupted and resumed; TensorFlow is imported here."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pigeonholed.classifying.keras import import_keras
from pigeonholed_training.errors import Misconfigured, TrainingError, Unavailable
from pigeonholed_training.fitting import loop, pace, telling
from pigeonholed_training.fitting.loop import Fitted
from pigeonholed_training.fitting.pace import Pace
from pigeonholed_training.fitting.rehearsal import rehearse
from pigeonholed_training.fitting.tensorboard import board
from tiny_fitting import PLAN, Listener, feed, fitted, judged, network, same, told

pytestmark = [
    pytest.mark.slow,
    # TensorFlow 2.21 with NumPy 2: whenever a variable is read.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]

KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
import numpy as np
import tiny_fitting
save, written = np.savez, []
def dying(path, **arrays):
    written.append(path)
    save(path, **arrays)
    if "0002" in path.name and "best" not in path.name:
        os.truncate(path, 1000)
        os.kill(os.getpid(), signal.SIGKILL)
np.savez = dying
tiny_fitting.fitted(Path(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> tuple[Fitted, Path]:
    folder = tmp_path_factory.mktemp("straight")
    return fitted(folder), folder


def points(folder: Path) -> list[tuple[int, str, float]]:
    """Everything in the event files below `folder`: step, tag and value."""
    import tensorflow as tf

    [path] = folder.glob("events.out.tfevents.*")
    records = [tf.compat.v1.Event.FromString(r.numpy()) for r in tf.data.TFRecordDataset(str(path))]
    assert records[0].file_version == "brain.Event:2"
    return [(event.step, value.tag, value.simple_value) for event in records for value in event.summary.value]


def scripted(*losses: float) -> tuple[Any, list[list[np.ndarray]]]:
    """A judge that gives these validation losses one after the other, and the weights that it was shown."""
    left, shown = list(losses), []

    def judge(model: Any) -> tuple[float, float]:
        shown.append(model.get_weights())
        return left.pop(0), 0.5

    return judge, shown


def test_the_run_folder_tells_the_whole_course(straight: tuple[Fitted, Path]) -> None:
    done, folder = straight
    with open(folder / "history.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert {row["phase"] for row in rows} == {"train"}
    assert [float(row["learning_rate"]) for row in rows] == [epoch.learning_rate for epoch in done.history]
    assert done.history[0].learning_rate > done.history[1].learning_rate > done.history[2].learning_rate > 0
    assert done.history[-1].validation_accuracy == 1.0
    kept = {path.name for path in (folder / "checkpoints").iterdir()}
    assert kept == {"train.json", "train-0003.npz", f"train-best-{done.kept:04d}.npz"}


def test_tensorboard_finds_every_epoch_once(straight: tuple[Fitted, Path]) -> None:
    done, folder = straight
    for name, prefix in (("train", ""), ("validation", "validation_")):
        found = points(folder / "tensorboard" / name)
        for what in ("loss", "accuracy"):
            values = [(step, pytest.approx(value)) for step, tag, value in found if tag == what]
            assert values == [(epoch.epoch, getattr(epoch, prefix + what)) for epoch in done.history]


def test_events_that_cannot_be_written_do_not_end_training(straight: tuple[Fitted, Path], tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("in the way")
    with board(tmp_path / "tensorboard", straight[0].history) as events:
        events.add(straight[0].history[0])
    assert (tmp_path / "tensorboard").read_text() == "in the way"


def test_another_seed_gives_other_weights(straight: tuple[Fitted, Path], tmp_path: Path) -> None:
    assert not same(fitted(tmp_path, seed=1), straight[0])


def test_an_interrupted_training_goes_on_to_the_same_end(
    straight: tuple[Fitted, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        fitted(tmp_path, narrator=Listener(fatal="epoch 1/3  "))
    save = np.savez

    def full(path: Path, **arrays: np.ndarray) -> None:
        save(path, **arrays)
        if "train-0002" in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(Unavailable, match="No space left on device; make room"):
        fitted(tmp_path)
    monkeypatch.setattr(np, "savez", save)
    listener = Listener()
    assert same(fitted(tmp_path, narrator=listener), straight[0])
    assert [line.split("  ")[0] for line in listener.lines] == [
        "Going on after epoch 1 of 3.",
        "epoch 2/3",
        "epoch 3/3",
    ]
    assert [step for step, tag, _ in points(tmp_path / "tensorboard/train") if tag == "loss"] == [1, 2, 3]


def test_a_training_killed_while_it_writes_a_checkpoint_goes_on_to_the_same_end(
    straight: tuple[Fitted, Path], tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED_WHILE_WRITING, str(tmp_path)], env=environment(), capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    listener = Listener()
    assert same(fitted(tmp_path, narrator=listener), straight[0])
    assert listener.lines[0] == "Going on after epoch 1 of 3."
    assert not list((tmp_path / "checkpoints").glob(".*"))


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}


def test_a_finished_training_is_not_trained_again(straight: tuple[Fitted, Path]) -> None:
    listener = Listener()
    history = (straight[1] / "history.csv").read_bytes()
    (straight[1] / "history.csv").unlink()  # as after a kill between checkpoint and history
    assert same(fitted(straight[1], narrator=listener), straight[0])
    assert listener.lines == []
    assert (straight[1] / "history.csv").read_bytes() == history


def test_a_checkpoint_that_does_not_fit_is_told_with_the_way_out(straight: tuple[Fitted, Path], tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="it is of another network"):
        fitted(straight[1], build=lambda: network(3))
    for name in ("train-0003.npz", "train.json"):
        shutil.copytree(straight[1], tmp_path / name)
        (tmp_path / name / "checkpoints" / name).write_bytes(b"{}")
        with pytest.raises(Misconfigured, match=f"Cannot go on from the checkpoint .*{name}.*--fresh"):
            fitted(tmp_path / name)


def test_measuring_for_a_budget_does_not_change_what_is_learnt(straight: tuple[Fitted, Path], tmp_path: Path) -> None:
    assert same(fitted(tmp_path, budget_s=1e6), straight[0])


def test_a_budget_shortens_the_plan_and_the_rate_still_falls_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "measure", lambda *_: Pace(step_s=1000.0, judge_s=0.0))

    def killed(model: Any) -> tuple[float, float]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fitted(tmp_path, judge=killed, budget_s=9500)
    done = fitted(tmp_path)  # without a budget: the plan of the first session stands
    assert json.loads((tmp_path / "checkpoints/train.json").read_text())["steps"] == 9
    assert [epoch.epoch for epoch in done.history] == [1, 2]
    assert done.history[-1].learning_rate < 0.1 * PLAN.learning_rate


def test_where_no_epoch_fits_into_the_budget_it_is_cut_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "measure", lambda *_: Pace(step_s=1e9, judge_s=0.0))
    [epoch] = fitted(tmp_path, budget_s=1.0).history
    assert epoch.learning_rate == PLAN.learning_rate
    assert json.loads((tmp_path / "checkpoints/train.json").read_text())["steps"] == 1


def test_training_that_goes_slower_than_measured_ends_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def slow(model: Any) -> tuple[float, float]:
        now[0] += 40.0
        return judged(model)

    monkeypatch.setattr(pace, "measure", lambda *_: Pace(step_s=1.0, judge_s=1.0))
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: now[0]))
    listener = Listener()
    assert len(fitted(tmp_path, narrator=listener, judge=slow, budget_s=60.0).history) == 1
    assert listener.lines[-1] == "The time budget ends training after epoch 1 of 3."
    assert len(fitted(tmp_path).history) == 1  # and stays so


def test_patience_ends_training_and_the_best_epoch_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = replace(PLAN, epochs=9, patience=2, ema=0.0)
    judge, shown = scripted(0.9, 0.5, 0.6, 0.5, 0.1)
    source, asked = feed(), []
    batches = source.batches
    monkeypatch.setattr(source, "batches", lambda epoch: asked.append(epoch) or batches(epoch))
    with pytest.raises(KeyboardInterrupt):
        fitted(tmp_path, plan, Listener(fatal="epoch 3/9  "), judge=judge, feed=source)
    done = fitted(tmp_path, plan, judge=judge, feed=source)
    assert asked == [1, 2, 3, 4]
    assert (len(done.history), done.kept) == (4, 2)
    assert all(np.array_equal(a, b) for a, b in zip(done.model.get_weights(), shown[1], strict=True))


def test_the_average_of_the_weights_is_judged_and_kept(tmp_path: Path) -> None:
    plan = replace(PLAN, epochs=1, patience=0)
    judge, shown = scripted(0.5, 0.5)
    averaged, plain = (fitted(tmp_path / str(ema), replace(plan, ema=ema), judge=judge) for ema in (0.9, 0.0))
    for done, weights in zip((averaged, plain), shown, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(done.model.get_weights(), weights, strict=True))
    assert told(averaged.history) == told(plain.history)
    assert not same(averaged, plain)


def test_a_loss_that_is_no_number_ends_training_with_advice(tmp_path: Path) -> None:
    plan = replace(PLAN, learning_rate=1e30, optimiser="sgd", clip_norm=0.0, warmup_epochs=0)
    with pytest.raises(TrainingError, match=r"no longer finite.*--set learning_rate=3\.3e\+29 --fresh"):
        fitted(tmp_path, plan)


def test_mixed_precision_ends_in_a_network_of_full_precision(tmp_path: Path) -> None:
    seen = []

    def judge(model: Any) -> tuple[float, float]:
        seen.append(model.layers[2].compute_dtype)
        return judged(model)

    done = fitted(tmp_path, replace(PLAN, epochs=2, precision="mixed_bfloat16"), judge=judge)
    assert set(seen) == {"bfloat16"}
    assert {layer.compute_dtype for layer in done.model.layers} == {"float32"}
    assert import_keras().config.dtype_policy().name == "float32"
    assert done.history[-1].validation_accuracy > 0.9


def test_two_classes_are_learnt_by_one_logit(tmp_path: Path) -> None:
    plan = replace(PLAN, output="sigmoid", epochs=4)
    done = fitted(tmp_path, plan, build=lambda: network(1))
    assert done.model.output_shape == (None, 1)
    assert done.history[-1].validation_accuracy == 1.0
    assert done.history[-1].accuracy > 0.9


def test_a_later_phase_counts_on_and_names_itself(straight: tuple[Fitted, Path], tmp_path: Path) -> None:
    listener = Listener()
    before = straight[0].history[:2]
    done = fitted(tmp_path, replace(PLAN, name="finetune", epochs=1), listener, before=before)
    assert listener.lines[0].startswith("finetune epoch 1/1  ")
    assert [(epoch.epoch, epoch.phase) for epoch in done.history] == [(3, "finetune")]
    with open(tmp_path / "history.csv", newline="") as stream:
        assert [row["phase"] for row in csv.DictReader(stream)] == ["train", "train", "finetune"]
    assert [step for step, tag, _ in points(tmp_path / "tensorboard/train") if tag == "loss"] == [1, 2, 3]


def test_a_rehearsal_estimates_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pace, "measure", lambda *_: Pace(step_s=2.0, judge_s=10.0))
    estimate = rehearse(
        network, feed(), judged, PLAN, seed=0, budget_s=49.0
    )  # a third epoch would need 60; the machine may be busy
    assert (estimate.weights, estimate.trained, estimate.pictures) == (138, 130, 80)
    assert (estimate.epoch_steps, estimate.steps, estimate.epoch_s) == (5, 10, 20.0)
    assert 40 <= estimate.total_s < 42
    assert "2 epochs of 3, for the time budget, about 20 s each" in str(estimate)
    assert estimate.memory_bytes > 1e7
    assert not list(tmp_path.iterdir())


def test_off_a_terminal_a_long_epoch_says_how_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(telling.time, "monotonic", lambda: now[0])
    listener = Listener()
    with telling.telling(listener, "epoch 1/2", 100, 16, later_steps=100, judging_s=60.0) as teller:
        for step in range(1, 8):
            now[0] += 10.0
            teller.tell(step, 0.5, 0.75)
    assert listener.lines == [
        "epoch 1/2  step 3/100  loss 0.5000  accuracy 0.7500  2 pictures/s  34 min left",
        "epoch 1/2  step 6/100  loss 0.5000  accuracy 0.7500  2 pictures/s  33 min left",
    ]
