"""The request path of a prediction: parse, decide, compute, remember, answer.

Plain ASGI beside FastAPI, because routing and models of a web framework cost more than all of
this. The record is handed to the log before the answer is sent; handing over neither waits nor
fails.
"""

import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from time import perf_counter, time_ns
from typing import Final

from moorage_api import keys, uuid7
from moorage_api.errors import InvalidBody, MoorageError
from moorage_gateway.backends import Backends
from moorage_gateway.dialects import predict, seldon, v1, v2
from moorage_gateway.dialects.call import CLIENT_ID_MAX, JSON, Call, Rendered, Target
from moorage_gateway.prediction_log import PredictionLog, Record
from moorage_gateway.routing import Table
from moorage_gateway.usage import Tally, Usage
from moorage_serving import answers, bodies
from moorage_serving.bodies import Receive, Scope, Send

_log = logging.getLogger(__name__)

PREDICTION_ID: Final = keys.HEADER_PREDICTION_ID.encode()
SERVER_TIMING: Final = b"server-timing"
#: Headers in which a client may bring its own id of a request.
_CLIENT_ID: Final = (b"x-request-id", seldon.PUID_HEADER)


def _eights() -> Iterator[bytes]:
    """Yield 8 random bytes at a time; the system is asked for many at once."""
    while True:
        block = os.urandom(4096)
        for at in range(0, len(block), 8):
            yield block[at : at + 8]


_random: Final = _eights()


def new_id() -> bytes:
    """Return the 16 bytes of a fresh UUIDv7; on the event loop's thread only."""
    return uuid7.build(time_ns(), next(_random))


def is_sampled(prediction_id: bytes, percent: int) -> bool:
    """Say whether a prediction is among the stored ones, by a hash of its id.

    Whoever knows the id comes to the same verdict: the request, its answer and a later label
    agree.
    """
    if percent >= 100:
        return True
    digest = hashlib.blake2b(prediction_id, digest_size=4).digest()
    return int.from_bytes(digest, "big") * 100 < percent << 32


class Inference:
    """Answers prediction requests of every dialect.

    Parameters
    ----------
    table
        Returns the routes as they are now.
    backends
        Where predictions are computed.
    log
        Where they are remembered.
    usage
        Counts them.
    body_limit
        Most bytes of a request, compressed or not.
    """

    def __init__(
        self,
        table: Callable[[], Table],
        backends: Backends,
        log: PredictionLog,
        usage: Usage,
        *,
        body_limit: int = bodies.DEFAULT_LIMIT,
    ) -> None:
        self._table = table
        self._backends = backends
        self._prediction_log = log
        self._usage = usage
        self.body_limit = body_limit

    async def answer(self, target: Target, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        started = perf_counter()
        call = Call(target, new_id())
        status, error = 200, ""
        try:
            rendered = await self._predict(call, scope, receive)
        except MoorageError as failure:
            status, error = answers.status_of(failure), str(failure)
            rendered = _failed(call, failure, status)
        except bodies.Disconnected:
            return
        except Exception as failure:  # noqa: BLE001 - the last stop before the client
            status, error = 500, "internal error"
            rendered = _failed(call, MoorageError(error), status)
            _log.exception(repr(failure), extra={"id": call.prediction_id})
        answered = perf_counter()
        if call.route is not None:
            tally = self._usage.of(call.route)
            tally.count(target.protocol, status, answered - started)
            self._remember(call, tally, status, error, answered - started)
        head = rendered.headers
        head.append((PREDICTION_ID, call.prediction_id.encode()))
        head.append((SERVER_TIMING, _timing(call, perf_counter() - answered)))
        if status >= 500:
            _log.warning(error, extra={"id": call.prediction_id, "status": status})
        chunks = rendered.chunks
        if len(chunks) == 1:
            await answers.send_bytes(send, status, head, chunks[0])
        else:
            await answers.send_chunks(send, status, head, chunks)

    async def _predict(self, call: Call, scope: Scope, receive: Receive) -> Rendered:
        headers = bodies.headers_of(scope)
        for name in _CLIENT_ID:
            if name in headers:
                call.client_id = headers[name].decode("latin-1")[:CLIENT_ID_MAX]
        body = await bodies.read(receive, headers, self.body_limit)
        started = perf_counter()
        try:
            _parse(call, body, headers, self._table())
            route, signature, render = call.route, call.signature, call.render
            assert route is not None
            assert signature is not None
            assert render is not None
            call.rows = signature.rows(signature.check(call.tensors))
        finally:
            call.validate_s = perf_counter() - started
        tally = self._usage.of(route)
        tally.in_flight += 1
        try:
            answer = await self._backends.infer(
                route.addresses, route.runtime_name, call.tensors, call.outputs
            )
        finally:
            tally.in_flight -= 1
        call.answers = answer.tensors
        call.queue_s, call.runtime_s = answer.queue_s, answer.runtime_s
        return render(answer.tensors)

    def _remember(self, call: Call, tally: Tally, status: int, error: str, seconds: float) -> None:
        """Hand the record over; errors are always kept, the rest as the sample says."""
        route, identity = tally.route, tally.identity
        if not route.logs or identity is None:
            return
        percent = route.sample_percent if status < 400 else 100
        if not is_sampled(call.id, percent):
            return
        self._prediction_log.append(
            Record(
                call.id,
                identity,
                call.target.protocol,
                status,
                # A refused request's tensors need not fit the columns that its model has.
                call.tensors if status < 400 else (),
                call.answers,
                call.rows if status < 400 else None,
                100 / percent,
                round(seconds * 1e6),
                round(call.validate_s * 1e6),
                round(call.queue_s * 1e6),
                round(call.runtime_s * 1e6),
                call.client_id,
                error,
            )
        )


def _parse(call: Call, body: bytes, headers: dict[bytes, bytes], table: Table) -> None:
    protocol = call.target.protocol
    try:
        if protocol == "v2":
            v2.parse(call, body, headers, table)
        elif protocol == "predict":
            predict.parse(call, body, table)
        elif protocol == "v1":
            v1.parse(call, body, table)
        else:
            seldon.parse(call, body, headers, table)
    except RecursionError:
        raise InvalidBody("the body is nested too deeply") from None


def _failed(call: Call, error: MoorageError, status: int) -> Rendered:
    headers = [JSON, *answers.error_headers(error)]
    if call.target.protocol == "seldon":
        return Rendered([*headers, seldon.puid_header(call)], [seldon.error_body(error, status)])
    return Rendered(headers, [answers.error_body(error)])


def _timing(call: Call, log_s: float) -> bytes:
    return b"queue;dur=%.3f, validate;dur=%.3f, runtime;dur=%.3f, log;dur=%.3f" % (
        call.queue_s * 1e3,
        call.validate_s * 1e3,
        call.runtime_s * 1e3,
        log_s * 1e3,
    )
