"""The tables of the prediction store, as SQLAlchemy describes them to queries.

The migrations make them and are written out on their own; a test holds the two equal. They need
no foreign key from a prediction to its model version: rows come by the million, versions by hand.
"""

from typing import Final

from sqlalchemy import (
    REAL,
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    func,
    literal_column,
    text,
)

from moorage_gateway.store.column_types import (
    Document,
    DoubleArray,
    IntegerArray,
    PredictionId,
    RealArray,
    TextArray,
    Timestamp,
)

metadata: Final = MetaData()

#: One model as one deployment served it; the same version can come with other bytes.
model_version: Final = Table(
    "model_version",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("namespace", Text, nullable=False),
    Column("deployment", Text, nullable=False),
    Column("variant", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("created_at", Timestamp, nullable=False, server_default=func.now()),
    UniqueConstraint(
        "namespace", "deployment", "variant", "model", "version", "sha256", name="model_version_key"
    ),
)

#: Where each feature of a version lies in the arrays of `prediction`; `features` says how.
feature_schema: Final = Table(
    "feature_schema",
    metadata,
    Column("model_version_id", Integer, ForeignKey("model_version.id"), primary_key=True),
    Column("io", Text, primary_key=True),
    Column("pos", Integer, primary_key=True, autoincrement=False),
    Column("tensor", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("dtype", Text, nullable=False),
    Column("shape", IntegerArray, nullable=False),
    Column("slot", Text, nullable=False),
    Column("slot_pos", Integer, nullable=False),
)

#: The ledger: a batch that is named here is stored, and its replay does nothing.
ingest_batch: Final = Table(
    "ingest_batch",
    metadata,
    Column("source", PredictionId, primary_key=True),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("rows", Integer, nullable=False),
    Column("first_ts", Timestamp),
    Column("last_ts", Timestamp),
    Column("done_at", Timestamp, nullable=False, server_default=func.now()),
)

#: One row of one prediction. `ts` is the time inside `request_id`, so the two sort alike.
prediction: Final = Table(
    "prediction",
    metadata,
    Column("ts", Timestamp, nullable=False),
    Column("request_id", PredictionId, nullable=False),
    Column("row", Integer, nullable=False),
    Column("model_version_id", Integer, nullable=False),
    Column("latency_us", Integer, nullable=False),
    Column("weight", REAL, nullable=False, server_default=text("1")),
    Column("status", SmallInteger, nullable=False),
    Column("protocol", Text, nullable=False),
    Column("client_id", Text),
    Column("xn", RealArray),
    Column("xd", DoubleArray),
    Column("xc", TextArray),
    Column("y", RealArray),
    Column("yd", DoubleArray),
    Column("yc", TextArray),
    Column("blob", LargeBinary),
    Column("meta", Document, nullable=False),
)

#: Condition of the failed requests, spelt with a literal so that their index is found by it.
is_failed: Final = prediction.c.status >= literal_column("400")

# A UUIDv7 sorts by its time, so one index on it both finds a prediction and pages through all of
# them newest first. Its last column makes the order total: a shadowed request is stored twice.
Index(
    "prediction_newest",
    prediction.c.request_id.desc(),
    prediction.c.row,
    prediction.c.model_version_id,
)
# The same for one model version: without it, paging through a deployment of little traffic reads
# everything newer of all others.
Index(
    "prediction_newest_of_version",
    prediction.c.model_version_id,
    prediction.c.request_id.desc(),
    prediction.c.row,
)
# Failures are few, so their index costs nothing, and looking for them need not read the rest.
Index(
    "prediction_newest_failed",
    prediction.c.request_id.desc(),
    prediction.c.row,
    prediction.c.model_version_id,
    postgresql_where=text("status >= 400"),
    sqlite_where=text("status >= 400"),
)
# For scans of a span of time; a few kilobytes, as rows arrive in the order of their time.
Index("prediction_ts", prediction.c.ts, postgresql_using="brin").ddl_if(dialect="postgresql")
