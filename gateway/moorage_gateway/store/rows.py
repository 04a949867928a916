"""Records to rows of the prediction table, and a stored row back to values by feature name.

Pure: no database, no clock. Both engines write the same `Block` and read the same values back.
What a column cannot hold exactly is kept beside it in `meta`, so that nothing is lost:

=============  ===================================================================================
key of `meta`  holds
=============  ===================================================================================
`timing_us`    "validate", "queue" and "runtime" in microseconds
`error`        the message of a failed request
`tensors`      by side and name, where in `blob` a tensor lies ("datatype", "shape", "offset",
               "size"), or what is left of one that is too large ("sha256", "min", "max", "mean")
`absent`       by side, the tensors that this request did not have
`exact`        by side and feature, integers beyond 2^53 as decimals, and texts that a database
               refuses as base64 of their UTF-8
=============  ===================================================================================
"""

import base64
import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import orjson
from numpy.typing import NDArray

from moorage_api import tensors as codec
from moorage_api import uuid7
from moorage_api.datatypes import DATATYPES
from moorage_api.tensors import Array, Tensor
from moorage_gateway.prediction_log import Record
from moorage_gateway.store.features import SLOTS, Io, Layout, TensorSlot, clean

Meta: TypeAlias = dict[str, Any]
Values: TypeAlias = dict[str, Any]

#: What every stored row holds.
COLUMNS: Final = (
    "ts",
    "request_id",
    "row",
    "model_version_id",
    "latency_us",
    "weight",
    "status",
    "protocol",
    "client_id",
    *SLOTS["input"],
    *SLOTS["output"],
    "blob",
    "meta",
)
#: A larger tensor of a row is not kept, only its hash and a summary.
MAX_TENSOR_BYTES: Final = 64 * 1024
#: Integers up to here fit a float8 exactly.
_EXACT: Final = 2.0**53
#: The last millisecond of the year 9999, in which Python's time ends.
_LAST_MS: Final = 253_402_300_799_999
_WIDE_INTEGERS: Final = frozenset({"INT64", "UINT64"})


@dataclass(slots=True)
class Block:
    """The rows of records of one model version, column by column, in the order of the records.

    Parameters
    ----------
    records
        At least one.
    counts
        How many rows each record has; at least 1.
    arrays
        By slot, of shape (rows, features): float32, float64, or objects that are str or None. NaN
        and None are missing. A slot without features is left out.
    stored
        By side, whether a row has that side at all. Where it has not, the arrays' rows mean
        nothing.
    blobs, metas
        One for each row. Rows may share a meta.
    """

    records: Sequence[Record]
    counts: list[int]
    arrays: dict[str, Array]
    stored: dict[Io, NDArray[np.bool_]]
    blobs: list[bytes | None]
    metas: list[Meta]


def encode(records: Sequence[Record], layout: Layout) -> Block:
    """Lay out records of one model version as rows.

    A tensor that does not fit the layout (another datatype, or not one item for each row) is kept
    whole, with the first row of its record: what was answered is remembered as it was.
    """
    counts = [_row_count(record) for record in records]
    total = sum(counts)
    arrays = {slot: _empty(slot, total, width) for slot, width in layout.widths.items() if width}
    stored: dict[Io, NDArray[np.bool_]] = {io: np.ones(total, np.bool_) for io in SLOTS}
    block = Block(records, counts, arrays, stored, [], [])
    if not _encode_regular(block, layout):
        start = 0
        for record, count in zip(records, counts, strict=True):
            _encode_record(block, layout, record, start, count)
            start += count
    _keep_exact(block, layout)
    return block


