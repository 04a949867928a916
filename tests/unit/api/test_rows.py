import math
import re
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage_api import rows
from moorage_api.errors import InvalidBody, InvalidTensor
from moorage_api.rows import Parsed
from moorage_api.signature import Signature, TensorSpec
from moorage_api.tensors import Tensor


def spec(name: str, datatype: str = "FP32", shape: tuple[int, ...] = (-1, 1)) -> TensorSpec:
    return TensorSpec(name, datatype, shape)


Y = spec("y")
WIDE = Signature((spec("x", shape=(-1, 3)),), (Y,))
ONE = Signature((spec("x"),), (Y,))
FLAT = Signature((spec("x", shape=(-1,)),), (Y,))
IMAGE = Signature((spec("x", shape=(-1, 2, 2)),), (Y,))
OPEN = Signature((spec("x", shape=(-1, -1)),), (Y,))
MIXED = Signature((spec("amount"), spec("age", "INT64"), spec("country", "BYTES")), (Y,))
WHOLE = Signature((spec("x", shape=(2, 2)),), (spec("y", shape=()),))
SCALAR = Signature((spec("x", shape=()),), (spec("y", shape=()),))

THREE = {"amount": [[1.5], [2.5]], "age": [[1], [2]], "country": [["a"], ["b"]]}
SINGLE = {"amount": [[1.5]], "age": [[1]], "country": [["a"]]}


@pytest.mark.parametrize(
    ("signature", "value", "many", "expected"),
    [
        (ONE, 2.5, False, {"x": [[2.5]]}),
        (ONE, [1, 2], True, {"x": [[1], [2]]}),
        (ONE, [[1], [2]], True, {"x": [[1], [2]]}),
        (ONE, None, False, {"x": [[None]]}),
        (FLAT, 2.5, False, {"x": [2.5]}),
        (FLAT, [1, 2], True, {"x": [1, 2]}),
        (ONE, [], True, {"x": []}),
        (WIDE, [1, 2, 3], False, {"x": [[1, 2, 3]]}),
        (WIDE, [[1, 2, 3]], True, {"x": [[1, 2, 3]]}),
        (WIDE, [[1, None, 3], [4, 5, 6]], True, {"x": [[1, None, 3], [4, 5, 6]]}),
        (WIDE, {"x": [1, 2, 3]}, False, {"x": [[1, 2, 3]]}),
        (WIDE, {"x": [[1, 2, 3]]}, True, {"x": [[1, 2, 3]]}),
        (WIDE, [{"x": [1, 2, 3]}, {"x": [4, 5, 6]}], True, {"x": [[1, 2, 3], [4, 5, 6]]}),
        (IMAGE, [[1, 2], [3, 4]], False, {"x": [[[1, 2], [3, 4]]]}),
        (IMAGE, [[[1, 2], [3, 4]]], True, {"x": [[[1, 2], [3, 4]]]}),
        (OPEN, [1, 2], False, {"x": [[1, 2]]}),
        (OPEN, [[1, 2]], True, {"x": [[1, 2]]}),
        (MIXED, {"amount": 1.5, "age": 1, "country": "a"}, False, SINGLE),
        (MIXED, {"amount": [1.5, 2.5], "age": [1, 2], "country": ["a", "b"]}, True, THREE),
        (
            MIXED,
            [
                {"amount": 1.5, "age": 1, "country": "a"},
                {"country": "b", "age": 2, "amount": [2.5]},
            ],
            True,
            None,
        ),
        (MIXED, [{"amount": [1.5], "age": [1], "country": ["a"]}], True, SINGLE),
        (MIXED, [1.5, 1, "a"], False, SINGLE),
        (MIXED, [[1.5, 1, "a"], [2.5, 2, "b"]], True, THREE),
        (MIXED, {"amount": 1.5}, False, {"amount": [[1.5]]}),
        (WHOLE, [[1, 2], [3, 4]], None, {"x": [[1, 2], [3, 4]]}),
        (WHOLE, {"x": [[1, 2], [3, 4]]}, None, {"x": [[1, 2], [3, 4]]}),
        (SCALAR, 5, None, {"x": 5}),
    ],
    ids=lambda item: str(item)[:70] if not isinstance(item, Signature) else str(item.inputs[0]),
)
def test_a_plain_value_is_read_as_the_table_says(
    signature: Signature, value: Any, many: bool | None, expected: dict[str, Any] | None
) -> None:
    if expected is None:
        with pytest.raises(InvalidTensor, match="input 'amount'"):
            rows.parse(value, signature)
        return
    parsed = rows.parse(value, signature)
    assert parsed.many is many
    found = {tensor.name: _plain(tensor) for tensor in parsed.tensors}
    assert found == expected
    if many is not None:
        assert parsed.rows == len(next(iter(expected.values())))
    specs = {item.name: item for item in signature.inputs}
    assert all(tensor.datatype == specs[tensor.name].datatype for tensor in parsed.tensors)


