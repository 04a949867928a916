"""The schema of a prediction store: made, kept, refused and equal to what the queries believe.

Held by SQLite and PostgreSQL alike.
"""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Barrier

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text
from tests.support.predictions import (
    iris,
    raw_engine,
    read_all,
    stored,
    write,
)

from moorage_api.errors import Conflict
from moorage_gateway import store as prediction_store
from moorage_gateway.prediction_log import (
    PredictionStore,
)
from moorage_gateway.store import schema
from moorage_gateway.store.migration import VERSION_TABLE


def test_prepares_a_database_again_and_keeps_what_it_holds(store: PredictionStore) -> None:
    write(store, iris())

    store.prepare()

    assert len(read_all(store)) == 1


def test_threads_prepare_one_database_at_once(url: str) -> None:
    together = Barrier(6)

    def prepare() -> None:
        with closing(prediction_store.connect(url)) as store:
            together.wait()
            store.prepare()

    with ThreadPoolExecutor(6) as threads:
        for done in [threads.submit(prepare) for _ in range(6)]:
            done.result()

    assert stored(url, VERSION_TABLE) == 1


PREPARE = """
import sys
from moorage_gateway import store
one = store.connect(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
one.prepare()
one.close()
"""


def test_processes_prepare_one_database_at_once(url: str) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PREPARE, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    errors = [process.communicate(timeout=30)[1] for process in processes]

    assert [process.returncode for process in processes] == [0, 0, 0], errors
    assert stored(url, VERSION_TABLE) == 1


def test_refuses_a_newer_schema_and_names_both(store: PredictionStore, url: str) -> None:
    with raw_engine(url) as engine, engine.begin() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))

    with pytest.raises(Conflict, match=r"has schema 9999.*knows is 0001"):
        store.prepare()


def test_schema_is_what_the_migrations_make(store: PredictionStore, url: str) -> None:
    with raw_engine(url) as engine, engine.connect() as connection:
        on_sqlite = engine.dialect.name == "sqlite"
        context = MigrationContext.configure(
            connection,
            opts={
                "version_table": VERSION_TABLE,
                "compare_type": True,
                "compare_server_default": True,
                # Alembic does not look at an index's `ddl_if`.
                "include_name": lambda name, *_: name != VERSION_TABLE,
                "include_object": lambda _, name, *__: not (on_sqlite and name == "prediction_ts"),
            },
        )
        assert compare_metadata(context, schema.metadata) == []


def test_indexes_are_what_the_migrations_make(store: PredictionStore, url: str) -> None:
    """To the letter: alembic looks neither at an order nor at a condition."""
    with raw_engine(url) as engine, engine.begin() as connection:
        statement = text(
            "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'prediction'"
            if engine.dialect.name == "sqlite"
            else "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'prediction'"
        )
        migrated = set(connection.execute(statement))
        schema.metadata.drop_all(connection)
        schema.metadata.create_all(connection)

        assert set(connection.execute(statement)) == migrated
        assert len(migrated) >= 3
