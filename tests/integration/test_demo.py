"""The demo, as a newcomer runs it, judged by the auditor."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from auditor import accuracy, audit, read_manifest
from running import environment


def demo(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pigeonholed", "demo", str(folder)],
        check=False,
        capture_output=True,
        text=True,
        timeout=200,
        env=environment(),
    )


@pytest.mark.slow
def test_demo_files_everything_and_gets_its_digits_right_twice(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    for turn in ("first", "made anew, with the model that is there"):
        done = demo(folder)
        assert done.returncode == 0, (turn, done.stderr[-3000:])
        dropped = read_manifest(folder / "dropped.csv")
        assert len(dropped) >= 305, turn
        assert audit(dropped, [folder / "inbox"], folder / "sorted", folder / "pigeonholed.db") == [], turn
        measured = accuracy(dropped, folder / "pigeonholed.db")
        assert measured.right_share >= 0.97, (turn, str(measured))
        assert measured.unsure_share <= 0.10, (turn, str(measured))
        broken = [drop for drop in dropped if drop.truth == "broken"]
        reasons = {path.name for path in (folder / "sorted/_rejected").iterdir()}
        assert len(broken) >= 5
        assert reasons == {"truncated", "unreadable", "unsupported", "empty", "too-large"}, turn
        assert "right label" in done.stdout
    for name in ("pigeonholed.toml", "pigeonholed.db", "inbox", "sorted", "models/digits/CURRENT"):
        assert (folder / name).exists(), name


def test_folder_that_holds_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("do not touch")
    done = demo(tmp_path)
    assert done.returncode == 78
    assert "holds no demo" in done.stderr
    assert os.listdir(tmp_path) == ["thesis.txt"]
