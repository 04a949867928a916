"""The routes as they are now, kept in step with the resources."""

from collections.abc import Iterator
from contextlib import contextmanager

from moorage_api.names import Qualified
from moorage_gateway.backends import HttpBackends
from moorage_gateway.resources import ResourceStore
from moorage_gateway.routing import Route, Table, route_of
from moorage_gateway.usage import Usage


class LiveTable:
    """The current `Table`, replaced whole when a resource changes.

    Parameters
    ----------
    resources
        What the table is made of.
    backends
        Is told which runtimes are no longer there.
    usage
        Is told which deployments are no longer there.
    """

    def __init__(self, resources: ResourceStore, backends: HttpBackends, usage: Usage) -> None:
        self._resources = resources
        self._backends = backends
        self._withdrawn: set[Qualified] = set()
        self.usage = usage
        self.table = Table()
        #: Counts up with every new table.
        self.revision = 0
        resources.subscribe(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Make the table anew."""
        before = self.table.routes
        routes: list[Route] = []
        for seen in self._resources.list():
            route = route_of(seen.resource, seen.addresses)
            if route.key in self._withdrawn:
                continue
            # What has not changed stays the same object: caches hang on it.
            routes.append(before[route.key] if before.get(route.key) == route else route)
        self.table = Table(routes)
        self.revision += 1
        self._backends.keep(address for route in routes for address in route.addresses)
        self.usage.keep(route.key for route in routes)

    @contextmanager
    def withdrawn(self, key: Qualified) -> Iterator[None]:
        """Keep a deployment out of the table; it comes back at the end, if it still exists."""
        self._withdrawn.add(key)
        self.refresh()
        try:
            yield
        finally:
            self._withdrawn.discard(key)
            self.refresh()