def _plain(tensor: Tensor) -> Any:
    """The array as lists, NaN as None."""
    if tensor.array.dtype.kind != "f":
        return tensor.array.tolist()
    return orjson.loads(orjson.dumps(tensor.array.tolist()))


@pytest.mark.parametrize(
    ("signature", "value", "words"),
    [
        (ONE, [[[1]]], "input 'x': expected one FP32 value, or a list of them, got lists nested"),
        (ONE, "a", "input 'x': expected numbers for datatype FP32, got a string 'a'"),
        (
            WIDE,
            5,
            "input 'x': expected a row of 3 FP32 values, or a list of them, got the number 5",
        ),
        (WIDE, [[[1, 2, 3]]], "got lists nested as [1, 1, 3]"),
        (WIDE, [[1, 2, 3], [4, 5]], "input 'x': expected data nested as [2, 3]"),
        (WIDE, [1, [2], 3], "input 'x': expected numbers"),
        (IMAGE, [1, 2], "expected a row of 2 x 2 FP32 values"),
        (OPEN, 1, "expected a row of any FP32 values"),
        (WHOLE, [1, 2], "input 'x': expected FP32 [2, 2], got lists nested as [2]"),
        (WHOLE, [{"x": 1}], "input 'x': expected whole tensors"),
        (MIXED, 5, "input 'amount': expected rows of 3 values for 'amount', 'age', 'country'"),
        (MIXED, [1, 2], "input 'amount': expected rows of 3 values"),
        (MIXED, [], "input 'amount': expected rows of 3 values"),
        (MIXED, [[1, 2, "a"], [1, 2]], "input 'amount': expected rows of 3 values"),
        (MIXED, [[1, 2, "a"], 5], "input 'amount': expected rows of 3 values"),
        (MIXED, [1, 2, 3], "input 'country': expected strings for datatype BYTES"),
        (MIXED, [1, 2.5, "a"], "input 'age': expected whole numbers for datatype INT64"),
        (
            MIXED,
            {"amount": 1, "sum": 2},
            "input 'sum': expected one of the inputs ['age', 'amount', 'country'], got an unknown",
        ),
        (MIXED, [{"sum": 2}], "input 'sum': expected one of the inputs"),
        (
            MIXED,
            {"amount": 1, "age": [1, 2]},
            "input 'amount': expected rows, as input 'age' has, got one row",
        ),
        (
            MIXED,
            {"amount": [1, 2], "age": 1},
            "input 'age': expected rows, as input 'amount' has, got one row",
        ),
        (
            MIXED,
            [{"amount": 1}, {"age": 1}],
            "expected objects with the keys ['amount'], got another in row 1",
        ),
        (MIXED, [{"amount": 1}, 5], "got another in row 1"),
        (
            WIDE,
            [{"x": 5}],
            "input 'x': expected a row of 3 FP32 values in each row, got the number 5",
        ),
        (WIDE, [[{"x": 5}]], "input 'x'"),
        (
            Signature((spec("a", shape=(-1, 2)), spec("b", shape=(-1, 2))), (Y,)),
            [1, 2],
            "input 'a': expected an object with the inputs 'a', 'b', got lists nested as [2]",
        ),
    ],
    ids=lambda item: str(item)[:60] if not isinstance(item, Signature) else "",
)
def test_a_value_that_cannot_be_read_is_refused(
    signature: Signature, value: Any, words: str
) -> None:
    with pytest.raises(InvalidTensor, match=re.escape(words)):
        rows.parse(value, signature)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["x", "amount", "age", "z"]), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(JSON, st.sampled_from([WIDE, ONE, FLAT, IMAGE, OPEN, MIXED, WHOLE, SCALAR]))
def test_any_json_value_gives_tensors_or_a_sentence(value: Any, signature: Signature) -> None:
    try:
        parsed = rows.parse(value, signature)
    except InvalidTensor as error:
        parsed, said = Parsed([], None), str(error)
    else:
        said = ""
    assert len(said) < 600
    assert {tensor.name for tensor in parsed.tensors} <= {item.name for item in signature.inputs}


