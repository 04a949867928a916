"""Connections to runtimes, over real sockets with runtimes that misbehave on order."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from moorage_api import v2
from moorage_api.errors import (
    BodyTooLarge,
    InvalidRequest,
    MoorageError,
    NotReady,
    Overloaded,
    RuntimeBroke,
    RuntimeTimeout,
    RuntimeUnreachable,
    UnknownModel,
)
from moorage_api.tensors import Tensor
from moorage_gateway import backends as module
from moorage_gateway.backends import HttpBackends

pytestmark = pytest.mark.anyio


@pytest.fixture
async def backends(deadline_s: float) -> AsyncIterator[HttpBackends]:
    made = HttpBackends(deadline_s)
    yield made
    made.close()
    # Transports close in the loop's next round.
    await asyncio.sleep(0)


@pytest.fixture
def x(tensor: Any) -> Tensor:
    found: Tensor = tensor("x", "FP32", [[1, 2, 3]])
    return found


def double(tensors: list[Tensor]) -> list[Tensor]:
    return [Tensor("y", tensor.datatype, tensor.array * 2) for tensor in tensors]


class Gate:
    """A runtime's reaction that holds every request until it is opened."""

    def __init__(self, react: Any) -> None:
        self._react = react
        self._open = asyncio.Event()
        self.held = 0

    async def __call__(self, exchange: Any, writer: Any) -> Any:
        self.held += 1
        await self._open.wait()
        self.held -= 1
        return await self._react(exchange, writer)

    def open(self) -> None:
        self._open.set()


async def test_tensors_travel_binary_and_come_back_with_the_time_it_took(
    backends: HttpBackends, start_runtime: Any, tensor: Any
) -> None:
    runtime = await start_runtime(compute=double)
    given = [tensor("x", "FP32", [[1.5, float("nan")]]), tensor("n", "INT64", [[2**60]])]
    answer = await backends.infer([runtime.address], "m", given, None)
    assert [item.array.tolist() for item in answer.tensors][1] == [[2**61]]
    np.testing.assert_array_equal(answer.tensors[0].array, np.array([[3, np.nan]], np.float32))
    assert answer.runtime_s > 0
    assert answer.queue_s >= 0
    (call,) = runtime.calls
    assert call.path == "/v2/models/m/infer"
    assert call.headers["content-type"] == "application/octet-stream"
    assert call.headers["host"] == runtime.address.removeprefix("http://")


async def test_a_model_without_inputs_is_asked_all_the_same(
    backends: HttpBackends, start_runtime: Any, wire: Any, tensor: Any
) -> None:
    runtime = await start_runtime(compute=lambda _: [tensor("y", "FP32", [7])])
    answer = await backends.infer([runtime.address], "m", [], None)
    assert [item.array.tolist() for item in answer.tensors] == [[7.0]]


async def test_idle_runtimes_take_turns(
    backends: HttpBackends, start_runtime: Any, x: Tensor, tensor: Any
) -> None:
    addresses = []
    for number in range(3):
        answer = [tensor("y", "FP32", [number])]
        runtime = await start_runtime(compute=lambda _, answer=answer: answer)
        addresses.append(runtime.address)
    given = [await backends.infer(addresses, "m", [x], None) for _ in range(6)]
    who = [answer.tensors[0].array.tolist()[0] for answer in given]
    assert sorted(who[:3]) == [0, 1, 2]
    assert who[3:] == who[:3]


async def test_only_the_outputs_that_are_wanted_are_asked_for(
    backends: HttpBackends, start_runtime: Any, x: Tensor
) -> None:
    runtime = await start_runtime(compute=lambda t: [*double(t), Tensor("z", "FP32", t[0].array)])
    answer = await backends.infer([runtime.address], "m", [x], ["z"])
    assert [item.name for item in answer.tensors] == ["z"]


async def test_a_connection_is_used_again(
    backends: HttpBackends, start_runtime: Any, x: Tensor
) -> None:
    runtime = await start_runtime(compute=double)
    for _ in range(5):
        await backends.infer([runtime.address], "m", [x], None)
    assert runtime.connections == 1
    assert len(runtime.calls) == 5


