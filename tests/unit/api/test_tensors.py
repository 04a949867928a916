import math
import re
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from moorage_api import tensors
from moorage_api.datatypes import DATATYPES
from moorage_api.errors import InvalidTensor
from moorage_api.tensors import Array

NUMERIC = [name for name in DATATYPES if name not in ("BYTES", "BF16")]
SHAPES = npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=8)


@st.composite
def arrays(draw: st.DrawFn, finite: bool = False) -> tuple[str, Array]:
    """Draw a datatype and an array of it, any bits."""
    name = draw(st.sampled_from(list(DATATYPES)))
    shape = draw(SHAPES)
    if name == "BYTES":
        flat = draw(st.lists(TEXTS, min_size=math.prod(shape), max_size=math.prod(shape)))
        array = np.empty(len(flat), object)
        array[:] = flat
        return name, array.reshape(shape)
    array = draw(npst.arrays(DATATYPES[name].numpy, shape))
    if name == "BF16" and finite:
        assume(np.isfinite(tensors.bf16_to_float32(array)).all())
    elif array.dtype.kind == "f" and finite:
        assume(np.isfinite(array).all())
    return name, array


def same_bits(left: Array, right: Array) -> bool:
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    return bool(left.dtype == object and (left == right).all()) or left.tobytes() == right.tobytes()


def from_json(datatype: str, shape: list[int], data: Any) -> Array:
    return tensors.from_json("x", DATATYPES[datatype], shape, data)


def through_json(value: Any) -> Any:
    return orjson.loads(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY))


@given(arrays())
def test_binary_keeps_every_bit(case: tuple[str, Array]) -> None:
    name, array = case
    raw = bytes(tensors.to_bytes(name, array))
    back = tensors.from_bytes("x", DATATYPES[name], array.shape, memoryview(raw))
    assert same_bits(back, array)


@given(arrays(finite=True), st.booleans())
def test_json_keeps_every_bit_of_finite_values(case: tuple[str, Array], flat: bool) -> None:
    name, array = case
    data = through_json(tensors.to_json(name, array.reshape(-1) if flat else array))
    back = tensors.from_json("x", DATATYPES[name], array.shape, data)
    assert same_bits(back, array)


@given(arrays(finite=True))
def test_json_and_binary_give_the_model_the_same_bits(case: tuple[str, Array]) -> None:
    name, array = case
    raw = bytes(tensors.to_bytes(name, array))
    data = through_json(tensors.to_json(name, array.reshape(-1)))
    datatype = DATATYPES[name]
    assert same_bits(
        tensors.from_json("x", datatype, array.shape, data),
        tensors.from_bytes("x", datatype, array.shape, memoryview(raw)),
    )


@given(st.data(), st.sampled_from(NUMERIC))
def test_an_array_not_contiguous_leaves_in_row_major_order(data: st.DataObject, name: str) -> None:
    array = data.draw(npst.arrays(DATATYPES[name].numpy, (2, 3), fill=st.nothing())).T
    assert bytes(tensors.to_bytes(name, array)) == np.ascontiguousarray(array).tobytes()
    assert tensors.to_json(name, array).flags.c_contiguous


@pytest.mark.parametrize("name", ["FP16", "BF16", "FP32", "FP64"])
def test_nan_and_infinities_leave_as_null_in_json(name: str) -> None:
    values = np.array([math.nan, math.inf, -math.inf, 1.5])
    if name == "BF16":
        array = (values.astype("<f4").view("<u4") >> 16).astype("<u2")
    else:
        array = values.astype(DATATYPES[name].numpy)
    assert through_json(tensors.to_json(name, array)) == [None, None, None, 1.5]
    assert through_json(tensors.to_json(name, array[0].reshape(()))) is None


@pytest.mark.parametrize("name", ["FP16", "BF16", "FP32", "FP64"])
def test_null_is_a_missing_value_in_a_float_tensor(name: str) -> None:
    array = from_json(name, [3], [1, None, -2.5])
    wide = tensors.bf16_to_float32(array) if name == "BF16" else array
    assert wide[[0, 2]].tolist() == [1, -2.5]
    assert np.isnan(wide[1])


