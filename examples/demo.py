"""`make demo`: the whole main job on six real models, checked against ONNX Runtime in process.

Serves every YAML of this folder by `moorage up`, sends the held-out rows through every protocol,
deploys another version and undeploys it, and reads the predictions back out of the record. Ends
with 1 when an answer, a stored row or a score is not what it has to be. On a terminal it stays up
until Ctrl-C.
"""

import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final

import httpx
import numpy as np
import onnxruntime as ort
import orjson
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

FOLDER: Final = Path(__file__).parent
DATA: Final = FOLDER.parent / ".moorage" / "demo"
PORT: Final = 8080
#: Answers may differ in the last digits: rows that share a run are summed in another order.
TOLERANCE: Final = 1e-4
NUMPY: Final = {"FP32": "<f4", "FP64": "<f8", "INT64": "<i8", "UINT8": "u1"}

console: Final = Console(highlight=False, width=None if sys.stdout.isatty() else 120)


class Wrong(Exception):
    """Something is not as it has to be."""


@dataclass(frozen=True)
class Model:
    """A model of this folder with its held-out rows.

    Parameters
    ----------
    name, endpoint
        Of the deployment.
    file
        ONNX file.
    """

    name: str
    endpoint: str
    file: Path

    @cached_property
    def document(self) -> dict[str, Any]:
        """Held-out rows, the truth and the score that the README tells."""
        loaded: dict[str, Any] = orjson.loads(self.file.with_name("rows.json").read_bytes())
        return loaded

    @cached_property
    def tensors(self) -> dict[str, NDArray[Any]]:
        """All rows, by input."""
        return {
            name: np.array(item["data"], NUMPY.get(item["datatype"], object)).reshape(item["shape"])
            for name, item in self.document["inputs"].items()
        }

    @cached_property
    def rows(self) -> list[Any]:
        """Each row as a person would write it."""
        count = len(next(iter(self.tensors.values())))
        if len(self.tensors) == 1:
            (array,) = self.tensors.values()
            return [row.item() if row.size == 1 else row.tolist() for row in array]
        columns = {name: array.reshape(count).tolist() for name, array in self.tensors.items()}
        return [{name: column[at] for name, column in columns.items()} for at in range(count)]

    @cached_property
    def expected(self) -> list[list[list[Any]]]:
        """What ONNX Runtime answers: by row, by output, its values in order."""
        session = ort.InferenceSession(self.file, providers=["CPUExecutionProvider"])
        outputs = session.run(None, self.tensors)
        # A ZipMap is a list of maps from class to float32.
        columns = [_scores(output) if isinstance(output, list) else output for output in outputs]
        return [
            [_leaves(column[at : at + 1]) for column in columns] for at in range(len(self.rows))
        ]


def models() -> list[Model]:
    """Return the models of this folder in the order of their names."""
    found = []
    for path in sorted(FOLDER.glob("*.yaml")):
        name = path.stem
        synthetic = name in ("binary-classifier", "quadratic-predictor")
        endpoint = name.replace("-", "_") if synthetic else name
        found.append(Model(name, endpoint, FOLDER / name / "model.onnx"))
    return found


def _scores(maps: list[dict[Any, float]]) -> NDArray[Any]:
    return np.array([list(item.values()) for item in maps], np.float32)


def _leaves(value: Any) -> list[Any]:
    """Return the values inside nested lists, arrays and maps, in their order."""
    if isinstance(value, Mapping):
        return [leaf for item in value.values() for leaf in _leaves(item)]
    if isinstance(value, np.ndarray) and value.dtype == np.float32:
        # By the digits that identify a float32, as JSON has it.
        return [float(str(leaf)) for leaf in value.ravel()]
    if isinstance(value, np.ndarray):
        return _leaves(value.tolist())
    if isinstance(value, list):
        return [leaf for item in value for leaf in _leaves(item)]
    return [value]


@dataclass
class Comparison:
    """How far answers are from what ONNX Runtime says.

    Parameters
    ----------
    rows
        How many were compared.
    largest
        Largest absolute difference of two numbers, relative where they are beyond 1.
    ids
        Of the predictions, where each row was one.
    """

    rows: int = 0
    largest: float = 0.0
    ids: list[str] = field(default_factory=list)

    def add(self, what: str, got: list[Any], wanted: list[Any]) -> None:
        """Compare the values of one row."""
        if len(got) != len(wanted):
            raise Wrong(f"{what} answered {got}, ONNX Runtime {wanted}")
        for mine, theirs in zip(got, wanted, strict=True):
            if isinstance(theirs, float) and isinstance(mine, int | float):
                difference = abs(mine - theirs) / max(1.0, abs(theirs))
                self.largest = max(self.largest, difference)
                if difference <= TOLERANCE:
                    continue
            if mine != theirs:
                raise Wrong(f"{what} answered {got}, ONNX Runtime {wanted}")
        self.rows += 1


