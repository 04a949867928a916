"""uvicorn's HTTP/1.1 protocol, with the head and the body of an answer in one write.

uvicorn writes the head when `http.response.start` arrives and the body after it: two system calls
and often two packets, a seventh of the CPU of a small answer. Here the head waits for the first
piece of the body.
"""

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: Above this size head and body are handed over as two buffers instead of being joined by a copy.
_JOIN_LIMIT: Final = 16 * 1024
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

    def on_response_complete(self) -> None:
        """Send what has no body."""
        self._one_write.flush()
        super().on_response_complete()
