"""The one tensor codec: a number reaches a model as the same bits over every protocol.

JSON values and raw bytes go in, numpy arrays come out, and back. The rules for JSON numbers
(docs/protocols.md, "Numbers"): a value outside the datatype's range is refused, never wrapped or
rounded to infinity; `null` is a missing value (NaN) in a floating-point tensor and refused in any
other; NaN and infinities leave as `null`. JSON is parsed by orjson, which refuses the literals
`NaN` and `Infinity`.
"""

import math
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from moorage_api.datatypes import DATATYPES, Datatype
from moorage_api.errors import InvalidTensor

Array: TypeAlias = NDArray[Any]

#: numpy's own limit on the rank of an array, and so the deepest nesting of `data`.
MAX_RANK: Final = 64
_MAX_EXACT_FLOAT: Final = 2**53
_BEYOND_INTEGERS: Final = 2.0**63
#: What a BF16 is read as before it is rounded; its own name, for messages.
_WIDE_BF16: Final = replace(DATATYPES["FP32"], name="BF16")


@dataclass(slots=True, eq=False)
class Tensor:
    """A named array with its V2 datatype.

    Parameters
    ----------
    name
        As in the model's graph.
    datatype
        A key of `DATATYPES`; needed beside the array because BF16 travels as uint16.
    array
        C-contiguous, little-endian, dtype by `DATATYPES[datatype].numpy`.
    """

    name: str
    datatype: str
    array: Array


def element_count(shape: Sequence[int]) -> int:
    """Return how many elements an array of `shape` holds; 1 for rank 0."""
    return math.prod(shape)


def from_json(
    name: str, datatype: Datatype, shape: Sequence[int], data: Any, *, literals: bool = True
) -> Array:
    """Turn the `data` of a JSON tensor into an array.

    Parameters
    ----------
    name
        Of the tensor, for messages.
    datatype
        Type of the elements.
    shape
        Shape that the array gets.
    data
        A flat list in row-major order, or one nested as `shape` says; a bare scalar where `shape`
        holds exactly one element.
    literals
        If false, the document is known to hold none of `true`, `false` and `null`, and the search
        for booleans among numbers is left out.

    Returns
    -------
    array of `shape`
        Read-only where it was packed from numbers.

    Raises
    ------
    InvalidTensor
        When the elements are not as many as `shape` holds, are nested otherwise, are of another
        kind, or do not fit the datatype.
    """
    count = element_count(shape)
    if type(data) is not list:
        if isinstance(data, list | dict) or count != 1:
            raise InvalidTensor(name, f"data of {count} elements in a list", kind_of(data))
        data = [data]
    if data and type(data[0]) is list:
        data = _flatten(name, data, shape)
    if len(data) != count:
        raise InvalidTensor(
            name, f"{count} elements for shape {list(shape)}", f"{len(data)} elements"
        )
    return _shaped(name, elements(name, datatype, data, literals=literals), shape)


def may_hold_literals(document: bytes | memoryview) -> bool:
    """Say whether a JSON text can hold `true`, `false` or `null`; never wrongly no.

    Every one of them holds an "l" or the letters "tru", and searching for a single byte runs at
    memory speed where looking at each parsed element would not.
    """
    text = bytes(document) if isinstance(document, memoryview) else document
    return b"l" in text or b"tru" in text