# --- The protocols. Each sends all rows of a model and compares what comes back. ---


def predict(client: httpx.Client, model: Model) -> Comparison:
    """`POST /predict/ENDPOINT`, one request for each row."""
    compared = Comparison()
    for row, wanted in zip(model.rows, model.expected, strict=True):
        answer = _post(client, f"/predict/{model.endpoint}", {"input": row})
        compared.add(f"/predict/{model.endpoint}", _leaves(answer["prediction"]), _joined(wanted))
        compared.ids.append(answer["prediction_id"])
    return compared


def universal(client: httpx.Client, model: Model) -> Comparison:
    """`POST /predict` with a model name, all rows in one request."""
    body = {"model_name": model.name, "version": "1", "input": model.rows}
    return _compare("/predict", model, _post(client, "/predict", body)["prediction"])


def v1(client: httpx.Client, model: Model) -> Comparison:
    """KServe V1."""
    path = f"/v1/models/{model.name}:predict"
    return _compare(path, model, _post(client, path, {"instances": model.rows})["predictions"])


def v2_json(client: httpx.Client, model: Model, path: str = "") -> Comparison:
    """Open Inference Protocol v2 in JSON."""
    inputs = [
        {"name": name, "datatype": item["datatype"], "shape": item["shape"], "data": item["data"]}
        for name, item in model.document["inputs"].items()
    ]
    path = path or f"/v2/models/{model.name}/infer"
    answer = _post(client, path, {"inputs": inputs})
    columns = [np.array(item["data"], object).reshape(item["shape"]) for item in answer["outputs"]]
    rows = [[column[at] for column in columns] for at in range(len(model.rows))]
    return _compare(path, model, rows)


def v2_binary(client: httpx.Client, model: Model) -> Comparison:
    """Open Inference Protocol v2 with tensors as bytes, both ways."""
    inputs, blobs = [], []
    for name, item in model.document["inputs"].items():
        blobs.append(_to_bytes(model.tensors[name], item["datatype"]))
        inputs.append(
            {
                "name": name,
                "datatype": item["datatype"],
                "shape": item["shape"],
                "parameters": {"binary_data_size": len(blobs[-1])},
            }
        )
    head = orjson.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}})
    path = f"/v2/models/{model.name}/infer"
    answer = client.post(
        path,
        content=head + b"".join(blobs),
        headers={"inference-header-content-length": str(len(head))},
    )
    _require_ok(path, answer)
    at = int(answer.headers["inference-header-content-length"])
    columns = []
    for item in orjson.loads(answer.content[:at])["outputs"]:
        size = item["parameters"]["binary_data_size"]
        columns.append(_from_bytes(answer.content[at : at + size], item))
        at += size
    rows = [[column[row : row + 1] for column in columns] for row in range(len(model.rows))]
    return _compare(path, model, rows)


def seldon(client: httpx.Client, model: Model) -> Comparison:
    """Seldon v1: the scores of a classifier, else the only output."""
    return _seldon(client, model, {"data": {"ndarray": _seldon_rows(model)}})


def seldon_inverted(client: httpx.Client, model: Model) -> Comparison:
    """Seldon v1 with the nesting of a well-known article."""
    return _seldon(client, model, {"ndarray": {"data": _seldon_rows(model)}})


def _seldon_rows(model: Model) -> list[Any]:
    if len(model.tensors) > 1:
        return [list(row.values()) for row in model.rows]
    (array,) = model.tensors.values()
    rows: list[Any] = array.tolist()
    return rows


def _seldon(client: httpx.Client, model: Model, body: dict[str, Any]) -> Comparison:
    path = f"/seldon/default/{model.name}/api/v1.0/predictions"
    rows = _post(client, path, body)["data"]["ndarray"]
    compared = Comparison()
    for row, wanted in zip(rows, model.expected, strict=True):
        compared.add(path, _leaves(row), wanted[-1])
    return compared


PROTOCOLS: Final[dict[str, Callable[[httpx.Client, Model], Comparison]]] = {
    "predict": predict,
    "universal": universal,
    "V2 JSON": v2_json,
    "V2 binary": v2_binary,
    "V1": v1,
    "Seldon": seldon,
    "inverted": seldon_inverted,
}


