"""The typed description of every endpoint."""

from collections.abc import Callable
from typing import Any

import jsonschema
import pytest
from jsonschema import Draft202012Validator

from moorage_api import rows
from moorage_api.errors import InvalidTensor
from moorage_api.signature import Signature, TensorSpec
from moorage_gateway import openapi
from moorage_gateway.routing import Route, Table

BUILDS = [
    "scalar",
    "vector",
    "row",
    "classifier",
    "unnamed classifier",
    "columns",
    "two tensors",
    "texts",
    "flags",
    "image",
    "open",
    "whole",
    "wholes",
]


def accepts(schema: dict[str, Any], value: Any) -> bool:
    return bool(Draft202012Validator(schema).is_valid(value))


@pytest.fixture(params=BUILDS)
def signature(request: pytest.FixtureRequest, signatures: dict[str, Signature]) -> Signature:
    return signatures[request.param]


def test_schemas_are_schemas(signature: Signature) -> None:
    for schema in (openapi.input_schema(signature), openapi.prediction_schema(signature)):
        Draft202012Validator.check_schema(schema)


def test_the_example_is_accepted_by_its_schema_and_by_the_dialect(signature: Signature) -> None:
    schema = openapi.input_schema(signature)
    (example,) = schema["examples"]
    jsonschema.validate(example, schema, Draft202012Validator)
    given = rows.parse(example, signature)
    signature.rows(signature.check(given.tensors))


def test_a_large_input_has_no_example() -> None:
    whole = TensorSpec("x", "FP32", (-1, 3, 224, 224))
    schema = openapi.input_schema(Signature((whole,), (TensorSpec("y", "FP32", (-1, 1)),)))
    assert "examples" not in schema


