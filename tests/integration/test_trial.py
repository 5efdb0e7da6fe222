"""A model that crashes, hangs or eats memory does so in a child, and costs one sentence."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from bundles import make_bundle, publish_tiny
from pigeonholed.bundle import Bundle, BundleError
from pigeonholed.classifying import DeviceUnavailable, trial
from pigeonholed.classifying.openvino import import_openvino
from pigeonholed.store import ModelStore
from running import Workspace, until


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return publish_tiny(tmp_path / "models")


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module that is started in the place of the real child."""
    folder = tmp_path / "modules"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setattr(trial, "_CHILD", "stand_in")
    return folder / "stand_in.py"


def test_sound_version_passes_and_says_how_it_would_serve(bundle: Bundle) -> None:
    passed = trial.hold(bundle, kind="openvino", device="cpu", max_batch_size=2)
    assert (passed.runtime, passed.device, passed.precision) == ("openvino", "cpu", "f32")


def test_refusal_of_the_child_is_ours(tmp_path: Path) -> None:
    staging = make_bundle(tmp_path / "s")
    (staging / "selftest/0.png").write_bytes(b"no picture")
    with pytest.raises(BundleError, match=r"selftest/0\.png is no picture of 8 x 8"):
        trial.hold(ModelStore(tmp_path / "models").publish("tiny", staging), kind="openvino")


def test_device_that_is_not_there_is_no_fault_of_the_model(bundle: Bundle) -> None:
    with pytest.raises(DeviceUnavailable):
        trial.hold(bundle, kind="openvino", device="gpu")


def test_version_that_changes_between_opening_and_trial_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    other = publish_tiny(tmp_path / "models", threshold=0.9)
    os.rename(bundle.path, tmp_path / "models/tiny/away")
    os.rename(other.path, bundle.path)
    with pytest.raises(BundleError, match="was changed while it was tried"):
        trial.hold(bundle, kind="openvino")


def greedy(folder: Path) -> Path:
    """A sound bundle but for one operation that repeats its input until memory ends: 2 TB for a picture."""
    staging = make_bundle(folder)
    openvino = import_openvino()
    from openvino import opset13 as ops

    pixels = ops.parameter([-1, 8, 8, 3], np.uint8, name="pixels")
    many = ops.tile(ops.convert(pixels, np.float32), ops.constant(np.array([1, 65536, 32768, 1], np.int64)))
    logits = ops.slice(
        ops.reduce_mean(many, ops.constant(np.array([1, 2], np.int64)), False),
        ops.constant(np.array([0])), ops.constant(np.array([2])), ops.constant(np.array([1])),
        ops.constant(np.array([1])),
    )  # fmt: skip
    path = staging / "export/openvino/model.xml"
    openvino.save_model(openvino.Model([logits], [pixels], "greedy"), path, compress_to_fp16=False)
    text = path.read_text()
    for size in (8 * 65536, 8 * 32768):  # so that only the doing is large, and not what is written
        text = text.replace(f"<dim>{size}</dim>", "<dim>1</dim>")
    path.write_text(text)
    return staging


def test_version_that_eats_all_memory_is_refused(tmp_path: Path) -> None:
    bundle = ModelStore(tmp_path / "models").publish("tiny", greedy(tmp_path / "s"))
    with pytest.raises(BundleError) as caught:
        trial.hold(bundle, kind="openvino", device="cpu", max_batch_size=2)
    assert str(caught.value).isprintable()


def test_memory_of_the_child_is_limited(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="is refused"):
        trial.hold(bundle, kind="openvino", device="cpu", memory_bytes=40 << 20)
    assert trial.memory_limit(bundle, 64) >= 1 << 30
    assert trial.memory_limit(bundle, 1 << 40) < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


ENDINGS = {
    "crash": (
        "import os; os.kill(os.getpid(), 11)",
        r"crashed the process that tried it \(SIGSEGV\)",
    ),
    "exit": ("raise SystemExit(3)", "ended with status 3"),
    "silence": ("", "ended with status 0"),
    "nonsense": ("print('[' * 100000)", "ended with status 0"),
    "no-object": ("print('[1]')", "ended with status 0"),
    "memory": ("print('{\"memory\": true}'); raise SystemExit(1)", "more than 3.0 GB|more than 3.2 GB"),
    "late-pass": ("print('{\"passed\": {}}', flush=True); import os; os.abort()", "SIGABRT"),
    "hang": ("import time; time.sleep(600)", "within 0.5 s"),
}


