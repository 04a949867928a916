"""uvicorn's HTTP/1.1 protocol, with two differences.

Heads of requests are bounded. And head and body of an answer leave in one write: uvicorn writes the
head when `http.response.start` arrives and the body after it, which is two system calls and often
two packets, a seventh of the CPU of a small answer. Here the head waits for the first piece of the
body.
"""

import asyncio
from http import HTTPStatus
from typing import Any, Final

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: Above this size head and body are handed over as two buffers instead of being joined by a copy.
_JOIN_LIMIT: Final = 16 * 1024
#: Most bytes of a request's line and headers, give or take what one read from the socket brings.
HEAD_LIMIT: Final = 64 * 1024
_HEAD: Final = b"HTTP/1.1 "
_INTERIM: Final = b"HTTP/1.1 1"


class _OneWriteTransport:
    """A transport that holds a response head back until more is written, or it is flushed."""

    __slots__ = ("_head", "_transport", "write")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""
        self.write = self._write

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def _write(self, data: bytes) -> None:
        head = self._head
        if head:
            self._head = b""
            if len(data) <= _JOIN_LIMIT:
                self._transport.write(b"".join((head, data)))
            else:
                self._transport.writelines((head, data))
        elif data[:9] == _HEAD and data[:10] != _INTERIM:
            # An interim answer (100 Continue) must go out at once: the client waits for it.
            self._head = data
        else:
            self._transport.write(data)

    def flush(self) -> None:
        """Send a head that no body followed, as for HEAD requests and 204."""
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)

    def close(self) -> None:
        self.flush()
        self._transport.close()


class OneWriteProtocol(HttpToolsProtocol):
    """The protocol class to give to `uvicorn.Config(http=…)`."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wrap the transport that uvicorn writes to."""
        super().connection_made(transport)
        self._one_write = _OneWriteTransport(transport)
        self.transport = self._one_write  # type: ignore[assignment]
        self._in_head = False
        self._head_size = 0

    def data_received(self, data: bytes) -> None:
        """Parse what came, and turn away a head that does not end."""
        was_in_head = self._in_head
        super().data_received(data)
        if was_in_head and self._in_head:
            self._head_size += len(data)
            if self._head_size > HEAD_LIMIT:
                self._refuse(431, f"the request's headers are larger than {HEAD_LIMIT} bytes")

    def on_message_begin(self) -> None:
        """Begin to count the head."""
        self._in_head = True
        self._head_size = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """End counting."""
        self._in_head = False
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        self._refuse(400, msg)

    def _refuse(self, status: int, words: str) -> None:
        body = orjson.dumps({"error": words})
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def on_response_complete(self) -> None:
        """Send what has no body."""
        self._one_write.flush()
        super().on_response_complete()
