import contextlib
import re
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage_api import v2
from moorage_api.datatypes import DATATYPES
from moorage_api.errors import InvalidBody, InvalidTensor, MoorageError, Unsupported
from moorage_api.signature import Signature, TensorSpec
from moorage_api.tensors import Tensor
from moorage_api.v2 import InferRequest, ModelPath, RequestedOutput


def tensor(name: str, datatype: str = "FP32", values: Any = (1, 2), dtype: Any = None) -> Tensor:
    return Tensor(name, datatype, np.array(values, dtype or DATATYPES[datatype].numpy))


def every_datatype() -> list[Tensor]:
    return [
        tensor(name.lower(), name, [["a", "é"], ["", "x\0y"]] if name == "BYTES" else [[1, 0]])
        for name in DATATYPES
    ]


def same(left: Tensor, right: Tensor) -> bool:
    return (
        (left.name, left.datatype, left.array.shape)
        == (right.name, right.datatype, right.array.shape)
        and left.array.dtype == right.array.dtype
        and left.array.tolist() == right.array.tolist()
    )


def x(**more: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2]} | more


def request(document: Any) -> InferRequest:
    return v2.parse_request(orjson.dumps(document))


def binary(document: Any, *raw: bytes) -> InferRequest:
    text = orjson.dumps(document)
    return v2.parse_request(text + b"".join(raw), len(text))


def raw_input(name: str, datatype: str, count: int, size: int) -> dict[str, Any]:
    parameters = {"binary_data_size": size}
    return {"name": name, "datatype": datatype, "shape": [count], "parameters": parameters}


# Requests


def test_a_json_request_is_read() -> None:
    asked = request(
        {
            "id": "42",
            "model_name": "ignored, as KServe's client sends it",
            "parameters": {"priority": 1},
            "inputs": [x(), {"name": "s", "datatype": "BYTES", "shape": [1, 1], "data": ["é"]}],
            "outputs": [{"name": "b", "parameters": {}}, {"name": "a"}],
        }
    )
    assert asked.id == "42"
    assert asked.outputs == [RequestedOutput("b", False), RequestedOutput("a", False)]
    assert asked.binary_output is False
    assert same(asked.tensors[0], tensor("x"))
    assert same(asked.tensors[1], tensor("s", "BYTES", [["é"]]))


def test_binary_and_json_inputs_may_be_mixed() -> None:
    raw = np.array([3, 4], "<i8").tobytes()
    asked = binary(
        {
            "inputs": [
                raw_input("a", "UINT8", 1, 1),
                x(parameters=None),
                raw_input("b", "INT64", 2, 16),
                raw_input("e", "FP64", 0, 0),
            ]
        },
        b"\7",
        raw,
    )
    assert [item.name for item in asked.tensors] == ["a", "x", "b", "e"]
    assert [item.array.tolist() for item in asked.tensors] == [[7], [1, 2], [3, 4], []]
    assert all(item.array.flags.aligned for item in asked.tensors)


