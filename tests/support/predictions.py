"""Records to store, and how the contract suite of the prediction store reads them back."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, create_engine, text

from moorage_api import uuid7
from moorage_api.datatypes import DATATYPES
from moorage_api.signature import Signature, TensorSpec
from moorage_api.tensors import Tensor
from moorage_gateway.prediction_log import (
    Batch,
    ModelIdentity,
    Page,
    PredictionStore,
    Query,
    Record,
    StoredRow,
)
from moorage_gateway.store import engines

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
NOON_MS = int(NOON.timestamp() * 1000)
SOURCE = bytes(range(16))
IRIS = Signature(
    (TensorSpec("input", "FP32", (-1, 4)),),
    (
        TensorSpec("label", "BYTES", (-1,)),
        TensorSpec("probabilities", "FP32", (-1, 3), ("setosa", "versicolor", "virginica")),
    ),
)
NAN, INF = float("nan"), float("inf")


def identity(signature: Signature = IRIS, **parts: str) -> ModelIdentity:
    names = {
        "namespace": "default",
        "deployment": "iris",
        "variant": "stable",
        "model": "iris",
        "version": "1",
        "sha256": "a" * 64,
    }
    return ModelIdentity(**names | parts, signature=signature)


def make_id(milliseconds: int = 0, number: int = 0) -> bytes:
    """Return an id of a time after noon; of the same time, a higher number is newer."""
    return uuid7.build((NOON_MS + milliseconds) * 1_000_000, number.to_bytes(8, "big"))


def array_of(datatype: str, values: Any) -> np.ndarray[Any, Any]:
    if datatype == "BF16":
        return (np.asarray(values, "<f4").view("<u4") >> 16).astype("<u2")
    return np.asarray(values, DATATYPES[datatype].numpy)


def tensor(name: str, datatype: str, values: Any) -> Tensor:
    return Tensor(name, datatype, array_of(datatype, values))


def iris(
    milliseconds: int = 0, *, number: int = 0, rows: int = 1, of: ModelIdentity | None = None
) -> Record:
    """Return an answered request; its first input tells its time."""
    return Record(
        make_id(milliseconds, number),
        of or identity(),
        "v2",
        200,
        [tensor("input", "FP32", [[milliseconds, row, 0.1, -2.5] for row in range(rows)])],
        [
            tensor("label", "BYTES", ["setosa"] * rows),
            tensor("probabilities", "FP32", [[0.7, 0.2, 0.1]] * rows),
        ],
        rows,
    )


_sequences = itertools.count()


def write(store: PredictionStore, *records: Record) -> None:
    store.write(Batch(SOURCE, next(_sequences), records))


def only(rows: Sequence[StoredRow]) -> StoredRow:
    (row,) = rows
    return row


def read_pages(
    store: PredictionStore,
    query: Query,
    between: Callable[[], None] = lambda: None,
) -> Iterator[Page]:
    for _ in range(200):
        page = store.page(query)
        yield page
        if not page.cursor:
            return
        query = replace(query, after=page.cursor)
        between()
    pytest.fail("the pages do not end")


def read_all(store: PredictionStore, **wanted: Any) -> list[StoredRow]:
    return [row for page in read_pages(store, Query(**wanted)) for row in page.rows]


@contextmanager
def raw_engine(url: str) -> Iterator[Engine]:
    """Open the database as any other program would."""
    engine = create_engine(engines.parse(url))
    try:
        yield engine
    finally:
        engine.dispose()


def stored(url: str, table: str) -> int:
    with raw_engine(url) as engine, engine.connect() as connection:
        count: int = connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()
        return count
