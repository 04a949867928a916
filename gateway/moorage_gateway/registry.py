"""The model registry: versions of models on this gateway's disk, which never change once stored.

::

    DATA/models/iris/2/model.onnx     the file as it came
    DATA/models/iris/2/model.json     what is known of it

An upload is written beside them and moved into place when it is whole and proven to be a model,
so a reader never meets half of one.
"""

import asyncio
import hashlib
import mmap
import os
import shutil
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import orjson

from moorage_api import names, onnx_file, signature
from moorage_api.errors import (
    BadModel,
    BodyTooLarge,
    ChecksumMismatch,
    InvalidName,
    UnknownModel,
    UnknownVersion,
    VersionExists,
)
from moorage_api.signature import Signature

#: Default limit of one uploaded file.
MAX_UPLOAD_BYTES: Final = 4 * 1024**3
#: Words that are paths of the registry's own.
_RESERVED: Final = frozenset({"stats"})
_INCOMING: Final = ".incoming"
_FILE: Final = "model.onnx"
_ABOUT: Final = "model.json"


@dataclass(frozen=True, slots=True)
class StoredModel:
    """One version of a model.

    Parameters
    ----------
    name, version
        Address it as `models:/NAME/VERSION`.
    sha256, size
        Of the file; the size in bytes.
    created_at
        Aware, UTC.
    signature
        Read from the file.
    producer, opsets, metadata
        What the file says of itself.
    """

    name: str
    version: str
    sha256: str
    size: int
    created_at: datetime
    signature: Signature
    producer: str
    opsets: dict[str, int]
    metadata: dict[str, str]

    @property
    def uri(self) -> str:
        """Address for `spec.model.uri`."""
        return f"{names.REGISTRY_SCHEME}:/{self.name}/{self.version}"

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "name": self.name,
            "version": self.version,
            "uri": self.uri,
            "sha256": self.sha256,
            "size_bytes": self.size,
            "created_at": self.created_at.isoformat(),
            **self.signature.to_dict(),
            "producer": self.producer,
            "opsets": self.opsets,
            "metadata": self.metadata,
        }


