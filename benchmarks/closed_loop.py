"""A closed-loop load generator: each connection sends its next request when the answer is there."""

import asyncio
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final, cast

#: Longest wait for the last answers, in seconds.
ANSWER_S: Final = 10.0


@dataclass
class Load:
    """What one point saw.

    Parameters
    ----------
    seconds
        How long it took.
    latencies_s
        One for each answer.
    errors
        Answers that were not 200.
    """

    seconds: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    errors: int = 0

    @property
    def requests(self) -> int:
        """How many were answered."""
        return len(self.latencies_s)

    def percentile_ms(self, share: float) -> float:
        """Return the latency that `share` of the requests stayed below, in milliseconds."""
        ordered = sorted(self.latencies_s)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1e3


class _Connection(asyncio.Protocol):
    """Sends the same request again and again until the deadline."""

    def __init__(self, request: bytes, load: Load, deadline: float) -> None:
        self._request = request
        self._load = load
        self._deadline = deadline
        self._buffer = b""
        self._sent = 0.0
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        # uvloop's transports are no subclasses.
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def _send(self) -> None:
        self._sent = perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Take an answer, and send the next request when it is whole."""
        self._buffer = self._buffer + data if self._buffer else data
        head = self._buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        at = self._buffer.lower().find(b"content-length:", 0, head)
        length = int(self._buffer[at + 15 : self._buffer.find(b"\r\n", at)])
        if len(self._buffer) < head + 4 + length:
            return
        now = perf_counter()
        self._load.latencies_s.append(now - self._sent)
        if not self._buffer.startswith(b"HTTP/1.1 200"):
            self._load.errors += 1
        self._buffer = b""
        if now < self._deadline:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        """End; a server that closes early is an error of the whole point."""
        if not self.done.done():
            if error is not None or perf_counter() < self._deadline:
                self.done.set_exception(error or ConnectionError("the server closed early"))
            else:
                self.done.set_result(None)


async def post(url_path: str, port: int, body: bytes, connections: int, seconds: float) -> Load:
    """Post `body` over `connections` for `seconds`, and return what came of it."""
    request = (
        f"POST {url_path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    load = Load()
    loop = asyncio.get_running_loop()
    started = perf_counter()
    made = [
        await loop.create_connection(
            lambda: _Connection(request, load, started + seconds), "127.0.0.1", port
        )
        for _ in range(connections)
    ]
    async with asyncio.timeout(seconds + ANSWER_S):
        await asyncio.gather(*(connection.done for _, connection in made))
    load.seconds = perf_counter() - started
    return load