#: What the dialect takes, and so the schema has to.
RIGHT = [
    ("scalar", 2.5),
    ("scalar", [1, 2]),
    ("scalar", {"x": 1}),
    ("scalar", [{"x": 1}, {"x": None}]),
    ("vector", [1, 2]),
    ("row", [1, 2, 3]),
    ("row", [[1, 2, None]]),
    ("row", {"x": [1, 2, 3]}),
    ("row", {"x": [[1, 2, 3], [4, 5, 6]]}),
    ("row", [{"x": [1, 2, 3]}]),
    ("columns", {"age": 1, "country": "NL", "amount": None}),
    ("columns", {"age": [1], "country": ["NL"], "amount": [1]}),
    ("columns", [{"age": 1, "country": "NL", "amount": 2}]),
    ("columns", [1, "NL", 2.5]),
    ("columns", [[1, "NL", 2.5], [2, "BE", None]]),
    ("two tensors", {"a": [1, 2], "b": 3}),
    ("texts", "a"),
    ("texts", ["a", "b"]),
    ("flags", [True, False]),
    ("image", [[[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [0, 0, 255]]]),
    ("open", [1, 2, 3, 4]),
    ("open", [[1], [2]]),
    ("whole", [[1, 2, 3], [4, 5, 6]]),
    ("whole", {"x": [[1, 2, 3], [4, 5, 6]]}),
    ("wholes", {"x": [1, 2], "n": 3}),
]

#: What the dialect refuses, and so the schema has to.
WRONG = [
    ("scalar", "1"),
    ("scalar", True),
    ("scalar", {"z": 1}),
    ("row", 1),
    ("row", [1, 2]),
    ("row", [1, 2, 3, 4]),
    ("row", [[1, 2, 3], [4, 5]]),
    ("row", [1, 2, "3"]),
    ("row", {"x": [1, 2, 3], "z": 1}),
    ("row", None),
    ("columns", {"age": 1, "country": "NL"}),
    ("columns", {"age": 1.5, "country": "NL", "amount": 1}),
    ("columns", {"age": None, "country": "NL", "amount": 1}),
    ("columns", {"age": 2**63, "country": "NL", "amount": 1}),
    ("columns", {"age": 1, "country": 31, "amount": 1}),
    ("columns", [1, "NL"]),
    ("columns", ["NL", 1, 2.5]),
    ("columns", [[1, "NL", 2.5, 4]]),
    ("two tensors", [[1, 2], 3]),
    ("flags", [1, 0]),
    ("image", [[[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [0, 0, 256]]]),
    ("image", [[[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [0, 0, -1]]]),
    ("whole", [1, 2, 3]),
    ("whole", [[1, 2], [3, 4]]),
    ("wholes", {"x": [1, 2]}),
    ("wholes", {"x": [1, 2], "n": [3]}),
]


def _dialect_takes(value: Any, signature: Signature) -> bool:
    try:
        signature.rows(signature.check(rows.parse(value, signature).tensors))
    except InvalidTensor:
        return False
    return True


@pytest.mark.parametrize(("build", "value"), RIGHT)
def test_what_the_dialect_takes_the_schema_takes(
    signatures: dict[str, Signature], build: str, value: Any
) -> None:
    assert _dialect_takes(value, signatures[build])
    assert accepts(openapi.input_schema(signatures[build]), value)


@pytest.mark.parametrize(("build", "value"), WRONG)
def test_what_the_dialect_refuses_the_schema_refuses(
    signatures: dict[str, Signature], build: str, value: Any
) -> None:
    assert not _dialect_takes(value, signatures[build])
    assert not accepts(openapi.input_schema(signatures[build]), value)


@pytest.mark.parametrize(
    ("build", "prediction"),
    [
        ("scalar", 1.5),
        ("scalar", [1.5, None]),
        ("row", [1.5, 2.5]),
        ("row", [[1.5, 2.5]]),
        ("classifier", {"label": 1, "scores": {"no": 0.25, "yes": 0.75}}),
        ("classifier", [{"label": 1, "scores": {"no": 0.25, "yes": 0.75}}]),
        ("two tensors", {"p": [1, 2], "q": 3, "r": "text"}),
        ("texts", "a"),
        ("whole", [1, 2, 3]),
        ("wholes", {"y": [1, 2], "m": 3}),
    ],
)
def test_predictions_fit_their_schema(
    signatures: dict[str, Signature], build: str, prediction: Any
) -> None:
    assert accepts(openapi.prediction_schema(signatures[build]), prediction)


@pytest.mark.parametrize(
    ("build", "prediction"),
    [
        ("scalar", "1"),
        ("row", [1.5]),
        ("classifier", {"label": 1, "scores": [0.25, 0.75]}),
        ("classifier", {"label": 1, "scores": {"no": 0.25}}),
        ("two tensors", {"p": [1, 2], "q": 3}),
    ],
)
def test_other_predictions_do_not(
    signatures: dict[str, Signature], build: str, prediction: Any
) -> None:
    assert not accepts(openapi.prediction_schema(signatures[build]), prediction)


def test_each_endpoint_has_a_path_and_those_that_do_not_answer_have_none(
    make_route: Callable[..., Route],
) -> None:
    routes = [
        make_route("a", endpoint="classifier_prod"),
        make_route("b", addresses=()),
        make_route("stopped", stopped=True),
        make_route("unknown", signature=None),
    ]
    found = {path for path in openapi.paths(Table(routes)) if path.startswith("/predict/")}
    assert found == {"/predict/classifier_prod", "/predict/b"}


def test_an_endpoint_says_which_model_and_version_answer(make_route: Callable[..., Route]) -> None:
    (operation,) = openapi.paths(Table([make_route("a", model="iris", version="3")]))[
        "/predict/a"
    ].values()
    content = operation["responses"]["200"]["content"]["application/json"]["schema"]
    answer = {"prediction": [1, 2], "model_name": "iris", "version": "3", "prediction_id": "x"}
    assert accepts(content, answer)
    assert not accepts(content, answer | {"version": "2"})


def test_operation_ids_are_unique(make_route: Callable[..., Route]) -> None:
    routes = [make_route("a"), make_route("a", "b", endpoint="x"), make_route("a-b", endpoint="y")]
    ids = [
        operation["operationId"]
        for item in openapi.paths(Table(routes)).values()
        for operation in item.values()
    ]
    assert len(ids) == len(set(ids))
