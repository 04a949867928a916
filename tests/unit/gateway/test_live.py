"""The routes follow the resources."""

from pathlib import Path
from typing import Any

import pytest

from moorage_api.errors import UnknownEndpoint
from moorage_api.names import Qualified
from moorage_gateway.backends import HttpBackends
from moorage_gateway.folder_store import FolderStore
from moorage_gateway.live import LiveTable
from moorage_gateway.usage import Usage

pytestmark = pytest.mark.anyio

KEY = Qualified("default", "m")


@pytest.fixture
def resources(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path)


@pytest.fixture
def backends() -> HttpBackends:
    return HttpBackends()


@pytest.fixture
def live(resources: FolderStore, backends: HttpBackends) -> LiveTable:
    return LiveTable(resources, backends, Usage())


async def test_a_resource_becomes_a_route_and_goes_again(
    live: LiveTable, resources: FolderStore, making: Any
) -> None:
    assert list(live.table.routes) == []
    await resources.put(making.resource("m", endpoint="e"))
    assert live.table.endpoint("e").key == KEY
    await resources.delete(KEY)
    with pytest.raises(UnknownEndpoint):
        live.table.endpoint("e")


async def test_every_change_is_a_new_revision(
    live: LiveTable, resources: FolderStore, making: Any
) -> None:
    seen = [live.revision]
    for change in (resources.put(making.resource("m")), resources.delete(KEY)):
        await change
        seen.append(live.revision)
    assert seen == sorted(set(seen))


async def test_a_route_that_has_not_changed_stays_the_same_object(
    live: LiveTable, resources: FolderStore, making: Any
) -> None:
    await resources.put(making.resource("m"))
    before = live.table.routes[KEY]
    await resources.put(making.resource("other"))
    assert live.table.routes[KEY] is before
    await resources.put(making.resource("m", replicas=2))
    assert live.table.routes[KEY] is not before


async def test_a_withdrawn_deployment_is_out_of_the_table_until_the_end(
    live: LiveTable, resources: FolderStore, making: Any
) -> None:
    await resources.put(making.resource("m"))
    await resources.put(making.resource("other"))
    with live.withdrawn(KEY):
        assert KEY not in live.table.routes
        # Other changes do not bring it back.
        await resources.put(making.resource("third"))
        assert KEY not in live.table.routes
        assert len(live.table.routes) == 2
    assert KEY in live.table.routes


async def test_a_withdrawn_deployment_that_was_deleted_does_not_come_back(
    live: LiveTable, resources: FolderStore, making: Any
) -> None:
    await resources.put(making.resource("m"))
    with live.withdrawn(KEY):
        await resources.delete(KEY)
    assert KEY not in live.table.routes


async def test_a_withdrawn_deployment_comes_back_after_an_error(
    live: LiveTable, resources: FolderStore, making: Any
) -> None:
    await resources.put(making.resource("m"))
    with pytest.raises(ZeroDivisionError), live.withdrawn(KEY):
        raise ZeroDivisionError
    assert KEY in live.table.routes


async def test_who_is_gone_begins_to_count_at_zero(
    live: LiveTable, resources: FolderStore, making: Any
) -> None:
    await resources.put(making.resource("m"))
    live.usage.of(live.table.routes[KEY]).count("v2", 200, 0.1)
    await resources.delete(KEY)
    await resources.put(making.resource("m"))
    assert live.usage.of(live.table.routes[KEY]).requests == 0


async def test_connections_to_a_runtime_that_is_gone_are_closed(
    live: LiveTable,
    resources: FolderStore,
    backends: HttpBackends,
    making: Any,
    start_runtime: Any,
    tmp_path: Path,
    tensor: Any,
    eventually: Any,
) -> None:
    runtime = await start_runtime()
    asked = making.resource("m")
    making.tell(tmp_path, KEY, making.observation(asked, addresses=[runtime.address]))
    await resources.put(asked)
    await backends.infer([runtime.address], "m", [tensor("x", "FP32", [1])], None)
    assert runtime.open == 1
    await resources.delete(KEY)
    await eventually(lambda: runtime.open == 0)