@pytest.mark.parametrize("name", [name for name in DATATYPES if not DATATYPES[name].is_float])
def test_null_is_refused_in_any_other_tensor(name: str) -> None:
    with pytest.raises(InvalidTensor, match=rf"input 'x': expected .* {name}, got null"):
        from_json(name, [1], [None])


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("INT64", 2**63 - 1, 2**63 - 1),
        ("INT64", -(2**63), -(2**63)),
        ("INT64", 2**53 + 1, 2**53 + 1),
        ("UINT64", 2**64 - 1, 2**64 - 1),
        ("INT8", -128, -128),
        ("INT32", 3.0, 3),
        ("INT32", -0.0, 0),
        ("UINT8", 255.0, 255),
        ("INT64", float(2**53), 2**53),
        ("FP32", 16777217, 16777216.0),
        ("FP64", 1, 1.0),
        ("FP16", 65504, 65504.0),
        ("FP16", 65519.99, 65504.0),
        ("FP16", 1e-9, 0.0),
        ("FP32", 3.4028234663852886e38, 3.4028234663852886e38),
        ("FP32", 1e-60, 0.0),
        ("BOOL", True, True),
    ],
    ids=lambda item: str(item),
)
def test_a_value_in_range_is_taken(name: str, value: Any, expected: Any) -> None:
    for data in (value, [value], [[value]]):
        array = tensors.from_json("x", DATATYPES[name], [1, 1], data)
        assert array.dtype == DATATYPES[name].numpy
        assert array.tolist() == [[expected]]


def test_a_list_with_one_odd_number_keeps_the_exactness_of_the_others() -> None:
    # 1.0 leaves the quick path, and the others may not become floats on the way.
    array = from_json("INT64", [3], [2**63 - 1, 1.0, -(2**53) - 1])
    assert array.tolist() == [2**63 - 1, 1, -(2**53) - 1]
    assert from_json("UINT64", [2], [2**64 - 1, 1.0]).tolist() == [2**64 - 1, 1]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("INT8", 128),
        ("INT8", -129),
        ("UINT8", -1),
        ("UINT8", 256),
        ("INT16", 2**15),
        ("UINT16", 2**16),
        ("INT32", 2**31),
        ("UINT32", 2**32),
        ("INT64", 2**63),
        ("UINT64", -1),
        ("INT8", 1e10),
        ("FP16", 65520),
        ("FP16", 1e6),
        ("FP32", 3.5e38),
        ("FP32", -1e300),
        ("FP32", 10**40),
        ("BF16", 3.4e38),
        ("BF16", 3.5e38),
        ("BF16", -1e300),
    ],
    ids=str,
)
def test_a_value_out_of_range_is_refused_and_never_wrapped(name: str, value: Any) -> None:
    with pytest.raises(InvalidTensor, match=rf"input 'x': expected values in the range of {name}"):
        from_json(name, [2], [0, value])


@pytest.mark.parametrize(
    ("name", "value", "got"),
    [
        ("INT32", 1.5, "the number 1.5"),
        ("INT64", 2.0**60, "the number 1.15"),
        ("INT64", True, "true"),
        ("INT64", "1", "a string '1'"),
        ("FP32", "1.5", "a string '1.5'"),
        ("FP32", False, "false"),
        ("FP64", {"a": 1}, "an object of 1 keys"),
        ("FP16", True, "true"),
        ("BF16", "1", "a string '1'"),
        ("BF16", True, "true"),
        ("BOOL", 1, "the number 1"),
        ("BOOL", "true", "a string 'true'"),
        ("BYTES", 1, "the number 1"),
        ("BYTES", ["a"], "a list of 1"),
        ("BYTES", "long" * 20, None),
    ],
    ids=str,
)
def test_an_element_of_another_kind_is_refused_by_name(
    name: str, value: Any, got: str | None
) -> None:
    ok = "" if name == "BYTES" else name == "BOOL" or 0
    if got is None:
        assert from_json(name, [2], [ok, value]).tolist() == [ok, value]
        return
    with pytest.raises(InvalidTensor, match=rf"input 'x': expected .* datatype {name}, got {got}"):
        from_json(name, [2], [ok, value])


@pytest.mark.parametrize("name", NUMERIC)
def test_a_document_without_literals_reads_the_same(name: str) -> None:
    data: list[Any] = [True, False] if name == "BOOL" else [0, 1]
    quick = tensors.from_json("x", DATATYPES[name], [2], data, literals=name == "BOOL")
    assert same_bits(quick, from_json(name, [2], data))


@given(st.recursive(st.none() | st.booleans() | st.integers(0, 9) | TEXTS, st.lists, max_leaves=9))
def test_the_search_for_literals_never_wrongly_says_no(value: Any) -> None:
    def has(item: Any) -> bool:
        if isinstance(item, list):
            return any(map(has, item))
        return item is None or isinstance(item, bool)

    text = orjson.dumps(value)
    assert tensors.may_hold_literals(text) or not has(value)
    assert tensors.may_hold_literals(memoryview(text)) == tensors.may_hold_literals(text)


