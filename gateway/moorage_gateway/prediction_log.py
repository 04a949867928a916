"""What is remembered of a prediction, and the port to wherever that is kept.

`PredictionLog.append` is on the request path and therefore neither waits nor fails.
`PredictionStore` is behind it, in a thread of its own, and may do both.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from moorage_api.signature import Signature
from moorage_api.tensors import Tensor


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Which model answered, of which deployment.

    Parameters
    ----------
    namespace, deployment
        Key of the ModelDeployment.
    variant
        "stable" for now.
    model, version
        As clients name them.
    sha256
        Of the ONNX file; a `file:` address can bring other bytes under the same version.
    signature
        What the model takes and gives: it names and types what is stored.
    """

    namespace: str
    deployment: str
    variant: str
    model: str
    version: str
    sha256: str
    signature: Signature


@dataclass(slots=True, eq=False)
class Record:
    """One request and what became of it.

    Parameters
    ----------
    id
        16 bytes of a UUIDv7; the time of the prediction is inside.
    identity
        Which model.
    protocol
        "predict", "v2", "v1" or "seldon".
    status
        HTTP status of the answer.
    inputs
        As they reached the model; empty when the request was refused before that.
    outputs
        As they left it; empty for errors.
    rows
        How many rows the tensors hold, each of which is stored as a row; None when the model does
        not answer rows and the whole is one.
    weight
        How many predictions this one stands for: 100 / samplePercent.
    total_us, validate_us, queue_us, runtime_us
        Time in microseconds: all of it, parsing and checking, waiting for a connection, and the
        round trip to the runtime.
    client_id
        The client's own id of the request, empty when it gave none.
    error
        The message of the error, empty for none.
    """

    id: bytes
    identity: ModelIdentity
    protocol: str
    status: int
    inputs: Sequence[Tensor] = ()
    outputs: Sequence[Tensor] = ()
    rows: int | None = None
    weight: float = 1.0
    total_us: int = 0
    validate_us: int = 0
    queue_us: int = 0
    runtime_us: int = 0
    client_id: str = ""
    error: str = ""

    @property
    def nbytes(self) -> int:
        """Memory that the tensors hold, near enough for a bound; at least 1 KiB."""
        size = 1024
        for tensor in (*self.inputs, *self.outputs):
            size += tensor.array.nbytes
            if tensor.datatype == "BYTES":
                # A text has 64 bytes beside its characters and its pointer.
                size += 64 * tensor.array.size + sum(map(len, tensor.array.ravel().tolist()))
        return size


@dataclass(frozen=True, slots=True)
class Batch:
    """Records that are stored together, once.

    Parameters
    ----------
    source
        16 bytes that name the process which made the batch.
    sequence
        Counts up within the source. A store that has seen (source, sequence) does nothing, so a
        batch whose commit was in doubt can be written again.
    records
        In the order of their making.
    """

    source: bytes
    sequence: int
    records: Sequence[Record]


@dataclass(frozen=True, slots=True)
class Query:
    """Which predictions are wanted, newest first; None and empty mean any.

    Parameters
    ----------
    namespace, deployment, model, version, protocol
        Equal to these.
    status
        Equal to this HTTP status.
    failed
        True for status 400 and above, False for below.
    since, until
        Half-open interval of time: since <= t < until. Aware datetimes.
    after
        Cursor of the page before.
    limit
        Most rows of a page.
    """

    namespace: str = ""
    deployment: str = ""
    model: str = ""
    version: str = ""
    protocol: str = ""
    status: int | None = None
    failed: bool | None = None
    since: datetime | None = None
    until: datetime | None = None
    after: str = ""
    limit: int = 100


@dataclass(frozen=True, slots=True)
class StoredRow:
    """One row of a stored prediction.

    Parameters
    ----------
    request_id
        Text of the UUIDv7.
    row
        Place in the request, from 0.
    timestamp
        Aware, UTC, milliseconds.
    inputs, outputs
        By feature name: a number, a string, True or False, None for missing (NaN), or for a tensor
        a dict with "shape", "datatype" and either "data" (nested lists) or "sha256" and a summary.
    timing_us
        "total", "validate", "queue", "runtime".
    """

    request_id: str
    row: int
    timestamp: datetime
    namespace: str
    deployment: str
    variant: str
    model: str
    version: str
    sha256: str
    protocol: str
    status: int
    weight: float
    timing_us: dict[str, int]
    client_id: str
    error: str
    inputs: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Page:
    """Rows of one page and where the next begins; an empty cursor says that there is none."""

    rows: list[StoredRow]
    cursor: str


class PredictionLog(Protocol):
    """Where the request path leaves what happened."""

    def append(self, record: Record) -> None:
        """Take a record; never waits, never raises. What cannot be kept is counted."""


class PredictionStore(Protocol):
    """Where predictions are kept: SQLite or PostgreSQL, the same promises.

    Every method blocks and may be called from any thread.

    Raises
    ------
    StoreUnavailable
        By every method, when the database does not answer now and may later.
    """

    def prepare(self) -> None:
        """Bring the schema up to date; safe to call from several processes at once.

        Raises
        ------
        Conflict
            When the database is of a newer version than this program.
        """

    def write(self, batch: Batch) -> None:
        """Store a batch, all or nothing, once.

        Raises
        ------
        InvalidRequest
            When the database refuses the data itself; trying again will not help.
        """

    def page(self, query: Query) -> Page:
        """Return stored rows, newest first.

        Raises
        ------
        InvalidRequest
            When the cursor is not one that a page gave.
        """

    def find(self, request_id: bytes) -> list[StoredRow]:
        """Return all rows of one prediction in their order; empty when there is none."""

    def count(self) -> Iterator[tuple[str, int]]:
        """Yield ("namespace/deployment", stored rows) of every deployment with any."""

    def close(self) -> None:
        """Give connections back."""
