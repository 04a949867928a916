"""Deploying and undeploying at runtime, over a folder that a little supervisor looks after."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from moorage_api import folder
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
from moorage_api.reasons import Reason
from moorage_gateway.backends import HttpBackends
from moorage_gateway.deployer import Deployer
from moorage_gateway.folder_store import FolderStore
from moorage_gateway.live import LiveTable
from moorage_gateway.registry import Registry
from moorage_gateway.usage import Usage

pytestmark = pytest.mark.anyio


class Supervisor:
    """Brings up what is asked for: writes the status that `moorage up` would.

    `verdicts` holds, for a model's URI, the reason why it does not come up; "" lets it load for
    ever. Until a new version is up the one before is said to answer.
    """

    def __init__(self, path: Path, resources: FolderStore, registry: Registry, making: Any) -> None:
        self._path = path
        self._resources = resources
        self._registry = registry
        self._making = making
        self._up: dict[Qualified, str] = {}
        self.verdicts: dict[str, str] = {}
        #: Every spec that was seen, in order.
        self.asked: list[tuple[str, str]] = []
        resources.subscribe(self._act)

    def _act(self) -> None:
        asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        told = False
        keys = set()
        for seen in self._resources.list():
            asked = seen.resource
            keys.add(asked.key)
            uri = asked.spec.model.uri
            if seen.is_current and self._up.get(asked.key) == uri:
                continue
            reason = self.verdicts.get(uri)
            if reason is None:
                self._up[asked.key] = uri
                observed = self._observation(asked, uri)
            else:
                before = self._up.get(asked.key)
                observed = self._observation(asked, before, reason or Reason.LOADING)
            name = self._path / folder.status_name(asked.key)
            text = folder.render_status(observed)
            if not name.is_file() or name.read_bytes() != text:
                self.asked.append((str(asked.key), uri))
                name.write_bytes(text)
                told = True
        for key in [key for key in self._up if key not in keys]:
            del self._up[key]
            (self._path / folder.status_name(key)).unlink()
        if told:
            self._resources.look()

    def _observation(self, asked: Any, uri: str | None, reason: str = "") -> Any:
        serving = asked
        signature = None
        addresses: list[str] = []
        if uri is not None:
            serving = self._making.resource(asked.key.name, model={"uri": uri})
            if uri.startswith("models:"):
                _, name, version = uri.split("/")
                signature = self._registry.find(name, version).signature
            addresses = [f"http://runtime/{uri.partition(':')[2]}"]
        return self._making.observation(
            serving,
            signature,
            addresses,
            reason=reason,
            message="as told" if reason else "",
            digest=folder.digest(asked),
        )


class Harbour:
    """The parts around a deployer."""

    def __init__(self, path: Path, making: Any, wait_s: float) -> None:
        self.path = path / "deployments"
        self.resources = FolderStore(self.path)
        self.registry = Registry(path / "models")
        self.live = LiveTable(self.resources, HttpBackends(), Usage())
        self.supervisor = Supervisor(self.path, self.resources, self.registry, making)
        self.deployer = Deployer(self.resources, self.registry, self.live, wait_s=wait_s)

    def routes(self) -> dict[str, tuple[str, str, str]]:
        """Each endpoint's deployment, model and version."""
        return {
            route.endpoint: (route.key.name, route.model, route.version)
            for route in self.live.table.routes.values()
        }

    def files(self) -> list[str]:
        return sorted(item.name for item in self.path.iterdir())


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, now: datetime, iris_onnx: bytes) -> Path:
    """A registry's folder, to be copied: a push waits for the disk."""
    path = tmp_path_factory.mktemp("registry") / "models"

    async def chunks() -> AsyncIterator[bytes]:
        yield iris_onnx

    async def push() -> None:
        registry = Registry(path)
        for name, version in (("iris", "1"), ("iris", "2"), ("rose", "1"), ("Big_Model", "1.0")):
            await registry.add(name, version, chunks(), now=now)

    asyncio.run(push())
    return path


@pytest.fixture
async def harbour(tmp_path: Path, making: Any, deadline_s: float, models: Path) -> Harbour:
    shutil.copytree(models, tmp_path / "models")
    return Harbour(tmp_path, making, deadline_s)


async def test_a_new_deployment_serves_at_its_own_endpoint(harbour: Harbour) -> None:
    outcome = await harbour.deployer.deploy("iris", "1")
    assert (outcome.is_new, outcome.is_ready) == (True, True)
    assert (outcome.route.endpoint, outcome.route.version) == ("iris-1", "1")
    assert harbour.routes() == {"iris-1": ("iris-1", "iris", "1")}
    assert harbour.live.table.endpoint("iris-1").is_ready


