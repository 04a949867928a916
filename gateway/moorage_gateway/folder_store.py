"""`ResourceStore` over a folder of YAML files; `moorage_api.folder` has the format."""

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from moorage_api import folder, manifests
from moorage_api.errors import Conflict, InvalidBody, InvalidResource
from moorage_api.folder import Observed
from moorage_api.names import Qualified
from moorage_api.v1alpha1 import ModelDeployment
from moorage_gateway.resources import Seen

#: How often the folder is looked at, in seconds. A look costs one `scandir`.
POLL_S: Final = 0.1
#: Most files that are read.
MAX_FILES: Final = 10_000

_log = logging.getLogger(__name__)

#: What tells that a file has changed: modification time and size.
_Stamp = tuple[int, int]


@dataclass(slots=True)
class _Asked:
    """What one YAML file holds, as far as it could be read."""

    stamp: _Stamp
    resources: Sequence[ModelDeployment]


class FolderStore:
    """The resources in a folder.

    Parameters
    ----------
    path
        The folder; it is made when it is not there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._asked: dict[str, _Asked] = {}
        self._observed: dict[str, tuple[_Stamp, Observed | None]] = {}
        self._listeners: list[Callable[[], None]] = []
        path.mkdir(parents=True, exist_ok=True)
        self._look()

    def list(self) -> Sequence[Seen]:
        """Return all resources; see `ResourceStore.list`."""
        found: dict[Qualified, Seen] = {}
        # In the order in which they appeared; a rewritten file keeps its place.
        for asked in self._asked.values():
            for resource in asked.resources:
                found.setdefault(resource.key, self._seen(resource))
        return tuple(found.values())

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call `listener` after every change; see `ResourceStore.subscribe`."""
        self._listeners.append(listener)

    async def put(self, resource: ModelDeployment) -> None:
        """Create or replace a resource; see `ResourceStore.put`."""
        self.require_own(resource.key)
        target = self._path / folder.file_name(resource.key)
        part = target.with_suffix(".part")
        part.write_text(manifests.render(resource), encoding="utf-8")
        part.replace(target)
        self.look()

    async def delete(self, key: Qualified) -> None:
        """Remove a resource; see `ResourceStore.delete`."""
        self.require_own(key)
        (self._path / folder.file_name(key)).unlink(missing_ok=True)
        self.look()

    async def run(self) -> None:
        """Watch for changes until cancelled; see `ResourceStore.run`."""
        while True:
            await asyncio.sleep(POLL_S)
            self.look()

    def look(self) -> None:
        """Look at the folder now."""
        if self._look():
            for listener in self._listeners:
                listener()

    def require_own(self, key: Qualified) -> None:
        """Refuse to change what somebody keeps in another file; see `ResourceStore.require_own`."""
        for name, asked in self._asked.items():
            if name != folder.file_name(key) and any(item.key == key for item in asked.resources):
                raise Conflict(f"{key} is defined in the file {name}; change it there")

    def _seen(self, resource: ModelDeployment) -> Seen:
        _, observed = self._observed.get(folder.status_name(resource.key), (None, None))
        if observed is None:
            # No supervisor keeps this one: the status in the file itself counts, as printed by
            # `kubectl get -o yaml` or written by hand.
            url = resource.status.address.url
            return Seen(resource, (url,) if url else (), is_current=True)
        return Seen(
            resource.model_copy(update={"status": observed.status}),
            observed.addresses,
            is_current=observed.digest == folder.digest(resource),
        )

    def _look(self) -> bool:
        """Read what is new or changed; say whether there was anything."""
        stamps: dict[str, _Stamp] = {}
        try:
            with os.scandir(self._path) as entries:
                for entry in entries:
                    if entry.name.endswith((*folder.YAML_SUFFIXES, folder.STATUS_SUFFIX)):
                        stat = entry.stat()
                        stamps[entry.name] = (stat.st_mtime_ns, stat.st_size)
        except OSError as error:
            _log.warning("cannot read %s: %s; keeping what was read before", self._path, error)
            return False
        if len(stamps) > MAX_FILES:
            _log.warning("%s holds more than %d files; the rest is not read", self._path, MAX_FILES)
            stamps = dict(sorted(stamps.items())[:MAX_FILES])
        changed = False
        for name in [*self._asked, *self._observed]:
            if name not in stamps:
                self._asked.pop(name, None)
                self._observed.pop(name, None)
                changed = True
        for name, stamp in sorted(stamps.items(), key=lambda item: item[::-1]):
            if name.endswith(folder.STATUS_SUFFIX):
                known = self._observed.get(name)
                if known is None or known[0] != stamp:
                    changed |= self._read_status(name, stamp, known)
            else:
                asked = self._asked.get(name)
                if asked is None or asked.stamp != stamp:
                    changed |= self._read_asked(name, stamp, asked)
        return changed

    def _read_asked(self, name: str, stamp: _Stamp, before: _Asked | None) -> bool:
        try:
            text = (self._path / name).read_text(encoding="utf-8")
            resources = manifests.parse(text, name)
        except (InvalidResource, OSError, UnicodeDecodeError) as error:
            _log.error("%s; keeping what it said before", error)
            # Remembered with its new stamp, so that it is told once.
            self._asked[name] = _Asked(stamp, before.resources if before else ())
            return False
        self._asked[name] = _Asked(stamp, resources)
        return True

    def _read_status(
        self, name: str, stamp: _Stamp, before: tuple[_Stamp, Observed | None] | None
    ) -> bool:
        try:
            observed = folder.parse_status((self._path / name).read_bytes())
        except (InvalidBody, OSError) as error:
            _log.warning("%s: %s; keeping what it said before", name, error)
            # Remembered with its new stamp, so that it is told once.
            self._observed[name] = (stamp, before[1] if before else None)
            return False
        self._observed[name] = (stamp, observed)
        return True
