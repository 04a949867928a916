"""What is stored in a prediction store comes back as it was.

Held by SQLite and PostgreSQL alike.
"""

import uuid
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from tests.support.predictions import (
    INF,
    NAN,
    NOON,
    identity,
    iris,
    make_id,
    only,
    read_all,
    tensor,
    write,
)

from moorage_api.signature import Signature, TensorSpec
from moorage_api.tensors import Tensor
from moorage_gateway.prediction_log import (
    PredictionStore,
    Query,
    Record,
    StoredRow,
)


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
