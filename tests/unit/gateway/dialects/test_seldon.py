"""Seldon v1's messages."""

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from moorage_api.errors import (
    InvalidBody,
    InvalidTensor,
    MoorageError,
    RuntimeBroke,
    UnknownModel,
    Unsupported,
)
from moorage_api.signature import Signature, TensorSpec
from moorage_gateway.dialects import seldon
from moorage_gateway.dialects.call import Call, Rendered, Target

TARGET = Target("seldon", "default/m")
BARE = Target("seldon")
PATH = {"m": "m:7"}

#: Signature, message, the tensors it makes, outputs, the message they make without its meta.
CASES = [
    pytest.param(
        "row",
        {"data": {"ndarray": [[1, 2, 3]]}},
        {"x": [[1.0, 2.0, 3.0]]},
        {"y": [[4.0, 5.0]]},
        {"data": {"names": ["t:0", "t:1"], "ndarray": [[4.0, 5.0]]}},
        id="ndarray",
    ),
    pytest.param(
        "row",
        {"ndarray": {"data": [[1, 2, 3]]}},
        {"x": [[1.0, 2.0, 3.0]]},
        {"y": [[4.0, 5.0]]},
        {"data": {"names": ["t:0", "t:1"], "ndarray": [[4.0, 5.0]]}},
        id="ndarray inside out",
    ),
    pytest.param(
        "row",
        {"tensor": {"data": {"shape": [1, 3], "values": [1, 2, 3]}}},
        {"x": [[1.0, 2.0, 3.0]]},
        {"y": [[4.0, 5.0]]},
        {"data": {"names": ["t:0", "t:1"], "tensor": {"shape": [1, 2], "values": [4.0, 5.0]}}},
        id="tensor inside out",
    ),
    pytest.param(
        "row",
        {"data": {"names": ["a", "b", "c"], "ndarray": [1, 2, 3]}},
        {"x": [[1.0, 2.0, 3.0]]},
        {"y": [[4.0, 5.0]]},
        {"data": {"names": ["t:0", "t:1"], "ndarray": [[4.0, 5.0]]}},
        id="one row without its outer list, with names",
    ),
    pytest.param(
        "row",
        {"data": {"tensor": {"shape": [2, 3], "values": [1, 2, 3, 4, 5, 6]}}},
        {"x": [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]},
        {"y": [[1.0, 2.0], [3.0, 4.0]]},
        {
            "data": {
                "names": ["t:0", "t:1"],
                "tensor": {"shape": [2, 2], "values": [1.0, 2.0, 3.0, 4.0]},
            }
        },
        id="tensor",
    ),
    pytest.param(
        "image",
        {"data": {"tensor": {"shape": [1, 2, 2, 3], "values": list(range(12))}}},
        {"x": [[[[0, 1, 2], [3, 4, 5]], [[6, 7, 8], [9, 10, 11]]]]},
        {"y": [[1.0, 2.0, 3.0, 4.0]]},
        {
            "data": {
                "names": ["t:0", "t:1", "t:2", "t:3"],
                "tensor": {"shape": [1, 4], "values": [1.0, 2.0, 3.0, 4.0]},
            }
        },
        id="a tensor of rank 4",
    ),
    pytest.param(
        "classifier",
        {"data": {"ndarray": [[1, 2, 3]]}},
        {"x": [[1.0, 2.0, 3.0]]},
        {"label": [1], "scores": [[0.25, 0.75]]},
        {"data": {"names": ["no", "yes"], "ndarray": [[0.25, 0.75]]}},
        id="a classifier sends its scores",
    ),
    pytest.param(
        "unnamed classifier",
        {"data": {"ndarray": [[1, 2, 3]]}},
        {"x": [[1.0, 2.0, 3.0]]},
        {"label": [1], "probabilities": [[0.25, 0.75]]},
        {"data": {"names": ["t:0", "t:1"], "ndarray": [[0.25, 0.75]]}},
        id="a classifier without class names",
    ),
    pytest.param(
        "columns",
        {"data": {"names": ["amount", "age", "country"], "ndarray": [[1.5, 7, "NL"]]}},
        {"amount": [1.5], "age": [[7]], "country": [["NL"]]},
        {"y": [[2.5]]},
        {"data": {"names": ["t:0"], "ndarray": [[2.5]]}},
        id="names give columns to inputs",
    ),
    pytest.param(
        "columns",
        {"data": {"ndarray": [[7, "NL", 1.5]]}},
        {"age": [[7]], "country": [["NL"]], "amount": [1.5]},
        {"y": [[2.5]]},
        {"data": {"names": ["t:0"], "ndarray": [[2.5]]}},
        id="columns by place",
    ),
    pytest.param(
        "two tensors",
        {"jsonData": {"a": [1, 2], "b": 3}},
        {"a": [[1.0, 2.0]], "b": [[3]]},
        {"p": [[1.0, 2.0]], "q": [[3]], "r": ["text"]},
        {"jsonData": {"p": [1.0, 2.0], "q": 3, "r": "text"}},
        id="jsonData",
    ),
    pytest.param(
        "texts",
        {"strData": "é"},
        {"t": [["é"]]},
        {"u": [["É"]]},
        {"strData": "É"},
        id="strData answered with a text",
    ),
    pytest.param(
        "texts",
        {"data": {"tensor": {"shape": [1, 1], "values": ["a"]}}},
        {"t": [["a"]]},
        {"u": [["A"]]},
        {"data": {"names": ["t:0"], "ndarray": [["A"]]}},
        id="texts do not fit a tensor",
    ),
    pytest.param(
        "vector",
        {"data": {"ndarray": [1, 2]}},
        {"x": [1.0, 2.0]},
        {"y": [3.0, float("nan")]},
        {"data": {"names": [], "ndarray": [3.0, None]}},
        id="rank 1",
    ),
]