def elements(name: str, datatype: Datatype, data: list[Any], *, literals: bool = True) -> Array:
    """Pack a flat list of JSON scalars into an array of shape (len(data),).

    Raises
    ------
    InvalidTensor
        When an element is of another kind or does not fit `datatype`.

    Notes
    -----
    `struct` is both quicker than `np.array` for lists (5 against 12 microseconds for 784 floats)
    and strict: it refuses strings, fractions for integers and every value out of range.
    """
    if datatype.pack:
        # A bool is an int to `struct`, which would take it for 0 or 1.
        if not (literals and bool in map(type, data)):
            try:
                packed = struct.pack(f"<{len(data)}{datatype.pack}", *data)
            except (struct.error, OverflowError, TypeError):
                pass  # The element at fault, or a null, is found one by one below.
            else:
                return np.frombuffer(packed, datatype.numpy)
        return np.array([_number(name, datatype, item) for item in data], datatype.numpy)
    if datatype.name == "BYTES":
        for item in data:
            if type(item) is not str:
                raise InvalidTensor(name, "strings for datatype BYTES", kind_of(item))
        array = np.empty(len(data), object)
        array[:] = data
        return array
    if datatype.name == "BOOL":
        for item in data:
            if type(item) is not bool:
                raise InvalidTensor(name, "true or false for datatype BOOL", kind_of(item))
        return np.array(data, datatype.numpy)
    return _to_bf16(name, elements(name, _WIDE_BF16, data, literals=literals))


def to_json(datatype: str, array: Array) -> Any:
    """Return `array` as a value that orjson writes with `OPT_SERIALIZE_NUMPY`.

    Parameters
    ----------
    datatype
        A key of `DATATYPES`.
    array
        Of any shape; it is nested in JSON as its shape says.

    Returns
    -------
    array, list or scalar
        Floats are written in the shortest form of their own precision, NaN and infinities as
        null. BF16 is widened to float32 first.
    """
    if datatype == "BYTES":
        return array.tolist()
    if datatype == "BF16":
        array = bf16_to_float32(array)
    if array.ndim == 0:
        return array[()]
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)


def from_bytes(name: str, datatype: Datatype, shape: Sequence[int], raw: memoryview) -> Array:
    """View raw little-endian, row-major bytes as an array, without a copy where they are aligned.

    Parameters
    ----------
    name
        Of the tensor, for messages.
    datatype
        Type of the elements. BYTES elements are each preceded by their length as four bytes.
    shape
        Shape that the array gets.
    raw
        Exactly the bytes of this tensor.

    Raises
    ------
    InvalidTensor
        When `raw` does not hold exactly the elements of `shape`.

    Notes
    -----
    Triton's "Binary Tensor Data Extension".
    """
    count = element_count(shape)
    if datatype.size == 0:
        return _shaped(name, _split_bytes(name, count, raw), shape)
    if raw.nbytes != count * datatype.size:
        raise InvalidTensor(
            name,
            f"{count * datatype.size} bytes for {datatype.name} {list(shape)}",
            f"{raw.nbytes} bytes",
        )
    array = _shaped(name, np.frombuffer(raw, datatype.numpy), shape)
    if datatype.name == "BOOL" and count and array.view("u1").max() > 1:
        raise InvalidTensor(name, "bytes 0 or 1 for datatype BOOL", "another byte")
    # ONNX Runtime reads the buffer in place and may use aligned loads.
    return array if array.flags.aligned else array.copy()


def to_bytes(datatype: str, array: Array) -> bytes | memoryview:
    """Return the raw little-endian, row-major bytes of `array`, without a copy for numbers."""
    if datatype == "BYTES":
        parts = [item.encode() for item in array.reshape(-1).tolist()]
        return b"".join(
            chain.from_iterable((len(part).to_bytes(4, "little"), part) for part in parts)
        )
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat.view("u1").data if flat.size else b""


def bf16_to_float32(bits: Array) -> Array:
    """Widen bfloat16 bits (uint16) to float32, exactly."""
    widened: Array = (bits.astype("<u4") << 16).view("<f4")
    return widened


def _shaped(name: str, flat: Array, shape: Sequence[int]) -> Array:
    """Shape as many elements as `shape` holds; beside a 0 it can hold any other number."""
    try:
        return flat.reshape(shape)
    except (ValueError, OverflowError):
        raise InvalidTensor(name, "a shape that an array can have", f"{list(shape)}") from None


def _to_bf16(name: str, values: Array) -> Array:
    """Round float32 to the nearest bfloat16, ties to even, and return its bits."""
    bits = values.view("<u4")
    rounded: Array = ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype("<u2")
    rounded[np.isnan(values)] = 0x7FC0  # A rounded NaN may have lost its last bit.
    if not np.isfinite(bf16_to_float32(rounded[~np.isnan(values)])).all():
        raise InvalidTensor(name, "values in the range of BF16", "a larger one")
    return rounded


