"""The closed vocabulary of a ModelDeployment's conditions.

A reason enters this file in the change that can produce it, and is never free text.
"""

from enum import StrEnum
from typing import Final


class Condition(StrEnum):
    """Types of `status.conditions`."""

    #: A replica of the current generation has answered a probe inference.
    READY = "Ready"
    #: `spec.stopped` is set and no replica runs.
    STOPPED = "Stopped"


class Phase(StrEnum):
    """`status.phase`: one word for a person; scripts read conditions."""

    PENDING = "Pending"
    READY = "Ready"
    DEGRADED = "Degraded"
    FAILED = "Failed"
    STOPPED = "Stopped"


class Reason(StrEnum):
    """Reasons of conditions."""

    #: Every replica asked for serves.
    SERVING = "Serving"
    #: Some replicas of the current generation serve, some do not yet.
    PARTLY_READY = "PartlyReady"
    #: Replicas have been started and have not answered a probe yet.
    LOADING = "Loading"
    #: `spec.replicas` is 0.
    SCALED_TO_ZERO = "ScaledToZero"
    #: `spec.stopped` is true.
    STOPPED = "Stopped"
    #: `spec.stopped` is false.
    RUNNING = "Running"
    #: The model could not be fetched.
    DOWNLOAD_FAILED = "DownloadFailed"
    #: The fetched bytes are not those that `spec.model.sha256` names.
    CHECKSUM_MISMATCH = "ChecksumMismatch"
    #: The model needs a newer runtime.
    UNSUPPORTED_OPSET = "UnsupportedOpset"
    #: The file is not a model that can be loaded and run.
    BAD_MODEL = "BadModel"
    #: The runtime process ends again and again for another cause.
    CRASH_LOOP = "CrashLoop"
    #: Another deployment has the endpoint.
    ENDPOINT_TAKEN = "EndpointTaken"


#: Phases in which a deployment does what its spec asks for.
AS_ASKED: Final = (Phase.READY, Phase.STOPPED)
#: A runtime refuses the model itself, by these names: waiting is no use. See errors.ModelRejected.
MODEL_REJECTED: Final = frozenset(
    {
        Reason.DOWNLOAD_FAILED,
        Reason.CHECKSUM_MISMATCH,
        Reason.UNSUPPORTED_OPSET,
        Reason.BAD_MODEL,
    }
)
