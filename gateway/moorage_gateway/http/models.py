"""`/models`: the registry of immutable model versions."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response, status
from fastapi.responses import FileResponse
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from moorage_api import keys
from moorage_api.errors import BodyTooLarge, InvalidBody
from moorage_api.names import version_key
from moorage_gateway.http.services import Parts
from moorage_gateway.registry import Registry, StoredModel

router = APIRouter(prefix="/models", tags=["models"])

_CHUNK = 1024 * 1024
#: What a form may have beside its file, and the most bytes of one of its other fields.
_FORM_SLACK = 64 * 1024

Name = Annotated[str | None, Query(description="Of the model.", examples=["iris"])]
Version = Annotated[
    str | None, Query(description="Default: the next whole number.", examples=["2"])
]
Sha256 = Annotated[
    str | None, Query(pattern="^[0-9a-f]{64}$", description="That the file must have.")
]


@router.post(
    "",
    summary="Store a model version",
    status_code=status.HTTP_201_CREATED,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": ["file"],
                        "properties": {
                            "name": {"type": "string"},
                            "version": {"type": "string"},
                            "file": {"type": "string", "format": "binary"},
                        },
                    }
                },
            },
        }
    },
    responses={200: {"description": "The same bytes were stored before."}},
)
async def push(
    request: Request,
    response: Response,
    parts: Parts,
    name: Name = None,
    version: Version = None,
    sha256: Sha256 = None,
) -> dict[str, Any]:
    """Upload an ONNX file, as the body itself or as the field `file` of a form.

    The file is streamed to disk, proven to be a model, and its signature read. A version never
    changes: other bytes under a stored version are refused.
    """
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        return await _push_form(request, response, parts, name, version, sha256)
    chunks = (chunk async for chunk in request.stream() if chunk)
    _refuse_early(request, parts.registry)
    return await _push(parts, response, name, version, sha256, chunks)


async def _push_form(
    request: Request,
    response: Response,
    parts: Parts,
    name: str | None,
    version: str | None,
    sha256: str | None,
) -> dict[str, Any]:
    _refuse_early(request, parts.registry, slack=_FORM_SLACK)
    limit = parts.registry.max_bytes

    async def bounded() -> AsyncGenerator[bytes, None]:
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit + _FORM_SLACK:
                raise BodyTooLarge(limit, "the model file")
            yield chunk

    # The parser keeps up to a megabyte of a file in memory and the rest in a temporary file.
    try:
        parser = MultiPartParser(
            request.headers, bounded(), max_files=1, max_fields=8, max_part_size=_FORM_SLACK
        )
        form = await parser.parse()
    except MultiPartException as error:
        raise InvalidBody(f"the form cannot be read: {error.message}") from error
    try:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise InvalidBody("'file': expected an uploaded file in this form field")
        values = {key: item for key, item in form.items() if isinstance(item, str)}

        async def chunks() -> AsyncIterator[bytes]:
            while chunk := await file.read(_CHUNK):
                yield chunk

        return await _push(
            parts,
            response,
            values.get("name", name),
            values.get("version", version),
            values.get("sha256", sha256),
            chunks(),
        )
    finally:
        await form.close()


async def _push(
    parts: Parts,
    response: Response,
    name: str | None,
    version: str | None,
    sha256: str | None,
    chunks: AsyncIterator[bytes],
) -> dict[str, Any]:
    if not name:
        raise InvalidBody("'name': is required, as a query parameter or a form field")
    model, is_new = await parts.registry.add(
        name, version or "", chunks, now=parts.now(), sha256=sha256 or ""
    )
    if not is_new:
        response.status_code = status.HTTP_200_OK
    response.headers["Location"] = f"/models/{model.name}/versions/{model.version}"
    return model.to_dict()


def _refuse_early(request: Request, registry: Registry, slack: int = 0) -> None:
    """Refuse what is announced larger than the limit before it is read."""
    announced = request.headers.get("content-length")
    if announced is not None and int(announced) > registry.max_bytes + slack:
        raise BodyTooLarge(registry.max_bytes, "the model file")


@router.get("", summary="All models")
async def list_models(parts: Parts) -> dict[str, Any]:
    """List every model with its versions, in their order."""
    models = await asyncio.to_thread(parts.registry.models)
    return {"models": [_summary(versions) for versions in models.values()]}


@router.get("/stats", summary="Figures of the registry")
async def stats(parts: Parts) -> dict[str, Any]:
    """Count models, versions, bytes, and where they are deployed."""
    models = await asyncio.to_thread(parts.registry.models)
    routes = list(parts.live.table.routes.values())
    versions = [model for stored in models.values() for model in stored]
    return {
        "models": len(models),
        "versions": len(versions),
        "size_bytes": sum(model.size for model in versions),
        "deployments": len(routes),
        "by_model": {
            name: {
                "versions": len(stored),
                "size_bytes": sum(model.size for model in stored),
                "deployed_versions": sorted(
                    {route.version for route in routes if route.model == name}, key=version_key
                ),
                "request_count": sum(
                    parts.live.usage.of(route).requests for route in routes if route.model == name
                ),
            }
            for name, stored in models.items()
        },
    }


@router.get("/{name}", summary="One model")
async def get_model(name: str, parts: Parts) -> dict[str, Any]:
    """Show the versions of a model."""
    versions = await asyncio.to_thread(parts.registry.versions, name)
    return _summary(versions) | {"versions": [model.to_dict() for model in versions]}


@router.get("/{name}/versions/{version}", summary="One version")
async def get_version(name: str, version: str, parts: Parts) -> dict[str, Any]:
    """Show a version: signature, sha256, size, and what its file says of itself."""
    model = await asyncio.to_thread(parts.registry.find, name, version)
    return model.to_dict()


@router.get("/{name}/versions/{version}/file", summary="The ONNX file", response_class=FileResponse)
async def get_file(name: str, version: str, parts: Parts) -> FileResponse:
    """Download the file as it was uploaded."""
    model = await asyncio.to_thread(parts.registry.find, name, version)
    return FileResponse(
        parts.registry.file(model),
        media_type="application/octet-stream",
        filename=f"{model.name}-{model.version}.onnx",
        headers={keys.HEADER_MODEL_SHA256: model.sha256},
    )


def _summary(versions: list[StoredModel]) -> dict[str, Any]:
    latest = versions[-1]
    return {
        "name": latest.name,
        "versions": [model.version for model in versions],
        "latest": latest.version,
        "uri": latest.uri,
        "size_bytes": sum(model.size for model in versions),
    }
