"""Model versions, their features, the ledger of batches and the predictions.

Frozen: it says with types of its own what the first release made. Later changes are migrations of
their own.
"""

from typing import Any, Final

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: Final = "0001"
down_revision: Final = None


def upgrade() -> None:
    """Make the tables."""
    on_postgresql = op.get_bind().dialect.name == "postgresql"

    def array(element: type[sa.types.TypeEngine[Any]]) -> sa.types.TypeEngine[Any]:
        return postgresql.ARRAY(element()) if on_postgresql else sa.Text()

    identifier = postgresql.UUID() if on_postgresql else sa.CHAR(36)
    timestamp = sa.DateTime(timezone=True)
    document = postgresql.JSONB() if on_postgresql else sa.JSON()

    op.create_table(
        "model_version",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("namespace", sa.Text, nullable=False),
        sa.Column("deployment", sa.Text, nullable=False),
        sa.Column("variant", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("created_at", timestamp, nullable=False, server_default=sa.func.now()),
        sa.UniqueConstraint(
            "namespace",
            "deployment",
            "variant",
            "model",
            "version",
            "sha256",
            name="model_version_key",
        ),
    )
    op.create_table(
        "feature_schema",
        sa.Column(
            "model_version_id", sa.Integer, sa.ForeignKey("model_version.id"), primary_key=True
        ),
        sa.Column("io", sa.Text, primary_key=True),
        sa.Column("pos", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("tensor", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("dtype", sa.Text, nullable=False),
        sa.Column("shape", array(sa.Integer), nullable=False),
        sa.Column("slot", sa.Text, nullable=False),
        sa.Column("slot_pos", sa.Integer, nullable=False),
    )
    op.create_table(
        "ingest_batch",
        sa.Column("source", identifier, primary_key=True),
        sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("rows", sa.Integer, nullable=False),
        sa.Column("first_ts", timestamp),
        sa.Column("last_ts", timestamp),
        sa.Column("done_at", timestamp, nullable=False, server_default=sa.func.now()),
    )
    op.create_table(
        "prediction",
        sa.Column("ts", timestamp, nullable=False),
        sa.Column("request_id", identifier, nullable=False),
        sa.Column("row", sa.Integer, nullable=False),
        sa.Column("model_version_id", sa.Integer, nullable=False),
        sa.Column("latency_us", sa.Integer, nullable=False),
        sa.Column("weight", sa.REAL, nullable=False, server_default=sa.text("1")),
        sa.Column("status", sa.SmallInteger, nullable=False),
        sa.Column("protocol", sa.Text, nullable=False),
        sa.Column("client_id", sa.Text),
        sa.Column("xn", array(sa.REAL)),
        sa.Column("xd", array(sa.Double)),
        sa.Column("xc", array(sa.Text)),
        sa.Column("y", array(sa.REAL)),
        sa.Column("yd", array(sa.Double)),
        sa.Column("yc", array(sa.Text)),
        sa.Column("blob", sa.LargeBinary),
        sa.Column("meta", document, nullable=False),
    )
    newest_first: list[str | sa.TextClause] = [
        sa.text("request_id DESC"),
        "row",
        "model_version_id",
    ]
    op.create_index("prediction_newest", "prediction", newest_first)
    op.create_index(
        "prediction_newest_of_version",
        "prediction",
        ["model_version_id", sa.text("request_id DESC"), "row"],
    )
    op.create_index(
        "prediction_newest_failed",
        "prediction",
        newest_first,
        postgresql_where=sa.text("status >= 400"),
        sqlite_where=sa.text("status >= 400"),
    )
    if on_postgresql:
        op.create_index("prediction_ts", "prediction", ["ts"], postgresql_using="brin")
