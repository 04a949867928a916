"""The ModelDeployment resource, version `moorage.dev/v1alpha1`.

The types here are the source of the CRD (`crd.py`) and the one validation behind three doors: the
API server (which gets the same rules as schema and CEL), the gateway and the command line. A field
enters in the change that makes it work, so every field below does something.
"""

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import ROUND_CEILING, Context, Decimal
from typing import Annotated, Any, ClassVar, Final, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from moorage_api import keys, names
from moorage_api.errors import InvalidResource, Problem

_Check = TypeVar("_Check", bound=Callable[[Any], bool])


def rule(cel: str, message: str) -> Callable[[_Check], _Check]:
    """Mark a method of a spec as a cross-field rule.

    Parameters
    ----------
    cel
        The same rule for the API server, on `self`. A test holds the two equal.
    message
        What the user did and what to do, shown by every door.
    """

    def mark(check: _Check) -> _Check:
        check.rule = (cel, message)  # type: ignore[attr-defined]
        return check

    return mark


class Spec(BaseModel):
    """Base of every part of the resource: immutable, strict, camelCase on the wire."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
    )

    #: (CEL, message, check) of each `@rule`, in the order of the class body.
    rules: ClassVar[tuple[tuple[str, str, Callable[[Any], bool]], ...]] = ()

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        cls.rules = tuple(
            (*member.rule, member) for member in vars(cls).values() if hasattr(member, "rule")
        )

    @model_validator(mode="after")
    def _obey_rules(self) -> "Spec":
        for _, message, check in self.rules:
            if not check(self):
                raise PydanticCustomError("rule", "{message}", {"message": message})
        return self


#: `resource.Quantity` of Kubernetes, without a sign.
QUANTITY_PATTERN: Final = (
    r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,2})?$"
)
#: Whole numbers from here on are not exact in every JSON reader; as text they are.
_MAX_EXACT: Final = 2**53 - 1
_SUFFIXES: Final = {
    "": Decimal(1),
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "k": Decimal(10**3),
    **{letter: Decimal(1000**power) for power, letter in enumerate("MGTPE", start=2)},
    **{f"{letter}i": Decimal(1024**power) for power, letter in enumerate("KMGTPE", start=1)},
}
#: Holds 64 digits times any suffix without rounding.
_EXACT: Final = Context(prec=300)
_LARGEST: Final = Decimal(2**63 - 1)


def parse_quantity(value: str | int) -> Decimal:
    """Return a Kubernetes quantity as a number: "500m" is 0.5, "1Gi" is 1073741824.

    Raises
    ------
    ValueError
        When it is no quantity.

    Notes
    -----
    As `resource.ParseQuantity` does, it rounds up to nano and takes 2^63 - 1 for anything above.
    """
    text = str(value)
    match = re.fullmatch(QUANTITY_PATTERN, text, re.ASCII)
    if match is None:
        raise ValueError(f"expected a quantity such as 2, 500m or 1Gi, got {text[:80]!r}")
    number, suffix = Decimal(match[1]), match[3] or ""
    factor = _SUFFIXES[suffix] if suffix in _SUFFIXES else Decimal(f"1{suffix}")
    exact = min(_EXACT.multiply(number, factor), _LARGEST)
    return exact.quantize(_SUFFIXES["n"], ROUND_CEILING, _EXACT)


def _is_quantity(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"expected a quantity such as 2, 500m or 1Gi, got {value!r}")
    if len(str(value)) > 64:
        raise ValueError("expected a quantity of at most 64 characters")
    if isinstance(value, int) and value > _MAX_EXACT:
        raise ValueError(f"expected a quantity in quotes above {_MAX_EXACT}, got {value}")
    parse_quantity(value)
    return value


Quantity = Annotated[
    Any,
    AfterValidator(_is_quantity),
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "pattern": QUANTITY_PATTERN,
            "maxLength": 64,
            "minimum": 0,
            "maximum": _MAX_EXACT,
        }
    ),
]
Quantities = Annotated[dict[str, Quantity], Field(max_length=16)]
Segment = Annotated[
    str, StringConstraints(pattern=names.SEGMENT_PATTERN, min_length=1, max_length=names.LABEL_MAX)
]


class Model(Spec):
    """Which model is served."""

    uri: Annotated[str, StringConstraints(pattern=names.URI_PATTERN, max_length=2048)] = Field(
        description="Address of an ONNX file or of a Triton-style folder: file, http(s), s3, gs, "
        "az, sftp, hf, or models:/NAME/VERSION for one in the gateway's registry."
    )
    version: Segment | None = Field(
        default=None,
        description="Version in V2 metadata and on every logged row. Default: the version of a "
        "models:/ address, else 1.",
    )
    sha256: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")] | None = Field(
        default=None, description="SHA-256 of the ONNX file in hexadecimal, checked before load."
    )

    @rule(
        "!self.uri.startsWith('models:/') || !has(self.version) "
        "|| self.uri.endsWith('/' + self.version)",
        "version must be the one that the models:/NAME/VERSION address names; leave it out",
    )
    def _one_version(self) -> bool:
        if not self.uri.startswith("models:/") or self.version is None:
            return True
        return self.uri.endswith(f"/{self.version}")


class Batching(Spec):
    """How requests that wait at the same time share a run of the model.

    Requests that are ready in the same turn of the server's loop always share a run where the
    model's first dimension is open; a delay waits for more of them.
    """

    max_batch_size: Annotated[int, Field(ge=1, le=65536)] = Field(
        default=64, description="Most rows in one run of the model."
    )
    max_delay_ms: Annotated[int, Field(ge=0, le=10000)] = Field(
        default=0, description="Longest time that a request waits for others, in milliseconds."
    )

    @rule(
        "self.maxDelayMs == 0 || self.maxBatchSize > 1",
        "maxDelayMs makes requests wait for a batch; it needs maxBatchSize above 1",
    )
    def _no_wait_for_nothing(self) -> bool:
        return self.max_delay_ms == 0 or self.max_batch_size > 1


class Threads(Spec):
    """Threads of ONNX Runtime in each replica."""

    intra_op: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        default=None,
        description="Threads within one operator. Default: the CPU limit, else the CPUs there are.",
    )
    inter_op: Annotated[int, Field(ge=1, le=1024)] = Field(
        default=1,
        description="Operators that run side by side; above 1 the graph runs in parallel.",
    )


class Runtime(Spec):
    """How the model is run."""

    batching: Batching = Field(default=Batching())
    threads: Threads = Field(default=Threads())
    warmup: bool = Field(
        default=True,
        description="Run the model some more times after the probe, before it is ready, so that "
        "no request pays for first-run allocations.",
    )


class Resources(Spec):
    """CPU and memory of each replica, as in a container."""

    requests: Quantities = Field(default={}, description="What the scheduler sets aside.")
    limits: Quantities = Field(
        default={},
        description="What a replica may not exceed. limits.cpu also sets the default of "
        "runtime.threads.intraOp.",
    )

    @rule(
        "self.requests.all(name, !(name in self.limits) || "
        "quantity(string(self.requests[name]))"
        ".compareTo(quantity(string(self.limits[name]))) <= 0)",
        "a request may not be above its limit",
    )
    def _requests_within_limits(self) -> bool:
        return all(
            parse_quantity(value) <= parse_quantity(self.limits[name])
            for name, value in self.requests.items()
            if name in self.limits
        )


class Logging(Spec):
    """What is remembered of each prediction."""

    enabled: bool = Field(default=True, description="Whether predictions are stored.")
    sample_percent: Annotated[int, Field(ge=0, le=100)] = Field(
        default=100,
        description="Share of the successful predictions that is stored, chosen by a hash of the "
        "prediction's id; stored rows carry the weight 100 / samplePercent. Errors are always "
        "stored.",
    )


class ModelDeploymentSpec(Spec):
    """What is asked for."""

    model: Model
    endpoint: Segment | None = Field(
        default=None,
        description="Name in /predict/{endpoint} of the gateway. Default: metadata.name.",
    )
    replicas: Annotated[int, Field(ge=0, le=1000)] = Field(
        default=1, description="Copies of the runtime."
    )
    runtime: Runtime = Field(default=Runtime())
    resources: Resources = Field(default=Resources())
    logging: Logging = Field(default=Logging())
    stopped: bool = Field(
        default=False, description="Stop all replicas and refuse requests, keeping the resource."
    )


class Lenient(BaseModel):
    """Base of what other programs write: read what is known, keep quiet about the rest."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True
    )