async def test_a_new_deployment_pins_the_bytes_and_says_who_made_it(harbour: Harbour) -> None:
    await harbour.deployer.deploy("iris", "1", "flowers")
    (seen,) = harbour.resources.list()
    assert seen.resource.spec.model.uri == "models:/iris/1"
    assert seen.resource.spec.model.sha256 == harbour.registry.find("iris", "1").sha256
    assert seen.resource.metadata.annotations == {"moorage.dev/source": "api"}


async def test_names_that_kubernetes_would_not_take_get_one_that_it_does(
    harbour: Harbour,
) -> None:
    outcome = await harbour.deployer.deploy("Big_Model", "1.0")
    assert outcome.route.endpoint == "Big_Model-1.0"
    assert harbour.live.table.endpoint("Big_Model-1.0").model == "Big_Model"
    assert outcome.route.key.name.startswith("big-model-1-0")


async def test_two_versions_serve_side_by_side(harbour: Harbour) -> None:
    for version in ("1", "2"):
        await harbour.deployer.deploy("iris", version)
    assert harbour.live.table.latest("iris").version == "2"
    assert harbour.live.table.latest("iris", "1").endpoint == "iris-1"


async def test_an_endpoint_moves_to_another_version_of_its_model(harbour: Harbour) -> None:
    await harbour.deployer.deploy("iris", "1", "flowers")
    outcome = await harbour.deployer.deploy("iris", "2", "flowers")
    assert (outcome.is_new, outcome.is_ready, outcome.route.version) == (False, True, "2")
    assert harbour.routes() == {"flowers": ("flowers", "iris", "2")}


async def test_the_version_before_answers_while_the_next_one_loads(
    harbour: Harbour, eventually: Any
) -> None:
    await harbour.deployer.deploy("iris", "1", "flowers")
    harbour.supervisor.verdicts["models:/iris/2"] = ""
    moving = asyncio.create_task(harbour.deployer.deploy("iris", "2", "flowers"))
    await eventually(lambda: ("default/flowers", "models:/iris/2") in harbour.supervisor.asked)
    route = harbour.live.table.endpoint("flowers")
    assert route.is_ready
    assert route.version == "1"
    assert not moving.done()
    del harbour.supervisor.verdicts["models:/iris/2"]
    harbour.supervisor._act()
    assert (await moving).route.version == "2"


async def test_what_serves_already_is_not_deployed_again(harbour: Harbour) -> None:
    first = await harbour.deployer.deploy("iris", "1", "flowers")
    asked = len(harbour.supervisor.asked)
    again = await harbour.deployer.deploy("iris", "1", "flowers")
    assert (again.is_new, again.is_ready, again.route) == (False, True, first.route)
    assert len(harbour.supervisor.asked) == asked


@pytest.mark.parametrize("reason", [Reason.BAD_MODEL, Reason.CRASH_LOOP, Reason.DOWNLOAD_FAILED])
async def test_a_new_deployment_that_fails_is_taken_back(harbour: Harbour, reason: Reason) -> None:
    harbour.supervisor.verdicts["models:/iris/1"] = reason
    with pytest.raises(ModelRejected, match=f"{reason}: as told"):
        await harbour.deployer.deploy("iris", "1")
    assert harbour.routes() == {}
    assert [name for name in harbour.files() if name.endswith(".yaml")] == []


async def test_a_move_that_fails_is_taken_back_and_the_version_before_serves(
    harbour: Harbour, eventually: Any
) -> None:
    await harbour.deployer.deploy("iris", "1", "flowers")
    before = (harbour.path / "default.flowers.yaml").read_bytes()
    harbour.supervisor.verdicts["models:/iris/2"] = Reason.BAD_MODEL
    with pytest.raises(ModelRejected, match="BadModel"):
        await harbour.deployer.deploy("iris", "2", "flowers")
    assert (harbour.path / "default.flowers.yaml").read_bytes() == before
    await eventually(lambda: harbour.live.table.endpoint("flowers").reason == Reason.SERVING)
    assert harbour.routes() == {"flowers": ("flowers", "iris", "1")}


