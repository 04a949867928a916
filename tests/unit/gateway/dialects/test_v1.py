"""KServe's V1: `instances` or `inputs` in, `predictions` out."""

from collections.abc import Callable
from typing import Any

import pytest

from moorage_api.errors import InvalidBody, InvalidTensor, MoorageError, UnknownVersion
from moorage_gateway.dialects.call import Call, Target

TARGET = Target("v1", "m")

CASES = [
    pytest.param("scalar", {"instances": [1, 2]}, {"y": [[3.0], [4.0]]}, [3.0, 4.0], id="scalars"),
    pytest.param(
        "row",
        {"instances": [[1, 2, 3], [4, 5, 6]]},
        {"y": [[1.0, 2.0], [3.0, 4.0]]},
        [[1.0, 2.0], [3.0, 4.0]],
        id="rows",
    ),
    pytest.param(
        "row", {"instances": [{"x": [1, 2, 3]}]}, {"y": [[1.0, 2.0]]}, [[1.0, 2.0]], id="objects"
    ),
    pytest.param(
        "row", {"inputs": [[1, 2, 3]]}, {"y": [[1.0, 2.0]]}, [[1.0, 2.0]], id="inputs: rows"
    ),
    pytest.param(
        "row",
        {"inputs": [1, 2, 3]},
        {"y": [[1.0, 2.0]]},
        [[1.0, 2.0]],
        id="inputs: one row gives a list of one",
    ),
    pytest.param(
        "columns",
        {"instances": [{"age": 1, "country": "NL", "amount": 2}]},
        {"y": [[2.5]]},
        [2.5],
        id="columns as objects",
    ),
    pytest.param(
        "columns", {"instances": [[1, "NL", 2]]}, {"y": [[2.5]]}, [2.5], id="columns by place"
    ),
    pytest.param(
        "columns",
        {"inputs": {"age": [1, 2], "country": ["NL", "BE"], "amount": [2, 3]}},
        {"y": [[2.5], [3.5]]},
        [2.5, 3.5],
        id="inputs: columns by name",
    ),
    pytest.param(
        "classifier",
        {"instances": [[1, 2, 3]]},
        {"label": [0], "scores": [[0.75, 0.25]]},
        [{"label": 0, "scores": {"no": 0.75, "yes": 0.25}}],
        id="a classifier",
    ),
    pytest.param(
        "row",
        {"instances": [[1, 2, 3]], "signature_name": "serving_default"},
        {"y": [[1.0, 2.0]]},
        [[1.0, 2.0]],
        id="TensorFlow Serving's default signature",
    ),
]


@pytest.mark.parametrize(("build", "body", "outputs", "predictions"), CASES)
def test_instances_become_predictions(
    signatures: Any,
    parsed: Callable[..., Call],
    answered: Callable[..., Any],
    tensor: Any,
    build: str,
    body: Any,
    outputs: Any,
    predictions: Any,
) -> None:
    signature = signatures[build]
    call = parsed(TARGET, body, signature)
    types = {spec.name: spec.datatype for spec in signature.outputs}
    answers = [tensor(name, types[name], values) for name, values in outputs.items()]
    assert answered(call, answers) == {"predictions": predictions}


@pytest.mark.parametrize(
    ("target", "body", "error", "words"),
    [
        pytest.param(TARGET, {}, InvalidBody, "either", id="neither key"),
        pytest.param(
            TARGET,
            {"instances": [[1, 2, 3]], "inputs": [[1, 2, 3]]},
            InvalidBody,
            "either",
            id="both",
        ),
        pytest.param(TARGET, {"instances": [1, 2, 3]}, InvalidBody, "single row", id="one row"),
        pytest.param(
            TARGET, {"instances": {"x": 1}}, InvalidBody, "got an object of 1 keys", id="an object"
        ),
        pytest.param(TARGET, {"instances": []}, InvalidBody, "at least one row", id="no rows"),
        pytest.param(TARGET, {"instances": None}, InvalidBody, "got null", id="null"),
        pytest.param(TARGET, {"instances": [[1, 2]]}, InvalidTensor, "shape", id="a short row"),
        pytest.param(
            TARGET,
            {"instances": [[1, 2, 3]], "signature_name": "other"},
            InvalidBody,
            "signature_name",
            id="another signature",
        ),
        pytest.param(
            Target("v1", "m", "8"), {"instances": []}, UnknownVersion, "'8'", id="another version"
        ),
    ],
)
def test_a_wrong_body_is_refused(
    signatures: Any,
    parsed: Callable[..., Call],
    target: Target,
    body: Any,
    error: type[MoorageError],
    words: str,
) -> None:
    with pytest.raises(error, match=words):
        parsed(target, body, signatures["row"])
