"""The request path: parse, decide, compute, remember, answer."""

import asyncio
import gzip
import json
import re
import uuid
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage_api import v2
from moorage_api.tensors import Tensor
from moorage_gateway.inference import is_sampled, new_id

pytestmark = pytest.mark.anyio


def scores_of(tensors: list[Tensor]) -> list[Tensor]:
    """Compute for the signature `classifier`: a label and two scores for each row."""
    x = tensors[0].array
    yes = (x[:, 0] > 1).astype(np.float32)
    return [
        Tensor("label", "INT64", yes.astype(np.int64)),
        Tensor("scores", "FP32", np.stack([1 - yes, yes], axis=1)),
    ]


ROW = [2, 3, 4]
SCORES = {"label": 1, "scores": {"no": 0.0, "yes": 1.0}}
V2_ROW = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": ROW}

#: Protocol, path, body, and where its answer is.
PROTOCOLS = [
    pytest.param("predict", "/predict/clf", {"input": ROW}, id="endpoint"),
    pytest.param("predict", "/predict", {"model_name": "m", "input": ROW}, id="universal"),
    pytest.param("v2", "/v2/models/m/infer", {"inputs": [V2_ROW]}, id="v2"),
    pytest.param("v1", "/v1/models/m:predict", {"instances": [ROW]}, id="v1"),
    pytest.param("seldon", "/api/v1.0/predictions", {"data": {"ndarray": [ROW]}}, id="seldon"),
    pytest.param(
        "seldon",
        "/seldon/default/m/api/v1.0/predictions",
        {"data": {"ndarray": [ROW]}},
        id="seldon with a name",
    ),
]


@pytest.fixture
async def served(gateway: Any, signatures: Any) -> Any:
    """A gateway that serves the classifier `m` at the endpoint `clf`."""
    await gateway.serve("m", signatures["classifier"], scores_of, endpoint="clf")
    return gateway


def timing_of(answer: httpx.Response) -> dict[str, float]:
    found = re.findall(r"(\w+);dur=([0-9.]+)", answer.headers["server-timing"])
    return {name: float(milliseconds) for name, milliseconds in found}


@pytest.mark.parametrize(("protocol", "path", "body"), PROTOCOLS)
async def test_an_answered_prediction_is_remembered_as_it_was(
    served: Any, protocol: str, path: str, body: Any
) -> None:
    answer = await served.client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    (row,) = await served.stored()
    assert row.request_id == answer.headers["x-prediction-id"]
    assert (row.protocol, row.status, row.error) == (protocol, 200, "")
    assert (row.namespace, row.deployment, row.model, row.version) == ("default", "m", "m", "1")
    assert list(row.inputs.values()) == [2.0, 3.0, 4.0]
    assert row.outputs["label"] == 1
    assert row.weight == 1.0
    assert 0 < row.timing_us["runtime"] <= row.timing_us["total"]


@pytest.mark.parametrize(("protocol", "path", "body"), PROTOCOLS)
async def test_every_answer_has_its_id_and_its_timing(
    served: Any, protocol: str, path: str, body: Any
) -> None:
    answer = await served.client.post(path, json=body)
    assert uuid.UUID(answer.headers["x-prediction-id"]).version == 7
    assert set(timing_of(answer)) == {"queue", "validate", "runtime", "log"}
    assert timing_of(answer)["runtime"] > 0
    assert int(answer.headers["content-length"]) == len(answer.content)


async def test_each_dialect_answers_in_its_own_form(served: Any) -> None:
    answers = {
        case.values[1]: (await served.client.post(case.values[1], json=case.values[2])).json()
        for case in PROTOCOLS
    }
    assert answers["/predict/clf"]["prediction"] == SCORES
    assert answers["/predict"]["prediction"] == SCORES
    assert answers["/v1/models/m:predict"] == {"predictions": [SCORES]}
    assert [out["data"] for out in answers["/v2/models/m/infer"]["outputs"]] == [[1], [0.0, 1.0]]
    seldon = answers["/api/v1.0/predictions"]
    assert seldon["data"] == {"names": ["no", "yes"], "ndarray": [[0.0, 1.0]]}


