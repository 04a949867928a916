import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import pytest
from uvicorn.server import ServerState

from moorage_api.errors import MoorageError
from moorage_serving import answers, bodies, server
from moorage_serving.http_protocol import HEAD_LIMIT, OneWriteProtocol, _OneWriteTransport

TIMEOUT_S = 20
LARGE = 300_000


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers by path; `/echo` gives the body back."""
    if scope["type"] != "http":
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        return
    path = scope["path"]
    if path == "/echo":
        body = await bodies.read(receive, bodies.headers_of(scope), 1_000_000)
        await answers.send_bytes(send, 200, [], body)
    elif path == "/small-limit":
        try:
            body = await bodies.read(receive, bodies.headers_of(scope), 10)
        except MoorageError as error:
            await answers.send_error(send, error)
        else:
            await answers.send_bytes(send, 200, [], body)
    elif path == "/chunks":
        await answers.send_chunks(send, 200, [], [b"ab", memoryview(b"cd"), b"x" * LARGE])
    elif path == "/stream":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for part in (b"one", b"two"):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    elif path == "/nothing":
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})
    elif path == "/large":
        await answers.send_bytes(send, 200, [], b"x" * LARGE)
    elif path == "/crash":
        raise RuntimeError("on purpose")
    else:
        await answers.send_json(send, {"path": path})


class Talk(Protocol):
    """What a test says and hears on one connection."""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, /) -> None:
        """Talk."""


Exchange = Callable[[Talk], None]


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    """Serve `echo` on a real socket, in a thread of its own; no test may harm the next."""
    listener = server.bind("127.0.0.1", 0)
    http = server.build(echo)
    thread = threading.Thread(target=lambda: server.run(http.serve(sockets=[listener])))
    thread.start()
    try:
        yield listener.getsockname()
    finally:
        http.stop()
        thread.join()
        listener.close()


@pytest.fixture
def exchange(address: tuple[str, int]) -> Exchange:
    """Talk to the server on a new connection."""

    async def scenario(talk: Talk) -> None:
        reader, writer = await asyncio.open_connection(*address)
        try:
            await asyncio.wait_for(talk(reader, writer), TIMEOUT_S)
        finally:
            writer.close()

    return lambda talk: asyncio.run(scenario(talk))


Answer = tuple[int, dict[bytes, bytes], bytes]


async def answer(reader: asyncio.StreamReader, method: str = "GET") -> Answer:
    """Read one answer off the connection."""
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).strip().split(b"\r\n")
    headers = dict(line.lower().split(b": ", 1) for line in lines)
    assert len(headers) == len(lines), "a header stands there twice"
    status = int(first.split()[1])
    if method == "HEAD" or status in (204, 100):
        return status, headers, b""
    if headers.get(b"transfer-encoding") == b"chunked":
        body = b""
        while size := int(await reader.readline(), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        assert await reader.readline() == b"\r\n"
        return status, headers, body
    return status, headers, await reader.readexactly(int(headers[b"content-length"]))


def get(path: str, method: str = "GET", **headers: str) -> bytes:
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"{method} {path} HTTP/1.1\r\nHost: h\r\n{lines}\r\n".encode()


def post(path: str, body: bytes, **headers: str) -> bytes:
    return get(path, "POST", content_length=str(len(body)), **headers) + body


def test_a_connection_is_kept_for_the_next_request(exchange: Exchange) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for at in range(3):
            writer.write(get(f"/{at}"))
            assert await answer(reader) == (
                200,
                {b"content-type": b"application/json", b"content-length": b"13"},
                f'{{"path":"/{at}"}}'.encode(),
            )

    exchange(talk)


def test_requests_sent_at_once_are_answered_in_their_order(exchange: Exchange) -> None:
    requests = [
        (get("/a"), "GET", b'{"path":"/a"}'),
        (post("/echo", b"b" * 1000), "POST", b"b" * 1000),
        (get("/c", "HEAD"), "HEAD", b""),
        (get("/nothing"), "GET", b""),
        (get("/stream"), "GET", b"onetwo"),
        (get("/large"), "GET", b"x" * LARGE),
        (get("/chunks"), "GET", b"abcd" + b"x" * LARGE),
        (get("/last"), "GET", b'{"path":"/last"}'),
    ]

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"".join(raw for raw, _, _ in requests))
        for _, method, expected in requests:
            assert (await answer(reader, method))[2] == expected

    exchange(talk)


def test_a_request_may_come_byte_by_byte(exchange: Exchange) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for byte in post("/echo", b"hello"):
            writer.write(bytes([byte]))
            await writer.drain()
        assert (await answer(reader))[2] == b"hello"

    exchange(talk)


@pytest.mark.parametrize("path", ["/", "/large", "/nothing", "/chunks", "/stream"])
def test_head_is_answered_without_a_body_and_the_connection_goes_on(
    exchange: Exchange, path: str
) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(get(path, "HEAD"))
        status, headers, _ = await answer(reader, "HEAD")
        assert status == (204 if path == "/nothing" else 200)
        if path == "/large":
            assert headers[b"content-length"] == str(LARGE).encode()
        writer.write(get("/next"))
        assert (await answer(reader))[2] == b'{"path":"/next"}'

    exchange(talk)


def test_a_client_that_expects_100_continue_gets_it_before_it_sends(exchange: Exchange) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(get("/echo", "POST", content_length="5", Expect="100-continue"))
        assert (await answer(reader))[0] == 100
        writer.write(b"hello")
        assert await answer(reader) == (200, {b"content-length": b"5"}, b"hello")

    exchange(talk)


def test_a_body_announced_too_large_is_refused_and_not_asked_for(exchange: Exchange) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(get("/small-limit", "POST", content_length="11", Expect="100-continue"))
        status, _, body = await answer(reader)
        assert status == 413
        assert b"larger than the limit of 10 bytes" in body

    exchange(talk)


def test_a_refused_body_that_comes_all_the_same_is_no_request(exchange: Exchange) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(post("/small-limit", b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n" * 1000))
        assert (await answer(reader))[0] == 413
        writer.write(get("/next"))
        assert (await answer(reader))[2] == b'{"path":"/next"}'

    exchange(talk)


@pytest.mark.parametrize("limited", [False, True])
def test_a_chunked_body_is_read_and_bounded(exchange: Exchange, limited: bool) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = "/small-limit" if limited else "/echo"
        writer.write(get(path, "POST", transfer_encoding="chunked"))
        for part in (b"hello ", b"wor", b"ld"):
            writer.write(b"%x\r\n%b\r\n" % (len(part), part))
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        status, _, body = await answer(reader)
        assert (status, body) == (200, b"hello world") if not limited else status == 413

    exchange(talk)


def test_connection_close_is_obeyed(exchange: Exchange) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(get("/", connection="close"))
        status, headers, _ = await answer(reader)
        assert (status, headers[b"connection"]) == (200, b"close")
        assert await reader.read() == b""

    exchange(talk)


def test_http_1_0_is_answered_and_closed(exchange: Exchange) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        assert (await answer(reader))[2] == b'{"path":"/"}'
        assert await reader.read() == b""

    exchange(talk)


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
    ids=["nonsense", "no number", "negative", "huge", "both lengths", "TLS"],
)
def test_what_is_no_http_is_answered_with_400_and_closed(exchange: Exchange, raw: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")

    exchange(talk)


def test_an_application_that_breaks_is_answered_with_500(exchange: Exchange) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(get("/crash"))
        assert (await reader.read()).startswith(b"HTTP/1.1 500 ")

    exchange(talk)


@pytest.mark.parametrize("sent", ["half a head", "half a body", "no time to read"])
def test_a_client_that_goes_away_leaves_the_server_well(exchange: Exchange, sent: str) -> None:
    raw = {
        "half a head": b"POST /echo HTTP/1.1\r\nHo",
        "half a body": get("/echo", "POST", content_length="100") + b"x" * 50,
        "no time to read": get("/large") * 20,
    }[sent]

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = writer.get_extra_info("peername")
        other, leaving = await asyncio.open_connection(host, port)
        leaving.write(raw)
        await leaving.drain()
        leaving.transport.abort()
        writer.write(get("/still"))
        assert (await answer(reader))[2] == b'{"path":"/still"}'
        del other

    exchange(talk)


class Wire(asyncio.Transport):
    """A transport that keeps each write apart, as the system calls they become."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def writelines(self, list_of_data: Any) -> None:
        self.writes.append(b"".join(list_of_data))

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


