"""What the commands ask of a running gateway."""

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import httpx

from moorage_api.errors import (
    Conflict,
    InvalidRequest,
    ModelRejected,
    MoorageError,
    NotFound,
    Unavailable,
)

_CHUNK: Final = 1024 * 1024
#: Reading may take as long as a model computes or a file is stored.
_TIMEOUT: Final = httpx.Timeout(300, connect=5)

_ERRORS: Final[dict[int, type[MoorageError]]] = {
    404: NotFound,
    409: Conflict,
    422: ModelRejected,
    503: Unavailable,
    504: Unavailable,
}


class Gateway:
    """A client of one gateway.

    Parameters
    ----------
    url
        Its base URL.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    def deployments(self) -> list[dict[str, Any]]:
        """Return what `GET /deployments` lists."""
        found: list[dict[str, Any]] = self._ask("GET", "/deployments", "deployments")["deployments"]
        return found

    def predict(self, model: str, version: str | None, value: Any) -> dict[str, Any]:
        """Return the answer to `POST /predict`."""
        body = {"model_name": model, "input": value}
        if version is not None:
            body["version"] = version
        return self._ask("POST", "/predict", "prediction", json=body)

    def push(
        self, file: Path, name: str, version: str | None, progress: Callable[[int], None]
    ) -> dict[str, Any]:
        """Upload a model file; `progress` is told the bytes of every piece on its way."""

        def chunks() -> Iterator[bytes]:
            with file.open("rb") as source:
                while chunk := source.read(_CHUNK):
                    progress(len(chunk))
                    yield chunk

        query = {"name": name} | ({"version": version} if version is not None else {})
        headers = {
            "content-type": "application/octet-stream",
            "content-length": str(file.stat().st_size),
        }
        return self._ask("POST", "/models", "uri", params=query, content=chunks(), headers=headers)

    def _ask(self, method: str, path: str, holds: str, **how: Any) -> dict[str, Any]:
        """Return the answer, a document that holds a member `holds`."""
        try:
            with httpx.Client(
                base_url=self._url, timeout=_TIMEOUT, verify=_trust(self._url)
            ) as client:
                answer = client.request(method, path, **how)
        except httpx.InvalidURL as error:
            raise InvalidRequest(f"--gateway {self._url}: {error}") from error
        except httpx.HTTPError as error:
            raise Unavailable(
                f"no gateway answers at {self._url}: {error}; start one with `moorage up`, or "
                "name another by --gateway"
            ) from error
        try:
            document = answer.json()
        except ValueError:
            document = None
        expected = holds if answer.is_success else "error"
        if not isinstance(document, dict) or expected not in document:
            raise MoorageError(f"{self._url} is no Moorage gateway: HTTP {answer.status_code}")
        if answer.is_success:
            return document
        kind = _ERRORS.get(
            answer.status_code, InvalidRequest if answer.is_client_error else MoorageError
        )
        raise kind(str(document["error"]))


def _trust(url: str) -> ssl.SSLContext:
    """Return whom to trust; reading all authorities takes longer than asking a gateway nearby."""
    if url.lower().startswith("https:"):
        return httpx.create_ssl_context()
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