@pytest.mark.parametrize(
    ("document", "outputs", "binary_output"),
    [
        ({}, None, False),
        ({"outputs": []}, None, False),
        ({"parameters": {"binary_data_output": True}}, None, True),
        ({"parameters": None}, None, False),
        (
            {"parameters": {"binary_data_output": True}, "outputs": [{"name": "y"}]},
            [RequestedOutput("y", True)],
            True,
        ),
        (
            {
                "parameters": {"binary_data_output": True},
                "outputs": [{"name": "y", "parameters": {"binary_data": False}}, {"name": "z"}],
            },
            [RequestedOutput("y", False), RequestedOutput("z", True)],
            True,
        ),
        (
            {"outputs": [{"name": "y", "parameters": {"binary_data": True}}]},
            [RequestedOutput("y", True)],
            False,
        ),
    ],
    ids=lambda item: str(item)[:60],
)
def test_what_outputs_are_asked_for_and_how(
    document: dict[str, Any], outputs: Any, binary_output: bool
) -> None:
    asked = request({"inputs": [x()]} | document)
    assert asked.outputs == outputs
    assert asked.binary_output is binary_output


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "the body is not JSON"),
        (b"{", "the body is not JSON"),
        (b'{"inputs": [NaN]}', "the body is not JSON"),
        (b'{"inputs": [1e400]}', "the body is not JSON"),
        (b'{"inputs": []} x', "the body is not JSON"),
        (b'{"id": "\\ud800"}', "the body is not JSON"),
        (b"\xff", "the body is not JSON"),
        (b"[" * 100_000, "the body is not JSON"),
        (b"[]", "the body is not a JSON object with 'inputs'"),
        (b"null", "the body is not a JSON object with 'inputs'"),
        (b"{}", "'inputs': expected a list of tensors"),
        (b'{"inputs": {}}', "'inputs': expected a list of tensors"),
        (b'{"inputs": [1]}', "'inputs[0]': expected an object"),
        (b'{"inputs": [{}]}', "'inputs[0].name': expected a string"),
        (b'{"inputs": [{"name": 1}]}', "'inputs[0].name': expected a string"),
        (b'{"inputs": [], "id": 42}', "'id': expected a string, got the number 42"),
        (b'{"inputs": [], "outputs": {}}', "'outputs': expected a list of objects"),
        (b'{"inputs": [], "outputs": ["y"]}', "'outputs[0].name': expected a string"),
        (b'{"inputs": [], "outputs": [{"name": 1}]}', "'outputs[0].name': expected a string"),
        (b'{"inputs": [], "parameters": []}', "'parameters': expected an object"),
        (
            b'{"inputs": [], "outputs": [{"name": "y", "parameters": 1}]}',
            "'outputs[0].parameters': expected an object",
        ),
        (
            b'{"inputs": [], "parameters": {"binary_data_output": 1}}',
            "'parameters.binary_data_output': expected true or false, got 1",
        ),
        (
            b'{"inputs": [], "outputs": [{"name": "y", "parameters": {"binary_data": "yes"}}]}',
            "'outputs[0].binary_data': expected true or false, got 'yes'",
        ),
    ],
    ids=lambda item: str(item)[:50],
)
def test_a_body_that_is_no_request_is_refused(body: bytes, words: str) -> None:
    with pytest.raises(InvalidBody, match=re.escape(words)):
        v2.parse_request(body)


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({"name": "x"}, "input 'x': expected a datatype of BOOL, UINT8"),
        (x(datatype="FP8"), "got 'FP8'"),
        (x(datatype="fp32"), "got 'fp32'"),
        (x(datatype=["FP32"]), "expected a datatype of"),
        (x(shape=None), "input 'x': expected a shape: a list of whole numbers from 0 on, got None"),
        (x(shape=2), "expected a shape"),
        (x(shape=[-1]), "got [-1]"),
        (x(shape=[2.0]), "got [2.0]"),
        (x(shape=[True]), "got [True]"),
        (x(shape=["2"]), "expected a shape"),
        (x(shape=[1] * 65), "expected a shape"),
        (x(shape=[0, 2**63], data=[]), "expected a shape that an array can have"),
        (x(shape=[3]), "input 'x': expected 3 elements for shape [3], got 2 elements"),
        (
            {"name": "x", "datatype": "FP32", "shape": [1]},
            "input 'x': expected 'data', or 'binary_data_size' in its parameters, got neither",
        ),
    ],
    ids=lambda item: str(item)[:60],
)
def test_a_tensor_that_contradicts_itself_is_refused_by_name(
    item: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidTensor, match=re.escape(words)) as caught:
        request({"inputs": [item]})
    assert caught.value.tensor == "x"


def test_the_deepest_shape_that_numpy_has_is_taken() -> None:
    assert request({"inputs": [x(shape=[1] * 64, data=[5])]}).tensors[0].array.ndim == 64


