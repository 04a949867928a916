"""`/predictions`: the record, read back."""

import uuid
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, BeforeValidator

from moorage_api.errors import UnknownPrediction
from moorage_gateway import prediction_log
from moorage_gateway.http.services import Parts
from moorage_gateway.prediction_log import StoredRow

router = APIRouter(prefix="/predictions", tags=["predictions"])


def _assume_utc(value: Any) -> Any:
    """Read a time without an offset as UTC."""
    if isinstance(value, str):
        try:
            parsed = datetime.fromisoformat(value)
        except ValueError:
            return value
        return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    return value


Time = Annotated[AwareDatetime | None, BeforeValidator(_assume_utc)]


# A plain function: FastAPI runs it in a thread, where the database may block.
@router.get("", summary="Stored predictions, newest first")
def list_predictions(
    parts: Parts,
    deployment: Annotated[str, Query(description="Name, or NAMESPACE/NAME.")] = "",
    model_name: str = "",
    version: str = "",
    protocol: Annotated[str, Query(pattern="^(|predict|v2|v1|seldon)$")] = "",
    status: Annotated[int | None, Query(ge=100, le=599, description="HTTP status.")] = None,
    failed: Annotated[bool | None, Query(description="Only errors, or none of them.")] = None,
    since: Annotated[Time, Query(description="At or after this time.")] = None,
    until: Annotated[Time, Query(description="Before this time.")] = None,
    after: Annotated[str, Query(description="`next` of the page before.", max_length=512)] = "",
    limit: Annotated[int, Query(ge=1, le=1000, description="Most rows of the page.")] = 100,
) -> dict[str, Any]:
    """Page through the record; a request with n rows is n entries under one prediction id."""
    namespace, _, name = deployment.rpartition("/")
    page = parts.store.page(
        prediction_log.Query(
            namespace=namespace,
            deployment=name,
            model=model_name,
            version=version,
            protocol=protocol,
            status=status,
            failed=failed,
            since=since,
            until=until,
            after=after,
            limit=limit,
        )
    )
    return {"predictions": [_row(row) for row in page.rows], "next": page.cursor or None}


@router.get("/{prediction_id}", summary="One prediction")
def get_prediction(prediction_id: str, parts: Parts) -> dict[str, Any]:
    """Show a prediction with all its rows."""
    try:
        raw = uuid.UUID(prediction_id).bytes
    except ValueError:
        raise UnknownPrediction(f"{prediction_id[:80]!r} is not a prediction's id") from None
    rows = parts.store.find(raw)
    if not rows:
        raise UnknownPrediction(
            f"no prediction {prediction_id} is stored (a record takes a moment; sampled-out and "
            "unlogged ones never are)"
        )
    head = _row(rows[0])
    for key in ("row", "inputs", "outputs"):
        del head[key]
    return head | {"rows": [{"inputs": row.inputs, "outputs": row.outputs} for row in rows]}


def _row(row: StoredRow) -> dict[str, Any]:
    return {
        "prediction_id": row.request_id,
        "row": row.row,
        "timestamp": row.timestamp.isoformat(timespec="milliseconds"),
        "namespace": row.namespace,
        "deployment": row.deployment,
        "variant": row.variant,
        "model_name": row.model,
        "version": row.version,
        "sha256": row.sha256,
        "protocol": row.protocol,
        "status": row.status,
        "weight": row.weight,
        "timing_ms": {name: micros / 1000 for name, micros in row.timing_us.items()},
        "client_id": row.client_id or None,
        "error": row.error or None,
        "inputs": row.inputs,
        "outputs": row.outputs,
    }