async def test_rows_are_stored_under_one_id(served: Any) -> None:
    answer = await served.client.post("/predict/clf", json={"input": [ROW, [0, 0, 0], ROW]})
    assert answer.json()["prediction_id"] == answer.headers["x-prediction-id"]
    rows = await served.stored()
    assert {row.request_id for row in rows} == {answer.json()["prediction_id"]}
    assert [row.outputs["label"] for row in sorted(rows, key=lambda row: row.row)] == [1, 0, 1]


#: What is wrong, sent where, and the answer's status and words.
REFUSED = [
    pytest.param("/predict/clf", b'{"input": [1, NaN, 2]}', 400, "not JSON", id="NaN"),
    pytest.param("/predict/clf", b'{"input": [1,', 400, "not JSON", id="truncated"),
    pytest.param("/predict/clf", b"", 400, "not JSON", id="nothing"),
    pytest.param("/predict/clf", b'{"input": [1, 2]}', 400, "input 'x'", id="a short row"),
    pytest.param("/predict/clf", b'{"input": [1, 2, 1e60]}', 400, "input 'x'", id="beyond FP32"),
    pytest.param("/predict/clf", b'{"input": 1, "z": 2}', 400, "unknown key 'z'", id="a key"),
    pytest.param("/predict/other", b'{"input": 1}', 404, "no deployment", id="endpoint"),
    pytest.param("/predict", b'{"model_name": "z", "input": 1}', 404, "unknown model", id="model"),
    pytest.param("/v2/models/z/infer", b"{}", 404, "unknown model", id="v2: model"),
    pytest.param("/v2/models/m/versions/2/infer", b"{}", 404, "version '2'", id="v2: version"),
    pytest.param("/v2/models/m/infer", b"{}", 400, "'inputs'", id="v2: no inputs"),
    pytest.param("/v1/models/m:predict", b"{}", 400, "either", id="v1: no instances"),
    pytest.param("/api/v1.0/predictions", b"{}", 400, "data type", id="seldon: no data"),
    pytest.param(
        "/api/v1.0/predictions", b'{"binData": "AA=="}', 501, "not supported", id="seldon: binData"
    ),
    pytest.param(
        "/predict/clf", b'{"input": ' + b"[" * 600 + b"]" * 600 + b"}", 400, "nested", id="deep"
    ),
]


@pytest.mark.parametrize(("path", "body", "status", "words"), REFUSED)
async def test_what_is_wrong_is_answered_with_an_error_that_says_so(
    served: Any, path: str, body: bytes, status: int, words: str
) -> None:
    answer = await served.client.post(path, content=body)
    assert answer.status_code == status
    assert words in answer.json()["error"]
    assert answer.headers["content-type"] == "application/json"
    assert uuid.UUID(answer.headers["x-prediction-id"])
    assert "server-timing" in answer.headers
    if path.startswith("/api/"):
        assert answer.json()["status"]["info"] == answer.json()["error"]
        assert answer.headers["seldon-puid"] == answer.headers["x-prediction-id"]
    else:
        assert set(answer.json()) == {"error"}


async def test_a_refused_request_to_a_deployment_is_remembered_with_its_error(served: Any) -> None:
    answer = await served.client.post("/predict/clf", json={"input": [1, 2]})
    (row,) = await served.stored()
    assert (row.status, row.error) == (400, answer.json()["error"])
    assert row.request_id == answer.headers["x-prediction-id"]
    assert row.outputs == {}


async def test_a_request_to_nothing_is_not_remembered(served: Any) -> None:
    await served.client.post("/predict/other", json={"input": ROW})
    await served.client.post("/predict/clf", json={"input": ROW})
    (row,) = await served.stored()
    assert row.status == 200


async def test_what_a_runtime_gets_is_what_was_sent(served: Any, tensor: Any) -> None:
    """JSON and binary reach the model as the same bits."""
    values = [0.1, -0.0, 3.4e38]
    body = v2.render_request([tensor("x", "FP32", [values])])
    headers = {"Inference-Header-Content-Length": str(body.json_length)}
    binary = await served.client.post("/v2/models/m/infer", content=body.join(), headers=headers)
    await served.client.post("/predict/clf", json={"input": values})
    first, second = (call.parse().tensors[0].array.tobytes() for call in served.runtimes["m"].calls)
    assert first == second == np.array(values, np.float32).tobytes()
    length = int(binary.headers["inference-header-content-length"])
    label, _ = v2.parse_response(binary.content, length)
    assert label.array.tolist() == [0]


