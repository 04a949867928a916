"""Resources in a folder of YAML files, and what a supervisor says of them."""

import asyncio
import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from moorage_api import folder
from moorage_api.errors import Conflict
from moorage_api.names import Qualified
from moorage_gateway.folder_store import FolderStore

pytestmark = pytest.mark.anyio

KEY = Qualified("default", "m")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deployments"


@pytest.fixture
def resources(path: Path) -> FolderStore:
    return FolderStore(path)


def names_of(resources: FolderStore) -> list[str]:
    return [str(seen.resource.key) for seen in resources.list()]


def test_the_folder_is_made(path: Path) -> None:
    assert FolderStore(path).list() == ()
    assert path.is_dir()


def test_what_is_there_at_the_start_is_listed(path: Path, making: Any) -> None:
    path.mkdir()
    making.write(path, making.resource("m"))
    assert names_of(FolderStore(path)) == ["default/m"]


async def test_what_is_put_is_listed_and_told_of(resources: FolderStore, making: Any) -> None:
    told: list[list[str]] = []
    resources.subscribe(lambda: told.append(names_of(resources)))
    await resources.put(making.resource("m", replicas=2))
    assert told == [["default/m"]]
    (seen,) = resources.list()
    assert seen.resource.spec.replicas == 2
    assert seen.addresses == ()


async def test_what_is_put_can_be_read_by_another_process(
    resources: FolderStore, path: Path, making: Any
) -> None:
    asked = making.resource("m", "crm", logging={"samplePercent": 5}, endpoint="e_1")
    await resources.put(asked)
    (seen,) = FolderStore(path).list()
    assert seen.resource == asked
    assert [item.name for item in path.iterdir()] == ["crm.m.yaml"]


async def test_what_is_put_again_keeps_its_place(resources: FolderStore, making: Any) -> None:
    for name in ("b", "a", "c"):
        await resources.put(making.resource(name))
    await resources.put(making.resource("b", replicas=9))
    assert names_of(resources) == ["default/b", "default/a", "default/c"]
    assert resources.list()[0].resource.spec.replicas == 9


async def test_what_is_deleted_is_gone_and_told_of(
    resources: FolderStore, path: Path, making: Any
) -> None:
    await resources.put(making.resource("m"))
    told: list[list[str]] = []
    resources.subscribe(lambda: told.append(names_of(resources)))
    await resources.delete(KEY)
    assert told == [[]]
    assert [*path.iterdir()] == []


async def test_deleting_what_is_not_there_does_nothing(resources: FolderStore) -> None:
    told: list[None] = []
    resources.subscribe(lambda: told.append(None))
    await resources.delete(KEY)
    assert told == []


async def test_what_somebody_keeps_in_another_file_is_left_alone(
    resources: FolderStore, path: Path, making: Any
) -> None:
    making.write(path, making.resource("m"))
    (path / "default.m.yaml").rename(path / "mine.yml")
    resources.look()
    for change in (resources.put(making.resource("m")), resources.delete(KEY)):
        with pytest.raises(Conflict, match=r"default/m is defined in the file mine\.yml"):
            await change
    assert [item.name for item in path.iterdir()] == ["mine.yml"]


def test_a_status_of_this_very_spec_is_current(
    resources: FolderStore, path: Path, making: Any, signatures: Any
) -> None:
    asked = making.resource("m")
    making.write(path, asked)
    addresses = ("http://a", "http://b")
    making.tell(path, KEY, making.observation(asked, signatures["row"], addresses))
    resources.look()
    (seen,) = resources.list()
    assert seen.is_current
    assert seen.addresses == addresses
    assert seen.resource.status.phase == "Ready"


def test_a_status_of_another_spec_is_not_current(
    resources: FolderStore, path: Path, making: Any
) -> None:
    making.tell(path, KEY, making.observation(making.resource("m"), addresses=["http://a"]))
    making.write(path, making.resource("m", replicas=2))
    resources.look()
    (seen,) = resources.list()
    assert not seen.is_current
    assert seen.addresses == ("http://a",)


def test_a_status_that_goes_is_told_of(resources: FolderStore, path: Path, making: Any) -> None:
    asked = making.resource("m")
    making.write(path, asked)
    making.tell(path, KEY, making.observation(asked, addresses=["http://a"]))
    resources.look()
    told: list[tuple[str, ...]] = []
    resources.subscribe(lambda: told.append(resources.list()[0].addresses))
    (path / folder.status_name(KEY)).unlink()
    resources.look()
    assert told == [()]


