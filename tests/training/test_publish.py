"""A publish either puts a whole version into the store or leaves it as it was."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from bundles import make_bundle
from helpers import Tree, read_tree
from pigeonholed.commands import models as daemon_models
from pigeonholed.store import ModelStore
from pigeonholed_training import publishing, releasing
from pigeonholed_training.commands.publish import publish
from pigeonholed_training.errors import Misconfigured, TrainingError, Unavailable
from pigeonholed_training.evaluation.record import PREDICTIONS
from pigeonholed_training.gates import Wanted
from pigeonholed_training.reporting import page
from tiny_pictures import make_data_set, write_picture
from tiny_runs import make_run

SWAPPED = ("blue", "red")  # a network that is wrong of every picture


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data_set(tmp_path_factory.mktemp("pictures") / "data", 40, ("red", "blue"))


@pytest.fixture
def models(tmp_path: Path, data: Path) -> Path:
    """A store with a live version 1 of `tiny`, which was right of 36 of its 40 pictures."""
    live = make_run(tmp_path / "live/tiny", data, wrong=range(20, 22))
    ModelStore(tmp_path / "models").publish("tiny", live / "bundle")
    return tmp_path / "models"


def release(run: Path, models: Path, wanted: Wanted | None = None, **more: Any) -> releasing.Release:
    return releasing.release(run, "tiny", models, wanted or Wanted(), **more)


def refused(run: Path, models: Path, wanted: Wanted | None = None) -> str:
    """Why it is not published; the store is as it was."""
    before = tree_of(models)
    with pytest.raises(TrainingError) as caught:
        release(run, models, wanted)
    assert caught.value.exit_code == 1
    assert tree_of(models) == before
    return str(caught.value)


def tree_of(models: Path) -> Tree | None:
    return read_tree(models) if models.exists() else None


def metrics_of(models: Path, version: int) -> Any:
    return json.loads((models / f"tiny/{version}/metrics.json").read_bytes())


def test_a_better_model_is_published_with_its_gates(models: Path, data: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "tiny", data)
    report = page.render(json.loads((run / "metrics.json").read_bytes()))
    (run / "bundle/report.html").write_text(report)
    before = read_tree(run)
    done = release(run, models, Wanted(min_accuracy=1.0))
    assert done.bundle.version == 2
    assert [gate.gate for gate in done.gates] == ["minimum accuracy", "not worse than the live version"]
    assert metrics_of(models, 2)["gates"] == [gate.as_dict() for gate in done.gates]
    published = (models / "tiny/2/report.html").read_text()
    assert all(escape(gate.says) in published and escape(gate.says) not in report for gate in done.gates)
    assert "is right on 4 more of 40 pictures than tiny/1" in done.gates[1].says
    assert read_tree(run) == before


def test_the_first_version_has_nothing_to_be_worse_than(data: Path, tmp_path: Path) -> None:
    done = release(make_run(tmp_path / "tiny", data, wrong=range(20, 40)), tmp_path / "models")
    assert (done.bundle.version, done.gates) == (1, ())
    assert metrics_of(tmp_path / "models", 1)["gates"] == []


@pytest.mark.parametrize("wanted", [Wanted(min_accuracy=0.96), Wanted(min_macro_f1=0.8), Wanted(0.96, force=True)])
def test_below_the_users_numbers_nothing_is_published(models: Path, data: Path, tmp_path: Path, wanted: Wanted) -> None:
    run = make_run(tmp_path / "tiny", data, wrong=[20])
    assert "was asked for" in refused(run, models, wanted)
    refused(run, tmp_path / "new", wanted)  # not even the folder of a store


def test_every_gate_that_is_shut_is_told_at_once(models: Path, data: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "tiny", data, wrong=range(20, 30))
    said = refused(run, models, Wanted(0.9, 0.9))
    assert said.count("was asked for") == 2
    assert "is right on 16 fewer of 40 pictures than tiny/1" in said


def test_a_worse_model_is_refused_unless_forced(models: Path, data: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "tiny", data, wrong=range(20, 30))
    assert "--force" in refused(run, models)
    done = release(run, models, Wanted(force=True))
    assert metrics_of(models, done.bundle.version)["gates"][0]["met"] is False


def test_a_difference_within_chance_is_published_and_told(models: Path, data: Path, tmp_path: Path) -> None:
    done = release(make_run(tmp_path / "tiny", data, wrong=[20, 21, 22]), models)
    assert "2 fewer of 40 pictures" in done.gates[0].says
    assert "within what chance does" in done.gates[0].says


def test_pictures_that_the_live_version_has_learnt_from_do_not_count(models: Path, data: Path, tmp_path: Path) -> None:
    # Wrong of exactly those that taught the live version: on the others it is better.
    run = make_run(tmp_path / "tiny", data, judged=range(10, 40), wrong=range(10, 20), learnt=range(10))
    done = release(run, models)
    assert "4 more of 40 pictures" in done.gates[0].says
    assert "Left out: 20 that it has learnt from." in done.gates[0].says


def test_a_live_version_that_learnt_from_all_of_them_is_not_compared(models: Path, data: Path, tmp_path: Path) -> None:
    done = release(make_run(tmp_path / "tiny", data, judged=range(20), wrong=range(20), learnt=()), models)
    assert "it has learnt from all 40 pictures" in done.gates[0].says


def test_the_live_version_is_asked_about_pictures_that_are_new_to_it(data: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    release(make_run(tmp_path / "live/tiny", data, judged=range(20, 25)), models)
    run = make_run(tmp_path / "tiny", data, wrong=range(25, 40))
    assert "is right on 30 fewer of 40 pictures" in refused(run, models)
    # A live version that is wrong of what it is asked is known to be so, too.
    other = tmp_path / "others"
    release(make_run(tmp_path / "bad/tiny", data, SWAPPED, judged=range(20, 25)), other)
    better = make_run(tmp_path / "better/tiny", data)
    assert "is right on 30 more of 40 pictures" in release(better, other).gates[0].says


def test_a_picture_that_has_changed_is_another_picture(data: Path, tmp_path: Path) -> None:
    models, own = tmp_path / "models", shutil.copytree(data, tmp_path / "own")
    release(make_run(tmp_path / "live/tiny", own, judged=()), models)
    run = make_run(tmp_path / "tiny", own)
    write_picture(own / "red/020.png", "blue", 999)
    done = release(run, models)
    assert "on 39 pictures" in done.gates[0].says
    assert "Not where they were: 1." in done.gates[0].says


@pytest.mark.parametrize("loss", ["moved", "unknown"])
def test_pictures_that_are_gone_stop_nobody(data: Path, tmp_path: Path, loss: str) -> None:
    models, own = tmp_path / "models", shutil.copytree(data, tmp_path / "own")
    release(make_run(tmp_path / "live/tiny", own, judged=()), models)
    run = make_run(tmp_path / "tiny", own, wrong=range(20, 40))
    own.rename(tmp_path / "away") if loss == "moved" else (run / "origin.json").unlink()
    assert "are not where they were" in release(run, models).gates[0].says


def test_a_live_version_with_a_class_that_is_gone_is_another_job(data: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    make_bundle(tmp_path / "old", ("red", "cow"))
    ModelStore(models).publish("tiny", tmp_path / "old")
    done = release(make_run(tmp_path / "tiny", data, wrong=range(20, 40)), models)
    assert "the new model has no class 'cow'" in done.gates[0].says


def test_a_model_with_more_classes_is_compared_on_the_old_ones(models: Path, tmp_path: Path) -> None:
    more = make_data_set(tmp_path / "more", 40)
    run = make_run(tmp_path / "tiny", more, ("red", "blue", "green"), wrong=range(20, 30))
    assert "of 40 pictures than tiny/1" in refused(run, models)


@pytest.mark.parametrize("what", ["CURRENT", "1/model.keras", f"1/{PREDICTIONS}"])
def test_a_damaged_live_version_stops_nobody(models: Path, data: Path, tmp_path: Path, what: str) -> None:
    (models / "tiny" / what).write_text("damaged")
    done = release(make_run(tmp_path / "tiny", data, wrong=range(20, 40)), models)
    assert "it cannot be opened" in done.gates[0].says
    assert ModelStore(models).open("tiny").version == 2


def test_a_live_version_without_a_record_is_asked_and_that_is_told(data: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    ModelStore(models).publish("tiny", make_bundle(tmp_path / "imported", ("red", "blue")))
    run = make_run(tmp_path / "tiny", data, wrong=range(20, 40))
    assert "tiny/1 does not say what it learnt from and may know these pictures" in refused(run, models)


def test_a_run_of_an_older_version_is_published_without_comparison(models: Path, data: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "tiny", data)
    (run / PREDICTIONS).unlink()
    assert "does not say what it was judged on" in release(run, models).gates[0].says


@pytest.mark.parametrize("fault", ["self-test", "network", "layer"])
def test_what_does_not_load_as_it_will_be_served_is_not_published(
    models: Path, data: Path, tmp_path: Path, fault: str
) -> None:
    run = make_run(tmp_path / "tiny", data)
    if fault == "self-test":
        expected = run / "bundle/selftest/expected.json"
        expected.write_text(expected.read_text().replace("0.9", "0.1"))
    else:
        (run / "bundle" / {"network": "export/openvino/model.xml", "layer": "model.keras"}[fault]).write_text("<net/>")
    assert "does not load as the daemon would load it" in refused(run, models)


def test_what_was_judged_against_a_version_that_is_live_no_more_is_judged_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, store = tmp_path / "models", ModelStore(tmp_path / "models")
    store.publish("tiny", make_run(tmp_path / "poor/tiny", data, wrong=range(20, 40)) / "bundle")
    best = make_run(tmp_path / "best/tiny", data)

    def serving(_staging: Path) -> contextlib.nullcontext[None]:
        if store.current("tiny") == 1:  # somebody is faster, while we prove ours
            store.publish("tiny", best / "bundle")
        return contextlib.nullcontext()

    monkeypatch.setattr(publishing, "serving", serving)
    with pytest.raises(TrainingError, match="fewer of 40 pictures than tiny/2"):
        release(make_run(tmp_path / "tiny", data, wrong=range(20, 35)), models)
    assert store.versions("tiny") == [1, 2]


def test_publishers_at_the_same_time_each_get_a_version(data: Path, tmp_path: Path) -> None:
    bundle = make_run(tmp_path / "tiny", data) / "bundle"
    got: list[int] = []
    threads = [
        threading.Thread(target=lambda: got.append(releasing.publish(bundle, "tiny", tmp_path / "models").version))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store = ModelStore(tmp_path / "models")
    assert (sorted(got), store.versions("tiny"), store.current("tiny")) == ([1, 2, 3, 4], [1, 2, 3, 4], 4)
    for version in got:
        store.open("tiny", version)


# A full disk ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def full_disk(k: int) -> Iterator[None]:
    """The disk is full from the k-th call on that needs room."""
    left = k

    def failing(call: Callable[..., Any], needs_room: Callable[..., bool]) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> Any:
            nonlocal left
            left -= needs_room(*args)
            if needs_room(*args) and left <= 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return call(*args, **options)

        return run

    def creates(_path: Any, flags: int, *_mode: Any) -> bool:
        return bool(flags & os.O_EXCL)

    def always(*_args: Any) -> bool:
        return True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", failing(os.open, creates))
        for module, name in ((os, "mkdir"), (os, "fsync"), (shutil, "copyfile")):
            patch.setattr(module, name, failing(getattr(module, name), always))
        yield


@pytest.mark.parametrize("name", ["tiny", "new"])
def test_a_disk_that_is_full_at_any_moment_leaves_the_store_as_it_was(
    models: Path, data: Path, tmp_path: Path, name: str
) -> None:
    bundle = make_run(tmp_path / "tiny", data) / "bundle"
    before = read_tree(models)

    def attempt(k: int) -> str | None:
        try:
            with full_disk(k):
                releasing.publish(bundle, name, models)
        except Unavailable as fault:
            return str(fault)
        return None

    for k in itertools.count(1):
        said = attempt(k)
        if said is None:
            break
        assert f"Cannot publish {name}: the disk of {models} is full; make room" in said, k
        assert len(said) < 300
        assert read_tree(models) == before, k
    assert k > 25  # it was full at many moments
    assert len(ModelStore(models).versions(name)) == (2 if name == "tiny" else 1)


def test_a_full_disk_is_told_as_such_whatever_is_being_done(models: Path, data: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "tiny", data)
    before = read_tree(models)
    for k in range(1, 60, 8):  # staging, proof and store each need room
        with full_disk(k), pytest.raises(Unavailable, match=r"^Cannot publish .* is full; make room"):
            release(run, models)
        assert read_tree(models) == before, k


def test_a_full_disk_leaves_no_store_where_there_was_none(data: Path, tmp_path: Path) -> None:
    bundle = make_run(tmp_path / "tiny", data) / "bundle"
    for k in (1, 2, 3, 9):
        with full_disk(k), pytest.raises(Unavailable):
            releasing.publish(bundle, "tiny", tmp_path / "models")
        assert not (tmp_path / "models").exists(), k


def test_a_disk_without_room_for_the_largest_file_leaves_the_store_as_it_was(
    models: Path, data: Path, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "tiny", data)
    (run / "bundle/report.html").write_bytes(bytes(300_000))
    before = read_tree(models)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # the kernel itself refuses to write further
    try:
        for attempt in (
            lambda: releasing.publish(run / "bundle", "tiny", models),
            lambda: release(run, models),
        ):
            with pytest.raises(Unavailable, match="is full; make room"):
                attempt()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert read_tree(models) == before


def test_a_store_that_cannot_be_written_is_told(data: Path, tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file")
    with pytest.raises(Misconfigured, match="Cannot publish"):
        release(make_run(tmp_path / "tiny", data), tmp_path / "models")


# Killed at any moment -------------------------------------------------------------------------------------------------

# Forks a publisher for each k and kills it at its k-th call that changes the disk: before it, or in a copy half way.
KILLER = """
import contextlib, json, os, shutil, signal, sys
import scipy.stats  # once, and not in every publisher
from pathlib import Path
from pigeonholed.store import ModelStore
from pigeonholed_training import publishing, releasing
from pigeonholed_training.gates import Wanted

