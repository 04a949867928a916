"""One prediction request in the making, filled in by a dialect as far as it gets."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

import orjson

from moorage_api import uuid7, v2
from moorage_api.errors import InvalidBody
from moorage_api.signature import Signature
from moorage_api.tensors import Tensor, kind_of
from moorage_gateway.routing import Route

Protocol: TypeAlias = Literal["predict", "v2", "v1", "seldon"]
Headers: TypeAlias = list[tuple[bytes, bytes]]

JSON: Final = (b"content-type", b"application/json")
#: Most characters of a client's own id of a request that are kept.
CLIENT_ID_MAX: Final = 256
_DUMP: Final = orjson.OPT_SERIALIZE_NUMPY


@dataclass(slots=True)
class Rendered:
    """An answer: headers without their length, and the pieces of the body."""

    headers: Headers
    chunks: Sequence[bytes | memoryview]


def render_json(value: Any) -> Rendered:
    """Render a JSON answer; arrays in it are written as lists, NaN and infinities as null."""
    return Rendered([JSON], [orjson.dumps(value, option=_DUMP)])


@dataclass(frozen=True, slots=True)
class Target:
    """What a path asks for.

    Parameters
    ----------
    protocol
        Which dialect reads the body.
    name
        Endpoint or model, `NAME` or `NAMESPACE/NAME`; empty where the body or the Host header
        says it.
    version
        Empty for any.
    """

    protocol: Protocol
    name: str = ""
    version: str = ""


@dataclass(slots=True)
class Call:
    """What is known of a request.

    A dialect fills the fields in from top to bottom, so that one which it refuses half-way is
    still recorded under the deployment that it was meant for.
    """

    target: Target
    #: 16 bytes of a UUIDv7.
    id: bytes
    client_id: str = ""
    route: Route | None = None
    signature: Signature | None = None
    tensors: list[Tensor] = field(default_factory=list)
    outputs: list[str] | None = None
    #: Makes the answer out of the outputs.
    render: Callable[[list[Tensor]], Rendered] | None = None
    #: How many rows the tensors hold; None where the model does not answer rows.
    rows: int | None = None
    #: What came back.
    answers: list[Tensor] = field(default_factory=list)
    #: Seconds spent parsing and checking, waiting for a connection, and in the runtime.
    validate_s: float = 0.0
    queue_s: float = 0.0
    runtime_s: float = 0.0

    @property
    def prediction_id(self) -> str:
        """The id as text."""
        return uuid7.text(self.id)

    def aim(self, route: Route) -> Signature:
        """Settle which deployment is meant, and return its signature.

        Raises
        ------
        Stopped, NotReady
            When it cannot answer.
        """
        self.route = route
        self.signature = route.require_ready()
        return self.signature


def load_object(body: bytes) -> dict[str, Any]:
    """Parse a body that is a JSON object.

    Raises
    ------
    InvalidBody
        When it is something else.
    """
    document = v2.load_json(body)
    if type(document) is not dict:
        raise InvalidBody(f"the body is not a JSON object, it is {kind_of(document)}")
    return document
