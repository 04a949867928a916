import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage_api import signature
from moorage_api.datatypes import DATATYPES
from moorage_api.errors import BadModel, InvalidTensor
from moorage_api.signature import Signature, TensorSpec
from moorage_api.tensors import Tensor

AB = Signature(
    (TensorSpec("a", "FP32", (-1, 2)), TensorSpec("b", "INT64", (-1, 1))),
    (TensorSpec("y", "FP32", (-1, 2), ("no", "yes")),),
)


def a(rows: int = 1, columns: int = 2, datatype: str = "FP32", name: str = "a") -> Tensor:
    return Tensor(name, datatype, np.zeros((rows, columns), DATATYPES[datatype].numpy))


def b(rows: int = 1) -> Tensor:
    return a(rows, 1, "INT64", "b")


def test_tensors_that_fit_are_given_by_name_in_any_order() -> None:
    first, second = a(3), b(3)
    arrays = AB.check([second, first])
    assert arrays["a"] is first.array
    assert arrays["b"] is second.array
    assert AB.rows(arrays) == 3


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ([a(), a(name="c")], "input 'c': expected one of the inputs ['a', 'b'], got an unknown"),
        ([a(), a()], "input 'a': expected each input once, got it twice"),
        ([b()], "input 'a': expected FP32 [-1, 2], got no such input in the request"),
        ([], "input 'a': expected FP32 [-1, 2], got no such input"),
        ([a(datatype="FP64")], "input 'a': expected datatype FP32, got FP64"),
        ([a(columns=3)], "input 'a': expected shape [-1, 2], got shape [1, 3]"),
        (
            [Tensor("a", "FP32", np.zeros(2, "f4"))],
            "input 'a': expected shape [-1, 2], got shape [2]",
        ),
        ([Tensor("a", "FP32", np.zeros((), "f4"))], "got shape []"),
    ],
)
def test_what_does_not_fit_is_named(tensors: list[Tensor], words: str) -> None:
    with pytest.raises(InvalidTensor, match=re.escape(words)):
        AB.check(tensors)


def test_inputs_with_another_number_of_rows_are_refused() -> None:
    arrays = AB.check([a(3), b(2)])
    with pytest.raises(InvalidTensor, match="input 'b': expected 3 rows like input 'a', got 2"):
        AB.rows(arrays)


SIZE = st.integers(-1, 3)


@given(st.lists(SIZE, max_size=4), st.lists(st.integers(0, 3), max_size=4))
def test_a_shape_fits_when_every_size_is_equal_or_open(spec: list[int], shape: list[int]) -> None:
    fits = len(spec) == len(shape) and all(
        want in (-1, size) for want, size in zip(spec, shape, strict=True)
    )
    one = Signature((TensorSpec("x", "BOOL", tuple(spec)),), ())
    tensor = Tensor("x", "BOOL", np.zeros(shape, bool))
    if fits:
        assert one.check([tensor])["x"] is tensor.array
    else:
        with pytest.raises(InvalidTensor, match="input 'x': expected shape"):
            one.check([tensor])


@pytest.mark.parametrize(
    ("inputs", "outputs", "batched"),
    [
        ([(-1, 2)], [(-1,)], True),
        ([(-1, 2), (-1,)], [(-1, 3), (-1, 1)], True),
        ([(-1, 2), (1, 2)], [(-1,)], False),
        ([(-1, 2)], [(3,)], False),
        ([(-1, 2)], [()], False),
        ([()], [()], False),
        ([], [(-1,)], False),
    ],
    ids=str,
)
def test_rows_are_answered_when_every_first_dimension_is_open(
    inputs: list[tuple[int, ...]], outputs: list[tuple[int, ...]], batched: bool
) -> None:
    made = Signature(
        tuple(TensorSpec(f"x{at}", "FP32", shape) for at, shape in enumerate(inputs)),
        tuple(TensorSpec(f"y{at}", "FP32", shape) for at, shape in enumerate(outputs)),
    )
    assert made.is_batched is batched
    if inputs and not batched:
        arrays = {spec.name: np.zeros([abs(n) for n in spec.shape]) for spec in made.inputs}
        assert made.rows(arrays) is None


def test_metadata_reads_back_as_the_same_signature() -> None:
    assert signature.parse(AB.to_dict()) == AB
    assert "classes" not in AB.to_dict()["inputs"][0]
    assert AB.to_dict()["outputs"][0]["classes"] == ["no", "yes"]


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"inputs": []},
        {"inputs": None, "outputs": []},
        {"inputs": [1], "outputs": []},
        {"inputs": [{"name": "x", "datatype": "FP8", "shape": []}], "outputs": []},
        {"inputs": [{"name": "x", "datatype": [], "shape": []}], "outputs": []},
        {"inputs": [{"name": "x", "datatype": "FP32"}], "outputs": []},
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": ["n"]}], "outputs": []},
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": 3}], "outputs": []},
        [],
        None,
    ],
    ids=str,
)
def test_what_is_no_metadata_is_refused(document: dict[str, object]) -> None:
    with pytest.raises(BadModel, match="not a model's metadata"):
        signature.parse(document)


def test_a_tensor_tells_its_kind_in_one_word_and_its_shape() -> None:
    assert str(AB.inputs[0]) == "FP32 [-1, 2]"
    assert AB.inputs[0].row_shape == (2,)
    assert TensorSpec("x", "FP32", ()).row_shape == ()