class Registry:
    """The models in a folder. Methods block on the disk; call them from a thread.

    Parameters
    ----------
    path
        The folder; it is made when it is not there.
    max_bytes
        Most bytes of one file.
    """

    def __init__(self, path: Path, *, max_bytes: int = MAX_UPLOAD_BYTES) -> None:
        self._path = path
        self._incoming = path / _INCOMING
        self.max_bytes = max_bytes
        self._lock = threading.Lock()
        # What an earlier process left half-way belongs to nobody.
        shutil.rmtree(self._incoming, ignore_errors=True)
        self._incoming.mkdir(parents=True, exist_ok=True)

    async def add(
        self,
        name: str,
        version: str,
        chunks: AsyncIterator[bytes],
        *,
        now: datetime,
        sha256: str = "",
    ) -> tuple[StoredModel, bool]:
        """Store a version from a stream, in memory one chunk at a time.

        Parameters
        ----------
        name
            Of the model.
        version
            Empty takes the next whole number.
        chunks
            The ONNX file.
        now
            Aware UTC time of the upload.
        sha256
            That the file must have; empty for any.

        Returns
        -------
        the model, and whether it is new
            The same bytes under the same version again are no error.

        Raises
        ------
        InvalidName
            When the name or version may not be one.
        BodyTooLarge, ChecksumMismatch, BadModel
            When the file is refused.
        VersionExists
            When other bytes are stored under this version.
        """
        check_name(name)
        if version:
            names.segment(version, "model version")
        folder = self._incoming / uuid.uuid4().hex
        folder.mkdir()
        try:
            digest = hashlib.sha256()
            size = 0
            with (folder / _FILE).open("wb") as file:
                async for chunk in chunks:
                    size += len(chunk)
                    if size > self.max_bytes:
                        raise BodyTooLarge(self.max_bytes, "the model file")
                    digest.update(chunk)
                    file.write(chunk)
            found = digest.hexdigest()
            if sha256 and found != sha256:
                raise ChecksumMismatch(sha256, found)
            # Other requests are answered while the disk takes its time.
            declared = await asyncio.to_thread(_settle, folder / _FILE)
            return self._publish(folder, name, version, declared, found, size, now)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def models(self) -> dict[str, list[StoredModel]]:
        """Return every version by model name, versions in their order."""
        found: dict[str, list[StoredModel]] = {}
        for folder in sorted(self._path.iterdir()):
            if folder.is_dir() and folder.name != _INCOMING:
                versions = list(self._versions(folder.name))
                if versions:
                    found[folder.name] = versions
        return found

    def versions(self, name: str) -> list[StoredModel]:
        """Return the versions of a model in their order.

        Raises
        ------
        InvalidName, UnknownModel
            When there is no such model.
        """
        check_name(name)
        found = list(self._versions(name))
        if not found:
            raise UnknownModel(name, list(self.models()))
        return found

    def find(self, name: str, version: str) -> StoredModel:
        """Return one version.

        Raises
        ------
        InvalidName, UnknownModel, UnknownVersion
            When there is none.
        """
        check_name(name)
        names.segment(version, "model version")
        about = self._path / name / version / _ABOUT
        if about.is_file():
            return _read(about)
        raise UnknownVersion(name, version, [model.version for model in self.versions(name)])

    def file(self, model: StoredModel) -> Path:
        """Return the path of a version's ONNX file."""
        return self._path / model.name / model.version / _FILE

    def _versions(self, name: str) -> Iterator[StoredModel]:
        folder = self._path / name
        if not folder.is_dir():
            return
        abouts = [item / _ABOUT for item in folder.iterdir() if (item / _ABOUT).is_file()]
        yield from sorted(map(_read, abouts), key=lambda model: names.version_key(model.version))

    def _publish(
        self,
        folder: Path,
        name: str,
        version: str,
        declared: onnx_file.OnnxFile,
        sha256: str,
        size: int,
        now: datetime,
    ) -> tuple[StoredModel, bool]:
        # One process has the folder; the lock keeps its own uploads from taking one number twice.
        with self._lock:
            if not version:
                numbers = [int(m.version) for m in self._versions(name) if m.version.isdecimal()]
                version = str(max(numbers, default=0) + 1)
            target = self._path / name / version
            if (target / _ABOUT).is_file():
                stored = _read(target / _ABOUT)
                if stored.sha256 == sha256:
                    return stored, False
                raise VersionExists(
                    f"{stored.uri} exists with other bytes (sha256 {stored.sha256}); a version "
                    "never changes, push the new file under a new one"
                )
            model = StoredModel(
                name,
                version,
                sha256,
                size,
                now,
                declared.signature,
                declared.producer,
                declared.opsets,
                declared.metadata,
            )
            (folder / _ABOUT).write_bytes(orjson.dumps(model.to_dict(), option=orjson.OPT_INDENT_2))
            target.parent.mkdir(exist_ok=True)
            folder.rename(target)
        return model, True


def check_name(name: str) -> None:
    """Refuse what may not name a model.

    Raises
    ------
    InvalidName
        For a path that leads elsewhere, a reserved word, or characters that URLs twist.
    """
    names.segment(name, "model name")
    if name in _RESERVED:
        raise InvalidName(f"model name {name!r} is a word of the registry's own; choose another")


def _settle(path: Path) -> onnx_file.OnnxFile:
    """Bring a file to the disk for good, and read what it declares."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return _declared(path)


def _declared(path: Path) -> onnx_file.OnnxFile:
    if not path.stat().st_size:
        raise BadModel("not an ONNX model: the file is empty")
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        memoryview(mapped) as view,
    ):
        return onnx_file.parse(view)


def _read(about: Path) -> StoredModel:
    document = orjson.loads(about.read_bytes())
    return StoredModel(
        document["name"],
        document["version"],
        document["sha256"],
        document["size_bytes"],
        datetime.fromisoformat(document["created_at"]),
        signature.parse(document),
        document["producer"],
        document["opsets"],
        document["metadata"],
    )
