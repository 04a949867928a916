"""What the serving protocols ask beside predictions."""

from typing import Any

import pytest

pytestmark = pytest.mark.anyio


@pytest.fixture
async def served(gateway: Any, signatures: Any, making: Any) -> Any:
    """`iris` in versions 2 and 10 under names of their own, and `slow`, which still loads."""
    for version in ("2", "10"):
        await gateway.serve(
            f"iris-{version}", signatures["classifier"], model={"uri": f"models:/iris/{version}"}
        )
    asked = making.resource("slow", "crm")
    observed = making.observation(asked, signatures["row"], reason="Loading", message="wait")
    making.tell(gateway.folder, asked.key, observed)
    await gateway.resources.put(asked)
    return gateway


METADATA = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}],
    "outputs": [
        {"name": "label", "datatype": "INT64", "shape": [-1]},
        {"name": "scores", "datatype": "FP32", "shape": [-1, 2], "classes": ["no", "yes"]},
    ],
}


async def get(gateway: Any, path: str) -> tuple[int, Any]:
    answer = await gateway.client.get(path)
    return answer.status_code, answer.json()


@pytest.mark.parametrize("path", ["/v2", "/v2/"])
async def test_the_server_tells_its_extensions(gateway: Any, path: str) -> None:
    status, answer = await get(gateway, path)
    assert (status, answer["name"]) == (200, "moorage")
    assert "binary_tensor_data" in answer["extensions"]


async def test_the_server_is_live_and_ready_when_every_deployment_is(
    gateway: Any, signatures: Any
) -> None:
    assert await get(gateway, "/v2/health/live") == (200, {"live": True})
    assert await get(gateway, "/v2/health/ready") == (200, {"ready": True, "live": True})
    await gateway.serve("m", signatures["row"])
    assert (await get(gateway, "/v2/health/ready"))[0] == 200


async def test_the_server_is_not_ready_while_a_deployment_loads(served: Any) -> None:
    assert await get(served, "/v2/health/ready") == (
        503,
        {"ready": False, "live": True, "waiting_for": ["crm/slow"]},
    )


async def test_a_stopped_deployment_is_not_waited_for(gateway: Any, making: Any) -> None:
    await gateway.resources.put(making.resource("m", stopped=True))
    assert (await get(gateway, "/v2/health/ready"))[0] == 200


async def test_a_deployment_of_no_replicas_is_not_waited_for(gateway: Any, making: Any) -> None:
    await gateway.resources.put(making.resource("m", replicas=0))
    assert (await get(gateway, "/v2/health/ready"))[0] == 200


async def test_metadata_tells_signature_and_versions(served: Any) -> None:
    status, answer = await get(served, "/v2/models/iris")
    assert status == 200
    assert {key: answer[key] for key in METADATA} == METADATA
    assert answer["name"] == "iris"
    assert answer["versions"] == ["2", "10"]
    assert answer["platform"] == "onnx_onnxv1"
    assert answer["properties"] == {"sha256": "0" * 64, "endpoint": "iris-10"}


async def test_metadata_of_one_version_is_of_that_one(served: Any) -> None:
    _, answer = await get(served, "/v2/models/iris/versions/2")
    assert answer["properties"]["endpoint"] == "iris-2"
    _, named = await get(served, "/v2/models/default/iris-2")
    assert (named["name"], named["properties"]["endpoint"]) == ("default/iris-2", "iris-2")


@pytest.mark.parametrize(
    ("path", "status", "answer"),
    [
        ("/v2/models/iris/ready", 200, {"name": "iris", "ready": True}),
        ("/v2/models/iris/versions/10/ready", 200, {"name": "iris", "ready": True}),
        ("/v2/models/slow/ready", 503, {"name": "slow", "ready": False}),
        ("/v2/models/crm/slow/ready", 503, {"name": "crm/slow", "ready": False}),
        ("/v1/models/iris", 200, {"name": "iris", "ready": True}),
        ("/v1/models/slow", 503, {"name": "slow", "ready": False}),
        ("/v1/models", 200, {"models": ["iris-2", "iris-10", "slow"]}),
        ("/v2/models", 200, {"models": ["iris-2", "iris-10", "slow"]}),
        ("/seldon/default/iris-2/api/v1.0/health/status", 200, {"status": "ok"}),
    ],
)
async def test_readiness_and_lists(served: Any, path: str, status: int, answer: Any) -> None:
    assert await get(served, path) == (status, answer)


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/v2/models/rose", 404, "Request for unknown model"),
        ("/v2/models/rose/ready", 404, "Request for unknown model"),
        ("/v2/models/iris/versions/3", 404, "there are: 2, 10"),
        ("/v2/models/slow", 503, "Loading: wait"),
        ("/v2/models/iris/config", 501, "not supported"),
        ("/v2/models/iris/stats", 501, "not supported"),
        ("/v1/models/rose", 404, "Request for unknown model"),
        ("/seldon/default/rose/api/v1.0/health/status", 404, "unknown model"),
        ("/seldon/crm/slow/api/v1.0/health/status", 503, "not ready"),
        ("/api/v1.0/health/status", 400, "default/iris-2"),
        ("/api/v1.0/metadata", 400, "default/iris-2"),
    ],
)
async def test_what_is_not_there_says_so(served: Any, path: str, status: int, words: str) -> None:
    found, answer = await get(served, path)
    assert found == status
    assert words in answer["error"]


@pytest.mark.parametrize("body", [b"", b"{}", b'{"ready": false}'])
async def test_the_index_lists_every_deployment_with_its_state(served: Any, body: bytes) -> None:
    # tritonclient sends no content type, and may send no body.
    answer = await served.client.post("/v2/repository/index", content=body)
    assert answer.status_code == 200, answer.text
    assert answer.json() == [
        {"name": "iris-2", "version": "2", "state": "READY", "reason": ""},
        {"name": "iris-10", "version": "10", "state": "READY", "reason": ""},
        {"name": "slow", "version": "1", "state": "UNAVAILABLE", "reason": "Loading"},
    ]


async def test_the_index_can_leave_out_what_is_not_ready(served: Any) -> None:
    answer = await served.client.post("/v2/repository/index", content=b'{"ready": true}')
    assert [item["name"] for item in answer.json()] == ["iris-2", "iris-10"]


@pytest.mark.parametrize("verb", ["load", "unload"])
async def test_loading_by_the_protocol_is_refused_with_the_way_that_there_is(
    served: Any, verb: str
) -> None:
    answer = await served.client.post(f"/v2/repository/models/iris/{verb}")
    assert answer.status_code == 501
    assert "/deployments/deploy" in answer.json()["error"]


async def test_explaining_is_refused(served: Any) -> None:
    answer = await served.client.post("/v1/models/iris:explain", json={"instances": []})
    assert answer.status_code == 501


async def test_seldons_metadata_is_that_of_the_only_deployment_or_the_named_one(
    gateway: Any, signatures: Any
) -> None:
    await gateway.serve("m", signatures["classifier"])
    expected = METADATA | {"name": "m", "versions": ["1"], "platform": "onnx"}
    for path in ("/api/v1.0/metadata", "/seldon/default/m/api/v1.0/metadata"):
        assert await get(gateway, path) == (200, expected)
    assert await get(gateway, "/api/v1.0/health/status") == (200, {"status": "ok"})


async def test_the_host_header_names_the_deployment(served: Any) -> None:
    answer = await served.client.get(
        "/api/v1.0/metadata", headers={"host": "iris-2.default.svc.cluster.local:8000"}
    )
    assert answer.json()["name"] == "iris-2"
