"""Open Inference Protocol v2, JSON and binary: `POST /v2/models/NAME[/versions/VERSION]/infer`."""

from typing import Final

from moorage_api import keys
from moorage_api import v2 as wire
from moorage_api.errors import InvalidTensor
from moorage_api.tensors import Tensor
from moorage_gateway.dialects.call import CLIENT_ID_MAX, JSON, Call, Rendered
from moorage_gateway.routing import Route, Table

_JSON_LENGTH: Final = keys.HEADER_JSON_LENGTH.encode()
_OCTETS: Final = (b"content-type", b"application/octet-stream")


def parse(call: Call, body: bytes, headers: dict[bytes, bytes], table: Table) -> None:
    """Read a request.

    Raises
    ------
    MoorageError
        Whatever is wrong with it.
    """
    target = call.target
    route = table.model(target.name, target.version)
    signature = call.aim(route)
    request = wire.read_request(body, headers.get(_JSON_LENGTH), signature)
    if request.id:
        call.client_id = request.id[:CLIENT_ID_MAX]
    call.tensors = request.tensors
    if request.outputs is not None:
        known = {spec.name for spec in signature.outputs}
        names = [output.name for output in request.outputs]
        for at, name in enumerate(names):
            if name not in known:
                expected = f"one of the outputs {sorted(known)}"
                raise InvalidTensor(name, expected, "an unknown name", "output")
            if name in names[:at]:
                raise InvalidTensor(name, "each output once", "it twice", "output")
        call.outputs = names
    call.render = lambda outputs: _render(route, target.name, request, outputs)


def _render(route: Route, name: str, request: wire.InferRequest, outputs: list[Tensor]) -> Rendered:
    body = wire.render_response(name, route.version, outputs, request)
    if body.json_length is None:
        return Rendered([JSON], body.chunks)
    length = (_JSON_LENGTH, b"%d" % body.json_length)
    return Rendered([_OCTETS, length], body.chunks)