def decode(
    layout: Layout, arrays: Mapping[str, Sequence[Any] | None], blob: bytes | None, meta: Meta
) -> dict[Io, Values]:
    """Return the values of a stored row by side and feature name.

    Parameters
    ----------
    layout
        Of the model version that the row names.
    arrays
        By slot; missing or None where the row has nothing in it.
    blob, meta
        As stored.

    Returns
    -------
    values by side
        Numbers in the shortest form that identifies them in their own precision, so that an FP32
        of 0.1 is 0.1. None for NaN.
    """
    sides: dict[Io, Values] = {"input": {}, "output": {}}
    tensors = {io: dict(entries) for io, entries in meta.get("tensors", {}).items()}
    for slot in layout.tensors:
        values = sides[slot.io]
        entry = tensors.get(slot.io, {}).pop(slot.tensor, None)
        if entry is not None:
            name = slot.names[0] if slot.is_blob else slot.tensor
            values[name] = _decode_tensor(name, entry, blob)
            continue
        cells = arrays.get(slot.slot)
        if cells is None or slot.tensor in meta.get("absent", {}).get(slot.io, ()):
            continue
        exact = meta.get("exact", {}).get(slot.io, {})
        for name, cell in zip(slot.names, cells[slot.start : slot.start + slot.width], strict=True):
            values[name] = _decode_cell(slot.dtype, cell, exact.get(name))
    for io, values in sides.items():
        for name, entry in tensors.get(io, {}).items():  # The signature has no such tensor.
            values[name] = _decode_tensor(name, entry, blob)
    return sides


def timestamp_ms(request_id: bytes) -> int:
    """Return the time of a prediction in milliseconds, within what a datetime can say."""
    return min(uuid7.milliseconds(request_id), _LAST_MS)


def latency_us(record: Record) -> int:
    """Return how long the answer took in microseconds; half an hour stands for all beyond."""
    return min(record.total_us, 2**31 - 1)


def _row_count(record: Record) -> int:
    """Return how many rows a record is stored as.

    One for a request without rows too: it was answered, so it is remembered.
    """
    rows = record.rows
    if rows is None or rows < 1:
        return 1
    fits = any(
        tensor.array.ndim and len(tensor.array) == rows
        for tensor in (*record.inputs, *record.outputs)
    )
    return rows if fits else 1


def _empty(slot: str, rows: int, width: int) -> Array:
    if slot.endswith("c"):
        return np.full((rows, width), None, object)
    return np.full((rows, width), np.nan, np.float64 if slot.endswith("d") else np.float32)


def _encode_regular(block: Block, layout: Layout) -> bool:
    """Fill all rows at once, or none, when a record is not exactly what the signature says.

    Nearly all batches are, and numpy then takes a fifth of the time that records one by one take.
    """
    slots = layout.tensors
    if any(slot.is_blob or slot.dtype == "BF16" for slot in slots):
        return False
    columns: list[list[Array]] = [[] for _ in slots]
    for record, count in zip(block.records, block.counts, strict=True):
        tensors = (*record.inputs, *record.outputs)
        if record.error or len(tensors) != len(slots) or not record.inputs or not record.outputs:
            return False
        for tensor, slot, column in zip(tensors, slots, columns, strict=True):
            if tensor.name != slot.tensor or not _fits(tensor, slot, count):
                return False
            column.append(tensor.array.reshape(count, slot.width))
    for slot, column in zip(slots, columns, strict=True):
        where = slice(slot.start, slot.start + slot.width)
        block.arrays[slot.slot][:, where] = np.concatenate(column)
    for record, count in zip(block.records, block.counts, strict=True):
        block.metas.extend([{"timing_us": _timing(record)}] * count)
    block.blobs.extend([None] * len(block.metas))
    return True


def _timing(record: Record) -> dict[str, int]:
    return {
        "validate": record.validate_us,
        "queue": record.queue_us,
        "runtime": record.runtime_us,
    }


