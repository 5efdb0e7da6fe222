"""`pigeonholed status`, beside a daemon that is played by a control server, and without one."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rich.console import Console
from sqlalchemy.engine import Engine

from pigeonholed import database, status_view
from pigeonholed.cli import cli
from pigeonholed.commands.status import follow
from pigeonholed.control import ControlServer
from pigeonholed.drift import Drift, State
from pigeonholed.errors import Unavailable
from pigeonholed.images import Placement
from pigeonholed.locking import Lock, holder_of
from pigeonholed.metrics import Stage
from pigeonholed.statistics import InboxView, ModelStatus, Statistics
from pigeonholed.tables import images

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)

CONFIG = """
[[inbox]]
name = "camera"
path = "inbox"
output = "sorted"
model = "tiny"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "pigeonholed.toml"
    file.write_text(CONFIG)
    return file


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[ControlServer]:
    """A daemon as `status` sees it."""
    server = ControlServer(
        tmp_path / "pigeonholed.sock", lambda request, arguments: facts() if request == "status" else None
    )
    server.start()
    yield server
    server.close()


def facts() -> dict[str, Any]:
    statistics = Statistics({"camera": "/in/camera"})
    statistics.filed(
        {("camera", Placement.SORTED): 40, ("camera", Placement.REJECTED): 2},
        {("camera", "cat"): 30, ("camera", "dog"): 10},
    )
    statistics.trouble("stage_blocked", "No space left on device")
    model = ModelStatus("tiny", 3, "openvino", "cpu", "f32", ("camera",))
    view = InboxView(True, 7, True, 65.0, drift=Drift(State.TOO_FEW, 37))
    return statistics.status({"camera": view}, {Stage.DECODE: 5}, [model], {"metrics": "127.0.0.1:9109"}).as_dict()


def test_drift_is_told_in_plain_words() -> None:
    drifts: dict[str, dict[str, Any] | None] = {
        "too few": {"state": "too-few", "images": 37},
        "same": {"state": "as-at-training", "images": 900},
        "other": {
            "state": "shifted",
            "images": 900,
            "labels": {"shifted": True, "at": "cat", "now": 0.401, "at_training": 0.12},
            "confidence": {"shifted": False, "at": "0.9", "now": 0.1, "at_training": 0.1},
        },
        "both": {
            "state": "shifted",
            "labels": {"shifted": True, "at": "c\x1bt", "now": 0.401, "at_training": 0.12},
            "confidence": {"shifted": True, "at": "0.9", "now": 0.35, "at_training": 0.051},
        },
        "old model": {"state": "no-reference", "images": 900},
        "old daemon": None,
        "newer daemon": {"state": "shifted", "labels": {"shifted": True}},
        "much newer daemon": {"state": "odd"},
    }
    shown = lines_of({"running": True, "inboxes": [{"name": name, "drift": drift} for name, drift in drifts.items()]})
    assert [line for line in shown if ": " in line] == [
        "too few: 37 pictures yet, too few to compare with training",
        "same: as at training",
        "other: labels shifted: 40 % cat, 12 % at training",
        "both: the model is less sure: 35 % below 0.9, 5 % at training; labels shifted: 40 % c\\x1bt, 12 % at training",
        "newer daemon: labels shifted: ? % None, ? % at training",
    ]


def lines_of(facts: dict[str, Any]) -> list[str]:
    console = Console(file=io.StringIO(), width=160)
    console.print(status_view.render(facts))
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines() if not line.startswith("queue")]


def status(config: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["status", *arguments, "--config", str(config)])


def record(engine: Engine, *rows: tuple[str, str, str | None]) -> None:
    """Rows of inbox, status and outcome."""
    with engine.begin() as connection:
        for number, (inbox, state, outcome) in enumerate(rows, 1):
            filed_at = NOON + timedelta(seconds=number) if state == "filed" else None
            connection.execute(
                images.insert().values(
                    id=number,
                    inbox=inbox,
                    source_path=f"{number}.png",
                    status=state,
                    outcome=outcome,
                    arrived_at=NOON,
                    filed_at=filed_at,
                    arrival=f"{number:032x}",
                    token="t",
                )
            )


@pytest.mark.usefixtures("serving")
def test_the_daemon_is_shown_in_tables(config: Path) -> None:
    result = status(config)
    assert result.exit_code == 0
    for word in ("camera", "42", "40", "1 min 05 s", "metrics 127.0.0.1:9109", "tiny", "openvino", "cat 30, dog 10"):
        assert word in result.output
    assert "stage_blocked: No space left on device" in result.output
    assert "settle 7 · decode 5" in result.output


@pytest.mark.usefixtures("serving")
def test_json_is_what_the_daemon_says(config: Path) -> None:
    told = json.loads(status(config, "--json").output)
    assert told["running"] is True
    assert told["inboxes"][0]["filed"] == 42
    assert told["queue"] == {"settle": 7, "decode": 5}
    assert told["inboxes"][0]["drift"]["state"] == "too-few"