def raw_x(size: Any, **more: Any) -> dict[str, Any]:
    item = {"name": "x", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": size}}
    return {"inputs": [item | more]}


@pytest.mark.parametrize(
    ("size", "raw", "words"),
    [
        (8, b"\0" * 7, "input 'x': expected binary_data_size of at most the 7 bytes left, got 8"),
        (8, b"", "of at most the 0 bytes left, got 8"),
        (9, b"\0" * 9, "input 'x': expected 8 bytes for FP32 [2], got 9 bytes"),
        (4, b"\0" * 4, "input 'x': expected 8 bytes for FP32 [2], got 4 bytes"),
        (-1, b"", "got -1"),
        (2**62, b"\0" * 8, "got 4611686018427387904"),
        (8.0, b"\0" * 8, "got 8.0"),
        ("8", b"\0" * 8, "got '8'"),
        (True, b"\0", "got True"),
    ],
)
def test_a_forged_size_is_refused(size: Any, raw: bytes, words: str) -> None:
    with pytest.raises(InvalidTensor, match=re.escape(words)):
        binary(raw_x(size), raw)


def test_bytes_that_belong_to_no_tensor_are_refused() -> None:
    with pytest.raises(InvalidBody, match="holds 9 bytes of binary tensors, its inputs take 8"):
        binary(raw_x(8), b"\0" * 9)


def test_a_tensor_with_data_and_a_size_is_refused() -> None:
    with pytest.raises(InvalidTensor, match="either 'data' or 'binary_data_size', got both"):
        binary(raw_x(8, data=[1, 2]), b"\0" * 8)


def test_a_size_without_the_header_is_refused() -> None:
    with pytest.raises(InvalidTensor, match="at most the 0 bytes left"):
        v2.parse_request(orjson.dumps(raw_x(8)) + b"")


@pytest.mark.parametrize("length", [-1, 0, 3, 10**30], ids=str)
def test_a_length_of_the_json_beyond_the_body_is_refused(length: int) -> None:
    words = f"Inference-Header-Content-Length is {length}, the body has 2 bytes"
    with pytest.raises(InvalidBody, match=words):
        v2.parse_request(b"{}", length)


@pytest.mark.parametrize("header", [b"", b"-1", b"1.5", b"x", b"9" * 20, b"9" * 5000])
def test_a_length_of_the_json_that_is_no_number_is_refused(header: bytes) -> None:
    with pytest.raises(InvalidBody, match="expected a number"):
        v2.read_request(b"{}", header, Signature((), ()))


def test_a_length_that_cuts_the_json_is_refused() -> None:
    with pytest.raises(InvalidBody, match="the body is not JSON"):
        v2.parse_request(orjson.dumps({"inputs": []}), 5)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"inputs": [x(parameters={"shared_memory_region": "r"})]}, "shared memory"),
        ({"outputs": [{"name": "y", "parameters": {"classification": 3}}]}, "classification"),
        (
            {"outputs": [{"name": "y", "parameters": {"shared_memory_region": "r"}}]},
            "shared_memory_region",
        ),
    ],
    ids=["input", "classification", "output"],
)
def test_extensions_that_are_not_done_are_named(document: Any, words: str) -> None:
    with pytest.raises(Unsupported, match=words):
        request({"inputs": []} | document)


# Raw requests


def signature(*specs: TensorSpec) -> Signature:
    return Signature(specs, ())


@pytest.mark.parametrize(
    ("shape", "size", "expected"),
    [
        ((-1, 3), 12, (1, 3)),
        ((3,), 12, (3,)),
        ((), 4, ()),
        ((-1, -1), 12, (1, 3)),
        ((-1, -1, 2), 24, (1, 3, 2)),
        ((-1,), 4, (1,)),
    ],
    ids=str,
)
def test_a_raw_body_is_one_row_of_the_only_input(
    shape: tuple[int, ...], size: int, expected: tuple[int, ...]
) -> None:
    asked = v2.parse_raw_request(b"\0" * size, signature(TensorSpec("x", "FP32", shape)))
    (only,) = asked.tensors
    assert (only.name, only.datatype, only.array.shape) == ("x", "FP32", expected)
    assert asked.binary_output


def test_a_raw_text_is_the_whole_body() -> None:
    asked = v2.parse_raw_request("é,b".encode(), signature(TensorSpec("x", "BYTES", (-1, 1))))
    assert asked.tensors[0].array.tolist() == [["é,b"]]


@pytest.mark.parametrize(
    ("specs", "raw", "words"),
    [
        ([], b"", "a model with one input for a raw body, got a model with 0"),
        (
            [TensorSpec("a", "FP32", (1,)), TensorSpec("b", "FP32", (1,))],
            b"",
            "input 'a': expected a model with one input for a raw body, got a model with 2",
        ),
        ([TensorSpec("x", "FP32", (-1, 3))], b"\0" * 11, "expected 12 bytes for FP32 [1, 3]"),
        ([TensorSpec("x", "FP32", (-1, -1))], b"\0" * 5, "a multiple of 4 bytes, got 5 bytes"),
        ([TensorSpec("x", "FP32", (-1, -1, 0))], b"\0" * 4, "a multiple of 0 bytes, got 4 bytes"),
        ([TensorSpec("x", "FP32", (-1, -1, -1))], b"", "at most one dimension of open size"),
        ([TensorSpec("x", "BYTES", (-1, 1))], b"\xff", "expected UTF-8 text"),
        ([TensorSpec("x", "BYTES", (-1, 2))], b"a", "input 'x': expected a shape of one element"),
        ([TensorSpec("x", "BYTES", (3,))], b"a", "input 'x': expected a shape of one element"),
        ([TensorSpec("x", "BOOL", (-1,))], b"\2", "expected bytes 0 or 1"),
    ],
    ids=lambda item: str(item)[:50],
)
def test_a_raw_body_that_does_not_settle_the_input_is_refused(
    specs: list[TensorSpec], raw: bytes, words: str
) -> None:
    with pytest.raises(InvalidTensor, match=re.escape(words)):
        v2.parse_raw_request(raw, signature(*specs))


# Responses


