"""The folder that stands for the API server: who owns what in it, and in which order."""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from moorage_api import folder, keys, v1alpha1
from moorage_api.folder import Observed
from moorage_api.names import Qualified
from moorage_api.reasons import Condition, Reason
from moorage_api.v1alpha1 import ConditionStatus, ModelDeployment, ModelDeploymentStatus
from moorage_cli.local.state_folder import StateFolder

Make = Callable[..., ModelDeployment]


@pytest.fixture
def make(document: Callable[..., dict[str, Any]]) -> Make:
    """Make a ModelDeployment; `source` says where it came from."""

    def made(*args: Any, source: str = "", **kwargs: Any) -> ModelDeployment:
        found = document(*args, **kwargs)
        if source:
            found["metadata"]["annotations"] = {keys.ANNOTATION_SOURCE: source}
        return v1alpha1.load(found)

    return made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the state lies."""
    return tmp_path / "data" / "deployments"


@pytest.fixture
def state(path: Path) -> StateFolder:
    """Open an empty state folder."""
    return StateFolder(path)


def names(state: StateFolder) -> list[str]:
    return [resource.metadata.name for resource in state.list()]


def observed(resource: ModelDeployment, message: str = "") -> Observed:
    condition = ConditionStatus(
        type=Condition.READY,
        status="True",
        reason=Reason.SERVING,
        message=message,
        last_transition_time=datetime(2026, 1, 1, tzinfo=UTC),
    )
    status = ModelDeploymentStatus(conditions=[condition])
    return Observed(folder.digest(resource), ("http://127.0.0.1:9000",), status)


def test_what_is_put_is_listed_as_it_was(state: StateFolder, make: Make) -> None:
    resource = make("a", endpoint="x", replicas=0)
    state.put(resource)
    assert state.list() == [resource]


def test_resources_are_listed_oldest_first(state: StateFolder, make: Make) -> None:
    for name in "cab":
        state.put(make(name))
        assert names(state)[-1] == name
    assert names(state) == ["c", "a", "b"]


def test_a_changed_resource_keeps_its_place_and_thereby_its_endpoint(
    state: StateFolder, make: Make
) -> None:
    for name in "ab":
        state.put(make(name))
        state.list()
    state.put(make("a", version="2"))
    assert names(state) == ["a", "b"]
    assert state.list()[0].model_version == "2"


def test_a_resource_that_comes_back_is_the_youngest(state: StateFolder, make: Make) -> None:
    for name in "ab":
        state.put(make(name))
        state.list()
    state.remove(make("a").key)
    assert names(state) == ["b"]
    state.put(make("a"))
    assert names(state) == ["b", "a"]


def test_what_has_not_changed_is_not_written(state: StateFolder, path: Path, make: Make) -> None:
    state.put(make("a"))
    (file,) = path.iterdir()
    os.utime(file, ns=(1, 1))
    state.put(make("a"))
    assert file.stat().st_mtime_ns == 1
    state.put(make("a", version="2"))
    assert file.stat().st_mtime_ns != 1


def test_files_replace_what_files_said_and_leave_what_the_gateway_made(
    state: StateFolder, tmp_path: Path, make: Make
) -> None:
    state.put(make("made", source=keys.SOURCE_API))
    state.replace_files({tmp_path / "1.yaml": [make("a"), make("b")], tmp_path / "2.yaml": []})
    assert set(names(state)) == {"made", "a", "b"}
    state.replace_files({tmp_path / "1.yaml": [make("b"), make("c")]})
    assert set(names(state)) == {"made", "b", "c"}


def test_a_resource_of_a_file_has_its_model_beside_that_file(
    state: StateFolder, tmp_path: Path, make: Make
) -> None:
    file = tmp_path / "below" / "a.yaml"
    state.replace_files({file: [make("a", uri="file:m.onnx")]})
    (resource,) = state.list()
    assert resource.spec.model.uri == f"file:{file.resolve().parent}/m.onnx"
    assert resource.metadata.annotations[keys.ANNOTATION_SOURCE] == str(file.resolve())


def test_replacing_by_the_same_writes_nothing(
    state: StateFolder, path: Path, tmp_path: Path, make: Make
) -> None:
    state.replace_files({tmp_path / "1.yaml": [make("a")]})
    (file,) = path.iterdir()
    os.utime(file, ns=(1, 1))
    state.replace_files({tmp_path / "1.yaml": [make("a")]})
    assert file.stat().st_mtime_ns == 1


class TestFilesAgain:
    """What files say once more: only what they say otherwise than before is done."""

    @pytest.fixture
    def taken(self, state: StateFolder, tmp_path: Path, make: Make) -> StateFolder:
        """Hold two resources of two files."""
        state.replace_files({tmp_path / "1.yaml": [make("a")], tmp_path / "2.yaml": [make("b")]})
        return state

    def test_what_was_undeployed_stays_so_when_another_file_changes(
        self, taken: StateFolder, tmp_path: Path, make: Make
    ) -> None:
        taken.remove(make("a").key)
        taken.replace_files(
            {tmp_path / "1.yaml": [make("a")], tmp_path / "2.yaml": [make("b", replicas=2)]}
        )
        assert names(taken) == ["b"]
        assert taken.list()[0].spec.replicas == 2

    def test_what_was_moved_stays_so_beside_a_change_in_the_same_file(
        self, taken: StateFolder, tmp_path: Path, make: Make
    ) -> None:
        moved = make("a", version="7", source=str(tmp_path / "1.yaml"))
        taken.put(moved)
        taken.replace_files({tmp_path / "1.yaml": [make("a"), make("c")]})
        assert {item.metadata.name: item.model_version for item in taken.list()} == {
            "a": "7",
            "c": "1",
        }

    def test_a_document_that_changes_holds_again(
        self, taken: StateFolder, tmp_path: Path, make: Make
    ) -> None:
        taken.remove(make("a").key)
        taken.put(make("b", version="7"))
        found = {tmp_path / "1.yaml": [make("a", version="2"), make("b", version="2")]}
        taken.replace_files(found)
        assert [item.model_version for item in taken.list()] == ["2", "2"]

    def test_a_renamed_file_says_nothing_new(
        self, taken: StateFolder, tmp_path: Path, make: Make
    ) -> None:
        taken.remove(make("a").key)
        taken.replace_files({tmp_path / "3.yaml": [make("a"), make("b")]})
        assert names(taken) == ["b"]

    def test_a_document_that_goes_and_comes_back_holds_again(
        self, taken: StateFolder, tmp_path: Path, make: Make
    ) -> None:
        taken.remove(make("a").key)
        taken.replace_files({tmp_path / "2.yaml": [make("b")]})
        taken.replace_files({tmp_path / "1.yaml": [make("a")], tmp_path / "2.yaml": [make("b")]})
        assert set(names(taken)) == {"a", "b"}

    def test_what_vanishes_from_the_files_goes_in_whatever_version_it_is(
        self, taken: StateFolder, tmp_path: Path, make: Make
    ) -> None:
        taken.put(make("a", version="7", source=str(tmp_path / "1.yaml")))
        taken.replace_files({tmp_path / "2.yaml": [make("b")]})
        assert names(taken) == ["b"]

    def test_what_the_gateway_made_under_a_name_that_vanishes_stays(
        self, taken: StateFolder, tmp_path: Path, make: Make
    ) -> None:
        taken.put(make("a", version="7", source=keys.SOURCE_API))
        taken.replace_files({tmp_path / "2.yaml": [make("b")]})
        assert set(names(taken)) == {"a", "b"}

    def test_at_the_next_start_everything_that_files_say_holds(
        self, taken: StateFolder, path: Path, tmp_path: Path, make: Make
    ) -> None:
        taken.remove(make("a").key)
        taken.put(make("b", version="7"))
        taken.put(make("made", source=keys.SOURCE_API))
        again = StateFolder(path)
        again.replace_files({tmp_path / "1.yaml": [make("a")], tmp_path / "2.yaml": [make("b")]})
        versions = {item.metadata.name: item.model_version for item in again.list()}
        assert versions == {"a": "1", "b": "1", "made": "1"}


def test_a_resource_that_another_process_writes_is_seen(
    state: StateFolder, path: Path, make: Make
) -> None:
    StateFolder(path).put(make("a"))
    assert names(state) == ["a"]
    StateFolder(path).put(make("a", version="2"))
    assert state.list()[0].model_version == "2"
    StateFolder(path).remove(make("a").key)
    assert names(state) == []


def test_a_file_that_becomes_wrong_holds_what_it_said(
    state: StateFolder, path: Path, make: Make
) -> None:
    state.put(make("a"))
    state.put(make("b"))
    assert set(names(state)) == {"a", "b"}
    for text in (b"a: [", b"\xff"):
        (path / folder.file_name(make("a").key)).write_bytes(text)
        assert set(names(state)) == {"a", "b"}


def test_a_file_that_was_never_good_is_left_out(state: StateFolder, path: Path, make: Make) -> None:
    (path / "x.yaml").write_text("kind: Pod\n", encoding="utf-8")
    state.put(make("a"))
    assert names(state) == ["a"]


def test_a_file_that_vanishes_while_it_is_looked_at_is_left_out(
    state: StateFolder, path: Path, make: Make
) -> None:
    # As the gateway removes one at any moment: its name is there, and nothing behind it.
    (path / "default.gone.yaml").symlink_to(path / "nowhere")
    state.put(make("a"))
    assert names(state) == ["a"]


def test_what_is_told_can_be_read_back(state: StateFolder, path: Path, make: Make) -> None:
    resource = make("a")
    state.tell(resource.key, observed(resource))
    assert folder.parse_status((path / folder.status_name(resource.key)).read_bytes()) == observed(
        resource
    )
    assert [item.name for item in path.iterdir()] == [folder.status_name(resource.key)]


def test_what_is_no_news_is_not_told_again(state: StateFolder, path: Path, make: Make) -> None:
    resource = make("a")
    state.tell(resource.key, observed(resource))
    file = path / folder.status_name(resource.key)
    os.utime(file, ns=(1, 1))
    state.tell(resource.key, observed(resource))
    assert file.stat().st_mtime_ns == 1
    state.tell(resource.key, observed(resource, "news"))
    assert file.stat().st_mtime_ns != 1


def test_what_was_forgotten_is_told_again(state: StateFolder, path: Path, make: Make) -> None:
    resource = make("a")
    file = path / folder.status_name(resource.key)
    for forget in (state.forget, state.remove):
        state.tell(resource.key, observed(resource))
        assert file.exists()
        forget(resource.key)
        assert not file.exists()
        forget(resource.key)


def test_everything_that_an_earlier_process_said_is_forgotten(
    state: StateFolder, path: Path, make: Make
) -> None:
    resource = make("a")
    state.put(resource)
    state.tell(resource.key, observed(resource))
    state.tell(Qualified("other", "b"), observed(resource))
    StateFolder(path).forget_all()
    assert [item.name for item in path.iterdir()] == [folder.file_name(resource.key)]