@pytest.mark.parametrize(
    ("coding", "compress"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("GZIP", gzip.compress)],
)
async def test_a_compressed_body_is_read(
    served: Any, coding: str, compress: Callable[[bytes], bytes]
) -> None:
    body = compress(orjson.dumps({"input": ROW}))
    answer = await served.client.post(
        "/predict/clf", content=body, headers={"content-encoding": coding}
    )
    assert answer.json()["prediction"] == SCORES


@pytest.mark.parametrize(
    ("content", "headers", "status", "words"),
    [
        pytest.param(
            b"x" * 5000, {}, 413, "larger than the limit of 4096 bytes", id="announced and sent"
        ),
        pytest.param(
            gzip.compress(b" " * 100_000),
            {"content-encoding": "gzip"},
            413,
            "decompressed",
            id="bomb",
        ),
        pytest.param(
            gzip.compress(b"{}")[:-3], {"content-encoding": "gzip"}, 400, "too early", id="cut"
        ),
        pytest.param(b"{}", {"content-encoding": "gzip"}, 400, "not gzip", id="not gzip"),
        pytest.param(b"{}", {"content-encoding": "br"}, 415, "'br'", id="another coding"),
    ],
)
async def test_a_body_that_cannot_be_taken_is_refused(
    open_gateway: Any,
    signatures: Any,
    content: bytes,
    headers: dict[str, str],
    status: int,
    words: str,
) -> None:
    async with open_gateway(body_limit=4096) as gateway:
        await gateway.serve("m", signatures["row"])
        answer = await gateway.client.post("/predict/m", content=content, headers=headers)
        assert answer.status_code == status
        assert words in answer.json()["error"]
        assert gateway.runtimes["m"].calls == []


async def test_a_chunked_body_is_refused_as_soon_as_it_is_too_large(
    open_gateway: Any, signatures: Any
) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 1_000_000:
            sent += 1000
            yield b"x" * 1000

    async with open_gateway(body_limit=4096) as gateway:
        await gateway.serve("m", signatures["row"])
        answer = await gateway.client.post("/predict/m", content=endless())
        assert answer.status_code == 413
        assert sent <= 6000


async def asgi(app: Any, headers: list[tuple[bytes, bytes]], receive: Any) -> list[Any]:
    """Ask without an HTTP client between, for what one would not do."""
    sent: list[Any] = []
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "path": "/predict/m",
        "raw_path": b"/predict/m",
        "query_string": b"",
        "headers": headers,
        "scheme": "http",
        "server": ("gateway", 80),
    }

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


async def test_a_body_that_is_announced_too_large_is_refused_before_it_is_read(
    open_gateway: Any, signatures: Any
) -> None:
    async def receive() -> Any:
        raise AssertionError("the body was read")

    async with open_gateway(body_limit=4096) as gateway:
        await gateway.serve("m", signatures["row"])
        start, _ = await asgi(gateway.app, [(b"content-length", b"4097")], receive)
        assert start["status"] == 413


async def test_a_client_that_goes_away_amid_its_request_gets_nothing(
    served: Any,
) -> None:
    messages = iter(
        [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]
    )

    async def receive() -> Any:
        return next(messages)

    assert await asgi(served.app, [], receive) == []


