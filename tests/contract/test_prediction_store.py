"""What every prediction store promises, on SQLite and on PostgreSQL alike."""

import itertools
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, create_engine, text

from moorage_api import uuid7
from moorage_api.datatypes import DATATYPES
from moorage_api.errors import Conflict, InvalidRequest, StoreUnavailable
from moorage_api.signature import Signature, TensorSpec
from moorage_api.tensors import Tensor
from moorage_gateway import store as prediction_store
from moorage_gateway.prediction_log import (
    Batch,
    ModelIdentity,
    Page,
    PredictionStore,
    Query,
    Record,
    StoredRow,
)
from moorage_gateway.store import engines, schema
from moorage_gateway.store.migration import VERSION_TABLE

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


# Schema


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


# Values


class Case:
    """Values of a datatype, and how they are read back."""

    def __init__(self, datatype: str, given: list[Any], read: list[Any] | None = None) -> None:
        self.datatype = datatype
        self.given = given
        self.read = given if read is None else read


def _integers(bits: int) -> list[Case]:
    half = 2 ** (bits - 1)
    return [
        Case(f"INT{bits}", [-half, -1, 0, half - 1]),
        Case(f"UINT{bits}", [0, 1, half, 2 * half - 1]),
    ]


CASES = [
    Case("BOOL", [True, False, False, True]),
    *(case for bits in (8, 16, 32, 64) for case in _integers(bits)),
    Case("INT64", [2**53 - 1, 2**53, 2**53 + 1, -(2**53) - 1]),
    Case("FP16", [0.1, -65504, NAN, INF], [0.099975586, -65504.0, None, INF]),
    Case("BF16", [0.5, -3.0, NAN, -INF], [0.5, -3.0, None, -INF]),
    Case("FP32", [0.1, 3.4028235e38, NAN, -INF], [0.1, 3.4028235e38, None, -INF]),
    Case("FP32", [1e-45, -0.0, 16777217, INF], [1e-45, -0.0, 16777216.0, INF]),
    Case("FP64", [0.1, 1.7976931348623157e308, NAN, INF], [0.1, 1.7976931348623157e308, None, INF]),
    Case("FP64", [5e-324, -1 / 3, 2.0**53 + 2, -INF]),
    Case("BYTES", ["", "é漢🚢", "null", 'a "quoted", {braced} \\ line\nbreak']),
]
ids = [f"{case.datatype}-{number}" for number, case in enumerate(CASES)]


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_every_datatype_comes_back(store: PredictionStore, case: Case) -> None:
    kind, given, read = case.datatype, case.given, case.read
    by_row = Record(
        make_id(),
        identity(Signature((TensorSpec("x", kind, (-1, 4)),), (TensorSpec("y", kind, (-1,)),))),
        "v2",
        200,
        [tensor("x", kind, [given, given[::-1]])],
        [tensor("y", kind, given[1:3])],
        2,
    )
    whole = Record(
        make_id(1),
        identity(
            Signature((TensorSpec("x", kind, (2, 2)),), (TensorSpec("y", kind, ()),)), version="2"
        ),
        "v2",
        200,
        [tensor("x", kind, [given[:2], given[2:]])],
        [tensor("y", kind, given[0])],
    )

    write(store, by_row, whole)

    rows = store.find(by_row.id)
    assert list(rows[0].inputs) == ["x[0]", "x[1]", "x[2]", "x[3]"]
    # As text, in which 1 is not True, nor 0.0 -0.0.
    assert repr([list(row.inputs.values()) for row in rows]) == repr([read, read[::-1]])
    assert repr([row.outputs for row in rows]) == repr([{"y": y} for y in read[1:3]])
    row = only(store.find(whole.id))
    data = [read[:2], read[2:]]
    assert repr(row.inputs) == repr({"x": {"shape": [2, 2], "datatype": kind, "data": data}})
    assert repr(row.outputs) == repr({"y": {"shape": [], "datatype": kind, "data": read[0]}})
    assert repr(store.page(Query()).rows) == repr([row, *rows])


def test_texts_that_no_database_takes_come_back(store: PredictionStore) -> None:
    texts = ["nul \0 nul", "half \ud83d", "\udea2 half", "fine"]
    signature = Signature((TensorSpec("x", "BYTES", (-1, 4)),), ())
    record = Record(
        make_id(), identity(signature), "v2", 200, [tensor("x", "BYTES", [texts])], (), 1
    )

    write(store, record)

    assert list(only(store.find(record.id)).inputs.values()) == texts


