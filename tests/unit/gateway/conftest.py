"""A gateway on a desk: real parts over a folder and a SQLite file, in front of scripted runtimes.

A runtime here is a socket that a test writes the answers of. It speaks HTTP by itself, so that it
can also do what no good server does: break off, answer garbage, hang up between requests.
"""

import asyncio
import contextlib
import shutil
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from moorage_api import folder, keys, manifests, v1alpha1, v2
from moorage_api.folder import Observed
from moorage_api.names import Qualified
from moorage_api.reasons import Condition, Phase, Reason
from moorage_api.signature import Signature, TensorSpec
from moorage_api.tensors import Tensor
from moorage_gateway import app, store
from moorage_gateway.backends import HttpBackends
from moorage_gateway.deployer import Deployer
from moorage_gateway.folder_store import FolderStore
from moorage_gateway.http.services import Services
from moorage_gateway.inference import Inference
from moorage_gateway.live import LiveTable
from moorage_gateway.log_buffer import BufferedLog
from moorage_gateway.prediction_log import PredictionStore, Query, StoredRow
from moorage_gateway.registry import Registry
from moorage_gateway.routing import Route
from moorage_gateway.usage import Usage

EXAMPLES = Path(__file__).parents[3] / "examples"
#: When everything in these tests happens.
NOW = datetime(2026, 7, 1, 12, 0, 0, tzinfo=UTC)
#: Nothing takes this long; a test that waits for what never comes fails after it.
DEADLINE_S = 20.0

Compute = Callable[[list[Tensor]], list[Tensor]]


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def now() -> datetime:
    return NOW


@pytest.fixture(scope="session")
def deadline_s() -> float:
    return DEADLINE_S


@pytest.fixture(scope="session")
def iris_onnx() -> bytes:
    """A classifier."""
    return (EXAMPLES / "iris/model.onnx").read_bytes()


@pytest.fixture(scope="session")
def forest_onnx() -> bytes:
    """Another model of the same name: its bytes and its sha256 differ."""
    return (EXAMPLES / "iris/model-2.onnx").read_bytes()


def _signature(inputs: Sequence[tuple[Any, ...]], outputs: Sequence[tuple[Any, ...]]) -> Signature:
    return Signature(tuple(TensorSpec(*i) for i in inputs), tuple(TensorSpec(*o) for o in outputs))


@pytest.fixture(scope="session")
def signatures() -> dict[str, Signature]:
    """Models of every build that the dialects treat differently."""
    return {
        "scalar": _signature([("x", "FP32", (-1, 1))], [("y", "FP32", (-1, 1))]),
        "vector": _signature([("x", "FP32", (-1,))], [("y", "FP32", (-1,))]),
        "row": _signature([("x", "FP32", (-1, 3))], [("y", "FP32", (-1, 2))]),
        "classifier": _signature(
            [("x", "FP32", (-1, 3))],
            [("label", "INT64", (-1,)), ("scores", "FP32", (-1, 2), ("no", "yes"))],
        ),
        "unnamed classifier": _signature(
            [("x", "FP32", (-1, 3))],
            [("label", "INT64", (-1,)), ("probabilities", "FP32", (-1, 2))],
        ),
        "columns": _signature(
            [("age", "INT64", (-1, 1)), ("country", "BYTES", (-1, 1)), ("amount", "FP64", (-1,))],
            [("y", "FP64", (-1, 1))],
        ),
        "two tensors": _signature(
            [("a", "FP32", (-1, 2)), ("b", "INT64", (-1, 1))],
            [("p", "FP32", (-1, 2)), ("q", "INT64", (-1, 1)), ("r", "BYTES", (-1,))],
        ),
        "texts": _signature([("t", "BYTES", (-1, 1))], [("u", "BYTES", (-1, 1))]),
        "flags": _signature([("x", "BOOL", (-1, 2))], [("y", "UINT8", (-1, 2))]),
        "image": _signature([("x", "UINT8", (-1, 2, 2, 3))], [("y", "FP32", (-1, 4))]),
        "open": _signature([("x", "FP32", (-1, -1))], [("y", "FP32", (-1, -1))]),
        "whole": _signature([("x", "FP32", (2, 3))], [("y", "FP32", (3,))]),
        "wholes": _signature(
            [("x", "FP32", (2,)), ("n", "INT64", ())], [("y", "FP32", (2,)), ("m", "INT64", ())]
        ),
    }


