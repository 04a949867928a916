import asyncio
import gzip
import logging
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.support import models

from moorage_api import __version__
from moorage_api.tensors import Array, Tensor
from moorage_runtime import model
from moorage_runtime.app import RuntimeApp
from moorage_runtime.batching import Batcher
from moorage_runtime.model import LoadedModel, Source
from moorage_runtime.session import Options

LIMIT = 10_000
X = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2.5]}
ASK = {"inputs": [X]}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    path.write_bytes(models.double())
    return model.load(
        Source(str(path)), Options(intra_op_threads=1), warmup=False, tell=lambda _: None
    )


class Client:
    """Asks the application without a socket; each request on a loop of its own."""

    def __init__(self, loaded: LoadedModel | None, name: str = "m", version: str = "3") -> None:
        self.app = RuntimeApp(name, version, body_limit=LIMIT)
        self._loaded = loaded

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def scenario() -> httpx.Response:
            if self._loaded is not None:
                batcher = Batcher(
                    self._loaded.predictor, max_batch_size=8, max_delay_s=0, shares=True
                )
                self.app.serve(self._loaded, batcher)
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://h") as client:
                return await client.request(method, path, **options)

        return asyncio.run(scenario())

    def get(self, path: str) -> httpx.Response:
        return self.ask("GET", path)

    def infer(self, path: str = "/v2/models/m/infer", **options: Any) -> httpx.Response:
        return self.ask("POST", path, **({"json": ASK} | options))


@pytest.fixture
def client(loaded: LoadedModel) -> Client:
    return Client(loaded)


@pytest.fixture
def starting() -> Client:
    found = Client(None)
    found.app.waiting_for = "fetching the model"
    return found


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True, "live": True}),
        (
            "/v2",
            {
                "name": "moorage-runtime",
                "version": __version__,
                "extensions": ["binary_tensor_data"],
            },
        ),
        ("/v2/models", {"models": ["m"]}),
        ("/v2/models/m/ready", {"name": "m", "ready": True}),
        ("/v2/models/m/versions/3/ready", {"name": "m", "ready": True}),
    ],
)
@pytest.mark.parametrize("end", ["", "/", "?verbose=1"])
def test_a_ready_runtime_tells_of_itself(
    client: Client, path: str, end: str, expected: dict[str, Any]
) -> None:
    answer = client.get(path + end)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == expected


@pytest.mark.parametrize("path", ["/v2/models/m", "/v2/models/m/versions/3"])
def test_metadata_is_the_models_signature(client: Client, path: str) -> None:
    document = client.get(path).json()
    properties = document.pop("properties")
    assert document == {
        "name": "m",
        "versions": ["3"],
        "platform": "onnx_onnxv1",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
    }
    assert len(properties["sha256"]) == 64
    assert all(isinstance(value, str) for value in properties.values())


def test_the_repository_lists_the_one_model(client: Client) -> None:
    for content in (b"", b"{}"):
        answer = client.ask("POST", "/v2/repository/index", content=content)
        assert answer.json() == [{"name": "m", "version": "3", "state": "READY", "reason": ""}]


def test_a_runtime_that_is_starting_lives_and_says_what_it_waits_for(starting: Client) -> None:
    assert starting.get("/v2/health/live").json() == {"live": True}
    ready = starting.get("/v2/health/ready")
    assert (ready.status_code, ready.json()["ready"]) == (503, False)
    assert ready.json()["error"] == "fetching the model"
    assert starting.get("/v2/models/m/ready").status_code == 503
    (entry,) = starting.ask("POST", "/v2/repository/index").json()
    assert (entry["state"], entry["reason"]) == ("UNAVAILABLE", "fetching the model")
    for answer in (starting.infer(), starting.get("/v2/models/m")):
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert answer.json() == {"error": "model 'm' is not ready: fetching the model"}
    assert starting.get("/metrics").status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/v2/models/m/infer",
        "/v2/models/m/versions/3/infer",
        "/v2/models/m/infer/",
        "/v2/models/m/versions/3/infer/",
        "/v2/models/m/infer?x=1",
    ],
)
def test_inference_answers_in_json(client: Client, path: str) -> None:
    answer = client.infer(path, json=ASK | {"id": "7"})
    assert answer.status_code == 200
    assert answer.json() == {
        "model_name": "m",
        "model_version": "3",
        "id": "7",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [2.0, 5.0]}],
    }


