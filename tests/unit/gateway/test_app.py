"""What holds for every path beside predictions: errors, headers, methods, and the document."""

import uuid
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from moorage_gateway import app, openapi
from moorage_gateway.dialects.paths import target_of
from moorage_gateway.routing import Table

pytestmark = pytest.mark.anyio

#: The skeleton of OpenAPI 3.1, as far as a document can be wrong by hand.
OPERATION = {
    "type": "object",
    "required": ["operationId", "responses"],
    "properties": {
        "operationId": {"type": "string", "minLength": 1},
        "tags": {"type": "array", "items": {"type": "string"}},
        "parameters": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "in", "schema"],
                "properties": {"in": {"enum": ["path", "query", "header", "cookie"]}},
                "if": {"properties": {"in": {"const": "path"}}},
                "then": {"required": ["required"], "properties": {"required": {"const": True}}},
            },
        },
        "requestBody": {"$ref": "#/$defs/body"},
        "responses": {
            "type": "object",
            "minProperties": 1,
            "propertyNames": {"pattern": "^([1-5][0-9X]{2}|default)$"},
            "additionalProperties": {
                "type": "object",
                "required": ["description"],
                "properties": {"content": {"$ref": "#/$defs/content"}},
            },
        },
    },
}
DOCUMENT = {
    "$defs": {
        "operation": OPERATION,
        "content": {
            "type": "object",
            "propertyNames": {"pattern": "^[a-z]+/[-+.a-z0-9]+$"},
            "additionalProperties": {
                "type": "object",
                "properties": {"schema": {"type": "object"}},
            },
        },
        "body": {
            "type": "object",
            "required": ["content"],
            "properties": {"content": {"$ref": "#/$defs/content"}},
        },
    },
    "type": "object",
    "required": ["openapi", "info", "paths"],
    "properties": {
        "openapi": {"type": "string", "pattern": r"^3\.1\.\d+$"},
        "info": {"type": "object", "required": ["title", "version"]},
        "paths": {
            "type": "object",
            "propertyNames": {"pattern": "^/"},
            "additionalProperties": {
                "type": "object",
                "propertyNames": {"enum": ["get", "put", "post", "delete", "patch"]},
                "additionalProperties": {"$ref": "#/$defs/operation"},
            },
        },
    },
}


def schemas_of(node: Any) -> list[Any]:
    """Every schema of a document."""
    if isinstance(node, dict):
        own = [node["schema"]] if isinstance(node.get("schema"), dict) else []
        return own + [found for value in node.values() for found in schemas_of(value)]
    if isinstance(node, list):
        return [found for value in node for found in schemas_of(value)]
    return []


def references_of(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [found for value in node.values() for found in references_of(value)]
    if isinstance(node, list):
        return [found for value in node for found in references_of(value)]
    return []


async def document_of(gateway: Any) -> dict[str, Any]:
    answer = await gateway.client.get("/openapi.json")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


async def test_the_document_is_openapi_3_1(gateway: Any, signatures: Any) -> None:
    for number, signature in enumerate(signatures.values()):
        await gateway.serve(f"m-{number}", signature)
    document = await document_of(gateway)
    Draft202012Validator(DOCUMENT).validate(document)
    for schema in schemas_of(document["paths"]):
        Draft202012Validator.check_schema(schema)
    known = document["components"]["schemas"]
    for reference in references_of(document):
        assert reference.removeprefix("#/components/schemas/") in known
    ids = [op["operationId"] for item in document["paths"].values() for op in item.values()]
    assert len(ids) == len(set(ids))
    for path, item in document["paths"].items():
        named = {part[1:-1] for part in path.replace(":", "/").split("/") if part.startswith("{")}
        for operation in item.values():
            told = {p["name"] for p in operation.get("parameters", []) if p["in"] == "path"}
            assert {name.removesuffix("/path") for name in named} == told or ":path" in path, path


async def test_an_endpoint_appears_in_the_document_and_goes(gateway: Any, signatures: Any) -> None:
    assert "/predict/flowers" not in (await document_of(gateway))["paths"]
    await gateway.serve("m", signatures["columns"], endpoint="flowers")
    item = (await document_of(gateway))["paths"]["/predict/flowers"]
    schema = item["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert Draft202012Validator(schema).is_valid(
        {"input": {"age": 1, "country": "NL", "amount": 2.5}}
    )
    assert not Draft202012Validator(schema).is_valid({"input": {"age": 1}})
    await gateway.deployer.undeploy(endpoint="flowers")
    assert "/predict/flowers" not in (await document_of(gateway))["paths"]


async def test_the_docs_page_shows_the_document(gateway: Any) -> None:
    answer = await gateway.client.get("/docs")
    assert answer.status_code == 200
    assert "/openapi.json" in answer.text


EVERYWHERE = [
    ("GET", "/"),
    ("GET", "/health/live"),
    ("GET", "/health/ready"),
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
    ("GET", "/deployments"),
    ("GET", "/models"),
    ("GET", "/predictions"),
    ("GET", "/v2"),
    ("GET", "/v2/"),
    ("GET", "/v2/health/ready"),
    ("GET", "/v1/models"),
    ("GET", "/no/such/path"),
    ("DELETE", "/models"),
    ("GET", "/predict/m"),
    ("POST", "/deployments/deploy"),
    ("GET", "/models/none"),
    ("GET", "/predictions/none"),
]


@pytest.mark.parametrize(("method", "path"), EVERYWHERE)
async def test_every_answer_has_an_id_and_a_timing(gateway: Any, method: str, path: str) -> None:
    answer = await gateway.client.request(method, path)
    assert uuid.UUID(answer.headers["x-prediction-id"]).version == 7
    assert answer.headers["server-timing"].startswith("total;dur=")
    if answer.status_code >= 400:
        assert list(answer.json()) == ["error"]
        assert answer.json()["error"]


@pytest.mark.parametrize(
    "path",
    ["/no/such/path", "/predict/a/b/c", "/v2/models/m/nothing/else/at/all", "/v1/models/m:explain"],
)
async def test_a_path_that_is_not_there_is_named(gateway: Any, path: str) -> None:
    answer = await gateway.client.get(path)
    assert answer.status_code == 404
    assert answer.json() == {"error": f"no such path: {path}"}


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/predict", {"POST"}),
        ("GET", "/predict/m", {"POST"}),
        ("PUT", "/predict/m", {"POST"}),
        ("GET", "/v2/models/m/infer", {"POST"}),
        ("DELETE", "/v2/models/m/infer", {"POST"}),
        ("GET", "/v1/models/m:predict", {"POST"}),
        ("PUT", "/v1/models/m:predict", {"POST"}),
        ("GET", "/api/v1.0/predictions", {"POST"}),
        ("DELETE", "/seldon/default/m/api/v1.0/predictions", {"POST"}),
        ("GET", "/deployments/deploy", {"POST"}),
        ("GET", "/deployments/undeploy", {"POST"}),
        ("POST", "/deployments", {"GET"}),
        ("POST", "/predictions", {"GET"}),
        ("DELETE", "/predictions/x", {"GET"}),
        ("DELETE", "/models", {"GET", "POST"}),
        ("PUT", "/models/iris", {"GET"}),
        ("POST", "/models/iris/versions/1/file", {"GET"}),
        ("POST", "/v2/health/ready", {"GET"}),
        ("GET", "/v2/repository/index", {"POST"}),
    ],
)
async def test_another_method_is_refused_with_the_ones_there_are(
    gateway: Any, method: str, path: str, allowed: set[str]
) -> None:
    answer = await gateway.client.request(method, path)
    assert answer.status_code == 405
    assert {item.strip() for item in answer.headers["allow"].split(",")} == allowed
    assert f"method {method} is not allowed here" in answer.json()["error"]
    for name in allowed:
        assert name in answer.json()["error"]


