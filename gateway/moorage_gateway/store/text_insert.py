"""Rows of the prediction table as the parameters of an INSERT into SQLite.

Built here and not by the column types, which are asked once for each value: that costs more than
all the rest. What they read is what is written here; the contract suite holds the two together.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import repeat
from typing import Any, Final

import orjson

from moorage_api import uuid7
from moorage_api.tensors import Array
from moorage_gateway.store.column_types import dump_floats
from moorage_gateway.store.features import SLOTS, clean
from moorage_gateway.store.rows import COLUMNS, Block, latency_us, timestamp_ms

_PLACES: Final = ", ".join("?" * len(COLUMNS))
STATEMENT: Final = f"INSERT INTO prediction ({', '.join(COLUMNS)}) VALUES ({_PLACES})"  # noqa: S608 - our own names
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC).replace(tzinfo=None)


def parameters(block: Block, model_version_id: int) -> Iterator[tuple[Any, ...]]:
    """Yield the values of every row of `block`, in the order of `COLUMNS`."""
    slots = zip(*(_column(block, slot) for names in SLOTS.values() for slot in names), strict=True)
    rest = zip(slots, block.blobs, block.metas, strict=True)
    meta: dict[str, Any] | None = None
    text = ""
    for record, count in zip(block.records, block.counts, strict=True):
        moment = _EPOCH + timedelta(milliseconds=timestamp_ms(record.id))
        timestamp = moment.isoformat(" ", "microseconds")
        identifier = uuid7.text(record.id)
        tail = (
            model_version_id,
            latency_us(record),
            record.weight,
            record.status,
            record.protocol,
            clean(record.client_id) or None,
        )
        for row in range(count):
            values, blob, own_meta = next(rest)
            if own_meta is not meta:
                meta = own_meta
                text = orjson.dumps(meta).decode()
            yield (timestamp, identifier, row, *tail, *values, blob, text)


def _column(block: Block, slot: str) -> Iterator[str | None]:
    """Yield the JSON text of one slot for each row; None where the row has nothing in it."""
    array = block.arrays.get(slot)
    if array is None:
        return repeat(None, len(block.metas))
    kept = block.stored["input" if slot in SLOTS["input"] else "output"]
    texts = _texts(array) if array.dtype == object else _floats(array)
    if kept.all():
        return iter(texts)
    return (text if stored else None for text, stored in zip(texts, kept.tolist(), strict=True))


def _texts(array: Array) -> list[str]:
    return [orjson.dumps(row).decode() for row in array.tolist()]


def _floats(array: Array) -> list[str]:
    whole = orjson.dumps(array, option=orjson.OPT_SERIALIZE_NUMPY).decode()
    if "null" in whole:  # NaN, or an infinity, which has to be told apart.
        return [dump_floats(row) for row in array]
    return [f"[{row}]" for row in whole[2:-2].split("],[")]
