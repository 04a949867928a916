"""Fetches a model: from an address to an ONNX file on this machine's disk.

`file:` is used where it lies, `http(s):` and `models:/NAME/VERSION` are downloaded with the
standard library, every other scheme goes through fsspec, whose driver an extra installs.
"""

import hashlib
import http.client
import os
import shutil
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO, Final
from urllib.parse import unquote, urlsplit

from moorage_api import keys, model_layout, names
from moorage_api.errors import ChecksumMismatch, DownloadFailed, InvalidName

#: Largest model that is downloaded.
MAX_BYTES: Final = 16 * 1024**3
#: A connection that is silent this long has failed.
TIMEOUT_S: Final = 60

_CHUNK: Final = 1024 * 1024


def fetch(uri: str, folder: Path, *, version: str = "", registry: str = "") -> Path:
    """Bring a model to this machine.

    Parameters
    ----------
    uri
        Address of an ONNX file or of a Triton-style folder; a bare path is a `file:` address.
    folder
        Where downloads go.
    version
        Which version subfolder of a Triton-style folder is meant, when there are several.
    registry
        Base URL of the gateway that resolves `models:/NAME/VERSION`.

    Returns
    -------
    path of the ONNX file

    Raises
    ------
    DownloadFailed
        When it cannot be had; the message names the address and the cause.
    BadModel
        When the folder holds no model, or several and no way to choose.
    """
    try:
        scheme = urlsplit(uri).scheme or "file"
    except ValueError as error:
        raise DownloadFailed(f"{uri}: {error}") from error
    if scheme == "file":
        return find(_local(uri), version)
    if scheme in ("http", "https"):
        return _download(uri, folder)
    if scheme == names.REGISTRY_SCHEME:
        return _from_registry(uri, folder, registry)
    return find(_by_driver(uri, scheme, folder), version)


def find(path: Path, version: str = "") -> Path:
    """Find the ONNX file at `path`: itself, or inside a Triton-style folder.

    Parameters
    ----------
    path
        A file, or a folder as `model_layout.choose` reads it.
    version
        Which version folder of it is meant.

    Raises
    ------
    DownloadFailed
        When nothing is at `path`, or the folder cannot be listed.
    BadModel
        When no file, or more than one, could be meant.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise DownloadFailed(f"{path}: no such file or folder")
    return path / model_layout.choose(
        lambda inside: _names_in(path / inside), version, root=str(path)
    )


def _names_in(folder: Path) -> list[str]:
    try:
        return [
            f"{item.name}/" if item.is_dir() else item.name
            for item in folder.iterdir()
            if item.is_dir() or item.is_file()
        ]
    except OSError as error:
        raise DownloadFailed(f"{folder}: {error.strerror}") from error


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal.

    Raises
    ------
    DownloadFailed
        When it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DownloadFailed(f"{path}: {error.strerror}") from error


def verify(path: Path, expected: str | None) -> str:
    """Return the file's SHA-256 when it is the expected one, or none is expected.

    Raises
    ------
    ChecksumMismatch
        When it is another.
    """
    found = sha256(path)
    if expected is not None and found != expected:
        raise ChecksumMismatch(expected, found)
    return found


def _local(uri: str) -> Path:
    split = urlsplit(uri)
    if not split.scheme:
        return Path(uri)
    if split.netloc not in ("", "localhost"):
        raise DownloadFailed(f"{uri}: a file address has no host; write file:/path or file:path")
    return Path(unquote(split.path))


def _download(url: str, folder: Path) -> Path:
    shown = _shown(url)
    if "@" in urlsplit(url).netloc:
        raise DownloadFailed(f"{shown}: an http address may hold no user and password")
    target = folder / "model.onnx"
    expected = None
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer, target.open("wb") as file:  # noqa: S310
            expected = answer.headers.get(keys.HEADER_MODEL_SHA256)
            _copy(answer, file, shown)
            length = answer.headers.get("Content-Length")
            if length is not None and file.tell() != int(length):
                raise DownloadFailed(f"{shown}: broke off after {file.tell()} of {length} bytes")
    except urllib.error.HTTPError as error:
        error.close()
        raise DownloadFailed(f"{shown}: HTTP {error.code} {_line(error.reason)}") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise DownloadFailed(f"{shown}: {_line(getattr(error, 'reason', error))}") from error
    if expected:
        verify(target, expected)
    return target


def _shown(uri: str) -> str:
    """Return an address as everyone may read it: passwords stand before "@", signatures in "?"."""
    split = urlsplit(uri)
    return split._replace(
        netloc=split.netloc.rpartition("@")[2], query="…" if split.query else "", fragment=""
    ).geturl()


def _line(error: object) -> str:
    """Return what an error says on one line."""
    return " ".join(str(error).split())


def _copy(source: IO[bytes], target: IO[bytes], url: str) -> None:
    size = 0
    while chunk := source.read(_CHUNK):
        size += len(chunk)
        if size > MAX_BYTES:
            raise DownloadFailed(f"{url}: larger than the limit of {MAX_BYTES} bytes")
        target.write(chunk)


def _from_registry(uri: str, folder: Path, registry: str) -> Path:
    try:
        reference = names.registry_reference(uri)
    except InvalidName as error:
        raise DownloadFailed(str(error)) from error
    if reference is None or not registry:
        raise DownloadFailed(f"{uri}: no registry is set; give --registry, a gateway's URL")
    name, version = reference
    return _download(f"{registry.rstrip('/')}/models/{name}/versions/{version}/file", folder)


def _by_driver(uri: str, scheme: str, folder: Path) -> Path:
    shown = _shown(uri)
    extra = names.DRIVER_SCHEMES.get(scheme, "storage")
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise DownloadFailed(f"{shown}: needs the extra: pip install 'moorage[{extra}]'") from error
    try:
        system, path = url_to_fs(uri)
        if not system.isdir(path):
            target = folder / "model.onnx"
            with system.open(path, "rb") as source, target.open("wb") as file:
                _copy(source, file, shown)
            return target
        target = folder / "model"
        for name, info in system.find(path, detail=True).items():
            relative = os.path.relpath(name, path)
            if relative.startswith(("..", os.sep)):
                raise DownloadFailed(f"{shown}: {name} lies outside the folder")
            if info["size"] and info["size"] > shutil.disk_usage(folder).free:
                raise DownloadFailed(f"{shown}: {name} is larger than the disk's free space")
            part = target / relative
            part.parent.mkdir(parents=True, exist_ok=True)
            with system.open(name, "rb") as source, part.open("wb") as file:
                _copy(source, file, shown)
        return target
    except ImportError as error:
        raise DownloadFailed(f"{shown}: needs the extra: pip install 'moorage[{extra}]'") from error
    except DownloadFailed:
        raise
    except Exception as error:
        # Every driver has exceptions of its own.
        raise DownloadFailed(f"{shown}: {_line(error) or type(error).__name__}") from error
