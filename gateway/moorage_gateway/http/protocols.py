"""What the serving protocols ask beside predictions: metadata, health and indexes."""

from enum import Enum
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from moorage_api import __version__, v2
from moorage_api.errors import UnknownModel, UnknownPath, Unsupported, WrongMethod
from moorage_api.names import version_key
from moorage_gateway.dialects.call import load_object
from moorage_gateway.http.services import Parts, Services
from moorage_gateway.routing import Route

router = APIRouter()

_V2: Final[list[str | Enum]] = ["Open Inference Protocol v2"]
_V1: Final[list[str | Enum]] = ["KServe v1"]
_SELDON: Final[list[str | Enum]] = ["Seldon v1"]


@router.get("/v2", tags=_V2, summary="Server metadata")
@router.get("/v2/", include_in_schema=False)
async def server_metadata() -> dict[str, Any]:
    """Name, version and protocol extensions of this server."""
    return {"name": "moorage", "version": __version__, "extensions": list(v2.EXTENSIONS)}


@router.get("/v2/health/live", tags=_V2, summary="Is the server alive?")
async def live() -> dict[str, Any]:
    """Alive as soon as it answers."""
    return {"live": True}


@router.get("/v2/health/ready", tags=_V2, summary="Does every deployment serve?")
async def ready(parts: Parts) -> JSONResponse:
    """Ready when every deployment answers that is to have replicas."""
    waiting = [
        str(route.key)
        for route in parts.live.table.routes.values()
        if not route.is_ready and route.replicas and not route.stopped
    ]
    answer: dict[str, Any] = {"ready": not waiting, "live": True}
    if waiting:
        answer["waiting_for"] = waiting
    return JSONResponse(answer, 503 if waiting else 200)


@router.get("/v2/models", tags=_V2, summary="Names of the models")
async def list_models(parts: Parts) -> dict[str, Any]:
    """List the names of all deployments."""
    return {"models": [route.key.name for route in parts.live.table.routes.values()]}


@router.post(
    "/v2/repository/index",
    tags=_V2,
    summary="State of every model",
    openapi_extra={
        "requestBody": {
            "content": {
                "application/json": {
                    "schema": {"type": "object", "properties": {"ready": {"type": "boolean"}}}
                }
            }
        }
    },
)
async def repository_index(request: Request, parts: Parts) -> list[dict[str, Any]]:
    """List every deployment with its state; `{"ready": true}` leaves out those not ready."""
    # Read here, because FastAPI takes no body for JSON that does not say so, as tritonclient's.
    body = await request.body()
    only_ready = bool(body and load_object(body).get("ready"))
    return [
        _index_entry(route)
        for route in parts.live.table.routes.values()
        if route.is_ready or not only_ready
    ]


def _index_entry(route: Route) -> dict[str, Any]:
    return {
        "name": route.key.name,
        "version": route.version,
        "state": "READY" if route.is_ready else "UNAVAILABLE",
        "reason": "" if route.is_ready else route.reason or route.phase,
    }


@router.post("/v2/repository/models/{path:path}", tags=_V2, include_in_schema=False)
async def repository_change(path: str) -> None:
    """Refuse: loading and unloading go by `/deployments`."""
    raise Unsupported(f"/v2/repository/models/{path}: use POST /deployments/deploy and /undeploy")


# One route for the whole family, because a name may hold a slash and a version may stand or not.
@router.get("/v2/models/{path:path}", tags=_V2, summary="Model metadata, or `…/ready`")
async def model_metadata(path: str, request: Request, parts: Parts) -> JSONResponse:
    """`NAME[/versions/VERSION]` gives the signature, with `/ready` whether it answers."""
    target = v2.parse_path(f"/v2/models/{path}")
    if target is None:
        raise UnknownPath(request.url.path)
    if target.verb == "infer":
        raise WrongMethod(request.method, ["POST"])
    if target.verb in ("config", "stats"):
        raise Unsupported(f"{request.url.path}: this extension is not supported")
    try:
        route = parts.live.table.model(target.name, target.version)
    except UnknownModel:
        if path == "stats":  # Of all models, unless one is called so.
            raise Unsupported(f"{request.url.path}: this extension is not supported") from None
        raise
    if target.verb == "ready":
        answer = {"name": target.name, "ready": route.is_ready}
        return JSONResponse(answer, 200 if route.is_ready else 503)
    return JSONResponse(_metadata(target.name, route, parts))


def _metadata(name: str, route: Route, parts: Services) -> dict[str, Any]:
    signature = route.require_ready()
    versions = sorted(
        {
            other.version
            for other in parts.live.table.routes.values()
            if other.key.namespace == route.key.namespace and other.is_called(name)
        },
        key=version_key,
    )
    return {
        "name": name,
        "versions": versions or [route.version],
        "platform": v2.PLATFORM,
        **signature.to_dict(),
        "properties": {"sha256": route.sha256, "endpoint": route.endpoint},
    }


@router.get("/v1/models", tags=_V1, summary="Names of the models")
async def v1_list(parts: Parts) -> dict[str, Any]:
    """List the names of all deployments."""
    return await list_models(parts)


@router.get("/v1/models/{path:path}", tags=_V1, summary="Is the model ready?")
async def v1_model(path: str, request: Request, parts: Parts) -> JSONResponse:
    """`{"name", "ready"}`; 503 while it is not."""
    name, _, verb = path.partition(":")
    if verb == "predict":
        raise WrongMethod(request.method, ["POST"])
    if verb:
        raise UnknownPath(request.url.path)
    route = parts.live.table.model(name)
    answer = {"name": name, "ready": route.is_ready}
    return JSONResponse(answer, 200 if route.is_ready else 503)


@router.post("/v1/models/{path:path}", include_in_schema=False)
async def v1_explain(path: str) -> None:
    """Explanations have no explainer here."""
    raise Unsupported(f"/v1/models/{path}: only :predict is supported")


@router.get(
    "/seldon/{namespace}/{name}/api/v1.0/health/status", tags=_SELDON, summary="Does it answer?"
)
async def seldon_health_of(namespace: str, name: str, parts: Parts) -> dict[str, Any]:
    """Healthy when the deployment answers."""
    parts.live.table.model(f"{namespace}/{name}").require_ready()
    return {"status": "ok"}


@router.get(
    "/seldon/{namespace}/{name}/api/v1.0/metadata", tags=_SELDON, summary="Inputs and outputs"
)
async def seldon_metadata_of(namespace: str, name: str, parts: Parts) -> dict[str, Any]:
    """Describe the deployment's inputs and outputs."""
    return _seldon_metadata(parts.live.table.model(f"{namespace}/{name}"))


@router.get("/api/v1.0/health/status", tags=_SELDON, summary="Does it answer?")
async def seldon_health(request: Request, parts: Parts) -> dict[str, Any]:
    """Healthy when the only deployment, or the one the Host header names, answers."""
    parts.live.table.only(request.headers.get("host", "")).require_ready()
    return {"status": "ok"}


@router.get("/api/v1.0/metadata", tags=_SELDON, summary="Inputs and outputs")
async def seldon_metadata(request: Request, parts: Parts) -> dict[str, Any]:
    """Describe the only deployment, or the one the Host header names."""
    return _seldon_metadata(parts.live.table.only(request.headers.get("host", "")))


def _seldon_metadata(route: Route) -> dict[str, Any]:
    signature = route.require_ready()
    return {
        "name": route.key.name,
        "versions": [route.version],
        "platform": "onnx",
        **signature.to_dict(),
    }