@pytest.mark.parametrize(("build", "message", "tensors", "outputs", "answer"), CASES)
def test_a_message_is_answered_with_its_own_kind_of_data(
    signatures: Any,
    parsed: Callable[..., Call],
    inputs_of: Callable[..., dict[str, Any]],
    answered: Callable[..., Any],
    tensor: Any,
    build: str,
    message: Any,
    tensors: Any,
    outputs: Any,
    answer: Any,
) -> None:
    signature = signatures[build]
    call = parsed(TARGET, message, signature)
    assert inputs_of(call) == tensors
    types = {spec.name: spec.datatype for spec in signature.outputs}
    answers = [tensor(name, types[name], values) for name, values in outputs.items()]
    assert answered(call, answers) == answer | {"meta": {"requestPath": PATH}}


@pytest.mark.parametrize("message", [{"data": {"ndarray": [1]}}, {"jsonData": [1]}])
def test_outputs_of_which_none_says_it_all_are_answered_by_name(
    parsed: Callable[..., Call], answered: Callable[..., Any], tensor: Any, message: Any
) -> None:
    shape = (-1, 2)
    signature = Signature(
        (TensorSpec("x", "FP32", (-1,)),),
        (TensorSpec("boxes", "FP32", shape), TensorSpec("masks", "FP32", shape)),
    )
    call = parsed(TARGET, message, signature)
    outputs = [tensor("boxes", "FP32", [[1, 2]]), tensor("masks", "FP32", [[3, 4]])]
    assert answered(call, outputs)["jsonData"] == [{"boxes": [1.0, 2.0], "masks": [3.0, 4.0]}]


