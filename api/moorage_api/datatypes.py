"""The one table of element types: Open Inference Protocol, numpy and ONNX.

Sources: "Tensor Data Types" of the Open Inference Protocol v2 (BF16 from Triton's extension) and
`TensorProto.DataType` of onnx.proto. ONNX types that V2 cannot name (complex, float8, 4-bit
integers) are absent on purpose: a model that takes one is refused when it is loaded.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np


@dataclass(frozen=True, slots=True)
class Datatype:
    """One element type under its names.

    Parameters
    ----------
    name
        In the Open Inference Protocol, e.g. "FP32".
    numpy
        Little-endian dtype of an array of it. BYTES is an object array of `str` (ONNX strings are
        UTF-8), BF16 an array of its 16 bits as uint16, since numpy has neither.
    onnx
        Number in `TensorProto.DataType`.
    size
        Bytes per element; 0 for BYTES, which varies.
    pack
        Character of `struct` that packs one element strictly; empty where there is none.
    """

    name: str
    numpy: np.dtype[Any]
    onnx: int
    size: int
    pack: str

    @property
    def is_float(self) -> bool:
        """Whether elements are floating-point numbers."""
        return self.name in _FLOATS

    @property
    def is_integer(self) -> bool:
        """Whether elements are whole numbers."""
        return self.name in _INTEGERS


_FLOATS: Final = frozenset({"FP16", "BF16", "FP32", "FP64"})
_INTEGERS: Final = frozenset(
    {"INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"}
)

DATATYPES: Final[dict[str, Datatype]] = {
    row.name: row
    for row in (
        Datatype("BOOL", np.dtype("?"), 9, 1, ""),
        Datatype("UINT8", np.dtype("u1"), 2, 1, "B"),
        Datatype("UINT16", np.dtype("<u2"), 4, 2, "H"),
        Datatype("UINT32", np.dtype("<u4"), 12, 4, "I"),
        Datatype("UINT64", np.dtype("<u8"), 13, 8, "Q"),
        Datatype("INT8", np.dtype("i1"), 3, 1, "b"),
        Datatype("INT16", np.dtype("<i2"), 5, 2, "h"),
        Datatype("INT32", np.dtype("<i4"), 6, 4, "i"),
        Datatype("INT64", np.dtype("<i8"), 7, 8, "q"),
        Datatype("FP16", np.dtype("<f2"), 10, 2, "e"),
        Datatype("BF16", np.dtype("<u2"), 16, 2, ""),
        Datatype("FP32", np.dtype("<f4"), 1, 4, "f"),
        Datatype("FP64", np.dtype("<f8"), 11, 8, "d"),
        Datatype("BYTES", np.dtype(object), 8, 0, ""),
    )
}

BY_ONNX: Final[dict[int, Datatype]] = {row.onnx: row for row in DATATYPES.values()}
