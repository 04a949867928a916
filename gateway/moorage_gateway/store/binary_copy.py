"""Rows of the prediction table in PostgreSQL's binary COPY format.

Binary, because a float then travels as its four bytes and a text needs no quoting; built here and
not by the driver, because numpy lays out the arrays of all rows at once.

Source: "COPY", section "Binary Format"; array_send, timestamptz_send and jsonb_send of PostgreSQL.
"""

from collections.abc import Iterator
from itertools import chain
from struct import Struct
from typing import Any, Final

import numpy as np
import orjson

from moorage_api.tensors import Array
from moorage_gateway.prediction_log import Record
from moorage_gateway.store.features import SLOTS, clean
from moorage_gateway.store.rows import COLUMNS, Block, latency_us, timestamp_ms

_SLOTS: Final = tuple(chain.from_iterable(SLOTS.values()))
_QUOTED: Final = ", ".join(f'"{column}"' for column in COLUMNS)
STATEMENT: Final = f"COPY prediction ({_QUOTED}) FROM STDIN (FORMAT BINARY)"
HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER: Final = b"\xff\xff"

_NULL: Final = b"\xff\xff\xff\xff"
#: Number of fields, then each field behind its length, from `ts` to `status`.
_FIXED: Final = Struct(">h iq i16s ii ii ii if ih".replace(" ", ""))
_LENGTH: Final = Struct(">i")
#: Dimensions, whether there are nulls, type of the elements, length, first index.
_ARRAY: Final = Struct(">5i")
_TEXT_OID: Final = 25
_FLOAT_TYPES: Final = {4: (700, np.dtype(">f4")), 8: (701, np.dtype(">f8"))}
#: PostgreSQL counts microseconds from 2000-01-01.
_EPOCH_MS: Final = 946_684_800_000


def lines(block: Block, model_version_id: int) -> Iterator[bytes]:
    """Yield every row of `block` as one line."""
    columns = [_column(block, slot) for slot in _SLOTS]
    inputs, outputs = (block.stored[io].tolist() for io in SLOTS)
    index = 0
    meta: dict[str, Any] = {}
    meta_field = b""
    for record, count in zip(block.records, block.counts, strict=True):
        head = _Head(record, model_version_id)
        for row in range(count):
            if block.metas[index] is not meta:
                meta = block.metas[index]
                meta_field = _field(b"\x01" + orjson.dumps(meta))
            blob = block.blobs[index]
            shown = (inputs[index],) * 3 + (outputs[index],) * 3
            yield b"".join(
                (
                    head.fixed(row),
                    head.texts,
                    *(
                        column[index] if column is not None and kept else _NULL
                        for column, kept in zip(columns, shown, strict=True)
                    ),
                    _NULL if blob is None else _field(blob),
                    meta_field,
                )
            )
            index += 1


class _Head:
    """What the rows of one record have in common."""

    def __init__(self, record: Record, model_version_id: int) -> None:
        self._microseconds = (timestamp_ms(record.id) - _EPOCH_MS) * 1000
        self._id = record.id
        self._rest = (
            *(4, model_version_id),
            *(4, latency_us(record)),
            *(4, record.weight),
            *(2, record.status),
        )
        client_id = clean(record.client_id).encode()
        self.texts = _field(record.protocol.encode()) + (_field(client_id) if client_id else _NULL)

    def fixed(self, row: int) -> bytes:
        return _FIXED.pack(len(COLUMNS), 8, self._microseconds, 16, self._id, 4, row, *self._rest)


def _field(data: bytes) -> bytes:
    return _LENGTH.pack(len(data)) + data


def _column(block: Block, slot: str) -> list[bytes] | None:
    """Return one field for each row; None where the version has nothing in this slot."""
    array = block.arrays.get(slot)
    if array is None:
        return None
    return _texts(array) if array.dtype == object else _floats(array)


def _floats(array: Array) -> list[bytes]:
    rows, width = array.shape
    size = array.dtype.itemsize
    oid, big_endian = _FLOAT_TYPES[size]
    items = [("size", ">i4"), ("value", big_endian)]
    fields = np.empty(rows, [("length", ">i4"), ("head", ">i4", 5), ("items", items, (width,))])
    fields["length"] = _ARRAY.size + width * (4 + size)
    fields["head"] = (1, 0, oid, width, 1)
    fields["items"]["size"] = size
    fields["items"]["value"] = array
    raw, step = fields.tobytes(), fields.itemsize
    return [raw[at : at + step] for at in range(0, len(raw), step)]


def _texts(array: Array) -> list[bytes]:
    fields: list[bytes] = []
    for texts in array.tolist():
        items = b"".join(_NULL if text is None else _field(text.encode()) for text in texts)
        head = _ARRAY.pack(1, None in texts, _TEXT_OID, len(texts), 1)
        fields.append(_field(head + items))
    return fields