@pytest.mark.parametrize(
    ("shape", "data", "words"),
    [
        ([2, 2], [1, 2, 3], "expected 4 elements for shape [2, 2], got 3 elements"),
        ([2], [], "expected 2 elements for shape [2], got 0 elements"),
        ([0], [1], "expected 0 elements for shape [0], got 1 elements"),
        ([2, 2], [[1, 2], [3]], "lists of 2 at level 1, got 1 items"),
        ([2, 2], [[1, 2], 3], "lists of 2 at level 1, got the number 3"),
        ([2, 2], [[1, 2]], "data flat or nested as [2, 2], got a list of 1"),
        ([2, 2], [[1], [2], [3], [4]], "data flat or nested as [2, 2], got a list of 4"),
        ([4], [[1, 2], [3, 4]], "data flat or nested as [4], got a list of 2"),
        ([2], [[1], [2]], "data flat or nested as [2], got a list of 2"),
        ([], [[1]], "data flat or nested as [], got a list of 1"),
        ([2, 1], [[[1]], [[2]]], "got a list of 1"),
        ([2], 5, "expected data of 2 elements in a list, got the number 5"),
        ([1], {"a": 1}, "expected data of 1 elements in a list, got an object of 1 keys"),
        ([2], None, "expected data of 2 elements in a list, got null"),
        ([2], "ab", "expected data of 2 elements in a list, got a string 'ab'"),
        ([10**18], [1], "elements for shape [1000000000000000000], got 1 elements"),
        ([2**40, 2**40], [1], "got 1 elements"),
    ],
    ids=str,
)
def test_data_that_is_not_of_the_shape_is_refused(shape: list[int], data: Any, words: str) -> None:
    with pytest.raises(InvalidTensor, match=rf"^input 'x': .*{re.escape(words)}"):
        from_json("FP32", shape, data)


@pytest.mark.parametrize("name", DATATYPES)
@pytest.mark.parametrize("shape", [[0, 2**62, 4], [2**64, 0], [0, 2**32, 2**32]], ids=str)
def test_a_shape_that_no_array_can_have_is_refused_though_it_is_empty(
    name: str, shape: list[int]
) -> None:
    with pytest.raises(InvalidTensor, match="input 'x': expected a shape"):
        from_json(name, shape, [])
    with pytest.raises(InvalidTensor, match="input 'x': expected a shape"):
        tensors.from_bytes("x", DATATYPES[name], shape, memoryview(b""))


@pytest.mark.parametrize("name", DATATYPES)
def test_rank_0_takes_a_bare_scalar(name: str) -> None:
    value: Any = {"BYTES": "é", "BOOL": True}.get(name, 1)
    array = from_json(name, [], value)
    assert array.shape == ()
    assert array.dtype == DATATYPES[name].numpy
    assert through_json(tensors.to_json(name, array)) == value
    raw = bytes(tensors.to_bytes(name, array))
    assert same_bits(tensors.from_bytes("x", DATATYPES[name], [], memoryview(raw)), array)


@pytest.mark.parametrize("name", DATATYPES)
@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0, 4)], ids=str)
def test_an_empty_tensor_is_empty_on_every_way(name: str, shape: tuple[int, ...]) -> None:
    array = np.empty(shape, DATATYPES[name].numpy)
    assert bytes(tensors.to_bytes(name, array)) == b""
    assert tensors.from_bytes("x", DATATYPES[name], shape, memoryview(b"")).shape == shape
    assert from_json(name, list(shape), []).shape == shape
    nested = through_json(tensors.to_json(name, array))
    assert nested == array.tolist()


@pytest.mark.parametrize("name", [name for name in DATATYPES if name != "BYTES"])
@pytest.mark.parametrize("off", [-1, 1], ids=["a byte short", "a byte over"])
def test_raw_bytes_of_another_length_are_refused(name: str, off: int) -> None:
    size = DATATYPES[name].size * 6
    words = rf"input 'x': expected {size} bytes for {name} \[2, 3\], got {size + off} bytes"
    with pytest.raises(InvalidTensor, match=words):
        tensors.from_bytes("x", DATATYPES[name], [2, 3], memoryview(bytes(size + off)))


def test_a_boolean_byte_is_0_or_1() -> None:
    with pytest.raises(InvalidTensor, match="input 'x': expected bytes 0 or 1 for datatype BOOL"):
        tensors.from_bytes("x", DATATYPES["BOOL"], [2], memoryview(b"\1\2"))


@pytest.mark.parametrize("name", ["FP32", "FP64", "INT64", "BF16"])
@pytest.mark.parametrize("offset", range(4))
def test_raw_bytes_are_aligned_wherever_they_lay(name: str, offset: int) -> None:
    size = DATATYPES[name].size
    buffer = bytearray(size * 2 + offset)
    array = tensors.from_bytes("x", DATATYPES[name], [2], memoryview(buffer)[offset:])
    assert array.flags.aligned
    assert array.tolist() == [0, 0]


def test_aligned_raw_bytes_are_used_in_place() -> None:
    raw = np.arange(4, dtype="<f8").tobytes()
    array = tensors.from_bytes("x", DATATYPES["FP64"], [4], memoryview(raw))
    assert not array.flags.owndata
    assert array.tolist() == [0, 1, 2, 3]


