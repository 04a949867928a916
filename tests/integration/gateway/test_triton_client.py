"""An unmodified Triton client against the gateway."""

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

with warnings.catch_warnings():
    # gevent and its friends are as they are.
    warnings.simplefilter("ignore")
    http = pytest.importorskip("tritonclient.http")
    utils = pytest.importorskip("tritonclient.utils")

X = np.array([[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]], np.float32)


@pytest.fixture
def triton(up: Any) -> Iterator[Any]:
    client = http.InferenceServerClient(up.url.removeprefix("http://"))
    yield client
    client.close()


def given(binary: bool) -> list[Any]:
    found = http.InferInput("input", list(X.shape), "FP32")
    found.set_data_from_numpy(X, binary_data=binary)
    return [found]


def test_the_server_and_its_model_are_live_and_ready(triton: Any) -> None:
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("iris")
    assert triton.is_model_ready("iris", "1")
    assert not triton.is_model_ready("rose")


def test_metadata_tells_the_signature(triton: Any) -> None:
    assert "binary_tensor_data" in triton.get_server_metadata()["extensions"]
    metadata = triton.get_model_metadata("iris")
    assert metadata["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 4]}]
    assert [output["name"] for output in metadata["outputs"]] == ["label", "probabilities"]


def test_the_index_lists_the_models(triton: Any) -> None:
    states = {item["name"]: item["state"] for item in triton.get_model_repository_index()}
    assert states["iris"] == states["quadratic-predictor"] == "READY"


@pytest.mark.parametrize("sent", [True, False], ids=["binary in", "JSON in"])
@pytest.mark.parametrize("back", [True, False], ids=["binary out", "JSON out"])
def test_several_outputs_come_back_each_way(triton: Any, sent: bool, back: bool) -> None:
    outputs = [
        http.InferRequestedOutput(name, binary_data=back) for name in ("probabilities", "label")
    ]
    answer = triton.infer("iris", given(sent), outputs=outputs, request_id="42")
    everything = triton.infer("iris", given(True))
    for name in ("label", "probabilities"):
        np.testing.assert_array_equal(answer.as_numpy(name), everything.as_numpy(name))
    assert answer.as_numpy("label").tolist() == [0, 2]
    assert answer.as_numpy("probabilities").dtype == np.float32
    assert answer.get_response()["id"] == "42"


def test_one_output_may_be_asked_for_alone(triton: Any) -> None:
    answer = triton.infer("iris", given(True), outputs=[http.InferRequestedOutput("label")])
    assert answer.as_numpy("probabilities") is None
    assert answer.as_numpy("label").tolist() == [0, 2]


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_a_compressed_request_is_read(triton: Any, algorithm: str) -> None:
    answer = triton.infer("iris", given(True), request_compression_algorithm=algorithm)
    assert answer.as_numpy("label").tolist() == [0, 2]


@pytest.mark.parametrize(
    ("model", "version", "words"),
    [("rose", "", "Request for unknown model"), ("iris", "9", "Request for unknown model")],
)
def test_an_unknown_model_is_the_error_that_its_examples_look_for(
    triton: Any, model: str, version: str, words: str
) -> None:
    with pytest.raises(utils.InferenceServerException, match=words):
        triton.infer(model, given(True), model_version=version)
    with pytest.raises(utils.InferenceServerException, match=words):
        triton.get_model_metadata(model, version)