def _encode_record(block: Block, layout: Layout, record: Record, start: int, count: int) -> None:
    """Fill the rows `start … start + count - 1`, and append their blobs and metas."""
    given: dict[Io, dict[str, Tensor]] = {
        "input": {clean(tensor.name): tensor for tensor in record.inputs},
        "output": {clean(tensor.name): tensor for tensor in record.outputs},
    }
    absent: dict[str, list[str]] = {}
    split: list[tuple[Io, str, Tensor]] = []
    whole: list[tuple[Io, str, Tensor]] = []
    empty = [io for io, tensors in given.items() if not tensors]
    for io in empty:
        block.stored[io][start : start + count] = False
    for slot in layout.tensors:
        if slot.io in empty:
            continue
        tensor = given[slot.io].pop(slot.tensor, None)
        if tensor is None:
            absent.setdefault(slot.io, []).append(slot.tensor)
        elif slot.is_blob:
            by_row = record.rows is not None and _has_rows(tensor.array, count)
            (split if by_row else whole).append((slot.io, slot.tensor, tensor))
        elif _fits(tensor, slot, count):
            columns = slice(slot.start, slot.start + slot.width)
            array = tensor.array
            if slot.dtype == "BF16":
                array = codec.bf16_to_float32(array)
            block.arrays[slot.slot][start : start + count, columns] = array.reshape(count, -1)
        else:
            whole.append((slot.io, slot.tensor, tensor))
    for io, tensors in given.items():
        whole.extend((io, name, tensor) for name, tensor in tensors.items())

    meta: Meta = {"timing_us": _timing(record)}
    if record.error:
        meta["error"] = clean(record.error)
    if absent:
        meta["absent"] = absent
    if not split and not whole:
        block.metas.extend([meta] * count)
        block.blobs.extend([None] * count)
        return
    _encode_blobs(block, meta, count, split, whole)


def _encode_blobs(
    block: Block,
    meta: Meta,
    count: int,
    split: Sequence[tuple[Io, str, Tensor]],
    whole: Sequence[tuple[Io, str, Tensor]],
) -> None:
    """Append blob and meta of every row: a slice of each of `split`; the first has `whole` too."""
    rest = meta
    if whole and count > 1:
        absent = {io: list(names) for io, names in meta.get("absent", {}).items()}
        for io, name, _ in whole:
            absent.setdefault(io, []).append(name)
        rest = meta | {"absent": absent}
    for row in range(count):
        # The ellipsis keeps a row of rank 0 an array.
        pieces = [(io, name, tensor.datatype, tensor.array[row, ...]) for io, name, tensor in split]
        if row == 0:
            pieces += [(io, name, tensor.datatype, tensor.array) for io, name, tensor in whole]
        parts: list[bytes | memoryview] = []
        entries: dict[str, dict[str, Any]] = {}
        offset = 0
        for io, name, datatype, array in pieces:
            raw = _raw(datatype, array)
            entry: dict[str, Any] = {"datatype": datatype, "shape": list(array.shape)}
            if len(raw) > MAX_TENSOR_BYTES:
                entry |= _summary(datatype, array, raw)
            else:
                entry |= {"offset": offset, "size": len(raw)}
                parts.append(raw)
                offset += len(raw)
            entries.setdefault(io, {})[name] = entry
        block.blobs.append(b"".join(parts) if parts else None)
        block.metas.append((rest if row else meta) | ({"tensors": entries} if entries else {}))


def _raw(datatype: str, array: Array) -> bytes | memoryview:
    try:
        return codec.to_bytes(datatype, array)
    except UnicodeEncodeError:
        # A lone surrogate, which only a caller within Python can bring.
        return codec.to_bytes(datatype, np.vectorize(clean, otypes=[object])(array))


