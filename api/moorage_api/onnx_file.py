"""Reads what a model says of itself out of an ONNX file, without loading its weights.

The gateway's registry must know a model's signature, and the runtime whether it can load the file
at all, before ONNX Runtime touches it. The `onnx` package would parse the whole file into memory,
weights included (two gigabytes of them for some models), so this module walks the protobuf
message by its length prefixes and steps over everything it does not ask for. It works on any
buffer, a memory-mapped file among them.

Field numbers: onnx.proto3 (`ModelProto`, `GraphProto`, `ValueInfoProto`, `TypeProto`,
`NodeProto`, `AttributeProto`); wire types: the Protocol Buffers encoding guide.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from moorage_api.datatypes import BY_ONNX
from moorage_api.errors import BadModel
from moorage_api.signature import Signature, TensorSpec

_VARINT: Final = 0
_FIXED64: Final = 1
_LENGTH: Final = 2
_FIXED32: Final = 5

#: A field's number and its value: an int, or the bytes of a string or nested message.
_Field: TypeAlias = tuple[int, "int | memoryview"]

#: The operator set of ONNX itself, which files may also spell out.
_MAIN_DOMAIN: Final = "ai.onnx"


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """What an ONNX file declares.

    Parameters
    ----------
    ir_version
        Version of the file format.
    opsets
        Operator set version by domain; the main domain is "ai.onnx".
    producer
        Name and version of the exporter, e.g. "skl2onnx 1.18".
    signature
        Inputs (those without a default) and outputs. An output whose rank the file does not say
        has shape `(-1,)`.
    zipmaps
        Names of outputs that are lists of maps from class to score, turned into FP32 tensors of
        shape (rows, classes).
    metadata
        `metadata_props` as text.
    """

    ir_version: int
    opsets: dict[str, int]
    producer: str
    signature: Signature
    zipmaps: frozenset[str] = frozenset()
    metadata: dict[str, str] = field(default_factory=dict)


def parse(buffer: bytes | memoryview) -> OnnxFile:
    """Read the declarations of a serialized `ModelProto`.

    Raises
    ------
    BadModel
        When the bytes are no ONNX model, or one with an input or output that the Open Inference
        Protocol cannot carry. It holds no piece of the buffer, as the errors below it do by the
        frames in their tracebacks: a mapped file could not be closed.
    """
    try:
        return _model(memoryview(buffer).cast("B"))
    except BadModel as error:
        words = str(error)
    except (ValueError, IndexError) as error:
        words = f"not an ONNX model: {error}"
    raise BadModel(words)


def _model(data: memoryview) -> OnnxFile:
    ir_version = 0
    producer = ["", ""]
    graph: memoryview | None = None
    opsets: dict[str, int] = {}
    metadata: dict[str, str] = {}
    for number, value in _fields(data):
        if number == 1:
            ir_version = _int(value)
        elif number in (2, 3):
            producer[number - 2] = _text(value)
        elif number == 7:
            graph = _bytes(value)
        elif number == 8:
            domain, version = _MAIN_DOMAIN, 0
            for inner, item in _fields(_bytes(value)):
                if inner == 1:
                    domain = _text(item) or _MAIN_DOMAIN
                elif inner == 2:
                    version = _int(item)
            opsets[domain] = version
        elif number == 14:
            pair = {inner: _text(item) for inner, item in _fields(_bytes(value))}
            metadata[pair.get(1, "")] = pair.get(2, "")
    if graph is None or not ir_version:
        raise BadModel("not an ONNX model: the file holds no graph")
    signature, zipmaps = _graph(graph)
    return OnnxFile(ir_version, opsets, " ".join(producer).strip(), signature, zipmaps, metadata)


@dataclass(slots=True)
class _Value:
    """A ValueInfoProto: a tensor's element type and shape, or that it is no tensor."""

    name: str
    element: int = 0
    shape: tuple[int, ...] | None = None
    other: str = ""


def _graph(data: memoryview) -> tuple[Signature, frozenset[str]]:
    inputs: list[_Value] = []
    outputs: list[_Value] = []
    defaults: set[str] = set()
    classes: dict[str, tuple[str, ...]] = {}
    for number, value in _fields(data):
        if number == 1:
            _zipmap(_bytes(value), classes)
        elif number == 5:
            defaults.add(_name_in(_bytes(value), 8))
        elif number == 15:
            # A sparse initializer carries its name in its values' TensorProto.
            for inner, item in _fields(_bytes(value)):
                if inner == 1:
                    defaults.add(_name_in(_bytes(item), 8))
        elif number == 11:
            inputs.append(_value(_bytes(value)))
        elif number == 12:
            outputs.append(_value(_bytes(value)))
    if not outputs:
        raise BadModel("not an ONNX model: its graph has no output")
    signature = Signature(
        tuple(_spec(item, "input") for item in inputs if item.name not in defaults),
        tuple(_output(item, classes) for item in outputs),
    )
    return signature, frozenset(item.name for item in outputs if item.name in classes)


