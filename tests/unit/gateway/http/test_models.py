"""`/models`: pushing, listing and downloading model versions."""

import hashlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

pytestmark = pytest.mark.anyio


async def in_chunks(content: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(content), 100):
        yield content[at : at + 100]


@pytest.mark.parametrize("form", [False, True], ids=["as the body", "as a form"])
async def test_a_pushed_model_is_there_with_what_its_file_says(
    gateway: Any, iris_onnx: bytes, form: bool, now: Any
) -> None:
    digest = hashlib.sha256(iris_onnx).hexdigest()
    if form:
        data = {"name": "iris", "version": "7", "sha256": digest}
        pushed = await gateway.client.post("/models", data=data, files={"file": iris_onnx})
    else:
        query = f"/models?name=iris&version=7&sha256={digest}"
        pushed = await gateway.client.post(query, content=iris_onnx)
    assert pushed.status_code == 201, pushed.text
    assert pushed.headers["location"] == "/models/iris/versions/7"
    model = pushed.json()
    assert (model["sha256"], model["size_bytes"]) == (digest, len(iris_onnx))
    assert (model["uri"], model["created_at"]) == ("models:/iris/7", now.isoformat())
    assert model["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 4]}]
    assert (await gateway.client.get(pushed.headers["location"])).json() == model


async def test_a_model_is_downloaded_as_it_was_pushed(gateway: Any, iris_onnx: bytes) -> None:
    await gateway.client.post("/models?name=iris", content=iris_onnx)
    answer = await gateway.client.get("/models/iris/versions/1/file")
    assert answer.content == iris_onnx
    assert answer.headers["x-model-sha256"] == hashlib.sha256(iris_onnx).hexdigest()
    assert 'filename="iris-1.onnx"' in answer.headers["content-disposition"]
    assert answer.headers["content-type"] == "application/octet-stream"
    assert "x-prediction-id" in answer.headers


async def test_the_same_bytes_again_are_200_and_others_409(
    gateway: Any, iris_onnx: bytes, forest_onnx: bytes
) -> None:
    path = "/models?name=iris&version=1"
    statuses = [
        (await gateway.client.post(path, content=content)).status_code
        for content in (iris_onnx, iris_onnx, forest_onnx)
    ]
    assert statuses == [201, 200, 409]


async def test_models_are_listed_with_their_versions_in_order(
    gateway: Any, iris_onnx: bytes
) -> None:
    for name, version in (("iris", "10"), ("iris", "2"), ("rose", "1")):
        await gateway.client.post(f"/models?name={name}&version={version}", content=iris_onnx)
    size = len(iris_onnx)
    assert (await gateway.client.get("/models")).json() == {
        "models": [
            {
                "name": "iris",
                "versions": ["2", "10"],
                "latest": "10",
                "uri": "models:/iris/10",
                "size_bytes": 2 * size,
            },
            {
                "name": "rose",
                "versions": ["1"],
                "latest": "1",
                "uri": "models:/rose/1",
                "size_bytes": size,
            },
        ]
    }
    one = (await gateway.client.get("/models/iris")).json()
    assert [model["version"] for model in one["versions"]] == ["2", "10"]


async def test_stats_tell_what_is_deployed_and_used(
    gateway: Any, iris_onnx: bytes, signatures: Any
) -> None:
    await gateway.client.post("/models?name=iris", content=iris_onnx)
    await gateway.serve(
        "flowers", signatures["scalar"], model={"uri": "models:/iris/1"}, endpoint="e"
    )
    await gateway.client.post("/predict/e", json={"input": 1})
    assert (await gateway.client.get("/models/stats")).json() == {
        "models": 1,
        "versions": 1,
        "size_bytes": len(iris_onnx),
        "deployments": 1,
        "by_model": {
            "iris": {
                "versions": 1,
                "size_bytes": len(iris_onnx),
                "deployed_versions": ["1"],
                "request_count": 1,
            }
        },
    }


@pytest.mark.parametrize(
    ("query", "content", "status", "words"),
    [
        pytest.param("", None, 400, "'name'", id="no name"),
        pytest.param("?name=", None, 400, "'name'", id="an empty name"),
        pytest.param("?name=..%2Firis", None, 400, "model name", id="a path upwards"),
        pytest.param("?name=stats", None, 400, "choose another", id="a reserved word"),
        pytest.param("?name=iris&version=a%2Fb", None, 400, "model version", id="version"),
        pytest.param("?name=iris&sha256=xyz", None, 400, "'sha256'", id="no sha256"),
        pytest.param("?name=iris&sha256=" + "0" * 64, None, 422, "sha256", id="another sha256"),
        pytest.param("?name=iris", b"hello", 422, "ONNX", id="not ONNX"),
        pytest.param("?name=iris", b"", 422, "empty", id="nothing"),
        pytest.param("?name=iris", bytes(20_000), 413, "limit of 10000", id="announced too large"),
    ],
)
async def test_what_cannot_be_pushed_is_refused_and_not_kept(
    open_gateway: Any, iris_onnx: bytes, query: str, content: bytes | None, status: int, words: str
) -> None:
    async with open_gateway(model_limit=10_000) as gateway:
        body = iris_onnx if content is None else content
        answer = await gateway.client.post(f"/models{query}", content=body)
        assert answer.status_code == status
        assert words in answer.json()["error"]
        assert (await gateway.client.get("/models")).json() == {"models": []}


@pytest.mark.parametrize("form", [False, True], ids=["as the body", "as a form"])
async def test_a_stream_is_refused_as_soon_as_it_is_too_large(
    open_gateway: Any, form: bool
) -> None:
    sent = 0
    headers = {"content-type": "multipart/form-data; boundary=b"} if form else {}

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        if form:
            yield b'--b\r\ncontent-disposition: form-data; name="file"; filename="f"\r\n\r\n'
        while sent < 10_000_000:
            sent += 10_000
            yield bytes(10_000)

    async with open_gateway(model_limit=10_000) as gateway:
        answer = await gateway.client.post("/models?name=iris", content=endless(), headers=headers)
        assert answer.status_code == 413
        assert "limit of 10000 bytes" in answer.json()["error"]
        assert sent <= 100_000


async def test_a_large_model_may_be_pushed_past_the_limit_of_requests(
    open_gateway: Any, iris_onnx: bytes
) -> None:
    async with open_gateway(body_limit=10) as gateway:
        for content in (iris_onnx, in_chunks(iris_onnx)):
            answer = await gateway.client.post("/models?name=iris", content=content)
            assert answer.status_code == 201


@pytest.mark.parametrize(
    ("content", "headers", "words"),
    [
        pytest.param(
            b"--b\r\n", {"content-type": "multipart/form-data"}, "boundary", id="no boundary"
        ),
        pytest.param(
            b'--b\r\ncontent-disposition: form-data; name="name"\r\n\r\niris\r\n--b--\r\n',
            {"content-type": "multipart/form-data; boundary=b"},
            "'file'",
            id="no file",
        ),
        pytest.param(
            b'--b\r\ncontent-disposition: form-data; name="file"\r\n\r\nx\r\n--b--\r\n',
            {"content-type": "multipart/form-data; boundary=b"},
            "'file'",
            id="a text for a file",
        ),
        pytest.param(
            b"nonsense",
            {"content-type": "multipart/form-data; boundary=b"},
            "form",
            id="no form",
        ),
    ],
)
async def test_a_form_that_cannot_be_read_is_refused(
    gateway: Any, content: bytes, headers: dict[str, str], words: str
) -> None:
    answer = await gateway.client.post("/models?name=iris", content=content, headers=headers)
    assert answer.status_code == 400
    assert words in answer.json()["error"]


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/models/rose", 404, "'rose'"),
        ("/models/iris/versions/9", 404, "there are: 1"),
        ("/models/iris/versions/9/file", 404, "there are: 1"),
        ("/models/..%2F..", 404, "no such path"),
        ("/models/%2e%2e", 400, "model name"),
        ("/models/iris/versions/%2e%2e/file", 400, "model version"),
    ],
)
async def test_what_is_not_there_is_told_with_what_is(
    gateway: Any, iris_onnx: bytes, path: str, status: int, words: str
) -> None:
    await gateway.client.post("/models?name=iris", content=iris_onnx)
    answer = await gateway.client.get(path)
    assert answer.status_code == status
    assert words in answer.json()["error"]
