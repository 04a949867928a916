"""Open Inference Protocol v2 over REST: requests and responses, in JSON and binary, both ways.

The runtime parses requests and renders responses, the gateway does all four. Sources: the
protocol's `inference_rest.md` and Triton's `extension_binary_data.md`.

A body is either one JSON document, or, with the header `Inference-Header-Content-Length: n`, n
bytes of JSON and then the raw tensors in the order in which the JSON lists them. The JSON that is
rendered here for a binary body is padded with spaces to a multiple of eight bytes, so that the
first tensor lies aligned in the receiver's buffer and can be used in place.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import orjson

from moorage_api import tensors as codec
from moorage_api.datatypes import DATATYPES, Datatype
from moorage_api.errors import InvalidBody, InvalidTensor, Unsupported
from moorage_api.signature import Signature
from moorage_api.tensors import Tensor

#: What a server that uses this module may advertise at `/v2`.
EXTENSIONS: Final = ("binary_tensor_data",)
#: The protocol's name for an ONNX model's platform.
PLATFORM: Final = "onnx_onnxv1"

_ALIGNMENT: Final = 8
_DUMP: Final = orjson.OPT_SERIALIZE_NUMPY

Chunks: TypeAlias = "list[bytes | memoryview]"


@dataclass(slots=True)
class RequestedOutput:
    """One entry of a request's `outputs`: its name, and whether binary was asked for (or not)."""

    name: str
    binary: bool


@dataclass(slots=True)
class InferRequest:
    """An inference request.

    Parameters
    ----------
    tensors
        The inputs as they came; whether they fit the model is the signature's business.
    id
        The client's id, echoed in the response.
    outputs
        The outputs asked for; None asks for all.
    binary_output
        Whether outputs travel binary where no entry of `outputs` says otherwise.
    """

    tensors: list[Tensor]
    id: str | None = None
    outputs: list[RequestedOutput] | None = None
    binary_output: bool = False


@dataclass(slots=True)
class Body:
    """A rendered body.

    Parameters
    ----------
    chunks
        To be sent one after the other; tensors are views, not copies.
    json_length
        Value of `Inference-Header-Content-Length`; None when the body is JSON alone.
    content_length
        How many bytes the chunks hold together.
    """

    chunks: Chunks
    json_length: int | None = None
    content_length: int = field(init=False)

    def __post_init__(self) -> None:
        self.content_length = sum(len(chunk) for chunk in self.chunks)

    def join(self) -> bytes:
        """Return the body as one piece."""
        return b"".join(self.chunks)


