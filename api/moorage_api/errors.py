"""Every error that crosses a boundary of Moorage.

::

    MoorageError
    ├── InvalidRequest              the sender can mend it
    │   ├── InvalidBody             not JSON, truncated, wrongly framed
    │   ├── BodyTooLarge            larger than a limit, before or after decompression
    │   ├── UnsupportedContent      a content type or encoding nobody reads here
    │   ├── InvalidTensor           one input or output is not what the model takes
    │   ├── WrongMethod             the path takes another HTTP method
    │   ├── InvalidName             a name, version or path segment that is not one
    │   └── ModelFailed             the model refused to compute this input
    ├── NotFound
    │   ├── UnknownPath
    │   ├── UnknownModel
    │   ├── UnknownVersion
    │   ├── UnknownEndpoint
    │   └── UnknownPrediction
    ├── Conflict
    │   ├── VersionExists           a model version never changes once stored
    │   └── EndpointTaken           two deployments claim one endpoint
    ├── InvalidResource             a ModelDeployment that is refused, with every problem
    ├── Unsupported                 the protocol names it, this server does not do it
    ├── Unavailable                 worth trying again later
    │   ├── NotReady                still loading, or failed to load
    │   ├── Stopped                 `spec.stopped: true`
    │   ├── Overloaded              a queue is full
    │   ├── StoreUnavailable        the database does not answer
    │   └── RuntimeUnreachable      no runtime took the request
    ├── RuntimeTimeout              a runtime took the request and did not answer in time
    ├── RuntimeBroke                a runtime took the request and its answer is unusable
    └── ModelRejected               a model that will never serve as it is
        ├── DownloadFailed
        ├── ChecksumMismatch
        ├── UnsupportedOpset
        └── BadModel

An error says what is wrong in its message and carries the parts as attributes. It knows no HTTP
status, exit code or retry delay: each shell holds one table for that.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

_Entry = TypeVar("_Entry")


class MoorageError(Exception):
    """The root: `except MoorageError` catches every expected failure."""


class InvalidRequest(MoorageError):
    """The request cannot be answered as it is; its sender can mend it."""


class InvalidBody(InvalidRequest):
    """The body is not what its headers or the protocol promise."""


class BodyTooLarge(InvalidRequest):
    """The body is larger than the limit.

    Parameters
    ----------
    limit
        Bytes that are accepted.
    what
        Which body, for the message.
    """

    def __init__(self, limit: int, what: str = "the request body") -> None:
        super().__init__(f"{what} is larger than the limit of {limit} bytes")
        self.limit = limit


class UnsupportedContent(InvalidRequest):
    """The content type or content encoding is not one that is read here."""


class InvalidTensor(InvalidRequest):
    """One tensor of the request does not fit the model.

    Parameters
    ----------
    tensor
        Name of the input or output at fault.
    expected
        What the model takes, in words or as `DATATYPE [shape]`.
    got
        What came.
    kind
        "input" or "output".
    """

    def __init__(self, tensor: str, expected: str, got: str, kind: str = "input") -> None:
        super().__init__(f"{kind} {tensor!r}: expected {expected}, got {got}")
        self.tensor = tensor
        self.expected = expected
        self.got = got


class WrongMethod(InvalidRequest):
    """The path exists and takes another HTTP method.

    Parameters
    ----------
    method
        The one that came.
    allowed
        The ones that are taken.
    """

    def __init__(self, method: str, allowed: Sequence[str]) -> None:
        super().__init__(f"method {method} is not allowed here; use {' or '.join(allowed)}")
        self.allowed = tuple(allowed)


class InvalidName(InvalidRequest):
    """A name that may not be used, because it would be ambiguous or unsafe."""


class ModelFailed(InvalidRequest):
    """The model's own graph refused the input, e.g. an index beyond a table's end."""


class NotFound(MoorageError):
    """What the request names does not exist."""


class UnknownPath(NotFound):
    """Nothing answers at this path."""

    def __init__(self, path: str) -> None:
        super().__init__(f"no such path: {path[:200]}")
        self.path = path


class UnknownModel(NotFound):
    """No deployment and no registered model has this name.

    Notes
    -----
    The message holds "Request for unknown model", which examples of Triton's clients look for.
    """

    def __init__(self, name: str, known: Sequence[str] = ()) -> None:
        super().__init__(f"Request for unknown model: {name!r} is not found{_known(known)}")
        self.name = name


class UnknownVersion(NotFound):
    """The model exists, this version of it does not."""

    def __init__(self, name: str, version: str, known: Sequence[str] = ()) -> None:
        super().__init__(
            f"Request for unknown model: {name!r} version {version!r} is not found{_known(known)}"
        )
        self.name = name
        self.version = version


class UnknownEndpoint(NotFound):
    """No deployment answers at this endpoint."""

    def __init__(self, endpoint: str, known: Sequence[str] = ()) -> None:
        super().__init__(f"no deployment has the endpoint {endpoint!r}{_known(known)}")
        self.endpoint = endpoint


class UnknownPrediction(NotFound):
    """No stored prediction has this id."""


class Conflict(MoorageError):
    """The request contradicts what is already there."""


class VersionExists(Conflict):
    """The registry holds other bytes under this name and version, and versions never change."""


class EndpointTaken(Conflict):
    """Another deployment already answers at the endpoint.

    Parameters
    ----------
    endpoint
        The endpoint both claim.
    holder
        Name of the deployment that has it.
    """

    def __init__(self, endpoint: str, holder: str) -> None:
        super().__init__(f"endpoint {endpoint!r} belongs to deployment {holder!r}; choose another")
        self.endpoint = endpoint
        self.holder = holder


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a resource.

    Parameters
    ----------
    field
        Path of the field as the YAML spells it, e.g. `spec.model.uri`; empty for the whole.
    message
        What was expected and what came.
    """

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