def name_database(config: Path, db: Engine) -> None:
    """Let the configuration name the database, where it would not find it by itself."""
    if db.dialect.name != "sqlite":
        url = db.url.render_as_string(hide_password=False)
        config.write_text(f'{CONFIG}[database]\nurl = "{url}"\n')


def test_without_a_daemon_the_database_is_counted(config: Path, db: Engine) -> None:
    name_database(config, db)
    record(
        db,
        ("camera", "filed", "sorted"),
        ("camera", "filed", "sorted"),
        ("camera", "filed", "rejected"),
        ("camera", "planned", "sorted"),
        ("camera", "claimed", None),
        ("camera", "returned", "sorted"),
        ("camera", "vanished", None),
        ("old", "filed", "unsure"),
    )
    told = json.loads(status(config, "--json").output)
    assert (told["running"], told["holder"]) == (False, None)
    camera, old = told["inboxes"]
    assert camera == {
        "name": "camera",
        "path": str(config.parent / "inbox"),
        "filed": 3,
        "sorted": 2,
        "unsure": 0,
        "rejected": 1,
        "duplicate": 0,
        "in_flight": 2,
        "returned": 1,
        "lost": 0,
        "last_filed_at": "2026-01-01T12:00:03.000Z",
    }
    assert (old["name"], old["path"], old["unsure"]) == ("old", None, 1)
    shown = status(config)
    assert shown.exit_code == 0
    assert "no daemon is running" in shown.output
    assert "old" in shown.output


def test_counting_leaves_the_database_as_it_is(config: Path, migrated_file: Path) -> None:
    file = config.parent / "pigeonholed.db"
    shutil.copy(migrated_file, file)
    db = database.connect(f"sqlite:///{file}")
    record(db, ("camera", "filed", "sorted"))
    db.dispose()
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")  # which a connection that may write would change back
    before = file.read_bytes()
    assert status(config).exit_code == 0
    assert file.read_bytes() == before


def test_what_a_killed_daemon_left_in_the_log_of_the_database_is_counted(
    config: Path, tmp_path: Path, migrated_file: Path
) -> None:
    (tmp_path / "alive").mkdir()
    shutil.copy(migrated_file, tmp_path / "alive" / "pigeonholed.db")
    engine = database.connect(f"sqlite:///{tmp_path / 'alive' / 'pigeonholed.db'}")
    with engine.connect():  # open, so that what follows stays in the log
        record(engine, ("camera", "filed", "sorted"))
        for name in ("pigeonholed.db", "pigeonholed.db-wal"):
            shutil.copy(tmp_path / "alive" / name, tmp_path / name)
    engine.dispose()
    assert json.loads(status(config, "--json").output)["inboxes"][0]["filed"] == 1


@pytest.mark.parametrize("content", [None, b""], ids=["missing", "empty"])
def test_before_the_first_run_all_is_zero(config: Path, content: bytes | None) -> None:
    file = config.parent / "pigeonholed.db"
    if content is not None:
        file.write_bytes(content)
    result = status(config, "--json")
    assert (result.exit_code, json.loads(result.output)["inboxes"][0]["filed"]) == (0, 0)
    assert file.exists() == (content is not None)


def test_a_database_that_is_none_is_one_clear_sentence(config: Path) -> None:
    (config.parent / "pigeonholed.db").write_bytes(b"not a database" * 100)
    result = status(config)
    assert result.exit_code == 69
    assert "cannot use the database" in result.output


