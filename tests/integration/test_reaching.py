"""Requests reach the running daemon, or are done here under the state lock: by exactly one of the two."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from helpers import FakeClock
from pigeonholed.cli import cli
from pigeonholed.control import ControlServer
from pigeonholed.errors import Misconfigured, Unavailable, UserError
from pigeonholed.locking import Held, Lock
from pigeonholed.reaching import perform
from pigeonholed.settings import ControlSettings, Settings, StateSettings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        state=StateSettings(dir=tmp_path / "state"), control=ControlSettings(socket=tmp_path / "control.sock")
    )


def alone(request: str, arguments: dict[str, Any]) -> Any:
    return ("alone", request, arguments)


def never(request: str, arguments: dict[str, Any]) -> Any:
    raise AssertionError("nothing may be done beside a daemon")


def lock_path(settings: Settings) -> str:
    settings.state.dir.mkdir(exist_ok=True)
    return str(settings.state.dir / "pigeonholed.lock")


@contextmanager
def serving(settings: Settings, answer: Any) -> Iterator[None]:
    """A daemon: it holds the lock and listens."""
    lock = Lock.take(lock_path(settings))
    server = ControlServer(settings.control.socket, answer)
    server.start()
    yield
    server.close()
    lock.release()


def test_without_a_daemon_the_command_does_it_itself(settings: Settings) -> None:
    assert perform(settings, "undo", {"last": 1}, alone=alone) == ("alone", "undo", {"last": 1})


def test_the_lock_is_held_while_it_is_done_here_and_free_afterwards(settings: Settings) -> None:
    def locked(request: str, arguments: dict[str, Any]) -> Any:
        with pytest.raises(Held) as caught:
            Lock.take(lock_path(settings))
        raise UserError(f"by {caught.value.holder}")

    with pytest.raises(UserError, match=f"by {os.getpid()}"):
        perform(settings, "undo", {}, alone=locked)
    Lock.take(lock_path(settings)).release()


def test_with_a_daemon_it_is_asked_and_nothing_is_done_here(settings: Settings) -> None:
    with serving(settings, lambda request, arguments: ["daemon", request, arguments]):
        assert perform(settings, "undo", {"last": 1}, alone=never) == ["daemon", "undo", {"last": 1}]


def test_a_refusal_by_the_daemon_is_not_tried_again(settings: Settings) -> None:
    asked: list[str] = []

    def refuse(request: str, arguments: dict[str, Any]) -> Any:
        asked.append(request)
        raise Unavailable("not now")

    with serving(settings, refuse), pytest.raises(Unavailable, match="not now"):
        perform(settings, "undo", {}, alone=never)
    assert asked == ["undo"]


def test_a_socket_without_the_lock_is_that_of_a_dead_daemon(settings: Settings) -> None:
    server = ControlServer(settings.control.socket, never)
    server.start()  # whatever listens there, the state folder is not its
    assert perform(settings, "undo", {}, alone=alone)[0] == "alone"
    server.close()


def test_a_daemon_that_does_not_listen_yet_is_waited_for(settings: Settings, clock: FakeClock) -> None:
    lock = Lock.take(lock_path(settings))
    server = ControlServer(settings.control.socket, lambda request, arguments: "done")
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        clock.advance(3.0)
        if len(pauses) == 3:
            server.start()

    assert perform(settings, "undo", {}, alone=never, clock=clock, pause=pause) == "done"
    assert len(pauses) == 3
    server.close()
    lock.release()


def test_a_daemon_that_ends_meanwhile_leaves_it_to_the_command(settings: Settings, clock: FakeClock) -> None:
    lock = Lock.take(lock_path(settings))
    assert perform(settings, "undo", {}, alone=alone, clock=clock, pause=lambda _s: lock.release())[0] == "alone"


def test_a_holder_that_never_answers_is_named_after_ten_seconds(settings: Settings, clock: FakeClock) -> None:
    started_s = clock()
    lock = Lock.take(lock_path(settings))
    with pytest.raises(Unavailable, match=f"process {os.getpid()} holds the state folder") as caught:
        perform(settings, "undo", {}, alone=never, clock=clock, pause=lambda _s: void(clock.advance(1.0)))
    assert str(settings.control.socket) in str(caught.value)
    assert clock() - started_s == 10.0
    lock.release()


def void(_value: object) -> None:
    """Take a value for its effect."""


def test_a_killed_daemon_leaves_lock_and_socket_to_the_command(settings: Settings) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from pigeonholed.control import ControlServer;"
        "from pigeonholed.locking import Lock; lock = Lock.take(sys.argv[1]);"
        "ControlServer(Path(sys.argv[2]), print).start(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    arguments = [sys.executable, "-c", code, lock_path(settings), str(settings.control.socket)]
    assert subprocess.run(arguments, check=False, timeout=30).returncode == -9
    assert settings.control.socket.is_socket()
    assert perform(settings, "undo", {}, alone=alone)[0] == "alone"


def test_a_state_folder_that_cannot_be_used_is_one_clear_sentence(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(Misconfigured, match=r"cannot use the state folder .*: File exists"):
        perform(settings, "undo", {}, alone=never)


COMMANDS = [
    (["models", "use", "tiny", "2"], "use", {"name": "tiny", "version": 2}, {"name": "tiny", "version": 2}),
    (["models", "rollback", "tiny"], "rollback", {"name": "tiny"}, {"name": "tiny", "version": 1}),
    (["db", "backup", "copy.db"], "backup", {"file": "{cwd}/copy.db"}, {"file": "{cwd}/copy.db", "size_bytes": 4096}),
]


@pytest.mark.parametrize("with_daemon", [True, False], ids=["daemon", "alone"])
@pytest.mark.parametrize(("words", "request_", "arguments", "result"), COMMANDS, ids=str)
def test_commands_that_change_something_ask_the_one_writer(
    tmp_path: Path,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    with_daemon: bool,
    words: list[str],
    request_: str,
    arguments: dict[str, Any],
    result: dict[str, Any],
) -> None:
    config = tmp_path / "pigeonholed.toml"
    config.write_text(
        f'[state]\ndir = "{settings.state.dir}"\n[control]\nsocket = "{settings.control.socket}"\n'
        '[[inbox]]\npath = "inbox"\noutput = "sorted"\nmodel = "tiny"\n'
    )
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    asked: list[tuple[str, dict[str, Any]]] = []

    def answer(request: str, arguments: dict[str, Any]) -> Any:
        asked.append((request, arguments))
        return result

    by_itself = never if with_daemon else answer
    monkeypatch.setattr("pigeonholed.operations.alone", lambda settings: by_itself)
    with serving(settings, answer) if with_daemon else nullcontext():
        shown = CliRunner().invoke(cli, [*words, "--config", str(config)])
        as_json = CliRunner().invoke(cli, [*words, "--json", "--config", str(config)])
    assert (shown.exit_code, as_json.exit_code) == (0, 0), shown.output
    expected = {
        key: value.replace("{cwd}", str(Path.cwd())) if key == "file" else value for key, value in arguments.items()
    }
    assert asked == [(request_, expected)] * 2
    assert json.loads(as_json.output) == result
    assert shown.output.strip()
