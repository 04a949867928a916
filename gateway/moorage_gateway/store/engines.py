"""From a database's address to a SQLAlchemy engine that behaves as the store needs.

Nothing here connects: an engine does when it is first used.
"""

import sqlite3
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final, cast

import psycopg
from psycopg.conninfo import make_conninfo
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError

from moorage_api.errors import InvalidRequest

ACCEPTED: Final = "sqlite:///FOLDER/FILE.db or postgresql://USER:PASSWORD@HOST/DATABASE"

#: How long SQLite waits for another process's transaction; `?timeout=` of the address wins.
SQLITE_BUSY_S: Final = 5
#: Where the address does not say otherwise: after five seconds' silence the server is asked whether
#: it is there, three times, for a database behind a broken network must not hang the writer.
_POSTGRESQL_DEFAULTS: Final[dict[str, Any]] = {
    "application_name": "moorage",
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
#: What the store relies on, whatever the address says.
_POSTGRESQL_FIXED: Final[dict[str, Any]] = {
    # In COPY, texts are sent as UTF-8; a database of another encoding would take the bytes for its
    # own and store other characters.
    "client_encoding": "utf8",
    # Prepared statements outlive transactions, which poolers in between do not, and their generic
    # plans do not see which condition an index was made for.
    "prepare_threshold": None,
}
#: Longest time of one statement on PostgreSQL, waiting for locks included.
STATEMENT_TIMEOUT_S: Final = 30
#: Key of the advisory lock under which the schema is changed: "moorage" in ASCII.
SCHEMA_LOCK: Final = int.from_bytes(b"moorage", "big")

_WRITING: Final = "moorage_writing"


def parse(text: str) -> URL:
    """Read a database's address.

    Raises
    ------
    InvalidRequest
        When it is not one of the two kinds. The message does not repeat it: it may hold a password.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise InvalidRequest(f"this is no address of a database; give {ACCEPTED}") from None
    if url.drivername in ("postgresql", "postgres"):
        url = url.set(drivername="postgresql+psycopg")
    if url.drivername in ("sqlite", "sqlite+pysqlite"):
        if url.database in (None, "", ":memory:") or url.query.keys() - {"timeout"}:
            raise InvalidRequest(
                f"a SQLite database is a file, with no option but `timeout`; give {ACCEPTED}"
            )
    elif url.drivername != "postgresql+psycopg":
        raise InvalidRequest(
            f"databases of kind {url.drivername!r} are not supported; give {ACCEPTED}"
        )
    try:
        _, arguments = url.get_dialect()().create_connect_args(url)
        if url.get_backend_name() == "postgresql":
            # What libpq does not know is found now, and not taken for a database that is away.
            make_conninfo(**arguments)
    except (ArgumentError, ValueError, psycopg.ProgrammingError):
        raise InvalidRequest(
            f"host, port or options in the database's address are wrong; give {ACCEPTED}"
        ) from None
    return url


def name_of(url: URL) -> str:
    """Name a database for messages: where it is, and neither user nor password."""
    if url.get_backend_name() == "sqlite":
        return f"SQLite database {url.database!r}"
    host = url.host or url.query.get("host") or "the local socket"
    if isinstance(host, tuple):
        host = ",".join(host)
    port = f":{url.port}" if url.port else ""
    return f"PostgreSQL database {url.database or url.username!r} on {host}{port}"


def build(url: URL) -> Engine:
    """Return an engine for an address that `parse` gave."""
    if url.get_backend_name() == "sqlite":
        return _build_sqlite(url)
    return _build_postgresql(url)


def create_file(engine: Engine) -> None:
    """Make the folder and the file of a SQLite database, with a write-ahead log.

    A reader then never waits for the writer. The mode is a property of the file and stays.
    """
    Path(engine.url.database or "").parent.mkdir(parents=True, exist_ok=True)
    pooled = engine.raw_connection()
    try:
        connection = cast(sqlite3.Connection, pooled.dbapi_connection)
        # SQLite waits for no lock when it changes the mode (34 of 240 processes that made a file
        # at the same time failed), so the waiting is here.
        last_try = monotonic() + SQLITE_BUSY_S
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or monotonic() > last_try:
                    raise
            sleep(0.01)
    finally:
        pooled.close()


def for_writing(engine: Engine) -> Engine:
    """Return the same engine with transactions that are going to write.

    SQLite then takes its write lock at once. A transaction that began by reading could not wait
    for it: once another process has written, what was read is old and the upgrade is refused.
    """
    return engine.execution_options(**{_WRITING: True})


def _build_postgresql(url: URL) -> Engine:
    defaults = {key: value for key, value in _POSTGRESQL_DEFAULTS.items() if key not in url.query}
    engine = create_engine(
        url,
        # Whatever the server's default is: a lost race for a row must be seen in the same
        # transaction.
        isolation_level="READ COMMITTED",
        connect_args=defaults | _POSTGRESQL_FIXED,
        pool_pre_ping=True,
        pool_timeout=10,
        hide_parameters=True,
    )
    if "options" not in url.query:
        event.listen(engine, "connect", _limit_statements)
    return engine


def _limit_statements(connection: Any, _record: object) -> None:
    # Not as an `options` parameter of the connection: poolers refuse those.
    connection.autocommit = True
    connection.execute(f"SET statement_timeout = '{STATEMENT_TIMEOUT_S}s'")
    connection.autocommit = False


def _build_sqlite(url: URL) -> Engine:
    defaults = {} if "timeout" in url.query else {"timeout": SQLITE_BUSY_S}
    engine = create_engine(url, connect_args=defaults, pool_timeout=10, hide_parameters=True)
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _set_up_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # The driver would begin transactions by itself, and never where a statement only reads.
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys = ON")
    # With a write-ahead log a commit survives the process without a sync for each; a power loss
    # costs the last ones and no consistency.
    connection.execute("PRAGMA synchronous = NORMAL")


def _begin_sqlite(connection: Connection) -> None:
    writing = connection.get_execution_options().get(_WRITING)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")
