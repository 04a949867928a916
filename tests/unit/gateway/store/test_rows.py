"""Whatever a model takes and gives comes back from rows as it was, without a database."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from moorage_api import tensors as codec
from moorage_api.datatypes import DATATYPES
from moorage_api.signature import Signature, TensorSpec
from moorage_api.tensors import Tensor
from moorage_gateway.prediction_log import ModelIdentity, Record
from moorage_gateway.store import features, rows
from moorage_gateway.store.binary_copy import lines
from moorage_gateway.store.column_types import dump_floats, load_floats
from moorage_gateway.store.features import BLOB, SLOTS, Io, Layout
from moorage_gateway.store.rows import MAX_TENSOR_BYTES, Block, Values

ID = bytes.fromhex("0195a1b2c3d47000800000000000002a")
NAN, INF = float("nan"), float("inf")


def record(
    signature: Signature, inputs: Sequence[Tensor], outputs: Sequence[Tensor], count: int | None
) -> Record:
    identity = ModelIdentity("n", "d", "stable", "m", "1", "a" * 64, signature)
    return Record(ID, identity, "v2", 200, inputs, outputs, count)


def layout_of(signature: Signature) -> Layout:
    return features.from_rows(features.plan(signature))


def read(layout: Layout, block: Block) -> list[dict[Io, Values]]:
    """Decode every row of a block as SQLite would hold it."""
    found = []
    for index, meta in enumerate(block.metas):
        arrays: dict[str, Any] = {}
        for io, slots in SLOTS.items():
            for slot in slots:
                if slot in block.arrays and block.stored[io][index]:
                    line = block.arrays[slot][index]
                    is_text = line.dtype == object
                    arrays[slot] = line.tolist() if is_text else load_floats(dump_floats(line))
        found.append(rows.decode(layout, arrays, block.blobs[index], meta))
    return found


def round_trip(*records: Record) -> list[dict[Io, Values]]:
    layout = layout_of(records[0].identity.signature)
    block = rows.encode(records, layout)
    assert len(list(lines(block, 1))) == len(block.metas) == sum(block.counts)
    return read(layout, block)


def plain(datatype: str, array: Any) -> Any:
    """Return what is shown of an array: nested lists, floats by the digits that identify them."""
    if isinstance(array, np.ndarray) and array.ndim:
        return [plain(datatype, array[index, ...]) for index in range(len(array))]
    value = array[()] if isinstance(array, np.ndarray) else array
    if datatype == "BF16":
        value = codec.bf16_to_float32(np.array(value))[()]
    elif datatype == "FP16":
        value = np.float32(value)
    if not DATATYPES[datatype].is_float:
        return value if datatype == "BYTES" else value.item()
    return None if np.isnan(value) else float(str(value))


def arrays(datatype: str, shape: tuple[int, ...]) -> st.SearchStrategy[Any]:
    if datatype == "BYTES":
        texts = st.text(max_size=6) | st.sampled_from(["\0", "\ud800", "a\udfffb", "�"])
        return hnp.arrays(object, shape, elements=texts)
    return hnp.arrays(DATATYPES[datatype].numpy, shape)


NAMES = st.lists(
    st.sampled_from(["x", "y", "x[0]", "x[1]", "label", "été", "a b", "x#2"]),
    min_size=1,
    max_size=4,
    unique=True,
)
SHAPES = st.sampled_from([(), (1,), (2,), (3,), (1, 1), (2, 2), (0,), (1, 3)])


@st.composite
def sides(draw: st.DrawFn, count: int | None) -> tuple[tuple[TensorSpec, ...], list[Tensor]]:
    specs, tensors = [], []
    for name in draw(NAMES):
        datatype = draw(st.sampled_from(sorted(DATATYPES)))
        shape = draw(SHAPES)
        lead = () if count is None else (-1,)
        specs.append(TensorSpec(name, datatype, (*lead, *shape)))
        array = draw(arrays(datatype, shape if count is None else (count, *shape)))
        tensors.append(Tensor(name, datatype, array))
    return tuple(specs), tensors


@st.composite
def requests(draw: st.DrawFn) -> Record:
    count = draw(st.none() | st.integers(1, 3))
    input_specs, inputs = draw(sides(count))
    output_specs, outputs = draw(sides(count))
    return record(Signature(input_specs, output_specs), inputs, outputs, count)


def expected_side(
    signature: Signature, io: str, tensors: Sequence[Tensor], row: int | None
) -> dict[str, Any]:
    """Return what is shown of one side, by the names that the plan gives."""
    names: dict[str, list[str]] = {}
    slots = {}
    for feature in features.plan(signature):
        if feature.io == io:
            names.setdefault(feature.tensor, []).append(feature.name)
            slots[feature.tensor] = feature.slot
    values: dict[str, Any] = {}
    for tensor in tensors:
        array = tensor.array if row is None else tensor.array[row, ...]
        if slots[tensor.name] != BLOB:
            cells = plain(tensor.datatype, array.reshape(-1))
            values.update(zip(names[tensor.name], cells, strict=True))
            continue
        if tensor.datatype == "BYTES" and any("\ud800" in t or "\udfff" in t for t in array.flat):
            array = np.vectorize(features.clean, otypes=[object])(array)
        (name,) = names[tensor.name]
        data = plain(tensor.datatype, array)
        values[name] = {"datatype": tensor.datatype, "shape": list(array.shape), "data": data}
    return values


def same(left: Any, right: Any) -> bool:
    """Compare with -0.0 unlike 0.0 and 1 unlike 1.0, and dicts in any order."""
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return repr(left) == repr(right)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(requests())
def test_a_request_comes_back_as_it_was(request: Record) -> None:
    found = round_trip(request)

    assert len(found) == (request.rows or 1)
    signature = request.identity.signature
    for index, row in enumerate(found):
        at = None if request.rows is None else index
        assert same(row["input"], expected_side(signature, "input", request.inputs, at))
        assert same(row["output"], expected_side(signature, "output", request.outputs, at))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=6), st.data())
def test_records_do_not_leak_into_each_other(counts: list[int], data: st.DataObject) -> None:
    wide = st.integers(2**53 - 2, 2**53 + 2) | st.integers(-(2**63), 2**63 - 1)
    signature = Signature(
        (TensorSpec("n", "INT64", (-1, 2)), TensorSpec("s", "BYTES", (-1,))),
        (TensorSpec("y", "FP32", (-1,)),),
    )
    records: list[Record] = []
    expected: list[dict[Io, Values]] = []
    for count in counts:
        if count == 0:  # refused
            records.append(record(signature, (), (), None))
            expected.append({"input": {}, "output": {}})
            continue
        numbers = data.draw(hnp.arrays("<i8", (count, 2), elements=wide))
        texts = data.draw(arrays("BYTES", (count,)))
        answers = np.arange(count, dtype="<f4")
        inputs = [Tensor("n", "INT64", numbers), Tensor("s", "BYTES", texts)]
        records.append(record(signature, inputs, [Tensor("y", "FP32", answers)], count))
        expected += [
            {
                "input": {"n[0]": int(first), "n[1]": int(second), "s": text},
                "output": {"y": float(answer)},
            }
            for (first, second), text, answer in zip(numbers, texts, answers, strict=True)
        ]

    assert round_trip(*records) == expected


@settings(max_examples=25, deadline=None)
@given(hnp.arrays("<f4", st.integers(0, 5)) | hnp.arrays("<f8", st.integers(0, 5)))
def test_floats_survive_json(values: Any) -> None:
    found = np.array([NAN if item is None else item for item in load_floats(dump_floats(values))])

    np.testing.assert_array_equal(found.astype(values.dtype), values)
    np.testing.assert_array_equal(
        np.signbit(found[~np.isnan(found)]), np.signbit(values[~np.isnan(values)])
    )


@settings(max_examples=25, deadline=None)
@given(requests(), st.randoms(use_true_random=False))
def test_what_does_not_fit_the_layout_is_kept_whole(request: Record, random: Any) -> None:
    """The layout is of another signature, as if the runtime had answered something else."""
    signature = request.identity.signature
    others = [
        TensorSpec(spec.name, random.choice(sorted(DATATYPES)), random.choice([(-1,), (-1, 2), ()]))
        for spec in (*signature.outputs, TensorSpec("absent", "FP32", (-1,)))
    ]
    layout = layout_of(Signature(signature.inputs, tuple(others)))

    first, *_ = read(layout, rows.encode([request], layout))

    shown = {feature.tensor for feature in layout.features if feature.name in first["output"]}
    given_names = {tensor.name for tensor in request.outputs}
    assert given_names <= shown | first["output"].keys()
    assert "absent" not in first["output"]


SUMMARIES: dict[str, tuple[str, list[Any], dict[str, Any]]] = {
    "float": ("FP32", [NAN, -1.0, INF, 3.0], {"min": -1.0, "max": 3.0, "mean": 1.0}),
    "nothing finite": ("FP64", [NAN, INF], {"min": None, "max": None, "mean": None}),
    "beyond the sum": ("FP64", [1.5e308, 1.5e308], {"min": 1.5e308, "max": 1.5e308}),
    "integer": ("UINT64", [2**64 - 1, 2**64 - 1], {"min": 2**64 - 1, "mean": 2.0**64}),
    "half": ("FP16", [60000, 60000], {"max": 60000.0, "mean": 60000.0}),
    "bool": ("BOOL", [True, False], {"min": False, "max": True, "mean": 0.5}),
    "text": ("BYTES", ["a", "b"], {}),
}


@pytest.mark.parametrize("case", SUMMARIES)
def test_summarises_what_is_too_large(case: str) -> None:
    datatype, values, expected = SUMMARIES[case]
    size = MAX_TENSOR_BYTES * 2
    array = np.tile(np.array(values, DATATYPES[datatype].numpy), size // len(values))
    signature = Signature((TensorSpec("x", datatype, (size,)),), ())

    (row,) = round_trip(record(signature, [Tensor("x", datatype, array)], (), None))

    summary = row["input"]["x"]
    assert summary["shape"] == [size]
    assert len(summary["sha256"]) == 64
    assert "data" not in summary
    assert {key: summary[key] for key in expected} == expected


def test_a_tensor_of_exactly_the_limit_is_kept() -> None:
    signature = Signature((TensorSpec("x", "UINT8", (-1,)),), ())
    for size, key in ((MAX_TENSOR_BYTES, "data"), (MAX_TENSOR_BYTES + 1, "sha256")):
        tensor = Tensor("x", "UINT8", np.zeros(size, "u1"))
        (row,) = round_trip(record(signature, [tensor], (), None))
        assert key in row["input"]["x"]
