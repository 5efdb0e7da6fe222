"""What every test may ask for. pytest adds this folder, so that tests import `helpers`, `auditor` and `bundles`."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.engine import Engine

from helpers import FakeClock
from mounts import another_mount
from pigeonholed import database
from pigeonholed.ledger import Ledger
from pigeonholed.output import Output
from pigeonholed.patience import Patience
from pigeonholed.writer import Writer
from records_of import ON_POSTGRES
from servers import Server, shared_server


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite database of the newest schema, to be copied: that is faster than migrating each."""
    file = tmp_path_factory.mktemp("schema") / "empty.db"
    engine = database.connect(f"sqlite:///{file}")
    database.upgrade(engine)
    engine.dispose()
    return file


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Under `make test-postgres`, leave out what is about SQLite's file; pytest says how many."""
    if ON_POSTGRES:
        left_out = [item for item in items if item.get_closest_marker("sqlite")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


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