def test_texts_beside_the_tensors_are_cleaned(store: PredictionStore) -> None:
    signature = Signature((TensorSpec("x\0", "BYTES", (2,)), TensorSpec("y", "BYTES", (2,))), ())
    record = replace(
        iris(),
        identity=identity(signature, deployment="d\0", model="m\ud800"),
        inputs=[tensor("x\0", "BYTES", ["\0", "a"]), tensor("y", "BYTES", ["\ud800", "b"])],
        outputs=[],
        rows=None,
        client_id="c\0",
        error="e\ud800",
    )

    write(store, record)

    row = only(store.find(record.id))
    assert (row.deployment, row.model, row.client_id, row.error) == ("d�", "m�", "c�", "e�")
    assert row.inputs == {
        "x�": {"shape": [2], "datatype": "BYTES", "data": ["\0", "a"]},
        "y": {"shape": [2], "datatype": "BYTES", "data": ["�", "b"]},
    }


def test_everything_about_a_request_comes_back(store: PredictionStore) -> None:
    record = replace(
        iris(1, rows=2),
        protocol="seldon",
        weight=4.0,
        total_us=2**40,
        validate_us=2,
        queue_us=3,
        runtime_us=4,
        client_id="abc",
    )

    write(store, record)

    rows = store.find(record.id)
    assert rows[0] == StoredRow(
        request_id=str(uuid.UUID(bytes=record.id)),
        row=0,
        timestamp=NOON + timedelta(milliseconds=1),
        namespace="default",
        deployment="iris",
        variant="stable",
        model="iris",
        version="1",
        sha256="a" * 64,
        protocol="seldon",
        status=200,
        weight=4.0,
        timing_us={"total": 2**31 - 1, "validate": 2, "queue": 3, "runtime": 4},
        client_id="abc",
        error="",
        inputs={"input[0]": 1.0, "input[1]": 0.0, "input[2]": 0.1, "input[3]": -2.5},
        outputs={
            "label": "setosa",
            "probabilities[setosa]": 0.7,
            "probabilities[versicolor]": 0.2,
            "probabilities[virginica]": 0.1,
        },
    )
    assert rows[1] == replace(rows[0], row=1, inputs=rows[0].inputs | {"input[1]": 1.0})
    assert rows[0].timestamp.utcoffset() == timedelta(0)
    assert store.page(Query()).rows == rows


def test_a_refused_request_is_remembered_without_tensors(store: PredictionStore) -> None:
    record = Record(make_id(), identity(), "predict", 400, error="input 'x': expected …, got …")

    write(store, record)

    row = only(store.find(record.id))
    assert (row.status, row.error) == (400, "input 'x': expected …, got …")
    assert (row.inputs, row.outputs) == ({}, {})


def test_a_request_without_rows_is_remembered(store: PredictionStore) -> None:
    record = replace(iris(), inputs=[tensor("input", "FP32", np.empty((0, 4)))], outputs=[], rows=0)

    write(store, record)

    empty = {"shape": [0, 4], "datatype": "FP32", "data": []}
    assert only(store.find(record.id)).inputs == {"input": empty}


def test_rows_of_images_are_kept_with_their_rows(store: PredictionStore) -> None:
    signature = Signature(
        (TensorSpec("image", "UINT8", (-1, 2, 3)), TensorSpec("note", "BYTES", (-1,))),
        (TensorSpec("boxes", "INT64", (-1, 2, 2)),),
    )
    images = np.arange(12).reshape(2, 2, 3)
    boxes = np.arange(8).reshape(2, 2, 2) + 2**60
    record = Record(
        make_id(),
        identity(signature),
        "v2",
        200,
        [tensor("image", "UINT8", images), tensor("note", "BYTES", ["a", "b"])],
        [tensor("boxes", "INT64", boxes)],
        2,
    )

    write(store, record)

    for index, row in enumerate(store.find(record.id)):
        assert row.inputs == {
            "image": {"shape": [2, 3], "datatype": "UINT8", "data": images[index].tolist()},
            "note": "ab"[index],
        }
        assert row.outputs["boxes"]["data"] == boxes[index].tolist()


def test_of_a_tensor_that_is_too_large_a_summary_is_kept(store: PredictionStore) -> None:
    signature = Signature(
        (TensorSpec("x", "FP32", (-1, 20_000)), TensorSpec("s", "BYTES", (-1, 20_000))), ()
    )
    values = np.linspace(-1, 1, 20_000, dtype="<f4")
    values[:2] = NAN, INF
    texts = np.full((1, 20_000), "text", object)
    record = Record(
        make_id(),
        identity(signature),
        "v2",
        200,
        [Tensor("x", "FP32", values[None]), Tensor("s", "BYTES", texts)],
        (),
        1,
    )

    write(store, record)

    inputs = only(store.find(record.id)).inputs
    assert inputs["x"].keys() == {"datatype", "shape", "size", "sha256", "min", "max", "mean"}
    assert inputs["x"]["shape"] == [20_000]
    assert inputs["x"]["size"] == 80_000
    assert inputs["x"]["min"] == float(values[2])
    assert inputs["x"]["max"] == 1
    assert inputs["x"]["mean"] == pytest.approx(values[2:].mean(dtype=float))
    assert inputs["s"].keys() == {"datatype", "shape", "size", "sha256"}


