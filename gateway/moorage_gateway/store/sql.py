"""The prediction store over SQLite and PostgreSQL: one set of statements, two ways to insert rows.

Each method is one transaction. A driver's error leaves as one of Moorage's, the original behind it.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast

import psycopg
from sqlalchemy import Connection, Row, func, select
from sqlalchemy.dialects import postgresql, sqlite

from moorage_api import uuid7
from moorage_gateway.prediction_log import Batch, Page, Query, Record, StoredRow
from moorage_gateway.store import (
    binary_copy,
    engines,
    migration,
    paging,
    rows,
    text_insert,
    versions,
)
from moorage_gateway.store.failures import translated
from moorage_gateway.store.features import SLOTS
from moorage_gateway.store.schema import ingest_batch, prediction
from moorage_gateway.store.versions import Key, StoredVersion, Versions

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
#: Lines are sent in pieces of about this many bytes.
_CHUNK_BYTES: Final = 256 * 1024


class SqlPredictionStore:
    """A `PredictionStore` in a SQLite file or a PostgreSQL database.

    Parameters
    ----------
    url
        `sqlite:///path/to/file.db` or `postgresql://user:password@host/database`.

    Raises
    ------
    InvalidRequest
        When `url` is neither.

    Notes
    -----
    Nothing is connected to before the first call of a method.
    """

    def __init__(self, url: str) -> None:
        address = engines.parse(url)
        #: Names the database in messages, without user and password.
        self.name = engines.name_of(address)
        self._engine = engines.build(address)
        self._versions = Versions(self._engine)

    def prepare(self) -> None:
        """Bring the schema up to date; see `PredictionStore.prepare`."""
        with translated(self.name):
            self._versions.forget()
            migration.upgrade(self._engine, self.name)

    def write(self, batch: Batch) -> None:
        """Store a batch, all or nothing, once; see `PredictionStore.write`."""
        groups = _by_version(batch.records)
        with translated(self.name):
            stored = self._versions.register(
                {key: records[0].identity for key, records in groups.items()}
            )
            blocks = [
                (stored[key].id, rows.encode(records, stored[key].layout))
                for key, records in groups.items()
            ]
            with engines.for_writing(self._engine).begin() as connection:
                if _enter(connection, batch, sum(sum(block.counts) for _, block in blocks)):
                    for model_version_id, block in blocks:
                        _insert(connection, model_version_id, block)

    def page(self, query: Query) -> Page:
        """Return stored rows, newest first; see `PredictionStore.page`."""
        with translated(self.name), self._engine.begin() as connection:
            statement = paging.build(query, versions.matching(connection, query))
            found = connection.execute(statement).all()
            shown = self._read(connection, found[: query.limit])
        if len(found) <= query.limit:
            return Page(shown, "")
        return Page(shown, paging.encode_cursor(paging.position_of(found[query.limit - 1])))

    def find(self, request_id: bytes) -> list[StoredRow]:
        """Return all rows of one prediction; see `PredictionStore.find`."""
        if len(request_id) != 16:
            return []
        table = prediction.c
        statement = (
            select(prediction)
            .where(table.request_id == request_id)
            .order_by(table.row, table.model_version_id)
        )
        with translated(self.name), self._engine.begin() as connection:
            return self._read(connection, connection.execute(statement).all())

    def count(self) -> Iterator[tuple[str, int]]:
        """Yield ("namespace/deployment", stored rows); see `PredictionStore.count`."""
        table = prediction.c
        statement = select(table.model_version_id, func.count()).group_by(table.model_version_id)
        counts: dict[str, int] = {}
        with translated(self.name), self._engine.begin() as connection:
            found = connection.execute(statement).all()
            known = self._versions.by_id(connection, (number for number, _ in found))
        for number, count in found:
            namespace, deployment, *_ = known[number].key
            name = f"{namespace}/{deployment}"
            counts[name] = counts.get(name, 0) + count
        return iter(sorted(counts.items()))

    def close(self) -> None:
        """Give connections back."""
        self._engine.dispose()

    def _read(self, connection: Connection, found: Sequence[Row[Any]]) -> list[StoredRow]:
        known = self._versions.by_id(connection, (row.model_version_id for row in found))
        return [_stored_row(row, known[row.model_version_id]) for row in found]


def _by_version(records: Iterable[Record]) -> dict[Key, list[Record]]:
    groups: dict[Key, list[Record]] = {}
    for record in records:
        groups.setdefault(versions.key_of(record.identity), []).append(record)
    return groups


def _enter(connection: Connection, batch: Batch, count: int) -> bool:
    """Enter a batch into the ledger; False when it is there."""
    insert_once = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    times = [rows.timestamp_ms(record.id) for record in batch.records]
    statement = insert_once(ingest_batch).values(
        source=batch.source,
        sequence=batch.sequence,
        rows=count,
        first_ts=_datetime(min(times)) if times else None,
        last_ts=_datetime(max(times)) if times else None,
    )
    # Not by the driver's count of rows, which SQLAlchemy does not promise for an insert.
    once = statement.on_conflict_do_nothing().returning(ingest_batch.c.sequence)
    return connection.scalar(once) is not None


def _insert(connection: Connection, model_version_id: int, block: rows.Block) -> None:
    if connection.dialect.name == "sqlite":
        values = list(text_insert.parameters(block, model_version_id))
        connection.exec_driver_sql(text_insert.STATEMENT, values)
        return
    driver = cast("psycopg.Connection[Any]", connection.connection.dbapi_connection)
    with driver.cursor() as cursor, cursor.copy(binary_copy.STATEMENT) as copy:
        chunk = bytearray(binary_copy.HEADER)
        for line in binary_copy.lines(block, model_version_id):
            chunk += line
            if len(chunk) > _CHUNK_BYTES:
                copy.write(bytes(chunk))
                chunk.clear()
        copy.write(bytes(chunk) + binary_copy.TRAILER)


def _stored_row(row: Row[Any], version: StoredVersion) -> StoredRow:
    mapping = row._mapping
    slots = {slot: mapping[slot] for names in SLOTS.values() for slot in names}
    values = rows.decode(version.layout, slots, row.blob, row.meta)
    namespace, deployment, variant, model, label, sha256 = version.key
    return StoredRow(
        request_id=uuid7.text(row.request_id),
        row=row.row,
        timestamp=row.ts,
        namespace=namespace,
        deployment=deployment,
        variant=variant,
        model=model,
        version=label,
        sha256=sha256,
        protocol=row.protocol,
        status=row.status,
        weight=row.weight,
        timing_us={"total": row.latency_us, **row.meta["timing_us"]},
        client_id=row.client_id or "",
        error=row.meta.get("error", ""),
        inputs=values["input"],
        outputs=values["output"],
    )


def _datetime(milliseconds: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=milliseconds)
