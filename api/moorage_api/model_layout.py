"""Which ONNX file of a folder is the model: the rules, for whoever lists the folder.

The runtime loads that file, and `moorage up` watches it; both ask here.
"""

from collections.abc import Callable, Iterable
from pathlib import PurePosixPath

from moorage_api.errors import BadModel

_MODEL = "model.onnx"


def choose(
    names_in: Callable[[str], Iterable[str]], version: str = "", *, root: str = "the folder"
) -> str:
    """Return the path of the model's file, relative to the folder.

    A folder holds one `.onnx` file, or `model.onnx` beside others, or numbered version folders
    (`1/model.onnx`) as Triton has them. Triton's `config.pbtxt` is not read.

    Parameters
    ----------
    names_in
        Returns the names of what is directly in a folder, which is given relative to the whole and
        with a "/" at its end, "" for the whole. The names of folders end with "/".
    version
        The version folder that is meant; without it, or when it is not there, a single one is
        taken.
    root
        What errors call the whole folder.

    Raises
    ------
    BadModel
        When no file, or more than one, could be meant.
    """
    inside = ""
    while True:
        names = sorted(names_in(inside))
        place = f"{root}/{inside}".rstrip("/")
        versions = {
            name[:-1]: name for name in names if name.endswith("/") and name[:-1].isdecimal()
        }
        if not versions:
            return inside + _only(names, place)
        if version in versions:
            inside += versions[version]
        elif len(versions) == 1:
            inside += next(iter(versions.values()))
        else:
            there = ", ".join(sorted(versions, key=int))
            raise BadModel(f"{place} has the versions {there}; set model.version to one of them")
        # It names a folder of the first level only.
        version = ""


def _only(names: Iterable[str], place: str) -> str:
    files = [name for name in names if PurePosixPath(name).suffix == ".onnx" and name[-1] != "/"]
    if _MODEL in files:
        return _MODEL
    if len(files) != 1:
        found = ", ".join(files) or "none"
        raise BadModel(f"{place}: expected {_MODEL} or a single .onnx file, found {found}")
    return files[0]
