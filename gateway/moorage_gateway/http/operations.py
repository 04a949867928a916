"""Health, metrics and the front door."""

from typing import Any

from fastapi import APIRouter, Response

from moorage_api import __version__
from moorage_gateway.http.services import Parts
from moorage_serving import metrics

router = APIRouter(tags=["operations"])


@router.get("/", summary="Where things are")
async def front_door() -> dict[str, Any]:
    """Say what this is and where to look; `status` is what KServe's clients ask for here."""
    return {
        "status": "alive",
        "name": "moorage",
        "version": __version__,
        "see": ["/docs", "/deployments", "/models", "/predictions", "/metrics"],
    }


@router.get("/health/live", summary="Is the gateway alive?")
async def live() -> dict[str, Any]:
    """Alive as soon as it answers."""
    return {"live": True}


@router.get("/health/ready", summary="May the gateway be sent requests?")
async def ready(parts: Parts) -> dict[str, Any]:
    """Ready with or without its database: predictions are answered all the same."""
    trouble = parts.log_trouble()
    return {
        "ready": True,
        "deployments": {
            str(route.key): route.phase or "Pending" for route in parts.live.table.routes.values()
        },
        "prediction_log": trouble or "ok",
    }


@router.get("/metrics", summary="Prometheus metrics", response_class=Response)
def show_metrics(parts: Parts) -> Response:
    """Text exposition of everything that is counted."""
    return Response(metrics.render(parts.collectors()), media_type=metrics.CONTENT_TYPE)
