"""Health, metrics and the front door."""

from typing import Any

import pytest

pytestmark = pytest.mark.anyio


async def test_the_front_door_says_where_to_look(gateway: Any) -> None:
    answer = (await gateway.client.get("/")).json()
    assert answer["status"] == "alive"
    for path in answer["see"]:
        assert (await gateway.client.get(path)).status_code == 200, path


async def test_health_names_each_deployment_and_the_log(gateway: Any, signatures: Any) -> None:
    await gateway.serve("m", signatures["row"])
    assert (await gateway.client.get("/health/live")).json() == {"live": True}
    assert (await gateway.client.get("/health/ready")).json() == {
        "ready": True,
        "deployments": {"default/m": "Ready"},
        "prediction_log": "ok",
    }


async def test_without_its_database_the_gateway_is_ready_and_answers(
    open_gateway: Any, signatures: Any, free_port: int, eventually: Any
) -> None:
    database = f"postgresql://nobody@127.0.0.1:{free_port}/nothing"
    async with open_gateway(database=database) as gateway:
        await gateway.serve("m", signatures["scalar"])
        gateway.start_log()
        answer = await gateway.client.post("/predict/m", json={"input": 1})
        assert answer.status_code == 200
        await eventually(lambda: bool(gateway.log.trouble))
        ready = await gateway.client.get("/health/ready")
        assert ready.status_code == 200
        assert ready.json()["ready"] is True
        assert ready.json()["prediction_log"] != "ok"
        assert "nobody" not in ready.json()["prediction_log"]
        stored = await gateway.client.get("/predictions")
        assert stored.status_code == 503
        assert stored.headers["retry-after"] == "1"


async def test_metrics_are_prometheus_text(gateway: Any, signatures: Any) -> None:
    await gateway.serve("m", signatures["scalar"])
    await gateway.client.post("/predict/m", json={"input": 1})
    await gateway.stored()
    answer = await gateway.client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "moorage_prediction_duration_seconds_bucket{" in answer.text
    assert "moorage_prediction_log_written_total 1.0" in answer.text
    assert "moorage_prediction_log_pending 0.0" in answer.text
