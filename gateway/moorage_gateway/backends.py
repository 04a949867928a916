"""Runtimes behind the gateway: kept-alive connections, V2 binary, least busy first.

Only what has certainly not run is tried again: a connection that was refused. A request that a
runtime may have started is never sent twice.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic, perf_counter
from typing import Final, Protocol
from urllib.parse import urlsplit

import httptools
import orjson

from moorage_api import keys, v2
from moorage_api.errors import (
    BodyTooLarge,
    InvalidBody,
    InvalidRequest,
    InvalidTensor,
    MoorageError,
    NotReady,
    Overloaded,
    RuntimeBroke,
    RuntimeTimeout,
    RuntimeUnreachable,
    UnknownModel,
)
from moorage_api.tensors import Tensor
from moorage_serving import bodies

#: Connections to one runtime; more requests wait for a free one.
MAX_CONNECTIONS: Final = 128
#: Requests that may wait for a connection to one runtime; more are turned away.
MAX_WAITING: Final = 1024
#: An idle connection is dropped after this long, well before the runtime's own 75 s, so that a
#: request never meets the runtime's hanging up.
IDLE_S: Final = 30.0
CONNECT_TIMEOUT_S: Final = 2.0
#: Largest answer that is accepted.
MAX_ANSWER_BYTES: Final = 1024 * 1024 * 1024

#: Above this size the pieces of a request are handed over as they are, not joined by a copy.
_JOIN_LIMIT: Final = 64 * 1024
_JSON_LENGTH: Final = keys.HEADER_JSON_LENGTH.encode()


@dataclass(slots=True)
class Answer:
    """Outputs of a runtime, and how long it took.

    Parameters
    ----------
    tensors
        The outputs.
    queue_s
        Waiting for a connection, in seconds.
    runtime_s
        From sending the request to having the answer, in seconds.
    """

    tensors: list[Tensor]
    queue_s: float
    runtime_s: float


class Backends(Protocol):
    """Where predictions are computed."""

    async def infer(
        self,
        addresses: Sequence[str],
        model: str,
        tensors: Sequence[Tensor],
        outputs: Sequence[str] | None,
    ) -> Answer:
        """Have one of the runtimes at `addresses` compute.

        Parameters
        ----------
        addresses
            Base URLs of runtimes that serve the model; at least one.
        model
            Name under which they serve it.
        tensors
            Inputs that fit the model.
        outputs
            Names of the outputs wanted; None wants all.

        Raises
        ------
        BodyTooLarge
            When the tensors are larger than a runtime takes.
        InvalidRequest
            What the runtime said of the input.
        RuntimeUnreachable
            When none accepted the request.
        RuntimeTimeout, RuntimeBroke
            When one accepted it and gave no good answer.
        Overloaded
            When too many requests wait already.
        """


class HttpBackends:
    """`Backends` over HTTP/1.1.

    Parameters
    ----------
    timeout_s
        Longest time from sending a request to its whole answer.
    body_limit
        Most bytes that a request may have as binary tensors, as runtimes have a limit too. JSON
        of this size can become four times as much.
    """

    def __init__(self, timeout_s: float = 60.0, *, body_limit: int = bodies.DEFAULT_LIMIT) -> None:
        self._timeout = timeout_s
        self._body_limit = body_limit
        self._runtimes: dict[str, _Runtime] = {}
        self._asked = 0

    async def infer(
        self,
        addresses: Sequence[str],
        model: str,
        tensors: Sequence[Tensor],
        outputs: Sequence[str] | None,
    ) -> Answer:
        """Have one of the runtimes compute; see `Backends.infer`."""
        started = perf_counter()
        body = v2.render_request(tensors, outputs)
        if body.content_length > self._body_limit:
            raise BodyTooLarge(self._body_limit, "the request, as binary tensors,")
        runtimes = [self._runtime(address) for address in addresses]
        if len(runtimes) > 1:
            # Where several are as idle, they take turns.
            first = self._asked % len(runtimes)
            self._asked += 1
            runtimes = sorted((*runtimes[first:], *runtimes[:first]), key=_load)
        for at, runtime in enumerate(runtimes):
            try:
                connection = await runtime.acquire()
            except RuntimeUnreachable:
                if at == len(runtimes) - 1:
                    raise
                continue
            sent = perf_counter()
            try:
                status, json_length, content = await connection.exchange(
                    runtime.head(model, body), body, self._timeout
                )
            finally:
                runtime.release(connection)
            done = perf_counter()
            if status != 200:
                raise _failure(model, runtime.address, status, content)
            try:
                answer = v2.parse_response(content, json_length)
            except (InvalidBody, InvalidTensor) as error:
                raise RuntimeBroke(
                    f"runtime {runtime.address} answered nonsense: {error}"
                ) from error
            return Answer(answer, sent - started, done - sent)
        raise RuntimeUnreachable(f"no runtime serves {model!r}")

    def keep(self, addresses: Iterable[str]) -> None:
        """Forget runtimes that are at none of `addresses`; what they work on is still answered."""
        wanted = set(addresses)
        for address in [address for address in self._runtimes if address not in wanted]:
            self._runtimes.pop(address).close()

    def in_flight(self, addresses: Iterable[str]) -> int:
        """Return how many requests the runtimes at `addresses` work on for this gateway."""
        return sum(
            self._runtimes[address].in_flight for address in addresses if address in self._runtimes
        )

    def close(self) -> None:
        """Close every connection."""
        self.keep(())

    def _runtime(self, address: str) -> "_Runtime":
        found = self._runtimes.get(address)
        if found is None:
            found = self._runtimes[address] = _Runtime(address)
        return found


def _load(runtime: "_Runtime") -> int:
    return runtime.in_flight


def _failure(model: str, address: str, status: int, content: bytes) -> MoorageError:
    """Turn a runtime's error into ours, keeping its words."""
    try:
        words = str(orjson.loads(content)["error"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        words = f"HTTP {status}"
    if status == 404:
        return UnknownModel(model)
    if 400 <= status < 500:
        return InvalidRequest(words)
    if status == 503:
        return NotReady(model, words)
    return RuntimeBroke(f"runtime {address}: {words}")


class _Runtime:
    """The connections to one runtime."""

    def __init__(self, address: str) -> None:
        self.address = address
        split = urlsplit(address)
        self._host = split.hostname or ""
        self._port = split.port or 80
        self._netloc = split.netloc.encode("latin-1")
        self._idle: list[_Connection] = []
        self._open = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._heads: dict[str, bytes] = {}
        self._closed = False
        self.in_flight = 0

    def head(self, model: str, body: v2.Body) -> bytes:
        """Return the request line and headers for a body in binary."""
        head = self._heads.get(model)
        if head is None:
            head = self._heads[model] = (
                b"POST /v2/models/%s/infer HTTP/1.1\r\nhost: %s\r\n"
                b"content-type: application/octet-stream\r\n"
                b"inference-header-content-length: %%d\r\ncontent-length: %%d\r\n\r\n"
            ) % (model.encode(), self._netloc)
        # All of it is JSON where there is no tensor: a model may have no inputs.
        size = body.content_length
        return head % (size if body.json_length is None else body.json_length, size)

    async def acquire(self) -> "_Connection":
        """Return a connection that nobody else uses, opened where needed."""
        self.in_flight += 1
        try:
            while True:
                connection = self._pop_idle()
                if connection is not None:
                    return connection
                if self._open < MAX_CONNECTIONS:
                    return await self._connect()
                await self._turn()
        except BaseException:
            self.in_flight -= 1
            self._wake()
            raise

    def release(self, connection: "_Connection") -> None:
        """Take a connection back; one that is not fit for reuse is closed."""
        self.in_flight -= 1
        if connection.is_reusable and not self._closed:
            connection.idle_since = monotonic()
            self._idle.append(connection)
        else:
            connection.close()
            self._open -= 1
        self._wake()

    def close(self) -> None:
        """Close idle connections, and the others as they come back."""
        self._closed = True
        for connection in self._idle:
            connection.close()
            self._open -= 1
        self._idle.clear()

    def _pop_idle(self) -> "_Connection | None":
        oldest = monotonic() - IDLE_S
        while self._idle:
            connection = self._idle.pop()
            if connection.is_reusable and connection.idle_since > oldest:
                return connection
            connection.close()
            self._open -= 1
        return None

    async def _connect(self) -> "_Connection":
        self._open += 1
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                _, connection = await asyncio.get_running_loop().create_connection(
                    _Connection, self._host, self._port
                )
        except OSError as error:
            # TimeoutError is one of them.
            self._open -= 1
            words = error.strerror or type(error).__name__
            raise RuntimeUnreachable(
                f"runtime {self.address} cannot be reached: {words}"
            ) from error
        except BaseException:
            self._open -= 1
            raise
        return connection

    async def _turn(self) -> None:
        if len(self._waiting) >= MAX_WAITING:
            raise Overloaded(f"{MAX_WAITING} requests wait for runtime {self.address} already")
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            with suppress(ValueError):
                self._waiting.remove(turn)
            raise

    def _wake(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return


class _Connection(asyncio.Protocol):
    """One HTTP/1.1 connection, one exchange at a time."""

    def __init__(self) -> None:
        self.idle_since = 0.0
        self.is_reusable = True
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._answer: asyncio.Future[tuple[int, int | None, bytes]] | None = None
        self._parts: list[bytes] = []
        self._size = 0
        self._json_length: int | None = None
        self._loop = asyncio.get_running_loop()

    async def exchange(
        self, head: bytes, body: v2.Body, timeout_s: float
    ) -> tuple[int, int | None, bytes]:
        """Send a request; return status, `Inference-Header-Content-Length` and content."""
        transport = self._transport
        if transport is None or self._answer is not None:
            raise RuntimeUnreachable("the connection is gone")
        answer: asyncio.Future[tuple[int, int | None, bytes]] = self._loop.create_future()
        self._answer = answer
        if body.content_length <= _JOIN_LIMIT:
            transport.write(b"".join((head, *body.chunks)))
        else:
            transport.writelines((head, *body.chunks))
        timer = self._loop.call_later(timeout_s, self._late, timeout_s)
        try:
            return await answer
        except BaseException:
            # Cancelled or failed half-way: what comes next on this wire belongs to nobody.
            self.is_reusable = False
            raise
        finally:
            timer.cancel()
            self._answer = None

    def close(self) -> None:
        """Close the connection."""
        self.is_reusable = False
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def connection_lost(self, _exc: Exception | None) -> None:
        self.is_reusable = False
        self._transport = None
        self._fail(RuntimeBroke("the runtime closed the connection before its answer was whole"))

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.is_reusable = False
            self._fail(RuntimeBroke(f"the runtime's answer is not HTTP: {error}"))

    def on_message_begin(self) -> None:
        if self._answer is None or self._answer.done():
            # Nobody asked. The next request must not be answered with it.
            self.close()
        self._parts = []
        self._size = 0
        self._json_length = None

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(name) == len(_JSON_LENGTH) and name.lower() == _JSON_LENGTH:
            self._json_length = int(value)

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)
        self._size += len(body)
        if self._size > MAX_ANSWER_BYTES:
            self.close()
            self._fail(RuntimeBroke(f"the answer is larger than {MAX_ANSWER_BYTES} bytes"))

    def on_message_complete(self) -> None:
        if not self._parser.should_keep_alive():
            self.is_reusable = False
        parts, self._parts = self._parts, []
        answer = self._answer
        if answer is not None and not answer.done():
            content = parts[0] if len(parts) == 1 else b"".join(parts)
            answer.set_result((self._parser.get_status_code(), self._json_length, content))

    def _late(self, timeout_s: float) -> None:
        self.close()
        self._fail(RuntimeTimeout(f"the runtime did not answer within {timeout_s:g} s"))

    def _fail(self, error: MoorageError) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
