"""What is away is waited for, and nothing of it is called lost."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from arrivals import arriving
from records_of import change
from running import Workspace, picture, until


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.make(tmp_path)


@pytest.mark.slow
def test_output_that_goes_away_under_load_and_comes_back_loses_nothing(workspace: Workspace) -> None:
    def waiting() -> bool:
        """A stage that still waits since the last time does not say so again."""
        events = [event["event"] for event in daemon.events()]
        return events.count("stage_blocked") > events.count("stage_recovered")

    with workspace.serving() as daemon:
        daemon.await_event("service_ready")
        with arriving(lambda serial: workspace.drop(f"{serial}.png", picture(220, 60, 40, serial)), 300):
            for turn in range(5):
                until(lambda turn=turn: workspace.filed() > 20 * (turn + 1), "some to be filed")  # type: ignore[misc]
                workspace.output.rename(workspace.root / "away")
                until(waiting, "the output to be missed")
                (workspace.root / "away").rename(workspace.output)
        until(lambda: workspace.filed() == len(workspace.dropped), "all filed")
        assert daemon.terminate() == 0
        assert not any(event["event"] == "file_lost" for event in daemon.events())
    assert workspace.audit() == []


def test_files_in_flight_are_not_called_lost_when_the_output_is_empty_at_start(workspace: Workspace) -> None:
    workspace.drop("a.png", picture(220, 60, 40, 1))
    assert workspace.run("run", "--once").returncode == 0
    change(workspace.database, "UPDATE images SET status = 'planned', destination = 'cat/elsewhere.png'")
    workspace.output.rename(workspace.root / "away")
    refused = workspace.run("run", "--once")
    assert refused.returncode == 69
    assert "files in flight should be in the output" in refused.stderr
    again = workspace.run("run", "--once")
    assert again.returncode == 69, "nor at the second try"


def test_path_that_is_too_long_below_its_class_folder_loses_its_sub_folders_only(workspace: Workspace) -> None:
    room = 4093 - len(os.fsencode(workspace.inbox)) - len("//x.png")
    deep = "/".join(["d" * 200] * (room // 201))
    rest = room - len(deep) - 1
    deep = f"{deep}/{'e' * rest}" if 0 < rest < 250 else deep
    os.makedirs(workspace.inbox, exist_ok=True)
    folder = os.open(workspace.inbox, os.O_RDONLY)
    for part in deep.split("/"):
        os.mkdir(part, dir_fd=folder)
        inner = os.open(part, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    writer = os.open("x.png", os.O_WRONLY | os.O_CREAT, dir_fd=folder)
    os.write(writer, picture(220, 60, 40, 1))
    os.close(writer)
    os.close(folder)
    done = workspace.run("run", "--once")
    assert done.returncode == 0, done.stderr
    assert (workspace.output / "cat/x.png").exists()
    assert workspace.filed() == 1
