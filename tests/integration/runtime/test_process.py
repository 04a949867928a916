"""The command itself: a real process, real sockets, unmodified clients."""

import hashlib
import re
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import ml_dtypes
import numpy as np
import pytest
from tests.support import models

from moorage_api import v2
from moorage_api.datatypes import DATATYPES
from moorage_api.tensors import Tensor

TIMEOUT_S = 60
#: How often something is looked at that another process does in its own time.
TRIES = 100_000
COMMAND = [sys.executable, "-m", "moorage_runtime", "--http-port", "0", "--intra-op-threads", "1"]
ASK = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2.5]}]}


class Runtime:
    """A running `moorage-runtime`."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process
        self.url = self.line("listening ")

    def line(self, prefix: str) -> str:
        """Wait for the next line of standard output, and return it without its prefix."""
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], TIMEOUT_S)
        assert ready, f"no line {prefix!r} came"
        line = self.process.stdout.readline().decode()
        assert line.startswith(prefix), (line, self.process.poll())
        return line[len(prefix) :].rstrip("\n")

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.url.removeprefix("http://").split(":")
        return host, int(port)

    def end(self) -> tuple[int, str]:
        """Wait for the end; the exit status and what standard error held."""
        _, errors = self.process.communicate(timeout=TIMEOUT_S)
        return self.process.returncode, errors.decode()


@contextmanager
def running(model: Path | str, *arguments: str) -> Iterator[Runtime]:
    process = subprocess.Popen(
        [*COMMAND, "--model", str(model), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    )
    try:
        yield Runtime(process)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=TIMEOUT_S)


@contextmanager
def ready(model: Path | str, *arguments: str) -> Iterator[Runtime]:
    with running(model, *arguments) as runtime:
        runtime.line("ready ")
        yield runtime


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models")
    (made / "double.onnx").write_bytes(models.double())
    # ONNX Runtime cannot be given texts and BF16 at once.
    for left_out in ("BYTES", "BF16"):
        names = [name for name in DATATYPES if name != left_out]
        (made / f"no-{left_out}.onnx").write_bytes(models.identities(names))
    (made / "newer.onnx").write_bytes(models.identity(opset=99))
    (made / "truncated.onnx").write_bytes(models.double()[:-9])
    (made / "page.onnx").write_bytes(b"<html>not found</html>")
    (made / "product.onnx").write_bytes(models.product())
    (made / "thirds.onnx").write_bytes(models.reshape([2, 3], [1, "n"]))
    (made / "never.onnx").write_bytes(models.reshape([3, 3], [2, "n"]))
    return made


@pytest.fixture(scope="module")
def double(folder: Path) -> Iterator[Runtime]:
    with ready(folder / "double.onnx", "--name", "double", "--version", "7") as runtime:
        yield runtime


@pytest.fixture(scope="module", params=["BYTES", "BF16"], ids=["no BYTES", "no BF16"])
def everything(folder: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Runtime, list[str]]]:
    """A runtime that gives back what it got, and the datatypes that it takes."""
    with ready(folder / f"no-{request.param}.onnx", "--name", "all") as runtime:
        yield runtime, [name for name in DATATYPES if name != request.param]


@pytest.fixture
def client(double: Runtime) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=double.url, timeout=TIMEOUT_S) as made:
        yield made


VALUES: dict[str, Any] = {
    "BOOL": [[True, False]],
    "UINT64": [[2**64 - 1, 0]],
    "INT64": [[2**63 - 1, -(2**53) - 1]],
    "INT8": [[-128, 127]],
    "FP16": [[65504, -0.5]],
    "FP32": [[3.4028235e38, 1e-45]],
    "FP64": [[0.1, 5e-324]],
    "BF16": [[0x3F81, 0xC000]],
    "BYTES": [["é", ""]],
}


def array_of(datatype: str) -> Any:
    return np.array(VALUES.get(datatype, [[1, 100]]), DATATYPES[datatype].numpy)


def test_it_announces_where_it_listens_and_that_it_is_ready(folder: Path) -> None:
    with running(folder / "double.onnx", "--name", "iris", "--version", "2") as runtime:
        assert re.fullmatch(r"http://127\.0\.0\.1:[1-9]\d*", runtime.url)
        assert runtime.line("ready ") == "iris 2"
        assert httpx.get(f"{runtime.url}/v2/health/ready").json() == {"ready": True, "live": True}


def test_the_protocols_routes_answer(client: httpx.Client) -> None:
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2").json()["extensions"] == ["binary_tensor_data"]
    assert client.get("/v2/models/double/ready").json() == {"name": "double", "ready": True}
    metadata = client.get("/v2/models/double/versions/7").json()
    assert metadata["versions"] == ["7"]
    assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]
    assert client.get("/v2/models/other").status_code == 404
    assert "moorage_model_runs_total" in client.get("/metrics").text


def test_json_in_gives_json_out(client: httpx.Client) -> None:
    answer = client.post("/v2/models/double/infer", json=ASK | {"id": "é"})
    assert answer.json() == {
        "model_name": "double",
        "model_version": "7",
        "id": "é",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [2.0, 5.0]}],
    }


def test_a_model_whose_inputs_differ_in_rows_is_served(folder: Path) -> None:
    with ready(folder / "product.onnx", "--name", "p") as runtime:
        metadata = httpx.get(f"{runtime.url}/v2/models/p").json()
        assert [item["shape"] for item in metadata["inputs"]] == [[-1, 3], [3, -1]]
        inputs = [
            {"name": "a", "shape": [2, 3], "datatype": "FP32", "data": [1, 0, 0, 0, 1, 1]},
            {"name": "b", "shape": [3, 1], "datatype": "FP32", "data": [1, 2, 3]},
        ]
        found = httpx.post(f"{runtime.url}/v2/models/p/infer", json={"inputs": inputs})
        (y,) = found.json()["outputs"]
        assert (y["shape"], y["data"]) == ([2, 1], [1.0, 5.0])


def test_a_search_for_a_probe_leaves_no_trace_in_the_log(folder: Path) -> None:
    with ready(folder / "thirds.onnx") as runtime:
        runtime.process.terminate()
        status, errors = runtime.end()
    assert status == 0
    assert "Reshape" not in errors


def test_an_error_leaves_the_connection_good(client: httpx.Client) -> None:
    for _ in range(3):
        assert client.post("/v2/models/double/infer", content=b"{").status_code == 400
        assert client.post("/v2/models/double/infer", json=ASK).status_code == 200


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
def test_every_datatype_comes_back_bit_by_bit(
    everything: tuple[Runtime, list[str]], binary: bool
) -> None:
    runtime, names = everything
    sent = [Tensor(f"x_{name}", name, array_of(name)) for name in names]
    if binary:
        body = v2.render_request(sent)
        headers = {"Inference-Header-Content-Length": str(body.json_length)}
    else:
        # The twin of a response is a request, but for the name of its list.
        answer = v2.render_response("", "", sent, v2.InferRequest([]))
        body = v2.Body([answer.join().replace(b'"outputs"', b'"inputs"')])
        headers = {}
    url = f"{runtime.url}/v2/models/all/infer"
    found = httpx.post(url, content=body.join(), headers=headers, timeout=TIMEOUT_S)
    length = found.headers.get("Inference-Header-Content-Length")
    assert (length is not None) == binary
    tensors = v2.parse_response(found.content, int(length) if length else None)
    assert [tensor.datatype for tensor in tensors] == names
    for before, after in zip(sent, tensors, strict=True):
        assert after.name == before.name.replace("x_", "y_")
        assert before.array.dtype == after.array.dtype
        assert before.array.tolist() == after.array.tolist()


# An unmodified Triton client


@pytest.fixture(scope="module")
def triton() -> Any:
    return pytest.importorskip("tritonclient.http")


@contextmanager
def triton_client(triton: Any, runtime: Runtime) -> Iterator[Any]:
    made = triton.InferenceServerClient("{}:{}".format(*runtime.address))
    try:
        yield made
    finally:
        made.close()


def test_tritons_client_finds_server_and_model(triton: Any, double: Runtime) -> None:
    with triton_client(triton, double) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("double")
        assert client.is_model_ready("double", "7")
        assert not client.is_model_ready("other")
        assert client.get_server_metadata()["name"] == "moorage-runtime"
        assert client.get_model_metadata("double")["inputs"][0]["name"] == "x"
        assert client.get_model_repository_index()[0]["state"] == "READY"


def as_triton_takes_it(datatype: str) -> Any:
    """Make tritonclient's own array: it has a dtype for BF16."""
    array = array_of(datatype)
    return array.view(ml_dtypes.bfloat16) if datatype == "BF16" else array