class TensorStatus(Lenient):
    """One input or output of the running model."""

    name: str
    datatype: str
    shape: list[int]
    classes: list[str] = Field(
        default=[], description="Labels of the last dimension, where the graph names them."
    )


class ModelStatus(Lenient):
    """The model as the runtime loaded it."""

    version: str = ""
    sha256: str = ""
    inputs: list[TensorStatus] = []
    outputs: list[TensorStatus] = []


class ConditionStatus(Lenient):
    """A `metav1.Condition`."""

    type: Annotated[str, Field(max_length=316)]
    status: Literal["True", "False", "Unknown"]
    reason: Annotated[str, Field(min_length=1, max_length=1024)]
    message: Annotated[str, Field(max_length=32768)]
    last_transition_time: datetime
    observed_generation: Annotated[int, Field(ge=0)] = 0


class Address(Lenient):
    """Where the runtime answers directly, unlogged."""

    url: str = ""


class VariantStatus(Lenient):
    """One model of the deployment."""

    name: str
    version: str = ""
    weight: Annotated[int, Field(ge=0, le=100)] = Field(
        default=100, description="Percent of the requests that it gets."
    )
    ready_replicas: int = 0


class ModelDeploymentStatus(Lenient):
    """What is seen."""

    observed_generation: int = 0
    phase: str = ""
    replicas: int = 0
    ready_replicas: int = 0
    selector: str = Field(default="", description="Label selector of the pods, for scaling.")
    url: str = Field(default="", description="The endpoint at the gateway; logged.")
    address: Address = Field(default=Address(), description="The runtime; unlogged.")
    model: ModelStatus = ModelStatus()
    variants: list[VariantStatus] = []
    conditions: list[ConditionStatus] = []

    def condition(self, kind: str) -> ConditionStatus | None:
        """Return the condition of that type, None when nobody has written it."""
        return next((item for item in self.conditions if item.type == kind), None)


