"""The folder that stands for the API server; `moorage_api.folder` has its format.

The files that the user gave are copied into it, with their addresses made absolute, so that
deployments from files and those made through the gateway are one kind of thing.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from moorage_api import folder, keys, manifests
from moorage_api.errors import InvalidBody, InvalidResource
from moorage_api.folder import Observed
from moorage_api.names import Qualified
from moorage_api.v1alpha1 import ModelDeployment
from moorage_cli import files


class StateFolder:
    """Resources in a folder, and what is said of them.

    Parameters
    ----------
    path
        The folder; it is made when it is not there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._texts: dict[str, bytes] = {}
        self._cache: dict[str, tuple[tuple[int, int], list[ModelDeployment]]] = {}
        self._order: dict[Qualified, int] = {}
        #: What the user's files said when they were last taken; None before the first time.
        self._said: Mapping[Qualified, ModelDeployment] | None = None
        path.mkdir(parents=True, exist_ok=True)

    def replace_files(self, found: Mapping[Path, Sequence[ModelDeployment]]) -> None:
        """Take what the user's files say.

        The first time all of it holds, beside what the gateway made. From then on only what the
        files say otherwise than the time before is done: what was undeployed or moved to another
        version meanwhile stays so until its own document changes.
        """
        before = self._said
        wanted = {
            resource.key: files.anchored(resource, file)
            for file, group in found.items()
            for resource in group
        }
        self._said = {key: _unsourced(resource) for key, resource in wanted.items()}
        for resource in self.list():
            key = resource.key
            # What the gateway made outlives `moorage up`.
            is_ours = resource.metadata.annotations.get(keys.ANNOTATION_SOURCE) != keys.SOURCE_API
            if is_ours and key not in wanted and (before is None or key in before):
                self.remove(key)
        for key, resource in wanted.items():
            if before is None or before.get(key) != self._said[key]:
                self.put(resource)

    def list(self) -> list[ModelDeployment]:
        """Return the resources, oldest first; a file that cannot be read is left out."""
        found: dict[Qualified, tuple[int, ModelDeployment]] = {}
        with os.scandir(self._path) as entries:
            names = [entry for entry in entries if entry.name.endswith(folder.YAML_SUFFIXES)]
            for entry in names:
                try:
                    stat = entry.stat()
                except OSError:
                    # The gateway has just removed it.
                    continue
                stamp = (stat.st_mtime_ns, stat.st_size)
                cached = self._cache.get(entry.name)
                if cached is None or cached[0] != stamp:
                    try:
                        text = Path(entry.path).read_text(encoding="utf-8")
                        cached = (stamp, manifests.parse(text, entry.name))
                    except (InvalidResource, OSError, UnicodeDecodeError):
                        # The gateway tells of it; here the last good content holds.
                        cached = (stamp, cached[1] if cached else [])
                    self._cache[entry.name] = cached
                for resource in cached[1]:
                    # A rewritten file keeps its place, and thereby its endpoint.
                    age = self._order.get(resource.key, stat.st_ctime_ns)
                    found[resource.key] = (age, resource)
        self._order = {key: age for key, (age, _) in found.items()}
        return [
            resource
            for _, resource in sorted(found.values(), key=lambda pair: (pair[0], str(pair[1].key)))
        ]

    def put(self, resource: ModelDeployment) -> None:
        """Write a resource, unless it is there already as it is."""
        target = self._path / folder.file_name(resource.key)
        text = manifests.render(resource).encode()
        if not target.is_file() or target.read_bytes() != text:
            _write(target, text)

    def remove(self, key: Qualified) -> None:
        """Remove a resource and what was said of it."""
        (self._path / folder.file_name(key)).unlink(missing_ok=True)
        self.forget(key)

    def forget(self, key: Qualified) -> None:
        """Remove what was said of a resource."""
        name = folder.status_name(key)
        (self._path / name).unlink(missing_ok=True)
        self._texts.pop(name, None)

    def forget_all(self) -> None:
        """Remove everything that an earlier process said."""
        for item in self._path.iterdir():
            if item.name.endswith(folder.STATUS_SUFFIX):
                item.unlink(missing_ok=True)

    def tell(self, key: Qualified, observed: Observed) -> None:
        """Write what is seen of a resource, where it is news."""
        name = folder.status_name(key)
        text = folder.render_status(observed)
        if self._texts.get(name) != text:
            _write(self._path / name, text)
            self._texts[name] = text

    def observed(self, key: Qualified) -> Observed | None:
        """Return what an earlier process said of a resource."""
        try:
            return folder.parse_status((self._path / folder.status_name(key)).read_bytes())
        except (OSError, InvalidBody):
            return None


def _unsourced(resource: ModelDeployment) -> ModelDeployment:
    """Return what a document says, wherever it stands: a file may be renamed."""
    annotations = {
        name: value
        for name, value in resource.metadata.annotations.items()
        if name != keys.ANNOTATION_SOURCE
    }
    metadata = resource.metadata.model_copy(update={"annotations": annotations})
    return resource.model_copy(update={"metadata": metadata})


def _write(target: Path, text: bytes) -> None:
    """Write a file so that a reader sees all of it or the one before."""
    part = target.with_name(f".{target.name}.part")
    part.write_bytes(text)
    part.replace(target)
