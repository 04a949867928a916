"""A prediction store whose database is away, and comes back.

Held by SQLite and PostgreSQL alike.
"""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.support.predictions import (
    NOON,
    SOURCE,
    iris,
    make_id,
    only,
    read_all,
    write,
)

from moorage_api.errors import StoreUnavailable
from moorage_gateway import store as prediction_store
from moorage_gateway.prediction_log import (
    Batch,
    PredictionStore,
    Query,
)


def assert_unavailable(store: PredictionStore, *, hidden: str = "s3cret") -> None:
    actions: list[Callable[[], object]] = [
        store.prepare,
        lambda: write(store, iris()),
        lambda: store.page(Query()),
        lambda: store.find(make_id()),
        store.count,
    ]
    for action in actions:
        with pytest.raises(StoreUnavailable) as caught:
            action()
        error: BaseException | None = caught.value
        while error is not None:
            assert hidden not in str(error)
            error = error.__cause__ or error.__context__


def test_a_server_that_is_not_there_is_unavailable(unused_port: int) -> None:
    url = f"postgresql://somebody:s3cret@127.0.0.1:{unused_port}/predictions"
    with closing(prediction_store.connect(url)) as store:
        assert_unavailable(store)
        with pytest.raises(StoreUnavailable, match=f"'predictions' on 127.0.0.1:{unused_port}"):
            store.prepare()


@pytest.mark.postgres
def test_a_database_that_is_not_there_is_unavailable(postgresql: Any) -> None:
    with closing(prediction_store.connect(postgresql.url("nowhere"))) as store:
        assert_unavailable(store)


@pytest.mark.postgres
def test_a_stopped_server_is_unavailable_until_it_is_back(
    postgresql: Any, postgresql_url: str
) -> None:
    batch = Batch(SOURCE, -1, [iris(), iris(1)])
    with closing(prediction_store.connect(postgresql_url)) as store:
        store.prepare()
        write(store, iris(2))

        postgresql.stop()
        try:
            assert_unavailable(store)
            with pytest.raises(StoreUnavailable):
                store.write(batch)
        finally:
            postgresql.start()

        store.write(batch)
        assert len(read_all(store)) == 3


def end_connections(url: str) -> list[str]:
    """End all connections to a database, and tell the last statement of each."""
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "SELECT query, pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        return [query for query, _ in found]


@pytest.mark.postgres
def test_a_connection_lost_while_idle_is_opened_again(postgresql_url: str) -> None:
    with closing(prediction_store.connect(postgresql_url)) as store:
        store.prepare()
        write(store, iris())

        assert len(end_connections(postgresql_url)) == 1

        write(store, iris(1))
        assert len(read_all(store)) == 2


class Interruption(str):
    """A text that ends the connection over which it is just being sent."""

    url = ""
    ended: tuple[str, ...] = ()

    def __contains__(self, part: object) -> bool:
        self.ended += tuple(end_connections(self.url))
        return isinstance(part, str) and super().__contains__(part)


@pytest.mark.postgres
def test_a_connection_lost_within_a_batch_loses_and_doubles_nothing(postgresql_url: str) -> None:
    with closing(prediction_store.connect(postgresql_url)) as store:
        store.prepare()
        interruption = Interruption("abc")
        interruption.url = postgresql_url
        batch = Batch(SOURCE, -1, [iris(), replace(iris(1), client_id=interruption), iris(2)])

        with pytest.raises(StoreUnavailable):
            store.write(batch)
        assert [query.split()[0] for query in interruption.ended] == ["COPY"]
        assert read_all(store) == []
        store.write(replace(batch, records=[iris(), iris(1), iris(2)]))

        assert len(read_all(store)) == 3


@pytest.mark.postgres
def test_a_read_only_database_is_unavailable_for_writing(postgresql_url: str) -> None:
    with closing(prediction_store.connect(postgresql_url)) as store:
        store.prepare()
        write(store, iris())
    read_only = f"{postgresql_url}&options=-cdefault_transaction_read_only%3Don"
    with closing(prediction_store.connect(read_only)) as store:
        with pytest.raises(StoreUnavailable):
            write(store, iris(1))
        assert len(read_all(store)) == 1


@pytest.mark.postgres
def test_neither_encoding_nor_time_zone_of_a_database_matter(postgresql: Any) -> None:
    latin_1 = "TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'"
    with (
        postgresql.database(latin_1) as url,
        closing(prediction_store.connect(f"{url}&options=-ctimezone%3DAsia/Kathmandu")) as store,
    ):
        store.prepare()
        write(store, replace(iris(), client_id="é", error="ü"))

        row = only(read_all(store))

    assert (row.client_id, row.error) == ("é", "ü")
    assert row.timestamp == NOON
    assert row.timestamp.utcoffset() == timedelta(0)


def _folder_is_a_file(folder: Path) -> Path:
    (folder / "file").touch()
    return folder / "file" / "predictions.db"


def _file_is_a_folder(folder: Path) -> Path:
    return folder


def _file_is_another(folder: Path) -> Path:
    (folder / "notes.txt").write_text("This is no database. " * 100)
    return folder / "notes.txt"


@pytest.mark.parametrize("place", [_folder_is_a_file, _file_is_a_folder, _file_is_another])
def test_a_place_where_no_file_can_be_is_unavailable(
    tmp_path: Path, place: Callable[[Path], Path]
) -> None:
    with closing(prediction_store.connect(f"sqlite:///{place(tmp_path)}")) as store:
        assert_unavailable(store)


def test_a_file_that_is_not_prepared_is_unavailable_until_it_is(tmp_path: Path) -> None:
    batch = Batch(SOURCE, -1, [iris()])
    with closing(prediction_store.connect(f"sqlite:///{tmp_path}/new/predictions.db")) as store:
        with pytest.raises(StoreUnavailable):
            store.write(batch)
        store.prepare()
        store.write(batch)

        assert len(read_all(store)) == 1


def test_a_locked_file_is_unavailable_until_it_is_free(tmp_path: Path) -> None:
    path = tmp_path / "predictions.db"
    batch = Batch(SOURCE, -1, [iris()])
    with (
        closing(prediction_store.connect(f"sqlite:///{path}?timeout=0.01")) as store,
        closing(sqlite3.connect(path, isolation_level=None)) as other,
    ):
        store.prepare()
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked"):
            store.write(batch)
        with pytest.raises(StoreUnavailable, match="locked"):
            store.prepare()
        assert read_all(store) == []  # Who reads waits for nobody.
        other.execute("ROLLBACK")

        store.write(batch)
        assert len(read_all(store)) == 1


def test_a_closed_store_opens_again(store: PredictionStore) -> None:
    write(store, iris())
    store.close()

    assert len(read_all(store)) == 1
