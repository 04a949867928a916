import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from moorage_serving import answers, server

App = Callable[[Any, Any, Any], Awaitable[None]]
TIMEOUT_S = 20


class Gate:
    """An application whose answer waits until the test lets it go."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.open = asyncio.Event()
        self.lifespan: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                self.lifespan.append(message["type"])
                await send({"type": f"{message['type']}.complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        self.entered.set()
        await self.open.wait()
        await answers.send_json(send, {"path": scope["path"]})


@asynccontextmanager
async def served(app: App, **options: Any) -> AsyncIterator[tuple[server.Server, Any, int]]:
    """Serve on a free port; the server, the task that runs it, and the port."""
    listener = server.bind("127.0.0.1", 0)
    http = server.build(app, **options)
    running = asyncio.create_task(http.serve(sockets=[listener]))
    try:
        yield http, running, listener.getsockname()[1]
    finally:
        http.should_exit = http.force_exit = True
        await asyncio.wait_for(running, TIMEOUT_S)
        listener.close()


async def ask(port: int, path: str = "/") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
    return reader, writer


def run(scenario: Any) -> None:
    asyncio.run(asyncio.wait_for(scenario, TIMEOUT_S))


def test_port_0_takes_a_free_port_and_the_address_tells_it() -> None:
    with server.bind("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        assert port > 0
        assert server.address(listener) == f"http://127.0.0.1:{port}"


def test_an_address_of_ipv6_is_written_in_brackets() -> None:
    try:
        listener = server.bind("::1", 0)
    except server.PortInUse as error:
        pytest.skip(f"this machine has no IPv6: {error}")
    with listener:
        assert server.address(listener).startswith("http://[::1]:")


def test_a_port_in_use_is_named() -> None:
    with server.bind("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(server.PortInUse, match=rf"cannot listen on 127\.0\.0\.1:{port}: .+"):
            server.bind("127.0.0.1", port)


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_that_is_not_ours_is_named(host: str) -> None:
    with pytest.raises(server.PortInUse, match=f"cannot listen on {host}:0: .+"):
        server.bind(host, 0)


@pytest.mark.parametrize("how", ["signal", "stop"])
def test_answers_under_way_are_sent_before_the_end(how: str) -> None:
    async def scenario() -> None:
        gate = Gate()
        async with served(gate) as (http, running, port):
            reader, writer = await ask(port, "/last")
            await gate.entered.wait()
            if how == "signal":
                signal.raise_signal(signal.SIGTERM)
            else:
                http.stop()
            # No new connection is taken from here on, and the open one is waited for.
            while not http.lifespan.should_exit and http.servers[0].is_serving():
                await asyncio.sleep(0)
            assert not running.done()
            gate.open.set()
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 200")
            assert answer.endswith(b'{"path":"/last"}')
            # A clean end, not one by the signal.
            assert await running is None
            writer.close()
            with pytest.raises(ConnectionRefusedError):
                await ask(port)
        assert gate.lifespan == ["lifespan.startup", "lifespan.shutdown"]

    run(scenario())


def test_an_idle_connection_does_not_hold_up_the_end() -> None:
    async def scenario() -> None:
        gate = Gate()
        gate.open.set()
        async with served(gate) as (http, running, port):
            reader, writer = await ask(port)
            await reader.readuntil(b"}")
            http.stop()
            await running
            assert await reader.read() == b""
            writer.close()

    run(scenario())


def test_what_outlasts_the_grace_is_cut_off() -> None:
    async def scenario() -> None:
        gate = Gate()
        async with served(gate, grace_s=0) as (http, running, port):
            reader, writer = await ask(port)
            await gate.entered.wait()
            http.stop()
            await running
            writer.close()
            del reader

    run(scenario())


def test_ctrl_c_after_a_signal_ends_at_once_and_sigterm_does_not() -> None:
    async def scenario() -> None:
        gate = Gate()
        async with served(gate) as (http, running, port):
            _, writer = await ask(port)
            await gate.entered.wait()
            for _ in range(3):
                http.handle_exit(signal.SIGTERM, None)
                assert http.should_exit
                assert not http.force_exit
            http.handle_exit(signal.SIGINT, None)
            assert http.force_exit
            await running
            gate.open.set()
            writer.close()

    run(scenario())


def test_a_coroutine_is_run_on_a_loop_to_its_end() -> None:
    async def five() -> int:
        await asyncio.sleep(0)
        return 5

    assert server.run(five()) == 5


def test_the_listening_socket_is_left_open_for_the_server_alone() -> None:
    with server.bind("127.0.0.1", 0) as listener:
        assert listener.get_inheritable() is False
        assert listener.family == socket.AF_INET