def test_head_and_body_leave_in_one_write() -> None:
    for body in (b"small", b"x" * 100_000):
        wire = Wire()
        transport: Any = _OneWriteTransport(wire)
        transport.write(b"HTTP/1.1 200 OK\r\n\r\n")
        assert wire.writes == []
        transport.write(body)
        transport.write(b"more")
        assert wire.writes == [b"HTTP/1.1 200 OK\r\n\r\n" + body, b"more"]


def test_a_head_leaves_without_a_body_when_it_is_flushed_or_closed() -> None:
    for end in ("flush", "close"):
        wire = Wire()
        transport: Any = _OneWriteTransport(wire)
        transport.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        getattr(transport, end)()
        assert wire.writes == [b"HTTP/1.1 204 No Content\r\n\r\n"]
        assert wire.closed == (end == "close")
        transport.flush()
        assert len(wire.writes) == 1


def test_an_interim_answer_leaves_at_once() -> None:
    wire = Wire()
    transport: Any = _OneWriteTransport(wire)
    transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert wire.writes == [b"HTTP/1.1 100 Continue\r\n\r\n"]
    assert transport.is_closing() is False


def test_the_server_uses_it() -> None:
    assert server.build(echo).config.http is OneWriteProtocol


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([b"x: " + b"a" * (HEAD_LIMIT // 2), b"a" * HEAD_LIMIT], id="one long header"),
        pytest.param([b"x: y\r\n" * 8000] * 2, id="many short ones"),
    ],
)
def test_a_head_that_does_not_end_is_turned_away(parts: list[bytes]) -> None:
    wire: Any = Wire()

    async def scenario() -> None:
        config = server.build(echo).config
        config.load()
        protocol = OneWriteProtocol(config, ServerState(), {})
        protocol.connection_made(wire)
        protocol.data_received(b"GET / HTTP/1.1\r\nHost: h\r\n")
        for part in parts:
            assert not wire.closed
            protocol.data_received(part)

    asyncio.run(scenario())
    (answered,) = wire.writes
    assert answered.startswith(b"HTTP/1.1 431 ")
    assert b"connection: close" in answered
    assert b"larger than 65536 bytes" in answered
    assert wire.closed


def test_a_large_body_is_no_large_head(exchange: Exchange) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = b"x" * (4 * HEAD_LIMIT)
        for _ in range(2):
            writer.write(post("/echo", body))
            assert (await answer(reader))[2] == body

    exchange(talk)
