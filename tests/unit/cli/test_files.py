"""Reading ModelDeployment files: what is found, what contradicts, where models lie."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moorage_api import keys, manifests, v1alpha1
from moorage_api.errors import InvalidResource
from moorage_cli import files

Document = Callable[..., dict[str, Any]]
Write = Callable[..., Path]


def test_a_folder_stands_for_its_yaml_files_in_order(tmp_path: Path, write: Write) -> None:
    expected = [write("b.yaml"), write("c.yml")]
    expected.insert(0, write("a.yaml"))
    write("not.json")
    write("below/d.yaml")
    assert files.expand([tmp_path]) == expected


def test_a_file_is_found_once_however_it_is_spelt(
    tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write("a.yaml")
    (tmp_path / "link.yaml").symlink_to(file)
    monkeypatch.chdir(tmp_path)
    assert files.expand([Path("a.yaml"), tmp_path, file]) == [Path("a.yaml")]


@pytest.mark.parametrize("name", ["nothing.yaml", "empty"])
def test_a_path_without_files_is_refused_by_its_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidResource, match=name):
        files.expand([tmp_path / name])


def test_every_problem_of_every_file_is_told(write: Write, document: Document) -> None:
    one = write("one.yaml", document("One"))
    two = write("two.yaml", document("two", uri="ftp://x", replicas=-1))
    with pytest.raises(InvalidResource) as caught:
        files.read_all([one, two])
    words = [str(problem) for problem in caught.value.problems]
    assert len(words) == 3
    assert words[0].startswith(f"{one}: metadata.name")
    assert words[1].startswith(f"{two}: spec.model.uri")
    assert words[2].startswith(f"{two}: spec.replicas")


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidResource, match="cannot be read"):
        files.read(file)


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        ({"name": "a"}, {"name": "a"}, "default/a is also defined in"),
        ({"name": "a"}, {"name": "b", "endpoint": "a"}, "endpoint 'a' is also claimed by"),
        ({"name": "a", "endpoint": "x"}, {"name": "b", "endpoint": "x"}, "endpoint 'x'"),
        ({"name": "a"}, {"name": "b"}, None),
        ({"name": "a", "endpoint": "b"}, {"name": "b", "endpoint": "a"}, None),
    ],
    ids=["one name", "a name as endpoint", "one endpoint", "nothing", "crosswise"],
)
@pytest.mark.parametrize("apart", [True, False], ids=["in two files", "in one file"])
def test_two_resources_may_not_have_one_name_or_endpoint(
    write: Write,
    document: Document,
    one: dict[str, Any],
    other: dict[str, Any],
    words: str | None,
    apart: bool,
) -> None:
    if apart:
        paths = [write("1.yaml", document(**one)), write("2.yaml", document(**other))]
    else:
        paths = [write("1.yaml", document(**one), document(**other))]
    if words is None:
        assert sum(len(group) for group in files.read_all(paths).values()) == 2
    else:
        with pytest.raises(InvalidResource, match=words) as caught:
            files.read_all(paths)
        assert len(caught.value.problems) == 1
        assert str(paths[-1]) in str(caught.value)


def test_namespaces_keep_names_and_endpoints_apart(write: Write, document: Document) -> None:
    other = document("a")
    other["metadata"]["namespace"] = "other"
    assert files.read_all([write("1.yaml", document("a"), other)])


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("file:model.onnx", "{folder}/model.onnx"),
        ("file:sub/../model.onnx", "{folder}/model.onnx"),
        ("file:///models/model.onnx", "/models/model.onnx"),
        ("file://localhost/models/model.onnx", "/models/model.onnx"),
        ("file:/models/my%20model.onnx", "/models/my model.onnx"),
        ("file://elsewhere/model.onnx", None),
        ("https://host/model.onnx", None),
        ("models:/iris/1", None),
    ],
)
def test_a_model_file_lies_beside_its_yaml(
    tmp_path: Path, document: Document, uri: str, path: str | None
) -> None:
    resource = v1alpha1.load(document(uri=uri))
    folder = tmp_path.resolve()
    expected = None if path is None else Path(path.format(folder=folder))
    assert files.model_file(resource, folder / "a.yaml") == expected


def test_an_anchored_address_means_the_same_file_from_everywhere(
    tmp_path: Path, document: Document, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = tmp_path / "odd #1 50% ü"
    odd.mkdir()
    monkeypatch.chdir(odd)
    resource = files.anchored(v1alpha1.load(document(uri="file:m.onnx")), Path("a.yaml"))
    # It goes through YAML, where an address holds no space.
    (read,) = manifests.parse(manifests.render(resource))
    monkeypatch.chdir(os.sep)
    assert files.model_file(read, Path("/elsewhere/b.yaml")) == odd.resolve() / "m.onnx"
    assert read.metadata.annotations[keys.ANNOTATION_SOURCE] == str(odd.resolve() / "a.yaml")


@pytest.mark.parametrize("uri", ["https://host/model.onnx", "file://elsewhere/model.onnx"])
def test_an_address_elsewhere_is_left_as_it_is(document: Document, uri: str) -> None:
    resource = files.anchored(v1alpha1.load(document(uri=uri, replicas=2)), Path("/x/a.yaml"))
    assert resource.spec.model.uri == uri
    assert resource.spec.replicas == 2
