"""The wheel holds all that the program needs, and works where there is no checkout."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
pytestmark = pytest.mark.slow


def run(command: Sequence[str | Path], cwd: Path) -> str:
    """Run a command that has to succeed, far from the checkout, and give back what it printed."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIGEONHOLED", "XDG_"))}
    ended = subprocess.run(command, cwd=cwd, env=kept, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, f"{command}\n{ended.stdout}\n{ended.stderr}"
    return ended.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], cwd=ROOT)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def binaries(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of a new environment with the wheel in it, and with the dependencies that we are tested with."""
    folder = tmp_path_factory.mktemp("empty") / "venv"
    run([sys.executable, "-m", "venv", "--without-pip", folder], cwd=folder.parent)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    run([*pip, "install", "--no-index", "--no-deps", str(wheel)], cwd=folder.parent)
    # Afterwards, or pip would take our own editable installation for the one that is wanted. Only the packages come
    # along: the .pth files in there, the checkout's among them, are not read.
    packages = run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], cwd=folder.parent).strip()
    Path(packages, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def test_migrations_configuration_and_units_are_inside(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for source, target in [("migrations", "_migrations"), ("config", "_config"), ("systemd", "_systemd")]:
        files = [path for path in (ROOT / source).rglob("*") if path.is_file() and path.suffix != ".pyc"]
        assert files
        for file in files:
            assert f"pigeonholed/{target}/{file.relative_to(ROOT / source)}" in names
    assert "pigeonholed/_systemd/pigeonholed.service" in names
    assert "pigeonholed/_config/pigeonholed.toml" in names


def test_both_packages_are_inside_whole_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for folder, package in [("daemon", "pigeonholed"), ("training", "pigeonholed_training")]:
        for file in (ROOT / folder / package).rglob("*.py"):
            assert str(file.relative_to(ROOT / folder)) in names
        assert f"{package}/py.typed" in names
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"pigeonholed", "pigeonholed_training"}
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


def test_what_runs_is_the_wheel_and_not_the_checkout(binaries: Path, tmp_path: Path) -> None:
    program = "import pigeonholed, pigeonholed_training as t; print(pigeonholed.__file__); print(t.__file__)"
    for file in run([binaries / "python", "-c", program], cwd=tmp_path).splitlines():
        assert Path(file).is_relative_to(binaries.parent)


@pytest.mark.parametrize("command", ["pigeonholed", "pigeonholed-train"])
def test_both_commands_explain_themselves(binaries: Path, tmp_path: Path, command: str) -> None:
    assert "Usage: " + command in run([binaries / command, "--help"], cwd=tmp_path)
    assert command in run([binaries / command, "--version"], cwd=tmp_path)


def test_a_working_folder_and_its_database_can_be_made(binaries: Path, tmp_path: Path) -> None:
    run([binaries / "pigeonholed", "init", "work"], cwd=tmp_path)
    assert {path.name for path in (tmp_path / "work").iterdir()} >= {"pigeonholed.toml", "inbox", "sorted", "models"}
    run([binaries / "pigeonholed", "db", "upgrade", "--config", "work/pigeonholed.toml"], cwd=tmp_path)
    connection = sqlite3.connect(tmp_path / "work" / "pigeonholed.db")
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    connection.close()
    assert {"images", "predictions", "models", "reviews"} <= tables
