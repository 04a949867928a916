"""`/deployments`: what is served, deploying and undeploying."""

from typing import Any

import pytest

from moorage_api.reasons import Reason

pytestmark = pytest.mark.anyio

ROW = [1, 2, 3, 4]


@pytest.fixture
async def supervised(gateway: Any, making: Any, iris_onnx: bytes) -> Any:
    """A gateway with `iris` 1 and 2 registered, whose deployments come up or fail by `verdict`."""
    for version in ("1", "2"):
        await gateway.client.post(f"/models?name=iris&version={version}", content=iris_onnx)
    runtime = await gateway.start_runtime()
    gateway.verdicts = {}

    def act() -> None:
        for seen in gateway.resources.list():
            if seen.is_current and seen.resource.status.phase:
                continue
            asked = seen.resource
            reason = gateway.verdicts.get(asked.spec.model.uri, "")
            signature = gateway.registry.find("iris", asked.model_version).signature
            observed = making.observation(asked, signature, [runtime.address], reason=reason)
            making.tell(gateway.folder, asked.key, observed)
            gateway.resources.look()

    gateway.resources.subscribe(act)
    return gateway


async def listed(gateway: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await gateway.client.get("/deployments")).json()["deployments"]
    return found


async def test_a_deployment_is_listed_with_its_status_and_its_use(
    gateway: Any, signatures: Any, now: Any
) -> None:
    await gateway.serve(
        "m",
        signatures["scalar"],
        namespace="crm",
        endpoint="classifier_prod",
        model={"uri": "file:/m.onnx", "version": "3"},
        replicas=2,
    )
    (before,) = await listed(gateway)
    assert before == {
        "name": "m",
        "namespace": "crm",
        "model_name": "m",
        "version": "3",
        "endpoint": "classifier_prod",
        "url": "/predict/classifier_prod",
        "status": "Ready",
        "reason": "Serving",
        "message": "",
        "replicas": 2,
        "ready_replicas": 1,
        "deployed_at": now.isoformat().replace("+00:00", "Z"),
        "request_count": 0,
        "avg_latency_ms": None,
    }
    await gateway.client.post("/predict/classifier_prod", json={"input": 1})
    (after,) = await listed(gateway)
    assert after["request_count"] == 1
    assert after["avg_latency_ms"] > 0


async def test_nothing_deployed_is_an_empty_list(gateway: Any) -> None:
    assert await listed(gateway) == []


async def test_deploying_answers_when_the_model_serves(supervised: Any) -> None:
    client = supervised.client
    body = {"model_name": "iris", "version": 1, "endpoint_name": "flowers"}
    created = await client.post("/deployments/deploy", json=body)
    assert created.status_code == 201
    assert created.json()["version"] == "1"
    assert created.json()["endpoint"] == "flowers"
    assert (await client.post("/deployments/deploy", json=body)).status_code == 200
    moved = await client.post("/deployments/deploy", json=body | {"version": "2"})
    assert (moved.status_code, moved.json()["version"]) == (200, "2")
    (item,) = await listed(supervised)
    assert (item["version"], item["status"], item["model_name"]) == ("2", "Ready", "iris")


async def test_the_endpoint_is_named_after_model_and_version_by_default(supervised: Any) -> None:
    body = {"model_name": "iris", "version": "1"}
    answer = await supervised.client.post("/deployments/deploy", json=body)
    assert answer.json()["url"] == "/predict/iris-1"


async def test_json_is_read_when_curl_calls_it_a_form(supervised: Any) -> None:
    body = b'{"model_name": "iris", "version": "1"}'
    form = {"content-type": "application/x-www-form-urlencoded"}
    answer = await supervised.client.post("/deployments/deploy", content=body, headers=form)
    assert answer.status_code == 201


async def test_a_model_that_fails_is_422_with_the_reason(supervised: Any) -> None:
    supervised.verdicts["models:/iris/2"] = Reason.BAD_MODEL
    body = {"model_name": "iris", "version": "2"}
    answer = await supervised.client.post("/deployments/deploy", json=body)
    assert answer.status_code == 422
    assert "BadModel" in answer.json()["error"]
    assert await listed(supervised) == []