def render(asked: InferRequest, *tensors: Tensor, version: str = "1") -> Any:
    return v2.render_response("m", version, tensors, asked)


def test_an_answer_in_json_is_flat_and_echoes_the_id() -> None:
    body = render(InferRequest([], "7"), tensor("y", values=[[1, 2.5]]))
    assert body.json_length is None
    assert orjson.loads(body.join()) == {
        "model_name": "m",
        "model_version": "1",
        "id": "7",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.5]}],
    }


def test_an_answer_leaves_out_what_there_is_not() -> None:
    document = orjson.loads(render(InferRequest([]), version="").join())
    assert document == {"model_name": "m", "outputs": []}


def test_only_the_outputs_asked_for_in_binary_are_binary() -> None:
    asked = InferRequest([], outputs=[RequestedOutput("a", True), RequestedOutput("b", False)])
    body = render(asked, tensor("a", "INT64", [2**53 + 1]), tensor("b", values=[1.5]))
    text = body.join()[: body.json_length]
    first, second = orjson.loads(text)["outputs"]
    assert first["parameters"] == {"binary_data_size": 8}
    assert "data" not in first
    assert second["data"] == [1.5]
    assert body.join()[body.json_length :] == (2**53 + 1).to_bytes(8, "little")


def test_the_tensors_of_a_binary_body_begin_aligned() -> None:
    for id_ in ("", "1", "12", "123456789"):
        body = render(InferRequest([], id_, binary_output=True), tensor("y"))
        assert body.json_length % 8 == 0
        assert body.content_length == len(body.join()) == body.json_length + 8


@pytest.mark.parametrize("as_binary", [True, False])
def test_the_peer_reads_what_was_rendered(as_binary: bool) -> None:
    sent = every_datatype()
    body = render(InferRequest([], binary_output=as_binary), *sent)
    assert (body.json_length is not None) == as_binary
    received = v2.parse_response(body.join(), body.json_length)
    assert all(map(same, sent, received))
    assert len(sent) == len(received)


@pytest.mark.parametrize("outputs", [None, ["a", "b"]], ids=str)
def test_the_runtime_reads_what_the_gateway_rendered(outputs: list[str] | None) -> None:
    sent = every_datatype()
    body = v2.render_request(sent, outputs)
    asked = v2.parse_request(body.join(), body.json_length)
    assert all(map(same, sent, asked.tensors))
    assert asked.binary_output
    wanted = None if outputs is None else [RequestedOutput(name, True) for name in outputs]
    assert asked.outputs == wanted


@pytest.mark.parametrize(
    ("body", "length"),
    [
        (b"", None),
        (b"[]", None),
        (b'{"outputs": 1}', None),
        (b'{"error": "x"}', None),
        (b"{}", 5),
        (b'{"outputs": []}extra', 15),
    ],
    ids=str,
)
def test_an_answer_that_is_none_is_refused(body: bytes, length: int | None) -> None:
    with pytest.raises(InvalidBody):
        v2.parse_response(body, length)


@given(st.data())
def test_a_damaged_body_gives_a_request_or_a_sentence(data: st.DataObject) -> None:
    body = v2.render_request(every_datatype())
    whole = bytearray(body.join())
    for at in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=4)):
        whole[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)) | st.just(len(whole)))
    length = data.draw(st.none() | st.just(body.json_length) | st.integers(-2, len(whole) + 2))
    with contextlib.suppress(MoorageError):
        assert v2.parse_request(bytes(whole[:cut]), length)


# Paths


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v2/models/m", ModelPath("m", "", "")),
        ("/v2/models/m/", ModelPath("m", "", "")),
        ("/v2/models/m/infer", ModelPath("m", "", "infer")),
        ("/v2/models/m/ready", ModelPath("m", "", "ready")),
        ("/v2/models/m/versions/3", ModelPath("m", "3", "")),
        ("/v2/models/m/versions/3/infer", ModelPath("m", "3", "infer")),
        ("/v2/models/ns/m/versions/3/stats", ModelPath("ns/m", "3", "stats")),
        ("/v2/models/ns/m/config", ModelPath("ns/m", "", "config")),
        ("/v2/models/infer", ModelPath("infer", "", "")),
        ("/v2/models/versions", ModelPath("versions", "", "")),
        ("/v2/models/versions/versions/1", ModelPath("versions", "1", "")),
        ("/v2/models/", None),
        ("/v2/models", None),
        ("/v2/models//infer", None),
        ("/v2/models/a/b/c", None),
        ("/v2/models/a/b/c/infer", None),
        ("/v1/models/m", None),
        ("", None),
    ],
)
def test_a_path_is_taken_apart(path: str, expected: ModelPath | None) -> None:
    assert v2.parse_path(path) == expected