class TestTroubleWithTheRuntime:
    """Each is answered with its own status, remembered, and the deployment's own business."""

    @pytest.mark.parametrize(
        ("react", "status", "words"),
        [
            pytest.param(None, 502, "before its answer was whole", id="it hangs up"),
            pytest.param(b"HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n", 502, "HTTP 500", id="500"),
            pytest.param(
                b'HTTP/1.1 400 X\r\ncontent-length: 14\r\n\r\n{"error":"no"}', 400, "no", id="400"
            ),
            pytest.param(
                b"HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n", 503, "not ready", id="503"
            ),
            pytest.param(b"\x00", 502, "not HTTP", id="garbage"),
        ],
    )
    async def test_is_told_and_remembered(
        self, gateway: Any, signatures: Any, react: bytes | None, status: int, words: str
    ) -> None:
        async def answer_so(_: Any, __: Any) -> bytes | None:
            return react

        await gateway.serve("m", signatures["classifier"], react=answer_so)
        answer = await gateway.client.post("/predict/m", json={"input": [ROW, ROW]})
        assert answer.status_code == status
        assert words in answer.json()["error"]
        # One row, though two were sent: none was answered.
        (row,) = await gateway.stored()
        assert (row.status, row.error) == (status, answer.json()["error"])

    async def test_no_runtime_at_its_address_is_503_with_a_time_to_try_again(
        self, served: Any
    ) -> None:
        await served.runtimes["m"].stop()
        answer = await served.client.post("/predict/clf", json={"input": ROW})
        assert answer.status_code == 503
        assert "cannot be reached" in answer.json()["error"]
        assert answer.headers["retry-after"] == "1"

    async def test_no_answer_in_time_is_504(self, open_gateway: Any, signatures: Any) -> None:
        never = asyncio.Event()

        async def wait(_: Any, __: Any) -> None:
            await never.wait()

        async with open_gateway(runtime_timeout_s=0.01) as gateway:
            await gateway.serve("m", signatures["row"], react=wait)
            answer = await gateway.client.post("/predict/m", json={"input": ROW})
            assert answer.status_code == 504
            assert "0.01 s" in answer.json()["error"]

    async def test_an_answer_that_does_not_fit_its_own_signature_is_no_surprise(
        self, gateway: Any, signatures: Any, tensor: Any
    ) -> None:
        def other(_: list[Tensor]) -> list[Tensor]:
            return [tensor("scores", "FP32", [[1, 2, 3]])]

        await gateway.serve("m", signatures["classifier"], other)
        answer = await gateway.client.post("/predict/m", json={"input": ROW})
        assert answer.status_code == 500
        assert answer.json() == {"error": "internal error"}
        (row,) = await gateway.stored()
        assert row.status == 500


@pytest.mark.parametrize(
    ("spec", "status", "words"),
    [
        pytest.param({"stopped": True}, 503, "is stopped", id="stopped"),
        pytest.param({}, 503, "Loading: as told", id="not ready"),
    ],
)
async def test_a_deployment_that_does_not_serve_says_why(
    gateway: Any, making: Any, signatures: Any, spec: Any, status: int, words: str
) -> None:
    asked = making.resource("m", **spec)
    observed = making.observation(asked, signatures["row"], reason="Loading", message="as told")
    making.tell(gateway.folder, asked.key, observed)
    await gateway.resources.put(asked)
    answer = await gateway.client.post("/predict/m", json={"input": ROW})
    assert answer.status_code == status
    assert words in answer.json()["error"]
    assert answer.headers["retry-after"] == "1"


class TestTheClientsOwnId:
    @pytest.mark.parametrize(
        ("headers", "path", "body", "stored"),
        [
            pytest.param(
                {"X-Request-Id": "abc"}, "/predict/clf", {"input": ROW}, "abc", id="header"
            ),
            pytest.param({"Seldon-Puid": "p"}, "/predict/clf", {"input": ROW}, "p", id="puid"),
            pytest.param({}, "/predict/clf", {"input": ROW}, "", id="none"),
            pytest.param(
                {"X-Request-Id": "é" * 300}, "/predict/clf", {"input": ROW}, None, id="a long one"
            ),
            pytest.param(
                {"X-Request-Id": "h"},
                "/v2/models/m/infer",
                {"id": "42", "inputs": [V2_ROW]},
                "42",
                id="the body's goes before the header's",
            ),
            pytest.param(
                {},
                "/api/v1.0/predictions",
                {"meta": {"puid": "q"}, "data": {"ndarray": [ROW]}},
                "q",
                id="meta.puid",
            ),
        ],
    )
    async def test_is_stored(
        self, served: Any, headers: Any, path: str, body: Any, stored: str | None
    ) -> None:
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        answer = await served.client.post(path, content=json.dumps(body), headers=raw)
        assert answer.status_code == 200
        (row,) = await served.stored()
        if stored is None:
            assert len(row.client_id) == 256
        else:
            assert row.client_id == stored


