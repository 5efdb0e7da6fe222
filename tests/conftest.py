"""What every test may ask for. pytest adds this folder, so that tests import `helpers`, `auditor` and `bundles`."""

from __future__ import annotations

import shutil
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import Engine

import running
from helpers import FakeClock
from mounts import another_mount
from pigeonholed import database
from pigeonholed.amendments import Amendments
from pigeonholed.known_contents import KnownContents
from pigeonholed.ledger import Ledger
from pigeonholed.output import Output
from pigeonholed.patience import Patience
from pigeonholed.served_models import ServedModels
from pigeonholed.writer import Writer
from records_of import ON_POSTGRES
from servers import Server, shared_server

LONGEST = (
    "training/test_every_recipe.py", "crash/test_every_point.py", "integration/test_commands.py",
    "integration/test_recovery.py", "protocol/test_conformance.py", "crash/test_pauses.py", "crash/test_errors.py",
    "training/test_tuning.py", "crash/test_outages.py", "training/test_backbones.py", "training/test_importing.py",
    "integration/test_demo.py", "crash/test_kill.py", "crash/test_poison.py", "unit/test_bench.py",
    "integration/test_sidecars.py", "training/test_session.py", "training/test_publish.py",
    "pipeline/test_pipeline.py", "integration/test_operations.py", "integration/test_copying.py",
    "training/test_real_pictures.py", "training/test_transfer.py",
)  # fmt: skip
"""Files by the time that they take. Two processes share out whole files: a long one that comes last is waited for."""

_LEFT_OUT = pytest.StashKey[Mapping[str, int]]()
_OF_BOTH_KINDS = {"empty_url", "migrated_url"}


@pytest.fixture(scope="session")
def migrated_file() -> Path:
    """An SQLite database of the newest schema, to be copied."""
    return running.migrated_file()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The longest files come first; `make test-postgres` leaves out what is not for it, or runs on both kinds."""
    ranks = {Path(__file__).parent / name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))
    if ON_POSTGRES:
        reasons = [_reason_to_leave_out(item) for item in items]
        config.stash[_LEFT_OUT] = Counter(reason for reason in reasons if reason is not None)
        left_out = [item for item, reason in zip(items, reasons, strict=True) if reason is not None]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item, reason in zip(items, reasons, strict=True) if reason is None]


def _reason_to_leave_out(item: pytest.Item) -> str | None:
    if item.get_closest_marker("sqlite"):
        return "about the file of SQLite"
    if _OF_BOTH_KINDS & set(getattr(item, "fixturenames", ())):
        return "run on SQLite and on Postgres by make test"
    return None


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A process of pytest-xdist tells the one that started it what it has left out."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = dict(session.config.stash.get(_LEFT_OUT, {}))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """They have all collected the same."""
    node.config.stash[_LEFT_OUT] = getattr(node, "workeroutput", {}).get("left_out", {})


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say how many were left out, and why."""
    for reason, number in config.stash.get(_LEFT_OUT, {}).items():
        terminalreporter.write_line(f"{number} tests left out: {reason}")


@pytest.fixture(scope="module", autouse=True)
def _tidy() -> Iterator[None]:
    """Remove the databases that the tests of a module have made on a server."""
    yield
    if shared_server.cache_info().currsize:
        shared_server().drop_those_of_tests()


@pytest.fixture(scope="session")
def postgres() -> Server:
    """A Postgres server, one for each process of pytest; it starts when the first test asks for it."""
    return shared_server()


@pytest.fixture(scope="session")
def migrated_template(postgres: Server) -> str:
    """The address of a Postgres database of the newest schema, to be copied."""
    return postgres.template()


@pytest.fixture(params=["sqlite", "postgres"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a database without tables, once for each kind that is served."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    server: Server = request.getfixturevalue("postgres")
    url = server.make()
    yield url
    server.drop(url)


@pytest.fixture(params=["sqlite", "postgres"])
def migrated_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a database of the newest schema, once for each kind that is served."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("migrated_file"), tmp_path / "pigeonholed.db")
        yield f"sqlite:///{tmp_path / 'pigeonholed.db'}"
        return
    server: Server = request.getfixturevalue("postgres")
    url = server.make(request.getfixturevalue("migrated_template"))
    yield url
    server.drop(url)


@pytest.fixture
def db(migrated_url: str) -> Iterator[Engine]:
    """An engine on a database of the newest schema."""
    engine = database.connect(migrated_url)
    yield engine
    engine.dispose()


@pytest.fixture
def writer(db: Engine) -> Iterator[Writer]:
    """A started writer."""
    writer = Writer(db, patience_s=5.0)
    writer.start()
    writer.begin()
    yield writer
    writer.stop()


@pytest.fixture
def ledger(db: Engine, writer: Writer) -> Ledger:
    """A ledger on a real database."""
    return Ledger(db, writer)


@pytest.fixture
def amendments(db: Engine, writer: Writer) -> Amendments:
    """What mending asks and changes in the same database."""
    return Amendments(db, writer)


@pytest.fixture
def served(db: Engine, writer: Writer) -> ServedModels:
    """Which versions of models have served, by the same database."""
    return ServedModels(db, writer)


@pytest.fixture
def contents(db: Engine, writer: Writer) -> KnownContents:
    """What is filed in the same database, for inboxes that set duplicates aside."""
    return KnownContents(db, writer)


@pytest.fixture
def output(tmp_path: Path) -> Iterator[Output]:
    """An output folder that this process owns."""
    output = Output.open(tmp_path / "sorted", None)
    yield output
    output.close()


@pytest.fixture
def other_mount(tmp_path: Path) -> Iterator[Path]:
    """An empty folder on another mount than `tmp_path`."""
    with another_mount(tmp_path) as folder:
        yield folder


@pytest.fixture
def clock() -> FakeClock:
    """A clock that the test moves."""
    return FakeClock()


@pytest.fixture
def patience() -> Patience:
    """Patience that waits next to nothing and gives up at once when it is told to end."""
    return Patience(threading.Event(), first_wait_s=0.001, longest_wait_s=0.001, grace_s=0.0)
