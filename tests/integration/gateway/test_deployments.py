"""Deploying and undeploying while requests come in, with real runtime processes."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

WORKERS = 4


def push(client: httpx.Client, examples: Any, name: str) -> None:
    for version, file in (("1", "model.onnx"), ("2", "model-2.onnx")):
        content = (examples / "iris" / file).read_bytes()
        answer = client.post(f"/models?name={name}&version={version}", content=content)
        assert answer.status_code in (200, 201), answer.text


def under_load(url: str, path: str, deadline_s: float, action: Callable[[], Any]) -> list[Any]:
    """Ask without a pause while `action` runs; return status and body of every answer."""
    done = threading.Event()
    begun = threading.Barrier(WORKERS + 1)

    def ask() -> list[tuple[int, Any]]:
        found: list[tuple[int, Any]] = []
        with httpx.Client(base_url=url, timeout=deadline_s) as client:
            begun.wait(deadline_s)
            while not done.is_set():
                answer = client.post(path, json={"input": [5.1, 3.5, 1.4, 0.2]})
                found.append((answer.status_code, answer.json()))
        return found

    with ThreadPoolExecutor(WORKERS) as pool:
        tasks = [pool.submit(ask) for _ in range(WORKERS)]
        begun.wait(deadline_s)
        try:
            action()
        finally:
            done.set()
        return [answer for task in tasks for answer in task.result()]


@pytest.fixture
def deploy(client: httpx.Client) -> Callable[..., Any]:
    def deploy(model: str, version: str, endpoint: str) -> Any:
        body = {"model_name": model, "version": version, "endpoint_name": endpoint}
        answer = client.post("/deployments/deploy", json=body)
        assert answer.status_code in (200, 201), answer.text
        return answer.json()

    return deploy


def test_no_request_is_lost_while_an_endpoint_moves_between_versions(
    up: Any, client: httpx.Client, examples: Any, deploy: Any, deadline_s: float
) -> None:
    push(client, examples, "moving")
    deploy("moving", "1", "moving")

    def move() -> None:
        for version in ("2", "1", "2"):
            deploy("moving", version, "moving")

    answers = under_load(up.url, "/predict/moving", deadline_s, move)
    assert {status for status, _ in answers} == {200}, [a for a in answers if a[0] != 200][:3]
    assert {answer["version"] for _, answer in answers} == {"1", "2"}
    assert client.get("/v2/models/moving").json()["versions"] == ["2"]
    client.post("/deployments/undeploy", json={"endpoint_name": "moving"})


def test_an_undeploy_breaks_no_request_that_was_taken(
    up: Any, client: httpx.Client, examples: Any, deploy: Any, deadline_s: float
) -> None:
    push(client, examples, "going")
    deploy("going", "1", "going")
    told: list[Any] = []

    def undeploy() -> None:
        answer = client.post("/deployments/undeploy", json={"endpoint_name": "going"})
        told.append(answer.json()["deployments"][0])

    answers = under_load(up.url, "/predict/going", deadline_s, undeploy)
    statuses = [status for status, _ in answers]
    # Answered while it was there, not found after; nothing between.
    assert set(statuses) <= {200, 404}
    assert told[0]["request_count"] == statuses.count(200)
    assert client.post("/predict/going", json={"input": [1, 2, 3, 4]}).status_code == 404
    assert "/predict/going" not in client.get("/openapi.json").json()["paths"]


def test_others_are_not_touched_by_a_deploy_that_fails(
    up: Any, client: httpx.Client, examples: Any, deadline_s: float
) -> None:
    # ONNX by its form, and no model that could be run: an operator that nobody has.
    broken = (examples / "iris/model.onnx").read_bytes().replace(b"Scaler", b"Skaler")
    assert client.post("/models?name=broken", content=broken).status_code == 201

    def deploy() -> None:
        answer = client.post("/deployments/deploy", json={"model_name": "broken", "version": "1"})
        assert answer.status_code == 422, answer.text
        assert "BadModel" in answer.json()["error"]

    answers = under_load(up.url, "/predict/iris", deadline_s, deploy)
    assert {status for status, _ in answers} == {200}
    names = {item["name"] for item in client.get("/deployments").json()["deployments"]}
    assert "broken-1" not in names


def test_what_is_deployed_appears_in_every_protocol_and_goes(
    client: httpx.Client, examples: Any, deploy: Any
) -> None:
    push(client, examples, "flowers")
    described = deploy("flowers", "2", "garden")
    assert described["status"] == "Ready"
    assert "/predict/garden" in client.get("/openapi.json").json()["paths"]
    row = [5.1, 3.5, 1.4, 0.2]
    assert client.post("/predict/garden", json={"input": row}).json()["version"] == "2"
    universal = client.post("/predict", json={"model_name": "flowers", "input": row})
    assert universal.json()["version"] == "2"
    assert client.post("/v1/models/garden:predict", json={"instances": [row]}).status_code == 200
    gone = client.post("/deployments/undeploy", json={"model_name": "flowers", "version": "2"})
    assert gone.json()["deployments"][0]["request_count"] == 3
    assert client.get("/v2/models/garden").status_code == 404