class TestSampling:
    async def served(self, gateway: Any, signatures: Any, **logging: Any) -> None:
        await gateway.serve("m", signatures["classifier"], scores_of, logging=logging)

    async def test_nothing_is_stored_at_zero_percent_but_errors(
        self, gateway: Any, signatures: Any
    ) -> None:
        await self.served(gateway, signatures, samplePercent=0)
        for _ in range(20):
            assert (await gateway.client.post("/predict/m", json={"input": ROW})).status_code == 200
        await gateway.client.post("/predict/m", json={"input": [1]})
        (row,) = await gateway.stored()
        assert (row.status, row.weight) == (400, 1.0)

    async def test_what_is_stored_of_a_half_counts_for_two(
        self, gateway: Any, signatures: Any
    ) -> None:
        await self.served(gateway, signatures, samplePercent=50)
        ids = []
        for _ in range(60):
            answer = await gateway.client.post("/predict/m", json={"input": ROW})
            ids.append(answer.headers["x-prediction-id"])
        expected = {text for text in ids if is_sampled(uuid.UUID(text).bytes, 50)}
        rows = await gateway.stored(len(expected))
        assert {row.request_id for row in rows} == expected
        assert {row.weight for row in rows} == {2.0}

    async def test_nothing_at_all_is_stored_where_logging_is_off(
        self, gateway: Any, signatures: Any
    ) -> None:
        await self.served(gateway, signatures, enabled=False)
        for body in ({"input": ROW}, {"input": [1]}):
            await gateway.client.post("/predict/m", json=body)
        assert (gateway.log.pending, gateway.log.written) == (0, 0)
        # They are counted all the same.
        shown = (await gateway.client.get("/deployments")).json()["deployments"]
        assert [item["request_count"] for item in shown] == [2]

    @given(st.binary(min_size=16, max_size=16))
    def test_a_larger_share_holds_the_smaller_one(self, identity: bytes) -> None:
        verdicts = [is_sampled(identity, percent) for percent in range(101)]
        assert verdicts == sorted(verdicts)
        assert (verdicts[0], verdicts[100]) == (False, True)

    def test_the_share_is_near_the_percentage(self) -> None:
        chosen = sum(is_sampled(number.to_bytes(16, "big"), 25) for number in range(4000))
        assert 900 < chosen < 1100


def test_new_ids_are_uuid7_and_never_the_same() -> None:
    ids = [new_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert {uuid.UUID(bytes=item).version for item in ids} == {7}
    assert [item[:6] for item in ids] == sorted(item[:6] for item in ids)


async def test_requests_are_counted_by_status_and_protocol(served: Any) -> None:
    await served.client.post("/predict/clf", json={"input": ROW})
    await served.client.post("/predict/clf", json={"input": [1]})
    await served.client.post("/v1/models/m:predict", json={"instances": [ROW]})
    (tally,) = (served.usage.of(route) for route in served.live.table.routes.values())
    assert (tally.requests, tally.in_flight) == (3, 0)
    text = (await served.client.get("/metrics")).text
    counts = re.findall(r'_count\{.*protocol="(\w+)",status="(\d+)".*\} ([0-9.]+)', text)
    assert sorted(counts) == [
        ("predict", "200", "1.0"),
        ("predict", "400", "1.0"),
        ("v1", "200", "1.0"),
    ]


async def test_a_model_that_is_moved_amid_a_request_is_remembered_as_the_one_that_answered(
    gateway: Any, making: Any, signatures: Any, eventually: Any, wire: Any
) -> None:
    go = asyncio.Event()
    held = 0

    async def hold(exchange: Any, writer: Any) -> Any:
        nonlocal held
        held += 1
        await go.wait()
        return await wire.computing(scores_of)(exchange, writer)

    runtime = await gateway.serve(
        "m", signatures["classifier"], react=hold, model={"uri": "file:/m.onnx", "version": "1"}
    )
    asking = asyncio.create_task(gateway.client.post("/predict/m", json={"input": ROW}))
    await eventually(lambda: held == 1)
    asked = making.resource("m", model={"uri": "file:/m.onnx", "version": "2"})
    observed = making.observation(asked, signatures["classifier"], [runtime.address])
    making.tell(gateway.folder, asked.key, observed)
    await gateway.resources.put(asked)
    go.set()
    assert (await asking).json()["version"] == "1"
    assert (await gateway.client.post("/predict/m", json={"input": ROW})).json()["version"] == "2"
    rows = await gateway.stored(2)
    assert sorted(row.version for row in rows) == ["1", "2"]
