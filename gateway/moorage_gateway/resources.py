"""Where ModelDeployments are kept: a folder here, the API server in a cluster. A port."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from moorage_api.names import Qualified
from moorage_api.v1alpha1 import ModelDeployment


@dataclass(frozen=True, slots=True)
class Seen:
    """A resource as it is now.

    Parameters
    ----------
    resource
        With its status.
    addresses
        Base URLs of the runtimes that answer.
    is_current
        Whether the status speaks of the spec as it is now, not of one before it.
    """

    resource: ModelDeployment
    addresses: tuple[str, ...] = ()
    is_current: bool = False


class ResourceStore(Protocol):
    """The resources, and what becomes of them."""

    def list(self) -> Sequence[Seen]:
        """Return all, oldest first, as last seen; never waits."""

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call `listener` after every change, on the event loop."""

    def require_own(self, key: Qualified) -> None:
        """Return when `put` and `delete` may change a resource; never waits.

        Raises
        ------
        Conflict
            When it is kept where it may not be changed from here.
        """

    async def put(self, resource: ModelDeployment) -> None:
        """Create or replace a resource.

        Raises
        ------
        Conflict
            When it is kept where it may not be changed from here.
        """

    async def delete(self, key: Qualified) -> None:
        """Remove a resource; nothing happens when there is none.

        Raises
        ------
        Conflict
            When it is kept where it may not be changed from here.
        """

    async def run(self) -> None:
        """Watch for changes until cancelled."""