class TestThePuid:
    """`meta.puid` and the header `Seldon-Puid`."""

    def header_of(self, answer: Rendered) -> str:
        return dict(answer.headers)[b"seldon-puid"].decode()

    @pytest.fixture
    def exchange(
        self, signatures: Any, parsed: Callable[..., Call], rendered: Any, tensor: Any
    ) -> Callable[..., tuple[Call, Rendered, Any]]:
        def exchange(meta: Any, headers: Any = None) -> tuple[Call, Rendered, Any]:
            message = {"data": {"ndarray": [[1, 2, 3]]}} | ({} if meta is None else {"meta": meta})
            call = parsed(TARGET, message, signatures["row"], headers)
            answer = rendered(call, [tensor("y", "FP32", [[1, 2]])])
            return call, answer, orjson.loads(b"".join(answer.chunks))["meta"]

        return exchange

    def test_is_echoed_in_the_meta_and_in_the_header(self, exchange: Any) -> None:
        call, answer, meta = exchange({"puid": "abc-1", "tags": {"a": 1}})
        assert meta == {"puid": "abc-1", "tags": {"a": 1}, "requestPath": PATH}
        assert self.header_of(answer) == "abc-1"
        assert call.client_id == "abc-1"

    @pytest.mark.parametrize("meta", [None, {}, {"puid": ""}, {"puid": None}])
    def test_is_the_predictions_own_id_where_there_is_none(
        self, exchange: Any, call_id: str, meta: Any
    ) -> None:
        _, answer, meta = exchange(meta)
        assert self.header_of(answer) == call_id
        assert "puid" not in meta

    def test_of_the_requests_header_is_returned(self, exchange: Any) -> None:
        _, answer, meta = exchange(None, {b"seldon-puid": b"from-header"})
        assert self.header_of(answer) == "from-header"
        assert "puid" not in meta

    def test_tags_that_cannot_be_given_back_are_refused_before_the_model_runs(
        self, parsed: Callable[..., Call], signatures: Any
    ) -> None:
        tags = '{"a":' * 400 + "1" + "}" * 400
        body = '{"data":{"ndarray":[[1,2,3]]},"meta":{"tags":' + tags + "}}"
        with pytest.raises(InvalidBody, match=r"meta\.tags"):
            parsed(TARGET, body.encode(), signatures["row"])

    @pytest.mark.parametrize(
        "puid",
        [
            pytest.param("a\r\nset-cookie: x=1", id="a line break that would end the header"),
            pytest.param("a\nb", id="a bare line feed"),
            pytest.param("a\0b", id="a null byte"),
            pytest.param("é", id="a letter beyond ASCII"),
            pytest.param("a" * 257, id="longer than an id is stored"),
            pytest.param(7, id="a number"),
            pytest.param(["a"], id="a list"),
        ],
    )
    def test_that_no_header_can_hold_is_refused(self, exchange: Any, puid: Any) -> None:
        with pytest.raises(InvalidBody, match=r"meta\.puid"):
            exchange({"puid": puid})


