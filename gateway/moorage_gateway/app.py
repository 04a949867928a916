"""The gateway's ASGI application: predictions by the request path, all else by FastAPI."""

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from moorage_api import __version__, uuid7
from moorage_api.errors import InvalidBody, MoorageError, UnknownPath, WrongMethod
from moorage_gateway import openapi
from moorage_gateway.dialects.paths import target_of
from moorage_gateway.http import deployments, models, operations, predictions, protocols
from moorage_gateway.http.services import Services
from moorage_gateway.inference import PREDICTION_ID, SERVER_TIMING, Inference, new_id
from moorage_serving import answers, bodies
from moorage_serving.bodies import Receive, Scope, Send

_log = logging.getLogger(__name__)

_TYPE: Final = b"content-type"
_FORM: Final = (_TYPE, b"application/x-www-form-urlencoded")
_DESCRIPTION: Final = """One address for every deployed model. `POST /predict/{endpoint}` is typed
for each model below; the same models answer the Open Inference Protocol v2, KServe v1 and
Seldon v1. Every prediction is stored and found again under `/predictions`."""

_ROUTERS: Final = tuple(
    group.router for group in (operations, deployments, models, predictions, protocols)
)
#: Paths whose bodies are bounded where they are read, and not held in memory.
_STREAMED: Final = frozenset({"/models"})


class GatewayApp:
    """The ASGI application.

    Parameters
    ----------
    inference
        The request path.
    api
        Everything else.
    """

    def __init__(self, inference: Inference, api: FastAPI) -> None:
        self._inference = inference
        self._api = api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._api(scope, receive, send)
            return
        if scope["method"] == "POST":
            target = target_of(scope["path"])
            if target is not None:
                await self._inference.answer(target, scope, receive, send)
                return
        await self._other(scope, receive, send)

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer by FastAPI, with the headers that every answer has."""
        started = perf_counter()
        request_id = uuid7.text(new_id())
        if _FORM in scope["headers"] or not any(key == _TYPE for key, _ in scope["headers"]):
            # What `curl -d` says of JSON, and what other clients do not say. No path reads forms
            # of this type.
            scope["headers"] = [header for header in scope["headers"] if header != _FORM]
            scope["headers"].append((_TYPE, b"application/json"))
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                timing = b"total;dur=%.3f" % ((perf_counter() - started) * 1e3)
                message["headers"] = [
                    *message["headers"],
                    (PREDICTION_ID, request_id.encode()),
                    (SERVER_TIMING, timing),
                ]
            await send(message)

        if scope["path"] not in _STREAMED:
            try:
                limit = self._inference.body_limit
                body = await bodies.read(receive, bodies.headers_of(scope), limit)
            except MoorageError as error:
                await answers.send_error(send_with_headers, error)
                return
            except bodies.Disconnected:
                return
            receive = _giving(body, receive)
        await self._api(scope, receive, send_with_headers)


def _giving(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives a body which was read already."""
    waiting = [body]

    async def give() -> Any:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return give


def build(
    inference: Inference,
    services: Services,
    lifespan: Callable[[], AsyncIterator[None]],
) -> GatewayApp:
    """Put the application together.

    Parameters
    ----------
    inference
        The request path.
    services
        What the routes work with.
    lifespan
        Runs from before the first request to after the last.
    """

    @asynccontextmanager
    async def whole_life(_: FastAPI) -> AsyncIterator[None]:
        async with asynccontextmanager(lifespan)():
            yield

    # FastAPI whose /docs brings its scripts along: a cluster may have no way to the internet.
    api = FastAPIOffline(
        redoc_url=None,
        title="Moorage",
        version=__version__,
        description=_DESCRIPTION,
        lifespan=whole_life,
        # The dialects own their paths to the letter.
        redirect_slashes=False,
    )
    api.state.services = services
    for router in _ROUTERS:
        api.include_router(router)
    api.add_exception_handler(MoorageError, _answer_error)
    api.add_exception_handler(RequestValidationError, _answer_invalid)
    api.add_exception_handler(HTTPException, _answer_http)
    api.add_exception_handler(ClientDisconnect, _answer_nobody)
    api.add_exception_handler(Exception, _answer_unexpected)
    _describe_endpoints(api)
    return GatewayApp(inference, api)


def _describe_endpoints(api: FastAPI) -> None:
    """Have `/openapi.json` list the endpoints that are deployed when it is asked for."""
    made: dict[str, Any] = {}

    def document() -> dict[str, Any]:
        live = api.state.services.live
        moment = (live, live.revision)
        if made.get("moment") != moment:
            whole = get_openapi(
                title=api.title,
                version=api.version,
                description=api.description,
                routes=api.routes,
            )
            whole["paths"] = openapi.paths(live.table) | whole["paths"]
            schemas = whole.setdefault("components", {}).setdefault("schemas", {})
            schemas |= openapi.COMPONENTS
            made.update(moment=moment, document=whole)
        found: dict[str, Any] = made["document"]
        return found

    api.openapi = document  # type: ignore[method-assign]


async def _answer_error(request: Request, error: Exception) -> Response:
    response = _response(error)
    if response.status_code >= 500:
        _log.warning(str(error), extra={"id": _request_id(request), "path": request.url.path})
    return response


def _response(error: Exception) -> Response:
    headers = {key.decode(): value.decode() for key, value in answers.error_headers(error)}
    body = answers.error_body(error)
    return Response(body, answers.status_of(error), headers, media_type="application/json")


async def _answer_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return await _answer_error(request, InvalidBody("; ".join(map(_problem, error.errors()))))


def _problem(item: Mapping[str, Any]) -> str:
    """Put one of pydantic's findings into words."""
    if item["type"] == "json_invalid":
        return f"the body is not JSON: {item['ctx']['error']}"
    where = ".".join(str(part) for part in item["loc"][1:])
    if item["loc"] == ("body",) and item["type"] in ("model_attributes_type", "dict_type"):
        return "the body is not a JSON object sent as Content-Type application/json"
    words = item["msg"].removeprefix("Value error, ")
    return f"'{where}': {words}" if where else words


async def _answer_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code in (404, 405):
        is_prediction = target_of(request.url.path) is not None
        allowed = ["POST"] if is_prediction else _methods(request)
        if allowed:
            return await _answer_error(request, WrongMethod(request.method, allowed))
        return await _answer_error(request, UnknownPath(request.url.path))
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


def _methods(request: Request) -> list[str]:
    """Return the methods that the request's path takes, by whichever routes."""
    found: set[str] = set()
    for routes in (request.app.routes, *(router.routes for router in _ROUTERS)):
        for route in routes:
            match, _ = route.matches(request.scope)
            if match is not Match.NONE:
                found |= getattr(route, "methods", None) or set()
    return sorted(found - {"HEAD"})


async def _answer_nobody(_: Request, __: Exception) -> Response:
    """Answer a client that went away in the middle of its request."""
    return Response(status_code=400)


async def _answer_unexpected(request: Request, error: Exception) -> Response:
    _log.error(
        "a request failed unexpectedly",
        exc_info=error,
        extra={"id": _request_id(request), "path": request.url.path},
    )
    return _response(error)


def _request_id(request: Request) -> str:
    return str(getattr(request.state, "request_id", ""))