@pytest.fixture(scope="session")
def make_route() -> Callable[..., Route]:
    """Make a ready route of the named parts."""

    def make(name: str, namespace: str = "default", **parts: Any) -> Route:
        defaults: dict[str, Any] = {
            "endpoint": name,
            "model": name,
            "version": "1",
            "signature": _signature([("x", "FP32", (-1, 3))], [("y", "FP32", (-1, 2))]),
            "addresses": ("http://127.0.0.1:1",),
        }
        return Route(key=Qualified(namespace, name), **(defaults | parts))

    return make


@dataclass
class Exchange:
    """One request as it came in over the wire."""

    path: str
    headers: dict[str, str]
    body: bytes
    connection: int

    def parse(self) -> v2.InferRequest:
        length = self.headers.get("inference-header-content-length")
        return v2.parse_request(self.body, int(length) if length else None)


#: What a runtime does with a request: returns the bytes of the answer (None hangs up).
Reaction = Callable[[Exchange, asyncio.StreamWriter], Awaitable[bytes | None]]


class WireRuntime:
    """A runtime's socket. `react` does what a test wants; `calls` are the requests so far."""

    def __init__(self, react: Reaction) -> None:
        self.react = react
        self.calls: list[Exchange] = []
        self.connections = 0
        self.open = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()[:2]
        self.address = f"http://{host}:{port}"

    def hang_up(self) -> None:
        """Close every connection."""
        for writer in [*self._writers]:
            writer.close()

    async def stop(self) -> None:
        self._server.close()
        for writer in [*self._writers]:
            writer.transport.abort()
        for task in [*self._tasks]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._writers.add(writer)
        self.connections += 1
        self.open += 1
        number = self.connections
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                first, *lines = head.strip().split("\r\n")
                headers = dict(line.lower().split(": ", 1) for line in lines)
                body = await reader.readexactly(int(headers["content-length"]))
                exchange = Exchange(first.split(" ")[1], headers, body, number)
                self.calls.append(exchange)
                answer = await self.react(exchange, writer)
                if answer is None:
                    return
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            # `stop` cancels; asyncio's streams would log a task that ends so.
            return
        finally:
            self.open -= 1
            self._writers.discard(writer)
            writer.close()


def http_answer(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    """Spell an answer out."""
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def v2_answer(request: v2.InferRequest, outputs: list[Tensor]) -> bytes:
    """Spell the answer to a V2 request out."""
    if request.outputs is not None:
        wanted = [output.name for output in request.outputs]
        outputs = [tensor for name in wanted for tensor in outputs if tensor.name == name]
    body = v2.render_response("m", "1", outputs, request)
    length = (
        [] if body.json_length is None else [f"inference-header-content-length: {body.json_length}"]
    )
    return http_answer(body.join(), "200 OK", *length)


def _computing(compute: Compute) -> Reaction:
    async def react(exchange: Exchange, _: asyncio.StreamWriter) -> bytes:
        request = exchange.parse()
        return v2_answer(request, compute(request.tensors))

    return react


@dataclass(frozen=True)
class Wire:
    """How tests spell answers."""

    http: Callable[..., bytes] = http_answer
    v2: Callable[..., bytes] = v2_answer
    computing: Callable[[Compute], Reaction] = _computing


@pytest.fixture(scope="session")
def wire() -> Wire:
    return Wire()


@pytest.fixture
async def start_runtime() -> AsyncIterator[Callable[..., Awaitable[WireRuntime]]]:
    """Start a runtime on a socket of its own; give it a reaction, or what to compute."""
    started: list[WireRuntime] = []

    async def start(
        react: Reaction | None = None, *, compute: Compute | None = None
    ) -> WireRuntime:
        if react is None:
            react = _computing(compute or (lambda tensors: tensors))
        runtime = WireRuntime(react)
        await runtime.start()
        started.append(runtime)
        return runtime

    yield start
    for runtime in started:
        await runtime.stop()


def resource(name: str, namespace: str = "default", **spec: Any) -> v1alpha1.ModelDeployment:
    """Make a ModelDeployment; a model of no consequence unless `spec` says which."""
    return v1alpha1.load(
        {
            "apiVersion": keys.API_VERSION,
            "kind": keys.KIND,
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"model": {"uri": "file:/models/some.onnx"}} | spec,
        }
    )