def test_what_the_model_should_not_have_answered_is_remembered(store: PredictionStore) -> None:
    record = replace(
        iris(rows=2),
        outputs=[
            tensor("label", "INT64", [1, 2]),  # another datatype
            tensor("extra", "FP32", [0.5]),  # not in the signature, and not by row
        ],
    )

    write(store, record)

    first, second = store.find(record.id)
    assert first.outputs == {
        "label": {"shape": [2], "datatype": "INT64", "data": [1, 2]},
        "extra": {"shape": [1], "datatype": "FP32", "data": [0.5]},
    }
    assert second.outputs == {}
    assert [row.inputs["input[1]"] for row in (first, second)] == [0.0, 1.0]


def test_an_output_that_was_not_asked_for_is_not_shown_as_missing(store: PredictionStore) -> None:
    label, probabilities = iris(rows=2).outputs

    write(
        store,
        replace(iris(1, rows=2), outputs=[label]),
        replace(iris(0, rows=2), outputs=[probabilities]),
    )

    shown = [list(row.outputs) for row in read_all(store)]
    scores = ["probabilities[setosa]", "probabilities[versicolor]", "probabilities[virginica]"]
    assert shown == [["label"], ["label"], scores, scores]


# Batches


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


# Pages


TRAFFIC = [
    replace(
        iris(
            # Several in the same millisecond.
            number // 3,
            number=number,
            rows=1 + number % 3,
            of=identity(
                namespace=("default", "lab")[number % 2],
                deployment=("iris", "wine")[number // 2 % 2],
                model=("iris", "wine", "iris")[number % 3],
                version=str(number % 4),
            ),
        ),
        protocol=("predict", "v2", "v1", "seldon")[number % 4],
        status=(200, 200, 400, 200, 503)[number % 5],
    )
    for number in range(60)
]


@pytest.fixture(
    scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)]
)
def store_of_traffic(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PredictionStore]:
    """A store that holds `TRAFFIC`, for reading."""
    with ExitStack() as stack:
        if request.param == "postgresql":
            url = stack.enter_context(request.getfixturevalue("postgresql").database())
        else:
            url = f"sqlite:///{tmp_path_factory.mktemp('traffic')}/predictions.db"
        store = stack.enter_context(closing(prediction_store.connect(url)))
        store.prepare()
        write(store, *TRAFFIC)
        yield store


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"namespace": "lab"},
        {"deployment": "wine"},
        {"namespace": "default", "deployment": "iris"},
        {"model": "iris"},
        {"model": "iris", "version": "2"},
        {"version": "3"},
        {"protocol": "v1"},
        {"status": 503},
        {"status": 200},
        {"failed": True},
        {"failed": False},
        {"failed": True, "deployment": "iris", "protocol": "predict"},
        {"failed": True, "status": 200},
        {"since": NOON + timedelta(milliseconds=4), "until": NOON + timedelta(milliseconds=9)},
        {"model": "wine", "until": NOON + timedelta(milliseconds=9), "status": 400},
        {"deployment": "nowhere"},
        {"namespace": "default", "deployment": "iris", "version": "3"},
        {"protocol": "none"},
    ],
    ids=lambda wanted: "-".join(f"{key}={value}" for key, value in wanted.items()) or "all",
)
def test_pages_hold_what_is_wanted_newest_first(
    store_of_traffic: PredictionStore, wanted: dict[str, Any]
) -> None:
    def is_wanted(record: Record) -> bool:
        return all(
            {
                "namespace": record.identity.namespace == value,
                "deployment": record.identity.deployment == value,
                "model": record.identity.model == value,
                "version": record.identity.version == value,
                "protocol": record.protocol == value,
                "status": record.status == value,
                "failed": (record.status >= 400) == value,
                "since": key == "since" and _time_of(record) >= value,
                "until": key == "until" and _time_of(record) < value,
            }[key]
            for key, value in wanted.items()
        )

    expected = [
        (uuid7.text(record.id), row)
        for record in sorted(TRAFFIC, key=lambda record: record.id, reverse=True)
        if is_wanted(record)
        for row in range(record.rows or 0)
    ]

    for limit in (4, len(expected) or 1, 1000):
        pages = list(read_pages(store_of_traffic, Query(**wanted, limit=limit)))
        shown = [(row.request_id, row.row) for page in pages for row in page.rows]
        assert shown == expected
        assert [len(page.rows) for page in pages[:-1]] == [limit] * (len(pages) - 1)
        assert len(pages) == max(1, -(-len(expected) // limit))


def _time_of(record: Record) -> datetime:
    return NOON + timedelta(milliseconds=uuid7.milliseconds(record.id) - NOON_MS)


@pytest.mark.parametrize("wanted", [{}, {"namespace": "lab"}, {"failed": True}], ids=str)
def test_pages_neither_lose_nor_double_rows_while_new_ones_come(
    store: PredictionStore, wanted: dict[str, Any]
) -> None:
    write(store, *TRAFFIC)
    before = [(row.request_id, row.row) for row in read_all(store, **wanted)]
    later = itertools.count(1000)

    def write_more() -> None:
        number = next(later)
        record = TRAFFIC[number % len(TRAFFIC)]
        write(store, replace(record, id=make_id(number)))

    pages = read_pages(store, Query(**wanted, limit=5), write_more)
    shown = [(row.request_id, row.row) for page in pages for row in page.rows]

    assert shown == before


def test_pages_go_through_many_model_versions(store: PredictionStore) -> None:
    records = [
        iris(number % 5, number=number, rows=2, of=identity(version=str(number % 20)))
        for number in range(40)
    ]
    write(store, *records)

    shown = [(row.request_id, row.row) for row in read_all(store, deployment="iris", limit=7)]

    assert shown == [
        (uuid7.text(record.id), row)
        for record in sorted(records, key=lambda record: record.id, reverse=True)
        for row in range(2)
    ]


def test_since_is_included_and_until_is_not(store: PredictionStore) -> None:
    write(store, *(iris(number) for number in range(3)))

    def shown(since_us: int | None, until_us: int | None) -> list[float]:
        since, until = (
            None if time is None else NOON + timedelta(microseconds=time)
            for time in (since_us, until_us)
        )
        return [row.inputs["input[0]"] for row in read_all(store, since=since, until=until)]

    assert shown(0, 3000) == [2, 1, 0]
    assert shown(1000, 2000) == [1]
    assert shown(1000, 1000) == []
    assert shown(1, 2001) == [2, 1]
    assert shown(999, 1001) == [1]
    assert shown(None, 1000) == [0]
    assert shown(2000, None) == [2]


def test_times_of_any_zone_and_far_away_are_understood(store: PredictionStore) -> None:
    write(store, iris())
    always = {
        "since": datetime(1, 1, 1, tzinfo=UTC),
        "until": datetime.max.replace(tzinfo=UTC),
    }

    assert len(read_all(store, **always)) == 1
    assert read_all(store, until=always["since"]) == []
    assert read_all(store, since=always["until"]) == []
    assert len(read_all(store, since=NOON.astimezone())) == 1


@pytest.mark.parametrize("deployment", ["", "nowhere"])
def test_a_time_without_a_zone_is_refused(store: PredictionStore, deployment: str) -> None:
    with pytest.raises(InvalidRequest, match="no time zone"):
        store.page(Query(deployment=deployment, since=NOON.replace(tzinfo=None)))


@pytest.mark.parametrize("deployment", ["", "nowhere"])
def test_a_forged_cursor_is_refused(store: PredictionStore, deployment: str) -> None:
    write(store, iris(), iris(1))
    cursor = store.page(Query(limit=1)).cursor
    swapped = "B" if cursor[5] != "B" else "C"
    forged = [
        "x",
        "?",
        "é",
        "\ud800",
        "A" * 38,
        cursor[:-1],
        cursor + "A",
        cursor[:5] + swapped + cursor[6:],
        cursor[::-1],
    ]

    for after in forged:
        with pytest.raises(InvalidRequest, match="not the cursor of a page"):
            store.page(Query(deployment=deployment, after=after))


@pytest.mark.parametrize("limit", [0, -1])
def test_a_page_without_rows_is_refused(store: PredictionStore, limit: int) -> None:
    with pytest.raises(InvalidRequest, match="at least 1 row"):
        store.page(Query(limit=limit))


@pytest.mark.parametrize("field", ["namespace", "deployment", "model", "version", "protocol"])
def test_a_filter_that_no_database_takes_finds_nothing_or_is_refused(
    store: PredictionStore, field: str
) -> None:
    write(store, iris())

    for value in ("nul\0", "\ud800"):
        with suppress(InvalidRequest):
            assert read_all(store, **{field: value}) == []


def test_counts_the_rows_of_every_deployment(store: PredictionStore) -> None:
    assert list(store.count()) == []

    write(
        store,
        iris(rows=3),
        iris(1, of=identity(version="2")),
        iris(2, rows=2, of=identity(namespace="lab")),
    )

    assert list(store.count()) == [("default/iris", 4), ("lab/iris", 2)]


# Databases that are away


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
