"""What the commands ask of a gateway, over a real socket."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moorage_api import errors
from moorage_api.errors import MoorageError
from moorage_cli.gateway import Gateway


def test_a_prediction_is_asked_for_as_the_universal_endpoint_takes_it(scripted: Any) -> None:
    scripted.answer(200, {"prediction": [1], "prediction_id": "x"})
    found = Gateway(scripted.url).predict("iris", None, [[1.5]])
    assert found == {"prediction": [1], "prediction_id": "x"}
    ((method, path, _, body),) = scripted.asked
    assert (method, path) == ("POST", "/predict")
    assert json.loads(body) == {"model_name": "iris", "input": [[1.5]]}


def test_a_version_is_named_only_when_there_is_one(scripted: Any) -> None:
    scripted.answer(200, {"prediction": None})
    Gateway(scripted.url).predict("iris", "2", None)
    assert json.loads(scripted.asked[0][3])["version"] == "2"


def test_a_file_is_pushed_whole_with_its_length_and_told_piece_by_piece(
    scripted: Any, tmp_path: Path
) -> None:
    content = bytes(range(256)) * 8192 + b"end"
    file = tmp_path / "m.onnx"
    file.write_bytes(content)
    scripted.answer(201, {"uri": "models:/m/1"})
    told: list[int] = []
    Gateway(scripted.url).push(file, "my model", "1.0", told.append)
    ((method, path, headers, body),) = scripted.asked
    assert (method, path) == ("POST", "/models?name=my+model&version=1.0")
    assert body == content
    assert headers["content-length"] == str(len(content))
    assert headers["content-type"] == "application/octet-stream"
    assert sum(told) == len(content)
    assert len(told) == 3


def test_a_gateway_below_a_path_is_asked_there(scripted: Any) -> None:
    scripted.answer(200, {"deployments": []})
    Gateway(f"{scripted.url}/moorage/").deployments()
    assert scripted.asked[0][1] == "/moorage/deployments"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.InvalidRequest),
        (404, errors.NotFound),
        (409, errors.Conflict),
        (413, errors.InvalidRequest),
        (422, errors.ModelRejected),
        (500, MoorageError),
        (501, MoorageError),
        (502, MoorageError),
        (503, errors.Unavailable),
        (504, errors.Unavailable),
    ],
)
def test_an_error_of_the_gateway_is_raised_with_its_own_words(
    scripted: Any, status: int, kind: type[MoorageError]
) -> None:
    scripted.answer(status, {"error": "input 'x': expected FP32 [N, 4]"})
    with pytest.raises(MoorageError) as caught:
        Gateway(scripted.url).predict("iris", None, 1)
    assert type(caught.value) is kind
    assert str(caught.value) == "input 'x': expected FP32 [N, 4]"


@pytest.mark.parametrize(
    ("ask", "status", "body"),
    [
        ("deployments", 200, b'{"hello": "world"}'),
        ("deployments", 200, b"<html>hello</html>"),
        ("deployments", 200, b"[]"),
        ("predict", 200, b'{"hello": "world"}'),
        ("predict", 502, b"<html>Bad Gateway</html>"),
        ("predict", 500, b'"oh"'),
        ("push", 200, b'{"hello": "world"}'),
        ("push", 404, b'{"detail": "Not Found"}'),
        ("push", 200, b""),
    ],
)
def test_another_server_is_no_gateway(
    scripted: Any, tmp_path: Path, status: int, body: bytes, ask: str
) -> None:
    scripted.status, scripted.body = status, body
    gateway = Gateway(scripted.url)
    file = tmp_path / "m.onnx"
    file.write_bytes(b"x")
    asks: dict[str, Callable[[], object]] = {
        "deployments": gateway.deployments,
        "predict": lambda: gateway.predict("iris", None, 1),
        "push": lambda: gateway.push(file, "m", None, lambda size: None),
    }
    with pytest.raises(MoorageError, match=f"is no Moorage gateway: HTTP {status}"):
        asks[ask]()


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1", "http://[::1]:1", "127.0.0.1:8080", "", "ftp://127.0.0.1"]
)
def test_a_gateway_that_does_not_answer_is_unavailable(url: str) -> None:
    with pytest.raises(errors.Unavailable, match="no gateway answers at"):
        Gateway(url).deployments()


@pytest.mark.parametrize("url", ["http://host:port", "http://[::1", "http://host\n"])
def test_an_address_that_is_none_is_an_invalid_request(url: str) -> None:
    with pytest.raises(errors.InvalidRequest, match="--gateway"):
        Gateway(url).deployments()
