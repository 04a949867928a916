"""Counts what each deployment is asked: for `GET /deployments`, for metrics, and for draining."""

import asyncio
from collections.abc import Iterable

from moorage_api.errors import MoorageError
from moorage_api.names import Qualified
from moorage_gateway.prediction_log import ModelIdentity
from moorage_gateway.routing import Route
from moorage_serving import metrics


class Tally:
    """What is counted for one deployment, and who answers for it now."""

    __slots__ = ("_latency", "_series", "identity", "in_flight", "requests", "route", "seconds")

    def __init__(self, route: Route, latency: metrics.Histogram) -> None:
        self._latency = latency
        self.in_flight = 0
        self.requests = 0
        self.seconds = 0.0
        self.adopt(route)

    def adopt(self, route: Route) -> None:
        """Count for another version of the deployment from now on."""
        self.route = route
        self._series: dict[tuple[str, int], metrics.Series] = {}
        self.identity: ModelIdentity | None = None
        if route.signature is not None:
            self.identity = ModelIdentity(
                route.key.namespace,
                route.key.name,
                "stable",
                route.model,
                route.version,
                route.sha256,
                route.signature,
            )

    def count(self, protocol: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        self.requests += 1
        self.seconds += seconds
        key = (protocol, status)
        series = self._series.get(key)
        if series is None:
            route = self.route
            series = self._series[key] = self._latency.series(
                route.key.namespace, route.key.name, route.version, protocol, str(status)
            )
        series.observe(seconds)

    @property
    def average_ms(self) -> float | None:
        """Mean time of a request in milliseconds; None before the first."""
        return self.seconds / self.requests * 1e3 if self.requests else None


class Usage:
    """The tallies of all deployments."""

    def __init__(self) -> None:
        self._tallies: dict[Qualified, Tally] = {}
        self.latency = metrics.Histogram(
            "moorage_prediction_duration_seconds",
            "From the head of a prediction request to its answer.",
            ("namespace", "deployment", "version", "protocol", "status"),
        )

    def of(self, route: Route) -> Tally:
        """Return the tally of a route's deployment."""
        tally = self._tallies.get(route.key)
        if tally is None:
            tally = self._tallies[route.key] = Tally(route, self.latency)
        elif tally.route is not route:
            tally.adopt(route)
        return tally

    def keep(self, keys: Iterable[Qualified]) -> None:
        """Forget deployments that are gone; one that comes back begins at zero."""
        wanted = set(keys)
        for key in [key for key in self._tallies if key not in wanted]:
            if not self._tallies[key].in_flight:
                del self._tallies[key]
                self.latency.forget(key.namespace, key.name)

    async def drained(self, key: Qualified, timeout_s: float, *, poll_s: float = 0.01) -> None:
        """Wait until no request of a deployment is under way.

        Raises
        ------
        MoorageError
            When some still are after `timeout_s`.
        """
        tally = self._tallies.get(key)
        try:
            async with asyncio.timeout(timeout_s):
                while tally is not None and tally.in_flight:
                    await asyncio.sleep(poll_s)
        except TimeoutError:
            raise MoorageError(
                f"{tally.in_flight if tally else 0} requests of {key} are still under way "
                f"after {timeout_s:g} s"
            ) from None
