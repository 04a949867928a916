"""`/deployments`: what is served, deploying and undeploying at runtime."""

from dataclasses import replace
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Response, status
from pydantic import BaseModel, ConfigDict, Field, model_validator

from moorage_api.reasons import Phase, Reason
from moorage_gateway.http.services import Parts, Services
from moorage_gateway.usage import Tally

router = APIRouter(prefix="/deployments", tags=["deployments"])


class _Body(BaseModel):
    # `model_` is pydantic's own prefix, and the field's name in this API.
    model_config = ConfigDict(extra="forbid", protected_namespaces=())


Version = Annotated[str | int, Field(description='As registered, e.g. "2".', examples=["2"])]


class DeployRequest(_Body):
    """Which registered model version to serve, and where."""

    model_name: str = Field(examples=["iris"])
    version: Version
    endpoint_name: str | None = Field(
        default=None,
        description="Name in /predict/{endpoint}; default MODEL-VERSION. An endpoint that serves "
        "this model already moves to the version.",
        examples=["iris"],
    )


class UndeployRequest(_Body):
    """Which deployment to end: by its endpoint, or every one of a model version."""

    endpoint_name: str | None = None
    model_name: str | None = None
    version: Version | None = None

    @model_validator(mode="after")
    def _one_way(self) -> "UndeployRequest":
        by_model = self.model_name is not None and self.version is not None
        by_part = self.model_name is not None or self.version is not None
        if (self.endpoint_name is None) != by_model or (self.endpoint_name and by_part):
            raise ValueError("give either endpoint_name, or model_name and version")
        return self


class Deployment(_Body):
    """One deployment and what it has been asked."""

    name: str = Field(description="Of the ModelDeployment.")
    namespace: str
    model_name: str
    version: str
    endpoint: str
    url: str | None = Field(description="Path that predicts; null when none does.")
    status: str = Field(description="Phase of the resource: Ready, Pending, Degraded, Failed, …")
    reason: str
    message: str
    replicas: int = Field(description="Asked for.")
    ready_replicas: int = Field(description="Runtimes that answer now.")
    deployed_at: datetime | None = Field(description="When it became ready.")
    request_count: int = Field(
        description="Answered by this gateway since the deployment was made."
    )
    avg_latency_ms: float | None = Field(description="Mean time at this gateway.")


class Deployments(_Body):
    """All deployments."""

    deployments: list[Deployment]


@router.get("", summary="What is served")
async def list_deployments(parts: Parts) -> Deployments:
    """List every deployment with its status, version, endpoint and use."""
    tallies = map(parts.live.usage.of, parts.live.table.routes.values())
    return Deployments(deployments=[_describe(tally, parts) for tally in tallies])


@router.post(
    "/deploy",
    summary="Serve a registered model version",
    status_code=status.HTTP_201_CREATED,
    responses={
        200: {"model": Deployment, "description": "It was there before."},
        202: {"model": Deployment, "description": "It is still loading."},
    },
)
async def deploy(body: DeployRequest, parts: Parts, response: Response) -> Deployment:
    """Answer when the model serves, or with why it does not; then everything is as before."""
    outcome = await parts.deployer.deploy(
        body.model_name, str(body.version), body.endpoint_name or ""
    )
    if not outcome.is_ready:
        response.status_code = status.HTTP_202_ACCEPTED
    elif not outcome.is_new:
        response.status_code = status.HTTP_200_OK
    return _describe(parts.live.usage.of(outcome.route), parts)


@router.post("/undeploy", summary="Stop serving")
async def undeploy(body: UndeployRequest, parts: Parts) -> Deployments:
    """Take no new request, answer those under way, end the deployment; tells what it was asked."""
    gone = await parts.deployer.undeploy(
        endpoint=body.endpoint_name or "",
        model=body.model_name or "",
        version="" if body.version is None else str(body.version),
    )
    return Deployments(deployments=[_describe(tally, parts, is_gone=True) for tally in gone])


def _describe(tally: Tally, parts: Services, *, is_gone: bool = False) -> Deployment:
    route = tally.route
    if is_gone:
        route = replace(
            route, phase=Phase.STOPPED, reason=Reason.STOPPED, message="undeployed", addresses=()
        )
    average = tally.average_ms
    return Deployment(
        name=route.key.name,
        namespace=route.key.namespace,
        model_name=route.model,
        version=route.version,
        endpoint=route.endpoint,
        url=parts.live.table.path(route),
        status=route.phase or "Pending",
        reason=route.reason,
        message=route.message,
        replicas=route.replicas,
        ready_replicas=len(route.addresses),
        deployed_at=route.ready_since,
        request_count=tally.requests,
        avg_latency_ms=None if average is None else round(average, 3),
    )
