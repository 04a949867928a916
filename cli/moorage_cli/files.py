"""Reads the ModelDeployment files that a command was given."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from moorage_api import folder, keys, manifests, names
from moorage_api.errors import InvalidResource, Problem
from moorage_api.names import Qualified
from moorage_api.v1alpha1 import ModelDeployment


def expand(paths: Sequence[Path]) -> list[Path]:
    """Return the YAML files that `paths` name, each once: files, and those in folders.

    Raises
    ------
    InvalidResource
        When a path is not there, or a folder has no YAML file.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(item for item in path.iterdir() if item.suffix in folder.YAML_SUFFIXES)
            if not inside:
                raise InvalidResource([Problem("", "holds no .yaml file")], str(path))
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise InvalidResource([Problem("", "no such file or folder")], str(path))
    return unique(found)


def unique(found: Iterable[Path]) -> list[Path]:
    """Return every file once, however it is spelt."""
    return list({file.resolve(): file for file in reversed(list(found))}.values())[::-1]


def read(file: Path) -> list[ModelDeployment]:
    """Read the resources of one file.

    Raises
    ------
    InvalidResource
        With every problem of the file.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidResource([Problem("", f"cannot be read: {error}")], str(file)) from error
    return manifests.parse(text, str(file))


def read_all(files: Sequence[Path]) -> dict[Path, list[ModelDeployment]]:
    """Read the resources of all files, and see that they do not contradict each other.

    Raises
    ------
    InvalidResource
        With every problem of every file; two files with one name or one endpoint are one.
    """
    found: dict[Path, list[ModelDeployment]] = {}
    problems: list[Problem] = []
    for file in files:
        try:
            found[file] = read(file)
        except InvalidResource as error:
            problems += [Problem("", f"{file}: {problem}") for problem in error.problems]
    problems += clashes(found)
    if problems:
        raise InvalidResource(problems)
    return found


def clashes(found: Mapping[Path, Sequence[ModelDeployment]]) -> list[Problem]:
    """Return what two resources cannot both have: a name, or an endpoint in a namespace."""
    problems: list[Problem] = []
    defined: dict[Qualified, Path] = {}
    endpoints: dict[tuple[str, str], tuple[Path, Qualified]] = {}
    for file, resources in found.items():
        for resource in resources:
            if resource.key in defined:
                words = f"{file}: {resource.key} is also defined in {defined[resource.key]}"
                problems.append(Problem("", words))
                continue
            defined[resource.key] = file
            place = endpoints.setdefault(
                (resource.key.namespace, resource.endpoint), (file, resource.key)
            )
            if place[1] != resource.key:
                words = (
                    f"{file}: {resource.key}: endpoint {resource.endpoint!r} is also claimed by "
                    f"{place[1]} in {place[0]}"
                )
                problems.append(Problem("", words))
    return problems


def model_file(resource: ModelDeployment, file: Path) -> Path | None:
    """Return where the model of a resource of `file` lies; None when it is not on this machine."""
    split = urlsplit(resource.spec.model.uri)
    if split.scheme != "file" or split.netloc not in ("", "localhost"):
        return None
    return (file.parent / unquote(split.path)).resolve()


def beyond_pods(resource: ModelDeployment, registry: str) -> str:
    """Say why no pod can fetch the model of a resource; empty when nothing speaks against it.

    Parameters
    ----------
    registry
        URL of the gateway that pods ask for `models:/NAME/VERSION`; empty where there is none.
    """
    uri = resource.spec.model.uri
    if not registry and names.registry_reference(uri) is not None:
        return f"spec.model.uri {uri} needs a registry; give its gateway's URL by --registry"
    split = urlsplit(uri)
    if split.scheme == "file" and not split.path.startswith("/"):
        return (
            f"spec.model.uri {uri} is relative to this file, which no pod has; set an address that "
            "pods reach, such as https:, s3: or models:/NAME/VERSION"
        )
    return ""


def anchored(resource: ModelDeployment, file: Path) -> ModelDeployment:
    """Return the resource with a relative `file:` address made absolute, and where it came from."""
    path = model_file(resource, file)
    uri = resource.spec.model.uri if path is None else "file:" + quote(str(path))
    model = resource.spec.model.model_copy(update={"uri": uri})
    annotations = resource.metadata.annotations | {keys.ANNOTATION_SOURCE: str(file.resolve())}
    return resource.model_copy(
        update={
            "spec": resource.spec.model_copy(update={"model": model}),
            "metadata": resource.metadata.model_copy(update={"annotations": annotations}),
        }
    )
