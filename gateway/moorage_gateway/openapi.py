"""The OpenAPI entries of predictions: one typed path for each deployed endpoint, and the dialects.

The request path is no FastAPI route, so its description is made here out of the signatures.
"""

from collections.abc import Iterable
from math import prod
from typing import Any, Final

from moorage_api.datatypes import DATATYPES
from moorage_api.rows import is_single
from moorage_api.signature import Signature, TensorSpec
from moorage_gateway.routing import Route, Table

_RANGES: Final = {
    f"{sign}INT{bits}": ((0, 2**bits - 1) if sign else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1))
    for sign in ("", "U")
    for bits in (8, 16, 32, 64)
}
#: Most elements of an example: an image would make the document megabytes long.
_EXAMPLE_MAX: Final = 4096
_ERROR: Final = {"$ref": "#/components/schemas/Error"}
COMPONENTS: Final = {
    "Error": {
        "type": "object",
        "required": ["error"],
        "properties": {"error": {"type": "string"}},
        "description": "What is wrong, naming the input, what was expected and what came.",
    }
}


def paths(table: Table) -> dict[str, Any]:
    """Return the path items of every endpoint that answers, and of the dialects."""
    found: dict[str, Any] = {}
    for route in table.routes.values():
        path = table.path(route)
        if path is not None and route.signature is not None and not route.stopped:
            found[path] = {"post": _endpoint(route, route.signature)}
    return found | _dialects()


def _endpoint(route: Route, signature: Signature) -> dict[str, Any]:
    title = f"{route.model} {route.version}"
    return {
        "tags": ["predict"],
        "summary": f"Predict with {title}",
        "operationId": f"predict_{route.key.namespace}_{route.key.name}",
        "requestBody": _content(
            {
                "type": "object",
                "required": ["input"],
                "additionalProperties": False,
                "properties": {"input": input_schema(signature)},
            }
        ),
        "responses": _responses(
            {
                "type": "object",
                "required": ["prediction", "model_name", "version", "prediction_id"],
                "properties": {
                    "prediction": prediction_schema(signature),
                    "model_name": {"type": "string", "const": route.model},
                    "version": {"type": "string", "const": route.version},
                    "prediction_id": {"type": "string", "format": "uuid"},
                },
            }
        ),
    }


def input_schema(signature: Signature) -> dict[str, Any]:
    """Return the schema of what `rows.parse` takes for a signature."""
    inputs = signature.inputs
    if not signature.is_batched:
        whole = {spec.name: _nested(spec, spec.shape) for spec in inputs}
        named = [_object(whole)]
        choices = named if len(inputs) != 1 else [*whole.values(), *named]
        return {"anyOf": choices} | _examples(signature)
    rows = {spec.name: _row(spec) for spec in inputs}
    lists = {name: _list(schema) for name, schema in rows.items()}
    choices = []
    if len(inputs) == 1:
        row = next(iter(rows.values()))
        choices += [row | {"title": "One row"}, _list(row) | {"title": "Rows"}]
    elif all(is_single(spec) for spec in inputs):
        row = _tuple(rows.values())
        choices += [
            row | {"title": "One row, in the order of the inputs"},
            _list(row) | {"title": "Rows, in the order of the inputs"},
        ]
    choices += [
        _object(rows) | {"title": "One row, by input name"},
        _object(lists) | {"title": "Rows, by input name"},
        _list(_object(rows)) | {"title": "Rows, as objects"},
    ]
    return {"anyOf": choices} | _examples(signature)


def prediction_schema(signature: Signature) -> dict[str, Any]:
    """Return the schema of what `rows.render` gives for a signature."""
    outputs = signature.outputs
    if not signature.is_batched:
        whole = {spec.name: _nested(spec, spec.shape, answer=True) for spec in outputs}
        return next(iter(whole.values())) if len(outputs) == 1 else _object(whole)
    rows = {
        spec.name: _object({label: _scalar(spec, answer=True) for label in spec.classes})
        if spec.classes
        else _row(spec, answer=True)
        for spec in outputs
    }
    one = next(iter(rows.values())) if len(outputs) == 1 else _object(rows)
    return {"anyOf": [one | {"title": "For one row"}, _list(one) | {"title": "For rows"}]}


def _row(spec: TensorSpec, *, answer: bool = False) -> dict[str, Any]:
    if is_single(spec):
        return _scalar(spec, answer=answer)
    return _nested(spec, spec.row_shape, answer=answer)


def _nested(spec: TensorSpec, shape: tuple[int, ...], *, answer: bool = False) -> dict[str, Any]:
    schema = _scalar(spec, answer=answer)
    for size in reversed(shape):
        schema = _list(schema)
        if size >= 0:
            schema |= {"minItems": size, "maxItems": size}
    return schema


