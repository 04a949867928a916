"""Reads request bodies: bounded before, during and after decompression."""

import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, TypeAlias

from moorage_api.errors import BodyTooLarge, InvalidBody, UnsupportedContent

Scope: TypeAlias = "MutableMapping[str, Any]"
Receive: TypeAlias = Callable[[], Awaitable[Any]]
Send: TypeAlias = Callable[[Any], Awaitable[None]]

#: Default limit of a body, compressed or not.
DEFAULT_LIMIT: Final = 256 * 1024 * 1024

#: zlib's window bits for each content coding (RFC 9110, section 8.4.1). "deflate" is the zlib
#: format; bare deflate data, which some clients send under that name, is tried second.
_WINDOW: Final = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}
ENCODINGS: Final = ("gzip", "deflate", "identity")
#: Most members of one gzip body. A member costs far more than its twenty bytes, so without a bound
#: a body of nothing but members would keep the server busy for hours.
MAX_MEMBERS: Final = 16384
#: Bytes that are decompressed at once: what follows a member in them is copied.
_PIECE: Final = 64 * 1024


class Disconnected(Exception):
    """The client went away before its request was complete; nobody waits for an answer."""


def headers_of(scope: Scope) -> dict[bytes, bytes]:
    """Return the request's headers by lower-case name; the last of a repeated one wins."""
    return dict(scope["headers"])


async def read(receive: Receive, headers: dict[bytes, bytes], limit: int = DEFAULT_LIMIT) -> bytes:
    """Read and decompress a whole request body.

    Parameters
    ----------
    receive
        ASGI's.
    headers
        As `headers_of` returns them.
    limit
        Most bytes, both as sent and decompressed.

    Raises
    ------
    BodyTooLarge
        When more is announced (before anything is read), sent, or comes out of decompression.
    InvalidBody
        When the compressed body is damaged.
    UnsupportedContent
        When it is compressed in a way that is not read here.
    Disconnected
        When the client goes away.
    """
    length = headers.get(b"content-length")
    # uvicorn's parser has refused lengths that are no number.
    if length is not None and int(length) > limit:
        raise BodyTooLarge(limit)
    message = await receive()
    if message["type"] != "http.request":
        raise Disconnected
    body: bytes = message.get("body", b"")
    if message.get("more_body"):
        parts = [body]
        size = len(body)
        while message.get("more_body"):
            message = await receive()
            if message["type"] != "http.request":
                raise Disconnected
            part = message.get("body", b"")
            size += len(part)
            if size > limit:
                raise BodyTooLarge(limit)
            parts.append(part)
        body = b"".join(parts)
    if len(body) > limit:
        raise BodyTooLarge(limit)
    encoding = headers.get(b"content-encoding")
    return body if encoding is None else decompress(body, encoding, limit)


def decompress(body: bytes, encoding: bytes, limit: int) -> bytes:
    """Undo a `Content-Encoding`.

    Raises
    ------
    BodyTooLarge, InvalidBody, UnsupportedContent
        As `read` says.
    """
    codings = [coding.strip().lower() for coding in encoding.split(b",")]
    for coding in reversed(codings):
        if coding in (b"", b"identity"):
            continue
        if coding not in _WINDOW:
            raise UnsupportedContent(
                f"Content-Encoding {coding.decode('latin-1')!r}: expected one of "
                f"{', '.join(ENCODINGS)}"
            )
        body = _inflate(body, coding, limit)
    return body


def _inflate(body: bytes, coding: bytes, limit: int) -> bytes:
    window = _WINDOW[coding]
    if coding == b"deflate" and not _is_zlib(body):
        window = -15
    parts: list[bytes] = []
    size = at = members = 0
    view = memoryview(body)
    while at < len(view):
        # gzip allows several members one after the other.
        members += 1
        if members > MAX_MEMBERS:
            raise InvalidBody(f"the {coding.decode()} body has more than {MAX_MEMBERS} members")
        stream = zlib.decompressobj(window)
        while not stream.eof:
            piece = view[at : at + _PIECE]
            if not piece:
                raise InvalidBody(f"the {coding.decode()} body ends too early")
            try:
                part = stream.decompress(piece, limit - size + 1)
            except zlib.error as error:
                raise InvalidBody(f"the body is not {coding.decode()}: {error}") from error
            size += len(part)
            if size > limit:
                raise BodyTooLarge(limit, "the decompressed body")
            parts.append(part)
            at += len(piece) - len(stream.unused_data)
    return b"".join(parts)


def _is_zlib(body: bytes) -> bool:
    """Say whether the two header bytes are those of a zlib stream (RFC 1950, section 2.2)."""
    return len(body) > 1 and body[0] & 0x0F == 8 and (body[0] << 8 | body[1]) % 31 == 0