def load_json(text: bytes | memoryview) -> Any:
    """Parse JSON; `NaN`, `Infinity` and trailing text are refused.

    Raises
    ------
    InvalidBody
        When it is not JSON; the message says where.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidBody(f"the body is not JSON: {error}") from error


def read_request(body: bytes, header: bytes | None, signature: Signature) -> InferRequest:
    """Read a request as its `Inference-Header-Content-Length` frames it.

    Parameters
    ----------
    body
        The whole decompressed body.
    header
        Value of that header, None when it is absent.
    signature
        Of the model, which types a body that is one raw tensor (header 0).

    Raises
    ------
    InvalidBody, InvalidTensor, Unsupported
        As by `parse_request` and `parse_raw_request`.
    """
    if header is None:
        return parse_request(body)
    # A number of thousands of digits would be an error of Python's.
    if not header.isdigit() or len(header) > 19:
        got = header[:40].decode("latin-1")
        raise InvalidBody(f"Inference-Header-Content-Length: expected a number, got {got!r}")
    length = int(header)
    return parse_request(body, length) if length else parse_raw_request(body, signature)


def parse_request(body: bytes, json_length: int | None = None) -> InferRequest:
    """Read a request.

    Parameters
    ----------
    body
        The whole decompressed body.
    json_length
        `Inference-Header-Content-Length`, None when the header is absent. For 0, which means a
        single raw tensor, see `parse_raw_request`.

    Raises
    ------
    InvalidBody
        When the body is no JSON object of the protocol, or is framed wrongly.
    InvalidTensor
        When an input's data does not agree with its own shape and datatype.
    Unsupported
        When it asks for shared memory or classification.
    """
    text, raw = _split(body, json_length)
    document = load_json(text)
    if type(document) is not dict:
        raise InvalidBody("the body is not a JSON object with 'inputs'")
    inputs = document.get("inputs")
    if type(inputs) is not list:
        raise InvalidBody("'inputs': expected a list of tensors")
    literals = codec.may_hold_literals(text)
    tensors, used = _tensors(inputs, raw, "inputs", literals=literals)
    if used != len(raw):
        raise InvalidBody(
            f"the body holds {len(raw)} bytes of binary tensors, its inputs take {used}"
        )
    request = InferRequest(tensors)
    if "id" in document:
        request.id = _id(document["id"])
    if "parameters" in document:
        parameters = _object(document, "parameters")
        request.binary_output = _flag(parameters, "binary_data_output", where="parameters")
    if "outputs" in document:
        request.outputs = _requested(document["outputs"], request.binary_output)
    return request


def parse_raw_request(body: bytes, signature: Signature) -> InferRequest:
    """Read a body that is nothing but the bytes of the model's single input, one row of it.

    Raises
    ------
    InvalidTensor
        When the model has several inputs, or a shape that the number of bytes does not settle.
    """
    if len(signature.inputs) != 1:
        raise InvalidTensor(
            signature.inputs[0].name if signature.inputs else "",
            "a model with one input for a raw body",
            f"a model with {len(signature.inputs)}",
        )
    spec = signature.inputs[0]
    datatype = DATATYPES[spec.datatype]
    shape = [1 if spec.is_batched else spec.shape[0], *spec.row_shape] if spec.shape else []
    if datatype.size == 0:
        shape = [abs(size) for size in shape]
        if codec.element_count(shape) != 1:
            raise InvalidTensor(spec.name, "a shape of one element for a raw text", str(spec))
        array = codec.from_json(spec.name, datatype, shape, _utf8(spec.name, body))
        return InferRequest([Tensor(spec.name, spec.datatype, array)], binary_output=True)
    open_at = [at for at, size in enumerate(shape) if size == -1]
    if len(open_at) > 1:
        raise InvalidTensor(spec.name, "at most one dimension of open size", str(spec))
    if open_at:
        known = codec.element_count([size for size in shape if size != -1]) * datatype.size
        if not known or len(body) % known:
            raise InvalidTensor(spec.name, f"a multiple of {known} bytes", f"{len(body)} bytes")
        shape[open_at[0]] = len(body) // known
    array = codec.from_bytes(spec.name, datatype, shape, memoryview(body))
    return InferRequest([Tensor(spec.name, spec.datatype, array)], binary_output=True)


def render_response(
    model: str, version: str, tensors: Sequence[Tensor], request: InferRequest
) -> Body:
    """Render the answer to `request`: the outputs it asked for, JSON or binary as it asked.

    Parameters
    ----------
    model, version
        What answered; an empty version is left out.
    tensors
        The outputs in the order in which they are sent.
    """
    document: dict[str, Any] = {"model_name": model}
    if version:
        document["model_version"] = version
    if request.id is not None:
        document["id"] = request.id
    if request.outputs is None:
        binary = {tensor.name for tensor in tensors} if request.binary_output else set()
    else:
        binary = {output.name for output in request.outputs if output.binary}
    return _render(document, "outputs", tensors, binary)


def render_request(tensors: Sequence[Tensor], outputs: Sequence[str] | None = None) -> Body:
    """Render a request whose tensors, and the answer's, travel binary.

    Parameters
    ----------
    tensors
        The inputs.
    outputs
        Names of the outputs wanted; None wants all.
    """
    document: dict[str, Any] = {"parameters": {"binary_data_output": True}}
    if outputs is not None:
        document["outputs"] = [{"name": name} for name in outputs]
    return _render(document, "inputs", tensors, set(codec.names_of(tensors)))


def parse_response(body: bytes, json_length: int | None = None) -> list[Tensor]:
    """Read the outputs of an answer.

    Raises
    ------
    InvalidBody, InvalidTensor
        When it is not one.
    """
    text, raw = _split(body, json_length)
    document = load_json(text)
    outputs = document.get("outputs") if type(document) is dict else None
    if type(outputs) is not list:
        raise InvalidBody("'outputs': expected a list of tensors")
    tensors, used = _tensors(outputs, raw, "outputs")
    if used != len(raw):
        raise InvalidBody(f"the answer holds {len(raw)} bytes of tensors, its outputs take {used}")
    return tensors


def _split(body: bytes, json_length: int | None) -> tuple[bytes | memoryview, memoryview]:
    if json_length is None:
        return body, memoryview(b"")
    if not 0 < json_length <= len(body):
        raise InvalidBody(
            f"Inference-Header-Content-Length is {json_length}, the body has {len(body)} bytes"
        )
    view = memoryview(body)
    return view[:json_length], view[json_length:]


def _tensors(
    items: list[Any], raw: memoryview, key: str, *, literals: bool = True
) -> tuple[list[Tensor], int]:
    """Read the tensors of a document; return them and how many bytes of `raw` they took."""
    tensors: list[Tensor] = []
    at = 0
    for index, item in enumerate(items):
        if type(item) is not dict:
            raise InvalidBody(f"'{key}[{index}]': expected an object")
        name = item.get("name")
        if type(name) is not str:
            raise InvalidBody(f"'{key}[{index}].name': expected a string")
        datatype = _datatype(name, item.get("datatype"))
        shape = item.get("shape")
        if type(shape) is not list or not _is_shape(shape):
            raise InvalidTensor(
                name, "a shape: a list of whole numbers from 0 on", repr(shape)[:80]
            )
        size = None
        if "parameters" in item:
            parameters = _object(item, "parameters", where=f"{key}[{index}]")
            if "shared_memory_region" in parameters:
                raise Unsupported(f"{key}[{index}] {name!r}: shared memory is not supported")
            size = parameters.get("binary_data_size")
        if size is None:
            if "data" not in item:
                raise InvalidTensor(
                    name, "'data', or 'binary_data_size' in its parameters", "neither"
                )
            array = codec.from_json(name, datatype, shape, item["data"], literals=literals)
        else:
            if type(size) is not int or size < 0 or at + size > len(raw):
                raise InvalidTensor(
                    name, f"binary_data_size of at most the {len(raw) - at} bytes left", repr(size)
                )
            if "data" in item:
                raise InvalidTensor(name, "either 'data' or 'binary_data_size'", "both")
            array = codec.from_bytes(name, datatype, shape, raw[at : at + size])
            at += size
        tensors.append(Tensor(name, datatype.name, array))
    return tensors, at


def _is_shape(shape: list[Any]) -> bool:
    if len(shape) > codec.MAX_RANK:
        return False
    return all(type(size) is int and size >= 0 for size in shape)


def _datatype(tensor: str, name: Any) -> Datatype:
    datatype = DATATYPES.get(name) if type(name) is str else None
    if datatype is None:
        raise InvalidTensor(tensor, f"a datatype of {', '.join(DATATYPES)}", repr(name)[:80])
    return datatype


def _requested(items: Any, binary_default: bool) -> list[RequestedOutput]:
    if type(items) is not list:
        raise InvalidBody("'outputs': expected a list of objects with a name")
    requested: list[RequestedOutput] = []
    for index, item in enumerate(items):
        if type(item) is not dict or type(item.get("name")) is not str:
            raise InvalidBody(f"'outputs[{index}].name': expected a string")
        binary = binary_default
        if "parameters" in item:
            where = f"outputs[{index}]"
            parameters = _object(item, "parameters", where=where)
            for extension in ("classification", "shared_memory_region"):
                if extension in parameters:
                    raise Unsupported(f"{where}.parameters.{extension} is not supported")
            binary = _flag(parameters, "binary_data", where=where, default=binary_default)
        requested.append(RequestedOutput(item["name"], binary))
    # An empty list asks for nothing in particular, as an absent one does.
    return requested or None  # type: ignore[return-value]


def _object(document: dict[str, Any], key: str, *, where: str = "") -> dict[str, Any]:
    value = document[key]
    if value is None:
        return {}
    if type(value) is not dict:
        raise InvalidBody(f"'{where}{'.' if where else ''}{key}': expected an object")
    return value


def _flag(parameters: dict[str, Any], key: str, *, where: str, default: bool = False) -> bool:
    value = parameters.get(key, default)
    if type(value) is not bool:
        raise InvalidBody(f"'{where}.{key}': expected true or false, got {value!r}")
    return value


def _id(value: Any) -> str | None:
    if value is None or type(value) is str:
        return value
    raise InvalidBody(f"'id': expected a string, got {codec.kind_of(value)}")


def _utf8(name: str, raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise InvalidTensor(name, "UTF-8 text (what ONNX strings are)", "other bytes") from None


def _render(
    document: dict[str, Any], key: str, tensors: Sequence[Tensor], binary: set[str]
) -> Body:
    chunks: Chunks = []
    items: list[dict[str, Any]] = []
    for tensor in tensors:
        item: dict[str, Any] = {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": tensor.array.shape,
        }
        if tensor.name in binary:
            raw = codec.to_bytes(tensor.datatype, tensor.array)
            item["parameters"] = {"binary_data_size": len(raw)}
            chunks.append(raw)
        else:
            item["data"] = codec.to_json(tensor.datatype, tensor.array.reshape(-1))
        items.append(item)
    document[key] = items
    text = orjson.dumps(document, option=_DUMP)
    if not binary:
        return Body([text])
    text += b" " * (-len(text) % _ALIGNMENT)
    return Body([text, *chunks], len(text))


@dataclass(frozen=True, slots=True)
class ModelPath:
    """`/v2/models/NAME[/versions/VERSION][/VERB]`, taken apart.

    Parameters
    ----------
    name
        May hold one slash: `NAMESPACE/NAME`.
    version
        Empty when the path names none.
    verb
        "infer", "ready", "config", "stats", or empty for the metadata.
    """

    name: str
    version: str
    verb: str


_VERBS: Final = frozenset({"infer", "ready", "config", "stats"})
_MODELS: Final = "/v2/models/"


def parse_path(path: str) -> ModelPath | None:
    """Take a decoded URL path apart; None when it is not below `/v2/models/`."""
    if not path.startswith(_MODELS):
        return None
    parts = path[len(_MODELS) :].rstrip("/").split("/")
    verb = parts.pop() if len(parts) > 1 and parts[-1] in _VERBS else ""
    version = ""
    if len(parts) > 2 and parts[-2] == "versions":
        version = parts.pop()
        parts.pop()
    name = "/".join(parts)
    return ModelPath(name, version, verb) if name and len(parts) <= 2 else None