def observation(
    asked: v1alpha1.ModelDeployment,
    signature: Signature | None = None,
    addresses: Sequence[str] = (),
    *,
    reason: str = "",
    message: str = "",
    digest: str = "",
) -> Observed:
    """Say of a resource that it is ready, or with `reason` why it is not."""
    ready = not reason
    model: dict[str, Any] = {
        "version": asked.model_version,
        "sha256": asked.spec.model.sha256 or "0" * 64,
    }
    if signature is not None:
        model |= signature.to_dict()
    status = {
        "phase": Phase.READY if ready else Phase.PENDING,
        "model": model,
        "conditions": [
            {
                "type": Condition.READY,
                "status": "True" if ready else "False",
                "reason": reason or Reason.SERVING,
                "message": message,
                "lastTransitionTime": NOW.isoformat(),
            }
        ],
    }
    return Observed(
        digest or folder.digest(asked),
        tuple(addresses),
        v1alpha1.ModelDeploymentStatus.model_validate(status),
    )


@dataclass(frozen=True)
class Making:
    """Resources and what is said of them."""

    resource: Callable[..., v1alpha1.ModelDeployment] = resource
    observation: Callable[..., Observed] = observation

    def write(self, path: Path, asked: v1alpha1.ModelDeployment) -> None:
        (path / folder.file_name(asked.key)).write_text(manifests.render(asked), encoding="utf-8")

    def tell(self, path: Path, key: Qualified, observed: Observed) -> None:
        (path / folder.status_name(key)).write_bytes(folder.render_status(observed))


@pytest.fixture(scope="session")
def making() -> Making:
    return Making()


@dataclass
class Gateway:
    """The parts that `__main__` wires, and a client of the application that they make."""

    folder: Path
    resources: FolderStore
    backends: HttpBackends
    usage: Usage
    live: LiveTable
    registry: Registry
    log: BufferedLog
    store: PredictionStore
    deployer: Deployer
    app: app.GatewayApp
    client: httpx.AsyncClient
    start_runtime: Callable[..., Awaitable[WireRuntime]]
    runtimes: dict[str, WireRuntime] = field(default_factory=dict)
    logs: bool = False

    def start_log(self) -> None:
        """Begin to store; tests that look at no record are quicker without."""
        if not self.logs:
            self.logs = True
            self.log.start()

    async def serve(
        self,
        name: str,
        signature: Signature,
        compute: Compute | None = None,
        *,
        react: Reaction | None = None,
        namespace: str = "default",
        **spec: Any,
    ) -> WireRuntime:
        """Deploy a model that a scripted runtime computes."""
        asked = resource(name, namespace, **spec)
        runtime = await self.start_runtime(react, compute=compute)
        self.runtimes[name] = runtime
        Making().tell(self.folder, asked.key, observation(asked, signature, [runtime.address]))
        Making().write(self.folder, asked)
        self.resources.look()
        return runtime

    async def stored(self, count: int = 1) -> list[StoredRow]:
        """Wait until that many predictions have been taken to the store, and return its rows."""
        self.start_log()
        async with asyncio.timeout(DEADLINE_S):
            while self.log.written < count or self.log.pending:
                await asyncio.sleep(0.002)
        page = await asyncio.to_thread(self.store.page, Query(limit=1000))
        return list(page.rows)


