"""The user's files, and the model files that they name: what they say now."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISDIR
from typing import Final, TypeAlias

from moorage_api import model_layout
from moorage_api.errors import BadModel, InvalidResource
from moorage_api.v1alpha1 import ModelDeployment
from moorage_cli import files

#: What tells that a file has changed: modification time and size; None where there is none. Of a
#: folder the names in it, because two changes in a row may leave it the same time.
_Stamp: TypeAlias = tuple[int, int] | frozenset[str] | None

#: How often in a row a file of a folder has to be missing until it counts as removed. Editors and
#: version control take a file away for a moment and put another in its place.
_MISSING_LOOKS: Final = 2


@dataclass(frozen=True, slots=True)
class Seen:
    """What one look found.

    Parameters
    ----------
    said
        The resources of every file, by file; None when nothing is new.
    warnings
        What is newly wrong with a file whose last good content therefore holds.
    """

    said: Mapping[Path, Sequence[ModelDeployment]] | None
    warnings: tuple[str, ...] = ()


@dataclass(slots=True)
class _File:
    """One file as it was last read.

    Parameters
    ----------
    said
        What holds of it; empty while it has never been good.
    stamps
        Of the file itself, of the model files that it named, and of the folders where they were
        found.
    missing
        In how many looks it has been missing.
    refused
        Why its present content does not hold; empty when it does.
    """

    said: list[ModelDeployment] = field(default_factory=list)
    stamps: Mapping[Path, _Stamp] = field(default_factory=dict)
    missing: int = 0
    refused: str = ""


class Watch:
    """Files and folders that are looked at again and again.

    Parameters
    ----------
    paths
        What the user named. A file that is removed from a folder is given up; one that was named
        by itself holds, as does what a file said before it became wrong.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._files: dict[Path, _File] = {}
        self._hashes: dict[Path, tuple[_Stamp, str]] = {}

    def begin(self) -> Mapping[Path, Sequence[ModelDeployment]]:
        """Return the resources of every file.

        Raises
        ------
        InvalidResource
            When one is wrong, or two contradict each other.
        """
        there = files.expand(self._paths)
        stamps = {file: _stamp(file) for file in there}
        for file, said in files.read_all(there).items():
            self._accept(file, said, stamps[file])
        return self._said()

    def look(self) -> Seen:
        """Look what has changed since the last look."""
        there = self._there()
        warnings: list[str] = []
        news = self._note_missing(there, warnings)
        changed = [file for file in there if self._is_changed(file)]
        if not changed and not news:
            return Seen(None, tuple(warnings))
        # Another file's change may have made room for one that was refused.
        changed += [file for file in there if file not in changed and self._files[file].refused]
        # Taken before reading: what changes meanwhile is read again.
        stamps = {file: _stamp(file) for file in changed}
        read: dict[Path, list[ModelDeployment]] = {}
        for file in changed:
            self._files.setdefault(file, _File())
            try:
                read[file] = files.read(file)
            except InvalidResource as error:
                self._refuse(file, str(error), stamps[file], warnings)
        together = not files.clashes(self._staying() | read)
        for file, said in read.items():
            problems = [] if together else files.clashes(self._staying() | {file: said})
            if problems:
                self._refuse(file, str(InvalidResource(problems)), stamps[file], warnings)
            else:
                self._accept(file, said, stamps[file])
        return Seen(self._said(), tuple(warnings))

    def _there(self) -> list[Path]:
        """Return the files that are there."""
        found: list[Path] = []
        for path in self._paths:
            # A folder may become empty, and a file may be away for a moment.
            try:
                found += files.expand([path])
            except (InvalidResource, OSError):
                continue
        return files.unique(found)

    def _note_missing(self, there: Sequence[Path], warnings: list[str]) -> bool:
        """Count how often files have been missing; say whether one has been given up."""
        gone = False
        for file, known in list(self._files.items()):
            known.missing = 0 if file in there else known.missing + 1
            if known.missing != _MISSING_LOOKS:
                continue
            if file in self._paths:
                warnings.append(f"{file} is gone; what it said holds")
            else:
                del self._files[file]
                gone = True
        return gone

    def _is_leaving(self, file: Path) -> bool:
        return bool(self._files[file].missing) and file not in self._paths

    def _is_changed(self, file: Path) -> bool:
        known = self._files.get(file)
        return known is None or any(_stamp(path) != stamp for path, stamp in known.stamps.items())

    def _accept(self, file: Path, said: Iterable[ModelDeployment], stamp: _Stamp) -> None:
        stamps = {file: stamp}
        pinned: list[ModelDeployment] = []
        for resource in said:
            path = files.model_file(resource, file)
            model = path and _find(path, resource.model_version, stamps)
            pinned.append(self._pinned(resource, model, stamps[model]) if model else resource)
        self._files[file] = _File(pinned, stamps)
        keys = {resource.key for resource in pinned}
        for name, other in self._files.items():
            if self._is_leaving(name):
                # It was renamed: what it said is said elsewhere.
                other.said = [resource for resource in other.said if resource.key not in keys]

    def _refuse(self, file: Path, words: str, stamp: _Stamp, warnings: list[str]) -> None:
        known = self._files[file]
        known.stamps = {**known.stamps, file: stamp}
        if known.refused != words:
            known.refused = words
            holds = "what the file said before holds" if known.said else "the file is left out"
            warnings.append(f"{words}; {holds}")

    def _pinned(self, resource: ModelDeployment, model: Path, stamp: _Stamp) -> ModelDeployment:
        """Return the resource with the hash of its model file, so that another file is another."""
        if resource.spec.model.sha256 is not None or stamp is None:
            return resource
        known = self._hashes.get(model)
        if known is None or known[0] != stamp:
            try:
                with model.open("rb") as stream:
                    known = (stamp, hashlib.file_digest(stream, "sha256").hexdigest())
            except OSError:
                # The runtime says what is wrong with it.
                return resource
            self._hashes[model] = known
        pinned = resource.spec.model.model_copy(update={"sha256": known[1]})
        spec = resource.spec.model_copy(update={"model": pinned})
        return resource.model_copy(update={"spec": spec})

    def _said(self) -> dict[Path, list[ModelDeployment]]:
        return {file: known.said for file, known in self._files.items() if known.said}

    def _staying(self) -> dict[Path, list[ModelDeployment]]:
        return {f: known.said for f, known in self._files.items() if not self._is_leaving(f)}


def _find(path: Path, version: str, stamps: dict[Path, _Stamp]) -> Path | None:
    """Return the model file that a runtime will find at a path; None while it will find none.

    Parameters
    ----------
    path
        A file or a folder.
    version
        Of the model.
    stamps
        Is given those of the file and of all folders that were looked into.
    """

    def names_in(inside: str) -> Iterable[str]:
        stamp = stamps[path / inside] = _stamp(path / inside)
        # One that cannot be listed holds no model now, and may later.
        return stamp if isinstance(stamp, frozenset) else ()

    model = path
    if path.is_dir():
        try:
            model = path / model_layout.choose(names_in, version)
        except BadModel:
            # The runtime says what is wrong with it.
            return None
    stamps.setdefault(model, _stamp(model))
    return model


def _stamp(path: Path) -> _Stamp:
    try:
        stat = path.stat()
        if S_ISDIR(stat.st_mode):
            return _names(path)
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size


def _names(folder: Path) -> frozenset[str]:
    """Return the names in a folder, those of folders with "/" at the end."""
    return frozenset(
        f"{item.name}/" if item.is_dir() else item.name
        for item in folder.iterdir()
        if item.is_dir() or item.is_file()
    )
