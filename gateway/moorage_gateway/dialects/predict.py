"""The plain dialect: `{"input": …}` to `/predict/ENDPOINT`, or to `/predict` with a model name."""

from typing import Any, Final

from moorage_api import rows
from moorage_api.errors import InvalidBody
from moorage_api.signature import Signature
from moorage_api.tensors import Tensor, may_hold_literals
from moorage_gateway.dialects.call import Call, Rendered, load_object, render_json
from moorage_gateway.routing import Route, Table

_AT_ENDPOINT: Final = ("input",)
_UNIVERSAL: Final = ("model_name", "version", "input")


def parse(call: Call, body: bytes, table: Table) -> None:
    """Read a request; see `rows.parse` for what an input may be.

    Raises
    ------
    MoorageError
        Whatever is wrong with it.
    """
    name = call.target.name
    if name:
        route = table.endpoint(name)
        signature = call.aim(route)
        document = _only(load_object(body), _AT_ENDPOINT)
    else:
        document = _only(load_object(body), _UNIVERSAL)
        route = table.latest(_text(document, "model_name"), _version(document))
        signature = call.aim(route)
    if "input" not in document:
        raise InvalidBody("'input': is required")
    given = rows.parse(document["input"], signature, literals=may_hold_literals(body))
    call.tensors = given.tensors
    call.render = lambda outputs: _render(route, signature, given, outputs, call.prediction_id)


def _render(
    route: Route,
    signature: Signature,
    given: rows.Parsed,
    outputs: list[Tensor],
    prediction_id: str,
) -> Rendered:
    return render_json(
        {
            "prediction": rows.render(outputs, signature, given),
            "model_name": route.model,
            "version": route.version,
            "prediction_id": prediction_id,
        }
    )


def _only(document: dict[str, Any], known: tuple[str, ...]) -> dict[str, Any]:
    """Refuse keys that nobody would read: this body is our own, and a typo is not an opinion."""
    for key in document:
        if key not in known:
            raise InvalidBody(f"unknown key {key[:80]!r}; expected {', '.join(known)}")
    return document


def _text(document: dict[str, Any], key: str) -> str:
    value = document.get(key)
    if type(value) is not str or not value:
        raise InvalidBody(f"'{key}': expected a name, got {value!r}"[:200])
    return value


def _version(document: dict[str, Any]) -> str:
    """Return the version as text: people write both "2" and 2."""
    value = document.get("version")
    if value is None:
        return ""
    if type(value) not in (str, int):
        raise InvalidBody(f"'version': expected a version such as \"2\", got {value!r}"[:200])
    return str(value)