#: FastAPI takes longer to prepare its routes than a test takes; they look their services up.
_routes: list[Any] = []


@contextlib.asynccontextmanager
async def opened_gateway(
    path: Path,
    start: Callable[..., Awaitable[WireRuntime]],
    template: Path,
    *,
    database: str = "",
    body_limit: int = 1 << 20,
    model_limit: int = 1 << 20,
    wait_s: float = DEADLINE_S,
    runtime_timeout_s: float = DEADLINE_S,
) -> AsyncIterator[Gateway]:
    """Wire a gateway as `moorage_gateway.__main__` does."""
    if not database:
        shutil.copyfile(template, path / "predictions.db")
        database = f"sqlite:///{path / 'predictions.db'}"
    predictions = store.connect(database)
    resources = FolderStore(path / "deployments")
    backends = HttpBackends(runtime_timeout_s)
    usage = Usage()
    live = LiveTable(resources, backends, usage)
    registry = Registry(path / "models", max_bytes=model_limit)
    log = BufferedLog(predictions)
    deployer = Deployer(resources, registry, live, wait_s=wait_s)
    inference = Inference(lambda: live.table, backends, log, usage, body_limit=body_limit)
    services = Services(
        live=live,
        deployer=deployer,
        registry=registry,
        store=predictions,
        log_trouble=lambda: log.trouble,
        collectors=lambda: [usage.latency, *log.collectors()],
        now=lambda: NOW,
    )

    async def lifespan() -> AsyncIterator[None]:
        yield

    if not _routes:
        _routes.append(app.build(inference, services, lifespan)._api)
    (api,) = _routes
    api.state.services = services
    application = app.GatewayApp(inference, api)
    transport = httpx.ASGITransport(application, raise_app_exceptions=False)
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway.test") as client:
            gateway = Gateway(
                path / "deployments",
                resources,
                backends,
                usage,
                live,
                registry,
                log,
                predictions,
                deployer,
                application,
                client,
                start,
            )
            yield gateway
    finally:
        backends.close()
        if gateway.logs:
            await asyncio.to_thread(log.close, DEADLINE_S)
        predictions.close()


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with the tables made: to copy is quicker than to make."""
    path = tmp_path_factory.mktemp("database") / "empty.db"
    predictions = store.connect(f"sqlite:///{path}")
    predictions.prepare()
    predictions.close()
    return path


@pytest.fixture
def open_gateway(
    tmp_path: Path, start_runtime: Callable[..., Awaitable[WireRuntime]], empty_database: Path
) -> Callable[..., contextlib.AbstractAsyncContextManager[Gateway]]:
    """Open a gateway with limits of the test's own."""
    return partial(opened_gateway, tmp_path, start_runtime, empty_database)


@pytest.fixture
async def gateway(
    open_gateway: Callable[..., contextlib.AbstractAsyncContextManager[Gateway]],
) -> AsyncIterator[Gateway]:
    async with open_gateway() as opened:
        yield opened


@pytest.fixture
def eventually() -> Callable[..., Awaitable[None]]:
    """Wait until something is so."""

    async def wait(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                await asyncio.sleep(0.001)

    return wait


@pytest.fixture(scope="session")
def tensor() -> Callable[..., Tensor]:
    """Make a tensor of plain values."""
    dtypes = {
        "BYTES": object,
        "BOOL": np.bool_,
        "FP32": np.float32,
        "FP64": np.float64,
        "INT64": np.int64,
        "UINT8": np.uint8,
    }

    def make(name: str, datatype: str, values: Any) -> Tensor:
        return Tensor(name, datatype, np.asarray(values, dtype=dtypes[datatype]))

    return make


@pytest.fixture
def free_port() -> Iterator[int]:
    """A port on which nothing listens: bound, never listened on."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]