async def test_requests_at_one_time_have_a_connection_each(
    backends: HttpBackends, start_runtime: Any, wire: Any, x: Tensor, eventually: Any
) -> None:
    gate = Gate(wire.computing(double))
    runtime = await start_runtime(gate)
    tasks = [
        asyncio.create_task(backends.infer([runtime.address], "m", [x], None)) for _ in range(3)
    ]
    await eventually(lambda: gate.held == 3)
    assert backends.in_flight([runtime.address]) == 3
    gate.open()
    await asyncio.gather(*tasks)
    assert runtime.connections == 3
    assert backends.in_flight([runtime.address]) == 0


async def test_beyond_the_limit_requests_wait_their_turn(
    backends: HttpBackends,
    start_runtime: Any,
    wire: Any,
    tensor: Any,
    eventually: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_CONNECTIONS", 2)
    gate = Gate(wire.computing(double))
    runtime = await start_runtime(gate)
    tasks = [
        asyncio.create_task(
            backends.infer([runtime.address], "m", [tensor("x", "FP32", [number])], None)
        )
        for number in range(7)
    ]
    await eventually(lambda: gate.held == 2 and backends.in_flight([runtime.address]) == 7)
    gate.open()
    answers = await asyncio.gather(*tasks)
    assert [answer.tensors[0].array.tolist() for answer in answers] == [[2.0 * n] for n in range(7)]
    assert runtime.connections == 2


async def test_beyond_the_queue_requests_are_turned_away(
    backends: HttpBackends,
    start_runtime: Any,
    wire: Any,
    x: Tensor,
    eventually: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_CONNECTIONS", 1)
    monkeypatch.setattr(module, "MAX_WAITING", 2)
    gate = Gate(wire.computing(double))
    runtime = await start_runtime(gate)
    tasks = [
        asyncio.create_task(backends.infer([runtime.address], "m", [x], None)) for _ in range(3)
    ]
    await eventually(lambda: gate.held == 1 and backends.in_flight([runtime.address]) == 3)
    with pytest.raises(Overloaded, match="2 requests wait"):
        await backends.infer([runtime.address], "m", [x], None)
    gate.open()
    await asyncio.gather(*tasks)
    # The one that was turned away holds no place.
    await backends.infer([runtime.address], "m", [x], None)
    assert backends.in_flight([runtime.address]) == 0


async def test_who_gives_up_waiting_does_not_keep_the_next_from_his_turn(
    backends: HttpBackends,
    start_runtime: Any,
    wire: Any,
    x: Tensor,
    eventually: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_CONNECTIONS", 1)
    gate = Gate(wire.computing(double))
    runtime = await start_runtime(gate)
    first, second, third = (
        asyncio.create_task(backends.infer([runtime.address], "m", [x], None)) for _ in range(3)
    )
    await eventually(lambda: gate.held == 1 and backends.in_flight([runtime.address]) == 3)
    # The second gives up in the very round in which its turn comes.
    gate.open()
    await first
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    await third
    assert backends.in_flight([runtime.address]) == 0


async def test_a_cancelled_request_gives_its_answer_to_nobody_else(
    backends: HttpBackends, start_runtime: Any, wire: Any, tensor: Any, eventually: Any
) -> None:
    gate = Gate(wire.computing(double))
    runtime = await start_runtime(gate)
    lost = asyncio.create_task(
        backends.infer([runtime.address], "m", [tensor("x", "FP32", [1])], None)
    )
    await eventually(lambda: gate.held == 1)
    lost.cancel()
    await asyncio.gather(lost, return_exceptions=True)
    gate.open()
    answer = await backends.infer([runtime.address], "m", [tensor("x", "FP32", [5])], None)
    assert answer.tensors[0].array.tolist() == [10.0]
    assert runtime.connections == 2


async def test_a_runtime_that_hung_up_between_requests_is_connected_to_again(
    backends: HttpBackends, start_runtime: Any, x: Tensor, eventually: Any
) -> None:
    runtime = await start_runtime(compute=double)
    for _ in range(3):
        await backends.infer([runtime.address], "m", [x], None)
        (idle,) = backends._runtimes[runtime.address]._idle
        runtime.hang_up()
        await eventually(lambda idle=idle: not idle.is_reusable)
    assert runtime.connections == 3
    assert len(runtime.calls) == 3


async def test_a_runtime_that_announces_hanging_up_is_connected_to_again(
    backends: HttpBackends, start_runtime: Any, wire: Any, x: Tensor
) -> None:
    async def once(exchange: Any, _: Any) -> bytes:
        whole = wire.v2(exchange.parse(), double([x]))
        return bytes(whole.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n", 1))

    runtime = await start_runtime(once)
    for _ in range(2):
        await backends.infer([runtime.address], "m", [x], None)
    assert runtime.connections == 2


async def test_a_connection_that_was_idle_for_long_is_not_used_again(
    backends: HttpBackends, start_runtime: Any, x: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = await start_runtime(compute=double)
    await backends.infer([runtime.address], "m", [x], None)
    monkeypatch.setattr(module, "IDLE_S", -1.0)
    await backends.infer([runtime.address], "m", [x], None)
    assert runtime.connections == 2


def parts_of(wire: Any, x: Tensor) -> bytes:
    whole: bytes = wire.v2(v2.InferRequest([], binary_output=True), double([x]))
    return whole


@pytest.mark.parametrize("part", [0.0, 0.2, 0.5, 0.99])
async def test_a_runtime_that_dies_amid_its_answer_is_not_asked_again(
    backends: HttpBackends, start_runtime: Any, wire: Any, x: Tensor, part: float
) -> None:
    """The request may have run: asking again could run it twice."""

    async def die(_: Any, writer: Any) -> None:
        whole = parts_of(wire, x)
        writer.write(whole[: int(len(whole) * part)])
        await writer.drain()

    runtime = await start_runtime(die)
    spare = await start_runtime(compute=double)
    with pytest.raises(RuntimeBroke, match="before its answer was whole"):
        await backends.infer([runtime.address, spare.address], "m", [x], None)
    assert (len(runtime.calls), len(spare.calls)) == (1, 0)
    assert backends.in_flight([runtime.address]) == 0


@pytest.mark.parametrize("step", [1, 7, 64])
async def test_an_answer_may_come_in_pieces(
    backends: HttpBackends, start_runtime: Any, wire: Any, x: Tensor, step: int
) -> None:
    async def dribble(_: Any, writer: Any) -> bytes:
        whole = parts_of(wire, x)
        for at in range(0, len(whole), step):
            writer.write(whole[at : at + step])
            await writer.drain()
        return b""

    runtime = await start_runtime(dribble)
    for _ in range(2):
        answer = await backends.infer([runtime.address], "m", [x], None)
        assert answer.tensors[0].array.tolist() == [[2.0, 4.0, 6.0]]
    assert runtime.connections == 1


async def test_an_answer_may_be_chunked_and_its_header_names_in_any_case(
    backends: HttpBackends, start_runtime: Any, x: Tensor
) -> None:
    async def chunked(exchange: Any, _: Any) -> bytes:
        body = v2.render_response("m", "1", double([x]), exchange.parse())
        whole = body.join()
        pieces = [whole[at : at + 10] for at in range(0, len(whole), 10)]
        return (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
            b"Inference-Header-Content-Length: %d\r\n\r\n"
            % (body.json_length or 0)
            + b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
            + b"0\r\n\r\n"
        )

    runtime = await start_runtime(chunked)
    for _ in range(2):
        answer = await backends.infer([runtime.address], "m", [x], None)
        assert answer.tensors[0].array.tolist() == [[2.0, 4.0, 6.0]]
    assert runtime.connections == 1


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        pytest.param(b"SSH-2.0-OpenSSH_9.6\r\n", "not HTTP", id="another protocol"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", "not HTTP", id="length"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\ninference-header-content-length: x\r\ncontent-length: 2\r\n\r\n{}",
            "not HTTP",
            id="JSON length",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", "nonsense.*not JSON", id="no JSON"
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", "nonsense.*outputs", id="no outputs"
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\ninference-header-content-length: 9\r\ncontent-length: 2\r\n\r\n{}",
            "nonsense",
            id="a JSON length beyond the end",
        ),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", "HTTP 204", id="no content"),
        pytest.param(
            b"HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n",
            "HTTP 302",
            id="moved",
        ),
    ],
)
async def test_garbage_is_the_runtimes_fault(
    backends: HttpBackends, start_runtime: Any, x: Tensor, answer: bytes, words: str
) -> None:
    async def garbage(_: Any, __: Any) -> bytes:
        return answer

    runtime = await start_runtime(garbage)
    with pytest.raises(RuntimeBroke, match=words):
        await backends.infer([runtime.address], "m", [x], None)
    assert backends.in_flight([runtime.address]) == 0


@pytest.mark.parametrize(
    ("status", "body", "error", "words"),
    [
        pytest.param("400 Bad Request", b'{"error":"x"}', InvalidRequest, "^x$", id="its words"),
        pytest.param("422 Unprocessable", b"oops", InvalidRequest, "HTTP 422", id="no words"),
        pytest.param("404 Not Found", b"{}", UnknownModel, "'m'", id="another model"),
        pytest.param("503 Busy", b'{"error":"full"}', NotReady, "full", id="not ready"),
        pytest.param("500 Oops", b'{"error":"x"}', RuntimeBroke, ": x$", id="an error of its own"),
        pytest.param("500 Oops", b"[]", RuntimeBroke, "HTTP 500", id="a list"),
        pytest.param("500 Oops", b"", RuntimeBroke, "HTTP 500", id="nothing"),
    ],
)
async def test_a_runtimes_error_is_passed_on_in_its_words(
    backends: HttpBackends,
    start_runtime: Any,
    wire: Any,
    x: Tensor,
    status: str,
    body: bytes,
    error: type[MoorageError],
    words: str,
) -> None:
    async def refuse(_: Any, __: Any) -> bytes:
        return bytes(wire.http(body, status))

    runtime = await start_runtime(refuse)
    for _ in range(2):
        with pytest.raises(error, match=words):
            await backends.infer([runtime.address], "m", [x], None)
    assert runtime.connections == 1


@pytest.mark.parametrize("also", ["at once", "in the middle", "later"])
async def test_what_a_runtime_sends_beyond_its_answer_is_nobodys_answer(
    backends: HttpBackends, start_runtime: Any, wire: Any, tensor: Any, eventually: Any, also: str
) -> None:
    """Else the next request, of another client, would be answered with it."""

    async def twice(exchange: Any, writer: Any) -> bytes:
        request = exchange.parse()
        right = wire.v2(request, double(request.tensors))
        if exchange.connection > 1:
            return bytes(right)
        wrong = wire.v2(request, [tensor("y", "FP32", [666])])
        if also == "later":
            asyncio.get_running_loop().call_later(0.001, writer.write, wrong)
            return bytes(right)
        return bytes(right + (wrong if also == "at once" else wrong[: len(wrong) // 2]))

    runtime = await start_runtime(twice)
    first = await backends.infer([runtime.address], "m", [tensor("x", "FP32", [1])], None)
    assert first.tensors[0].array.tolist() == [2.0]
    if also == "later":
        await eventually(lambda: runtime.open == 0)
    second = await backends.infer([runtime.address], "m", [tensor("x", "FP32", [2])], None)
    assert second.tensors[0].array.tolist() == [4.0]


async def test_an_answer_that_does_not_come_is_given_up(
    start_runtime: Any, wire: Any, x: Tensor, eventually: Any
) -> None:
    gate = Gate(wire.computing(double))
    runtime = await start_runtime(gate)
    backends = HttpBackends(timeout_s=0.01)
    with pytest.raises(RuntimeTimeout, match=r"within 0\.01 s"):
        await backends.infer([runtime.address], "m", [x], None)
    assert backends.in_flight([runtime.address]) == 0
    gate.open()
    # Its connection is not used again.
    await eventually(lambda: runtime.open == 0)
    backends.close()


async def test_a_request_beyond_what_runtimes_take_is_not_sent(
    start_runtime: Any, wire: Any, x: Tensor
) -> None:
    runtime = await start_runtime(wire.computing(double))
    backends = HttpBackends(body_limit=100)
    with pytest.raises(BodyTooLarge, match="as binary tensors, is larger than the limit of 100"):
        await backends.infer([runtime.address], "m", [x], None)
    assert runtime.open == 0
    backends.close()


async def test_an_answer_beyond_every_size_is_given_up(
    backends: HttpBackends, start_runtime: Any, wire: Any, x: Tensor, monkeypatch: Any
) -> None:
    monkeypatch.setattr(module, "MAX_ANSWER_BYTES", 50)
    runtime = await start_runtime(compute=double)
    with pytest.raises(RuntimeBroke, match="larger than 50 bytes"):
        await backends.infer([runtime.address], "m", [x], None)


async def test_where_nothing_listens_is_unreachable(
    backends: HttpBackends, free_port: int, x: Tensor
) -> None:
    address = f"http://127.0.0.1:{free_port}"
    with pytest.raises(RuntimeUnreachable, match=f"{address} cannot be reached"):
        await backends.infer([address], "m", [x], None)
    assert backends.in_flight([address]) == 0


async def test_without_an_address_nothing_is_reached(backends: HttpBackends, x: Tensor) -> None:
    with pytest.raises(RuntimeUnreachable, match="no runtime serves 'm'"):
        await backends.infer([], "m", [x], None)


async def test_a_dead_address_is_passed_over(
    backends: HttpBackends, start_runtime: Any, free_port: int, x: Tensor
) -> None:
    runtime = await start_runtime(compute=double)
    dead = f"http://127.0.0.1:{free_port}"
    for addresses in ([dead, runtime.address], [runtime.address, dead]):
        for _ in range(2):
            answer = await backends.infer(addresses, "m", [x], None)
            assert answer.tensors[0].array.tolist() == [[2.0, 4.0, 6.0]]
    assert len(runtime.calls) == 4


async def test_the_least_busy_runtime_is_asked(
    backends: HttpBackends, start_runtime: Any, wire: Any, x: Tensor, eventually: Any
) -> None:
    gate = Gate(wire.computing(double))
    runtimes = [await start_runtime(gate) for _ in range(2)]
    addresses = [runtime.address for runtime in runtimes]
    tasks = [asyncio.create_task(backends.infer(addresses, "m", [x], None)) for _ in range(6)]
    await eventually(lambda: gate.held == 6)
    gate.open()
    await asyncio.gather(*tasks)
    assert [len(runtime.calls) for runtime in runtimes] == [3, 3]


async def test_a_runtime_that_is_no_longer_wanted_still_answers_what_it_works_on(
    backends: HttpBackends, start_runtime: Any, wire: Any, x: Tensor, eventually: Any
) -> None:
    gate = Gate(wire.computing(double))
    runtime = await start_runtime(gate)
    task = asyncio.create_task(backends.infer([runtime.address], "m", [x], None))
    await eventually(lambda: gate.held == 1)
    backends.keep([])
    gate.open()
    assert (await task).tensors[0].array.tolist() == [[2.0, 4.0, 6.0]]
    await eventually(lambda: runtime.open == 0)


async def test_a_large_request_is_sent_whole(
    backends: HttpBackends, start_runtime: Any, tensor: Any
) -> None:
    runtime = await start_runtime(compute=double)
    given = np.arange(300_000, dtype=np.float32).reshape(1, -1)
    answer = await backends.infer([runtime.address], "m", [Tensor("x", "FP32", given)], None)
    np.testing.assert_array_equal(answer.tensors[0].array, given * 2)


async def test_a_hundred_at_once_each_get_their_own_answer(
    backends: HttpBackends, start_runtime: Any, tensor: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(module, "MAX_CONNECTIONS", 8)
    runtimes = [await start_runtime(compute=double) for _ in range(2)]
    addresses = [runtime.address for runtime in runtimes]

    async def ask(number: int) -> float:
        x = tensor("x", "FP32", [number])
        answer = await backends.infer(addresses, "m", [x], None)
        return float(answer.tensors[0].array[0])

    assert await asyncio.gather(*map(ask, range(100))) == [2.0 * n for n in range(100)]
    assert max(runtime.connections for runtime in runtimes) <= 8