async def test_a_model_that_still_loads_is_202(open_gateway: Any, iris_onnx: bytes) -> None:
    async with open_gateway(wait_s=0.01) as gateway:
        await gateway.client.post("/models?name=iris", content=iris_onnx)
        body = {"model_name": "iris", "version": "1"}
        answer = await gateway.client.post("/deployments/deploy", json=body)
        assert (answer.status_code, answer.json()["status"]) == (202, "Pending")
        refused = await gateway.client.post("/predict/iris-1", json={"input": ROW})
        assert refused.status_code == 503


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        pytest.param(b"{", 400, "the body is not JSON: ", id="no JSON"),
        pytest.param(b"[]", 400, "the body is not a JSON object", id="a list"),
        pytest.param(b"{}", 400, "'model_name'", id="nothing"),
        pytest.param(b'{"model_name": "iris"}', 400, "'version'", id="no version"),
        pytest.param(
            b'{"model_name": "iris", "version": "1", "endpoint": "x"}',
            400,
            "'endpoint'",
            id="a key",
        ),
        pytest.param(b'{"model_name": 1, "version": "1"}', 400, "'model_name'", id="a number"),
        pytest.param(b'{"model_name": "rose", "version": "1"}', 404, "'rose'", id="a model"),
        pytest.param(b'{"model_name": "iris", "version": "7"}', 404, "'7'", id="a version"),
        pytest.param(b'{"model_name": "..", "version": "1"}', 400, "model name", id="a path"),
        pytest.param(
            b'{"model_name": "iris", "version": "1", "endpoint_name": "a/b"}',
            400,
            "endpoint 'a/b'",
            id="an endpoint",
        ),
    ],
)
async def test_a_deploy_that_cannot_be_is_refused_with_what_was_expected(
    gateway: Any, iris_onnx: bytes, body: bytes, status: int, words: str
) -> None:
    await gateway.client.post("/models?name=iris", content=iris_onnx)
    answer = await gateway.client.post(
        "/deployments/deploy", content=body, headers={"content-type": "application/json"}
    )
    assert answer.status_code == status
    assert words in answer.json()["error"]
    assert await listed(gateway) == []


async def test_an_endpoint_of_another_model_is_409(supervised: Any, iris_onnx: bytes) -> None:
    client = supervised.client
    await client.post("/models?name=rose", content=iris_onnx)
    body = {"model_name": "iris", "version": "1", "endpoint_name": "e"}
    await client.post("/deployments/deploy", json=body)
    answer = await client.post("/deployments/deploy", json=body | {"model_name": "rose"})
    assert answer.status_code == 409
    assert "belongs to deployment 'default/e'" in answer.json()["error"]


@pytest.mark.parametrize(
    "body",
    [{"endpoint_name": "flowers"}, {"model_name": "iris", "version": 1}],
    ids=["by endpoint", "by model and version"],
)
async def test_undeploying_tells_how_it_last_was(supervised: Any, body: Any) -> None:
    client = supervised.client
    deploy = {"model_name": "iris", "version": "1", "endpoint_name": "flowers"}
    await client.post("/deployments/deploy", json=deploy)
    await client.post("/predict/flowers", json={"input": [1]})
    answer = await client.post("/deployments/undeploy", json=body)
    assert answer.status_code == 200
    (item,) = answer.json()["deployments"]
    assert (item["endpoint"], item["request_count"]) == ("flowers", 1)
    assert await listed(supervised) == []
    gone = await client.post("/predict/flowers", json={"input": ROW})
    assert gone.status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"model_name": "iris"}, id="a model without its version"),
        pytest.param({"version": "1"}, id="a version without its model"),
        pytest.param({"endpoint_name": "e", "model_name": "iris", "version": "1"}, id="both ways"),
        pytest.param({"endpoint_name": "e", "version": "1"}, id="one way and a half"),
        pytest.param({"endpoint": "e"}, id="another key"),
    ],
)
async def test_an_undeploy_that_does_not_say_which_is_refused(gateway: Any, body: Any) -> None:
    answer = await gateway.client.post("/deployments/undeploy", json=body)
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]


async def test_undeploying_what_is_not_there_is_404(gateway: Any) -> None:
    for body in ({"endpoint_name": "e"}, {"model_name": "iris", "version": "1"}):
        answer = await gateway.client.post("/deployments/undeploy", json=body)
        assert answer.status_code == 404