@pytest.mark.parametrize("what", ENDINGS)
def test_child_that_does_not_end_well_is_a_refusal(bundle: Bundle, child: Path, what: str) -> None:
    program, said = ENDINGS[what]
    child.write_text(program)
    deadline_s = 0.5 if what == "hang" else 60.0
    with pytest.raises(BundleError, match=said) as caught:
        trial.hold(bundle, kind="openvino", deadline_s=deadline_s)
    assert str(bundle.path) in str(caught.value)


def test_what_the_child_says_becomes_one_line(bundle: Bundle, child: Path) -> None:
    child.write_text(r"""print('{"refused": "a\\nb\\u001b[31mc' + "x" * 9000 + '"}')""")
    with pytest.raises(BundleError) as caught:
        trial.hold(bundle, kind="openvino")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) <= 1000


def test_trial_is_given_up_when_the_service_ends(bundle: Bundle, child: Path) -> None:
    child.write_text("import time; time.sleep(600)")
    started_s = time.monotonic()
    with pytest.raises(BundleError):
        trial.hold(bundle, kind="openvino", given_up=lambda: time.monotonic() > started_s + 0.2)
    assert time.monotonic() < started_s + 60


def test_child_inherits_no_secrets(bundle: Bundle, child: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIGEONHOLED__DATABASE__URL", "PGPASSWORD", "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET"):
        monkeypatch.setenv(name, "secret")
    child.write_text(
        "import json, os\n"
        "print(json.dumps({'refused': 'these: ' + ' '.join(k for k, v in os.environ.items() if v == 'secret')}))"
    )
    with pytest.raises(BundleError, match=r"^these: $"):
        trial.hold(bundle, kind="openvino")


def test_modules_in_the_working_folder_are_not_imported(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cwd").mkdir()
    for name in ("json", "numpy", "pigeonholed", "resource"):
        (tmp_path / f"cwd/{name}.py").write_text(f"open({str(tmp_path / 'touched')!r}, 'w')")
    monkeypatch.chdir(tmp_path / "cwd")
    assert trial.hold(bundle, kind="openvino", device="cpu", max_batch_size=1).runtime == "openvino"
    assert not (tmp_path / "touched").exists()


CONFINED = """
import json, os, resource, sys
from pigeonholed.classifying import tried
request = json.load(sys.stdin)
tried._confine(request)
status = open("/proc/self/status").read()
facts = {
    "privileges": "NoNewPrivs:\\t1" in status,
    "memory": resource.getrlimit(resource.RLIMIT_DATA)[0] == request["memory_bytes"],
    "core": resource.getrlimit(resource.RLIMIT_CORE) == (0, 0),
    "files": resource.getrlimit(resource.RLIMIT_FSIZE)[0] == request["file_bytes"],
    "oom": open("/proc/self/oom_score_adj").read() == "1000\\n",
    "group": os.getsid(0) == os.getpid(),
}
print(json.dumps({"refused": str([name for name, held in facts.items() if not held])}))
"""


def test_child_confines_itself(bundle: Bundle, child: Path) -> None:
    child.write_text(CONFINED)
    with pytest.raises(BundleError, match=r"^\[\]$"):
        trial.hold(bundle, kind="openvino")


def test_version_that_has_served_is_not_tried_again(tmp_path: Path) -> None:
    """A restart costs no trial: the second start serves although every trial would fail."""
    workspace = Workspace.make(tmp_path, new=True)
    with workspace.serving() as daemon:
        daemon.await_event("service_ready")
        assert daemon.terminate() == 0
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules/sitecustomize.py").write_text(
        "import sys\nif 'pigeonholed.classifying.tried' in sys.orig_argv: raise SystemExit(9)\n"
    )
    path = os.pathsep.join([str(tmp_path / "modules"), os.environ.get("PYTHONPATH", "")])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", path)
        with workspace.serving() as daemon:
            until(lambda: [e["event"] for e in daemon.events()].count("service_ready") == 1, "the second start")
            assert daemon.terminate() == 0
