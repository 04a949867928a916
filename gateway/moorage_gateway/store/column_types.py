"""Column types that mean the same on PostgreSQL and on SQLite.

SQLite has no arrays, so they are JSON text there: NaN is null, and the infinities, which JSON has
no numbers for, are the strings "Infinity" and "-Infinity".
"""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import orjson
from sqlalchemy import CHAR, JSON, REAL, DateTime, Dialect, Double, Integer, Text, types
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeEngine

from moorage_api.tensors import Array

#: Any JSON document; binary where the database can look inside.
Document = JSON().with_variant(postgresql.JSONB(), "postgresql")


def dump_floats(values: Array) -> str:
    """Return a 1-D float array as JSON text."""
    text = orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY).decode()
    if "null" not in text:
        return text
    infinite = np.isinf(values)
    if not infinite.any():
        return text
    items: list[Any] = orjson.loads(text)
    for index in np.flatnonzero(infinite).tolist():
        items[index] = "Infinity" if values[index] > 0 else "-Infinity"
    return orjson.dumps(items).decode()


def load_floats(text: str) -> list[float | None]:
    """Return what `dump_floats` wrote; None where there was NaN."""
    items: list[Any] = orjson.loads(text)
    if '"' in text:
        return [float(item) if type(item) is str else item for item in items]
    return items


class _Array(types.TypeDecorator[Any]):
    """An array on PostgreSQL, JSON text elsewhere.

    Those of the predictions are only read by it: `binary_copy` and `text_insert` write them.
    """

    impl = Text
    cache_ok = True
    element: type[TypeEngine[Any]]

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(postgresql.ARRAY(self.element()))
        return dialect.type_descriptor(Text())

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        """Read a list."""
        return value if value is None or dialect.name == "postgresql" else orjson.loads(value)


class _FloatArray(_Array):
    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        """Read a list; missing is NaN on PostgreSQL and None on SQLite."""
        return value if value is None or dialect.name == "postgresql" else load_floats(value)


class RealArray(_FloatArray):
    """`float4[]`: single precision."""

    cache_ok = True
    element = REAL


class DoubleArray(_FloatArray):
    """`float8[]`: double precision."""

    cache_ok = True
    element = Double


class TextArray(_Array):
    """`text[]`; None for a missing text."""

    cache_ok = True
    element = Text


class IntegerArray(_Array):
    """`integer[]`."""

    cache_ok = True
    element = Integer

    def process_bind_param(self, value: Sequence[Any] | None, dialect: Dialect) -> Any:
        """Write the elements, which any sequence may hold."""
        if value is None:
            return None
        return list(value) if dialect.name == "postgresql" else orjson.dumps(list(value)).decode()


class Timestamp(types.TypeDecorator[datetime]):
    """An aware datetime, UTC when it comes back; SQLite, which has no zones, holds UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Write a time as UTC."""
        if value is None:
            return None
        value = value.astimezone(UTC)
        return value if dialect.name == "postgresql" else value.replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Read a time as UTC, whatever the session's time zone is."""
        if value is None:
            return None
        if dialect.name == "postgresql":
            return value.astimezone(UTC)
        return value.replace(tzinfo=UTC)


class PredictionId(types.TypeDecorator[bytes]):
    """The 16 bytes of a UUID; on SQLite its 36 characters, which sort the same and can be read."""

    impl = CHAR(36)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Choose between `uuid` and text."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(postgresql.UUID(as_uuid=True))
        return dialect.type_descriptor(CHAR(36))

    def process_bind_param(self, value: bytes | None, dialect: Dialect) -> Any:
        """Write 16 bytes."""
        if value is None:
            return None
        identifier = uuid.UUID(bytes=value)
        return identifier if dialect.name == "postgresql" else str(identifier)

    def process_result_value(self, value: Any, dialect: Dialect) -> bytes | None:
        """Read 16 bytes."""
        if value is None:
            return None
        identifier: uuid.UUID = value if dialect.name == "postgresql" else uuid.UUID(value)
        return identifier.bytes