class Metadata(Lenient):
    """The part of `metadata` that Moorage reads; Kubernetes owns the rest."""

    name: Annotated[
        str, StringConstraints(pattern=names.DEPLOYMENT_PATTERN, max_length=names.LABEL_MAX)
    ]
    namespace: Annotated[
        str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)
    ] = keys.DEFAULT_NAMESPACE
    generation: int = 0
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class ModelDeployment(BaseModel):
    """A model to be served, and how it is."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True
    )

    api_version: Literal["moorage.dev/v1alpha1"]
    kind: Literal["ModelDeployment"]
    metadata: Metadata
    spec: ModelDeploymentSpec
    status: ModelDeploymentStatus = ModelDeploymentStatus()

    @property
    def key(self) -> names.Qualified:
        """Namespace and name."""
        return names.Qualified(self.metadata.namespace, self.metadata.name)

    @property
    def endpoint(self) -> str:
        """Name in `/predict/{endpoint}`."""
        return self.spec.endpoint or self.metadata.name

    @property
    def model_name(self) -> str:
        """Name of the model that clients ask for: the registry's where it comes from there."""
        reference = names.registry_reference(self.spec.model.uri)
        return reference[0] if reference else self.metadata.name

    @property
    def model_version(self) -> str:
        """Version of the model."""
        reference = names.registry_reference(self.spec.model.uri)
        return self.spec.model.version or (reference[1] if reference else "1")


def load(document: Any, source: str = "") -> ModelDeployment:
    """Validate one parsed document: the one validation behind all doors.

    Parameters
    ----------
    document
        As parsed from YAML or JSON.
    source
        File or request that it came from, for messages.

    Raises
    ------
    InvalidResource
        With every problem, each naming its field as the document spells it.
    """
    try:
        if isinstance(document, dict) and isinstance(document.get("spec"), dict):
            document = document | {"spec": _as_api_server_reads(document["spec"])}
        # Names of Python's spelling are for Python; a document has the wire's.
        return ModelDeployment.model_validate(document, by_alias=True, by_name=False)
    except RecursionError:
        raise InvalidResource([Problem("", "is nested too deeply")], source) from None
    except ValidationError as error:
        problems = [
            Problem(_path(item["loc"]), _sentence(item["msg"], item["type"], item["input"]))
            for item in error.errors(include_url=False)
        ]
        raise InvalidResource(problems, source) from error


def dump(resource: ModelDeployment) -> dict[str, Any]:
    """Return the resource as a document of its own wire form, without status and defaults."""
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": resource.metadata.model_dump(
            by_alias=True, exclude_defaults=True, exclude={"generation"}
        ),
        "spec": resource.spec.model_dump(by_alias=True, exclude_unset=True),
    }


def _as_api_server_reads(value: Any) -> Any:
    """Drop null members, which the API server replaces by defaults, and take 2.0 for 2."""
    if isinstance(value, dict):
        return {key: _as_api_server_reads(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_as_api_server_reads(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _path(location: tuple[int | str, ...]) -> str:
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


#: What to say instead of a pattern.
_WORDS: Final = {
    names.URI_PATTERN: "expected an address such as file:model.onnx, https://host/model.onnx, "
    "s3://bucket/model or models:/NAME/VERSION",
    names.SEGMENT_PATTERN: "expected letters, digits, '_', '.' or '-', starting and ending with a "
    "letter or digit",
    names.DEPLOYMENT_PATTERN: "expected lower-case letters, digits or '-', starting with a letter "
    "and not ending with '-'",
    "^[0-9a-f]{64}$": "expected 64 hexadecimal digits in lower case",
}


def _sentence(message: str, kind: str, value: Any) -> str:
    if kind == "missing":
        return "is required"
    if kind == "extra_forbidden":
        return "is not a field of this resource; is it misspelt?"
    if kind == "rule":
        return message
    message = message.removeprefix("Value error, ")
    for pattern, words in _WORDS.items():
        if kind == "string_pattern_mismatch" and pattern in message:
            message = words
    if kind == "string_type" and isinstance(value, int | float):
        message = "expected a string; put it in quotes"
    if "got " in message or isinstance(value, Mapping | list):
        return message
    return f"{message}, got {value!r}"[:400]