def test_inference_answers_in_binary_where_it_is_asked_to(client: Client) -> None:
    asked = ASK | {"parameters": {"binary_data_output": True}}
    answer = client.infer(json=asked)
    length = int(answer.headers["inference-header-content-length"])
    assert answer.headers["content-type"] == "application/octet-stream"
    assert np.frombuffer(answer.content[length:], "<f4").tolist() == [2, 5]


def test_a_raw_body_is_the_input_and_the_answer_is_binary(client: Client) -> None:
    answer = client.infer(
        json=None,
        content=np.array([1, 2], "<f4").tobytes(),
        headers={"Inference-Header-Content-Length": "0"},
    )
    assert answer.status_code == 200
    length = int(answer.headers["inference-header-content-length"])
    assert np.frombuffer(answer.content[length:], "<f4").tolist() == [2, 4]


@pytest.mark.parametrize(
    ("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)]
)
def test_a_compressed_request_is_read(client: Client, encoding: str, pack: Any) -> None:
    body = pack(httpx.Request("POST", "http://h", json=ASK).content)
    answer = client.infer(json=None, content=body, headers={"Content-Encoding": encoding})
    assert answer.json()["outputs"][0]["data"] == [2, 5]


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        ({"content": b"{"}, 400, "the body is not JSON"),
        ({"json": {}}, 400, "'inputs': expected a list of tensors"),
        ({"json": {"inputs": []}}, 400, "input 'x': expected FP32 [-1, 2], got no such input"),
        ({"json": {"inputs": [X, X]}}, 400, "input 'x': expected each input once, got it twice"),
        ({"json": {"inputs": [X | {"name": "z"}]}}, 400, "input 'z': expected one of the inputs"),
        ({"json": {"inputs": [X | {"datatype": "FP64"}]}}, 400, "datatype FP32, got FP64"),
        (
            {"json": {"inputs": [X | {"shape": [2, 1]}]}},
            400,
            "input 'x': expected shape [-1, 2], got shape [2, 1]",
        ),
        (
            {"json": ASK | {"outputs": [{"name": "z"}]}},
            400,
            "output 'z': expected one of the outputs ['y'], got an unknown name",
        ),
        (
            {"json": ASK | {"outputs": [{"name": "y"}, {"name": "y"}]}},
            400,
            "output 'y': expected each output once, got it twice",
        ),
        (
            {"json": ASK, "headers": {"Inference-Header-Content-Length": "x"}},
            400,
            "Inference-Header-Content-Length: expected a number, got 'x'",
        ),
        (
            {"json": ASK, "headers": {"Inference-Header-Content-Length": "9" * 5000}},
            400,
            "Inference-Header-Content-Length: expected a number, got '999",
        ),
        (
            {"json": ASK, "headers": {"Inference-Header-Content-Length": "99999"}},
            400,
            "Inference-Header-Content-Length is 99999, the body has",
        ),
        ({"json": ASK, "headers": {"Content-Encoding": "br"}}, 415, "Content-Encoding 'br'"),
        ({"json": ASK, "headers": {"Content-Encoding": "gzip"}}, 400, "the body is not gzip"),
        ({"content": b" " * (LIMIT + 1)}, 413, f"larger than the limit of {LIMIT} bytes"),
        (
            {
                "content": gzip.compress(b" " * (LIMIT + 1), mtime=0),
                "headers": {"Content-Encoding": "gzip"},
            },
            413,
            f"the decompressed body is larger than the limit of {LIMIT} bytes",
        ),
        (
            {"json": ASK | {"outputs": [{"name": "y", "parameters": {"classification": 2}}]}},
            501,
            "classification is not supported",
        ),
    ],
    ids=lambda item: str(item)[:60],
)
def test_a_request_that_cannot_be_answered_says_why(
    client: Client, options: dict[str, Any], status: int, words: str
) -> None:
    answer = client.infer(**({"json": None} | options))
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert words in answer.json()["error"]
    assert list(answer.json()) == ["error"]


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", "/", 404, "no such path: "),
        ("GET", "/v2/nothing", 404, "no such path: /v2/nothing"),
        ("GET", "/v2/models/other", 404, "Request for unknown model: 'other' is not found"),
        ("POST", "/v2/models/other/infer", 404, "Request for unknown model: 'other'"),
        ("POST", "/v2/models/m/versions/9/infer", 404, "'m' version '9' is not found"),
        ("GET", "/v2/models/m/versions/9", 404, "'m' version '9' is not found"),
        ("GET", "/v2/models/m/infer", 405, "method GET is not allowed here; use POST"),
        ("POST", "/v2/models/m", 405, "method POST is not allowed here; use GET"),
        ("PUT", "/v2", 405, "method PUT is not allowed here; use GET"),
        ("GET", "/v2/repository/index", 405, "use POST"),
        ("GET", "/v2/models/m/config", 501, "/v2/models/m/config: this extension"),
        ("GET", "/v2/models/m/stats", 501, "this extension is not supported"),
    ],
)
def test_a_path_that_is_not_served_says_what_is(
    client: Client, method: str, path: str, status: int, words: str
) -> None:
    answer = client.ask(method, path)
    assert answer.status_code == status
    assert words in answer.json()["error"]
    assert ("allow" in answer.headers) == (status == 405)