def _number(name: str, datatype: Datatype, item: Any) -> float | int:
    """Return one JSON scalar as a number that fits `datatype`, or say why not."""
    kind = type(item)
    if datatype.is_float:
        if item is None:
            return math.nan
        if kind is not float and kind is not int:
            raise InvalidTensor(name, f"numbers for datatype {datatype.name}", kind_of(item))
        value: float | int = item
    else:
        if kind is float and item.is_integer() and abs(item) <= _MAX_EXACT_FLOAT:
            value = int(item)
        elif kind is float and abs(item) >= _BEYOND_INTEGERS:
            # A JSON reader has made a float of an integer of more than 64 bits.
            raise InvalidTensor(name, f"values in the range of {datatype.name}", repr(item))
        elif kind is int:
            value = item
        else:
            raise InvalidTensor(name, f"whole numbers for datatype {datatype.name}", kind_of(item))
    try:
        struct.pack(f"<{datatype.pack}", value)
    except (struct.error, OverflowError):
        raise InvalidTensor(name, f"values in the range of {datatype.name}", repr(item)) from None
    return value


def _flatten(name: str, data: list[Any], shape: Sequence[int]) -> list[Any]:
    """Flatten lists nested exactly as `shape` says."""
    if len(shape) < 2 or len(data) != shape[0]:
        raise InvalidTensor(name, f"data flat or nested as {list(shape)}", kind_of(data))
    for level, inner in enumerate(shape[1:], start=1):
        for item in data:
            if type(item) is not list or len(item) != inner:
                got = f"{len(item)} items" if type(item) is list else kind_of(item)
                raise InvalidTensor(
                    name,
                    f"data nested as {list(shape)}, lists of {inner} at level {level}",
                    got,
                )
        data = list(chain.from_iterable(data))
    return data


def _split_bytes(name: str, count: int, raw: memoryview) -> Array:
    """Split length-prefixed UTF-8 elements."""
    texts: list[str] = []
    at, end = 0, raw.nbytes
    while at < end and len(texts) < count:
        if at + 4 > end:
            break
        size = int.from_bytes(raw[at : at + 4], "little")
        at += 4
        if at + size > end:
            raise InvalidTensor(
                name, f"{size} bytes for element {len(texts)}", f"{end - at} bytes left"
            )
        try:
            texts.append(str(raw[at : at + size], "utf-8"))
        except UnicodeDecodeError:
            raise InvalidTensor(
                name, "UTF-8 text (what ONNX strings are)", f"other bytes in element {len(texts)}"
            ) from None
        at += size
    if len(texts) != count or at != end:
        raise InvalidTensor(
            name, f"{count} length-prefixed elements", f"{end} bytes that hold others"
        )
    array = np.empty(count, object)
    array[:] = texts
    return array


def kind_of(item: Any) -> str:
    """Say what a parsed JSON value is, with a glimpse of it, in JSON's words."""
    if item is None:
        return "null"
    if isinstance(item, bool):
        return "true" if item else "false"
    if isinstance(item, list):
        return f"a list of {len(item)}"
    if isinstance(item, dict):
        return f"an object of {len(item)} keys"
    text = repr(item)
    if len(text) > 40:
        text = text[:37] + "…"
    return f"a string {text}" if isinstance(item, str) else f"the number {text}"


def shape_of(values: Any) -> tuple[int, ...]:
    """Return how nested lists are nested, by their first items; () for a scalar.

    Only the first item of each level is looked at: `from_json` refuses what is ragged.
    """
    shape: list[int] = []
    while type(values) is list and len(shape) < MAX_RANK:
        shape.append(len(values))
        if not values:
            break
        values = values[0]
    return tuple(shape)


def names_of(tensors: Iterable[Tensor]) -> list[str]:
    """Return the tensors' names, in order."""
    return [tensor.name for tensor in tensors]