class InvalidResource(MoorageError):
    """A ModelDeployment that no door lets in.

    Parameters
    ----------
    problems
        All of them, in the order of the document; at least one.
    source
        The file or request it came from; empty when there is nothing to say.
    """

    def __init__(self, problems: Sequence[Problem], source: str = "") -> None:
        lead = f"{source}: " if source else ""
        super().__init__(lead + "; ".join(str(problem) for problem in problems))
        self.problems = tuple(problems)
        self.source = source


class Unsupported(MoorageError):
    """The protocol has a name for it and this server does not do it."""


class Unavailable(MoorageError):
    """Nothing is wrong with the request; the same one may succeed later."""


class NotReady(Unavailable):
    """The model exists and cannot answer yet, or no longer.

    Parameters
    ----------
    name
        The deployment.
    why
        The reason, as the resource's Ready condition gives it.
    """

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"model {name!r} is not ready: {why}")
        self.name = name
        self.why = why


class Stopped(Unavailable):
    """The deployment is switched off by `spec.stopped`."""

    def __init__(self, name: str) -> None:
        super().__init__(f"deployment {name!r} is stopped; set spec.stopped to false to serve it")
        self.name = name


class Overloaded(Unavailable):
    """A queue on the way is full; the request was not started."""


class StoreUnavailable(Unavailable):
    """The prediction store does not answer."""


class RuntimeUnreachable(Unavailable):
    """No runtime accepted the request, so it has certainly not run."""


class RuntimeTimeout(MoorageError):
    """A runtime accepted the request and did not answer in time; it may have run."""


class RuntimeBroke(MoorageError):
    """A runtime accepted the request and broke off or answered nonsense; it may have run."""


class ModelRejected(MoorageError):
    """The model cannot be served as it is.

    Its class name is the reason that users see in a status and on the last line of a runtime.
    """


class DownloadFailed(ModelRejected):
    """The model could not be fetched."""


class ChecksumMismatch(ModelRejected):
    """The fetched bytes are not the ones that `sha256` names."""

    def __init__(self, expected: str, got: str) -> None:
        super().__init__(f"sha256 of the model is {got}, expected {expected}")
        self.expected = expected
        self.got = got


class UnsupportedOpset(ModelRejected):
    """The model was exported for a newer operator set or file format than this runtime knows."""


class BadModel(ModelRejected):
    """The file is not an ONNX model that can be loaded and run."""


def entry_of(table: Mapping[type[MoorageError], _Entry], error: BaseException) -> _Entry | None:
    """Return what a shell's table holds for an error: its class's entry, or its nearest ancestor's.

    None for an error that is not Moorage's.
    """
    return next((table[kind] for kind in type(error).__mro__ if kind in table), None)


def _known(names: Iterable[str], most: int = 20) -> str:
    names = sorted(set(names), key=_natural)
    if not names:
        return "; there is none"
    shown = ", ".join(names[:most])
    return f"; there are: {shown}" + (", …" if len(names) > most else "")


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """Order names as people do, "2" before "10"."""
    parts = re.split(r"([0-9]+)", name)
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]