def test_a_daemon_that_does_not_listen_yet_is_named_without_touching_its_lock(config: Path) -> None:
    lock_file = config.parent / "pigeonholed.lock"
    assert holder_of(str(lock_file)) is None
    code = (
        "import sys; from pigeonholed.locking import Lock, holder_of; lock = Lock.take(sys.argv[1]);"
        "print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(lock_file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        result = status(config)
        holder.communicate()
    assert result.exit_code == 0
    assert f"process {holder.pid} holds the state folder but does not listen" in result.output.replace("\n", " ")
    assert holder_of(str(lock_file)) is None
    Lock.take(str(lock_file)).release()


def test_a_refusal_by_the_daemon_is_the_exit_code(config: Path) -> None:
    def refuse(request: str, arguments: dict[str, Any]) -> Any:
        raise Unavailable("ask me later")

    server = ControlServer(config.parent / "pigeonholed.sock", refuse)
    server.start()
    result = status(config)
    server.close()
    assert (result.exit_code, result.output) == (69, "pigeonholed: ask me later\n")


def end_after(looks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C, so many seconds later."""
    left = iter(range(looks - 1))

    def pause(seconds: float) -> None:
        assert seconds == 1.0
        if next(left, None) is None:
            raise KeyboardInterrupt

    monkeypatch.setattr(follow, "__defaults__", (pause,))


@pytest.mark.usefixtures("serving")
def test_watching_off_a_terminal_is_a_line_a_second_until_ctrl_c(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    end_after(3, monkeypatch)
    result = status(config, "--watch")
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert len(lines) == 3
    assert "42 filed since the start, 12 waiting" in lines[0]


@pytest.mark.usefixtures("serving")
def test_watching_as_json_is_an_object_a_line(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    end_after(2, monkeypatch)
    lines = status(config, "--watch", "--json").output.splitlines()
    assert [json.loads(line)["inboxes"][0]["filed"] for line in lines] == [42, 42]


def test_watching_outlives_a_daemon_and_counts_once_without_one(
    config: Path, db: Engine, serving: ControlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    name_database(config, db)
    record(db, ("camera", "filed", "sorted"))
    seconds = iter(range(10))

    def pause(_seconds: float) -> None:
        match next(seconds):
            case 0:
                serving.close()
            case 1:
                with db.begin() as connection:  # asked again, it would say none
                    connection.exec_driver_sql("UPDATE images SET status = 'returned'")
            case 2:
                raise KeyboardInterrupt

    monkeypatch.setattr(follow, "__defaults__", (pause,))
    lines = status(config, "--watch").output.splitlines()
    assert "42 filed since the start" in lines[0]
    assert all("no daemon is running" in line and "1 files are recorded" in line for line in lines[1:])
    assert len(lines) == 3


def test_a_trouble_of_a_moment_does_not_end_the_watching(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (config.parent / "pigeonholed.db").write_bytes(b"not a database" * 100)
    end_after(2, monkeypatch)
    result = status(config, "--watch")
    assert result.exit_code == 0
    assert [("cannot use the database" in line) for line in result.output.splitlines()] == [True, True]


def painted(facts: dict[str, Any], *, unicode: bool = True) -> str:
    stream = io.StringIO()
    Console(file=stream, width=160, highlight=False).print(status_view.render(facts, unicode=unicode))
    return stream.getvalue()


def test_a_terminal_without_unicode_gets_a_sparkline_in_ascii() -> None:
    assert "█" in painted(facts())
    assert not set("▁█") & set(painted(facts(), unicode=False))


def test_names_can_neither_paint_nor_forge() -> None:
    told = facts()
    told["inboxes"][0]["name"] = "[red]x[/]\x1b[2J\n"
    told["errors"][0]["detail"] = "\x1b]0;owned\x07"
    shown = painted(told)
    assert "[red]x[/]\\x1b[2J\\n" in shown.replace("│", "")
    assert "\x1b" not in shown


def test_a_daemon_of_another_version_may_say_less_or_more() -> None:
    assert "pigeonholed ?" in painted({"running": True, "inboxes": [{"name": "camera"}], "queue": {}, "new": 1})


def test_more_that_may_wait_and_a_missing_inbox_are_said() -> None:
    told = facts()
    told["inboxes"][0]["waiting_is_all"] = False
    assert "7 or more" in painted(told)
    told["inboxes"][0]["available"] = False
    assert "MISSING" in painted(told)


def test_inbox_that_only_scans_look_at_is_named() -> None:
    told = facts()
    told["inboxes"][0]["events"] = True
    assert "found by scans" not in painted(told)
    told["inboxes"][0]["events"] = False
    assert f"no file events, found by scans: {told['inboxes'][0]['name']}" in painted(told)


@pytest.mark.parametrize(
    ("counts", "bars"), [([], ""), ([0, 0], "▁▁"), ([0, 1], "▁█"), ([1, 50, 100], "▂▅█"), ([0, 7, 14], "▁▅█")]
)
def test_a_sparkline_tells_none_from_few(counts: list[int], bars: str) -> None:
    assert status_view.sparkline(counts) == bars


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (3599, "59 min 59 s"),
        (7380, "2 h 03 min"),
        (90_000, "1 d 1 h"),
    ],
)
def test_durations_are_in_their_two_largest_units(seconds: float | None, text: str) -> None:
    assert status_view.duration(seconds) == text


@pytest.mark.usefixtures("serving")
def test_watching_on_a_terminal_ends_cleanly_with_ctrl_c(config: Path) -> None:
    main, terminal = os.openpty()
    code = "from pigeonholed.__main__ import main; main()"
    arguments = [sys.executable, "-c", code, "status", "--watch", "--config", str(config)]
    shown = b""
    with subprocess.Popen(
        arguments, stdin=terminal, stdout=terminal, stderr=subprocess.PIPE, env=os.environ | {"TERM": "xterm"}
    ) as process:
        os.close(terminal)
        while b"nothing to do" not in shown and b"end not in sight" not in shown and b"done in" not in shown:
            shown += os.read(main, 65536)
        process.send_signal(signal.SIGINT)
        while b"\x1b[?25h" not in shown:  # the cursor is back
            shown += os.read(main, 65536)
        assert process.stderr is not None
        assert process.stderr.read() == b""
    os.close(main)
    assert process.returncode == 0
