"""Which deployment answers a request, and at which address: pure decisions over a frozen table."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from moorage_api.errors import (
    InvalidName,
    NotReady,
    Stopped,
    UnknownEndpoint,
    UnknownModel,
    UnknownVersion,
)
from moorage_api.names import Qualified, version_key
from moorage_api.reasons import Condition, Reason
from moorage_api.signature import Signature, TensorSpec
from moorage_api.v1alpha1 import ModelDeployment, TensorStatus


@dataclass(frozen=True, slots=True)
class Route:
    """One deployment as the gateway sees it.

    Parameters
    ----------
    key
        Namespace and name of the ModelDeployment.
    endpoint
        Name in `/predict/{endpoint}`.
    model, version, sha256
        Of the model that answers now; `model` is what clients ask for.
    signature
        Of that model; None until a runtime has told it.
    addresses
        Base URLs of the runtimes that answer; empty while there is none.
    stopped
        Switched off by its spec.
    phase, reason, message
        As the resource's status says.
    ready_since
        When it became ready, None while it is not.
    replicas
        How many are asked for.
    logs, sample_percent
        Whether and how much of it is remembered.
    """

    key: Qualified
    endpoint: str
    model: str
    version: str
    sha256: str = ""
    signature: Signature | None = None
    addresses: tuple[str, ...] = ()
    stopped: bool = False
    phase: str = ""
    reason: str = ""
    message: str = ""
    ready_since: datetime | None = None
    replicas: int = 1
    logs: bool = True
    sample_percent: int = 100

    @property
    def runtime_name(self) -> str:
        """Name under which the runtimes of this deployment serve the model."""
        return self.key.name

    @property
    def is_ready(self) -> bool:
        """Whether requests can be answered."""
        return bool(self.addresses) and self.signature is not None and not self.stopped

    def is_called(self, name: str) -> bool:
        """Whether `name` is that of the model, or of the deployment with or without namespace."""
        return name in (self.model, self.key.name, str(self.key))

    def require_ready(self) -> Signature:
        """Return the signature.

        Raises
        ------
        Stopped, NotReady
            When requests cannot be answered, with the reason.
        """
        if self.stopped:
            raise Stopped(self.key.name)
        if self.signature is None or not self.addresses:
            why = ": ".join(part for part in (self.reason, self.message) if part)
            raise NotReady(self.key.name, why or "no runtime answers yet")
        return self.signature


def route_of(resource: ModelDeployment, addresses: Sequence[str]) -> Route:
    """Read a route out of a resource and its status.

    Parameters
    ----------
    resource
        With the status that its writers gave it.
    addresses
        Base URLs of the runtimes that answer.
    """
    status = resource.status
    ready = status.condition(Condition.READY)
    signature = None
    if status.model.inputs or status.model.outputs:
        signature = Signature(
            tuple(_spec(item) for item in status.model.inputs),
            tuple(_spec(item) for item in status.model.outputs),
        )
    return Route(
        key=resource.key,
        endpoint=resource.endpoint,
        model=resource.model_name,
        version=status.model.version or resource.model_version,
        sha256=status.model.sha256,
        signature=signature,
        addresses=tuple(addresses),
        stopped=resource.spec.stopped,
        phase=status.phase,
        reason=ready.reason if ready else "",
        message=ready.message if ready else "",
        ready_since=ready.last_transition_time if ready and ready.status == "True" else None,
        replicas=resource.spec.replicas,
        logs=resource.spec.logging.enabled,
        sample_percent=resource.spec.logging.sample_percent,
    )


def _spec(item: TensorStatus) -> TensorSpec:
    return TensorSpec(item.name, item.datatype, tuple(item.shape), tuple(item.classes))


class Table:
    """All routes at one moment; a change makes a new table.

    Parameters
    ----------
    routes
        In the order of their making: where two in one namespace claim one endpoint, the first
        has it.
    """

    def __init__(self, routes: Iterable[Route] = ()) -> None:
        self.routes: Mapping[Qualified, Route] = {route.key: route for route in routes}
        self._endpoints: dict[str, list[Route]] = {}
        self._models: dict[str, list[Route]] = {}
        claimed: set[tuple[str, str]] = set()
        for route in self.routes.values():
            space, name = route.key.namespace, route.key.name
            # Whoever keeps the resources has judged already that this one lost.
            lost = route.reason == Reason.ENDPOINT_TAKEN
            if not lost and (space, route.endpoint) not in claimed:
                claimed.add((space, route.endpoint))
                for endpoint in (route.endpoint, f"{space}/{route.endpoint}"):
                    self._endpoints.setdefault(endpoint, []).append(route)
            for model in {name, route.model}:
                self._models.setdefault(model, []).append(route)
                self._models.setdefault(f"{space}/{model}", []).append(route)

    @property
    def endpoints(self) -> list[str]:
        """Names that `endpoint` finds without a namespace."""
        return [name for name, routes in self._endpoints.items() if routes and "/" not in name]

    def path(self, route: Route) -> str | None:
        """Return the path that predicts with a deployment, None when another one has its endpoint.

        The namespace is in it where a bare name would be ambiguous.
        """
        qualified = f"{route.key.namespace}/{route.endpoint}"
        if route.key not in (owner.key for owner in self._endpoints.get(qualified, ())):
            return None
        shared = len(self._endpoints[route.endpoint]) > 1
        return f"/predict/{qualified if shared else route.endpoint}"

    def endpoint(self, name: str) -> Route:
        """Return the deployment at an endpoint, `NAME` or `NAMESPACE/NAME`.

        Raises
        ------
        UnknownEndpoint
            When there is none.
        InvalidName
            When several namespaces have it and none is named.
        """
        found = self._endpoints.get(name)
        if not found:
            raise UnknownEndpoint(name, self.endpoints)
        if len(found) > 1:
            raise _ambiguous(name, found, "endpoint")
        return found[0]

    def model(self, name: str, version: str = "") -> Route:
        """Return the deployment that a path of the serving protocols names.

        Parameters
        ----------
        name
            Of the deployment or of the model, with or without its namespace.
        version
            Empty takes the deployment of exactly that name, else the latest.

        Raises
        ------
        UnknownModel, UnknownVersion, InvalidName
            As by `latest`.
        """
        found = self._models.get(name, [])
        latest = self._choose(name, found, version)
        if version or len(found) == 1:
            return latest
        exact = [route for route in found if name in (route.key.name, str(route.key))]
        return exact[0] if exact else latest

    def latest(self, name: str, version: str = "") -> Route:
        """Return the deployment that answers for a model.

        Parameters
        ----------
        name
            Of the model, its deployment or its endpoint, with or without a namespace.
        version
            Empty takes the highest version that is deployed ("2" < "10"), ready ones first.

        Raises
        ------
        UnknownModel, UnknownVersion
            When there is none.
        InvalidName
            When several namespaces have it and none is named.
        """
        found = self._models.get(name) or self._endpoints.get(name) or []
        return self._choose(name, found, version)

    def _choose(self, name: str, found: Sequence[Route], version: str) -> Route:
        if not found:
            raise UnknownModel(name, [str(key.name) for key in self.routes])
        if len(found) == 1 and version in ("", found[0].version):
            return found[0]
        spaces = {route.key.namespace for route in found}
        if len(spaces) > 1:
            raise _ambiguous(name, found, "model")
        if version:
            matching = [route for route in found if route.version == version]
            if not matching:
                raise UnknownVersion(name, version, [route.version for route in found])
            return max(matching, key=_preference)
        return max(found, key=_preference)

    def only(self, host: str = "") -> Route:
        """Return the deployment for a path that names none.

        Parameters
        ----------
        host
            `Host` header: its first label may name a deployment.

        Raises
        ------
        InvalidName
            When there is not exactly one to choose; the message lists them.
        """
        first = host.split(":")[0].split(".")[0]
        named = self._models.get(first)
        if first and named and len(named) == 1:
            return named[0]
        if len(self.routes) == 1:
            return next(iter(self.routes.values()))
        names = ", ".join(sorted(str(key) for key in self.routes)) or "none"
        raise InvalidName(
            "the path names no deployment and there is not exactly one; use "
            f"/seldon/NAMESPACE/NAME/… or the Host header; there are: {names}"
        )


def _preference(route: Route) -> tuple[bool, tuple[tuple[int, int, str], ...], float]:
    since = route.ready_since.timestamp() if route.ready_since else 0.0
    return route.is_ready, version_key(route.version), since


def _ambiguous(name: str, found: Iterable[Route], what: str) -> InvalidName:
    keys = ", ".join(sorted(str(route.key) for route in found))
    return InvalidName(f"{what} {name!r} is in several namespaces; name one of {keys}")
