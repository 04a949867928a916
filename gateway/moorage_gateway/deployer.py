"""Deploys and undeploys registered models at runtime: `POST /deployments/…`.

A deployment is a ModelDeployment like any other; what happens here is writing it, waiting for
what becomes of it, and taking it back when it fails, so that a failed deploy changes nothing.
"""

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import Final
from weakref import WeakValueDictionary

from moorage_api import keys, names, v1alpha1
from moorage_api.errors import (
    Conflict,
    EndpointTaken,
    InvalidName,
    ModelRejected,
    MoorageError,
    UnknownEndpoint,
    UnknownModel,
    UnknownVersion,
)
from moorage_api.names import Qualified
from moorage_api.reasons import MODEL_REJECTED, Condition, Reason
from moorage_api.v1alpha1 import ModelDeployment
from moorage_gateway.live import LiveTable
from moorage_gateway.registry import Registry
from moorage_gateway.resources import ResourceStore, Seen
from moorage_gateway.routing import Route, route_of
from moorage_gateway.usage import Tally

#: How long a deploy waits for the model to serve.
WAIT_S: Final = 120.0
#: How long an undeploy waits for requests under way.
DRAIN_S: Final = 60.0

#: Reasons after which waiting longer is no use.
_HOPELESS: Final = MODEL_REJECTED | {Reason.CRASH_LOOP, Reason.ENDPOINT_TAKEN}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a deploy came to.

    Parameters
    ----------
    route
        The deployment.
    is_new
        Whether it was not there before.
    is_ready
        False when it was still loading at the end of the wait.
    """

    route: Route
    is_new: bool
    is_ready: bool


class Deployer:
    """Writes and removes deployments.

    Parameters
    ----------
    resources
        Where they are kept.
    registry
        Where their models are.
    live
        The routes as they are now.
    wait_s
        How long a deploy waits for the model to serve.
    """

    def __init__(
        self,
        resources: ResourceStore,
        registry: Registry,
        live: LiveTable,
        *,
        wait_s: float = WAIT_S,
    ) -> None:
        self._resources = resources
        self._registry = registry
        self._live = live
        self._wait_s = wait_s
        # Deploys of one endpoint take turns: each may have to take back what it wrote.
        # Those of other endpoints do not wait for a model that loads for long.
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._changed = asyncio.Event()
        resources.subscribe(self._changed.set)

    async def deploy(self, model: str, version: str, endpoint: str = "") -> Outcome:
        """Serve a registered model version.

        Parameters
        ----------
        model, version
            As registered.
        endpoint
            Name in `/predict/{endpoint}`; empty takes `MODEL-VERSION`. Where a deployment of the
            same model has it, that one moves to this version, answering all the while.

        Raises
        ------
        UnknownModel, UnknownVersion, InvalidName
            When there is no such version, or the endpoint may not be named so.
        EndpointTaken, Conflict
            When the endpoint belongs to another model, or to a file that is not ours.
        ModelRejected
            When the model does not come up; everything is then as it was before.
        """
        stored = await asyncio.to_thread(self._registry.find, model, version)
        endpoint = names.segment(endpoint or f"{model}-{version}", "endpoint")
        async with self._turn(endpoint):
            before = self._holder(endpoint)
            if before is not None and before.resource.model_name != model:
                raise EndpointTaken(endpoint, str(before.resource.key))
            if before is not None and before.resource.spec.model.uri == stored.uri:
                ready = _ready(before)
                if ready is not None:
                    return Outcome(ready, is_new=False, is_ready=True)
            asked = _resource(endpoint, stored.uri, stored.sha256, before)
            if before is None and self._find(asked.key) is not None:
                raise Conflict(f"a deployment {asked.key} exists with another endpoint")
            await self._resources.put(asked)
            try:
                route = await self._outcome(asked.key)
            except BaseException:
                await self._take_back(asked.key, before)
                raise
        if route is None:
            seen = self._find(asked.key)
            waiting = route_of(seen.resource, seen.addresses) if seen else route_of(asked, ())
            return Outcome(waiting, is_new=before is None, is_ready=False)
        return Outcome(route, is_new=before is None, is_ready=True)

    async def undeploy(
        self, *, endpoint: str = "", model: str = "", version: str = ""
    ) -> list[Tally]:
        """Stop serving: no new request is taken, those under way are answered, then it goes.

        Parameters
        ----------
        endpoint
            Which one; or else
        model, version
            every deployment of this version.

        Returns
        -------
        what the deployments that are gone were asked

        Raises
        ------
        UnknownEndpoint, UnknownModel, UnknownVersion, InvalidName
            When there is none.
        Conflict
            When it is defined by a file that is not ours.
        """
        routes = [self._live.table.endpoint(endpoint)] if endpoint else self._all(model, version)
        gone = []
        for route in routes:
            async with self._turn(route.endpoint):
                # It may have moved to another version in the meantime, or be gone.
                now = self._live.table.routes.get(route.key)
                if now is not None and (endpoint or now.version == version):
                    gone.append(await self._withdraw(now))
        return gone

    def _turn(self, endpoint: str) -> asyncio.Lock:
        """Return the lock of the deployment that an endpoint has, or would have."""
        return self._turns.setdefault(names.deployment_name(endpoint), asyncio.Lock())

    async def _withdraw(self, route: Route) -> Tally:
        self._resources.require_own(route.key)  # Before anybody is turned away.
        tally = self._live.usage.of(route)
        with self._live.withdrawn(route.key):
            try:
                await self._live.usage.drained(route.key, DRAIN_S)
            except MoorageError as error:
                _log.warning("undeploying all the same: %s", error)
            await self._resources.delete(route.key)
        return tally

    def _all(self, model: str, version: str) -> list[Route]:
        routes = [route for route in self._live.table.routes.values() if route.is_called(model)]
        if not routes:
            raise UnknownModel(model, [route.model for route in self._live.table.routes.values()])
        matching = [route for route in routes if route.version == version]
        if not matching:
            raise UnknownVersion(model, version, [route.version for route in routes])
        return matching

    def _holder(self, endpoint: str) -> Seen | None:
        """Return the deployment that has the endpoint, in the default namespace."""
        with suppress(UnknownEndpoint, InvalidName):
            route = self._live.table.endpoint(f"{keys.DEFAULT_NAMESPACE}/{endpoint}")
            return self._find(route.key)
        return None

    def _find(self, key: Qualified) -> Seen | None:
        return next((seen for seen in self._resources.list() if seen.resource.key == key), None)

    async def _outcome(self, key: Qualified) -> Route | None:
        """Wait until the deployment serves what it was last asked; None after too long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._wait_s):
                while True:
                    self._changed.clear()
                    seen = self._find(key)
                    if seen is None:
                        raise Conflict(f"{key} was removed while it was being deployed")
                    if (route := _ready(seen)) is not None:
                        return route
                    failed = seen.resource.status.condition(Condition.READY)
                    if seen.is_current and failed is not None and failed.reason in _HOPELESS:
                        raise ModelRejected(f"{failed.reason}: {failed.message}")
                    await self._changed.wait()
        return None

    async def _take_back(self, key: Qualified, before: Seen | None) -> None:
        if before is None:
            await self._resources.delete(key)
        else:
            await self._resources.put(before.resource)


def _ready(seen: Seen) -> Route | None:
    """Return the route when the resource serves what it asks for."""
    ready = seen.resource.status.condition(Condition.READY)
    if not seen.is_current or ready is None or ready.status != "True":
        return None
    return route_of(seen.resource, seen.addresses)


def _resource(endpoint: str, uri: str, sha256: str, before: Seen | None) -> ModelDeployment:
    """Return the resource that serves `uri`: the one before with another model, or a new one."""
    if before is not None:
        document = v1alpha1.dump(before.resource)
    else:
        document = {
            "apiVersion": keys.API_VERSION,
            "kind": keys.KIND,
            "metadata": {
                "name": names.deployment_name(endpoint),
                "annotations": {keys.ANNOTATION_SOURCE: keys.SOURCE_API},
            },
            "spec": {"endpoint": endpoint},
        }
    document["spec"] = {**document["spec"], "model": {"uri": uri, "sha256": sha256}}
    return v1alpha1.load(document)