def render(tensors: list[Tensor], outputs: list[TensorSpec], many: bool | None, count: int) -> Any:
    given_ = Parsed([Tensor("x", "FP32", np.zeros((count, 1), "f4"))], many)
    value = rows.render(tensors, Signature((spec("x"),), tuple(outputs)), given_)
    return orjson.loads(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY))


def y(values: Any, name: str = "y", datatype: str = "FP32", dtype: Any = "f4") -> Tensor:
    return Tensor(name, datatype, np.array(values, dtype))


LABEL = spec("label", "BYTES", (-1,))
SCORES = TensorSpec("scores", "FP32", (-1, 2), ("no", "yes"))


@pytest.mark.parametrize(
    ("tensors", "outputs", "many", "count", "expected"),
    [
        ([y([[1.5]])], [Y], False, 1, 1.5),
        ([y([[1.5]])], [Y], True, 1, [1.5]),
        ([y([[1.5], [2]])], [Y], True, 2, [1.5, 2]),
        ([y([1.5])], [spec("y", shape=(-1,))], False, 1, 1.5),
        ([y([[1, 2]])], [spec("y", shape=(-1, 2))], False, 1, [1, 2]),
        ([y([[math.nan]])], [Y], False, 1, None),
        ([y([[1, math.inf]])], [spec("y", shape=(-1, 2))], False, 1, [1, None]),
        ([y(np.empty((0, 1)))], [Y], True, 0, []),
        ([y([[0x3F80]], "y", "BF16", "u2")], [spec("y", "BF16")], False, 1, 1.0),
        ([y([["a"]], "y", "BYTES", object)], [spec("y", "BYTES")], False, 1, "a"),
        ([y([[True]], "y", "BOOL", bool)], [spec("y", "BOOL")], False, 1, True),
        ([y([[2**53 + 1]], "y", "INT64", "i8")], [spec("y", "INT64")], False, 1, 2**53 + 1),
        (
            [y([[0.25, 0.75]], "scores")],
            [SCORES],
            False,
            1,
            {"no": 0.25, "yes": 0.75},
        ),
        ([y([[math.nan, 1]], "scores")], [SCORES], False, 1, {"no": None, "yes": 1}),
        (
            [y(["no"], "label", "BYTES", object), y([[0.75, 0.25]], "scores")],
            [LABEL, SCORES],
            False,
            1,
            {"label": "no", "scores": {"no": 0.75, "yes": 0.25}},
        ),
        (
            [y(["no", "yes"], "label", "BYTES", object), y([[1, 0], [0, 1]], "scores")],
            [LABEL, SCORES],
            True,
            2,
            [
                {"label": "no", "scores": {"no": 1, "yes": 0}},
                {"label": "yes", "scores": {"no": 0, "yes": 1}},
            ],
        ),
        (
            [y([[1], [2]], "a"), y([[1, 2], [3, 4]], "b")],
            [spec("a"), spec("b", shape=(-1, 2))],
            True,
            2,
            [{"a": 1, "b": [1, 2]}, {"a": 2, "b": [3, 4]}],
        ),
        # Not one row for each row given: whole.
        ([y([[1], [2], [3]])], [Y], False, 1, [[1], [2], [3]]),
        ([y([[1]], "a"), y([[1], [2]], "b")], [spec("a"), spec("b")], True, 1,
         {"a": [[1]], "b": [[1], [2]]}),
        ([y(5)], [spec("y", shape=())], True, 2, 5),
        ([y([[1, 2]])], [spec("y", shape=(1, 2))], None, 1, [[1, 2]]),
        ([y(5)], [spec("y", shape=())], None, 1, 5),
        # The file declared less than the model gives.
        ([y([[1, 2], [3, 4]])], [spec("y", shape=(-1,))], True, 2, [[1, 2], [3, 4]]),
        ([y([[1, 2]])], [spec("y", shape=(-1, 1))], False, 1, [1, 2]),
    ],
    ids=lambda item: None if isinstance(item, list) else str(item)[:60],
)  # fmt: skip
def test_outputs_mirror_how_the_input_was_given(
    tensors: list[Tensor], outputs: list[TensorSpec], many: bool | None, count: int, expected: Any
) -> None:
    assert render(tensors, outputs, many, count) == expected


def test_a_model_without_inputs_takes_an_empty_object() -> None:
    signature = Signature((), (Y,))
    assert rows.parse({}, signature) == Parsed([], None)
    with pytest.raises(InvalidBody, match=r"no inputs: expected \{\}, got the number 5"):
        rows.parse(5, signature)