def _summary(datatype: str, array: Array, raw: bytes | memoryview) -> dict[str, Any]:
    """Describe a tensor that is too large to keep: size, hash, and range of its finite values."""
    summary: dict[str, Any] = {"size": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
    if datatype == "BYTES":
        return summary
    values = codec.bf16_to_float32(array) if datatype == "BF16" else array
    finite = values[np.isfinite(values)]
    if not finite.size:
        return summary | {"min": None, "max": None, "mean": None}
    with np.errstate(over="ignore"):
        mean = float(finite.mean(dtype=np.float64))
    if not np.isfinite(mean):  # Their sum is beyond the range, which their mean never is.
        mean = float((finite / finite.size).sum())
    return summary | {"min": finite.min().item(), "max": finite.max().item(), "mean": mean}


def _has_rows(array: Array, count: int) -> bool:
    return array.ndim > 0 and len(array) == count


def _fits(tensor: Tensor, slot: TensorSlot, count: int) -> bool:
    array = tensor.array
    return (
        tensor.datatype == slot.dtype
        and _has_rows(array, count)
        and array.size == count * slot.width
    )


def _keep_exact(block: Block, layout: Layout) -> None:
    """Put beside the row what its columns cannot hold: wide integers and unstorable texts."""
    exact: dict[int, dict[str, dict[str, str]]] = {}
    starts = np.concatenate(([0], np.cumsum(block.counts))).tolist()
    for slot in layout.tensors:
        if slot.is_blob:
            continue
        columns = block.arrays[slot.slot][:, slot.start : slot.start + slot.width]
        if slot.dtype in _WIDE_INTEGERS:
            found = _wide_integers(block, slot, columns, starts)
        elif slot.dtype == "BYTES":
            found = _unstorable_texts(columns)
        else:
            continue
        for row, column, text in found:
            exact.setdefault(row, {}).setdefault(slot.io, {})[slot.names[column]] = text
    for row, kept in exact.items():
        block.metas[row] = block.metas[row] | {"exact": kept}


def _wide_integers(
    block: Block, slot: TensorSlot, columns: Array, starts: list[int]
) -> Iterator[tuple[int, int, str]]:
    """Yield (row, column, decimal) of every integer that a float8 may round."""
    for row, column in np.argwhere(np.abs(columns) >= _EXACT).tolist():
        index = bisect_right(starts, row) - 1
        record = block.records[index]
        side = record.inputs if slot.io == "input" else record.outputs
        array = next(t.array for t in reversed(side) if clean(t.name) == slot.tensor)
        count = block.counts[index]
        yield row, column, str(array.reshape(count, slot.width)[row - starts[index], column])


def _unstorable_texts(columns: Array) -> Iterator[tuple[int, int, str]]:
    """Replace every text that a database would refuse, and yield (row, column, base64) of it."""
    texts = "".join(text for text in columns.reshape(-1).tolist() if text is not None)
    if clean(texts) == texts:
        return
    for row, line in enumerate(columns.tolist()):
        for column, text in enumerate(line):
            if text is not None and (cleaned := clean(text)) != text:
                columns[row, column] = cleaned
                yield row, column, base64.b64encode(text.encode("utf-8", "surrogatepass")).decode()


def _decode_cell(dtype: str, cell: Any, exact: str | None) -> Any:
    if dtype == "BYTES":
        return cell if exact is None else base64.b64decode(exact).decode("utf-8", "surrogatepass")
    if exact is not None:
        return int(exact)
    if cell is None or cell != cell:
        return None
    if dtype == "BOOL":
        return bool(cell)
    return float(cell) if DATATYPES[dtype].is_float else int(cell)


def _decode_tensor(name: str, entry: Mapping[str, Any], blob: bytes | None) -> Values:
    shape, datatype = entry["shape"], entry["datatype"]
    if "sha256" in entry:
        return dict(entry)
    raw = memoryview(blob or b"")[entry["offset"] : entry["offset"] + entry["size"]]
    array = codec.from_bytes(name, DATATYPES[datatype], shape, raw)
    return {"shape": shape, "datatype": datatype, "data": _plain(datatype, array)}


def _plain(datatype: str, array: Array) -> Any:
    """Return nested lists; NaN becomes None, infinities stay."""
    if not DATATYPES[datatype].is_float:
        return array.tolist()
    if datatype in ("BF16", "FP16"):
        array = codec.bf16_to_float32(array) if datatype == "BF16" else array.astype(np.float32)
    flat = array.reshape(-1)
    # orjson writes a float32 by the digits that identify it, where tolist would widen it.
    values = orjson.loads(orjson.dumps(flat, option=orjson.OPT_SERIALIZE_NUMPY))
    for index in np.flatnonzero(np.isinf(flat)).tolist():
        values[index] = float(flat[index])
    nested = np.empty(len(values), object)
    nested[:] = values
    return nested.reshape(array.shape).tolist()
