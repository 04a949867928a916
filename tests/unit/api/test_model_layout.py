import re
from collections.abc import Callable
from pathlib import PurePosixPath

import pytest

from moorage_api import model_layout
from moorage_api.errors import BadModel


def listed(paths: list[str]) -> Callable[[str], set[str]]:
    """List folders that hold these paths; one with "/" at its end is a folder with nothing in it.

    Anything but a folder of theirs cannot be listed.
    """
    folders: dict[str, set[str]] = {"": set()}
    for path in paths:
        for item in (PurePosixPath(path), *PurePosixPath(path).parents[:-1]):
            is_folder = str(item) != path
            parent = "" if str(item.parent) == "." else f"{item.parent}/"
            folders.setdefault(parent, set()).add(f"{item.name}/" if is_folder else item.name)
            if is_folder:
                folders.setdefault(f"{item}/", set())
    return folders.__getitem__


@pytest.mark.parametrize(
    ("paths", "version", "found"),
    [
        (["model.onnx"], "", "model.onnx"),
        (["other.onnx", "readme.txt"], "", "other.onnx"),
        (["model.onnx", "other.onnx"], "", "model.onnx"),
        (["1/model.onnx"], "", "1/model.onnx"),
        (["1/model.onnx", "config.pbtxt"], "", "1/model.onnx"),
        (["1/model.onnx", "2/model.onnx", "10/model.onnx"], "10", "10/model.onnx"),
        (["1/model.onnx", "2/model.onnx"], "2", "2/model.onnx"),
        (["3/net.onnx"], "7", "3/net.onnx"),
        (["1/model.onnx", "model.onnx"], "", "1/model.onnx"),
        (["data/weights.bin", "model.onnx"], "", "model.onnx"),
        (["1", "model.onnx"], "", "model.onnx"),
        (["folder.onnx/", "net.onnx", ".onnx"], "", "net.onnx"),
        (["1/2/model.onnx", "1/model.onnx"], "1", "1/2/model.onnx"),
    ],
    ids=lambda item: " ".join(item) if isinstance(item, list) else None,
)
def test_a_folder_is_read_as_triton_lays_it_out(paths: list[str], version: str, found: str) -> None:
    assert model_layout.choose(listed(paths), version) == found


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        ([], "m: expected model.onnx or a single .onnx file, found none"),
        (["readme.txt"], "m: expected model.onnx or a single .onnx file, found none"),
        (
            ["b.onnx", "a.onnx"],
            "m: expected model.onnx or a single .onnx file, found a.onnx, b.onnx",
        ),
        (
            ["2/model.onnx", "10/model.onnx", "1/model.onnx"],
            "m has the versions 1, 2, 10; set model.version to one of them",
        ),
        (["1/", "2/model.onnx"], "m has the versions 1, 2; set model.version to one of them"),
        (["1/readme.txt"], "m/1: expected model.onnx or a single .onnx file, found none"),
        # The version is that of the first level.
        (["1/4/a.onnx", "1/5/a.onnx"], "m/1 has the versions 4, 5; set"),
    ],
    ids=lambda item: " ".join(item) if isinstance(item, list) else None,
)
def test_a_folder_that_leaves_a_choice_is_refused(paths: list[str], words: str) -> None:
    with pytest.raises(BadModel, match=f"^{re.escape(words)}"):
        model_layout.choose(listed(paths), "4", root="m")
