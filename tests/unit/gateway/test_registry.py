"""Immutable model versions on disk."""

import asyncio
import hashlib
import os
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moorage_api.errors import (
    BadModel,
    BodyTooLarge,
    ChecksumMismatch,
    InvalidName,
    MoorageError,
    UnknownModel,
    UnknownVersion,
    VersionExists,
)
from moorage_gateway.registry import Registry, StoredModel

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def registry(path: Path) -> Registry:
    return Registry(path, max_bytes=100_000)


async def chunks_of(content: bytes, size: int = 64) -> AsyncIterator[bytes]:
    for at in range(0, len(content), size):
        yield content[at : at + size]


@pytest.fixture
def add(registry: Registry, now: datetime) -> Callable[..., Any]:
    async def add(
        content: bytes, name: str = "iris", version: str = "", **options: Any
    ) -> tuple[StoredModel, bool]:
        return await registry.add(name, version, chunks_of(content), now=now, **options)

    return add


def left_over(path: Path) -> list[str]:
    """Everything below the registry's folder that is not a stored model."""
    return sorted(
        str(item.relative_to(path))
        for item in path.rglob("*")
        if item.is_file() and item.name not in ("model.onnx", "model.json")
    ) + [str(item) for item in (path / ".incoming").iterdir()]


async def test_a_stored_version_is_found_with_what_its_file_says(
    registry: Registry, add: Any, iris_onnx: bytes, now: datetime, path: Path
) -> None:
    digest = hashlib.sha256(iris_onnx).hexdigest()
    model, is_new = await add(iris_onnx, "iris", "1.0-rc1", sha256=digest)
    assert is_new
    assert registry.find("iris", "1.0-rc1") == model
    assert registry.file(registry.find("iris", "1.0-rc1")).read_bytes() == iris_onnx
    assert (model.sha256, model.size, model.created_at) == (digest, len(iris_onnx), now)
    assert model.uri == "models:/iris/1.0-rc1"
    assert [str(spec) for spec in model.signature.inputs] == ["FP32 [-1, 4]"]
    assert [spec.name for spec in model.signature.outputs] == ["label", "probabilities"]
    assert model.opsets["ai.onnx"] > 0
    assert left_over(path) == []


async def test_a_stored_version_outlives_the_process(
    registry: Registry, add: Any, iris_onnx: bytes, path: Path
) -> None:
    model, _ = await add(iris_onnx, "iris", "1")
    assert Registry(path).models() == {"iris": [model]}


async def test_versions_that_are_not_named_are_numbered(
    add: Any, iris_onnx: bytes, forest_onnx: bytes
) -> None:
    found = [(await add(content))[0].version for content in (iris_onnx, forest_onnx, iris_onnx)]
    assert found == ["1", "2", "3"]


async def test_the_next_number_is_above_the_highest_and_words_do_not_count(
    add: Any, iris_onnx: bytes
) -> None:
    for version in ("9", "10", "2024-01", "v99"):
        await add(iris_onnx, "iris", version)
    model, _ = await add(iris_onnx)
    assert model.version == "11"


async def test_versions_are_listed_as_people_count(
    registry: Registry, add: Any, iris_onnx: bytes
) -> None:
    order = ["1", "2", "10", "10.1", "rc1"]
    for version in ("10.1", "2", "rc1", "10", "1"):
        await add(iris_onnx, "iris", version)
    await add(iris_onnx, "another")
    assert [model.version for model in registry.versions("iris")] == order
    assert list(registry.models()) == ["another", "iris"]


async def test_the_same_bytes_again_are_no_error_and_nothing_new(
    registry: Registry, add: Any, iris_onnx: bytes, path: Path
) -> None:
    first, _ = await add(iris_onnx, "iris", "1")
    stamp = registry.file(registry.find("iris", "1")).stat().st_mtime_ns
    assert await add(iris_onnx, "iris", "1") == (first, False)
    assert registry.file(registry.find("iris", "1")).stat().st_mtime_ns == stamp
    assert left_over(path) == []