@pytest.mark.parametrize("out_binary", [True, False], ids=["binary out", "json out"])
@pytest.mark.parametrize("in_binary", [True, False], ids=["binary in", "json in"])
def test_tritons_client_infers_with_every_datatype(
    triton: Any, everything: tuple[Runtime, list[str]], in_binary: bool, out_binary: bool
) -> None:
    runtime, names = everything
    # tritonclient itself refuses these two in JSON.
    only_binary = {"FP16", "BF16"}
    inputs, outputs = [], []
    for name in names:
        asked = triton.InferInput(f"x_{name}", [1, 2], name)
        asked.set_data_from_numpy(as_triton_takes_it(name), in_binary or name in only_binary)
        inputs.append(asked)
        outputs.append(triton.InferRequestedOutput(f"y_{name}", out_binary or name in only_binary))
    with triton_client(triton, runtime) as client:
        result = client.infer("all", inputs, outputs=outputs, request_id="7")
    assert result.get_response()["id"] == "7"
    for name in names:
        found = result.as_numpy(f"y_{name}")
        expected = as_triton_takes_it(name)
        if name == "BYTES":
            texts = [x.decode() if isinstance(x, bytes) else x for x in found.reshape(-1)]
            assert texts == expected.reshape(-1).tolist()
        else:
            assert found.tolist() == expected.tolist(), name


@pytest.mark.parametrize("algorithm", [None, "gzip", "deflate"])
def test_tritons_client_asks_for_all_outputs_and_compresses(
    triton: Any, double: Runtime, algorithm: str | None
) -> None:
    asked = triton.InferInput("x", [1000, 2], "FP32")
    x = np.arange(2000, dtype=np.float32).reshape(1000, 2)
    asked.set_data_from_numpy(x)
    with triton_client(triton, double) as client:
        result = client.infer("double", [asked], request_compression_algorithm=algorithm)
    assert np.array_equal(result.as_numpy("y"), x * 2)


def test_tritons_client_understands_an_error(triton: Any, double: Runtime) -> None:
    asked = triton.InferInput("x", [1, 3], "FP32")
    asked.set_data_from_numpy(np.zeros((1, 3), np.float32))
    with (
        triton_client(triton, double) as client,
        pytest.raises(triton.InferenceServerException, match=r"input 'x': expected shape"),
    ):
        client.infer("double", [asked])
    with (
        triton_client(triton, double) as client,
        pytest.raises(triton.InferenceServerException, match="Request for unknown model: 'other'"),
    ):
        client.infer("other", [asked])


# Ends


@pytest.mark.parametrize(
    ("file", "arguments", "line"),
    [
        ("newer.onnx", [], r"UnsupportedOpset: model needs opset 99, this runtime has \d+"),
        ("truncated.onnx", [], r"BadModel: not an ONNX model: .*truncated\?"),
        ("page.onnx", [], r"BadModel: not an ONNX model: .*"),
        ("never.onnx", [], r"BadModel: .* fails on every probe: tried x \[2, 1\]; x \[2, 8\]; .*"),
        ("none.onnx", [], r"DownloadFailed: .*/none\.onnx: no such file or folder"),
        (
            "double.onnx",
            ["--sha256", "0" * 64],
            f"ChecksumMismatch: sha256 of the model is [0-9a-f]+, expected {'0' * 64}",
        ),
    ],
    ids=["opset", "truncated", "page", "no probe", "missing", "checksum"],
)
def test_a_model_that_cannot_be_served_is_one_line_and_status_3(
    folder: Path, file: str, arguments: list[str], line: str
) -> None:
    with running(folder / file, *arguments) as runtime:
        status, errors = runtime.end()
    assert re.fullmatch(line + "\n", errors), errors
    assert status == 3


def test_the_right_checksum_is_served(folder: Path) -> None:
    digest = hashlib.sha256((folder / "double.onnx").read_bytes()).hexdigest()
    with ready(folder / "double.onnx", "--sha256", digest) as runtime:
        properties = httpx.get(f"{runtime.url}/v2/models/model").json()["properties"]
    assert properties["sha256"] == digest


def test_a_port_in_use_is_one_line_and_status_1(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = subprocess.run(
            [*COMMAND[:3], "--model", str(folder / "double.onnx"), "--http-port", str(port)],
            capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
    assert found.returncode == 1
    assert found.stdout == ""
    assert found.stderr == f"cannot listen on 127.0.0.1:{port}: Address already in use\n"


def test_wrong_use_is_one_line_and_status_2() -> None:
    found = subprocess.run(COMMAND, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert (found.returncode, found.stderr) == (2, "--model is required; see --help\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda item: item.name)
def test_a_signal_lets_the_request_under_way_be_answered_first(
    folder: Path, number: signal.Signals
) -> None:
    body = httpx.Request("POST", "http://h", json=ASK).content
    with (
        ready(folder / "double.onnx") as runtime,
        socket.create_connection(runtime.address, timeout=TIMEOUT_S) as connection,
        connection.makefile("rb") as answer,
    ):
        connection.sendall(
            b"POST /v2/models/model/infer HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body)
        )
        # The runtime asks for the body: the request is under way.
        assert answer.readline() == b"HTTP/1.1 100 Continue\r\n"
        assert answer.readline() == b"\r\n"
        runtime.process.send_signal(number)
        wait_until_refused(runtime)
        assert runtime.process.poll() is None
        connection.sendall(body)
        assert answer.readline() == b"HTTP/1.1 200 OK\r\n"
        assert b'"data":[2.0,5.0]' in answer.read()
        status, errors = runtime.end()
    assert (status, errors) == (0, "")


def wait_until_refused(runtime: Runtime) -> None:
    for _ in range(TRIES):
        try:
            socket.create_connection(runtime.address, timeout=TIMEOUT_S).close()
        except OSError:
            return
    raise AssertionError("it still takes connections")


def test_an_idle_runtime_ends_at_once_though_connections_are_open(folder: Path) -> None:
    with ready(folder / "double.onnx") as runtime, httpx.Client(base_url=runtime.url) as client:
        assert client.get("/v2/health/live").status_code == 200
        runtime.process.send_signal(signal.SIGTERM)
        assert runtime.end() == (0, "")


class Slow(BaseHTTPRequestHandler):
    """Sends the model when it is told to, and not before."""

    model = models.double()
    go: threading.Event

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.model)))
        self.end_headers()
        self.wfile.write(self.model[:10])
        self.wfile.flush()
        if self.go.wait(TIMEOUT_S):
            self.wfile.write(self.model[10:])

    def log_message(self, *args: Any) -> None:
        """Keep quiet."""


@pytest.fixture
def slow() -> Iterator[ThreadingHTTPServer]:
    Slow.go = threading.Event()
    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield server
        Slow.go.set()
        server.shutdown()
        thread.join()


def test_probes_are_answered_while_the_model_is_fetched(slow: ThreadingHTTPServer) -> None:
    with (
        running(f"http://127.0.0.1:{slow.server_port}/m") as runtime,
        httpx.Client(base_url=runtime.url, timeout=TIMEOUT_S) as client,
    ):
        assert client.get("/v2/health/live").status_code == 200
        state = client.get("/v2/health/ready")
        assert (state.status_code, state.json()["ready"]) == (503, False)
        answer = client.post("/v2/models/model/infer", json=ASK)
        assert answer.status_code == 503
        assert answer.json()["error"].startswith("model 'model' is not ready: ")
        Slow.go.set()
        assert runtime.line("ready ") == "model 1"
        assert client.post("/v2/models/model/infer", json=ASK).status_code == 200


def test_a_signal_ends_a_runtime_that_still_fetches(slow: ThreadingHTTPServer) -> None:
    with running(f"http://127.0.0.1:{slow.server_port}/m") as runtime:
        with httpx.Client(base_url=runtime.url, timeout=TIMEOUT_S) as client:
            states = (client.get("/v2/health/ready").text for _ in range(TRIES))
            assert any("fetching" in state for state in states)
        runtime.process.send_signal(signal.SIGTERM)
        # The download hangs until this test is over, so the end cannot wait for it.
        assert runtime.end() == (0, "")


def test_a_client_that_breaks_off_is_no_trouble_and_not_worth_a_log(folder: Path) -> None:
    with ready(folder / "double.onnx") as runtime:
        with socket.create_connection(runtime.address, timeout=TIMEOUT_S) as connection:
            connection.sendall(
                b"POST /v2/models/model/infer HTTP/1.1\r\nHost: h\r\nContent-Length: 99\r\n\r\n{"
            )
        assert httpx.post(f"{runtime.url}/v2/models/model/infer", json=ASK).status_code == 200
        runtime.process.send_signal(signal.SIGTERM)
        assert runtime.end() == (0, "")