def test_an_unexpected_failure_is_logged_and_tells_the_client_nothing(
    loaded: LoadedModel, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        signature = loaded.signature

        def run(self, arrays: Mapping[str, Array], outputs: Sequence[str] | None) -> list[Tensor]:
            raise RuntimeError("secret of the house")

    broken = LoadedModel(
        Broken(), loaded.signature, loaded.output_names, loaded.answers_rows, 0, {}
    )
    with caplog.at_level(logging.ERROR):
        answer = Client(broken).infer()
    assert (answer.status_code, answer.json()) == (500, {"error": "internal error"})
    assert "secret of the house" in caplog.text


def test_metrics_count_requests_by_status_and_rows_by_model(client: Client) -> None:
    client.infer()
    client.infer(json={})
    client.infer(json={"inputs": [X | {"shape": [2, 2], "data": [1, 2, 3, 4]}]})
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    samples = {
        (sample.name, sample.labels.get("status")): sample
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    counted = samples["moorage_inference_duration_seconds_count", "200"]
    assert counted.value == 2
    assert counted.labels == {"model": "m", "version": "3", "status": "200"}
    assert samples["moorage_inference_duration_seconds_count", "400"].value == 1
    assert {"moorage_model_runs_total", "moorage_model_rows_total"} <= {name for name, _ in samples}


def test_head_is_allowed_where_get_is(client: Client) -> None:
    assert client.ask("HEAD", "/v2/health/ready").status_code == 200


def test_a_client_that_goes_away_is_not_answered(client: Client) -> None:
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v2/models/m/infer", "headers": []}
    asyncio.run(client.app(scope, receive, send))
    assert sent == []
    assert 'status="499"' in client.get("/metrics").text


def test_start_and_end_of_the_server_are_acknowledged() -> None:
    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    asyncio.run(RuntimeApp("m", "1")({"type": "lifespan"}, receive, send))
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def test_concurrent_requests_share_runs_and_keep_their_own_answers(loaded: LoadedModel) -> None:
    async def scenario() -> None:
        app = RuntimeApp("m", "3")
        batcher = Batcher(loaded.predictor, max_batch_size=64, max_delay_s=0.05, shares=True)
        app.serve(loaded, batcher)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://h") as client:
            bodies = [{"id": str(at), "inputs": [X | {"data": [at, -at]}]} for at in range(20)]
            answers = await asyncio.gather(
                *(client.post("/v2/models/m/infer", json=body) for body in bodies)
            )
        for at, answer in enumerate(answers):
            assert answer.json()["id"] == str(at)
            assert answer.json()["outputs"][0]["data"] == [2 * at, -2 * at]
        assert batcher.rows == 20
        assert batcher.runs < 20

    asyncio.run(scenario())


def test_the_file_of_a_loaded_model_is_no_longer_needed(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(models.double())
    found = model.load(
        Source(str(path)), Options(intra_op_threads=1), warmup=False, tell=lambda _: None
    )
    path.unlink()
    assert Client(found).infer().json()["outputs"][0]["data"] == [2, 5]