async def test_a_slash_too_many_is_no_redirect(gateway: Any) -> None:
    assert (await gateway.client.get("/deployments/")).status_code == 404


async def test_a_surprise_is_500_with_headers_and_without_details(gateway: Any) -> None:
    def broken(_: Any) -> None:
        raise ZeroDivisionError("a secret")

    gateway.store.page = broken
    answer = await gateway.client.get("/predictions")
    assert answer.status_code == 500
    assert answer.json() == {"error": "internal error"}
    assert uuid.UUID(answer.headers["x-prediction-id"])
    assert "server-timing" in answer.headers


async def test_a_body_is_bounded_on_every_path(open_gateway: Any) -> None:
    async with open_gateway(body_limit=4096) as gateway:
        for path in ("/deployments/deploy", "/deployments/undeploy", "/v2/repository/index"):
            answer = await gateway.client.post(path, content=b" " * 5000)
            assert answer.status_code == 413, path
            assert "limit of 4096 bytes" in answer.json()["error"]


async def test_a_chunked_body_is_bounded_on_every_path(open_gateway: Any) -> None:
    sent = 0

    async def endless() -> Any:
        nonlocal sent
        while sent < 1_000_000:
            sent += 1000
            yield b" " * 1000

    async with open_gateway(body_limit=4096) as gateway:
        answer = await gateway.client.post("/deployments/deploy", content=endless())
        assert answer.status_code == 413
        assert sent <= 6000


def test_every_prediction_path_in_the_document_is_one(signatures: Any) -> None:
    """The document is written by hand beside the paths' patterns."""
    for path in openapi.paths(Table()):
        filled = path.format(name="m", version="1", namespace="default")
        assert target_of(filled) is not None, path


async def test_the_lifespan_runs_once_around_everything(gateway: Any) -> None:
    events: list[str] = []

    async def lifespan() -> Any:
        events.append("begin")
        yield
        events.append("end")

    application = app.build(gateway.app._inference, gateway.app._api.state.services, lifespan)
    sent: list[str] = []
    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message["type"])
        events.append(message["type"])

    await application({"type": "lifespan", "asgi": {}, "state": {}}, receive, send)
    assert events == ["begin", "lifespan.startup.complete", "end", "lifespan.shutdown.complete"]


async def test_a_client_that_goes_away_in_an_upload_leaves_no_trace(
    open_gateway: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def send(_: Any) -> None:
        pass

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/models",
        "query_string": b"name=m",
        "headers": [(b"content-type", b"application/octet-stream")],
    }
    async with open_gateway() as gateway:
        await gateway.app(scope, receive, send)
        assert (await gateway.client.get("/models")).json() == {"models": []}
    assert "Traceback" not in caplog.text