def test_without_a_supervisor_the_status_in_the_file_counts(
    resources: FolderStore, path: Path
) -> None:
    (path / "m.yaml").write_text(
        """
apiVersion: moorage.dev/v1alpha1
kind: ModelDeployment
metadata: {name: m}
spec: {model: {uri: "file:/m.onnx"}}
status:
  address: {url: "http://runtime:9000"}
  model: {inputs: [{name: x, datatype: FP32, shape: [-1]}], outputs: []}
"""
    )
    resources.look()
    (seen,) = resources.list()
    assert seen.addresses == ("http://runtime:9000",)
    assert seen.is_current


def test_a_file_with_several_resources_gives_them_all(
    resources: FolderStore, path: Path, making: Any
) -> None:
    for name in ("a", "b"):
        making.write(path, making.resource(name))
    whole = "---\n".join(item.read_text() for item in sorted(path.iterdir()))
    (path / "default.b.yaml").unlink()
    (path / "default.a.yaml").write_text(whole)
    resources.look()
    assert names_of(resources) == ["default/a", "default/b"]


def test_of_two_files_with_one_name_the_first_counts(
    resources: FolderStore, path: Path, making: Any
) -> None:
    making.write(path, making.resource("m", replicas=1))
    resources.look()
    text = (path / "default.m.yaml").read_text().replace("replicas: 1", "replicas: 5")
    (path / "aaa.yaml").write_text(text)
    resources.look()
    assert [seen.resource.spec.replicas for seen in resources.list()] == [1]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("spec: [", id="not YAML"),
        pytest.param("kind: Pod", id="another kind"),
        pytest.param("", id="nothing"),
        pytest.param("\udcff", id="not UTF-8"),
    ],
)
def test_a_file_that_cannot_be_read_keeps_what_it_said_and_is_told_of_once(
    resources: FolderStore, path: Path, making: Any, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    making.write(path, making.resource("m", replicas=4))
    resources.look()
    (path / "default.m.yaml").write_bytes(text.encode("utf-8", "surrogateescape"))
    resources.look()
    resources.look()
    assert [seen.resource.spec.replicas for seen in resources.list()] == [4]
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1
    making.write(path, making.resource("m", replicas=5))
    resources.look()
    assert [seen.resource.spec.replicas for seen in resources.list()] == [5]


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"{}", b'{"spec": "", "addresses": 1}', b"\xff"]
)
def test_a_status_that_cannot_be_read_leaves_the_one_before_and_is_told_of_once(
    resources: FolderStore,
    path: Path,
    making: Any,
    caplog: pytest.LogCaptureFixture,
    text: bytes,
) -> None:
    asked = making.resource("m")
    making.write(path, asked)
    making.tell(path, KEY, making.observation(asked, addresses=["http://a"]))
    resources.look()
    (path / folder.status_name(KEY)).write_bytes(text)
    resources.look()
    resources.look()
    assert resources.list()[0].addresses == ("http://a",)
    assert len(caplog.records) == 1


def test_other_files_are_not_read(resources: FolderStore, path: Path) -> None:
    for name in ("README.md", ".default.m.yaml.part", "default.m.part", "model.onnx"):
        (path / name).write_text("kind: Pod")
    told: list[None] = []
    resources.subscribe(lambda: told.append(None))
    resources.look()
    assert told == []


def test_a_folder_that_is_gone_for_a_moment_keeps_what_it_held(
    resources: FolderStore, path: Path, making: Any
) -> None:
    making.write(path, making.resource("m"))
    resources.look()
    path.rename(path.with_name("elsewhere"))
    resources.look()
    assert names_of(resources) == ["default/m"]


def test_looking_at_what_has_not_changed_tells_nobody(
    resources: FolderStore, path: Path, making: Any
) -> None:
    making.write(path, making.resource("m"))
    resources.look()
    told: list[None] = []
    resources.subscribe(lambda: told.append(None))
    resources.look()
    assert told == []


async def test_a_watched_folder_tells_of_changes_by_itself(
    resources: FolderStore, path: Path, making: Any, deadline_s: float
) -> None:
    changed = asyncio.Event()
    resources.subscribe(changed.set)
    watch = asyncio.create_task(resources.run())
    try:
        making.write(path, making.resource("m"))
        async with asyncio.timeout(deadline_s):
            await changed.wait()
        assert names_of(resources) == ["default/m"]
    finally:
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch
