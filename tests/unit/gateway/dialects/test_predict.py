"""The plain dialect: `{"input": …}` in, `{"prediction": …}` out."""

from collections.abc import Callable
from typing import Any

import pytest

from moorage_api.errors import (
    InvalidBody,
    InvalidTensor,
    MoorageError,
    NotReady,
    UnknownEndpoint,
    UnknownModel,
    UnknownVersion,
)
from moorage_gateway.dialects.call import Call, Target

AT_ENDPOINT = Target("predict", "m")
UNIVERSAL = Target("predict")

#: Signature, input, the tensors it makes, outputs, the prediction they make.
CASES = [
    pytest.param("scalar", 2.5, {"x": [[2.5]]}, {"y": [[5.0]]}, 5.0, id="scalar: one row"),
    pytest.param(
        "scalar",
        [1, 2],
        {"x": [[1.0], [2.0]]},
        {"y": [[3.0], [4.0]]},
        [3.0, 4.0],
        id="scalar: rows",
    ),
    pytest.param("vector", 1, {"x": [1.0]}, {"y": [2.0]}, 2.0, id="rank 1: one row"),
    pytest.param("vector", [1], {"x": [1.0]}, {"y": [2.0]}, [2.0], id="rank 1: rows"),
    pytest.param(
        "row", [1, 2, 3], {"x": [[1.0, 2.0, 3.0]]}, {"y": [[4.0, 5.0]]}, [4.0, 5.0], id="one row"
    ),
    pytest.param(
        "row",
        [[1, 2, 3], [4, 5, None]],
        {"x": [[1.0, 2.0, 3.0], [4.0, 5.0, "nan"]]},
        {"y": [[6.0, 7.0], [8.0, float("nan")]]},
        [[6.0, 7.0], [8.0, None]],
        id="rows, with a missing value",
    ),
    pytest.param(
        "row",
        {"x": [1, 2, 3]},
        {"x": [[1.0, 2.0, 3.0]]},
        {"y": [[4.0, 5.0]]},
        [4.0, 5.0],
        id="one row by name",
    ),
    pytest.param(
        "row",
        [{"x": [1, 2, 3]}],
        {"x": [[1.0, 2.0, 3.0]]},
        {"y": [[4.0, 5.0]]},
        [[4.0, 5.0]],
        id="rows as objects",
    ),
    pytest.param(
        "classifier",
        [1, 2, 3],
        {"x": [[1.0, 2.0, 3.0]]},
        {"label": [1], "scores": [[0.25, 0.75]]},
        {"label": 1, "scores": {"no": 0.25, "yes": 0.75}},
        id="a classifier's scores by class",
    ),
    pytest.param(
        "unnamed classifier",
        [[1, 2, 3]],
        {"x": [[1.0, 2.0, 3.0]]},
        {"label": [1], "probabilities": [[0.25, 0.75]]},
        [{"label": 1, "probabilities": [0.25, 0.75]}],
        id="a classifier without names",
    ),
    pytest.param(
        "columns",
        {"age": 7, "country": "NL", "amount": 1.5},
        {"age": [[7]], "country": [["NL"]], "amount": [1.5]},
        {"y": [[2.5]]},
        2.5,
        id="columns: one row by name",
    ),
    pytest.param(
        "columns",
        [7, "NL", 1.5],
        {"age": [[7]], "country": [["NL"]], "amount": [1.5]},
        {"y": [[2.5]]},
        2.5,
        id="columns: one row by place",
    ),
    pytest.param(
        "columns",
        {"amount": [1, 2], "country": ["NL", "BE"], "age": [7, 8]},
        {"amount": [1.0, 2.0], "country": [["NL"], ["BE"]], "age": [[7], [8]]},
        {"y": [[2.5], [3.5]]},
        [2.5, 3.5],
        id="columns: rows by name",
    ),
    pytest.param(
        "two tensors",
        {"a": [1, 2], "b": 3},
        {"a": [[1.0, 2.0]], "b": [[3]]},
        {"p": [[1.0, 2.0]], "q": [[3]], "r": ["text"]},
        {"p": [1.0, 2.0], "q": 3, "r": "text"},
        id="several tensors",
    ),
    pytest.param("texts", "é", {"t": [["é"]]}, {"u": [["É"]]}, "É", id="a text"),
    pytest.param(
        "flags", [True, False], {"x": [[True, False]]}, {"y": [[1, 0]]}, [1, 0], id="booleans"
    ),
    pytest.param(
        "whole",
        [[1, 2, 3], [4, 5, 6]],
        {"x": [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]},
        {"y": [1.0, 2.0, 3.0]},
        [1.0, 2.0, 3.0],
        id="a whole tensor",
    ),
    pytest.param(
        "wholes",
        {"x": [1, 2], "n": 3},
        {"x": [1.0, 2.0], "n": 3},
        {"y": [1.0, 2.0], "m": 4},
        {"y": [1.0, 2.0], "m": 4},
        id="whole tensors",
    ),
]


def _plain(values: Any) -> Any:
    """Make NaN comparable."""
    if isinstance(values, list):
        return [_plain(value) for value in values]
    return "nan" if values != values else values


@pytest.mark.parametrize(("build", "given", "tensors", "outputs", "prediction"), CASES)
def test_an_input_becomes_tensors_and_outputs_a_prediction(
    signatures: Any,
    parsed: Callable[..., Call],
    inputs_of: Callable[..., dict[str, Any]],
    answered: Callable[..., Any],
    tensor: Any,
    call_id: str,
    build: str,
    given: Any,
    tensors: Any,
    outputs: Any,
    prediction: Any,
) -> None:
    signature = signatures[build]
    call = parsed(AT_ENDPOINT, {"input": given}, signature)
    assert {name: _plain(values) for name, values in inputs_of(call).items()} == tensors
    types = {spec.name: spec.datatype for spec in signature.outputs}
    answers = [tensor(name, types[name], values) for name, values in outputs.items()]
    assert answered(call, answers) == {
        "prediction": prediction,
        "model_name": "m",
        "version": "7",
        "prediction_id": call_id,
    }


@pytest.mark.parametrize("version", ["7", 7, None])
def test_the_universal_path_takes_the_model_from_the_body(
    signatures: Any, parsed: Callable[..., Call], version: Any
) -> None:
    body = {"model_name": "flower", "version": version, "input": 1}
    call = parsed(UNIVERSAL, body, signatures["scalar"], model="flower")
    assert call.route is not None
    assert call.route.model == "flower"


def test_the_universal_path_takes_the_latest_version_where_none_is_named(
    signatures: Any, parsed: Callable[..., Call]
) -> None:
    call = parsed(UNIVERSAL, {"model_name": "m", "input": 1}, signatures["scalar"])
    assert call.route is not None
    assert call.route.version == "7"


@pytest.mark.parametrize(
    ("target", "body", "error", "words"),
    [
        pytest.param(AT_ENDPOINT, {}, InvalidBody, "'input': is required", id="no input"),
        pytest.param(AT_ENDPOINT, [1], InvalidBody, "not a JSON object", id="not an object"),
        pytest.param(AT_ENDPOINT, b'{"input": NaN}', InvalidBody, "not JSON", id="NaN"),
        pytest.param(
            AT_ENDPOINT, {"inputs": [1]}, InvalidBody, "unknown key 'inputs'", id="a typo"
        ),
        pytest.param(
            AT_ENDPOINT,
            {"input": 1, "model_name": "m"},
            InvalidBody,
            "unknown key 'model_name'; expected input",
            id="a model at an endpoint",
        ),
        pytest.param(
            AT_ENDPOINT, {"input": None}, InvalidTensor, "input 'x'.*null", id="null for a row"
        ),
        pytest.param(AT_ENDPOINT, {"input": [1, 2]}, InvalidTensor, "shape", id="a short row"),
        pytest.param(AT_ENDPOINT, {"input": "1"}, InvalidTensor, "input 'x'", id="a text"),
        pytest.param(
            AT_ENDPOINT, {"input": {"z": [1, 2, 3]}}, InvalidTensor, "'z'", id="an unknown input"
        ),
        pytest.param(AT_ENDPOINT, {"input": {}}, InvalidTensor, "no such input", id="no inputs"),
        pytest.param(
            AT_ENDPOINT, {"input": [[1, 2, 1e39]]}, InvalidTensor, "input 'x'", id="beyond FP32"
        ),
        pytest.param(
            AT_ENDPOINT, {"input": [[1, 2, True]]}, InvalidTensor, "input 'x'", id="a boolean"
        ),
        pytest.param(UNIVERSAL, {"input": 1}, InvalidBody, "'model_name'", id="no model"),
        pytest.param(
            UNIVERSAL, {"model_name": "", "input": 1}, InvalidBody, "'model_name'", id="empty model"
        ),
        pytest.param(
            UNIVERSAL,
            {"model_name": 3, "input": 1},
            InvalidBody,
            "got 3",
            id="a number for a model",
        ),
        pytest.param(
            UNIVERSAL,
            {"model_name": "m", "version": 1.0, "input": 1},
            InvalidBody,
            "'version'",
            id="a fraction for a version",
        ),
        pytest.param(
            UNIVERSAL,
            {"model_name": "m", "version": True, "input": 1},
            InvalidBody,
            "'version'",
            id="true for a version",
        ),
        pytest.param(
            UNIVERSAL, {"model_name": "z", "input": 1}, UnknownModel, "'z'", id="an unknown model"
        ),
        pytest.param(
            UNIVERSAL,
            {"model_name": "m", "version": "8", "input": 1},
            UnknownVersion,
            "there are: 7",
            id="an unknown version",
        ),
        pytest.param(
            Target("predict", "z"), {"input": 1}, UnknownEndpoint, "'z'", id="an unknown endpoint"
        ),
    ],
)
def test_a_wrong_body_is_refused_with_what_was_expected(
    signatures: Any,
    parsed: Callable[..., Call],
    target: Target,
    body: Any,
    error: type[MoorageError],
    words: str,
) -> None:
    with pytest.raises(error, match=words):
        parsed(target, body, signatures["row"])


def test_a_deployment_that_is_not_ready_is_found_before_the_body_is_judged(
    signatures: Any, parsed: Callable[..., Call]
) -> None:
    with pytest.raises(NotReady):
        parsed(AT_ENDPOINT, {"inputs": 1}, signatures["row"], addresses=())