def _spec(value: _Value, kind: str) -> TensorSpec:
    if value.other:
        raise BadModel(
            f"{kind} {value.name!r} is a {value.other}; "
            "a model is served when its inputs and outputs are tensors (or a ZipMap's output)"
        )
    datatype = BY_ONNX.get(value.element)
    if datatype is None:
        raise BadModel(
            f"{kind} {value.name!r} has ONNX element type {value.element}, "
            "which the Open Inference Protocol has no name for"
        )
    return TensorSpec(value.name, datatype.name, (-1,) if value.shape is None else value.shape)


def _output(value: _Value, classes: dict[str, tuple[str, ...]]) -> TensorSpec:
    if value.name in classes:
        labels = classes[value.name]
        return TensorSpec(value.name, "FP32", (-1, len(labels)), labels)
    return _spec(value, "output")


def _zipmap(data: memoryview, classes: dict[str, tuple[str, ...]]) -> None:
    """Note the class labels of a ZipMap node (domain ai.onnx.ml) under its output's name."""
    output = ""
    attributes: list[memoryview] = []
    is_zipmap = False
    for number, value in _fields(data):
        if number == 2:
            output = _text(value)
        elif number == 4:
            is_zipmap = _text(value) == "ZipMap"
        elif number == 5:
            attributes.append(_bytes(value))
    if not is_zipmap:
        return
    for attribute in attributes:
        name = _name_in(attribute, 1)
        if name == "classlabels_strings":
            classes[output] = tuple(_text(v) for n, v in _fields(attribute) if n == 9)
        elif name == "classlabels_int64s":
            numbers: list[int] = []
            for n, v in _fields(attribute):
                if n == 8:
                    numbers.extend(_packed(v))
            classes[output] = tuple(str(_signed(item)) for item in numbers)


def _value(data: memoryview) -> _Value:
    value = _Value(_name_in(data, 1))
    for number, item in _fields(data):
        if number == 2:
            for kind, inner in _fields(_bytes(item)):
                if kind == 1:
                    _tensor_type(_bytes(inner), value)
                elif kind in _OTHER_TYPES:
                    value.other = _OTHER_TYPES[kind]
    return value


_OTHER_TYPES: Final = {
    4: "sequence",
    5: "map",
    7: "opaque value",
    8: "sparse tensor",
    9: "optional",
}


def _tensor_type(data: memoryview, value: _Value) -> None:
    for number, item in _fields(data):
        if number == 1:
            value.element = _int(item)
        elif number == 2:
            value.shape = tuple(
                _dimension(_bytes(size)) for inner, size in _fields(_bytes(item)) if inner == 1
            )


def _dimension(data: memoryview) -> int:
    for number, value in _fields(data):
        if number == 1:
            size = _signed(_int(value))
            return size if size >= 0 else -1
    return -1


def _name_in(data: memoryview, number: int) -> str:
    return next((_text(value) for found, value in _fields(data) if found == number), "")


def _fields(data: memoryview) -> Iterator[_Field]:
    """Yield the fields of one message; nested ones as views, nothing is copied."""
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == _LENGTH:
            size, at = _varint(data, at)
        elif wire in (_FIXED64, _FIXED32):
            size = 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"byte {at} starts no protobuf field")
        if number == 0 or at + size > end:
            raise ValueError(f"a field at byte {at} ends beyond the file; is it truncated?")
        yield number, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError(f"a number at byte {at} never ends")


def _packed(value: "int | memoryview") -> Iterator[int]:
    if isinstance(value, int):
        yield value
        return
    at = 0
    while at < len(value):
        item, at = _varint(value, at)
        yield item


def _int(value: "int | memoryview") -> int:
    if not isinstance(value, int):
        raise ValueError("a number was expected where bytes are")
    return value


def _bytes(value: "int | memoryview") -> memoryview:
    if isinstance(value, int):
        raise ValueError("bytes were expected where a number is")
    return value


def _text(value: "int | memoryview") -> str:
    return str(_bytes(value), "utf-8")


def _signed(value: int) -> int:
    """Undo two's complement of a 64-bit varint."""
    return value - (1 << 64) if value >= 1 << 63 else value
