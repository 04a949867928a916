"""One table with one deployment, and a call through a dialect from body to body."""

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from moorage_api.signature import Signature
from moorage_api.tensors import Tensor
from moorage_gateway.dialects import predict, seldon, v1, v2
from moorage_gateway.dialects.call import Call, Rendered, Target
from moorage_gateway.routing import Route, Table

#: The id of every call here, as bytes and as text.
ID = bytes.fromhex("019789abcdef7123856789abcdef0123")
ID_TEXT = "019789ab-cdef-7123-8567-89abcdef0123"


@pytest.fixture(scope="session")
def call_id() -> str:
    return ID_TEXT


@pytest.fixture(scope="session")
def parsed(make_route: Callable[..., Route]) -> Callable[..., Call]:
    """Have a dialect read a body for the deployment `m` of a signature."""

    def parse(
        target: Target,
        body: Any,
        signature: Signature,
        headers: dict[bytes, bytes] | None = None,
        **parts: Any,
    ) -> Call:
        table = Table([make_route("m", signature=signature, version="7", **parts)])
        call = Call(target, ID)
        raw = body if isinstance(body, bytes) else orjson.dumps(body)
        if target.protocol == "predict":
            predict.parse(call, raw, table)
        elif target.protocol == "v1":
            v1.parse(call, raw, table)
        elif target.protocol == "v2":
            v2.parse(call, raw, headers or {}, table)
        else:
            seldon.parse(call, raw, headers or {}, table)
        signature.rows(signature.check(call.tensors))
        return call

    return parse


@pytest.fixture(scope="session")
def inputs_of() -> Callable[[Call], dict[str, Any]]:
    """The tensors that a call holds, as plain values by name."""
    return lambda call: {tensor.name: tensor.array.tolist() for tensor in call.tensors}


@pytest.fixture(scope="session")
def rendered() -> Callable[[Call, list[Tensor]], Rendered]:
    def render(call: Call, outputs: list[Tensor]) -> Rendered:
        assert call.render is not None
        return call.render(outputs)

    return render


@pytest.fixture(scope="session")
def answered(
    rendered: Callable[[Call, list[Tensor]], Rendered],
) -> Callable[[Call, list[Tensor]], Any]:
    """The JSON body that a call gives for these outputs."""
    return lambda call, outputs: orjson.loads(b"".join(rendered(call, outputs).chunks))
