"""One model behind five protocols: the same numbers as ONNX Runtime gives in this process."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime as ort
import orjson
import pytest

from moorage_api import v2
from moorage_api.tensors import Tensor

EXAMPLES = Path(__file__).parents[3] / "examples"


@cache
def rows_of(name: str) -> Any:
    """The example's own rows."""
    document = orjson.loads((EXAMPLES / name / "rows.json").read_bytes())
    (tensor,) = document["inputs"].values()
    return np.array(tensor["data"], np.float32).reshape(tensor["shape"])


@cache
def expected_of(name: str) -> Any:
    """The last output, scores or the only one, computed here."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(
        EXAMPLES / name / "model.onnx", options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {session.get_inputs()[0].name: rows_of(name)})[-1]


def by_endpoint(client: httpx.Client, name: str, endpoint: str, x: Any) -> tuple[str, Any]:
    answer = client.post(f"/predict/{endpoint}", json={"input": x.tolist()})
    return _plain(answer, answer.json()["prediction"])


def by_model(client: httpx.Client, name: str, endpoint: str, x: Any) -> tuple[str, Any]:
    body = {"model_name": name, "version": "1", "input": x.tolist()}
    answer = client.post("/predict", json=body)
    return _plain(answer, answer.json()["prediction"])


def by_v1(client: httpx.Client, name: str, endpoint: str, x: Any) -> tuple[str, Any]:
    answer = client.post(f"/v1/models/{name}:predict", json={"instances": x.tolist()})
    return _plain(answer, answer.json()["predictions"])


def _plain(answer: httpx.Response, rows: list[Any]) -> tuple[str, Any]:
    if isinstance(rows[0], dict):
        rows = [row["probabilities"] for row in rows]
    return answer.headers["x-prediction-id"], np.array(rows, np.float32)


def by_v2_json(client: httpx.Client, name: str, endpoint: str, x: Any) -> tuple[str, Any]:
    given = {
        "name": "x" if x.shape[1] == 1 else "input",
        "datatype": "FP32",
        "shape": x.shape,
        "data": x.ravel().tolist(),
    }
    answer = client.post(f"/v2/models/{name}/infer", json={"inputs": [given]})
    last = answer.json()["outputs"][-1]
    return answer.headers["x-prediction-id"], np.array(last["data"], np.float32)


def by_v2_binary(client: httpx.Client, name: str, endpoint: str, x: Any) -> tuple[str, Any]:
    body = v2.render_request([Tensor("x" if x.shape[1] == 1 else "input", "FP32", x)])
    headers = {"Inference-Header-Content-Length": str(body.json_length)}
    answer = client.post(f"/v2/models/{name}/infer", content=body.join(), headers=headers)
    length = int(answer.headers["inference-header-content-length"])
    return answer.headers["x-prediction-id"], v2.parse_response(answer.content, length)[-1].array


def by_seldon(client: httpx.Client, name: str, endpoint: str, x: Any) -> tuple[str, Any]:
    path = f"/seldon/default/{name}/api/v1.0/predictions"
    answer = client.post(path, json={"data": {"ndarray": x.tolist()}})
    rows = answer.json()["data"]["ndarray"]
    assert answer.headers["seldon-puid"] == answer.headers["x-prediction-id"]
    return answer.headers["x-prediction-id"], np.array(rows, np.float32)


WAYS = [by_endpoint, by_model, by_v1, by_v2_json, by_v2_binary, by_seldon]
MODELS = [("iris", "iris"), ("quadratic-predictor", "quadratic_predictor")]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("name", "endpoint"), MODELS)
def test_every_protocol_gives_the_numbers_of_onnx_runtime(
    client: httpx.Client, name: str, endpoint: str, way: Callable[..., tuple[str, Any]]
) -> None:
    _, found = way(client, name, endpoint, rows_of(name))
    expected = expected_of(name)
    # Bit for bit: JSON carries enough digits, and nothing on the way computes.
    np.testing.assert_array_equal(found.reshape(expected.shape), expected)


@pytest.mark.parametrize("way", WAYS)
def test_every_answered_prediction_is_found_in_the_record(
    client: httpx.Client, until: Any, way: Callable[..., tuple[str, Any]]
) -> None:
    x = rows_of("iris")[:3]
    identity, found = way(client, "iris", "iris", x)

    def stored() -> Any:
        answer = client.get(f"/predictions/{identity}")
        return answer.json() if answer.status_code == 200 else None

    shown = until(stored)
    assert (shown["deployment"], shown["version"], shown["status"]) == ("iris", "1", 200)
    inputs = [list(row["inputs"].values()) for row in shown["rows"]]
    np.testing.assert_array_equal(np.array(inputs, np.float32), x)
    scores = [list(row["outputs"].values())[1:] for row in shown["rows"]]
    np.testing.assert_array_equal(np.array(scores, np.float32), found.reshape(3, -1))
    listed = client.get("/predictions?deployment=iris&limit=1000").json()["predictions"]
    assert [row["row"] for row in listed if row["prediction_id"] == identity] == [0, 1, 2]


def test_a_header_of_an_answer_cannot_be_written_by_the_request(client: httpx.Client) -> None:
    body = {"meta": {"puid": "a\r\nset-cookie: b=c"}, "data": {"ndarray": [[1, 2, 3, 4]]}}
    answer = client.post("/seldon/default/iris/api/v1.0/predictions", json=body)
    assert answer.status_code == 400
    assert "set-cookie" not in answer.headers


def test_the_connection_survives_a_refused_request(client: httpx.Client) -> None:
    for body in (b"{", b'{"input": NaN}', b'{"input": [1]}'):
        assert client.post("/predict/iris", content=body).status_code == 400
    assert client.post("/predict/iris", json={"input": [1, 2, 3, 4]}).status_code == 200
