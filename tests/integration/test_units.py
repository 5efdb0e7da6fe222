"""The units that ship: as closed as systemd can tell, and without a word that it does not know."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from pigeonholed.cli import cli
from pigeonholed.config import load_settings
from pigeonholed.progress import STAGE_LIMIT_S
from pigeonholed.resources import shipped_folder

UNITS = shipped_folder("systemd")
DROP_IN = "pigeonholed.service.d"
MOST_EXPOSED = {"pigeonholed": 2.0, "pigeonholed-web": 2.0, "pigeonholed with gpu.conf": 2.5}


def analyzer() -> str:
    """Where systemd-analyze is; skips the test, aloud, where there is none."""
    found = shutil.which("systemd-analyze")
    if found is None:
        pytest.skip("the units were NOT checked: there is no systemd-analyze here (Debian, Ubuntu: package systemd)")
    return found


def placed(name: str, folder: Path) -> Path:
    """A unit as it is installed, with its program at a place where there is one."""
    unit, _, drop_in = name.partition(" with ")
    text = (UNITS / f"{unit}.service").read_text(encoding="utf-8")
    assert text.count("ExecStart=/opt/pigeonholed/bin/pigeonholed ") == 1
    target = folder / f"{unit}.service"
    target.write_text(text.replace("/opt/pigeonholed/bin/pigeonholed", "/bin/true"), encoding="utf-8")
    if drop_in:
        (folder / DROP_IN).mkdir()
        shutil.copy(UNITS / DROP_IN / drop_in, folder / DROP_IN)
    return target


@pytest.mark.parametrize("name", MOST_EXPOSED)
def test_unit_is_exposed_no_more_than_promised(tmp_path: Path, name: str) -> None:
    unit = placed(name, tmp_path)
    command = [analyzer(), "security", "--offline=true", "--no-pager", str(unit)]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    exposure = re.search(r"Overall exposure level for .*: ([\d.]+)", told.stdout)
    assert exposure, told.stdout + told.stderr
    assert float(exposure[1]) <= MOST_EXPOSED[name]


@pytest.mark.parametrize("name", MOST_EXPOSED)
def test_systemd_understands_every_line_of_the_unit(tmp_path: Path, name: str) -> None:
    unit = placed(name, tmp_path)
    told = subprocess.run([analyzer(), "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False)
    assert (told.returncode, told.stdout, told.stderr) == (0, "", "")


def read(name: str) -> configparser.ConfigParser:
    """A unit; of keys that stand there several times the last."""
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(UNITS / name, encoding="utf-8")
    return unit


def test_unit_and_program_mean_the_same() -> None:
    service = read("pigeonholed.service")["Service"]
    assert service["Type"] == "notify"
    assert service["ReadWritePaths"].split() == ["-/srv"], "two would be two mounts, and every move a copy"
    assert float(service["WatchdogSec"]) >= 60, "a busy machine is no standstill"
    assert float(service["WatchdogSec"]) < STAGE_LIMIT_S
    assert {"2", "78"} == set(service["RestartPreventExitStatus"].split())
    assert "--config /etc/pigeonholed/pigeonholed.toml" in service["ExecStart"]


def test_page_may_change_nothing_on_the_disk_and_works_as_the_service_does() -> None:
    service, page = read("pigeonholed.service")["Service"], read("pigeonholed-web.service")["Service"]
    assert "ReadWritePaths" not in page
    assert "StateDirectory" not in page
    assert page["ProtectSystem"] == "strict"
    for key in ("User", "Group", "SystemCallFilter", "CapabilityBoundingSet", "IPAddressDeny", "ProtectHome"):
        assert page[key] == service[key]


def test_user_and_folders_are_made_as_the_unit_wants_them(tmp_path: Path) -> None:
    if shutil.which("systemd-sysusers") is None:
        pytest.skip("the user was NOT made: there is no systemd-sysusers here (Debian, Ubuntu: package systemd)")
    (tmp_path / "etc").mkdir()
    subprocess.run(
        ["systemd-sysusers", f"--root={tmp_path}", UNITS / "pigeonholed.sysusers"], check=True, capture_output=True
    )
    name, _, _, _, _, home, shell = (tmp_path / "etc/passwd").read_text().strip().split(":")
    service = read("pigeonholed.service")["Service"]
    assert (name, home, shell) == (service["User"], service["WorkingDirectory"], "/usr/sbin/nologin")
    made = [line.split()[1] for line in (UNITS / "pigeonholed.tmpfiles").read_text().splitlines() if line[:1] == "d"]
    root = service["ReadWritePaths"].removeprefix("-")
    assert {"/srv/pigeonholed/inbox", "/srv/pigeonholed/sorted"} <= {path for path in made if path.startswith(root)}
    assert f"/var/lib/{service['StateDirectory']}" in made


def test_guide_names_files_and_commands_that_exist() -> None:
    guide = (Path(__file__).parents[2] / "docs/install.md").read_text(encoding="utf-8")
    for name in re.findall(r"\$units/([\w.-]+)", guide):
        assert (UNITS / name).exists(), name
    used = set(re.findall(r"pigeonholed ((?:check|status|run|db|init|demo)\b)", guide))
    assert {"check", "status", "db"} <= used <= set(cli.list_commands(click.Context(cli)))  # type: ignore[attr-defined]


def test_configuration_in_the_guide_loads(tmp_path: Path) -> None:
    guide = (Path(__file__).parents[2] / "docs/install.md").read_text(encoding="utf-8")
    file = tmp_path / "pigeonholed.toml"
    file.write_text(re.findall("(?ms)^```toml(.*?)^```", guide)[0], encoding="utf-8")
    (inbox,) = load_settings(file, environ={}).inbox
    tmpfiles = (UNITS / "pigeonholed.tmpfiles").read_text(encoding="utf-8")
    assert f"d {inbox.path} " in tmpfiles
    assert f"d {inbox.output} " in tmpfiles
