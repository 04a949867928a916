"""Which columns a model has in the prediction store, and where each lies.

One element of one row is a *feature*. Features of a kind share an array column (a *slot*), so that
twenty numbers cost one column and not twenty:

==========  ==========================================================  ======================
slot        datatypes                                                   column
==========  ==========================================================  ======================
xn, y       FP32 FP16 BF16 INT8 INT16 UINT8 UINT16 BOOL                 float4[]: holds them exactly
xd, yd      FP64 INT32 UINT32 INT64 UINT64                              float8[]: exact up to 2^53
xc, yc      BYTES                                                       text[]
blob        any, where a row is no short list of elements               bytes
==========  ==========================================================  ======================

The slots of inputs begin with x, those of outputs with y. What is planned here is stored beside
the model version, and the stored plan is the one that rows are written and read by: a later
program that would plan otherwise still reads them rightly.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from typing import Any, Final, Literal, TypeAlias

from moorage_api.signature import Signature, TensorSpec

Io: TypeAlias = Literal["input", "output"]
Kind: TypeAlias = Literal["num", "bool", "text", "tensor"]

#: The array columns of a side, in the order of the table.
SLOTS: Final[dict[Io, tuple[str, str, str]]] = {
    "input": ("xn", "xd", "xc"),
    "output": ("y", "yd", "yc"),
}
BLOB: Final = "blob"
#: A longer row (an image, an embedding) is kept as a tensor: nobody reads it number by number.
MAX_FEATURES: Final = 1024

_DOUBLES: Final = frozenset({"FP64", "INT32", "UINT32", "INT64", "UINT64"})


@dataclass(frozen=True, slots=True)
class Feature:
    """One column of a model.

    Parameters
    ----------
    io
        "input" or "output".
    tensor
        Which tensor of the model it belongs to.
    name
        Unique on its side: the tensor's own name, or `tensor[3]`, or `tensor[class]`.
    pos
        Place on its side, from 0.
    kind
        "num", "bool", "text" or "tensor".
    dtype
        V2 datatype of the tensor.
    shape
        Of one row of the tensor; of the whole tensor where the model does not answer rows. -1 is
        any size.
    slot, slot_pos
        Column and place in its array, from 0 (arrays of PostgreSQL count from 1). Of a tensor its
        place among the tensors of the row.
    """

    io: Io
    tensor: str
    name: str
    pos: int
    kind: Kind
    dtype: str
    shape: tuple[int, ...]
    slot: str
    slot_pos: int


@dataclass(frozen=True, slots=True)
class TensorSlot:
    """Where all features of one tensor lie, side by side.

    Parameters
    ----------
    io, tensor, dtype, shape, slot
        As of its features.
    start, width
        The features are `start … start + width - 1` of the slot; of a blob the width is 0.
    names
        Of the features, in order.
    """

    io: Io
    tensor: str
    dtype: str
    shape: tuple[int, ...]
    slot: str
    start: int
    width: int
    names: tuple[str, ...]

    @property
    def is_blob(self) -> bool:
        """Whether the tensor is kept as bytes."""
        return self.slot == BLOB


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """The features of one model version, and the same by tensor and by slot.

    Parameters
    ----------
    features
        Inputs before outputs, each side in its order.
    """

    features: tuple[Feature, ...]
    tensors: tuple[TensorSlot, ...] = field(init=False)
    widths: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        tensors = tuple(
            _tensor_slot(tuple(group))
            for _, group in groupby(self.features, key=attrgetter("io", "tensor", "slot"))
        )
        widths = {slot: 0 for slots in SLOTS.values() for slot in slots}
        for tensor in tensors:
            if not tensor.is_blob:
                widths[tensor.slot] += tensor.width
        object.__setattr__(self, "tensors", tensors)
        object.__setattr__(self, "widths", widths)


def plan(signature: Signature) -> tuple[Feature, ...]:
    """Return the features of a model, inputs before outputs, in the order of its signature."""
    features: list[Feature] = []
    used: dict[str, int] = {}
    sides: tuple[tuple[Io, tuple[TensorSpec, ...]], ...] = (
        ("input", signature.inputs),
        ("output", signature.outputs),
    )
    for io, specs in sides:
        taken: set[str] = set()
        pos = 0
        for spec in specs:
            kind, slot, shape, names = _place(io, spec, signature.is_batched)
            for name in names:
                start = used.get(slot, 0)
                used[slot] = start + 1
                features.append(
                    Feature(
                        io,
                        clean(spec.name),
                        _unique(clean(name), taken),
                        pos,
                        kind,
                        spec.datatype,
                        shape,
                        slot,
                        start,
                    )
                )
                pos += 1
    return tuple(features)


def clean(text: str) -> str:
    """Return `text` as every database takes it.

    PostgreSQL's text cannot hold U+0000 and no UTF-8 can hold a lone surrogate; both become
    U+FFFD. Where that would lose what a model was given, the exact text is kept beside it.
    """
    if "\0" in text:
        text = text.replace("\0", "\ufffd")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            text = "".join("\ufffd" if "\ud800" <= sign <= "\udfff" else sign for sign in text)
    return text


def _place(
    io: Io, spec: TensorSpec, batched: bool
) -> tuple[Kind, str, tuple[int, ...], Sequence[str]]:
    """Return kind, slot, row shape and feature names of one tensor."""
    if not batched:
        return "tensor", BLOB, spec.shape, (spec.name,)
    row = spec.row_shape
    if row == (-1,) and spec.classes:
        # The labels say how long the row is where the graph leaves it open.
        row = (len(spec.classes),)
    if all(size == 1 for size in row):
        names: Sequence[str] = (spec.name,)
    elif len(row) == 1 and 1 < row[0] <= MAX_FEATURES:
        labels = spec.classes if len(spec.classes) == row[0] else range(row[0])
        names = [f"{spec.name}[{label}]" for label in labels]
    else:
        return "tensor", BLOB, row, (spec.name,)
    single, double, text = SLOTS[io]
    if spec.datatype == "BYTES":
        return "text", text, row, names
    if spec.datatype == "BOOL":
        return "bool", single, row, names
    return "num", double if spec.datatype in _DOUBLES else single, row, names


def _unique(name: str, taken: set[str]) -> str:
    """Return `name`, or with "#2", "#3" … appended where it is taken, and take it."""
    unique, times = name, 1
    while unique in taken:
        times += 1
        unique = f"{name}#{times}"
    taken.add(unique)
    return unique


def _tensor_slot(features: Sequence[Feature]) -> TensorSlot:
    first = features[0]
    blob = first.slot == BLOB
    return TensorSlot(
        first.io,
        first.tensor,
        first.dtype,
        first.shape,
        first.slot,
        first.slot_pos,
        0 if blob else len(features),
        tuple(feature.name for feature in features),
    )


def from_rows(rows: Iterable[Any]) -> Layout:
    """Return the layout that `feature_schema` holds of one model version.

    Parameters
    ----------
    rows
        In any order, each with the attributes of a `Feature`.
    """
    features = [
        Feature(
            row.io,
            row.tensor,
            row.name,
            row.pos,
            row.kind,
            row.dtype,
            tuple(row.shape),
            row.slot,
            row.slot_pos,
        )
        for row in rows
    ]
    features.sort(key=attrgetter("io", "pos"))  # "input" sorts before "output".
    return Layout(tuple(features))
