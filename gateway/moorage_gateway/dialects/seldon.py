"""Seldon Core v1: `POST [/seldon/NAMESPACE/NAME]/api/v1.0/predictions`.

A SeldonMessage comes and goes; the answer has the request's kind of data. Source: Seldon v1's
`prediction.proto` and its Python wrapper's behaviour, as docs/protocols.md sums them up.

What is read: `data.ndarray`, `data.tensor`, `strData`, `jsonData`, and the inverted
`{"ndarray": {"data": …}}` that circulates in tutorials. One output travels in `data`: a score by
class where the model has one, else its only output; a model with other outputs answers `jsonData`
with all of them by name.
"""

import re
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import orjson

from moorage_api import rows
from moorage_api import tensors as codec
from moorage_api.errors import InvalidBody, InvalidTensor, MoorageError, Unsupported
from moorage_api.signature import Signature, TensorSpec
from moorage_api.tensors import Tensor, may_hold_literals
from moorage_gateway.dialects.call import CLIENT_ID_MAX, Call, Rendered, load_object, render_json
from moorage_gateway.routing import Table

PUID_HEADER: Final = b"seldon-puid"

_KINDS: Final = ("data", "strData", "jsonData", "binData")
_ARRAYS: Final = ("ndarray", "tensor")
#: A line break would end the header and begin another one of the client's choice.
_NOT_IN_HEADER: Final = re.compile(r"[^ -~]")


def parse(call: Call, body: bytes, headers: dict[bytes, bytes], table: Table) -> None:
    """Read a request.

    Raises
    ------
    MoorageError
        Whatever is wrong with it.
    """
    name = call.target.name
    host = headers.get(b"host", b"").decode("latin-1")
    route = table.model(name) if name else table.only(host)
    signature = call.aim(route)
    text = _unwrapped(body)
    document = _upright(load_object(text))
    meta = _object(document, "meta")
    _require_writable(meta.get("tags"))
    puid = _puid(meta) or headers.get(PUID_HEADER, b"").decode("latin-1")[:CLIENT_ID_MAX]
    if puid:
        call.client_id = puid
    present = [kind for kind in _KINDS if document.get(kind) is not None]
    if len(present) != 1:
        expected = ", ".join(_KINDS[:-1])
        raise InvalidBody(f"Invalid request data type: expected one of {expected}, got {present}")
    kind = present[0]
    literals = may_hold_literals(text)
    if kind == "data":
        kind, given = _read_data(_object(document, "data"), signature, literals)
    elif kind == "binData":
        raise Unsupported("'binData' is not supported; send 'data' or 'jsonData'")
    else:
        given = rows.parse(document[kind], signature, literals=literals)
    call.tensors = given.tensors
    call.render = lambda outputs: _render(call, signature, kind, given, meta, puid, outputs)


def puid_header(call: Call) -> tuple[bytes, bytes]:
    """Return the header that an error has: the id that the client gave, as far as it was read."""
    return PUID_HEADER, (call.client_id or call.prediction_id).encode("latin-1")


def error_body(error: MoorageError, status: int) -> bytes:
    """Return the error as Seldon's clients look for it, beside the `error` of all others."""
    words = str(error)
    reason = "MICROSERVICE_BAD_DATA" if status < 500 else "MICROSERVICE_INTERNAL_ERROR"
    return orjson.dumps(
        {"error": words, "status": {"status": 1, "info": words, "code": -1, "reason": reason}}
    )


def _puid(meta: dict[str, Any]) -> str:
    """Return the client's id of the request, which goes into a header of the answer."""
    puid = meta.get("puid")
    if puid is None:
        return ""
    if type(puid) is not str or len(puid) > CLIENT_ID_MAX or _NOT_IN_HEADER.search(puid):
        raise InvalidBody(
            f"'meta.puid': expected at most {CLIENT_ID_MAX} visible ASCII characters, got {puid!r}"[
                :200
            ]
        )
    return puid


def _require_writable(tags: Any) -> None:
    """Refuse, before the model runs, what the answer could not give back."""
    try:
        orjson.dumps(tags)
    except orjson.JSONEncodeError as error:
        raise InvalidBody(f"'meta.tags' cannot be given back: {error}") from error


def _unwrapped(body: bytes) -> bytes:
    """Return the JSON of a body, which Seldon's clients may also send as the form field `json`."""
    if not body.startswith(b"json="):
        return body
    return unquote_to_bytes(body[5:].split(b"&", 1)[0].replace(b"+", b" "))


def _upright(document: dict[str, Any]) -> dict[str, Any]:
    """Turn `{"ndarray": {"data": …}}` the right way round."""
    for kind in _ARRAYS:
        if kind in document:
            inner = document[kind]
            if "data" in document or type(inner) is not dict or "data" not in inner:
                raise InvalidBody(
                    f"Invalid request data type: '{kind}' belongs inside 'data': "
                    f'{{"data": {{"{kind}": …}}}}'
                )
            data = {kind: inner["data"]} | {key: inner[key] for key in inner if key != "data"}
            return {key: document[key] for key in document if key != kind} | {"data": data}
    return document


