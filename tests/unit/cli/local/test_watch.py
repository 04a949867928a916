"""What is noticed of the user's files, and what holds when they are wrong."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moorage_api.errors import InvalidResource
from moorage_cli.local.watch import Seen, Watch

Document = Callable[..., dict[str, Any]]
Write = Callable[..., Path]


def held(seen: Seen) -> dict[str, str]:
    """Return the version of each deployment that holds now, by its name."""
    assert seen.said is not None
    return {
        resource.metadata.name: resource.model_version
        for said in seen.said.values()
        for resource in said
    }


def settle(watch: Watch) -> dict[str, str]:
    """Look until nothing is news; return what holds then."""
    last: dict[str, str] | None = None
    for _ in range(5):
        seen = watch.look()
        if seen.said is not None:
            last = held(seen)
    assert last is not None
    return last


@pytest.fixture
def watch(tmp_path: Path, write: Write, document: Document) -> Watch:
    """Watch a folder with the deployments a and b, in a file each."""
    write("a.yaml", document("a"))
    write("b.yaml", document("b"))
    found = Watch([tmp_path])
    found.begin()
    return found


def test_the_beginning_is_everything(tmp_path: Path, write: Write, document: Document) -> None:
    one, two = write("1.yaml", document("a"), document("b")), write("2.yaml", document("c"))
    found = Watch([tmp_path]).begin()
    assert [(file, len(said)) for file, said in found.items()] == [(one, 2), (two, 1)]


def test_a_beginning_that_is_wrong_is_refused(write: Write, document: Document) -> None:
    with pytest.raises(InvalidResource):
        Watch([write("a.yaml", document(replica=1))]).begin()


def test_nothing_to_watch_is_nothing_new() -> None:
    watch = Watch([])
    assert watch.begin() == {}
    assert watch.look() == Seen(None)


def test_no_change_is_no_news(watch: Watch) -> None:
    assert watch.look() == Seen(None)


def test_a_changed_file_says_something_else(watch: Watch, write: Write, document: Document) -> None:
    write("a.yaml", document("a", version="2"))
    assert held(watch.look()) == {"a": "2", "b": "1"}
    assert watch.look() == Seen(None)


def test_a_new_file_is_added(watch: Watch, write: Write, document: Document) -> None:
    write("c.yaml", document("c"))
    assert held(watch.look()) == {"a": "1", "b": "1", "c": "1"}


def test_a_removed_file_is_given_up(watch: Watch, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").unlink()
    assert settle(watch) == {"b": "1"}


def test_the_last_file_of_a_folder_may_go_too(watch: Watch, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").unlink()
    (tmp_path / "b.yaml").unlink()
    assert settle(watch) == {}


def test_a_file_that_is_away_for_a_moment_is_not_given_up(
    watch: Watch, tmp_path: Path, write: Write, document: Document
) -> None:
    (tmp_path / "a.yaml").unlink()
    assert watch.look() == Seen(None)
    write("a.yaml", document("a", version="2"))
    assert held(watch.look()) == {"a": "2", "b": "1"}


def test_a_file_that_was_named_by_itself_holds_when_it_is_gone(
    write: Write, document: Document
) -> None:
    one, two = write("a.yaml", document("a")), write("b.yaml", document("b"))
    watch = Watch([one, two])
    watch.begin()
    one.unlink()
    assert watch.look() == Seen(None)
    assert watch.look() == Seen(None, (f"{one} is gone; what it said holds",))
    assert watch.look() == Seen(None)
    # And the others are watched all the same.
    write("b.yaml", document("b", version="2"))
    assert held(watch.look()) == {"a": "1", "b": "2"}


@pytest.mark.parametrize(
    ("text", "words"),
    [("a: [", "is not YAML"), ("kind: Pod\n", "expected ModelDeployment"), ("", "holds no")],
)
def test_a_file_that_becomes_wrong_holds_and_is_told_once(
    watch: Watch, tmp_path: Path, text: str, words: str
) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(text, encoding="utf-8")
    seen = watch.look()
    assert held(seen) == {"a": "1", "b": "1"}
    (warning,) = seen.warnings
    assert str(file) in warning
    assert words in warning
    assert warning.endswith("; what the file said before holds")
    assert watch.look() == Seen(None)


def test_a_file_that_is_good_again_is_taken_again(
    watch: Watch, tmp_path: Path, write: Write, document: Document
) -> None:
    (tmp_path / "a.yaml").write_text("a: [", encoding="utf-8")
    watch.look()
    write("a.yaml", document("a", version="3"))
    seen = watch.look()
    assert (held(seen), seen.warnings) == ({"a": "3", "b": "1"}, ())


def test_a_new_file_that_is_wrong_is_left_out(watch: Watch, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("a: [", encoding="utf-8")
    seen = watch.look()
    assert held(seen) == {"a": "1", "b": "1"}
    assert seen.warnings[0].endswith("; the file is left out")


def test_a_renamed_file_says_the_same_without_a_gap(watch: Watch, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").rename(tmp_path / "z.yaml")
    for _ in range(4):
        seen = watch.look()
        assert seen.warnings == ()
        if seen.said is not None:
            assert held(seen) == {"a": "1", "b": "1"}
            (file,) = (file for file, said in seen.said.items() if said[0].key.name == "a")
            assert file.name == "z.yaml"


def test_a_file_that_claims_what_another_has_is_refused_until_it_is_free(
    watch: Watch, tmp_path: Path, write: Write, document: Document
) -> None:
    write("c.yaml", document("c", endpoint="a"))
    seen = watch.look()
    assert held(seen) == {"a": "1", "b": "1"}
    assert "endpoint 'a' is also claimed by" in seen.warnings[0]
    assert watch.look() == Seen(None)
    (tmp_path / "a.yaml").unlink()
    assert settle(watch) == {"b": "1", "c": "1"}


def test_two_files_may_swap_what_they_claim(watch: Watch, write: Write, document: Document) -> None:
    write("a.yaml", document("a", endpoint="b"))
    write("b.yaml", document("b", endpoint="a"))
    seen = watch.look()
    assert seen.warnings == ()
    assert seen.said is not None
    assert {said[0].key.name: said[0].endpoint for said in seen.said.values()} == {
        "a": "b",
        "b": "a",
    }


def test_one_file_in_conflict_does_not_hold_the_others_back(
    watch: Watch, write: Write, document: Document
) -> None:
    write("a.yaml", document("a", version="2"))
    write("c.yaml", document("b", version="2"))
    seen = watch.look()
    assert held(seen) == {"a": "2", "b": "1"}
    assert len(seen.warnings) == 1


class TestModelFiles:
    """A model file that is replaced is another model, though the YAML is the same."""

    @staticmethod
    def sha256(seen: Seen) -> str | None:
        assert seen.said is not None
        ((resource,),) = seen.said.values()
        return resource.spec.model.sha256

    @pytest.fixture
    def model(self, tmp_path: Path) -> Path:
        """Write the model file of deployment iris."""
        file = tmp_path / "model.onnx"
        file.write_bytes(b"one")
        return file

    def test_a_model_is_pinned_to_the_content_of_its_file(self, model: Path, write: Write) -> None:
        watch = Watch([write("a.yaml")])
        assert self.sha256(Seen(watch.begin())) == hashlib.sha256(b"one").hexdigest()
        model.write_bytes(b"another")
        assert self.sha256(watch.look()) == hashlib.sha256(b"another").hexdigest()
        assert watch.look() == Seen(None)

    def test_a_hash_that_the_user_gave_is_left_alone(
        self, model: Path, write: Write, document: Document
    ) -> None:
        pinned = document()
        pinned["spec"]["model"]["sha256"] = "0" * 64
        watch = Watch([write("a.yaml", pinned)])
        assert self.sha256(Seen(watch.begin())) == "0" * 64
        model.write_bytes(b"another")
        assert self.sha256(watch.look()) == "0" * 64

    def test_a_model_that_is_not_there_yet_is_not_pinned(
        self, tmp_path: Path, write: Write
    ) -> None:
        watch = Watch([write("a.yaml")])
        assert self.sha256(Seen(watch.begin())) is None
        (tmp_path / "model.onnx").write_bytes(b"late")
        assert self.sha256(watch.look()) == hashlib.sha256(b"late").hexdigest()

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """Lay out two versions as Triton does."""
        for version in ("1", "2"):
            (tmp_path / "m" / version).mkdir(parents=True)
            (tmp_path / "m" / version / "model.onnx").write_bytes(version.encode())
        return tmp_path / "m"

    @pytest.mark.parametrize("version", ["1", "2"])
    def test_a_folder_is_pinned_to_the_content_of_the_file_that_the_runtime_takes(
        self, folder: Path, write: Write, document: Document, version: str
    ) -> None:
        watch = Watch([write("a.yaml", document(uri="file:m", version=version))])
        assert self.sha256(Seen(watch.begin())) == hashlib.sha256(version.encode()).hexdigest()
        assert watch.look() == Seen(None)
        (folder / version / "model.onnx").write_bytes(b"another")
        assert self.sha256(watch.look()) == hashlib.sha256(b"another").hexdigest()
        assert watch.look() == Seen(None)

    def test_another_file_of_a_folder_may_become_the_model(
        self, folder: Path, write: Write, document: Document
    ) -> None:
        watch = Watch([write("a.yaml", document(uri="file:m", version="3"))])
        # Two versions, neither of them this one.
        assert self.sha256(Seen(watch.begin())) is None
        (folder / "3").mkdir()
        assert self.sha256(watch.look()) is None
        (folder / "3" / "net.onnx").write_bytes(b"net")
        assert self.sha256(watch.look()) == hashlib.sha256(b"net").hexdigest()
        (folder / "3" / "model.onnx").write_bytes(b"model")
        assert self.sha256(watch.look()) == hashlib.sha256(b"model").hexdigest()
        (folder / "3" / "model.onnx").unlink()
        assert self.sha256(watch.look()) == hashlib.sha256(b"net").hexdigest()
        (folder / "3" / "net.onnx").unlink()
        assert self.sha256(watch.look()) is None

    def test_a_folder_may_come_late(self, tmp_path: Path, write: Write, document: Document) -> None:
        watch = Watch([write("a.yaml", document(uri="file:late"))])
        assert self.sha256(Seen(watch.begin())) is None
        (tmp_path / "late").mkdir()
        (tmp_path / "late" / "net.onnx").write_bytes(b"net")
        assert self.sha256(watch.look()) == hashlib.sha256(b"net").hexdigest()

    @pytest.mark.parametrize("uri", ["file:.", "https://127.0.0.1:1/m.onnx", "models:/m/1"])
    def test_what_holds_no_model_or_lies_elsewhere_is_not_pinned(
        self, write: Write, document: Document, uri: str
    ) -> None:
        watch = Watch([write("a.yaml", document(uri=uri))])
        assert self.sha256(Seen(watch.begin())) is None
        assert watch.look() == Seen(None)
