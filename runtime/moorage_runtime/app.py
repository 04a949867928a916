"""The runtime's HTTP surface: Open Inference Protocol v2 for one model, as plain ASGI.

There is no web framework here (docs/adr/0004): the surface is nine fixed paths, importing FastAPI
would take half of the time in which a runtime may start, and routing a request through it costs
more than running a small model. Source of the paths and bodies: the protocol's
`inference_rest.md`.
"""

import logging
from time import perf_counter
from typing import Any, Final

from moorage_api import __version__, keys, v2
from moorage_api.errors import (
    InvalidTensor,
    MoorageError,
    NotReady,
    UnknownModel,
    UnknownPath,
    UnknownVersion,
    Unsupported,
    WrongMethod,
)
from moorage_runtime.batching import Batcher
from moorage_runtime.model import LoadedModel
from moorage_serving import answers, bodies, metrics
from moorage_serving.bodies import Receive, Scope, Send

_log = logging.getLogger(__name__)

_JSON_LENGTH: Final = keys.HEADER_JSON_LENGTH.encode()
_OCTETS: Final = (b"content-type", b"application/octet-stream")


class RuntimeApp:
    """The ASGI application.

    It listens from the first moment, so that probes get an answer while the model is fetched and
    loaded, and answers inference from `serve` on.

    Parameters
    ----------
    name, version
        Under which the model is served.
    body_limit
        Most bytes of a request, compressed or not.
    """

    def __init__(self, name: str, version: str, *, body_limit: int = bodies.DEFAULT_LIMIT) -> None:
        self.name = name
        self.version = version
        #: Why the model is not ready, in a word or two.
        self.waiting_for = "starting"
        self._limit = body_limit
        self._model: LoadedModel | None = None
        self._batcher: Batcher | None = None
        # The request path asks one dictionary instead of taking the path apart.
        prefix = f"/v2/models/{name}"
        self._hot = {
            f"{place}/infer{end}"
            for place in (prefix, f"{prefix}/versions/{version}")
            for end in ("", "/")
        }
        self._latency = metrics.Histogram(
            "moorage_inference_duration_seconds",
            "From the head of a request to its answer, by HTTP status.",
            ("model", "version", "status"),
        )
        self._by_status: dict[int, metrics.Series] = {}

    def serve(self, model: LoadedModel, batcher: Batcher) -> None:
        """Answer inference with this model from now on."""
        self._model = model
        self._batcher = batcher

    @property
    def is_ready(self) -> bool:
        """Whether a probe has been answered."""
        return self._model is not None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http":
            if scope["path"] in self._hot and scope["method"] == "POST":
                await self._infer(scope, receive, send)
            else:
                await self._other(scope, send)
        elif scope["type"] == "lifespan":
            await _lifespan(receive, send)

    async def _infer(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = perf_counter()
        status = 200
        try:
            headers = bodies.headers_of(scope)
            body = await bodies.read(receive, headers, self._limit)
            model, batcher = self._model, self._batcher
            if model is None or batcher is None:
                raise NotReady(self.name, self.waiting_for)
            request = v2.read_request(body, headers.get(_JSON_LENGTH), model.signature)
            arrays = model.signature.check(request.tensors)
            rows = model.signature.rows(arrays) if model.signature.is_batched else None
            outputs = _wanted(request, model)
            tensors = await batcher.submit(arrays, outputs, rows)
            answer = v2.render_response(self.name, self.version, tensors, request)
            if answer.json_length is None:
                await answers.send_bytes(send, 200, [answers.JSON], answer.chunks[0])
            else:
                length = (_JSON_LENGTH, b"%d" % answer.json_length)
                await answers.send_chunks(send, 200, [_OCTETS, length], answer.chunks)
        except MoorageError as error:
            status = answers.status_of(error)
            await answers.send_error(send, error)
        except bodies.Disconnected:
            status = 499
        except Exception as error:  # noqa: BLE001 - the last stop before the client
            status = 500
            _log.exception("a request failed unexpectedly", extra={"path": scope["path"]})
            await answers.send_error(send, error)
        finally:
            series = self._by_status.get(status)
            if series is None:
                labels = (self.name, self.version, str(status))
                series = self._by_status[status] = self._latency.series(*labels)
            series.observe(perf_counter() - started)

    async def _other(self, scope: Scope, send: Send) -> None:
        try:
            await self._answer(scope, send)
        except MoorageError as error:
            await answers.send_error(send, error)

    async def _answer(self, scope: Scope, send: Send) -> None:
        path: str = scope["path"].rstrip("/")
        if path == "/v2/health/live":
            _allow(scope, "GET")
            await answers.send_json(send, {"live": True})
        elif path == "/v2/health/ready":
            _allow(scope, "GET")
            ready: dict[str, Any] = {"ready": self.is_ready, "live": True}
            if not self.is_ready:
                ready["error"] = self.waiting_for
            await answers.send_json(send, ready, 200 if self.is_ready else 503)
        elif path == "/v2":
            _allow(scope, "GET")
            await answers.send_json(
                send,
                {
                    "name": "moorage-runtime",
                    "version": __version__,
                    "extensions": list(v2.EXTENSIONS),
                },
            )
        elif path == "/v2/models":
            _allow(scope, "GET")
            await answers.send_json(send, {"models": [self.name]})
        elif path == "/v2/repository/index":
            _allow(scope, "POST")
            state = "READY" if self.is_ready else "UNAVAILABLE"
            reason = "" if self.is_ready else self.waiting_for
            entry = {"name": self.name, "version": self.version, "state": state, "reason": reason}
            await answers.send_json(send, [entry])
        elif path == "/metrics":
            _allow(scope, "GET")
            kind = (b"content-type", metrics.CONTENT_TYPE.encode())
            await answers.send_bytes(send, 200, [kind], metrics.render(self._collectors()))
        else:
            await self._of_model(path, scope, send)

    async def _of_model(self, path: str, scope: Scope, send: Send) -> None:
        target = v2.parse_path(path)
        if target is None:
            raise UnknownPath(path)
        if target.name != self.name:
            raise UnknownModel(target.name, [self.name])
        if target.version not in ("", self.version):
            raise UnknownVersion(self.name, target.version, [self.version])
        if target.verb == "infer":
            raise WrongMethod(scope["method"], ["POST"])
        _allow(scope, "GET")
        if target.verb in ("config", "stats"):
            raise Unsupported(f"{path}: this extension is not supported")
        if target.verb == "ready":
            status = 200 if self.is_ready else 503
            await answers.send_json(send, {"name": self.name, "ready": self.is_ready}, status)
            return
        if self._model is None:
            raise NotReady(self.name, self.waiting_for)
        await answers.send_json(send, self._metadata(self._model))

    def _metadata(self, model: LoadedModel) -> dict[str, Any]:
        return {
            "name": self.name,
            "versions": [self.version],
            "platform": v2.PLATFORM,
            **model.signature.to_dict(),
            # A map of strings, as the protocol's gRPC twin has it.
            "properties": model.properties,
        }

    def _collectors(self) -> list[metrics.Collector]:
        runs = metrics.Counter(
            "moorage_model_runs", "Runs of the model; requests that waited together share one.",
            ("model", "version"),
        )  # fmt: skip
        rows = metrics.Counter("moorage_model_rows", "Rows in those runs.", ("model", "version"))
        seconds = metrics.Counter(
            "moorage_model_run_seconds", "Time in those runs.", ("model", "version")
        )
        if self._batcher is not None:
            runs.add(self._batcher.runs, self.name, self.version)
            rows.add(self._batcher.rows, self.name, self.version)
            seconds.add(self._batcher.run_seconds, self.name, self.version)
        return [self._latency, runs, rows, seconds]


def _wanted(request: v2.InferRequest, model: LoadedModel) -> list[str] | None:
    """Return the names of the outputs asked for, None for all."""
    if request.outputs is None:
        return None
    names = [output.name for output in request.outputs]
    for at, name in enumerate(names):
        if name not in model.output_names:
            expected = f"one of the outputs {sorted(model.output_names)}"
            raise InvalidTensor(name, expected, "an unknown name", "output")
        if name in names[:at]:
            raise InvalidTensor(name, "each output once", "it twice", "output")
    return names


def _allow(scope: Scope, method: str) -> None:
    came = scope["method"]
    if came != method and not (came == "HEAD" and method == "GET"):
        raise WrongMethod(came, [method])


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