async def test_a_model_that_loads_for_long_is_left_to_load(
    tmp_path: Path, making: Any, harbour: Harbour
) -> None:
    harbour.supervisor.verdicts["models:/iris/1"] = ""
    impatient = Deployer(harbour.resources, harbour.registry, harbour.live, wait_s=0.01)
    outcome = await impatient.deploy("iris", "1")
    assert (outcome.is_new, outcome.is_ready) == (True, False)
    assert not outcome.route.is_ready
    assert outcome.route.reason == Reason.LOADING
    assert "iris-1" in harbour.routes()


async def test_an_old_verdict_does_not_count_for_a_new_spec(
    harbour: Harbour, making: Any, eventually: Any
) -> None:
    """A status that speaks of the spec before says nothing of this one."""
    asked = making.resource("iris-1", model={"uri": "models:/iris/9"})
    observed = making.observation(asked, reason=Reason.BAD_MODEL, message="of version 9")
    making.tell(harbour.path, asked.key, observed)
    outcome = await harbour.deployer.deploy("iris", "1")
    assert outcome.is_ready


async def test_an_endpoint_of_another_model_is_not_taken(harbour: Harbour) -> None:
    await harbour.deployer.deploy("iris", "1", "flowers")
    with pytest.raises(EndpointTaken, match="'flowers' belongs to deployment 'default/flowers'"):
        await harbour.deployer.deploy("rose", "1", "flowers")
    assert harbour.routes() == {"flowers": ("flowers", "iris", "1")}


async def test_a_name_that_is_taken_under_another_endpoint_is_a_conflict(
    harbour: Harbour, making: Any
) -> None:
    await harbour.resources.put(making.resource("flowers", endpoint="elsewhere"))
    with pytest.raises(Conflict, match="default/flowers exists with another endpoint"):
        await harbour.deployer.deploy("iris", "1", "flowers")


async def test_what_somebody_keeps_in_a_file_of_his_own_is_not_moved(
    harbour: Harbour, making: Any
) -> None:
    asked = making.resource("flowers", model={"uri": "models:/iris/1"})
    making.write(harbour.path, asked)
    (harbour.path / "default.flowers.yaml").rename(harbour.path / "mine.yaml")
    harbour.resources.look()
    with pytest.raises(Conflict, match=r"mine\.yaml"):
        await harbour.deployer.deploy("iris", "2", "flowers")


@pytest.mark.parametrize(
    ("model", "version", "endpoint", "error"),
    [
        pytest.param("tulip", "1", "", UnknownModel, id="no such model"),
        pytest.param("iris", "3", "", UnknownVersion, id="no such version"),
        pytest.param("../iris", "1", "", InvalidName, id="a path for a model"),
        pytest.param("iris", "1", "a/b", InvalidName, id="a path for an endpoint"),
        pytest.param("iris", "1", "..", InvalidName, id="the folder above"),
    ],
)
async def test_what_cannot_be_deployed_writes_nothing(
    harbour: Harbour, model: str, version: str, endpoint: str, error: type[MoorageError]
) -> None:
    with pytest.raises(error):
        await harbour.deployer.deploy(model, version, endpoint)
    assert harbour.files() == []


async def test_what_is_removed_while_it_is_deployed_is_a_conflict(
    harbour: Harbour, eventually: Any
) -> None:
    harbour.supervisor.verdicts["models:/iris/1"] = ""
    deploying = asyncio.create_task(harbour.deployer.deploy("iris", "1"))
    await eventually(lambda: "iris-1" in harbour.routes())
    await harbour.resources.delete(Qualified("default", "iris-1"))
    with pytest.raises(Conflict, match="was removed while it was being deployed"):
        await deploying
    assert harbour.routes() == {}


async def test_a_deploy_that_is_cancelled_is_taken_back(harbour: Harbour, eventually: Any) -> None:
    harbour.supervisor.verdicts["models:/iris/1"] = ""
    deploying = asyncio.create_task(harbour.deployer.deploy("iris", "1"))
    await eventually(lambda: "iris-1" in harbour.routes())
    deploying.cancel()
    with suppress(asyncio.CancelledError):
        await deploying
    assert harbour.routes() == {}


async def test_deploys_of_one_endpoint_take_turns(harbour: Harbour) -> None:
    outcomes = await asyncio.gather(
        *(harbour.deployer.deploy("iris", version, "flowers") for version in ("1", "2", "1", "2"))
    )
    assert [outcome.route.version for outcome in outcomes] == ["1", "2", "1", "2"]
    # Whose turn comes first is open.
    assert sum(outcome.is_new for outcome in outcomes) == 1