@pytest.mark.parametrize(
    ("build", "message", "error", "words"),
    [
        pytest.param("row", {}, InvalidBody, "Invalid request data type", id="nothing"),
        pytest.param("row", {"data": None}, InvalidBody, "Invalid request data type", id="null"),
        pytest.param(
            "row",
            {"data": {"ndarray": [[1, 2, 3]]}, "strData": "x"},
            InvalidBody,
            "Invalid request data type",
            id="two kinds",
        ),
        pytest.param(
            "row", {"data": [[1, 2, 3]]}, InvalidBody, "'data': expected an object", id="list"
        ),
        pytest.param("row", {"data": {}}, InvalidBody, "ndarray, tensor", id="empty data"),
        pytest.param(
            "row",
            {"data": {"ndarray": [], "tensor": {}}},
            InvalidBody,
            "ndarray, tensor",
            id="both arrays",
        ),
        pytest.param("row", {"data": {"ndarray": 1}}, InvalidBody, "a list", id="a bare number"),
        pytest.param(
            "row", {"ndarray": [[1, 2, 3]]}, InvalidBody, "belongs inside 'data'", id="no data"
        ),
        pytest.param(
            "row",
            {"ndarray": {"data": [[1, 2, 3]]}, "data": {}},
            InvalidBody,
            "belongs inside 'data'",
            id="inside out beside data",
        ),
        pytest.param("row", {"data": {"tensor": {}}}, InvalidBody, "shape", id="an empty tensor"),
        pytest.param(
            "row",
            {"data": {"tensor": {"shape": [1, 3], "values": [1, 2]}}},
            InvalidBody,
            "expected 3 values",
            id="a short tensor",
        ),
        pytest.param(
            "row",
            {"data": {"tensor": {"shape": [-1, 3], "values": []}}},
            InvalidBody,
            "shape",
            id="an open shape",
        ),
        pytest.param(
            "row",
            {"data": {"tensor": {"shape": [1] * 65, "values": [1]}}},
            InvalidBody,
            "tensor",
            id="too many dimensions",
        ),
        pytest.param(
            "row",
            {"data": {"names": "a", "ndarray": [[1, 2, 3]]}},
            InvalidBody,
            "names",
            id="names that are a text",
        ),
        pytest.param("row", {"binData": "AAAA"}, Unsupported, "binData", id="binData"),
        pytest.param("row", {"data": {"tftensor": {}}}, Unsupported, "tftensor", id="tftensor"),
        pytest.param("row", {"strData": "text"}, InvalidTensor, "input 'x'", id="a text"),
        pytest.param("row", {"meta": 1, "data": {"ndarray": []}}, InvalidBody, "meta", id="meta"),
        pytest.param(
            "columns",
            {"data": {"names": ["a", "b", "c"], "ndarray": [[1, 2, 3]]}},
            InvalidTensor,
            "data.names",
            id="names of no inputs",
        ),
        pytest.param(
            "columns",
            {"data": {"names": ["amount", "age", "country"], "ndarray": [[1.5, 7]]}},
            InvalidTensor,
            "rows of 3",
            id="a short row by names",
        ),
    ],
)
def test_a_wrong_message_is_refused(
    signatures: Any,
    parsed: Callable[..., Call],
    build: str,
    message: Any,
    error: type[MoorageError],
    words: str,
) -> None:
    with pytest.raises(error, match=words):
        parsed(TARGET, message, signatures[build])


def test_a_bare_path_takes_the_only_deployment_whatever_the_host(
    signatures: Any, parsed: Callable[..., Call]
) -> None:
    message = {"data": {"ndarray": [[1, 2, 3]]}}
    for headers in ({}, {b"host": b"gateway:8080"}, {b"host": b"m.default"}):
        assert parsed(BARE, message, signatures["row"], headers).route is not None


def test_a_path_with_another_name_is_not_found(
    signatures: Any, parsed: Callable[..., Call]
) -> None:
    with pytest.raises(UnknownModel):
        parsed(Target("seldon", "other/m"), {"data": {"ndarray": []}}, signatures["row"])


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (InvalidBody("no"), 400, "MICROSERVICE_BAD_DATA"),
        (RuntimeBroke("no"), 502, "MICROSERVICE_INTERNAL_ERROR"),
    ],
)
def test_an_error_is_told_as_seldons_clients_read_it(
    error: MoorageError, status: int, reason: str
) -> None:
    assert orjson.loads(seldon.error_body(error, status)) == {
        "error": "no",
        "status": {"status": 1, "info": "no", "code": -1, "reason": reason},
    }


def test_a_message_in_a_form_is_the_same(parsed: Callable[..., Call], signatures: Any) -> None:
    form = b"json=%7B%22data%22%3A+%7B%22ndarray%22%3A+%5B%5B1%2C+2%2C+3%5D%5D%7D%7D&other=1"
    (tensor,) = parsed(TARGET, form, signatures["row"]).tensors
    assert tensor.array.tolist() == [[1, 2, 3]]


def test_a_form_hides_no_literal_in_its_escapes(
    parsed: Callable[..., Call], signatures: Any
) -> None:
    form = b'json={"data":{"ndarray":[[%74rue,2,3]]}}'
    with pytest.raises(InvalidTensor, match="got true"):
        parsed(TARGET, form, signatures["row"])