models, run, name = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
publishing.serving = lambda staging: contextlib.nullcontext()
store = ModelStore(models)

def kill_at(k):
    left = [k]
    def counted(call):
        def run(*args, **options):
            # Of the calls outside the store only those by descriptor cannot be told apart.
            left[0] -= isinstance(args[0], int) or str(models) in f"{args}"
            if left[0] == 0:
                if call is copyfile:
                    Path(args[1]).write_bytes(Path(args[0]).read_bytes()[:100])
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **options)
        return run
    copyfile = shutil.copyfile
    shutil.copyfile = counted(copyfile)
    for what in ("rename", "fsync", "mkdir", "unlink"):
        setattr(os, what, counted(getattr(os, what)))

seen = []
for k in range(1, 400):
    before = store.versions(name), store.current(name)
    child = os.fork()
    if child == 0:
        kill_at(k)
        releasing.release(run, name, models, Wanted(min_accuracy=0.5))
        os._exit(0)
    killed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    versions = store.versions(name)
    for version in versions:
        store.open(name, version)
    seen.append([killed, before, [versions, store.current(name)]])
    if not killed:
        break
print(json.dumps(seen))
"""


@pytest.mark.parametrize("name", ["tiny", "new"])
def test_killed_at_any_moment_the_store_has_the_old_version_or_the_new_one_whole(
    models: Path, data: Path, tmp_path: Path, name: str
) -> None:
    run = make_run(tmp_path / "tiny", data)
    first = read_tree(models / "tiny/1")
    command = [sys.executable, "-c", KILLER, str(models), str(run), name]
    scratch = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, check=False, text=True, env=scratch)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert [killed for killed, *_ in seen] == [True] * (len(seen) - 1) + [False]
    assert len(seen) > 25  # it was killed at many moments
    for _, (versions, current), (versions_after, current_after) in seen:
        added = versions_after[len(versions) :]
        assert versions_after == versions + added
        assert len(added) <= 1
        assert current_after in {current, *added}
    assert read_tree(models / "tiny/1") == first
    assert release(run, models).bundle.version == ModelStore(models).versions("tiny")[-1]  # the next one works
    said = CliRunner().invoke(daemon_models.command, ["verify", "--models", str(models)])
    assert said.exit_code == 0, said.output
    assert not list(models.glob("*/.staging*"))


# The command ----------------------------------------------------------------------------------------------------------


def call(*arguments: object) -> Result:
    return CliRunner().invoke(publish, [str(one) for one in arguments])


def test_the_command_says_what_came_of_the_gates(models: Path, data: Path, tmp_path: Path) -> None:
    said = call(make_run(tmp_path / "tiny", data), "--models", models, "--min-accuracy", "0.9", "--min-macro-f1", ".7")
    assert said.exit_code == 0, said.output
    assert said.stdout == f"Published tiny version 2 into {models}.\n"
    assert "The accuracy is 1 (40 of 40 pictures of the test part right); at least 0.9" in said.stderr
    assert "4 more of 40 pictures than tiny/1" in said.stderr


def test_a_shut_gate_ends_the_command_with_one_message(models: Path, data: Path, tmp_path: Path) -> None:
    said = call(make_run(tmp_path / "tiny", data, wrong=[20]), "--models", models, "--min-accuracy", "0.99")
    assert isinstance(said.exception, TrainingError)
    assert said.exception.exit_code == 1
    assert "is not published. The accuracy is 0.95" in str(said.exception)
    assert said.stdout == ""


@pytest.mark.parametrize(
    ("share", "advice"),
    [("90", "for 90 % write 0.9"), ("1.5", "write 0.015"), ("-0.1", "from 0 to 1"), ("nan", "from 0 to 1"), ("x", "")],
)
def test_a_share_is_no_percentage(data: Path, tmp_path: Path, share: str, advice: str) -> None:
    said = call(make_run(tmp_path / "tiny", data), "--models", tmp_path / "models", f"--min-accuracy={share}")
    assert said.exit_code == 2
    assert advice in " ".join(said.stderr.split())