async def test_others_do_not_wait_for_a_model_that_loads_for_long(
    harbour: Harbour, eventually: Any
) -> None:
    await harbour.deployer.deploy("rose", "1")
    harbour.supervisor.verdicts["models:/iris/2"] = ""
    slow = asyncio.create_task(harbour.deployer.deploy("iris", "2"))
    await eventually(lambda: "iris-2" in harbour.routes())
    await harbour.deployer.deploy("iris", "1")
    await harbour.deployer.undeploy(endpoint="rose-1")
    assert sorted(harbour.routes()) == ["iris-1", "iris-2"]
    assert not slow.done()
    slow.cancel()
    with suppress(asyncio.CancelledError):
        await slow


async def test_undeploying_an_endpoint_removes_it_and_tells_how_it_was(harbour: Harbour) -> None:
    await harbour.deployer.deploy("iris", "1", "flowers")
    await harbour.deployer.deploy("rose", "1", "garden")
    harbour.live.usage.of(harbour.live.table.endpoint("flowers")).count("v2", 200, 0.5)
    (tally,) = await harbour.deployer.undeploy(endpoint="flowers")
    assert (tally.route.endpoint, tally.requests, tally.average_ms) == ("flowers", 1, 500.0)
    assert list(harbour.routes()) == ["garden"]
    assert "default.flowers.yaml" not in harbour.files()


async def test_undeploying_a_model_version_removes_every_deployment_of_it(
    harbour: Harbour,
) -> None:
    for version, endpoint in (("1", "a"), ("1", "b"), ("2", "c")):
        await harbour.deployer.deploy("iris", version, endpoint)
    tallies = await harbour.deployer.undeploy(model="iris", version="1")
    assert {tally.route.endpoint for tally in tallies} == {"a", "b"}
    assert list(harbour.routes()) == ["c"]


async def test_an_endpoint_can_be_deployed_again_after_it_was_undeployed(
    harbour: Harbour,
) -> None:
    await harbour.deployer.deploy("iris", "1", "flowers")
    await harbour.deployer.undeploy(endpoint="flowers")
    outcome = await harbour.deployer.deploy("rose", "1", "flowers")
    assert (outcome.is_new, outcome.route.model) == (True, "rose")


async def test_undeploying_waits_for_requests_under_way_and_takes_no_new_one(
    harbour: Harbour, eventually: Any
) -> None:
    await harbour.deployer.deploy("iris", "1", "flowers")
    tally = harbour.live.usage.of(harbour.live.table.endpoint("flowers"))
    tally.in_flight = 2
    undeploying = asyncio.create_task(harbour.deployer.undeploy(endpoint="flowers"))
    await eventually(lambda: not harbour.routes())
    with pytest.raises(UnknownEndpoint):
        harbour.live.table.endpoint("flowers")
    # The runtime has to stay: the resource is still there.
    assert "default.flowers.yaml" in harbour.files()
    tally.in_flight = 0
    await undeploying
    assert "default.flowers.yaml" not in harbour.files()


@pytest.mark.parametrize(
    ("asked", "error", "words"),
    [
        pytest.param({"endpoint": "garden"}, UnknownEndpoint, "flowers", id="endpoint"),
        pytest.param({"model": "rose", "version": "1"}, UnknownModel, "iris", id="model"),
        pytest.param({"model": "iris", "version": "2"}, UnknownVersion, "are: 1", id="version"),
    ],
)
async def test_undeploying_what_is_not_there_says_what_there_is(
    harbour: Harbour, asked: Any, error: type[MoorageError], words: str
) -> None:
    await harbour.deployer.deploy("iris", "1", "flowers")
    with pytest.raises(error, match=words):
        await harbour.deployer.undeploy(**asked)
    assert list(harbour.routes()) == ["flowers"]


async def test_undeploying_what_somebody_keeps_in_a_file_is_a_conflict_and_it_goes_on_serving(
    harbour: Harbour, making: Any
) -> None:
    making.write(harbour.path, making.resource("flowers", model={"uri": "models:/iris/1"}))
    (harbour.path / "default.flowers.yaml").rename(harbour.path / "mine.yaml")
    harbour.resources.look()
    revision = harbour.live.revision
    with pytest.raises(Conflict, match=r"mine\.yaml"):
        await harbour.deployer.undeploy(endpoint="flowers")
    assert list(harbour.routes()) == ["flowers"]
    # It was not away for a moment either.
    assert harbour.live.revision == revision
