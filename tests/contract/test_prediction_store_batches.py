"""Batches in a prediction store: all or nothing, and once.

Held by SQLite and PostgreSQL alike.
"""

import itertools
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from threading import Barrier
from typing import Any

import pytest
from tests.support.predictions import (
    SOURCE,
    identity,
    iris,
    make_id,
    read_all,
    stored,
    tensor,
    write,
)

from moorage_api.errors import InvalidRequest
from moorage_api.signature import Signature, TensorSpec
from moorage_gateway import store as prediction_store
from moorage_gateway.prediction_log import (
    Batch,
    PredictionStore,
    Record,
)


def test_a_batch_is_stored_once(store: PredictionStore) -> None:
    batch = Batch(SOURCE, -1, [iris(), iris(1)])

    store.write(batch)
    store.write(batch)
    store.write(replace(batch, source=bytes(16)))

    assert len(read_all(store)) == 4


def test_one_batch_from_several_threads_is_stored_once(store: PredictionStore) -> None:
    batch = Batch(SOURCE, -1, [iris(number) for number in range(50)])
    together = Barrier(4)

    def write_it() -> None:
        together.wait()
        store.write(batch)

    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(write_it) for _ in range(4)]:
            done.result()

    assert len(read_all(store)) == 50


def test_an_empty_batch_is_nothing(store: PredictionStore) -> None:
    write(store)

    assert read_all(store) == []


@pytest.mark.parametrize(
    "refused",
    [
        pytest.param({"status": 2**64}, id="number"),
        pytest.param({"protocol": "v2\ud800"}, id="text"),
    ],
)
def test_a_batch_with_a_refused_record_leaves_nothing(
    store: PredictionStore, refused: dict[str, Any]
) -> None:
    bad = replace(iris(700), **refused)
    of_another = identity(deployment="other")
    batch = Batch(SOURCE, -1, [*(iris(n) for n in range(700)), bad, iris(701, of=of_another)])

    with pytest.raises(InvalidRequest):
        store.write(batch)
    assert read_all(store) == []

    store.write(replace(batch, records=[iris(), iris(1)]))
    assert len(read_all(store)) == 2


@pytest.mark.postgres
def test_what_postgresql_itself_refuses_leaves_nothing(postgresql_url: str) -> None:
    with closing(prediction_store.connect(postgresql_url)) as store:
        store.prepare()

        with pytest.raises(InvalidRequest, match="refuses the data"):
            write(store, iris(), replace(iris(1), protocol="\0"))

        assert read_all(store) == []


def test_one_batch_holds_records_of_several_models(store: PredictionStore) -> None:
    cube = Signature((TensorSpec("n", "INT32", (-1,)),), (TensorSpec("cube", "INT32", (-1,)),))
    other = Record(
        make_id(1),
        identity(cube, deployment="cube", model="cube"),
        "v1",
        200,
        [tensor("n", "INT32", [2, 3])],
        [tensor("cube", "INT32", [8, 27])],
        2,
    )

    write(store, iris(0), other, iris(2))

    assert [(row.model, row.row) for row in read_all(store)] == [
        ("iris", 0),
        ("cube", 0),
        ("cube", 1),
        ("iris", 0),
    ]
    assert [row.outputs for row in store.find(other.id)] == [{"cube": 8}, {"cube": 27}]


def test_other_bytes_under_the_same_version_are_another_model(
    store: PredictionStore, url: str
) -> None:
    changed = Signature((TensorSpec("x", "FP64", (-1, 2)),), ())
    of_changed = identity(changed, sha256="b" * 64)
    after = Record(make_id(1), of_changed, "v2", 200, [tensor("x", "FP64", [[0.25, 0.5]])], (), 1)

    write(store, iris())
    write(store, after)

    rows = read_all(store, model="iris", version="1")
    assert [row.sha256[0] for row in rows] == ["b", "a"]
    assert rows[0].inputs == {"x[0]": 0.25, "x[1]": 0.5}
    assert stored(url, "model_version") == 2


def test_another_process_reads_and_adds_to_the_same_versions(
    store: PredictionStore, url: str
) -> None:
    write(store, iris())

    with closing(prediction_store.connect(url)) as other:
        write(other, iris(1))
        rows = read_all(other)

    assert rows == read_all(store)
    assert len(rows) == 2
    assert stored(url, "model_version") == 1


def test_a_request_to_two_models_is_stored_for_both(store: PredictionStore) -> None:
    shadow = identity(variant="shadow")

    write(store, iris(rows=2), iris(rows=2, of=shadow))

    found = [(row.row, row.variant) for row in store.find(make_id())]
    assert [row for row, _ in found] == [0, 0, 1, 1]
    assert set(found) == set(itertools.product([0, 1], ["stable", "shadow"]))
    assert [(row.row, row.variant) for row in read_all(store, limit=1)] == found


def test_an_id_that_is_not_stored_is_not_found(store: PredictionStore) -> None:
    write(store, iris())

    assert store.find(make_id(1)) == []
    assert store.find(b"short") == []