async def test_a_version_never_changes(
    registry: Registry, add: Any, iris_onnx: bytes, forest_onnx: bytes, path: Path
) -> None:
    first, _ = await add(iris_onnx, "iris", "1")
    with pytest.raises(VersionExists, match=f"models:/iris/1 .*{first.sha256}"):
        await add(forest_onnx, "iris", "1")
    assert registry.file(registry.find("iris", "1")).read_bytes() == iris_onnx
    assert left_over(path) == []


@pytest.mark.parametrize(
    ("damage", "options", "error", "words"),
    [
        pytest.param(lambda _: b"", {}, BadModel, "empty", id="an empty file"),
        pytest.param(lambda _: b"{}" * 100, {}, BadModel, "ONNX", id="JSON"),
        pytest.param(lambda _: bytes(range(256)), {}, BadModel, "ONNX", id="any bytes"),
        pytest.param(lambda whole: whole[:-1], {}, BadModel, "ONNX", id="a byte is missing"),
        pytest.param(lambda whole: whole[: len(whole) // 2], {}, BadModel, "ONNX", id="half of it"),
        pytest.param(lambda whole: whole[:3], {}, BadModel, "ONNX", id="three bytes of it"),
        pytest.param(
            lambda whole: whole, {"sha256": "0" * 64}, ChecksumMismatch, "0000", id="another sha256"
        ),
        pytest.param(lambda _: bytes(100_001), {}, BodyTooLarge, "100000", id="a byte too many"),
    ],
)
async def test_what_is_not_the_model_that_was_meant_is_refused_and_leaves_nothing(
    registry: Registry,
    add: Any,
    iris_onnx: bytes,
    path: Path,
    damage: Callable[[bytes], bytes],
    options: Any,
    error: type[MoorageError],
    words: str,
) -> None:
    with pytest.raises(error, match=words):
        await add(damage(iris_onnx), "iris", "1", **options)
    assert registry.models() == {}
    assert left_over(path) == []


@given(cut=st.integers(0, 717), noise=st.binary(max_size=8))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
def test_a_damaged_file_is_a_model_or_refused_and_never_a_surprise(
    registry: Registry, iris_onnx: bytes, now: datetime, path: Path, cut: int, noise: bytes
) -> None:
    content = iris_onnx[:cut] + noise + iris_onnx[cut + len(noise) :]
    try:
        asyncio.run(registry.add("iris", "", chunks_of(content), now=now))
    except BadModel:
        assert left_over(path) == []


async def test_a_stream_that_breaks_leaves_nothing(
    registry: Registry, iris_onnx: bytes, now: datetime, path: Path
) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield iris_onnx[:100]
        raise ConnectionResetError("the client is gone")

    with pytest.raises(ConnectionResetError):
        await registry.add("iris", "1", broken(), now=now)
    assert registry.models() == {}
    assert left_over(path) == []


async def test_others_are_served_while_the_disk_takes_its_time(
    add: Any, iris_onnx: bytes, monkeypatch: pytest.MonkeyPatch, eventually: Any, deadline_s: float
) -> None:
    begun, go = threading.Event(), threading.Event()

    def slow(_: int) -> None:
        begun.set()
        # On the event loop's own thread nobody could end this wait.
        assert go.wait(deadline_s)

    monkeypatch.setattr(os, "fsync", slow)
    adding = asyncio.create_task(add(iris_onnx))
    await eventually(begun.is_set)
    go.set()
    _, is_new = await adding
    assert is_new


async def test_a_file_of_exactly_the_limit_is_taken(
    iris_onnx: bytes, now: datetime, path: Path
) -> None:
    registry = Registry(path, max_bytes=len(iris_onnx))
    _, is_new = await registry.add("iris", "1", chunks_of(iris_onnx), now=now)
    assert is_new


WRONG_NAMES: Sequence[Any] = [
    pytest.param("", id="empty"),
    pytest.param(".", id="this folder"),
    pytest.param("..", id="the folder above"),
    pytest.param("../iris", id="a path upwards"),
    pytest.param("a/b", id="a path"),
    pytest.param("/etc", id="an absolute path"),
    pytest.param("a\\b", id="a backslash"),
    pytest.param(".incoming", id="the registry's own folder"),
    pytest.param("iris\n", id="a line feed at the end"),
    pytest.param("iris\0", id="a null byte"),
    pytest.param("iris?", id="a query"),
    pytest.param("ïris", id="a letter beyond ASCII"),
    pytest.param("a" * 64, id="too long"),
    pytest.param("iris.", id="a dot at the end"),
]


@pytest.mark.parametrize("name", [*WRONG_NAMES, pytest.param("stats", id="a reserved word")])
async def test_a_name_that_is_no_name_is_refused_everywhere(
    registry: Registry, add: Any, iris_onnx: bytes, name: str
) -> None:
    with pytest.raises(InvalidName):
        await add(iris_onnx, name, "1")
    for look in (lambda: registry.find(name, "1"), lambda: registry.versions(name)):
        with pytest.raises(InvalidName):
            look()
    with pytest.raises(InvalidName):
        registry.file(registry.find(name, "1"))


@pytest.mark.parametrize("version", WRONG_NAMES[1:])
async def test_a_version_that_is_no_version_is_refused_everywhere(
    registry: Registry, add: Any, iris_onnx: bytes, version: str
) -> None:
    with pytest.raises(InvalidName):
        await add(iris_onnx, "iris", version)
    with pytest.raises(InvalidName):
        registry.find("iris", version)


async def test_what_is_not_there_is_told_with_what_is(
    registry: Registry, add: Any, iris_onnx: bytes
) -> None:
    await add(iris_onnx, "iris", "1")
    with pytest.raises(UnknownModel, match="there are: iris"):
        registry.versions("rose")
    with pytest.raises(UnknownModel, match="there are: iris"):
        registry.file(registry.find("rose", "1"))
    with pytest.raises(UnknownVersion, match="there are: 1"):
        registry.find("iris", "2")


async def test_concurrent_uploads_get_a_number_each(
    registry: Registry, add: Any, iris_onnx: bytes, forest_onnx: bytes
) -> None:
    contents = [iris_onnx, forest_onnx] * 8
    found = await asyncio.gather(*(add(content) for content in contents))
    assert sorted(int(model.version) for model, _ in found) == list(range(1, 17))
    for (model, _), content in zip(found, contents, strict=True):
        assert registry.file(registry.find("iris", model.version)).read_bytes() == content


async def test_of_concurrent_uploads_of_one_version_one_kind_of_bytes_wins(
    registry: Registry, add: Any, iris_onnx: bytes, forest_onnx: bytes
) -> None:
    contents = [iris_onnx, forest_onnx] * 4
    found = await asyncio.gather(
        *(add(content, "iris", "1") for content in contents), return_exceptions=True
    )
    refused = [item for item in found if isinstance(item, VersionExists)]
    stored = [item for item in found if isinstance(item, tuple)]
    assert len(refused) == len(stored) == 4
    assert [is_new for _, is_new in stored].count(True) == 1


async def test_what_an_earlier_process_left_half_way_is_cleared(
    add: Any, iris_onnx: bytes, path: Path
) -> None:
    await add(iris_onnx, "iris", "1")
    half = path / ".incoming" / "0123"
    half.mkdir()
    (half / "model.onnx").write_bytes(iris_onnx)
    registry = Registry(path)
    assert left_over(path) == []
    assert list(registry.models()) == ["iris"]


async def test_what_is_no_model_in_the_folder_is_passed_over(
    registry: Registry, add: Any, iris_onnx: bytes, path: Path
) -> None:
    await add(iris_onnx, "iris", "1")
    (path / "README").write_text("hello")
    (path / "lost+found").mkdir()
    (path / "iris" / "notes.txt").write_text("hello")
    (path / "iris" / "2").mkdir()
    assert [model.version for model in registry.models()["iris"]] == ["1"]
    assert list(registry.models()) == ["iris"]