def _to_bytes(array: NDArray[Any], datatype: str) -> bytes:
    if datatype != "BYTES":
        return array.tobytes()
    texts = [str(text).encode() for text in array.ravel()]
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def _from_bytes(raw: bytes, item: Mapping[str, Any]) -> NDArray[Any]:
    if item["datatype"] != "BYTES":
        return np.frombuffer(raw, NUMPY[item["datatype"]]).reshape(item["shape"])
    texts = []
    while raw:
        (size,) = struct.unpack_from("<I", raw)
        texts.append(raw[4 : 4 + size].decode())
        raw = raw[4 + size :]
    return np.array(texts, object).reshape(item["shape"])


def _compare(what: str, model: Model, rows: list[Any]) -> Comparison:
    compared = Comparison()
    for row, wanted in zip(rows, model.expected, strict=True):
        compared.add(what, _leaves(row), _joined(wanted))
    return compared


def _joined(outputs: list[list[Any]]) -> list[Any]:
    return [value for output in outputs for value in output]


def _post(client: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = client.post(path, json=body)
    _require_ok(path, answer)
    document: dict[str, Any] = answer.json()
    return document


def _require_ok(what: str, answer: httpx.Response) -> None:
    if not answer.is_success:
        raise Wrong(f"{what} answered {answer.status_code}: {answer.text[:300]}")


# --- The four acts. ---


@dataclass
class Sent:
    """What each deployment has been sent.

    Parameters
    ----------
    rows
        How many, by deployment.
    ids
        Of the predictions of single rows, in the order of the rows, by deployment.
    """

    rows: dict[str, int] = field(default_factory=dict)
    ids: dict[str, list[str]] = field(default_factory=dict)

    def add(self, name: str, compared: Comparison) -> None:
        """Take in what was answered."""
        self.rows[name] = self.rows.get(name, 0) + compared.rows
        self.ids.setdefault(name, []).extend(compared.ids)


def ask(client: httpx.Client, served: list[Model], sent: Sent) -> None:
    """Send every held-out row of every model through every protocol."""
    table = Table(title="Largest difference from ONNX Runtime in process, by protocol")
    for column in ("model", "rows", *PROTOCOLS):
        table.add_column(column, justify="left" if column == "model" else "right")
    for model in served:
        cells = [model.name, str(len(model.rows))]
        for protocol in PROTOCOLS.values():
            compared = protocol(client, model)
            sent.add(model.name, compared)
            cells.append(f"{compared.largest:.0e}" if compared.largest else "equal")
        table.add_row(*cells)
    console.print(table)


def change(client: httpx.Client, sent: Sent) -> None:
    """Deploy a second version of iris beside the first, ask it, and undeploy it."""
    second = Model("iris", "iris-2", FOLDER / "iris" / "model-2.onnx")
    answer = client.post(
        "/models", params={"name": "iris", "version": "2"}, content=second.file.read_bytes()
    )
    _require_ok("/models", answer)
    body = {"model_name": "iris", "version": "2", "endpoint_name": "iris-2"}
    _post(client, "/deployments/deploy", body)
    if "/predict/iris-2" not in client.get("/openapi.json").json()["paths"]:
        raise Wrong("/openapi.json does not list the endpoint that was deployed")
    sent.add("iris-2", predict(client, second))
    sent.add("iris-2", v2_json(client, second, "/v2/models/iris/versions/2/infer"))
    latest = _post(client, "/predict", {"model_name": "iris", "input": second.rows[0]})
    if latest["version"] != "2":
        raise Wrong(f"the latest version of iris is 2, version {latest['version']} answered")
    sent.add("iris-2", Comparison(rows=1))
    table = Table(title="GET /deployments, with version 2 of iris beside version 1")
    shown = ("endpoint", "model_name", "version", "status", "request_count", "avg_latency_ms")
    for column in shown:
        table.add_column(column)
    for item in client.get("/deployments").json()["deployments"]:
        table.add_row(*(str(item[column]) for column in shown))
    console.print(table)
    _post(client, "/deployments/undeploy", {"endpoint_name": "iris-2"})
    status = client.post("/predict/iris-2", json={"input": second.rows[0]}).status_code
    if status != 404 or "/predict/iris-2" in client.get("/openapi.json").json()["paths"]:
        raise Wrong("the endpoint that was undeployed is still there")
    console.print("Version 2 is undeployed: its endpoint answers 404 and left /openapi.json.\n")


def recall(client: httpx.Client, served: list[Model], sent: Sent) -> None:
    """Read the predictions back, and score them against the truth."""
    table = Table(title="The record: GET /predictions")
    for column in ("deployment", "rows sent", "rows stored", "score of the stored", "in README"):
        table.add_column(column)
    for model in served:
        rows = _stored(client, model.name, sent.rows[model.name])
        label = model.document["truth_output"]
        found = {
            row["prediction_id"]: row["outputs"][label] for row in rows if label in row["outputs"]
        }
        answers = [found[prediction_id] for prediction_id in sent.ids[model.name]]
        score = _score(model, answers)
        if abs(score - model.document["score"]) > 1e-4:
            raise Wrong(f"{model.name}: the stored rows score {score:.4f}")
        what = "accuracy" if model.document["metric"] == "accuracy" else "R²"
        told = f"{model.document['score']:.3f}"
        count = str(sent.rows[model.name])
        table.add_row(model.name, count, str(len(rows)), f"{what} {score:.3f}", told)
    gone = _stored(client, "iris-2", sent.rows["iris-2"])
    table.add_row("iris-2 (undeployed)", str(sent.rows["iris-2"]), str(len(gone)), "", "")
    console.print(table)
    newest = client.get("/predictions", params={"deployment": "iris", "limit": 1}).json()
    console.print("The newest of iris:", orjson.dumps(newest["predictions"][0]).decode(), "\n")


def _stored(client: httpx.Client, deployment: str, count: int) -> list[dict[str, Any]]:
    """Return all stored rows, newest first; they follow the answer by some milliseconds."""
    deadline = monotonic() + 10
    while True:
        rows = list(_pages(client, deployment))
        if len(rows) == count:
            return rows
        if len(rows) > count or monotonic() > deadline:
            raise Wrong(f"{deployment}: {count} rows were sent, {len(rows)} are stored")
        sleep(0.05)


def _pages(client: httpx.Client, deployment: str) -> Iterator[dict[str, Any]]:
    cursor = ""
    while True:
        asked: dict[str, str | int] = {"deployment": deployment, "limit": 1000, "after": cursor}
        answer = client.get("/predictions", params=asked)
        _require_ok("/predictions", answer)
        page = answer.json()
        yield from page["predictions"]
        cursor = page["next"] or ""
        if not cursor:
            return


def _score(model: Model, answers: list[Any]) -> float:
    truth = model.document["truth"]
    if model.document["metric"] == "accuracy":
        return sum(map(_equal, answers, truth)) / len(truth)
    got, wanted = np.array(answers, float), np.array(truth, float)
    return float(1 - ((wanted - got) ** 2).sum() / ((wanted - wanted.mean()) ** 2).sum())


def _equal(one: Any, other: Any) -> bool:
    return bool(one == other)


@contextmanager
def moorage_up(port: int) -> Iterator[str]:
    """Run `moorage up` on this folder; yields the gateway's URL."""
    shutil.rmtree(DATA, ignore_errors=True)
    command = [sys.executable, "-m", "moorage_cli", "up", str(FOLDER), "--data", str(DATA)]
    process = subprocess.Popen(
        [*command, "--port", str(port)],
        stdout=subprocess.PIPE,
        text=True,
        # Ctrl-C ends this program, which then ends that one.
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if line.startswith("ready "):
                yield line.split()[1]
                return
        raise Wrong(f"`moorage up` ended with {process.wait()}")
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()
        process.stdout.close()


def main() -> None:
    """Run the demo."""
    started = monotonic()
    served = models()
    try:
        with moorage_up(_port()) as url, httpx.Client(base_url=url, timeout=60) as client:
            sent = Sent()
            ask(client, served, sent)
            change(client, sent)
            recall(client, served, sent)
            total = sum(sent.rows.values())
            console.print(
                f"[bold]{total} rows were predicted, checked and stored in "
                f"{monotonic() - started:.0f} s.[/bold]"
            )
            console.print(f"Every endpoint, typed: {url}/docs   the record: {url}/predictions")
            if sys.stdout.isatty():
                console.print("Serving until Ctrl-C.")
                signal.pause()
    except Wrong as wrong:
        raise SystemExit(f"WRONG: {wrong}") from None
    except KeyboardInterrupt:
        console.print("Stopped.")


def _port() -> int:
    """Return the usual port where somebody will look and nobody has it, else a free one."""
    if "MOORAGE_PORT" in os.environ:
        return int(os.environ["MOORAGE_PORT"])
    with socket.socket() as probe:
        is_free = probe.connect_ex(("127.0.0.1", PORT)) != 0
    return PORT if sys.stdout.isatty() and is_free else 0


if __name__ == "__main__":
    main()
