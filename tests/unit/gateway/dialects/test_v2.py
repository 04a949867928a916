"""The Open Inference Protocol at the gateway; the wire format itself is the contract package's."""

from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pytest

from moorage_api import v2 as wire
from moorage_api.errors import InvalidBody, InvalidTensor, MoorageError, UnknownVersion
from moorage_gateway.dialects.call import Call, Rendered, Target

TARGET = Target("v2", "m")
LENGTH = b"inference-header-content-length"
ROW = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}


def test_json_is_answered_with_json(
    signatures: Any, parsed: Callable[..., Call], rendered: Callable[..., Rendered], tensor: Any
) -> None:
    call = parsed(TARGET, {"id": "42", "inputs": [ROW]}, signatures["row"])
    assert call.client_id == "42"
    answer = rendered(call, [tensor("y", "FP32", [[1, float("nan")]])])
    assert dict(answer.headers) == {b"content-type": b"application/json"}
    assert orjson.loads(b"".join(answer.chunks)) == {
        "model_name": "m",
        "model_version": "7",
        "id": "42",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [1.0, None]}],
    }


def test_binary_is_answered_with_binary(
    signatures: Any, parsed: Callable[..., Call], rendered: Callable[..., Rendered], tensor: Any
) -> None:
    given = tensor("x", "FP32", [[1, 2, 3]])
    request = wire.render_request([given])
    headers = {LENGTH: str(request.json_length).encode()}
    call = parsed(TARGET, request.join(), signatures["row"], headers)
    np.testing.assert_array_equal(call.tensors[0].array, given.array)
    answer = rendered(call, [tensor("y", "FP32", [[1, float("nan")]])])
    told = dict(answer.headers)
    assert told[b"content-type"] == b"application/octet-stream"
    (found,) = wire.parse_response(b"".join(answer.chunks), int(told[LENGTH]))
    np.testing.assert_array_equal(found.array, np.array([[1, np.nan]], np.float32))


def test_one_output_may_be_binary_and_another_not(
    signatures: Any, parsed: Callable[..., Call], rendered: Callable[..., Rendered], tensor: Any
) -> None:
    body = {
        "inputs": [
            {"name": "a", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]},
            {"name": "b", "shape": [1, 1], "datatype": "INT64", "data": [3]},
        ],
        "outputs": [{"name": "q", "parameters": {"binary_data": True}}, {"name": "r"}],
    }
    call = parsed(TARGET, body, signatures["two tensors"])
    assert call.outputs == ["q", "r"]
    answer = rendered(call, [tensor("q", "INT64", [[5]]), tensor("r", "BYTES", ["é"])])
    length = int(dict(answer.headers)[LENGTH])
    whole = b"".join(answer.chunks)
    assert whole[length:] == (5).to_bytes(8, "little")
    assert orjson.loads(whole[:length])["outputs"][1]["data"] == ["é"]


def test_a_raw_body_is_the_only_input(signatures: Any, parsed: Callable[..., Call]) -> None:
    raw = np.array([1, 2, 3], np.float32).tobytes()
    call = parsed(TARGET, raw, signatures["row"], {LENGTH: b"0"})
    assert call.tensors[0].array.tolist() == [[1.0, 2.0, 3.0]]


def test_the_model_answers_under_the_name_that_the_path_has(
    signatures: Any, parsed: Callable[..., Call], answered: Callable[..., Any], tensor: Any
) -> None:
    target = Target("v2", "default/m", "7")
    call = parsed(target, {"inputs": [ROW]}, signatures["row"])
    answer = answered(call, [tensor("y", "FP32", [[1, 2]])])
    assert (answer["model_name"], answer["model_version"]) == ("default/m", "7")
    assert "id" not in answer


@pytest.mark.parametrize(
    ("body", "headers", "error", "words"),
    [
        pytest.param({}, {}, InvalidBody, "'inputs'", id="no inputs"),
        pytest.param(b'{"inputs": [NaN]}', {}, InvalidBody, "not JSON", id="NaN"),
        pytest.param({"inputs": [ROW]}, {LENGTH: b"x"}, InvalidBody, "a number", id="no length"),
        pytest.param({"inputs": [ROW]}, {LENGTH: b"-1"}, InvalidBody, "a number", id="below zero"),
        pytest.param(
            {"inputs": [ROW]}, {LENGTH: b"9999"}, InvalidBody, "9999", id="beyond the end"
        ),
        pytest.param(
            {"inputs": [ROW | {"datatype": "FP64"}]}, {}, InvalidTensor, "datatype", id="datatype"
        ),
        pytest.param({"inputs": [ROW | {"shape": [3, 1]}]}, {}, InvalidTensor, "shape", id="shape"),
        pytest.param({"inputs": [ROW, ROW]}, {}, InvalidTensor, "twice", id="an input twice"),
        pytest.param(
            {"inputs": [ROW], "outputs": [{"name": "z"}]},
            {},
            InvalidTensor,
            "output 'z'.*'y'",
            id="an unknown output",
        ),
        pytest.param(
            {"inputs": [ROW], "outputs": [{"name": "y"}, {"name": "y"}]},
            {},
            InvalidTensor,
            "output 'y'.*twice",
            id="an output twice",
        ),
    ],
)
def test_a_wrong_body_is_refused(
    signatures: Any,
    parsed: Callable[..., Call],
    body: Any,
    headers: dict[bytes, bytes],
    error: type[MoorageError],
    words: str,
) -> None:
    with pytest.raises(error, match=words):
        parsed(TARGET, body, signatures["row"], headers)


def test_another_version_is_not_found(signatures: Any, parsed: Callable[..., Call]) -> None:
    with pytest.raises(UnknownVersion, match="there are: 7"):
        parsed(Target("v2", "m", "8"), {"inputs": [ROW]}, signatures["row"])


def test_a_long_id_is_echoed_whole_and_kept_short(
    signatures: Any, parsed: Callable[..., Call], answered: Callable[..., Any], tensor: Any
) -> None:
    call = parsed(TARGET, {"id": "a" * 1000, "inputs": [ROW]}, signatures["row"])
    assert answered(call, [tensor("y", "FP32", [[1, 2]])])["id"] == "a" * 1000
    assert call.client_id == "a" * 256
