"""Sends answers, and turns every error into a status and a sentence: the one table of statuses."""

from collections.abc import Sequence
from typing import Any, Final

import orjson

from moorage_api import errors
from moorage_serving.bodies import Send

#: HTTP status of each error; a subclass without an entry has its nearest ancestor's.
STATUS: Final[dict[type[errors.MoorageError], int]] = {
    errors.InvalidRequest: 400,
    errors.WrongMethod: 405,
    errors.BodyTooLarge: 413,
    errors.UnsupportedContent: 415,
    errors.InvalidResource: 400,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.ModelRejected: 422,
    errors.MoorageError: 500,
    errors.Unsupported: 501,
    errors.RuntimeBroke: 502,
    errors.Unavailable: 503,
    errors.RuntimeTimeout: 504,
}

JSON: Final = (b"content-type", b"application/json")
#: What a client that was turned away for now should wait, in seconds.
RETRY_AFTER: Final = (b"retry-after", b"1")

Headers = list[tuple[bytes, bytes]]


def status_of(error: BaseException) -> int:
    """Return the HTTP status for an error; 500 for one that is not Moorage's."""
    status = errors.entry_of(STATUS, error)
    return 500 if status is None else status


def error_body(error: BaseException) -> bytes:
    """Return `{"error": "…"}`; an unexpected error keeps its details for the log."""
    words = str(error) if isinstance(error, errors.MoorageError) else "internal error"
    # A file's name can hold bytes that are no text; the answer is sent all the same.
    return orjson.dumps({"error": words.encode(errors="replace").decode()})


def error_headers(error: BaseException) -> Headers:
    """Return the headers that go with an error."""
    if isinstance(error, errors.WrongMethod):
        return [(b"allow", ", ".join(error.allowed).encode())]
    return [RETRY_AFTER] if isinstance(error, errors.Unavailable) else []


async def send_json(send: Send, value: Any, status: int = 200) -> None:
    """Answer with a JSON document."""
    await send_bytes(send, status, [JSON], orjson.dumps(value))


async def send_error(
    send: Send, error: BaseException, headers: Sequence[tuple[bytes, bytes]] = ()
) -> None:
    """Answer with an error."""
    await send_bytes(
        send, status_of(error), [JSON, *error_headers(error), *headers], error_body(error)
    )


async def send_bytes(send: Send, status: int, headers: Headers, body: bytes | memoryview) -> None:
    """Answer with one piece of content; its length is added to `headers`."""
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def send_chunks(
    send: Send, status: int, headers: Headers, chunks: Sequence[bytes | memoryview]
) -> None:
    """Answer with pieces that are not joined by a copy."""
    length = sum(len(chunk) for chunk in chunks)
    headers.append((b"content-length", b"%d" % length))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    last = len(chunks) - 1
    for at, chunk in enumerate(chunks):
        await send({"type": "http.response.body", "body": chunk, "more_body": at != last})