def _prefixed(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(4, "little") + part for part in parts)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (_prefixed(b"a"), "expected 2 length-prefixed elements, got 5 bytes that hold others"),
        (_prefixed(b"a", b"b", b"c"), "expected 2 length-prefixed elements, got 15 bytes"),
        (_prefixed(b"a", b"b") + b"\0", "expected 2 length-prefixed elements, got 11 bytes"),
        (_prefixed(b"a") + b"\1\0", "expected 2 length-prefixed elements, got 7 bytes"),
        (_prefixed(b"a") + b"\5\0\0\0b", "expected 5 bytes for element 1, got 1 bytes left"),
        (_prefixed(b"a") + b"\xff" * 4, "expected 4294967295 bytes for element 1, got 0 bytes"),
        (_prefixed(b"a", b"\xff"), "expected UTF-8 text (what ONNX strings are), got other bytes"),
        (_prefixed(b"a", b"\xed\xa0\x80"), "expected UTF-8 text"),
        (b"", "expected 2 length-prefixed elements, got 0 bytes"),
    ],
)
def test_strings_framed_wrongly_are_refused(raw: bytes, words: str) -> None:
    with pytest.raises(InvalidTensor, match=f"input 'x': {re.escape(words)}"):
        tensors.from_bytes("x", DATATYPES["BYTES"], [2], memoryview(raw))


@given(st.binary(max_size=40), st.lists(st.integers(0, 2**66), max_size=3))
def test_random_bytes_of_strings_give_a_tensor_or_a_sentence(raw: bytes, shape: list[int]) -> None:
    try:
        array = tensors.from_bytes("x", DATATYPES["BYTES"], shape, memoryview(raw))
    except InvalidTensor:
        return
    assert bytes(tensors.to_bytes("BYTES", array)) == raw


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=8,
)


@given(st.sampled_from(list(DATATYPES)), st.lists(st.integers(0, 3), max_size=3), JSON)
def test_any_json_gives_a_tensor_of_the_shape_or_a_sentence(
    name: str, shape: list[int], data: Any
) -> None:
    try:
        array = from_json(name, shape, data)
    except InvalidTensor as error:
        said = str(error)
    else:
        assert array.shape == tuple(shape)
        assert array.dtype == DATATYPES[name].numpy
        return
    assert said.startswith("input 'x': expected ")
    assert len(said) < 400


@given(st.integers(0, 0xFFFF), st.sampled_from([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF]))
def test_bf16_rounds_to_the_nearest_and_ties_to_even(high: int, low: int) -> None:
    value = float(np.array([high << 16 | low], "<u4").view("<f4")[0])
    assume(math.isfinite(value))
    try:
        bits = int(from_json("BF16", [1], [value])[0])
    except InvalidTensor:
        assert abs(value) > 3.3895313892515355e38  # The largest bfloat16.
        return
    sign, size = bits & 0x8000, bits & 0x7FFF
    # A bfloat16's neighbours are one apart in their bits; below 0 there is none of this sign.
    near = np.array([max(size - 1, 0), size, size + 1], "<u2") | np.uint16(sign)
    below, at, above = np.abs(tensors.bf16_to_float32(near).astype(float) - value)
    assert at <= above
    assert at <= below
    if at and at in (above, below):
        assert bits % 2 == 0


def test_bf16_widens_exactly() -> None:
    bits = np.array([0x3F80, 0xC000, 0x7F80, 0x0001], "<u2")
    assert tensors.bf16_to_float32(bits).tolist() == [1.0, -2.0, math.inf, 2.0**-133]


@pytest.mark.parametrize(
    ("values", "shape"),
    [
        (5, ()),
        ([], (0,)),
        ([1, 2], (2,)),
        ([[1, 2, 3]], (1, 3)),
        ([[], []], (2, 0)),
        ("ab", ()),
        ([{"a": 1}], (1,)),
    ],
    ids=str,
)
def test_the_shape_of_nested_lists_is_that_of_their_first_items(
    values: Any, shape: tuple[int, ...]
) -> None:
    assert tensors.shape_of(values) == shape


def test_nesting_is_followed_no_deeper_than_arrays_can_be() -> None:
    values: Any = 1
    for _ in range(500):
        values = [values]
    assert len(tensors.shape_of(values)) == tensors.MAX_RANK


def test_element_count_of_rank_0_is_one() -> None:
    assert tensors.element_count([]) == 1
    assert tensors.element_count([3, 0, 2]) == 0


def test_names_come_in_order() -> None:
    given_ = [tensors.Tensor(name, "BOOL", np.zeros(1, bool)) for name in "bca"]
    assert tensors.names_of(given_) == ["b", "c", "a"]