def _scalar(spec: TensorSpec, *, answer: bool = False) -> dict[str, Any]:
    datatype = DATATYPES[spec.datatype]
    if datatype.name == "BYTES":
        return {"type": "string"}
    if datatype.name == "BOOL":
        return {"type": "boolean"}
    if datatype.is_integer:
        low, high = _RANGES[datatype.name]
        return {"type": "integer", "minimum": low, "maximum": high}
    # Null is a missing value on the way in, NaN or an infinity on the way out.
    return {"type": ["number", "null"], "description": datatype.name if not answer else ""}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _tuple(items: Iterable[dict[str, Any]]) -> dict[str, Any]:
    schemas = list(items)
    return {
        "type": "array",
        "prefixItems": schemas,
        "items": False,
        "minItems": len(schemas),
    }


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": list(properties),
        "additionalProperties": False,
        "properties": properties,
    }


def _examples(signature: Signature) -> dict[str, Any]:
    shapes: dict[TensorSpec, tuple[int, ...]] = {}
    for spec in signature.inputs:
        if not signature.is_batched:
            shapes[spec] = spec.shape
        else:
            shapes[spec] = () if is_single(spec) else spec.row_shape
    if sum(abs(prod(shape)) for shape in shapes.values()) > _EXAMPLE_MAX:
        return {}
    values = {spec.name: _example_tensor(spec, shape) for spec, shape in shapes.items()}
    return {"examples": [next(iter(values.values())) if len(values) == 1 else values]}


def _example_tensor(spec: TensorSpec, shape: tuple[int, ...]) -> Any:
    value: Any = {"BYTES": "text", "BOOL": True}.get(spec.datatype)
    if value is None:
        value = 1 if DATATYPES[spec.datatype].is_integer else 1.5
    for size in reversed(shape):
        value = [value] * (size if size >= 0 else 2)
    return value


def _content(schema: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _responses(schema: dict[str, Any]) -> dict[str, Any]:
    errors = {
        "400": "The input does not fit the model.",
        "404": "There is no such model, endpoint or version.",
        "413": "The body is larger than the limit.",
        "503": "The model is not ready, or too many requests wait.",
        "504": "The runtime did not answer in time.",
    }
    return {
        "200": {
            "description": "The prediction.",
            "content": {"application/json": {"schema": schema}},
            "headers": {
                "X-Prediction-Id": {"schema": {"type": "string", "format": "uuid"}},
                "Server-Timing": {"schema": {"type": "string"}},
            },
        },
        **{
            status: {"description": words, "content": {"application/json": {"schema": _ERROR}}}
            for status, words in errors.items()
        },
    }


def _dialects() -> dict[str, Any]:
    anything: dict[str, Any] = {"type": "object"}
    return {
        "/predict": {
            "post": {
                "tags": ["predict"],
                "summary": "Predict with any deployed model",
                "operationId": "predict",
                "requestBody": _content(
                    {
                        "type": "object",
                        "required": ["model_name", "input"],
                        "additionalProperties": False,
                        "properties": {
                            "model_name": {"type": "string"},
                            "version": {
                                "type": ["string", "integer"],
                                "description": "Default: the highest version that is deployed.",
                            },
                            "input": {"description": "As the model's own endpoint takes it."},
                        },
                    }
                ),
                "responses": _responses(anything),
            }
        },
        "/v2/models/{name}/infer": {
            "post": _named("Open Inference Protocol v2", "Infer", "v2_infer", "inputs", "outputs")
        },
        "/v2/models/{name}/versions/{version}/infer": {
            "post": _named(
                "Open Inference Protocol v2",
                "Infer with a version",
                "v2_infer_version",
                "inputs",
                "outputs",
                "version",
            )
        },
        "/v1/models/{name}:predict": {
            "post": _named("KServe v1", "Predict", "v1_predict", "instances", "predictions")
        },
        "/api/v1.0/predictions": {
            "post": {
                "tags": ["Seldon v1"],
                "summary": "Predict with the only deployment, or the one the Host header names",
                "operationId": "seldon_predict",
                "requestBody": _content(anything),
                "responses": _responses(anything),
            }
        },
        "/seldon/{namespace}/{name}/api/v1.0/predictions": {
            "post": {
                "tags": ["Seldon v1"],
                "summary": "Predict",
                "operationId": "seldon_predict_of",
                "parameters": [_parameter("namespace"), _parameter("name")],
                "requestBody": _content(anything),
                "responses": _responses(anything),
            }
        },
    }


def _named(
    tag: str, summary: str, operation: str, key: str, answer: str, *more: str
) -> dict[str, Any]:
    items = {"type": "array", "items": {}}
    return {
        "tags": [tag],
        "summary": summary,
        "operationId": operation,
        "parameters": [_parameter("name"), *(_parameter(name) for name in more)],
        "requestBody": _content({"type": "object", "required": [key], "properties": {key: items}}),
        "responses": _responses({"type": "object", "properties": {answer: items}}),
    }


def _parameter(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