def _read_data(
    data: dict[str, Any], signature: Signature, literals: bool
) -> tuple[str, rows.Parsed]:
    names = data.get("names") or []
    if type(names) is not list or not all(type(name) is str for name in names):
        raise InvalidBody("'data.names': expected a list of strings")
    if "tftensor" in data:
        raise Unsupported("'data.tftensor' is not supported; send 'ndarray' or 'tensor'")
    present = [kind for kind in _ARRAYS if kind in data]
    if len(present) != 1:
        raise InvalidBody(f"'data': expected one of {', '.join(_ARRAYS)}, got {sorted(data)}")
    kind = present[0]
    if kind == "ndarray":
        value = data["ndarray"]
        if type(value) is not list:
            raise InvalidBody("'data.ndarray': expected a list")
    else:
        value = _nested(_object(data, "tensor", "data."))
    if len(signature.inputs) > 1 and names:
        value = _by_name(value, names, signature)
    return kind, rows.parse(value, signature, literals=literals)


def _nested(tensor: dict[str, Any]) -> Any:
    """Nest the flat values of `{"shape": […], "values": […]}`."""
    shape, values = tensor.get("shape"), tensor.get("values")
    if type(shape) is not list or not all(type(size) is int and size >= 0 for size in shape):
        raise InvalidBody("'data.tensor.shape': expected a list of whole numbers")
    if type(values) is not list:
        raise InvalidBody("'data.tensor.values': expected a flat list")
    if len(shape) > codec.MAX_RANK or codec.element_count(shape) != len(values):
        raise InvalidBody(
            f"'data.tensor': expected {codec.element_count(shape)} values for shape {shape}, "
            f"got {len(values)}"
        )
    for size in reversed(shape[1:]):
        if not size:
            return []
        values = [values[at : at + size] for at in range(0, len(values), size)]
    return values if shape else values[0]


def _by_name(value: Any, names: list[str], signature: Signature) -> Any:
    """Give the columns of rows to the inputs that `data.names` says."""
    inputs = [spec.name for spec in signature.inputs]
    if sorted(names) != sorted(inputs):
        raise InvalidTensor(inputs[0], f"'data.names' to be the inputs {inputs}", str(names))
    rows_given = value if value and type(value[0]) is list else [value]
    if not all(type(row) is list and len(row) == len(names) for row in rows_given):
        raise InvalidTensor(inputs[0], f"rows of {len(names)} values", "another number")
    return [dict(zip(names, row, strict=True)) for row in rows_given]


def _render(
    call: Call,
    signature: Signature,
    kind: str,
    given: rows.Parsed,
    meta: dict[str, Any],
    puid: str,
    outputs: list[Tensor],
) -> Rendered:
    route = call.route
    assert route is not None
    answer_meta: dict[str, Any] = {}
    if meta.get("puid"):
        answer_meta["puid"] = meta["puid"]
    if isinstance(meta.get("tags"), dict):
        answer_meta["tags"] = meta["tags"]
    answer_meta["requestPath"] = {route.key.name: f"{route.model}:{route.version}"}
    document: dict[str, Any] = {"meta": answer_meta}
    chosen = _main_output(outputs, signature)
    if kind in ("strData", "jsonData") or chosen is None:
        value = rows.render(outputs, signature, given)
        if kind == "strData" and type(value) is str:
            document["strData"] = value
        else:
            document["jsonData"] = value
    else:
        document["data"] = _data(kind, *chosen)
    rendered = render_json(document)
    rendered.headers.append((PUID_HEADER, (puid or call.prediction_id).encode("latin-1")))
    return rendered


def _main_output(outputs: list[Tensor], signature: Signature) -> tuple[Tensor, TensorSpec] | None:
    """Choose the output that a SeldonMessage carries; None where no single one says it all."""
    specs = {spec.name: spec for spec in signature.outputs}
    pairs = [(tensor, specs[tensor.name]) for tensor in outputs if tensor.name in specs]
    if len(pairs) == 1:
        return pairs[0]
    scores = [pair for pair in pairs if pair[1].classes]
    if not scores:
        scores = [
            (tensor, spec)
            for tensor, spec in pairs
            if tensor.array.dtype.kind == "f" and tensor.array.ndim == 2
        ]
    labels = [
        (tensor, spec) for tensor, spec in pairs if rows.is_single(spec) or not spec.row_shape
    ]
    # A classifier: its label and its scores, of which Seldon's own servers send the scores.
    if len(scores) == 1 and len(labels) == len(pairs) - 1:
        return scores[0]
    return None


def _data(kind: str, tensor: Tensor, spec: TensorSpec) -> dict[str, Any]:
    array = tensor.array
    names = list(spec.classes)
    if not names and array.ndim == 2:
        names = [f"t:{at}" for at in range(array.shape[1])]
    if kind == "tensor" and tensor.datatype != "BYTES":
        flat = codec.to_json(tensor.datatype, array.reshape(-1))
        return {"names": names, "tensor": {"shape": array.shape, "values": flat}}
    # Texts have no place in `tensor`, which holds doubles.
    return {"names": names, "ndarray": codec.to_json(tensor.datatype, array)}


def _object(document: dict[str, Any], key: str, prefix: str = "") -> dict[str, Any]:
    value = document.get(key)
    if value is None:
        return {}
    if type(value) is not dict:
        raise InvalidBody(f"'{prefix}{key}': expected an object")
    return value
